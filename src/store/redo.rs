//! The writes of one group as bytes: the log stores them and recovery replays them.
//!
//! Each write is the table's name, the key, and the stored value or its removal. Tables are identified by name, not by
//! number, so that a log stays readable when the list of tables changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use redb::{TableDefinition, WriteTransaction};

use super::table::Raw;
use super::{Error, log};

/// The value length that marks a removal.
const REMOVED: u32 = u32::MAX;

/// Collects the writes of a group, after the space for the record's head.
#[derive(Debug)]
pub(super) struct Redo(Vec<u8>);

impl Default for Redo {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(log::HEAD_BYTES, 0);
        Self(bytes)
    }
}

impl Redo {
    /// Adds a written value; returns the stored bytes, which `fill` appends.
    pub(super) fn put(&mut self, table: &str, key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.name(table, key);
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        fill(&mut self.0);
        let length = length_of(self.0.len() - length_at - 4);
        self.0[length_at..length_at + 4].copy_from_slice(&length);
        &self.0[length_at + 4..]
    }

    /// Adds a removal.
    pub(super) fn remove(&mut self, table: &str, key: &[u8]) {
        self.name(table, key);
        self.0.extend_from_slice(&REMOVED.to_be_bytes());
    }

    /// How many bytes it has so far.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Forgets the writes behind the first `bytes`, an earlier [`Redo::bytes`].
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// The writes so far, as [`replay`] takes them.
    pub(super) fn writes(&self) -> &[u8] {
        &self.0[log::HEAD_BYTES..]
    }

    /// The record so far: space for its head, then the writes.
    pub(super) fn into_record(self) -> Vec<u8> {
        self.0
    }

    fn name(&mut self, table: &str, key: &[u8]) {
        self.0.push(u8::try_from(table.len()).expect("a table's name is a short word"));
        self.0.extend_from_slice(table.as_bytes());
        self.0.extend_from_slice(&length_of(key.len()));
        self.0.extend_from_slice(key);
    }
}

fn length_of(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("keys and values are far shorter than 4 GiB").to_be_bytes()
}

/// One write of a record.
#[derive(Debug, PartialEq, Eq)]
struct Write<'r> {
    table: &'r str,
    key: &'r [u8],
    /// None: removed.
    value: Option<&'r [u8]>,
}

/// Replays the writes of records. Replaying a record twice has the same result as once.
pub(super) fn replay<'r>(
    transaction: &WriteTransaction,
    records: impl IntoIterator<Item = &'r [u8]>,
) -> Result<(), Error> {
    let mut open: HashMap<&str, Raw<'_>> = HashMap::new();
    for mut redo in records {
        while !redo.is_empty() {
            let cut_short = || Error::Record { table: "(log)", reason: "a write is cut short".into() };
            let (write, rest) = next(redo).ok_or_else(cut_short)?;
            redo = rest;
            let table = match open.entry(write.table) {
                Entry::Occupied(table) => table.into_mut(),
                Entry::Vacant(place) => place.insert(transaction.open_table(TableDefinition::new(write.table))?),
            };
            match write.value {
                Some(value) => drop(table.insert(write.key, value)?),
                None => drop(table.remove(write.key)?),
            }
        }
    }
    Ok(())
}

fn next(redo: &[u8]) -> Option<(Write<'_>, &[u8])> {
    let (length, rest) = redo.split_first()?;
    let (table, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = split_length(rest)?;
    let (key, rest) = rest.split_at_checked(length as usize)?;
    let (length, rest) = split_length(rest)?;
    let (value, rest) = match length {
        REMOVED => (None, rest),
        length => rest.split_at_checked(length as usize).map(|(value, rest)| (Some(value), rest))?,
    };
    Some((Write { table: std::str::from_utf8(table).ok()?, key, value }, rest))
}

fn split_length(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*length), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_read_back_in_their_order() {
        let mut redo = Redo::default();
        assert_eq!(redo.put("states", b"k", |out| out.extend_from_slice(b"value")), b"value");
        redo.remove("ready", b"key");
        assert_eq!(redo.put("ready", b"", |_| ()), b"");
        let record = redo.into_record();
        let (first, rest) = next(&record[log::HEAD_BYTES..]).unwrap();
        assert_eq!(first, Write { table: "states", key: b"k", value: Some(b"value") });
        let (second, rest) = next(rest).unwrap();
        assert_eq!(second, Write { table: "ready", key: b"key", value: None });
        assert_eq!(next(rest), Some((Write { table: "ready", key: b"", value: Some(b"") }, &b""[..])));
        for end in 1..rest.len() {
            assert_eq!(next(&rest[..end]), None, "{end} bytes");
        }
    }
}
