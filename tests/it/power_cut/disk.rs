//! A machine with three disks in memory, redb's and the two segments of the log, that records every call to them in one
//! sequence.

use std::io;
use std::sync::{Arc, Mutex};

use nightmail::store::{self, Disk, Disks, Store};

use super::log;
use super::watch::Watch;

/// Both segments of the log: so small that steps cross checkpoints.
const LOG_BYTES: u64 = 2 * (16 << 10);

/// The disk of redb.
pub(super) const STORE: usize = 0;
/// The disks of the log's segments.
pub(super) const LOGS: [usize; 2] = [1, 2];
pub(super) const DISKS: [usize; 3] = [STORE, LOGS[0], LOGS[1]];

/// What the disks hold.
pub(super) type Bytes = [Vec<u8>; 3];

/// The options of a store on such disks.
pub(super) fn options() -> store::Options {
    store::Options { cache_bytes: 1 << 20, log_bytes: LOG_BYTES, ..store::Options::at("(disk)") }
}

/// Opens the store on that machine.
pub(super) fn open(machine: &Arc<Machine>) -> Result<Store, store::Error> {
    Store::open_on(machine.disks(), &options())
}

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

    pub(super) fn is_of_log(&self) -> bool {
        self.disk != STORE
    }

    pub(super) fn is_sync_of_log(&self) -> bool {
        self.is_of_log() && matches!(self.change, Change::Sync)
    }

    /// The offset and bytes of a write to a segment of the log.
    pub(super) fn log_write(&self) -> Option<(usize, &[u8])> {
        match &self.change {
            Change::Write { offset, data } if self.is_of_log() => Some((*offset, data)),
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
pub(super) struct Machine {
    kept: Mutex<Kept>,
    /// Called before each sync of the log; set once, by the workload.
    watch: Mutex<Option<Arc<Watch>>>,
}

impl Machine {
    /// A machine whose disks hold these bytes, and no call yet.
    pub(super) fn holding(bytes: Bytes) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::new(Kept { bytes, calls: Vec::new() }), watch: Mutex::default() })
    }

    pub(super) fn disk(self: &Arc<Self>, disk: usize) -> Arc<dyn Disk> {
        Arc::new(RecordingDisk { machine: self.clone(), disk })
    }

    pub(super) fn disks(self: &Arc<Self>) -> Disks {
        Disks { store: self.disk(STORE), log: LOGS.map(|disk| self.disk(disk)) }
    }

    /// Has `watch` look at the store from now on.
    pub(super) fn watch(&self, watch: Arc<Watch>) {
        *self.watch.lock().unwrap() = Some(watch);
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.kept.lock().unwrap().calls.len()
    }

    /// Takes the calls so far; counting restarts at zero.
    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.kept.lock().unwrap().calls)
    }

    /// Whether the last write to the log, if there was one, was a mark.
    pub(super) fn is_marked(&self) -> bool {
        let kept = self.kept.lock().unwrap();
        let last = kept.calls.iter().rev().find(|call| call.log_write().is_some());
        last.is_none_or(|call| log::mark_at(call).is_some())
    }

    /// What the disks hold now; counting restarts at zero.
    pub(super) fn begin(&self) -> Bytes {
        let mut kept = self.kept.lock().unwrap();
        kept.calls.clear();
        kept.bytes.clone()
    }

    /// What the disks hold now.
    pub(super) fn content(&self) -> Bytes {
        self.kept.lock().unwrap().bytes.clone()
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
        let mut kept = self.machine.kept.lock().unwrap();
        apply(&mut kept.bytes, &call);
        kept.calls.push(call);
    }
}

impl Disk for RecordingDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.machine.kept.lock().unwrap().bytes[self.disk].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let kept = self.machine.kept.lock().unwrap();
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
        if self.disk != STORE {
            // Not under the lock: the store may use its disks meanwhile.
            let watch = self.machine.watch.lock().unwrap().clone();
            watch.iter().for_each(|watch| watch.look(&self.machine));
        }
        self.keep(Change::Sync);
        Ok(())
    }
}
