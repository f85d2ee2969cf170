//! Opening and making the store, and the handle that the rooms share.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, ThreadId};

use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use super::appender::{Appender, HANDED_OVER_MAX};
use super::disk::{Backend, Disk, FileDisk};
use super::lock::Lock;
use super::log::{Found, Log};
use super::writer::{Signals, Step, Writer};
use super::{Error, Options, Snapshot, Tx, checksum, recover, tx, upgrade};

/// The newest format that this version reads, and the one that it writes. See `docs/format.md`.
pub const FORMAT: u64 = 3;

/// The open store. Clones share it. When the last one is dropped, the steps that wait are committed, the file is
/// closed and the lock is free: the drop takes as long as those commits.
#[derive(Clone)]
pub struct Store {
    /// Steps on their way to the writer; bounded, so that callers wait when the disk is slow. Stands before `open`:
    /// the writer ends when the last sender is gone.
    steps: mpsc::Sender<Box<dyn super::writer::Waiting>>,
    signals: Arc<Signals>,
    /// Counts commits; moved by the writer.
    commits: Arc<AtomicU64>,
    /// Counts the log's syncs; moved by its thread.
    syncs: Arc<AtomicU64>,
    /// Carries the fault that stopped the store; set once, by the writer or the log's thread.
    stopped: watch::Receiver<Option<Error>>,
    /// The file, for as long as any clone lives.
    open: Arc<Open>,
}

/// What is closed with the last clone, in this order.
struct Open {
    /// Joined first: it holds the file too. `None` only while closing.
    writer: Option<JoinHandle<()>>,
    /// The log's thread, which the writer joins.
    appender: ThreadId,
    /// `None` only while closing.
    db: Option<Arc<Database>>,
    /// The file, as its options name it.
    path: PathBuf,
    /// Freed last, when the file is closed; none on a [`Disk`] that was handed in.
    _lock: Option<Lock>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A step or an answer that holds the last clone drops it on a thread of the store's, which cannot wait for
        // itself.
        let here = std::thread::current().id();
        let writer = self.writer.take().filter(|writer| ![writer.thread().id(), self.appender].contains(&here));
        // A panic of the writer was already told to those whose steps it took along.
        let _ = writer.map(JoinHandle::join);
        // redb panics on some damaged pages; there is nobody left who would need to know.
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("stopped", &*self.stopped.borrow()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, or makes it when there is no file yet; takes the lock of its directory.
    ///
    /// # Errors
    /// [`Error::Locked`] names the holder; [`Error::Damaged`] and [`Error::Newer`] leave the file as it is.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let Alone { db, log, last, lock } = Alone::open(options)?;
        Ok(Self::start(db, (log, last), Some(lock), options))
    }

    /// Opens the store on two disks of the caller's, or makes it when both are empty; takes no lock. The paths of the
    /// options are what errors call them.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: Arc<dyn Disk>, log: Arc<dyn Disk>, options: &Options) -> Result<Self, Error> {
        let path = &options.path;
        let length = |disk: &dyn Disk, path: &Path| disk.bytes().map_err(|error| failed(path, &error));
        let (bytes, log_bytes) = (length(&*disk, path)?, length(&*log, &options.log_path())?);
        let (db, log) = guarded(path, || {
            let look = || Found::look(&*log, &options.log_path());
            let found = if log_bytes == 0 { None } else { Some(look()?) };
            if bytes == 0 && found.is_some() {
                return Err(missing(options));
            }
            let db = builder(options).create_with_backend(Backend(disk)).map_err(|error| refused(path, error))?;
            if bytes == 0 {
                make_tables(&db)?;
            }
            check(&Snapshot::new(db.begin_read()?), found.as_ref(), options)?.bring(&db)?;
            let found = match found {
                Some(found) => found,
                None => {
                    recover::make_log(&db, log.clone(), options)?;
                    look()?
                }
            };
            let log = recover::recover(&db, log.clone(), &found, options)?;
            Ok((db, log))
        })?;
        Ok(Self::start(db, log, None, options))
    }

    fn start(db: Database, (log, last): (Log, u64), lock: Option<Lock>, options: &Options) -> Self {
        let db = Arc::new(db);
        let (steps, waiting) = mpsc::channel(options.waiting_max);
        let (ran, groups) = std::sync::mpsc::sync_channel(HANDED_OVER_MAX);
        let (stopped_sender, stopped) = watch::channel(None);
        let (signals, commits, syncs) = (Arc::<Signals>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let space = log.space();
        let (signals_of_log, syncs_of_log) = (Arc::clone(&signals), Arc::clone(&syncs));
        let stopped_of_log = stopped_sender.clone();
        let appender = Appender { log, groups, signals: signals_of_log, syncs: syncs_of_log, stopped: stopped_of_log };
        let appender = thread("store-log", move || appender.run());
        let appender_id = appender.thread().id();
        let writer = Writer {
            db: db.clone(),
            path: options.path.clone(),
            waiting,
            group_max: options.group_max,
            commits: commits.clone(),
            stopped: stopped_sender,
            last,
            space,
            ran,
            appender,
        };
        let writer = thread("store-writer", move || writer.run());
        let path = options.path.clone();
        let open = Arc::new(Open { writer: Some(writer), appender: appender_id, db: Some(db), path, _lock: lock });
        Self { steps, signals, commits, syncs, stopped, open }
    }

    /// Runs a step in the next group and answers once it is on disk. The step runs even when the caller goes away.
    ///
    /// # Errors
    /// The step's own refusal, or a storage fault: then the store has stopped and what was written is unknown.
    pub async fn write<T, E, F>(&self, step: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        if self.steps.send(Box::new(Step::new(step, caller))).await.is_err() {
            return Err(self.stop_reason().into());
        }
        answer.await.unwrap_or_else(|_| Err(self.stop_reason().into()))
    }

    /// A view of all that was answered by now; it may hold a group more, which is on its way to the disk.
    ///
    /// # Errors
    /// A storage fault.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let db = self.open.db.as_ref().expect("the file is open as long as a handle lives");
        Ok(Snapshot::new(db.begin_read()?))
    }

    /// The store's file, as its options name it.
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// How many commits this store has made since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many syncs the log has had since then: one for all groups that waited for it together, one for each
    /// checkpoint, whose commit has two more of its own.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// A counter that moves after each commit that signalled `topic`.
    pub fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        self.signals.subscribe(topic)
    }

    /// Waits until the store has stopped and says why. Never ends while the store is well.
    pub async fn stopped(&self) -> Error {
        let mut stopped = self.stopped.clone();
        // The sender lives in the writer thread: when it is gone without a word, the writer panicked.
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("the wait ends only on a reason"),
            Err(_) => self.stop_reason(),
        }
    }

    fn stop_reason(&self) -> Error {
        match &*self.stopped.borrow() {
            Some(error) => Error::Stopped(error.to_string()),
            None => Error::Stopped("the writer ended unexpectedly".into()),
        }
    }
}

/// A store that is held alone, without the threads that serve callers: as it is opened, and for the commands that work
/// on the file itself. Everything is in redb's file by now; the log holds nothing.
pub(super) struct Alone {
    pub(super) db: Database,
    log: Log,
    /// The number that the log starts after.
    last: u64,
    /// Freed last.
    lock: Lock,
}

impl Alone {
    /// Takes the lock of the directory and opens the store, or makes it when there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let dir = match options.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        let lock = Lock::take(dir)?;
        let sync_dir = || File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed(dir, &error));
        guarded(&options.path, || {
            let found = find_log(options)?;
            let db = open_file(options, found.as_ref().map(|(_, found)| found))?;
            sync_dir()?;
            let (disk, found) = match found {
                Some(found) => found,
                None => make_log(&db, options)?,
            };
            sync_dir()?;
            let (log, last) = recover::recover(&db, disk, &found, options)?;
            Ok(Self { db, log, last, lock })
        })
    }

    /// Leaves the store as one that was closed cleanly: redb's file is whole without the log.
    ///
    /// # Errors
    /// A storage fault of either file; nothing is lost then.
    pub(super) fn close(mut self, options: &Options) -> Result<(), Error> {
        guarded(&options.path, || {
            let number = recover::close(&self.db, self.last)?;
            self.log.restart(number).map_err(|error| failed(&options.log_path(), &error))
        })
    }
}

/// The refusal of a file or directory that cannot be opened.
pub(super) fn failed(path: &Path, reason: &std::io::Error) -> Error {
    Error::Open { path: path.to_owned(), reason: reason.to_string() }
}

fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.expect("the system starts one more thread at start-up")
}

/// redb panics on some files that it has not written so: the operator gets a refusal that names the file instead, as of
/// any fault of its pages, rows and disk.
pub(super) fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let reason = "redb cannot make sense of its pages (its own words stand above)".to_owned();
        Err(Error::Damaged { path: path.to_owned(), reason })
    });
    opened.map_err(|error| match error {
        Error::Record { table, reason } => {
            Error::Damaged { path: path.to_owned(), reason: format!("table {table}: {reason}") }
        }
        Error::Storage(reason) => Error::Open { path: path.to_owned(), reason },
        other => other,
    })
}

type FoundLog = (Arc<dyn Disk>, Found);

/// The log, when there is one.
fn find_log(options: &Options) -> Result<Option<FoundLog>, Error> {
    let path = options.log_path();
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => {
            let disk = FileDisk(file);
            let found = Found::look(&disk, &path)?;
            Ok(Some((Arc::new(disk), found)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path, &error)),
    }
}

/// Makes the log beside its place and moves it there whole.
fn make_log(db: &Database, options: &Options) -> Result<FoundLog, Error> {
    let path = options.log_path();
    let new = path.with_extension("log.new");
    let failed = |error: std::io::Error| failed(&new, &error);
    remove_left_over(&new).map_err(failed)?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk(make_private(&new)?));
    recover::make_log(db, disk.clone(), options)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    let found = Found::look(&*disk, &path)?;
    Ok((disk, found))
}

fn open_file(options: &Options, found: Option<&Found>) -> Result<Database, Error> {
    let path = &options.path;
    match std::fs::metadata(path) {
        Ok(file) if file.len() == 0 => Err(Error::Damaged { path: path.clone(), reason: "the file is empty".into() }),
        Ok(_) => open_known(options, found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && found.is_some() => Err(missing(options)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(options),
        Err(error) => Err(failed(path, &error)),
    }
}

fn missing(options: &Options) -> Error {
    let reason = format!("it is missing or empty, but its log {} is there; without both, an empty store is made", options.log_path().display());
    Error::Damaged { path: options.path.clone(), reason }
}

/// Looks at the file before anything may write to it, so that a foreign or newer one stays as it is byte for byte.
/// A file that was not closed cleanly can only be looked at once redb has put it in order.
fn open_known(options: &Options, found: Option<&Found>) -> Result<Database, Error> {
    let path = &options.path;
    match builder(options).open_read_only(path) {
        Ok(seen) => drop(check(&Snapshot::new(seen.begin_read()?), found, options)?),
        Err(redb::DatabaseError::RepairAborted) => {}
        Err(error) => return Err(refused(path, error)),
    }
    let db = builder(options).open(path).map_err(|error| refused(path, error))?;
    check(&Snapshot::new(db.begin_read()?), found, options)?.bring(&db)?;
    Ok(db)
}

/// Makes the file beside its place and moves it there whole, so that a crash never leaves half a store.
fn make(options: &Options) -> Result<Database, Error> {
    let path = &options.path;
    let new = path.with_extension("redb.new");
    let failed = |error: std::io::Error| failed(&new, &error);
    remove_left_over(&new).map_err(failed)?;
    drop(make_private(&new)?);
    let db = builder(options).create(&new).map_err(|error| refused(&new, error))?;
    make_tables(&db)?;
    std::fs::rename(&new, path).map_err(failed)?;
    Ok(db)
}

fn remove_left_over(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn builder(options: &Options) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX));
    builder
}

fn refused(path: &Path, error: redb::DatabaseError) -> Error {
    use std::io::ErrorKind::PermissionDenied;
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked {
            dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
            holder: "a process that opened the file itself".into(),
        },
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() == PermissionDenied => {
            failed(path, &io)
        }
        other => Error::Damaged { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Makes the empty file readable by its owner alone; it holds names and addresses.
fn make_private(path: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| failed(path, &error))
}

fn make_tables(db: &Database) -> Result<(), Error> {
    let transaction = db.begin_write()?;
    for name in tx::NAMES {
        transaction.open_table::<&[u8], &[u8]>(redb::TableDefinition::new(name))?;
    }
    let mut tx = Tx::new(&transaction);
    tx.meta()?.insert(&FORMAT_ROW.to_owned(), &FORMAT)?;
    recover::christen(&mut tx)?;
    drop(tx);
    transaction.commit()?;
    Ok(())
}

/// The row of `meta` that names the format.
const FORMAT_ROW: &str = "format";

/// A format that this version can open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    One,
    Two,
    Current,
}

impl Format {
    /// Brings the store to this version's format.
    fn bring(self, db: &Database) -> Result<(), Error> {
        match self {
            Self::One => upgrade::from_1(db),
            Self::Two => upgrade::from_2(db),
            Self::Current => Ok(()),
        }
    }
}

/// Whether the store can be opened with that log.
fn check(snapshot: &Snapshot, found: Option<&Found>, options: &Options) -> Result<Format, Error> {
    let path = &options.path;
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    let meta = snapshot.open("meta").map_err(|_| damaged("it is a redb file without Nightmail's tables".into()))?;
    let key = FORMAT_ROW.as_bytes();
    let read = || Ok(meta.get(key)?.map(|row| row.value().to_vec()));
    let Some(row) = super::table::guarded("meta", read)? else { return Err(damaged("it names no format".into())) };
    // Formats 1 and 2 knew no checksums.
    let value = match row.len() {
        8 => &row[..],
        _ => checksum::open("meta", key, &row).map_err(|why| damaged(format!("its format cannot be read: {why}")))?,
    };
    let found_format = u64::from_be_bytes(value.try_into().map_err(|_| damaged("its format is no number".into()))?);
    match found_format {
        0 => Err(damaged("it names format 0, which never was".into())),
        old @ 1..FORMAT if found.is_some() => {
            let log = options.log_path();
            Err(damaged(format!("it has format {old}, which had no log, and is older than {}", log.display())))
        }
        1 => Ok(Format::One),
        2 => Ok(Format::Two),
        FORMAT if row.len() == 8 => Err(damaged("its format has no checksum".into())),
        FORMAT => recover::check(snapshot, found, options).map(|()| Format::Current),
        newer => Err(Error::Newer {
            path: path.clone(),
            found: u32::try_from(newer).unwrap_or(u32::MAX),
            known: u32::try_from(FORMAT).expect("the format number is small"),
        }),
    }
}
