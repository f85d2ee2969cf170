//! A copy of the live store as one new file: a snapshot, table by table, whole or not at all.
//!
//! The copy is written as `FILE.new`, synced, verified when asked for, and only then renamed, so that a file under the
//! final name is always complete. Rows are copied byte for byte. The copy is a cleanly closed store of its own, which
//! opens without the original's log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::table_id::{META, TABLES, TableId};
use super::{Snapshot, Store, format};

/// The copy is written in transactions of about this many bytes of rows, which are held in memory until the commit.
const BATCH_BYTES: usize = 8 << 20;
/// The page cache of the copy, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// The options of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The backup's file; an absolute path.
    pub file: PathBuf,
    /// Whether to replace an existing file of that name; otherwise the backup is refused.
    pub replace: bool,
    /// Whether to read the copy again and compare it before the rename.
    pub verify: bool,
}

/// A finished backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its file.
    pub file: PathBuf,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The number of rows of all tables.
    pub rows: u64,
    /// Whether it was read again and found equal.
    pub is_verified: bool,
    /// Bytes that the live file took on its disk when the backup began.
    pub store_bytes_before: u64,
    /// The same at its end: while a backup runs, the store cannot reuse the pages that its commits have replaced.
    pub store_bytes_after: u64,
    /// What was copied, by table.
    pub tables: Vec<Copied>,
}

/// One table of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Its name.
    pub table: String,
    /// Its number of rows.
    pub rows: u64,
    /// SHA-256, in hex, over each row in key order: length of the key and the key, length of the value and the value;
    /// lengths are 64-bit big-endian numbers.
    pub sha256: String,
}

/// Why a backup failed. The partial copy is removed, and an existing file under its name is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is not absolute.
    #[error("{0}: not an absolute path (the daemon works in another directory than you)")]
    Relative(PathBuf),
    /// A file of that name exists.
    #[error("{0} exists (name another file, or say --force to replace it)")]
    Exists(PathBuf),
    /// The name belongs to one of the store's own files.
    #[error("{0} is a name that the store itself uses (name a file elsewhere)")]
    OwnFile(PathBuf),
    /// Another backup is being written there.
    #[error("{0} is being written by another backup (wait for it, or name another file)")]
    Busy(PathBuf),
    /// The copy cannot be written.
    #[error("{path}: {reason} (the daemon's user must be able to write there, and there must be room for the copy)")]
    Target {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        reason: String,
    },
    /// The copy, read again, differs from the store.
    #[error("{path}: table {table} reads back as something else (the disk lies; nothing was kept of this backup)")]
    Differs {
        /// The copy.
        path: PathBuf,
        /// The first table that differs.
        table: String,
    },
    /// The daemon is stopping.
    #[error("the backup was cut off: the daemon is stopping (start it again afterwards)")]
    Stopped,
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] super::Error),
}

impl Store {
    /// Copies the store as it is now into a new file, mode 0600. Blocks until the copy is done; neither readers nor the
    /// writer wait for it. `stop` cancels it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn backup(&self, order: &Order, stop: &CancellationToken) -> Result<Backup, Error> {
        let target = Target::check(order, self.path())?;
        // Between the steps of a backup its file is not locked: a second one to the same name would take it away.
        let Ok(_alone) = self.backups().try_lock() else { return Err(Error::Busy(order.file.clone())) };
        let store_bytes = || self.disk_bytes().map_err(|reason| target.failed(self.path(), reason));
        let store_bytes_before = store_bytes()?;
        target.make()?;
        let copied = copy(&self.snapshot()?, &target, order, stop).and_then(|tables| Ok((tables, target.keep()?)));
        let (tables, bytes) = copied.inspect_err(|_| {
            // If the removal fails, the next backup to this name removes the file.
            let _ = std::fs::remove_file(&target.new);
        })?;
        Ok(Backup {
            file: order.file.clone(),
            bytes,
            rows: tables.iter().map(|table| table.rows).sum(),
            is_verified: order.verify,
            store_bytes_before,
            store_bytes_after: store_bytes()?,
            tables,
        })
    }

    /// What the store's file takes on its disk, in bytes; unwritten holes do not count.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        super::disk::allocated_bytes(self.path())
    }
}

fn copy(snapshot: &Snapshot, target: &Target, order: &Order, stop: &CancellationToken) -> Result<Vec<Copied>, Error> {
    let failed = |reason: redb::Error| target.failed(&target.new, reason);
    target.make()?;
    let db =
        Database::builder().set_cache_size(CACHE_BYTES).create(&target.new).map_err(|error| failed(error.into()))?;
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(copy_table(snapshot, &db, table, stop, &failed)?);
    }
    assign_store_number(&db).map_err(|error| target.failed(&target.new, error))?;
    let transaction = db.begin_read().map_err(|error| failed(error.into()))?;
    if let Some(meta) = tables.iter_mut().find(|copied| copied.table == META.name) {
        *meta = read_again(&transaction, META, stop, &failed)?;
    }
    drop((transaction, db));
    if order.verify {
        verify(target, &tables, stop, &failed)?;
    }
    Ok(tables)
}

fn copy_table(
    snapshot: &Snapshot,
    db: &Database,
    table: TableId,
    stop: &CancellationToken,
    failed: &impl Fn(redb::Error) -> Error,
) -> Result<Copied, Error> {
    let mut rows = snapshot.layers().all(table)?;
    let mut sum = Sum::default();
    let mut next = rows.next()?;
    loop {
        let transaction = db.begin_write().map_err(|error| failed(error.into()))?;
        {
            let mut to = transaction.open_table(table.definition()).map_err(|error| failed(error.into()))?;
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Some((key, value)) = &next
            {
                let (key, stored) = (key.stored(), value.stored());
                // What is damaged must not be taken over.
                value.open(table, key)?;
                sum.add(key, stored);
                bytes += key.len() + stored.len();
                to.insert(key, stored).map_err(|error| failed(error.into()))?;
                next = rows.next()?;
            }
        }
        transaction.commit().map_err(|error| failed(error.into()))?;
        if stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        if next.is_none() {
            return Ok(sum.of(table.name));
        }
    }
}

/// Makes the copy a store of its own, with its own number.
fn assign_store_number(db: &Database) -> Result<(), super::Error> {
    let transaction = db.begin_write()?;
    format::begin_life(&transaction)?;
    Ok(transaction.commit()?)
}

/// Reads the copy through a new handle and compares every table with what was read from the store.
fn verify(
    target: &Target,
    tables: &[Copied],
    stop: &CancellationToken,
    failed: &impl Fn(redb::Error) -> Error,
) -> Result<(), Error> {
    let db = Database::builder().set_cache_size(CACHE_BYTES).open_read_only(&target.new);
    let transaction = db.map_err(redb::Error::from).and_then(|db| Ok(db.begin_read()?)).map_err(failed)?;
    for table in tables {
        let id = TABLES.iter().copied().find(|id| id.name == table.table).expect("only these were copied");
        if read_again(&transaction, id, stop, failed)? != *table {
            return Err(Error::Differs { path: target.new.clone(), table: table.table.clone() });
        }
    }
    Ok(())
}

fn read_again(
    transaction: &ReadTransaction,
    table: TableId,
    stop: &CancellationToken,
    failed: &impl Fn(redb::Error) -> Error,
) -> Result<Copied, Error> {
    let rows = transaction.open_table(table.definition()).map_err(|error| failed(error.into()))?;
    let mut sum = Sum::default();
    for row in rows.range::<&[u8]>(..).map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        sum.add(key.value(), value.value());
        if sum.rows % 4096 == 0 && stop.is_cancelled() {
            return Err(Error::Stopped);
        }
    }
    Ok(sum.of(table.name))
}

/// The rows of a table, as far as they were read.
#[derive(Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
    }

    fn of(self, table: &str) -> Copied {
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Copied { table: table.to_owned(), rows: self.rows, sha256 }
    }
}

/// The temporary and the final path of a backup.
struct Target {
    file: PathBuf,
    /// Its temporary name, in the same directory.
    new: PathBuf,
    dir: PathBuf,
}

impl Target {
    fn check(order: &Order, store: &Path) -> Result<Self, Error> {
        let file = order.file.clone();
        let (Some(dir), Some(name), true) = (file.parent(), file.file_name(), file.is_absolute()) else {
            return Err(Error::Relative(file));
        };
        let whole = |dir: &Path| {
            dir.canonicalize().map_err(|error| Error::Target { path: dir.to_owned(), reason: error.to_string() })
        };
        let own = store.parent().filter(|own| !own.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_own = whole(dir)? == whole(own)? && name.as_encoded_bytes().starts_with(b"nightmail.");
        if is_own {
            return Err(Error::OwnFile(file));
        }
        if !order.replace && file.symlink_metadata().is_ok() {
            return Err(Error::Exists(file));
        }
        let mut new = file.clone().into_os_string();
        new.push(".new");
        Ok(Self { dir: dir.to_owned(), new: new.into(), file })
    }

    /// Creates the empty file, readable by its owner alone. Removes one that an interrupted backup left behind.
    fn make(&self) -> Result<(), Error> {
        let failed = |error: io::Error| self.failed(&self.new, error);
        if let Ok(left) = File::open(&self.new) {
            match rustix::fs::flock(&left, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => std::fs::remove_file(&self.new).map_err(failed)?,
                Err(_) => return Err(Error::Busy(self.new.clone())),
            }
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.new).map_err(failed)?;
        made.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)
    }

    /// Renames the copy to its final name; returns its length.
    fn keep(&self) -> Result<u64, Error> {
        let file = File::open(&self.new).map_err(|error| self.failed(&self.new, error))?;
        file.sync_all().map_err(|error| self.failed(&self.new, error))?;
        let bytes = file.metadata().map_err(|error| self.failed(&self.new, error))?.len();
        std::fs::rename(&self.new, &self.file).map_err(|error| self.failed(&self.file, error))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| self.failed(&self.dir, error))?;
        Ok(bytes)
    }

    fn failed(&self, path: &Path, reason: impl std::fmt::Display) -> Error {
        Error::Target { path: path.to_owned(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_reads_back_as_something_else_is_told_by_its_table() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&crate::store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
        let (order, stop) =
            (Order { file: dir.path().join("copy"), replace: false, verify: true }, CancellationToken::new());
        let target = Target::check(&order, store.path()).unwrap();
        target.make().unwrap();
        let tables = copy(&store.snapshot().unwrap(), &target, &order, &stop).unwrap();
        let failed = |reason: redb::Error| target.failed(&target.new, reason);
        let db = Database::open(&target.new).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(META.definition()).unwrap().insert(&b"format"[..], &[0_u8; 8][..]).unwrap();
        transaction.commit().unwrap();
        drop(db);
        let refused = verify(&target, &tables, &stop, &failed);
        assert!(matches!(&refused, Err(Error::Differs { table, .. }) if table == "meta"), "{refused:?}");
    }
}
