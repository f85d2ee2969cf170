//! The rows of the store in their layers: redb as of the last checkpoint, above it the memtable that a checkpoint is
//! applying, if there is one, and the memtable of the newest groups. The upper row of a key counts.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use imbl::ordmap::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase};

use super::key::KeyBytes;
use super::memtable::{Entry, Memtable, Overlay};
use super::table_id::{TABLES, TableId};
use super::{Error, checksum, guard};

type Guard = AccessGuard<'static, &'static [u8]>;
/// The bounds of a range of keys.
type Range<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);
type BaseRange = redb::Range<'static, &'static [u8], &'static [u8]>;

/// The tables of redb as of one commit.
pub(super) struct Base {
    /// By number.
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Base {
    /// The tables as of redb's last commit.
    ///
    /// # Errors
    /// A storage fault, or a table that is missing.
    pub(super) fn open(db: &Database) -> Result<Self, Error> {
        let transaction = db.begin_read()?;
        let open = |table: &TableId| guard::table(*table, || Ok(transaction.open_table(table.definition())?));
        Ok(Self { tables: TABLES.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// A table as redb knows it.
    pub(super) fn table(&self, table: TableId) -> &ReadOnlyTable<&'static [u8], &'static [u8]> {
        &self.tables[table.index()]
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Guard>, Error> {
        guard::table(table, || Ok(self.table(table).get(key)?))
    }

    fn range(&self, table: TableId, range: Range<'_>) -> Result<BaseRange, Error> {
        guard::table(table, || Ok(self.table(table).range::<&[u8]>(range)?))
    }

    /// The greatest key from `low` on, and below `end` if it is given.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn greatest(&self, table: TableId, low: &[u8], end: Option<&[u8]>) -> Result<Option<KeyBytes>, Error> {
        let bounds = (Bound::Included(low), end.map_or(Bound::Unbounded, Bound::Excluded));
        guard::table(table, || {
            let last = self.table(table).range::<&[u8]>(bounds)?.next_back().transpose()?;
            Ok(last.map(|(key, _)| KeyBytes::of(&[key.value()])))
        })
    }
}

/// See the module. A copy is cheap and keeps its state: that is how readers see one moment.
#[derive(Clone)]
pub(super) struct Layers {
    pub(super) base: Arc<Base>,
    /// The memtable that a checkpoint is applying to redb.
    pub(super) frozen: Option<Arc<Memtable>>,
    /// What was changed since.
    pub(super) active: Memtable,
}

impl Layers {
    /// Redb alone.
    pub(super) fn of(base: Base) -> Self {
        Self { base: Arc::new(base), frozen: None, active: Memtable::default() }
    }

    /// The row of that key in the memtables, if one of them has it.
    pub(super) fn in_memory(&self, table: TableId, key: &[u8]) -> Option<&Entry> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.table(table).get(key));
        self.active.table(table).get(key).or_else(frozen)
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes<'_>>, Error> {
        match self.in_memory(table, key) {
            Some(entry) => Ok(entry.value.as_deref().map(Bytes::Memory)),
            None => Ok(self.base.get(table, key)?.map(Bytes::Disk)),
        }
    }

    /// The rows of a range, its ends included.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn rows(&self, table: TableId, low: &[u8], high: &[u8], order: Order) -> Result<Rows<'_>, Error> {
        self.rows_within(table, (Bound::Included(low), Bound::Included(high)), order)
    }

    /// The rows from a key on.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn rows_from(&self, table: TableId, low: &[u8]) -> Result<Rows<'_>, Error> {
        self.rows_within(table, (Bound::Included(low), Bound::Unbounded), Order::Ascending)
    }

    /// All rows of a table.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn all(&self, table: TableId) -> Result<Rows<'_>, Error> {
        self.rows_from(table, &[])
    }

    /// The rows of a range, its ends included, of which it is known that redb has none.
    pub(super) fn rows_in_memory(&self, table: TableId, low: &[u8], high: &[u8]) -> Rows<'_> {
        self.in_memory_within(table, (Bound::Included(low), Bound::Included(high)), Order::Ascending)
    }

    fn rows_within(&self, table: TableId, range: Range<'_>, order: Order) -> Result<Rows<'_>, Error> {
        let mut rows = self.in_memory_within(table, range, order);
        rows.base = Some(self.base.range(table, range)?);
        rows.pull_base()?;
        Ok(rows)
    }

    fn in_memory_within(&self, table: TableId, range: Range<'_>, order: Order) -> Rows<'_> {
        let frozen = self.frozen.as_ref().map(|frozen| Side::of(frozen.table(table), range, order));
        let active = Side::of(self.active.table(table), range, order);
        Rows { table, order, active, frozen, base: None, base_head: None, hidden: 0, of_base: 0 }
    }
}

/// The order in which rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// A key or a value.
pub(super) enum Bytes<'r> {
    /// Of a memtable.
    Memory(&'r [u8]),
    /// Of redb's pages.
    Disk(Guard),
}

impl Bytes<'_> {
    /// The bytes as they are stored.
    pub(super) fn stored(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Disk(guard) => guard.value(),
        }
    }

    /// The value without its checksum, which is verified unless the value was never on disk.
    ///
    /// # Errors
    /// The checksum does not fit.
    pub(super) fn open(&self, table: TableId, key: &[u8]) -> Result<&[u8], Error> {
        match self {
            Self::Memory(stored) => Ok(checksum::strip(stored).map_or(&[], |(value, _)| value)),
            Self::Disk(guard) => checksum::open(table, key, guard.value()),
        }
    }
}

/// The rows of one overlay in a range.
struct Side<'r> {
    rows: RangedIter<'r, KeyBytes, Entry, DefaultSharedPtr>,
    head: Option<(&'r KeyBytes, &'r Entry)>,
}

impl<'r> Side<'r> {
    fn of(overlay: &'r Overlay, range: Range<'_>, order: Order) -> Self {
        let mut side = Self { rows: overlay.range::<_, [u8]>(range), head: None };
        side.pull(order);
        side
    }

    fn pull(&mut self, order: Order) {
        self.head = match order {
            Order::Ascending => self.rows.next(),
            Order::Descending => self.rows.next_back(),
        };
    }

    fn key(&self) -> Option<&'r [u8]> {
        self.head.map(|(key, _)| &**key)
    }
}

/// The rows of a range, merged from all layers.
pub(super) struct Rows<'r> {
    table: TableId,
    order: Order,
    active: Side<'r>,
    frozen: Option<Side<'r>>,
    base: Option<BaseRange>,
    base_head: Option<(Guard, Guard)>,
    /// How many removals were passed over so far.
    pub(super) hidden: u64,
    /// How many rows of redb were read so far, those that are hidden too.
    pub(super) of_base: u64,
}

impl<'r> Rows<'r> {
    /// The next row, key and value.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn next(&mut self) -> Result<Option<(Bytes<'r>, Bytes<'r>)>, Error> {
        loop {
            let active = self.active.key();
            let frozen = self.frozen.as_ref().and_then(Side::key);
            let base = self.base_head.as_ref().map(|(key, _)| key.value());
            let Some(first) = [active, frozen, base].into_iter().flatten().reduce(|a, b| self.order.first(a, b)) else {
                return Ok(None);
            };
            let [in_active, in_frozen, in_base] = [active, frozen, base].map(|key| key == Some(first));
            let below = in_base.then(|| self.base_head.take()).flatten();
            if in_base {
                self.of_base += 1;
                self.pull_base()?;
            }
            let mut above = None;
            if let Some(frozen) = self.frozen.as_mut().filter(|_| in_frozen) {
                above = frozen.head;
                frozen.pull(self.order);
            }
            if in_active {
                above = self.active.head;
                self.active.pull(self.order);
            }
            match (above, below) {
                (Some((key, Entry { value: Some(value), .. })), _) => {
                    return Ok(Some((Bytes::Memory(key), Bytes::Memory(value))));
                }
                (Some(_), _) => self.hidden += 1,
                (None, Some((key, value))) => return Ok(Some((Bytes::Disk(key), Bytes::Disk(value)))),
                (None, None) => return Ok(None),
            }
        }
    }

    fn pull_base(&mut self) -> Result<(), Error> {
        let (table, order) = (self.table, self.order);
        if let Some(base) = &mut self.base {
            self.base_head = guard::table(table, || {
                let row = match order {
                    Order::Ascending => base.next(),
                    Order::Descending => base.next_back(),
                };
                Ok(row.transpose()?)
            })?;
        }
        Ok(())
    }
}

impl Order {
    fn first<'k>(self, a: &'k [u8], b: &'k [u8]) -> &'k [u8] {
        let wanted = match self {
            Self::Ascending => Ordering::Greater,
            Self::Descending => Ordering::Less,
        };
        if a.cmp(b) == wanted { b } else { a }
    }
}
