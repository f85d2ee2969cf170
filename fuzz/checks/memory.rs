//! A store's three files in memory.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nightmail::store::{Disk, Disks, Error, Options, Store};

/// The store's file, then the log's segments.
pub(crate) type Files = [Vec<u8>; 3];

/// One file.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Memory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (file, start) = (self.lock(), offset as usize);
        let found = file.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.lock().resize(bytes as usize, 0);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut file, start) = (self.lock(), offset as usize);
        let end = start + data.len();
        let longer = file.len().max(end);
        file.resize(longer, 0);
        file[start..end].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine with these files.
#[derive(Clone, Debug)]
pub(crate) struct Machine([Arc<Memory>; 3]);

impl Machine {
    pub(crate) fn of(files: Files) -> Self {
        Self(files.map(|bytes| Arc::new(Memory(Mutex::new(bytes)))))
    }

    /// Opens the store with segments of the least size.
    pub(crate) fn open(&self) -> Result<Store, Error> {
        let [store, first, second] = self.0.clone();
        let options = Options { log_bytes: 0, cache_bytes: 1 << 20, ..Options::at("(memory)") };
        Store::open_on(Disks { store, log: [first, second] }, &options)
    }

    /// What the files hold now: all that a kill leaves.
    pub(crate) fn files(&self) -> Files {
        [0, 1, 2].map(|nth| self.0[nth].lock().clone())
    }
}
