//! Opening and making the store, and the handle that the rooms share.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Backend, Disk};
use super::lock::Lock;
use super::writer::{Signals, Step, Writer};
use super::{Error, Options, Snapshot, Tx, tx, upgrade};

/// The newest format that this version reads, and the one that it writes. See `docs/format.md`.
pub const FORMAT: u64 = 2;

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
    /// Carries the fault that stopped the store; set once by the writer.
    stopped: watch::Receiver<Option<Error>>,
    /// The file, for as long as any clone lives.
    open: Arc<Open>,
}

/// What is closed with the last clone, in this order.
struct Open {
    /// Joined first: it holds the file too. `None` only while closing.
    writer: Option<JoinHandle<()>>,
    db: Arc<Database>,
    /// The file, as its options name it.
    path: PathBuf,
    /// Freed last, when the file is closed; none on a [`Disk`] that was handed in.
    _lock: Option<Lock>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A step that holds the last clone drops it on the writer's own thread, which cannot wait for itself.
        let writer = self.writer.take().filter(|writer| writer.thread().id() != std::thread::current().id());
        // A panic of the writer was already told to those whose steps it took along.
        let _ = writer.map(JoinHandle::join);
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
        let (lock, db) = open_alone(options)?;
        let db = Arc::new(db);
        Ok(Self::start(db, Some(lock), options))
    }

    /// Opens the store on a disk of the caller's, or makes it when the disk is empty; takes no lock. `options.path` is
    /// what errors call it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<Self, Error> {
        let path = &options.path;
        let bytes = disk.bytes().map_err(|error| Error::Open { path: path.clone(), reason: error.to_string() })?;
        let db = guarded(path, || {
            let db = builder(options).create_with_backend(Backend(disk)).map_err(|error| refused(path, error))?;
            if bytes == 0 {
                make_tables(&db)?;
            }
            present(db, path)
        })?;
        Ok(Self::start(Arc::new(db), None, options))
    }

    fn start(db: Arc<Database>, lock: Option<Lock>, options: &Options) -> Self {
        let (steps, waiting) = mpsc::channel(options.waiting_max);
        let (stopped_sender, stopped) = watch::channel(None);
        let signals = Arc::new(Signals::default());
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            db: db.clone(),
            waiting,
            group_max: options.group_max,
            signals: signals.clone(),
            commits: commits.clone(),
            stopped: stopped_sender,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .expect("the system starts one more thread at start-up");
        let open = Arc::new(Open { writer: Some(writer), db, path: options.path.clone(), _lock: lock });
        Self { steps, signals, commits, stopped, open }
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

    /// A view of what is on disk now.
    ///
    /// # Errors
    /// A storage fault.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot::new(self.open.db.begin_read()?))
    }

    /// The store's file, as its options name it.
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// How many commits this store has made since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
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

/// Takes the lock of the directory and opens the file, or makes it when there is none.
pub(super) fn open_alone(options: &Options) -> Result<(Lock, Database), Error> {
    let dir = match options.path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(dir).map_err(|reason| failed(dir, reason))?;
    let lock = Lock::take(dir)?;
    let db = guarded(&options.path, || open_file(options))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|reason| failed(dir, reason))?;
    Ok((lock, db))
}

/// The refusal of a file or directory that cannot be opened.
pub(super) fn failed(path: &Path, reason: std::io::Error) -> Error {
    Error::Open { path: path.to_owned(), reason: reason.to_string() }
}

/// redb panics on some files that it has not written so: the operator gets a refusal that names the file instead.
pub(super) fn guarded<T>(path: &Path, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let reason = "redb cannot make sense of its pages (its own words stand above)".to_owned();
        Err(Error::Damaged { path: path.to_owned(), reason })
    })
}

fn open_file(options: &Options) -> Result<Database, Error> {
    let path = &options.path;
    match std::fs::metadata(path) {
        Ok(file) if file.len() == 0 => Err(Error::Damaged { path: path.clone(), reason: "the file is empty".into() }),
        Ok(_) => open_known(options),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(options),
        Err(error) => Err(Error::Open { path: path.clone(), reason: error.to_string() }),
    }
}

/// Looks at the file before anything may write to it, so that a foreign or newer one stays as it is byte for byte.
/// A file that was not closed cleanly can only be looked at once redb has put it in order.
fn open_known(options: &Options) -> Result<Database, Error> {
    let path = &options.path;
    match builder(options).open_read_only(path) {
        Ok(seen) => drop(check_format(&Snapshot::new(seen.begin_read()?), path)?),
        Err(redb::DatabaseError::RepairAborted) => {}
        Err(error) => return Err(refused(path, error)),
    }
    let db = builder(options).open(path).map_err(|error| refused(path, error))?;
    present(db, path)
}

/// The store in its present format: one of an earlier format is rewritten.
fn present(db: Database, path: &Path) -> Result<Database, Error> {
    if check_format(&Snapshot::new(db.begin_read()?), path)? < FORMAT {
        upgrade::from_1(&db)?;
    }
    Ok(db)
}

/// Makes the file beside its place and moves it there whole, so that a crash never leaves half a store.
fn make(options: &Options) -> Result<Database, Error> {
    let path = &options.path;
    let new = path.with_extension("redb.new");
    let failed = |reason: std::io::Error| Error::Open { path: new.clone(), reason: reason.to_string() };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => make_private(&new)?,
    }
    let db = builder(options).create(&new).map_err(|error| refused(&new, error))?;
    make_tables(&db)?;
    std::fs::rename(&new, path).map_err(failed)?;
    Ok(db)
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
            Error::Open { path: path.to_owned(), reason: io.to_string() }
        }
        other => Error::Damaged { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Makes the empty file readable by its owner alone; it holds names and addresses.
fn make_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| Error::Open { path: path.to_owned(), reason: error.to_string() })
}

fn make_tables(db: &Database) -> Result<(), Error> {
    let transaction = db.begin_write()?;
    for name in tx::NAMES {
        transaction.open_table::<&[u8], &[u8]>(redb::TableDefinition::new(name))?;
    }
    let mut tx = Tx::new(&transaction);
    tx.meta()?.insert(&"format".to_owned(), &FORMAT)?;
    tx.finish()?;
    transaction.commit()?;
    Ok(())
}

/// The file's format, when this version reads it.
fn check_format(snapshot: &Snapshot, path: &Path) -> Result<u64, Error> {
    let damaged = |reason: &str| Error::Damaged { path: path.to_owned(), reason: reason.into() };
    let meta = snapshot.meta().map_err(|_| damaged("it is a redb file without Nightmail's tables"))?;
    match meta.get(&"format".to_owned()).map_err(|error| damaged(&error.to_string()))? {
        Some(found @ 1..=FORMAT) => Ok(found),
        Some(0) => Err(damaged("it names format 0, which never was")),
        Some(found) => Err(Error::Newer {
            path: path.to_owned(),
            found: u32::try_from(found).unwrap_or(u32::MAX),
            known: u32::try_from(FORMAT).expect("the format number is small"),
        }),
        None => Err(damaged("it names no format")),
    }
}
