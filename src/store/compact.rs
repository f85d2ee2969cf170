//! Returns the space of deleted rows to the file system. Offline: no daemon may hold the store.

use serde::Serialize;

use super::exclusive::ExclusiveStore;
use super::{Error, Options, disk};

/// The result of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Bytes that the file took on its disk before.
    pub before_bytes: u64,
    /// The same afterwards.
    pub after_bytes: u64,
}

/// Moves the rows to the front of the file and truncates the rest. A crash in between loses nothing.
///
/// # Errors
/// [`Error::Locked`] names the daemon that holds the store; [`Error::Open`] when there is none; a storage fault.
pub fn compact(options: &Options) -> Result<Compacted, Error> {
    let bytes = || disk::allocated_bytes(&options.path).map_err(|error| Error::of_open(&options.path, &error));
    let before_bytes = bytes()?;
    let mut store = ExclusiveStore::open(options)?;
    store.db.compact().map_err(|error| Error::Storage(error.to_string()))?;
    store.close(options)?;
    Ok(Compacted { before_bytes, after_bytes: bytes()? })
}
