//! A store of an earlier format becomes one of this version when it is opened: one durable transaction rewrites what
//! changed, so that a crash leaves the one or the other.

use redb::{Database, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::open::FORMAT;
use super::record::{Body, MessageState, QueueRecord, RedriveRecord};
use super::{Error, Record, Tx, tx};

/// A table is rewritten under its name and this, and takes its place when it is whole.
const NEW: &str = " (new)";

type Raw<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

/// How a row of format 1 looks now: its key and its value.
type Convert = fn(&[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;

/// The tables whose rows changed since format 1.
const CHANGED: [(&str, Convert); 5] = [
    ("bodies", again::<Body>),
    ("queues", again::<QueueRecord>),
    ("ready", with_priority),
    ("redrives", again::<RedriveRecord>),
    ("states", again::<MessageState>),
];

/// Rewrites a store of format 1. Memory does not grow with the store; the file grows by the tables that changed, and the
/// space is used again.
///
/// # Errors
/// A storage fault, or a row that cannot be read; then the file stays of format 1.
pub(super) fn from_1(db: &Database) -> Result<(), Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    let known: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    for name in tx::NAMES.iter().filter(|name| !known.iter().any(|known| known == *name)) {
        transaction.open_table(Raw::new(name))?;
    }
    for (name, convert) in CHANGED {
        rewrite(&transaction, name, convert)?;
    }
    let mut tx = Tx::new(&transaction);
    tx.meta()?.insert(&"format".to_owned(), &FORMAT)?;
    tx.finish()?;
    Ok(transaction.commit()?)
}

/// Row by row into a new table.
fn rewrite(transaction: &WriteTransaction, name: &'static str, convert: Convert) -> Result<(), Error> {
    let new_name = format!("{name}{NEW}");
    {
        let old = transaction.open_table(Raw::new(name))?;
        let mut new = transaction.open_table(Raw::new(&new_name))?;
        for row in old.range::<&[u8]>(..)? {
            let (key, value) = row?;
            let converted = convert(key.value(), value.value());
            let (key, value) = converted.map_err(|reason| Error::Record { table: name, reason })?;
            new.insert(key.as_slice(), value.as_slice())?;
        }
    }
    transaction.delete_table(Raw::new(name))?;
    Ok(transaction.rename_table(Raw::new(&new_name), Raw::new(name))?)
}

/// The record in its present version.
fn again<R: Record>(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    Ok((key.to_vec(), R::decode(value)?.encode()))
}

/// The key of a ready message names its priority now, between queue and sequence number.
fn with_priority(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (queue, sequence) = key.split_at_checked(4).ok_or_else(|| format!("key of {} bytes", key.len()))?;
    Ok(([queue, &0_u32.to_be_bytes(), sequence].concat(), value.to_vec()))
}
