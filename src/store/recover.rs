//! From two files to a store that is in order: they belong together, what the log holds and redb does not is done
//! again, and a checkpoint begins the new life.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, WriteTransaction};

use super::log::{Found, Log};
use super::{Disk, Error, Options, Snapshot, Tx, redo, tx};

/// The row of `meta` that names the store; the log's header names it too.
const STORE: &str = "store";
/// The row of `meta` of a store that was closed cleanly: redb holds all of it, the log nothing.
const CLOSED: &str = "closed";

/// Gives a store that is being made its number, and closes it.
pub(super) fn christen(tx: &mut Tx<'_>) -> Result<(), Error> {
    tx.meta()?.insert(&STORE.to_owned(), &rand::random())?;
    tx.meta()?.insert(&tx::APPLIED.to_owned(), &0)?;
    tx.meta()?.insert(&CLOSED.to_owned(), &1)?;
    Ok(())
}

/// What redb says of itself.
#[derive(Debug)]
struct Standing {
    store: u64,
    /// The last record of the log that is in the tables.
    applied: u64,
    was_closed: bool,
}

impl Standing {
    fn read(snapshot: &Snapshot, path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let meta = snapshot.meta()?;
        let row = |name: &str| meta.get(&name.to_owned()).map_err(|error| damaged(error.to_string()));
        let needed = |name: &str| row(name)?.ok_or_else(|| damaged(format!("its row {name} is missing")));
        Ok(Self { store: needed(STORE)?, applied: needed(tx::APPLIED)?, was_closed: row(CLOSED)?.is_some() })
    }
}

/// Checks that redb's file and the log belong together, before either is changed.
pub(super) fn check(snapshot: &Snapshot, found: Option<&Found>, options: &Options) -> Result<(), Error> {
    let standing = Standing::read(snapshot, &options.path)?;
    let Some(found) = found else {
        return if standing.was_closed { Ok(()) } else { Err(without_log(options)) };
    };
    let (path, log) = (&options.path, options.log_path());
    let damaged = |path: &Path, reason: String| Err(Error::Damaged { path: path.to_owned(), reason });
    if found.header.store != standing.store {
        return damaged(&log, format!("it is the log of another store than {}", path.display()));
    }
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

/// Makes the log of a store that was closed cleanly.
///
/// # Errors
/// A storage fault of either disk.
pub(super) fn make_log(db: &Database, disk: Arc<dyn Disk>, options: &Options) -> Result<(), Error> {
    let standing = Standing::read(&Snapshot::new(db.begin_read()?), &options.path)?;
    Log::make(disk, standing.store, standing.applied, options.log_bytes).map_err(|error| failed(options, &error))?;
    Ok(())
}

/// Does again what redb lost, makes it durable, and starts the log over; answers the log and the number that it starts
/// after.
///
/// # Errors
/// A storage fault of either disk, or a broken record.
pub(super) fn recover(
    db: &Database,
    disk: Arc<dyn Disk>,
    found: &Found,
    options: &Options,
) -> Result<(Log, u64), Error> {
    let Standing { applied, was_closed, .. } = Standing::read(&Snapshot::new(db.begin_read()?), &options.path)?;
    let records = if was_closed { None } else { Some(found.records(&*disk, applied)?) };
    let transaction = begin(db)?;
    redo::replay(&transaction, records.iter().flat_map(|records| records.writes()))?;
    // The checkpoint has a number of its own: records that a power cut left behind the last one stay those of a lap
    // that is over.
    let number = records.and_then(|records| records.last()).unwrap_or(applied) + 1;
    settle(transaction, number, Closing::Open)?;
    let mut log = Log::take_over(disk, found);
    log.restart_with(number, options.log_bytes).map_err(|error| failed(options, &error))?;
    Ok((log, number))
}

fn failed(options: &Options, error: &std::io::Error) -> Error {
    Error::Open { path: options.log_path(), reason: error.to_string() }
}

/// The checkpoint of a clean close; answers its number.
pub(super) fn close(db: &Database, last: u64) -> Result<u64, Error> {
    settle(begin(db)?, last + 1, Closing::Closed)?;
    Ok(last + 1)
}

fn begin(db: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Whether a store is left with nothing in its log.
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
