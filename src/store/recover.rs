//! Recovery: checks that redb's file and the log belong together, replays the log's records that redb does not hold,
//! and makes a checkpoint before the store accepts work.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, WriteTransaction};

use super::log::{Found, Log};
use super::{Disk, Error, Options, Snapshot, Tx, redo, tx};

/// The row of `meta` with the store's random number; the log's header has the same number.
pub(super) const STORE: &str = "store";
/// The row of `meta` that marks a clean close: redb holds everything, the log nothing.
const CLOSED: &str = "closed";

/// Gives a new store its number and marks it as cleanly closed, since it has no log yet.
pub(super) fn assign_store_number(tx: &mut Tx<'_>) -> Result<(), Error> {
    tx.meta()?.insert(&STORE.to_owned(), &rand::random())?;
    tx.meta()?.insert(&tx::APPLIED.to_owned(), &0)?;
    tx.meta()?.insert(&CLOSED.to_owned(), &1)?;
    Ok(())
}

/// The state of redb's file, from its `meta` rows.
#[derive(Debug)]
struct StoreMeta {
    store: u64,
    /// The last record of the log that is in the tables.
    applied: u64,
    was_closed: bool,
}

impl StoreMeta {
    fn read(snapshot: &Snapshot, path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let meta = snapshot.meta()?;
        let row = |name: &str| meta.get(&name.to_owned()).map_err(|error| damaged(error.to_string()));
        let needed = |name: &str| row(name)?.ok_or_else(|| damaged(format!("its row {name} is missing")));
        Ok(Self { store: needed(STORE)?, applied: needed(tx::APPLIED)?, was_closed: row(CLOSED)?.is_some() })
    }
}

/// Checks that redb's file and the log belong together. Runs before either is changed, so that a refused store stays as
/// it is.
pub(super) fn check(snapshot: &Snapshot, found: Option<&Found>, options: &Options) -> Result<(), Error> {
    let standing = StoreMeta::read(snapshot, &options.path)?;
    let Some(found) = found else {
        // Only after a clean close is a missing log harmless. Otherwise it held acknowledged messages.
        return if standing.was_closed { Ok(()) } else { Err(without_log(options)) };
    };
    let (path, log) = (&options.path, options.log_path());
    let damaged = |path: &Path, reason: String| Err(Error::Damaged { path: path.to_owned(), reason });
    if found.header.store != standing.store {
        return damaged(&log, format!("it is the log of another store than {}", path.display()));
    }
    // The log starts over only after redb's checkpoint is durable. A lap beyond `applied` therefore means an older copy
    // of redb's file, and the records in between are lost.
    if found.header.checkpoint > standing.applied {
        let (log, has, needs) = (log.display(), standing.applied, found.header.checkpoint);
        return damaged(
            path,
            format!("it is older than its log {log}: it ends at record {has}, the log follows {needs}"),
        );
    }
    Ok(())
}

fn without_log(options: &Options) -> Error {
    let reason = "it is missing or empty, and the store was not closed cleanly: it held the latest messages".to_owned();
    Error::Damaged { path: options.log_path(), reason }
}

/// Creates the log of a store that was closed cleanly.
///
/// # Errors
/// A storage fault of either disk.
pub(super) fn make_log(db: &Database, disk: Arc<dyn Disk>, options: &Options) -> Result<(), Error> {
    let standing = StoreMeta::read(&Snapshot::new(db.begin_read()?), &options.path)?;
    Log::make(disk, standing.store, standing.applied, options.log_bytes).map_err(|error| failed(options, &error))?;
    Ok(())
}

/// Replays the records that redb lost, makes them durable, and restarts the log. Returns the log and the number that it
/// starts after.
///
/// # Errors
/// A storage fault of either disk, or a broken record.
pub(super) fn recover(
    db: &Database,
    disk: Arc<dyn Disk>,
    found: &Found,
    options: &Options,
) -> Result<(Log, u64), Error> {
    let StoreMeta { applied, was_closed, .. } = StoreMeta::read(&Snapshot::new(db.begin_read()?), &options.path)?;
    // After a clean close the log may still hold an old lap, if its restart failed. redb already has all of it.
    let records = if was_closed { None } else { Some(found.records(&*disk, applied)?) };
    let transaction = begin(db)?;
    redo::replay(&transaction, records.iter().flat_map(|records| records.writes()))?;
    // The checkpoint takes a number of its own. Torn records after the last whole one keep the old lap's number and
    // cannot be mistaken for records of the new lap.
    let number = records.and_then(|records| records.last()).unwrap_or(applied) + 1;
    // Durable in redb before the log restarts: a crash in between replays the same records again, which is harmless.
    settle(transaction, number, Closing::Open)?;
    let mut log = Log::take_over(disk, found);
    log.restart_with(number, options.log_bytes).map_err(|error| failed(options, &error))?;
    Ok((log, number))
}

fn failed(options: &Options, error: &std::io::Error) -> Error {
    Error::of_open(&options.log_path(), error)
}

/// Makes the checkpoint of a clean close; returns its number.
pub(super) fn close(db: &Database, last: u64) -> Result<u64, Error> {
    settle(begin(db)?, last + 1, Closing::Closed)?;
    Ok(last + 1)
}

fn begin(db: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = db.begin_write()?;
    // The default durability: recovery and close are the commits that do not rely on the log.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Whether the checkpoint leaves the store open or closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    Closed,
}

fn settle(transaction: WriteTransaction, number: u64, closing: Closing) -> Result<(), Error> {
    let mut tx = Tx::new(&transaction);
    match closing {
        Closing::Open => tx.meta()?.remove(&CLOSED.to_owned())?,
        Closing::Closed => tx.meta()?.insert(&CLOSED.to_owned(), &1)?,
    };
    tx.finish(number)?;
    Ok(transaction.commit()?)
}
