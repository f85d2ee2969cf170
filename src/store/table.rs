//! One table inside a transaction, typed by its key and its record.

use std::cell::{Cell, OnceCell};
use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};

use redb::ReadableTable;

use super::key::Key;
use super::{Error, Record};

/// A table as redb sees it.
pub(super) type Raw<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// What the steps of one group have done so far; shared by all tables of the transaction.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The first storage fault; set once, it ends the group.
    pub(super) failed: OnceCell<Error>,
    /// Counts writes, so that a refused step is seen to have left no trace.
    pub(super) writes: Cell<u64>,
}

impl Ledger {
    /// Remembers a storage fault on its way to the caller.
    pub(super) fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.failed.get_or_init(|| error.clone());
        }
        result
    }

    /// Counts one write.
    pub(super) fn wrote(&self) {
        self.writes.set(self.writes.get() + 1);
    }
}

/// A table that can be written.
pub struct TableMut<'a, 't, K, R> {
    name: &'static str,
    raw: &'a mut Raw<'t>,
    ledger: &'a Ledger,
    types: PhantomData<(K, R)>,
}

impl<'a, 't, K: Key, R: Record> TableMut<'a, 't, K, R> {
    pub(super) fn new(name: &'static str, raw: &'a mut Raw<'t>, ledger: &'a Ledger) -> Self {
        Self { name, raw, ledger, types: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn get(&self, key: &K) -> Result<Option<R>, Error> {
        self.ledger.note(get(self.name, self.raw, key))
    }

    /// Writes the record under `key`; true when there was one before.
    ///
    /// # Errors
    /// A storage fault.
    pub fn insert(&mut self, key: &K, record: &R) -> Result<bool, Error> {
        self.ledger.wrote();
        let old = self.raw.insert(key.to_bytes().as_slice(), record.encode().as_slice());
        self.ledger.note(old.map(|old| old.is_some()).map_err(Error::from))
    }

    /// Removes the record under `key`; true when there was one.
    ///
    /// # Errors
    /// A storage fault.
    pub fn remove(&mut self, key: &K) -> Result<bool, Error> {
        self.ledger.wrote();
        let old = self.raw.remove(key.to_bytes().as_slice());
        self.ledger.note(old.map(|old| old.is_some()).map_err(Error::from))
    }

    /// Calls `visit` with each record whose key lies in the range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn scan(&self, range: RangeInclusive<K>, visit: impl FnMut(K, R) -> ControlFlow<()>) -> Result<(), Error> {
        self.ledger.note(scan(self.name, self.raw, &range, visit))
    }

    /// The first `max` records whose keys lie in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn first(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        self.ledger.note(first(self.name, self.raw, &range, max))
    }

    /// The record with the greatest key in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn last(&self, range: RangeInclusive<K>) -> Result<Option<(K, R)>, Error> {
        self.ledger.note(last(self.name, self.raw, &range))
    }
}

/// A table that can only be read.
pub struct TableRef<K, R> {
    pub(super) name: &'static str,
    pub(super) raw: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    types: PhantomData<(K, R)>,
}

impl<K: Key, R: Record> TableRef<K, R> {
    pub(super) fn new(name: &'static str, raw: redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Self {
        Self { name, raw, types: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn get(&self, key: &K) -> Result<Option<R>, Error> {
        get(self.name, &self.raw, key)
    }

    /// Calls `visit` with each record whose key lies in the range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn scan(&self, range: RangeInclusive<K>, visit: impl FnMut(K, R) -> ControlFlow<()>) -> Result<(), Error> {
        scan(self.name, &self.raw, &range, visit)
    }

    /// The first `max` records whose keys lie in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn first(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        first(self.name, &self.raw, &range, max)
    }

    /// The record with the greatest key in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn last(&self, range: RangeInclusive<K>) -> Result<Option<(K, R)>, Error> {
        last(self.name, &self.raw, &range)
    }
}

type Readable<'x> = dyn ReadableTableErased + 'x;

/// What both kinds of table can do, without redb's generics.
trait ReadableTableErased {
    fn raw_get(&self, key: &[u8]) -> Result<Option<redb::AccessGuard<'_, &'static [u8]>>, redb::StorageError>;
    fn raw_range(
        &self,
        low: &[u8],
        high: &[u8],
    ) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, redb::StorageError>;
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> ReadableTableErased for T {
    fn raw_get(&self, key: &[u8]) -> Result<Option<redb::AccessGuard<'_, &'static [u8]>>, redb::StorageError> {
        self.get(key)
    }
    fn raw_range(
        &self,
        low: &[u8],
        high: &[u8],
    ) -> Result<redb::Range<'_, &'static [u8], &'static [u8]>, redb::StorageError> {
        self.range::<&[u8]>(low..=high)
    }
}

fn get<K: Key, R: Record>(name: &'static str, raw: &Readable<'_>, key: &K) -> Result<Option<R>, Error> {
    match raw.raw_get(&key.to_bytes())? {
        None => Ok(None),
        Some(guard) => decode(name, guard.value()).map(Some),
    }
}

fn scan<K: Key, R: Record>(
    name: &'static str,
    raw: &Readable<'_>,
    range: &RangeInclusive<K>,
    mut visit: impl FnMut(K, R) -> ControlFlow<()>,
) -> Result<(), Error> {
    for entry in raw.raw_range(&range.start().to_bytes(), &range.end().to_bytes())? {
        let (key, value) = entry?;
        if visit(decode_key(name, key.value())?, decode(name, value.value())?).is_break() {
            break;
        }
    }
    Ok(())
}

fn first<K: Key, R: Record>(
    name: &'static str,
    raw: &Readable<'_>,
    range: &RangeInclusive<K>,
    max: usize,
) -> Result<Vec<(K, R)>, Error> {
    let mut found = Vec::new();
    for entry in raw.raw_range(&range.start().to_bytes(), &range.end().to_bytes())?.take(max) {
        let (key, value) = entry?;
        found.push((decode_key(name, key.value())?, decode(name, value.value())?));
    }
    Ok(found)
}

fn last<K: Key, R: Record>(
    name: &'static str,
    raw: &Readable<'_>,
    range: &RangeInclusive<K>,
) -> Result<Option<(K, R)>, Error> {
    match raw.raw_range(&range.start().to_bytes(), &range.end().to_bytes())?.next_back() {
        None => Ok(None),
        Some(entry) => {
            let (key, value) = entry?;
            Ok(Some((decode_key(name, key.value())?, decode(name, value.value())?)))
        }
    }
}

pub(super) fn decode<R: Record>(name: &'static str, bytes: &[u8]) -> Result<R, Error> {
    R::decode(bytes).map_err(|reason| Error::Record { table: name, reason })
}

pub(super) fn decode_key<K: Key>(name: &'static str, bytes: &[u8]) -> Result<K, Error> {
    K::from_bytes(bytes).ok_or_else(|| Error::Record { table: name, reason: format!("key of {} bytes", bytes.len()) })
}
