//! A disk in memory that keeps every call.

use std::io;
use std::sync::{Arc, Mutex};

use nightmail::store::{self, Disk, Store};

/// Opens the store on that disk.
pub(super) fn open(disk: Arc<dyn Disk>) -> Result<Store, store::Error> {
    let options = store::Options { cache_bytes: 1 << 20, ..store::Options::at("(disk)") };
    Store::open_on(disk, &options)
}

/// One call that changes the disk.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Write { offset: usize, data: Vec<u8> },
    SetBytes(usize),
    Sync,
}

/// What the disk holds, and how that came about.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    calls: Vec<Call>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RecordingDisk(Mutex<Kept>);

impl RecordingDisk {
    /// A disk that holds these bytes, and no call yet.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(Kept { bytes, calls: Vec::new() }))
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }

    /// The calls so far; from now on they are counted anew.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// What the disk holds now.
    pub(super) fn content(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }
}

/// Does a call to a disk's bytes.
pub(super) fn apply(bytes: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write { offset, data } => {
            let end = offset + data.len();
            // A write behind the end of a file whose growth was lost makes it grow.
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset..end].copy_from_slice(data);
        }
        Call::SetBytes(length) => bytes.resize(*length, 0),
        Call::Sync => {}
    }
}

impl Disk for RecordingDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let kept = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = kept.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.keep(Call::SetBytes(usize::try_from(bytes).unwrap()));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.keep(Call::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.keep(Call::Sync);
        Ok(())
    }
}

impl RecordingDisk {
    fn keep(&self, call: Call) {
        let mut kept = self.0.lock().unwrap();
        apply(&mut kept.bytes, &call);
        kept.calls.push(call);
    }
}
