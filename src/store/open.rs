//! Opens or creates the store, and the handle that the modules share.

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
use super::holder::Holder;
use super::lock::{self, Lock};
use super::log::{Found, Log};
use super::pages::{self, Scope};
use super::writer::{Signals, Step, Writer};
use super::{Error, Options, Snapshot, Tx, checksum, recover, tx, upgrade};

/// The format that this version writes, and the newest that it reads. See `docs/format.md`.
pub const FORMAT: u64 = 3;

/// The open store. Clones share it. Dropping the last one blocks: it commits the pending steps, closes the file and
/// releases the lock.
#[derive(Clone)]
pub struct Store {
    /// Steps for the writer; bounded, so that callers wait when the disk is slow. Declared before `open`, and therefore
    /// dropped before it: the writer ends when the last sender is gone.
    steps: mpsc::Sender<Box<dyn super::writer::PendingStep>>,
    signals: Arc<Signals>,
    /// Counts commits; incremented by the writer.
    commits: Arc<AtomicU64>,
    /// Counts refused steps that had written; incremented by the writer.
    roll_backs: Arc<AtomicU64>,
    /// Counts the log's syncs; incremented by its thread.
    syncs: Arc<AtomicU64>,
    /// The fault that stopped the store; set once, by the writer or the log's thread.
    stopped: watch::Receiver<Option<Error>>,
    /// Closed with the last clone.
    open: Arc<Open>,
}

/// What the last clone closes, in this order.
struct Open {
    /// Joined first, because it holds the file too. `None` only while closing.
    writer: Option<JoinHandle<()>>,
    /// The log's thread, which the writer joins.
    appender: ThreadId,
    /// `None` only while closing.
    db: Option<Arc<Database>>,
    /// The file, as its options name it.
    path: PathBuf,
    /// Released last, after the file is closed; `None` on a [`Disk`] that was passed in.
    _lock: Option<Lock>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A step or result that holds the last clone drops it on one of the store's own threads, which cannot join
        // itself.
        let here = std::thread::current().id();
        let writer = self.writer.take().filter(|writer| ![writer.thread().id(), self.appender].contains(&here));
        // A panic of the writer has already failed its callers.
        let _ = writer.map(JoinHandle::join);
        // redb panics on some damaged pages; nobody is left to report that to.
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
    /// Opens the store, or creates it when there is no file yet; takes the lock of its directory.
    ///
    /// # Errors
    /// [`Error::Locked`] names the holder; [`Error::Damaged`] and [`Error::Newer`] leave the file as it is.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let ExclusiveStore { db, log, last, lock } = ExclusiveStore::open(options)?;
        Ok(Self::start(db, (log, last), Some(lock), options))
    }

    /// The same, but waits for commands that read the store, for at most [`lock::WAIT_MAX`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_when_free(options: &Options) -> Result<Self, Error> {
        lock::when_free(options.purpose, lock::WAIT_MAX, || Self::open(options)).await
    }

    /// Opens the store on two disks that the caller passes in, or creates it when both are empty; takes no lock. The
    /// paths in the options appear only in errors.
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
            verify_pages(&*disk, Scope::Bookkeeping, options)?;
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
        let (steps, pending) = mpsc::channel(options.waiting_max);
        let (ran, groups) = std::sync::mpsc::sync_channel(HANDED_OVER_MAX);
        let (stopped_sender, stopped) = watch::channel(None);
        let (signals, commits, syncs) = (Arc::<Signals>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let roll_backs = Arc::<AtomicU64>::default();
        let space = log.space();
        let (signals_of_log, syncs_of_log) = (Arc::clone(&signals), Arc::clone(&syncs));
        let stopped_of_log = stopped_sender.clone();
        let appender = Appender { log, groups, signals: signals_of_log, syncs: syncs_of_log, stopped: stopped_of_log };
        let appender = thread("store-log", move || appender.run());
        let appender_id = appender.thread().id();
        let writer = Writer {
            db: db.clone(),
            path: options.path.clone(),
            pending,
            group_max: options.group_max,
            commits: commits.clone(),
            roll_backs: roll_backs.clone(),
            stopped: stopped_sender,
            last,
            space,
            ran,
            appender,
        };
        let writer = thread("store-writer", move || writer.run());
        let path = options.path.clone();
        let open = Arc::new(Open { writer: Some(writer), appender: appender_id, db: Some(db), path, _lock: lock });
        Self { steps, signals, commits, roll_backs, syncs, stopped, open }
    }

    /// Runs a step in the next group and returns its result once it is on disk. The step runs even when the caller's
    /// future is dropped.
    ///
    /// # Errors
    /// The step's own error, or a storage fault: then the store has stopped, and whether the step was committed is
    /// unknown.
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

    /// A view that includes every step that has returned. It may also include a group that is not durable yet.
    ///
    /// # Errors
    /// A storage fault.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let db = self.open.db.as_ref().expect("the file is open as long as a handle lives");
        Ok(Snapshot::new(db.begin_read()?))
    }

    /// Reads a snapshot on a thread of its own: what may be more than a few rows must not hold up the other loops of
    /// the runtime. A read that was begun goes on when its caller is gone.
    ///
    /// # Errors
    /// The read's own error, or a storage fault.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || read(&store.snapshot()?)).await {
            Ok(answer) => answer,
            Err(fault) => match fault.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Stopped("the process is ending".into()).into()),
            },
        }
    }

    /// The store's file, as its options name it.
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// How many commits this store has made since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// How many steps were refused after a write since it was opened. Their writes were rolled back, but each is a bug.
    pub fn roll_backs(&self) -> u64 {
        self.roll_backs.load(Ordering::Relaxed)
    }

    /// How many syncs of the log since then: one for all groups that shared it, and one for each checkpoint, whose
    /// commit has two more of its own.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// A counter that changes after each commit that signalled `topic`.
    pub fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        self.signals.subscribe(topic)
    }

    /// Waits until the store has stopped and returns the reason. Never ends while the store works.
    pub async fn stopped(&self) -> Error {
        let mut stopped = self.stopped.clone();
        // The writer thread owns the sender: when it is dropped without a reason, the writer has panicked.
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

/// A store in exclusive use, without the threads that serve callers: while it is being opened, and for commands that
/// work on the file itself. Everything is in redb's file; the log holds nothing.
pub(super) struct ExclusiveStore {
    pub(super) db: Database,
    log: Log,
    /// The number that the log starts after.
    last: u64,
    /// Released last.
    lock: Lock,
}

impl ExclusiveStore {
    /// Takes the lock of the directory and opens the store, or creates it when there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        Self::open_verified(options, Scope::Bookkeeping)
    }

    /// The same, and verifies those pages before anything is written.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(super) fn open_verified(options: &Options, scope: Scope) -> Result<Self, Error> {
        let dir = match options.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        let lock = Lock::take(dir, options.purpose)?;
        let sync_dir = || File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed(dir, &error));
        guarded(&options.path, || {
            let found = find_log(options)?;
            let db = open_file(options, found.as_ref().map(|(_, found)| found), scope)?;
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

    /// Closes the store cleanly: redb's file is complete without the log.
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

/// The error for a file or directory that cannot be opened.
pub(super) fn failed(path: &Path, reason: &std::io::Error) -> Error {
    Error::of_open(path, reason)
}

fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    thread.expect("the system starts one more thread at start-up")
}

/// Turns redb's panics on damaged files into an error that names the file, as for any other damage.
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

/// The log, if there is one.
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

/// Creates the log under a temporary name and renames it when it is whole.
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

fn open_file(options: &Options, found: Option<&Found>, scope: Scope) -> Result<Database, Error> {
    let path = &options.path;
    match std::fs::metadata(path) {
        Ok(file) if file.len() == 0 => Err(Error::Damaged { path: path.clone(), reason: "the file is empty".into() }),
        Ok(_) => open_known(options, found, scope),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && found.is_some() => Err(missing(options)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(options),
        Err(error) => Err(failed(path, &error)),
    }
}

fn missing(options: &Options) -> Error {
    let reason = format!(
        "it is missing or empty, but its log {} is there; without both, an empty store is made",
        options.log_path().display()
    );
    Error::Damaged { path: options.path.clone(), reason }
}

/// Checks the file before anything may write to it, so that a foreign or newer one is left as it is, byte for byte.
/// redb has to repair a file that was not closed cleanly before it can be read.
fn open_known(options: &Options, found: Option<&Found>, scope: Scope) -> Result<Database, Error> {
    let path = &options.path;
    match builder(options).open_read_only(path) {
        Ok(seen) => drop(check(&Snapshot::new(seen.begin_read()?), found, options)?),
        Err(redb::DatabaseError::RepairAborted) => {}
        Err(error) => return Err(refused(path, error)),
    }
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    verify_pages(&FileDisk(file), scope, options)?;
    let db = builder(options).open(path).map_err(|error| refused(path, error))?;
    check(&Snapshot::new(db.begin_read()?), found, options)?.bring(&db)?;
    Ok(db)
}

/// Verifies redb's pages as they are on disk.
fn verify_pages(disk: &dyn Disk, scope: Scope, options: &Options) -> Result<(), Error> {
    let verified = pages::verify(disk, scope);
    verified.map_err(|reason| Error::Damaged { path: options.path.clone(), reason })
}

/// Creates the file under a temporary name and renames it when it is whole, so that a crash never leaves half a store.
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
            holder: Holder::named("a process that opened the file itself"),
        },
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() == PermissionDenied => failed(path, &io),
        other => Error::Damaged { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Creates the empty file, readable by its owner alone: it holds names and addresses.
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
    recover::assign_store_number(&mut tx)?;
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
    // Formats 1 and 2 have no checksums.
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
