//! What the writer remembers of the layers, so that it does not look where there is nothing, or for the same thing again:
//! the greatest keys in redb, gaps that removals have left at the beginning of a scan, and the queues.
//!
//! Without the gaps, a queue whose messages are received would be slower with each one, until the next checkpoint: the
//! rows of all of them still lie in redb, and a scan for the next message would pass over their removals each time.

use std::sync::Arc;

use foldhash::HashMap;

use super::Error;
use super::key::KeyBytes;
use super::layers::Base;
use super::record::QueueRecord;
use super::table_id::{self, TableId};

/// A gap is remembered from this many removals on.
const HIDDEN_MIN: u64 = 8;
/// At most this many bounds, and as many gaps, are remembered; then all are forgotten.
const KEPT_MAX: usize = 4096;

/// A table, and the first four bytes of a key, which are a queue's number in the tables that are scanned most.
type KeyPrefix = (u8, [u8; 4]);

/// Keys from `low` up to `end`, which is not part of it: no row lies there in any layer.
#[derive(Clone, Debug)]
struct Gap {
    low: KeyBytes,
    end: KeyBytes,
}

/// See the module. Only the writer has it: it knows each change.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// The greatest key of redb at a place; `None` when it has none there.
    greatest: HashMap<KeyPrefix, Option<KeyBytes>>,
    gaps: HashMap<KeyPrefix, Gap>,
    /// Every step needs the record of its queue, which hardly ever changes.
    pub(super) queues: Queues,
}

/// Queues that were read, until one of them changes.
#[derive(Debug, Default)]
pub(super) struct Queues {
    by_id: HashMap<u32, Arc<QueueRecord>>,
    ids: HashMap<String, u32>,
    /// By the number of their rows.
    of_rows: HashMap<u32, u32>,
}

impl Queues {
    pub(super) fn get(&self, id: u32) -> Option<Arc<QueueRecord>> {
        self.by_id.get(&id).cloned()
    }

    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    pub(super) fn of_rows(&self, rows: u32) -> Option<u32> {
        self.of_rows.get(&rows).copied()
    }

    pub(super) fn keep(&mut self, id: u32, record: Arc<QueueRecord>) {
        if self.by_id.len() >= KEPT_MAX {
            self.forget();
        }
        self.by_id.insert(id, record);
    }

    pub(super) fn keep_id(&mut self, name: &str, id: u32) {
        if self.ids.len() >= KEPT_MAX {
            self.forget();
        }
        self.ids.insert(name.to_owned(), id);
    }

    pub(super) fn keep_rows(&mut self, rows: u32, queue: u32) {
        if self.of_rows.len() >= KEPT_MAX {
            self.forget();
        }
        self.of_rows.insert(rows, queue);
    }

    fn forget(&mut self) {
        self.by_id.clear();
        self.ids.clear();
        self.of_rows.clear();
    }
}

const QUEUES: TableId = table_id::table("queues");
const QUEUE_NAMES: TableId = table_id::table("queue_names");
const ROW_NUMBERS: TableId = table_id::table("row_numbers");

impl Hints {
    /// Whether redb may have a row of that key.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn may_be_in(&mut self, base: &Base, table: TableId, key: &[u8]) -> Result<bool, Error> {
        let Some(prefix) = key.first_chunk::<4>() else { return Ok(true) };
        let greatest = self.greatest(base, table, *prefix)?;
        Ok(greatest.is_some_and(|greatest| key <= greatest))
    }

    /// Whether redb may have a row in that range.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn may_reach(&mut self, base: &Base, table: TableId, low: &[u8], high: &[u8]) -> Result<bool, Error> {
        match (low.first_chunk::<4>(), high.first_chunk::<4>()) {
            (Some(a), Some(b)) if a == b => self.may_be_in(base, table, low),
            _ => Ok(true),
        }
    }

    fn greatest(&mut self, base: &Base, table: TableId, prefix: [u8; 4]) -> Result<Option<&[u8]>, Error> {
        let place = (table.number, prefix);
        if !self.greatest.contains_key(&place) {
            if self.greatest.len() >= KEPT_MAX {
                self.greatest.clear();
            }
            let end = u32::from_be_bytes(prefix).checked_add(1).map(u32::to_be_bytes);
            let greatest = base.greatest(table, &prefix, end.as_ref().map(|end| &end[..]))?;
            self.greatest.insert(place, greatest);
        }
        Ok(self.greatest[&place].as_deref())
    }

    /// Redb has other rows now; the rows of all layers together are the same.
    pub(super) fn base_was_replaced(&mut self) {
        self.greatest.clear();
    }

    /// Writes were taken back: rows that had been removed are there again.
    pub(super) fn were_rolled_back(&mut self) {
        self.gaps.clear();
        self.queues.forget();
    }

    /// Where a scan from `low` may begin; `None` when it is as well to begin there.
    pub(super) fn skip(&self, table: TableId, low: &[u8]) -> Option<&KeyBytes> {
        let gap = self.gaps.get(&(table.number, *low.first_chunk()?))?;
        (&*gap.low <= low && low < &*gap.end).then_some(&gap.end)
    }

    /// A scan of the range from `low` to `high` passed over `hidden` removals before its first row, at `found`.
    pub(super) fn saw(&mut self, table: TableId, low: &[u8], high: &[u8], hidden: u64, found: Option<&[u8]>) {
        let (Some(prefix), Some(end)) = (low.first_chunk::<4>(), high.first_chunk::<4>()) else { return };
        if prefix != end {
            return;
        }
        let place = (table.number, *prefix);
        // The end of the range belongs to the gap when nothing was found.
        let end = found.map_or_else(|| KeyBytes::of(&[high, &[0]]), |found| KeyBytes::of(&[found]));
        match self.gaps.get_mut(&place) {
            // The scan began at the end of the gap, which grows.
            Some(gap) if &*gap.low <= low && low <= &*gap.end => gap.end = gap.end.clone().max(end),
            _ if hidden < HIDDEN_MIN => {}
            _ => {
                if self.gaps.len() >= KEPT_MAX {
                    self.gaps.clear();
                }
                self.gaps.insert(place, Gap { low: KeyBytes::of(&[low]), end });
            }
        }
    }

    /// A row of the table is written or removed.
    pub(super) fn changes(&mut self, table: TableId) {
        if table == QUEUES || table == QUEUE_NAMES || table == ROW_NUMBERS {
            self.queues.forget();
        }
    }

    /// A row is written: a gap around it ends there.
    pub(super) fn wrote(&mut self, table: TableId, key: &KeyBytes) {
        self.changes(table);
        if self.gaps.is_empty() {
            return;
        }
        let Some(prefix) = key.first_chunk::<4>() else { return };
        let place = (table.number, *prefix);
        if let Some(gap) = self.gaps.get_mut(&place)
            && gap.low <= *key
            && *key < gap.end
        {
            if gap.low == *key {
                self.gaps.remove(&place);
            } else {
                gap.end = key.clone();
            }
        }
    }
}
