//! A consistent view of the whole store for readers; it neither waits for the writer nor blocks it.

use super::recover::STORE;
use super::tx::LAST_ID;
use super::{Error, table};

/// The store as of one commit.
pub struct Snapshot {
    transaction: redb::ReadTransaction,
}

impl Snapshot {
    pub(super) fn new(transaction: redb::ReadTransaction) -> Self {
        Self { transaction }
    }

    /// The last number given out of the store's series; see [`super::Tx::fresh_id`].
    ///
    /// # Errors
    /// A storage fault.
    pub fn last_id(&self) -> Result<u64, Error> {
        Ok(self.meta()?.get(&LAST_ID.to_owned())?.unwrap_or(0))
    }

    /// The store's number: random, made with the store and never changed.
    ///
    /// # Errors
    /// A storage fault.
    pub fn store_number(&self) -> Result<u64, Error> {
        Ok(self.meta()?.get(&STORE.to_owned())?.unwrap_or(0))
    }

    pub(super) fn open(&self, name: &'static str) -> Result<redb::ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
        table::guarded(name, || Ok(self.transaction.open_table(redb::TableDefinition::new(name))?))
    }
}
