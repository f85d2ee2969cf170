//! A store of an earlier format becomes one of this version when it is opened: one durable transaction rewrites every
//! table, so that a crash leaves the one or the other.

use redb::{Database, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::open::FORMAT;
use super::record::{Body, MessageState, QueueRecord, RedriveRecord};
use super::{Error, Record, Tx, checksum, recover, tx};

/// A table is rewritten under its name and this, and takes its place when it is whole.
const NEW: &str = " (new)";

type Raw<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

/// How a row of an earlier format looks now: its key and its value, without the checksum.
type Convert = fn(&[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;

/// The tables whose rows changed from format 1 to format 2.
const CHANGED_SINCE_1: [(&str, Convert); 5] = [
    ("bodies", again::<Body>),
    ("queues", again::<QueueRecord>),
    ("ready", with_priority),
    ("redrives", again::<RedriveRecord>),
    ("states", again::<MessageState>),
];

/// Rewrites a store of format 1.
///
/// # Errors
/// As [`from_2`].
pub(super) fn from_1(db: &Database) -> Result<(), Error> {
    from(db, &CHANGED_SINCE_1)
}

/// Rewrites a store of format 2, whose rows had no checksums and beside which there was no log. Memory does not grow
/// with the store; the file grows by its tables, and the space is used again.
///
/// # Errors
/// A storage fault, or a row that cannot be read; then the file stays as it was.
pub(super) fn from_2(db: &Database) -> Result<(), Error> {
    from(db, &[])
}

fn from(db: &Database, changed: &[(&str, Convert)]) -> Result<(), Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    let known: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    for name in tx::NAMES {
        if known.iter().any(|known| known == name) {
            let convert = changed.iter().find(|(changed, _)| changed == name).map(|(_, convert)| *convert);
            rewrite(&transaction, name, convert.unwrap_or(as_it_is))?;
        } else {
            transaction.open_table(Raw::new(name))?;
        }
    }
    let mut tx = Tx::new(&transaction);
    tx.meta()?.insert(&"format".to_owned(), &FORMAT)?;
    recover::christen(&mut tx)?;
    drop(tx);
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
            new.insert(key.as_slice(), checksum::seal(name, &key, value).as_slice())?;
        }
    }
    transaction.delete_table(Raw::new(name))?;
    Ok(transaction.rename_table(Raw::new(&new_name), Raw::new(name))?)
}

fn as_it_is(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    Ok((key.to_vec(), value.to_vec()))
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
