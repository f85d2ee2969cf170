//! Gives the space of deleted rows back to the file system. Offline: no daemon may hold the store.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::open::{self, Alone};
use super::{Error, Options};

/// What a compaction brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Bytes that the file took on its disk before.
    pub before_bytes: u64,
    /// And after.
    pub after_bytes: u64,
}

/// Moves the rows to the front of the file and cuts off the rest. A crash in between loses nothing.
///
/// # Errors
/// [`Error::Locked`] names the daemon that holds the store; [`Error::Open`] when there is none; a storage fault.
pub fn compact(options: &Options) -> Result<Compacted, Error> {
    let bytes = || disk_bytes(&options.path).map_err(|error| open::failed(&options.path, &error));
    let before_bytes = bytes()?;
    let mut store = Alone::open(options)?;
    store.db.compact().map_err(|error| Error::Storage(error.to_string()))?;
    store.close(options)?;
    Ok(Compacted { before_bytes, after_bytes: bytes()? })
}

/// What the file takes on its disk, in bytes: holes that were never written take nothing.
pub(super) fn disk_bytes(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}
