//! The disk space that files take, and the cost of one sync.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nightmail::base::Clock;
use serde::{Deserialize, Serialize};

/// What is written between two syncs.
const PAGE_BYTES: usize = 4096;
const PAGES: u64 = 256;
/// The unit of `st_blocks`, whatever the file system's own.
const BLOCK_BYTES: u64 = 512;

/// A file that is preallocated and written over, to learn what one fdatasync costs.
pub(crate) struct Probe {
    file: File,
    next: u64,
}

impl Probe {
    /// Makes the file with all its blocks written.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        for page in 0..PAGES {
            file.write_all_at(&[0; PAGE_BYTES], page * PAGE_BYTES as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }

    /// Writes one page over and syncs it.
    pub(crate) fn sync(&mut self, clock: &dyn Clock) -> anyhow::Result<Duration> {
        let began = clock.monotonic();
        self.file.write_all_at(&[b'a'; PAGE_BYTES], self.next * PAGE_BYTES as u64)?;
        self.file.sync_data()?;
        self.next = (self.next + 1) % PAGES;
        Ok(clock.monotonic() - began)
    }
}

/// The disk space of a directory's files, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// All blocks that are held on disk.
    pub(crate) held: u64,
    /// The lengths of the files, with the holes that were never written.
    pub(crate) length: u64,
}

/// The disk space of the files directly in that directory.
pub(crate) fn taken(dir: &Path) -> anyhow::Result<Taken> {
    let mut taken = Taken { held: 0, length: 0 };
    for entry in fs::read_dir(dir)? {
        let file = entry?.metadata()?;
        taken.held += file.blocks() * BLOCK_BYTES;
        taken.length += file.len();
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightmail::base::SystemClock;

    #[test]
    fn written_pages_are_held_and_a_sync_takes_time() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let mut probe = Probe::make(&dir.path().join("probe"))?;
        assert!(probe.sync(&*SystemClock::shared())? > Duration::ZERO);
        let taken = taken(dir.path())?;
        assert!(taken.held >= PAGES * PAGE_BYTES as u64);
        assert_eq!(taken.length, PAGES * PAGE_BYTES as u64);
        Ok(())
    }
}
