//! Upgrades a store of an earlier format when it is opened. One durable transaction rewrites every table, so a crash
//! leaves either the old store or the new one. The indexes that format 4 has added are filled by [`super::reindex`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::key::Key;
use super::record::{Body, Counts, MessageState, QueueRecord, RedriveRecord, UniqueRecord};
use super::table_id::{self, TABLES, TableId};
use super::{Error, Options, Record, checkpoint, checksum, format, meta};

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
pub(super) fn from_1(db: &Database, upgraded_rows: &AtomicU64) -> Result<(), Error> {
    from(db, &CHANGED_SINCE_1, upgraded_rows)
}

/// Upgrades a store of format 2, which has no row checksums and no log. Memory use does not depend on the store's size.
/// The file grows by the size of its tables; the freed space is reused.
///
/// # Errors
/// A storage fault, or a row that cannot be read; then the file stays as it was.
pub(super) fn from_2(db: &Database, upgraded_rows: &AtomicU64) -> Result<(), Error> {
    from(db, &[], upgraded_rows)
}

/// Upgrades a store of format 3, which lacks only tables. Its log stays as it is: its frames name none of them.
///
/// # Errors
/// A storage fault.
pub(super) fn from_3(db: &Database) -> Result<(), Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    for table in TABLES {
        transaction.open_table(table.definition())?;
    }
    checkpoint::put_number(&transaction, meta::FORMAT, format::FORMAT)?;
    // The letters of its log are not in the tables yet.
    checkpoint::put_number(&transaction, meta::UNINDEXED, 1)?;
    Ok(transaction.commit()?)
}

/// Whether the disk has room for an upgrade: the old rows stay in the file until the new ones are complete.
///
/// # Errors
/// It has not, or its free space cannot be read.
pub(super) fn check_room(options: &Options) -> Result<(), Error> {
    let path = &options.path;
    let unreadable = |error: std::io::Error| Error::of_open(path, &error);
    let needed_bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    let disk = rustix::fs::statvfs(options.dir()).map_err(|error| unreadable(error.into()))?;
    room(path, needed_bytes, disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn room(path: &Path, needed_bytes: u64, free_bytes: u64) -> Result<(), Error> {
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(Error::NoRoomToUpgrade { path: path.to_owned(), needed_bytes, free_bytes })
}

fn from(db: &Database, changed: &[(&str, Convert)], upgraded_rows: &AtomicU64) -> Result<(), Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    let known: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    for table in TABLES {
        if known.iter().any(|known| known == table.name) {
            let convert = changed.iter().find(|(changed, _)| *changed == table.name).map(|(_, convert)| *convert);
            rewrite(&transaction, table, convert.unwrap_or(as_it_is), upgraded_rows)?;
        } else {
            transaction.open_table(table.definition())?;
        }
    }
    format::begin_life(&transaction)?;
    count_followers(&transaction)?;
    checkpoint::put_number(&transaction, meta::UNINDEXED, 1)?;
    Ok(transaction.commit()?)
}

/// Adds the followers to the counts, whose version 1 did not have them.
fn count_followers(transaction: &WriteTransaction) -> Result<(), Error> {
    const UNIQUES: TableId = table_id::table("uniques");
    const COUNTS: TableId = table_id::table("counts");
    let mut followers: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let uniques = transaction.open_table(UNIQUES.definition())?;
    for row in uniques.range::<&[u8]>(..)? {
        let (key, value) = row?;
        let row: UniqueRecord = decode(UNIQUES, key.value(), value.value())?;
        if let (Some(follower), Some(queue)) = (row.follower, key.value().first_chunk()) {
            let (count, bytes) = followers.entry(u32::from_be_bytes(*queue)).or_default();
            *count += 1;
            *bytes += u64::from(follower.size_bytes);
        }
    }
    let mut counts = transaction.open_table(COUNTS.definition())?;
    for (queue, (followers, follower_bytes)) in followers {
        let key = queue.to_bytes();
        let old: Option<Counts> = counts.get(&*key)?.map(|row| decode(COUNTS, &key, row.value())).transpose()?;
        let new = Counts { followers, follower_bytes, ..old.unwrap_or_default() };
        counts.insert(&*key, checksum::seal(COUNTS, &key, new.encode()).as_slice())?;
    }
    Ok(())
}

pub(super) fn decode<R: Record>(table: TableId, key: &[u8], stored: &[u8]) -> Result<R, Error> {
    R::decode(checksum::open(table, key, stored)?).map_err(|reason| Error::Record { table: table.name, reason })
}

/// Copies a table row by row into a new one, and counts the rows.
fn rewrite(
    transaction: &WriteTransaction,
    table: TableId,
    convert: Convert,
    upgraded_rows: &AtomicU64,
) -> Result<(), Error> {
    let new_name = format!("{}{NEW}", table.name);
    {
        let old = transaction.open_table(table.definition())?;
        let mut new = transaction.open_table(Raw::new(&new_name))?;
        for row in old.range::<&[u8]>(..)? {
            let (key, value) = row?;
            let converted = convert(key.value(), value.value());
            let (key, value) = converted.map_err(|reason| Error::Record { table: table.name, reason })?;
            new.insert(key.as_slice(), checksum::seal(table, &key, value).as_slice())?;
            upgraded_rows.fetch_add(1, Ordering::Relaxed);
        }
    }
    transaction.delete_table(table.definition())?;
    Ok(transaction.rename_table(Raw::new(&new_name), table.definition())?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_begins_only_with_as_much_room_as_the_file_takes() {
        let path = Path::new("nightmail.redb");
        room(path, 4096, 4096).unwrap();
        let refused = room(path, 3 << 20, 1 << 20).unwrap_err().to_string();
        for word in ["nightmail.redb", "3.0 MiB", "1.0 MiB", "free some"] {
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn an_upgrade_counts_its_rows() {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("nightmail.redb");
        let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stores/v2.redb");
        std::fs::copy(stored, &path).unwrap();
        let options = Options::at(&path);
        drop(super::super::Store::open(&options).unwrap());
        assert!(options.upgraded_rows.load(Ordering::Relaxed) > 10);
    }
}
