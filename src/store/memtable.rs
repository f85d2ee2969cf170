//! What the log holds and redb does not yet: an ordered overlay for each table. Copies are made in constant time and
//! share their rows, so that readers keep the state of a group while the next ones go on.

use std::ops::Deref;

use imbl::OrdMap;
use triomphe::ThinArc;

use super::Error;
use super::frame::{self, Write};
use super::key::KeyBytes;
use super::table_id::{TABLES, TableId};

/// A row of an overlay.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The value as it is stored, with its checksum; `None` hides the row below.
    pub(super) value: Option<Value>,
    /// Whether a row of that key is known to lie below: in the overlay that is being applied, or in redb.
    pub(super) is_above_row: bool,
}

/// The bytes of a value, shared by all copies of its row.
#[derive(Clone, Debug)]
pub(super) struct Value(ThinArc<(), u8>);

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice((), bytes))
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.slice
    }
}

/// Every group copies the leaves that it changes, 16 rows each. Up to about 1 KiB glibc's allocator has them at hand; above
/// that, making and freeing them took a tenth of the writer's time.
const _: () = assert!(size_of::<(KeyBytes, Entry)>() <= 56);

/// The changed rows of one table.
pub(super) type Overlay = OrdMap<KeyBytes, Entry>;

/// The overlays of all tables.
#[derive(Clone, Debug)]
pub(super) struct Memtable {
    tables: [Overlay; TABLES.len()],
}

impl Default for Memtable {
    fn default() -> Self {
        Self { tables: std::array::from_fn(|_| Overlay::default()) }
    }
}

impl Memtable {
    /// The overlay of a table.
    pub(super) fn table(&self, table: TableId) -> &Overlay {
        &self.tables[table.index()]
    }

    /// The overlay of a table, for writing.
    pub(super) fn table_mut(&mut self, table: TableId) -> &mut Overlay {
        &mut self.tables[table.index()]
    }

    /// Adds the writes of a frame, without a look at what lies below: each removal leaves its mark.
    ///
    /// # Errors
    /// The writes cannot be read.
    pub(super) fn replay(&mut self, writes: &[u8]) -> Result<(), Error> {
        for write in frame::writes(writes) {
            let Write { table, key, value } = write?;
            let entry = Entry { value: value.map(Value::from), is_above_row: false };
            self.table_mut(table).insert(KeyBytes::of(&[key]), entry);
        }
        Ok(())
    }
}
