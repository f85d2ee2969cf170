//! The reads and writes of one group, without their types: on the layers, which the writer alone changes, and in the
//! frame that makes them durable.

use std::cell::{OnceCell, RefCell};
use std::ops::ControlFlow;

use foldhash::HashSet;

use super::frame::Redo;
use super::hints::{Hints, Queues};
use super::key::KeyBytes;
use super::layers::{Bytes, Layers, Order, Rows};
use super::memtable::{Entry, Memtable, Value};
use super::table_id::TableId;
use super::{Error, checksum};

/// See the module.
pub(super) struct Changes<'t> {
    layers: &'t mut Layers,
    hints: RefCell<&'t mut Hints>,
    /// The newest rows before the group, to which a refused step returns.
    before: Memtable,
    redo: Redo,
    /// Rows that the group has read from redb: their removal needs no second search.
    seen_in_base: RefCell<HashSet<(u8, KeyBytes)>>,
    /// Counts the writes.
    count: u64,
    /// The first storage fault; set once, it ends the group.
    failed: OnceCell<Error>,
}

/// At most this many rows that were read from redb are remembered for the rest of the group.
const SEEN_MAX: usize = 4096;

/// How much a group had written at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    count: u64,
    redo_bytes: usize,
}

impl<'t> Changes<'t> {
    pub(super) fn new(layers: &'t mut Layers, hints: &'t mut Hints) -> Self {
        let before = layers.active.clone();
        Self {
            layers,
            hints: RefCell::new(hints),
            before,
            redo: Redo::default(),
            seen_in_base: RefCell::default(),
            count: 0,
            failed: OnceCell::new(),
        }
    }

    /// The rows that the group sees.
    pub(super) fn layers(&self) -> &Layers {
        self.layers
    }

    /// The queues that were read.
    pub(super) fn queues(&mut self) -> &mut Queues {
        &mut self.hints.get_mut().queues
    }

    /// The first storage fault.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.get()
    }

    /// Keeps a storage fault and returns it to the caller.
    pub(super) fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.failed.get_or_init(|| error.clone());
        }
        result
    }

    /// How much was written so far.
    pub(super) fn mark(&self) -> Mark {
        Mark { count: self.count, redo_bytes: self.redo.bytes() }
    }

    /// The length of the writes so far, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.redo.bytes()
    }

    /// Counts a write that is kept in memory to the end of the group.
    pub(super) fn wrote(&mut self) {
        self.count += 1;
    }

    /// Takes back what was written since that moment.
    ///
    /// # Errors
    /// The writes of the other steps cannot be read: a bug.
    pub(super) fn roll_back(&mut self, to: Mark) -> Result<(), Error> {
        self.count = to.count;
        self.redo.truncate(to.redo_bytes);
        self.layers.active = self.before.clone();
        self.layers.active.replay(self.redo.writes())?;
        // A row that the step had removed is there again.
        self.hints.get_mut().were_rolled_back();
        Ok(())
    }

    /// The frame, and the newest rows before the group.
    pub(super) fn finish(self) -> (Vec<u8>, Memtable) {
        (self.redo.into_frame(), self.before)
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes<'_>>, Error> {
        match self.layers.in_memory(table, key) {
            Some(entry) => Ok(entry.value.as_deref().map(Bytes::Memory)),
            None if self.may_be_in_base(table, key)? => {
                let found = self.layers.base.get(table, key)?.map(Bytes::Disk);
                if found.is_some() {
                    self.saw_in_base(table, key);
                }
                Ok(found)
            }
            None => Ok(None),
        }
    }

    fn saw_in_base(&self, table: TableId, key: &[u8]) {
        let mut seen = self.seen_in_base.borrow_mut();
        if seen.len() < SEEN_MAX {
            seen.insert((table.number, KeyBytes::of(&[key])));
        }
    }

    fn may_be_in_base(&self, table: TableId, key: &[u8]) -> Result<bool, Error> {
        self.hints.borrow_mut().may_be_in(&self.layers.base, table, key)
    }

    /// Writes the value that `encode` appends.
    pub(super) fn insert(&mut self, table: TableId, key: KeyBytes, encode: impl FnOnce(&mut Vec<u8>)) {
        self.count += 1;
        let put = self.redo.put(table, &key, |out| {
            let begin = out.len();
            encode(out);
            let checksum = checksum::of(table, &key, &out[begin..]);
            out.extend_from_slice(&checksum);
        });
        let stored = Value::from(put);
        self.hints.get_mut().wrote(table, &key);
        let overlay = self.layers.active.table_mut(table);
        // Most rows that are written are new: one search is enough for these.
        let is_above_row = match overlay.insert(key.clone(), Entry { value: Some(stored), is_above_row: false }) {
            Some(old) => old.is_above_row,
            None => self.seen_in_base.get_mut().contains(&(table.number, key.clone())),
        };
        if is_above_row && let Some(entry) = overlay.get_mut(&*key) {
            entry.is_above_row = true;
        }
    }

    /// Removes a row; true when there was one.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn remove(&mut self, table: TableId, key: &KeyBytes) -> Result<bool, Error> {
        self.count += 1;
        self.redo.remove(table, key);
        self.hints.get_mut().changes(table);
        let newest = self.layers.active.table(table).get(&**key);
        let was_there = newest.map(|entry| entry.value.is_some());
        let lies_below = newest.is_some_and(|entry| entry.is_above_row) || self.lies_below(table, key)?;
        let overlay = self.layers.active.table_mut(table);
        if lies_below {
            overlay.insert(key.clone(), Entry { value: None, is_above_row: true });
        } else if was_there.is_some() {
            overlay.remove(&**key);
        }
        Ok(was_there.unwrap_or(lies_below))
    }

    /// Whether a row lies under the newest rows.
    fn lies_below(&self, table: TableId, key: &KeyBytes) -> Result<bool, Error> {
        if let Some(entry) = self.layers.frozen.as_ref().and_then(|frozen| frozen.table(table).get(&**key)) {
            return Ok(entry.value.is_some());
        }
        if self.seen_in_base.borrow().contains(&(table.number, key.clone())) {
            return Ok(true);
        }
        Ok(self.may_be_in_base(table, key)? && self.layers.base.get(table, key)?.is_some())
    }

    /// Calls `visit` with each row of a range, in key order, until it breaks.
    ///
    /// # Errors
    /// A storage fault, or an error of `visit`.
    pub(super) fn scan(
        &self,
        table: TableId,
        low: &[u8],
        high: &[u8],
        mut visit: impl FnMut(&Bytes<'_>, &Bytes<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let start = self.hints.borrow().skip(table, low).cloned();
        let start = start.as_deref().unwrap_or(low);
        if start > high {
            return Ok(());
        }
        let mut rows = self.rows(table, start, high)?;
        let mut next = rows.next()?;
        let found = next.as_ref().map(|(key, _)| key.stored());
        self.hints.borrow_mut().saw(table, low, high, rows.hidden, found);
        while let Some((key, value)) = next {
            if let Bytes::Disk(_) = key {
                self.saw_in_base(table, key.stored());
            }
            if visit(&key, &value)?.is_break() {
                break;
            }
            next = rows.next()?;
        }
        Ok(())
    }

    fn rows(&self, table: TableId, low: &[u8], high: &[u8]) -> Result<Rows<'_>, Error> {
        if self.hints.borrow_mut().may_reach(&self.layers.base, table, low, high)? {
            self.layers.rows(table, low, high, Order::Ascending)
        } else {
            Ok(self.layers.rows_in_memory(table, low, high))
        }
    }
}

#[cfg(test)]
mod tests;
