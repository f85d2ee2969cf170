//! A machine with two disks in memory, the store's and the log's, that records every call to both in one sequence.

use std::io;
use std::sync::{Arc, Mutex};

use nightmail::store::{self, Disk, Store};

/// The log of these stores: so small that a workload makes many checkpoints.
const LOG_BYTES: u64 = 64 << 10;

/// Opens the store on that machine.
pub(super) fn open(machine: &Arc<Machine>) -> Result<Store, store::Error> {
    open_on(machine.disk(STORE), machine.disk(LOG))
}

/// Opens the store on these disks.
pub(super) fn open_on(disk: Arc<dyn Disk>, log: Arc<dyn Disk>) -> Result<Store, store::Error> {
    let options = store::Options { cache_bytes: 1 << 20, log_bytes: LOG_BYTES, ..store::Options::at("(disk)") };
    Store::open_on(disk, log, &options)
}

/// The disk of redb.
pub(super) const STORE: usize = 0;
/// The disk of the log.
pub(super) const LOG: usize = 1;

/// What both disks hold.
pub(super) type Bytes = [Vec<u8>; 2];

/// A change of one disk.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetBytes(usize),
    Sync,
}

/// One call that changes a disk.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) disk: usize,
    pub(super) change: Change,
}

impl Call {
    pub(super) fn is_sync_of(&self, disk: usize) -> bool {
        self.disk == disk && matches!(self.change, Change::Sync)
    }

    /// The offset and bytes of a write to the log.
    pub(super) fn log_write(&self) -> Option<(usize, &[u8])> {
        match &self.change {
            Change::Write { offset, data } if self.disk == LOG => Some((*offset, data)),
            _ => None,
        }
    }
}

/// What the disks hold, and the calls that led to it.
#[derive(Debug, Default)]
struct Kept {
    bytes: Bytes,
    calls: Vec<Call>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Machine(Mutex<Kept>);

impl Machine {
    /// A machine whose disks hold these bytes, and no call yet.
    pub(super) fn holding(bytes: Bytes) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Kept { bytes, calls: Vec::new() })))
    }

    pub(super) fn disk(self: &Arc<Self>, disk: usize) -> Arc<dyn Disk> {
        Arc::new(RecordingDisk { machine: self.clone(), disk })
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }

    /// Takes the calls so far; counting restarts at zero.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// What the disks hold now.
    pub(super) fn content(&self) -> Bytes {
        self.0.lock().unwrap().bytes.clone()
    }
}

/// Applies a call to the disks' bytes.
pub(super) fn apply(bytes: &mut Bytes, call: &Call) {
    let bytes = &mut bytes[call.disk];
    match &call.change {
        Change::Write { offset, data } => {
            let end = offset + data.len();
            // A write past the end, after the file's growth was lost, extends the file.
            bytes.resize(bytes.len().max(end), 0);
            bytes[*offset..end].copy_from_slice(data);
        }
        Change::SetBytes(length) => bytes.resize(*length, 0),
        Change::Sync => {}
    }
}

#[derive(Debug)]
struct RecordingDisk {
    machine: Arc<Machine>,
    disk: usize,
}

impl RecordingDisk {
    fn keep(&self, change: Change) {
        let call = Call { disk: self.disk, change };
        let mut kept = self.machine.0.lock().unwrap();
        apply(&mut kept.bytes, &call);
        kept.calls.push(call);
    }
}

impl Disk for RecordingDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.machine.0.lock().unwrap().bytes[self.disk].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let kept = self.machine.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = kept.bytes[self.disk].get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.keep(Change::SetBytes(usize::try_from(bytes).unwrap()));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.keep(Change::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.keep(Change::Sync);
        Ok(())
    }
}
