//! The limit of durable sends: an append-only log that is preallocated and written over, with the store's grouping
//! (take all that waits, append, one fdatasync, answer all), and nothing else: no ids, no index, no checks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// The file's size. Full, the log starts over, as if its old part had been consumed.
const FILE_BYTES: u64 = 64 << 20;
/// As the store's defaults.
const WAITING_MAX: usize = 4096;
const GROUP_MAX: usize = 1024;

struct Record {
    body: Bytes,
    caller: oneshot::Sender<Result<(), io::ErrorKind>>,
}

/// The log and its writer thread.
pub(crate) struct Log {
    records: mpsc::Sender<Record>,
    writer: JoinHandle<u64>,
}

/// A sender to the log.
#[derive(Clone)]
pub(crate) struct Door(mpsc::Sender<Record>);

impl Log {
    /// Makes the file with all its blocks written.
    pub(crate) fn make(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        let (records, waiting) = mpsc::channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("log-writer".into()).spawn(move || write(&file, waiting))?;
        Ok(Self { records, writer })
    }

    pub(crate) fn door(&self) -> Door {
        Door(self.records.clone())
    }

    /// Ends the writer; answers how many syncs it made.
    pub(crate) fn close(self) -> anyhow::Result<u64> {
        drop(self.records);
        self.writer.join().map_err(|_| anyhow!("the log's writer panicked"))
    }
}

impl Door {
    /// Answers once the body is on disk.
    pub(crate) async fn send(&self, body: Bytes) -> anyhow::Result<()> {
        let (caller, answer) = oneshot::channel();
        self.0.send(Record { body, caller }).await.ok().context("the log is closed")?;
        answer.await?.map_err(|kind| anyhow!("the log cannot be written: {kind}"))
    }
}

fn write(file: &File, mut waiting: mpsc::Receiver<Record>) -> u64 {
    let (mut group, mut bytes) = (Vec::with_capacity(GROUP_MAX), Vec::new());
    let (mut at, mut syncs) = (0, 0);
    while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        bytes.clear();
        for record in &group {
            let length = u32::try_from(record.body.len()).expect("a body is far smaller than 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&record.body);
        }
        if at + bytes.len() as u64 > FILE_BYTES {
            at = 0;
        }
        let written = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
        at += bytes.len() as u64;
        syncs += 1;
        for record in group.drain(..) {
            // A caller that went away does not need its answer.
            let _ = record.caller.send(written.as_ref().map_err(io::Error::kind).copied());
        }
    }
    syncs
}
