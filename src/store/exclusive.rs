//! Opens or creates the store's files, and puts them in order: a store in exclusive use, before it serves callers.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase};

use super::checkpoint::{self, Covers};
use super::disk::{Backend, Disk, Disks, FileDisk};
use super::format::{self, Format};
use super::found_log::FoundLog;
use super::holder::Holder;
use super::lock::Lock;
use super::log::{Log, ReadError};
use super::memtable::Memtable;
use super::pages::{self, Scope};
use super::present::Present;
use super::recover::{Standing, recover};
use super::segment::{self, Segment};
use super::write_back::WriteBack;
use super::{Error, Options, guard, upgrade};

/// A store in exclusive use, without the threads that serve callers: while it is being opened, and for commands that
/// work on the file itself. Everything is in redb's file; the log holds nothing.
pub(super) struct ExclusiveStore {
    pub(super) db: Database,
    pub(super) log: Box<dyn Log>,
    /// The files.
    pub(super) present: Present,
    /// Released last; `None` on disks that were passed in.
    pub(super) lock: Option<Lock>,
}

impl ExclusiveStore {
    /// Takes the lock of the directory and opens the store, or creates it when there is none.
    ///
    /// # Errors
    /// As [`super::Store::open`].
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        Self::open_verified(options, Scope::Bookkeeping)
    }

    /// The same, and verifies those pages before anything is written.
    ///
    /// # Errors
    /// As [`super::Store::open`].
    pub(super) fn open_verified(options: &Options, scope: Scope) -> Result<Self, Error> {
        let dir = options.dir();
        std::fs::create_dir_all(dir).map_err(|error| Error::of_open(dir, &error))?;
        let lock = Lock::take(dir, options.purpose)?;
        let sync_names = || sync_dir(dir).map_err(|error| Error::of_open(dir, &error));
        opening(&options.path, || {
            let found = [find(options, 0)?, find(options, 1)?];
            let db = match std::fs::metadata(&options.path) {
                Ok(file) if file.len() == 0 => Err(damaged(&options.path, "the file is empty".into())),
                Ok(_) => open_known(options, &found, scope),
                Err(error) if error.kind() == io::ErrorKind::NotFound => make(options, &found),
                Err(error) => Err(Error::of_open(&options.path, &error)),
            }?;
            // The store's name first: a marker alone would be the trace of a store that is gone.
            sync_names()?;
            write_marker(options)?;
            sync_names()?;
            let standing = Standing::of(&db, &options.path)?;
            let make = |nth: usize| make_segment(standing.store, options, nth);
            let sync_dir = || sync_dir(dir).map_err(|error| unavailable(dir, error));
            let log = recover(&db, found_log(standing, found, &make, &sync_dir, options), &options.path)?;
            let present = Present::of(options.files())?;
            Ok(Self { db, log, present, lock: Some(lock) })
        })
    }

    /// Opens the store on disks that the caller passes in, or creates it when they are empty.
    ///
    /// # Errors
    /// As [`super::Store::open`].
    pub(super) fn open_on(Disks { store, log }: Disks, options: &Options) -> Result<Self, Error> {
        let path = &options.path;
        let log_path = |nth: usize| segment::path(path, nth);
        opening(path, || {
            let look = |nth: usize| {
                let found = Segment::look(log[nth].clone(), log_path(nth));
                found.map_err(|error| Error::of_open(&log_path(nth), &error))
            };
            let found = [look(0)?, look(1)?];
            let bytes = store.bytes().map_err(|error| Error::of_open(path, &error))?;
            if bytes == 0 && found.iter().any(Option::is_some) {
                return Err(without_store(options));
            }
            verify_pages(&*store, Scope::Bookkeeping, options)?;
            let db = builder(options).create_with_backend(WriteBack::new(Backend(store)));
            let db = db.map_err(|error| refused(path, error))?;
            if bytes == 0 {
                format::make_tables(&db)?;
            }
            bring(check(&db, &found, options)?, &db, options)?;
            let standing = Standing::of(&db, path)?;
            let make = |nth: usize| {
                let made = Segment::make(log[nth].clone(), log_path(nth), standing.store, segment_bytes(options));
                made.map_err(|error| unavailable(&log_path(nth), error))
            };
            let log = recover(&db, found_log(standing, found, &make, &|| Ok(()), options), path)?;
            Ok(Self { db, log, present: Present::default(), lock: None })
        })
    }

    /// Closes the store cleanly: redb's file is complete without the log.
    ///
    /// # Errors
    /// A storage fault; nothing is lost then.
    pub(super) fn close(self, options: &Options) -> Result<(), Error> {
        let covers = Covers { through: self.log.end(), is_log_open: false };
        opening(&options.path, || checkpoint::apply(&self.db, &Memtable::default(), covers))
    }
}

fn found_log<'f>(
    standing: Standing,
    segments: [Option<Segment>; 2],
    make: &'f dyn Fn(usize) -> Result<Segment, ReadError>,
    sync_dir: &'f dyn Fn() -> Result<(), ReadError>,
    options: &'f Options,
) -> FoundLog<'f> {
    let Standing { store, covers: Covers { through: covered, is_log_open: is_needed } } = standing;
    let segment_bytes = segment_bytes(options);
    FoundLog { path: &options.path, store, covered, is_needed, segments, segment_bytes, make, sync_dir }
}

fn unavailable(path: &Path, error: io::Error) -> ReadError {
    ReadError::Unavailable { place: path.display().to_string(), error }
}

fn segment_bytes(options: &Options) -> u64 {
    segment::bytes_of(options.log_bytes)
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.to_owned(), reason }
}

/// Names the file in errors that do not name one, also in redb's panics on damaged files.
fn opening<T>(path: &Path, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    guard::file(path, open).map_err(|error| match error {
        Error::Record { table, reason } => damaged(path, format!("table {table}: {reason}")),
        Error::Storage(reason) => Error::Open { path: path.to_owned(), reason },
        other => other,
    })
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all())
}

/// A segment of the log, if there is one.
fn find(options: &Options, nth: usize) -> Result<Option<Segment>, Error> {
    let path = segment::path(&options.path, nth);
    match File::options().read(true).write(true).open(&path) {
        Ok(file) => {
            let found = Segment::look(Arc::new(FileDisk(file)), path.clone());
            found.map_err(|error| Error::of_open(&path, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::of_open(&path, &error)),
    }
}

/// Creates a segment under a temporary name and renames it when it is whole. A file that is there already belongs to
/// another store and is kept under another name.
fn make_segment(store: u64, options: &Options, nth: usize) -> Result<Segment, ReadError> {
    let path = segment::path(&options.path, nth);
    if path.exists() {
        // An earlier one may be the only copy of what another store acknowledged.
        let names = std::iter::once(".foreign".to_owned()).chain((2..).map(|nth| format!(".foreign{nth}")));
        let aside = names.map(|suffix| renamed(&path, &suffix)).find(|name| !name.exists()).expect("some name is free");
        std::fs::rename(&path, &aside).map_err(|error| unavailable(&path, error))?;
        tracing::warn!(
            file = %path.display(),
            now = %aside.display(),
            "a log that does not belong to this store was moved aside: the store was closed cleanly and needs none"
        );
    }
    let new = renamed(&path, ".new");
    let failed = |error: io::Error| unavailable(&new, error);
    remove_left_over(&new).map_err(failed)?;
    let disk = Arc::new(FileDisk(make_private(&new).map_err(failed)?));
    let made = Segment::make(disk, path.clone(), store, segment_bytes(options)).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    Ok(made)
}

fn renamed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// The refusal of a directory from which redb's file is gone.
fn without_store(options: &Options) -> Error {
    let reason = format!(
        "it is missing or empty, but there was a store: its log or {} is there; restore a backup, or move these files \
         away and an empty store is made",
        options.marker().display()
    );
    Error::Damaged { path: options.path.clone(), reason }
}

/// Checks the file before anything may write to it, so that a foreign or newer one is left as it is, byte for byte.
/// redb has to repair a file that was not closed cleanly before it can be read.
fn open_known(options: &Options, found: &[Option<Segment>; 2], scope: Scope) -> Result<Database, Error> {
    let path = &options.path;
    match builder(options).open_read_only(path) {
        Ok(seen) => drop(check(&seen, found, options)?),
        Err(redb::DatabaseError::RepairAborted) => {}
        Err(error) => return Err(refused(path, error)),
    }
    let file = File::open(path).map_err(|error| Error::of_open(path, &error))?;
    verify_pages(&FileDisk(file), scope, options)?;
    let db = open_file(options, path, IfEmpty::Refuse)?;
    let known = check(&db, found, options)?;
    if matches!(known, Format::One | Format::Two) {
        upgrade::check_room(options)?;
    }
    bring(known, &db, options)?;
    Ok(db)
}

fn check(db: &impl ReadableDatabase, found: &[Option<Segment>; 2], options: &Options) -> Result<Format, Error> {
    let known = format::check(&db.begin_read()?, options)?;
    if matches!(known, Format::One | Format::Two)
        && let Some(segment) = found.iter().flatten().next()
    {
        let reason = format!("its format is one that had no log, and older than {}", segment.path.display());
        return Err(damaged(&options.path, reason));
    }
    Ok(known)
}

/// Brings the store to this version's format.
fn bring(known: Format, db: &Database, options: &Options) -> Result<(), Error> {
    match known {
        Format::One => upgrade::from_1(db, &options.upgraded_rows),
        Format::Two => upgrade::from_2(db, &options.upgraded_rows),
        Format::Three => upgrade::from_3(db),
        Format::Current => format::add_tables(db),
    }
}

/// Verifies redb's pages as they are on disk.
fn verify_pages(disk: &dyn Disk, scope: Scope, options: &Options) -> Result<(), Error> {
    pages::verify(disk, scope).map_err(|reason| damaged(&options.path, reason))
}

/// Creates the file under a temporary name and renames it when it is whole, so that a crash never leaves half a store.
fn make(options: &Options, found: &[Option<Segment>; 2]) -> Result<Database, Error> {
    if options.marker().exists() || found.iter().any(Option::is_some) {
        return Err(without_store(options));
    }
    let path = &options.path;
    let new = path.with_extension("redb.new");
    let failed = |error: io::Error| Error::of_open(&new, &error);
    remove_left_over(&new).map_err(failed)?;
    drop(make_private(&new).map_err(failed)?);
    let db = open_file(options, &new, IfEmpty::Make)?;
    format::make_tables(&db)?;
    std::fs::rename(&new, path).map_err(failed)?;
    Ok(db)
}

/// Leaves a file that says that there is a store, so that one whose files are gone is not taken for a new one.
fn write_marker(options: &Options) -> Result<(), Error> {
    let path = options.marker();
    if path.exists() {
        return Ok(());
    }
    let text = "This directory holds a Nightmail store. Without nightmail.redb beside this file, Nightmail refuses to \
                start; remove this file to begin with an empty store.\n";
    let written = make_private(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Error::of_open(&path, &error))
}

fn remove_left_over(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What becomes of an empty file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfEmpty {
    Make,
    Refuse,
}

fn open_file(options: &Options, path: &Path, if_empty: IfEmpty) -> Result<Database, Error> {
    let failed = |error: io::Error| Error::of_open(path, &error);
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    if if_empty == IfEmpty::Refuse && file.metadata().map_err(failed)?.len() == 0 {
        return Err(damaged(path, "the file is empty".into()));
    }
    let backend = FileBackend::new(file).map_err(|error| refused(path, error))?;
    builder(options).create_with_backend(WriteBack::new(backend)).map_err(|error| refused(path, error))
}

fn builder(options: &Options) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX));
    builder
}

fn refused(path: &Path, error: redb::DatabaseError) -> Error {
    use io::ErrorKind::PermissionDenied;
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::Locked {
            dir: path.parent().unwrap_or(Path::new(".")).to_owned(),
            holder: Holder::named("a process that opened the file itself"),
        },
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == PermissionDenied => {
            Error::of_open(path, &error)
        }
        other => damaged(path, other.to_string()),
    }
}

/// Creates the empty file, readable by its owner alone: it holds names and addresses.
fn make_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}
