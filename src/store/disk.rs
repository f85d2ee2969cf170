//! What the store stands on: a file, or whatever a test puts in its place to lose power under it.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A disk with one file on it. Writes may be lost, torn or re-ordered until [`Disk::sync`] has returned.
pub trait Disk: Debug + Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// The disk fails.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// The disk fails, or the file ends before.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Makes the file longer, with zeros, or shorter.
    ///
    /// # Errors
    /// The disk fails.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Writes `data` at `offset`, which lies within the file.
    ///
    /// # Errors
    /// The disk fails.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Returns once all that was written before is safe.
    ///
    /// # Errors
    /// The disk fails; what was written before may or may not be safe.
    fn sync(&self) -> io::Result<()>;
}

/// A file as a disk: the log's.
#[derive(Debug)]
pub(super) struct FileDisk(pub(super) File);

impl Disk for FileDisk {
    fn bytes(&self) -> io::Result<u64> {
        self.0.metadata().map(|file| file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A disk as redb sees it.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<dyn Disk>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_bytes(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
