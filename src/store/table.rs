//! One table inside a transaction, typed by its key and its record.

use std::cell::{Cell, OnceCell, RefCell};
use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::ReadableTable;

use super::key::Key;
use super::record::Headed;
use super::redo::Redo;
use super::{Error, Record, checksum};

/// A table as redb sees it.
pub(super) type Raw<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The state of one group so far; shared by all tables of the transaction.
#[derive(Debug, Default)]
pub(super) struct TxState {
    /// The first storage fault; set once, it ends the group.
    pub(super) failed: OnceCell<Error>,
    /// Counts the group's writes, which shows whether a refused step wrote anything.
    pub(super) writes: Cell<u64>,
    /// The writes themselves, for the log.
    pub(super) redo: RefCell<Redo>,
}

impl TxState {
    /// Keeps a storage fault and returns it to the caller.
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
    state: &'a TxState,
    types: PhantomData<(K, R)>,
}

impl<'a, 't, K: Key, R: Record> TableMut<'a, 't, K, R> {
    pub(super) fn new(name: &'static str, raw: &'a mut Raw<'t>, state: &'a TxState) -> Self {
        Self { name, raw, state, types: PhantomData }
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn get(&self, key: &K) -> Result<Option<R>, Error> {
        self.state.note(get(self.name, self.raw, key))
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
        let read = || match self.raw.get(key.as_slice())? {
            None => Ok(None),
            Some(guard) => {
                let head = checksum::open(self.name, &key, guard.value()).and_then(R::decode_head);
                head.map(Some).map_err(|reason| Error::Record { table: self.name, reason })
            }
        };
        self.state.note(guarded(self.name, read))
    }

    /// Writes the record under `key`; true when there was one before.
    ///
    /// # Errors
    /// A storage fault.
    pub fn insert(&mut self, key: &K, record: &R) -> Result<bool, Error> {
        self.state.wrote();
        let (name, key) = (self.name, key.to_bytes());
        let mut redo = self.state.redo.borrow_mut();
        let stored = redo.put(name, &key, |out| {
            let begin = out.len();
            out.extend_from_slice(&record.encode());
            let checksum = checksum::of(name, &key, &out[begin..]);
            out.extend_from_slice(&checksum);
        });
        self.state.note(guarded(name, || Ok(self.raw.insert(key.as_slice(), stored)?.is_some())))
    }

    /// Removes the record under `key`; true when there was one.
    ///
    /// # Errors
    /// A storage fault.
    pub fn remove(&mut self, key: &K) -> Result<bool, Error> {
        self.state.wrote();
        let key = key.to_bytes();
        self.state.redo.borrow_mut().remove(self.name, &key);
        self.state.note(guarded(self.name, || Ok(self.raw.remove(key.as_slice())?.is_some())))
    }

    /// Calls `visit` with each record whose key lies in the range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn scan(&self, range: RangeInclusive<K>, visit: impl FnMut(K, R) -> ControlFlow<()>) -> Result<(), Error> {
        self.state.note(scan(self.name, self.raw, &range, visit))
    }

    /// The first `max` records whose keys lie in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn first(&self, range: RangeInclusive<K>, max: usize) -> Result<Vec<(K, R)>, Error> {
        self.state.note(first(self.name, self.raw, &range, max))
    }

    /// The record with the greatest key in the range.
    ///
    /// # Errors
    /// A storage fault or a damaged record.
    pub fn last(&self, range: RangeInclusive<K>) -> Result<Option<(K, R)>, Error> {
        self.state.note(last(self.name, self.raw, &range))
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

/// The reads that both kinds of table share, without redb's generics.
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
    let key = key.to_bytes();
    guarded(name, || match raw.raw_get(&key)? {
        None => Ok(None),
        Some(guard) => decode(name, &key, guard.value()).map(Some),
    })
}

fn scan<K: Key, R: Record>(
    name: &'static str,
    raw: &Readable<'_>,
    range: &RangeInclusive<K>,
    mut visit: impl FnMut(K, R) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut rows = Rows::<K, R>::of(name, raw, range)?;
    while let Some((key, record)) = rows.step(redb::Range::next)? {
        if visit(key, record).is_break() {
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
    let mut rows = Rows::of(name, raw, range)?;
    let mut found = Vec::new();
    while found.len() < max
        && let Some(row) = rows.step(redb::Range::next)?
    {
        found.push(row);
    }
    Ok(found)
}

fn last<K: Key, R: Record>(
    name: &'static str,
    raw: &Readable<'_>,
    range: &RangeInclusive<K>,
) -> Result<Option<(K, R)>, Error> {
    Rows::of(name, raw, range)?.step(redb::Range::next_back)
}

type RawRange<'r> = redb::Range<'r, &'static [u8], &'static [u8]>;
type RawRow<'r> = (redb::AccessGuard<'r, &'static [u8]>, redb::AccessGuard<'r, &'static [u8]>);

/// The rows of a range, each checked as it is read.
struct Rows<'r, K, R> {
    name: &'static str,
    range: RawRange<'r>,
    types: PhantomData<(K, R)>,
}

impl<'r, K: Key, R: Record> Rows<'r, K, R> {
    fn of(name: &'static str, raw: &'r Readable<'_>, range: &RangeInclusive<K>) -> Result<Self, Error> {
        let (low, high) = (range.start().to_bytes(), range.end().to_bytes());
        let range = guarded(name, || Ok(raw.raw_range(&low, &high)?))?;
        Ok(Self { name, range, types: PhantomData })
    }

    fn step(
        &mut self,
        to: impl FnOnce(&mut RawRange<'r>) -> Option<Result<RawRow<'r>, redb::StorageError>>,
    ) -> Result<Option<(K, R)>, Error> {
        let Self { name, range, .. } = self;
        guarded(name, || match to(range) {
            None => Ok(None),
            Some(row) => {
                let (key, value) = row?;
                let record = decode(name, key.value(), value.value())?;
                Ok(Some((decode_key(name, key.value())?, record)))
            }
        })
    }
}

/// Turns redb's panics on some damaged pages into an error that names the table.
pub(super) fn guarded<T>(name: &'static str, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let reason = "redb cannot make sense of its pages (its own words stand above)".to_owned();
        Err(Error::Record { table: name, reason })
    })
}

pub(super) fn decode<R: Record>(name: &'static str, key: &[u8], stored: &[u8]) -> Result<R, Error> {
    let value = checksum::open(name, key, stored);
    value.and_then(R::decode).map_err(|reason| Error::Record { table: name, reason })
}

pub(super) fn decode_key<K: Key>(name: &'static str, bytes: &[u8]) -> Result<K, Error> {
    K::from_bytes(bytes).ok_or_else(|| Error::Record { table: name, reason: format!("key of {} bytes", bytes.len()) })
}
