//! One table inside a transaction or a snapshot, typed by its key and its record.

use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use super::changes::Changes;
use super::key::Key;
use super::layers::{Bytes, Layers, Order, Rows};
use super::record::Headed;
use super::table_id::TableId;
use super::{Error, Record};

/// A table that can be written.
pub struct TableMut<'a, 't, K, R> {
    table: TableId,
    changes: &'a mut Changes<'t>,
    types: PhantomData<(K, R)>,
}

impl<'a, 't, K: Key, R: Record> TableMut<'a, 't, K, R> {
    pub(super) fn new(table: TableId, changes: &'a mut Changes<'t>) -> Self {
        Self { table, changes, types: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn get(&self, key: &K) -> Result<Option<R>, Error> {
        self.read(key, R::decode)
    }

    /// The head of the record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record; the whole record's checksum is checked.
    pub fn head(&self, key: &K) -> Result<Option<R::Head>, Error>
    where
        R: Headed,
    {
        self.read(key, R::decode_head)
    }

    fn read<T>(&self, key: &K, decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<Option<T>, Error> {
        let key = key.to_bytes();
        let read = || match self.changes.get(self.table, &key)? {
            None => Ok(None),
            Some(value) => open(self.table, &key, &value, decode).map(Some),
        };
        self.changes.note(read())
    }

    /// Writes the record under `key`.
    ///
    /// # Errors
    /// A storage fault.
    pub fn insert(&mut self, key: &K, record: &R) -> Result<(), Error> {
        self.changes.insert(self.table, key.to_bytes(), |out| record.encode_into(out));
        Ok(())
    }

    /// Removes the record under `key`; true when there was one.
    ///
    /// # Errors
    /// A storage fault.
    pub fn remove(&mut self, key: &K) -> Result<bool, Error> {
        let removed = self.changes.remove(self.table, &key.to_bytes());
        self.changes.note(removed)
    }

    /// Calls `visit` with each record whose key lies in the range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn scan(&self, range: RangeInclusive<K>, visit: impl FnMut(K, R) -> ControlFlow<()>) -> Result<(), Error> {
        self.changes.note(self.scan_range(&range, visit))
    }

    fn scan_range(
        &self,
        range: &RangeInclusive<K>,
        mut visit: impl FnMut(K, R) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let (low, high) = (range.start().to_bytes(), range.end().to_bytes());
        self.changes.scan(self.table, &low, &high, |key, value| {
            let (key, record) = row(self.table, key, value)?;
            Ok(visit(key, record))
        })
    }

    /// The first `max` records whose keys lie in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn first(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        let mut found = Vec::new();
        if max > 0 {
            self.scan(range, |key, record| {
                found.push((key, record));
                if found.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    /// The record with the greatest key in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn last(&self, range: RangeInclusive<K>) -> Result<Option<(K, R)>, Error> {
        Ok(self.newest(range, 1)?.pop())
    }

    /// The last `max` records whose keys lie in the range, the greatest key first.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn newest(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        self.changes.note(newest(self.table, self.changes.layers(), &range, max))
    }
}

/// A table that can only be read.
pub struct TableRef<K, R> {
    pub(super) table: TableId,
    pub(super) layers: Arc<Layers>,
    types: PhantomData<(K, R)>,
}

impl<K: Key, R: Record> TableRef<K, R> {
    pub(super) fn new(table: TableId, layers: Arc<Layers>) -> Self {
        Self { table, layers, types: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn get(&self, key: &K) -> Result<Option<R>, Error> {
        let key = key.to_bytes();
        match self.layers.get(self.table, &key)? {
            None => Ok(None),
            Some(value) => open(self.table, &key, &value, R::decode).map(Some),
        }
    }

    /// The head of the record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record; the whole record's checksum is checked.
    pub fn head(&self, key: &K) -> Result<Option<R::Head>, Error>
    where
        R: Headed,
    {
        let key = key.to_bytes();
        match self.layers.get(self.table, &key)? {
            None => Ok(None),
            Some(value) => open(self.table, &key, &value, R::decode_head).map(Some),
        }
    }

    /// Calls `visit` with each record whose key lies in the range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn scan(&self, range: RangeInclusive<K>, mut visit: impl FnMut(K, R) -> ControlFlow<()>) -> Result<(), Error> {
        let mut rows = rows(self.table, &self.layers, &range, Order::Ascending)?;
        while let Some((key, value)) = rows.next()? {
            let (key, record) = row(self.table, &key, &value)?;
            if visit(key, record).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first `max` records whose keys lie in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn first(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        let mut rows = rows(self.table, &self.layers, &range, Order::Ascending)?;
        let mut found = Vec::new();
        while found.len() < max
            && let Some((key, value)) = rows.next()?
        {
            found.push(row(self.table, &key, &value)?);
        }
        Ok(found)
    }

    /// The record with the greatest key in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn last(&self, range: RangeInclusive<K>) -> Result<Option<(K, R)>, Error> {
        Ok(self.newest(range, 1)?.pop())
    }

    /// The last `max` records whose keys lie in the range, the greatest key first.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn newest(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        newest(self.table, &self.layers, &range, max)
    }
}

/// Reads that skip rows that do not decode: a check has reported those.
impl<K: Key, R: Record> TableRef<K, R> {
    /// Calls `visit` with each row that decodes, in key order.
    ///
    /// # Errors
    /// A storage fault, or an error of `visit`.
    pub fn each_sound(&self, mut visit: impl FnMut(K, R) -> Result<(), Error>) -> Result<(), Error> {
        let mut rows = self.layers.all(self.table)?;
        while let Some((key, value)) = rows.next()? {
            if let Ok((key, record)) = row(self.table, &key, &value) {
                visit(key, record)?;
            }
        }
        Ok(())
    }

    /// As [`TableRef::each_sound`], within a range.
    ///
    /// # Errors
    /// A storage fault, or the error of `visit`.
    pub fn each_sound_in(
        &self,
        range: RangeInclusive<K>,
        mut visit: impl FnMut(K, R) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = rows(self.table, &self.layers, &range, Order::Ascending)?;
        while let Some((key, value)) = rows.next()? {
            if let Ok((key, record)) = row(self.table, &key, &value) {
                visit(key, record)?;
            }
        }
        Ok(())
    }

    /// The keys from `start` on, at most `max`.
    ///
    /// # Errors
    /// A storage fault.
    pub fn keys(&self, start: &K, max: usize) -> Result<Vec<K>, Error> {
        let (mut rows, mut keys) = (self.layers.rows_from(self.table, &start.to_bytes())?, Vec::new());
        for _ in 0..max {
            let Some((key, _)) = rows.next()? else { break };
            keys.extend(K::from_bytes(key.stored()));
        }
        Ok(keys)
    }

    /// Whether the row exists, even if it does not decode.
    ///
    /// # Errors
    /// A storage fault.
    pub fn has(&self, key: &K) -> Result<bool, Error> {
        Ok(self.layers.get(self.table, &key.to_bytes())?.is_some())
    }

    /// The record under `key`, when it decodes.
    ///
    /// # Errors
    /// A storage fault.
    pub fn sound(&self, key: &K) -> Result<Option<R>, Error> {
        match self.get(key) {
            Err(Error::Record { .. }) => Ok(None),
            other => other,
        }
    }
}

fn rows<'r, K: Key>(
    table: TableId,
    layers: &'r Layers,
    range: &RangeInclusive<K>,
    order: Order,
) -> Result<Rows<'r>, Error> {
    layers.rows(table, &range.start().to_bytes(), &range.end().to_bytes(), order)
}

fn newest<K: Key, R: Record>(
    table: TableId,
    layers: &Layers,
    range: &RangeInclusive<K>,
    max: usize,
) -> Result<Vec<(K, R)>, Error> {
    let (mut rows, mut found) = (rows(table, layers, range, Order::Descending)?, Vec::new());
    while found.len() < max
        && let Some((key, value)) = rows.next()?
    {
        found.push(row(table, &key, &value)?);
    }
    Ok(found)
}

fn row<K: Key, R: Record>(table: TableId, key: &Bytes<'_>, value: &Bytes<'_>) -> Result<(K, R), Error> {
    let record = open(table, key.stored(), value, R::decode)?;
    Ok((decode_key(table, key.stored())?, record))
}

fn open<T>(
    table: TableId,
    key: &[u8],
    value: &Bytes<'_>,
    decode: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, Error> {
    decode(value.open(table, key)?).map_err(|reason| Error::Record { table: table.name, reason })
}

/// Bytes as people read them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// Decodes one row; returns its key as text and what is wrong with it.
pub(super) fn read_row<K: Key + std::fmt::Debug, R: Record>(
    table: TableId,
    key: &[u8],
    value: &Bytes<'_>,
) -> Result<(), (String, String)> {
    let Ok(typed) = decode_key::<K>(table, key) else {
        return Err((hex(key), format!("{} bytes that are no key of this table", key.len())));
    };
    match open(table, key, value, R::decode) {
        Ok(_) => Ok(()),
        Err(Error::Record { reason, .. }) => Err((format!("{typed:?}"), format!("does not decode: {reason}"))),
        Err(error) => Err((format!("{typed:?}"), error.to_string())),
    }
}

fn decode_key<K: Key>(table: TableId, bytes: &[u8]) -> Result<K, Error> {
    let reason = || format!("key of {} bytes", bytes.len());
    K::from_bytes(bytes).ok_or_else(|| Error::Record { table: table.name, reason: reason() })
}
