//! A consistent view of the whole store for readers; it neither waits for the writer nor holds it up.

use super::Error;

/// The store as it stood after one commit.
pub struct Snapshot {
    transaction: redb::ReadTransaction,
}

impl Snapshot {
    pub(super) fn new(transaction: redb::ReadTransaction) -> Self {
        Self { transaction }
    }

    pub(super) fn open(&self, name: &'static str) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
        Ok(self.transaction.open_table(redb::TableDefinition::new(name))?)
    }
}
