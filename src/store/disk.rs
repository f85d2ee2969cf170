//! The disk under the store: a file, or a test's replacement that can lose power.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// A disk with one file on it. Writes may be lost, torn or re-ordered until [`Disk::sync`] has returned.
pub trait Disk: Debug + Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// The disk fails.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads `out.len()` bytes at `offset`.
    ///
    /// # Errors
    /// The disk fails, or the file ends earlier.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Extends the file with zeros, or truncates it.
    ///
    /// # Errors
    /// The disk fails.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Writes `data` at `offset`, which lies within the file.
    ///
    /// # Errors
    /// The disk fails.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Returns once all earlier writes are durable.
    ///
    /// # Errors
    /// The disk fails; earlier writes may or may not be durable.
    fn sync(&self) -> io::Result<()>;
}

/// The disks of a store.
#[derive(Clone, Debug)]
pub struct Disks {
    /// The disk of redb's file.
    pub store: Arc<dyn Disk>,
    /// Those of the log's segments.
    pub log: [Arc<dyn Disk>; 2],
}

/// A file as a disk, for the log.
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

/// A file's allocated size on disk in bytes; unwritten holes do not count.
pub(super) fn allocated_bytes(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A change of a disk.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Call {
        SetBytes(u64),
        Write { at: u64, bytes: u64 },
        Sync,
    }

    /// The changes of several disks in their order, each with its disk's number.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Calls(Arc<Mutex<Vec<(usize, Call)>>>);

    impl Calls {
        /// Those since the last call.
        pub(crate) fn take(&self) -> Vec<(usize, Call)> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// A disk that records its changes.
    #[derive(Debug)]
    pub(crate) struct RecordingDisk {
        file: FileDisk,
        nth: usize,
        calls: Calls,
    }

    impl RecordingDisk {
        pub(crate) fn new(nth: usize, calls: &Calls) -> Self {
            Self { file: FileDisk(tempfile::tempfile().unwrap()), nth, calls: calls.clone() }
        }

        fn record(&self, call: Call) {
            self.calls.0.lock().unwrap_or_else(PoisonError::into_inner).push((self.nth, call));
        }
    }

    impl Disk for RecordingDisk {
        fn bytes(&self) -> io::Result<u64> {
            self.file.bytes()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_bytes(&self, bytes: u64) -> io::Result<()> {
            self.record(Call::SetBytes(bytes));
            self.file.set_bytes(bytes)
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.record(Call::Write { at: offset, bytes: data.len() as u64 });
            self.file.write(offset, data)
        }

        fn sync(&self) -> io::Result<()> {
            self.record(Call::Sync);
            self.file.sync()
        }
    }
}
