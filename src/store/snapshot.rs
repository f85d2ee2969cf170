//! A consistent view of the whole store for readers; it neither waits for the writer nor blocks it.

use std::sync::Arc;

use super::Error;
use super::layers::Layers;
use super::meta::{LAST_ID, STORE};

/// The store as of one group.
pub struct Snapshot {
    layers: Arc<Layers>,
}

impl Snapshot {
    pub(super) fn new(layers: Arc<Layers>) -> Self {
        Self { layers }
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

    pub(super) fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }
}
