//! Upgrades a store of an earlier format when it is opened. One durable transaction rewrites every table, so a crash
//! leaves either the old store or the new one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use redb::{Database, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::open::FORMAT;
use super::record::{Body, Counts, MessageState, QueueRecord, RedriveRecord};
use super::{Error, Record, Tx, checksum, recover, tx};

/// The suffix of a table's name while it is rewritten; it replaces the table when it is complete.
const NEW: &str = " (new)";

type Raw<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

/// A row of an earlier format, converted: key and value, without the checksum.
type Convert = fn(&[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;

/// The tables whose rows differ between format 1 and format 2.
const CHANGED_SINCE_1: [(&str, Convert); 5] = [
    ("bodies", again::<Body>),
    ("queues", again::<QueueRecord>),
    ("ready", with_priority),
    ("redrives", again::<RedriveRecord>),
    ("states", again::<MessageState>),
];

/// Upgrades a store of format 1.
///
/// # Errors
/// As [`from_2`].
pub(super) fn from_1(db: &Database) -> Result<(), Error> {
    from(db, &CHANGED_SINCE_1)
}

/// Upgrades a store of format 2, which has no row checksums and no log. Memory use does not depend on the store's size.
/// The file grows by the size of its tables; the freed space is reused.
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
    recover::assign_store_number(&mut tx)?;
    count_followers(&mut tx)?;
    drop(tx);
    Ok(transaction.commit()?)
}

/// Adds the followers to the counts, whose version 1 did not have them.
fn count_followers(tx: &mut Tx<'_>) -> Result<(), Error> {
    let mut followers: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    tx.uniques()?.scan((0, [0; 16])..=(u32::MAX, [u8::MAX; 16]), |(queue, _), row| {
        if let Some(follower) = row.follower {
            let (count, bytes) = followers.entry(queue).or_default();
            *count += 1;
            *bytes += u64::from(follower.size_bytes);
        }
        ControlFlow::Continue(())
    })?;
    for (queue, (followers, follower_bytes)) in followers {
        let counts = tx.counts()?.get(&queue)?.unwrap_or_default();
        tx.counts()?.insert(&queue, &Counts { followers, follower_bytes, ..counts })?;
    }
    Ok(())
}

/// Copies a table row by row into a new one.
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

/// The record in its current version.
fn again<R: Record>(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    Ok((key.to_vec(), R::decode(value)?.encode()))
}

/// The key of a ready message, with the priority that format 2 put between queue and sequence number.
fn with_priority(key: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (queue, sequence) = key.split_at_checked(4).ok_or_else(|| format!("key of {} bytes", key.len()))?;
    Ok(([queue, &0_u32.to_be_bytes(), sequence].concat(), value.to_vec()))
}
