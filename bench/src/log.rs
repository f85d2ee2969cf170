//! The limits of the queue: append-only logs with the store's grouping (take all that waits, append, one fdatasync,
//! answer all), and nothing else: no ids, no index, no checks.
//!
//! The plain log grows with every append, so that its sync writes the file's new length too. The preallocated one is
//! written over, and its sync writes nothing but the records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// As the store's defaults.
const WAITING_MAX: usize = 4096;
const GROUP_MAX: usize = 1024;
/// In front of each record.
const LENGTH_BYTES: u64 = 4;

/// How the file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It grows.
    Plain,
    /// All its blocks were written before.
    Preallocated,
}

/// What one caller wants on disk; one answer for all of it.
enum Entry {
    Messages(Vec<Bytes>),
    /// The numbers of the messages that one receive took.
    Receive(Vec<u64>),
    Delete(u64),
}

struct Waiting {
    entry: Entry,
    caller: oneshot::Sender<Result<(), io::ErrorKind>>,
}

/// The log and its writer thread.
pub(crate) struct Log {
    file: Arc<File>,
    waiting: mpsc::Sender<Waiting>,
    writer: JoinHandle<u64>,
}

/// A way to the log's writer.
#[derive(Clone)]
pub(crate) struct Queues {
    file: Arc<File>,
    waiting: mpsc::Sender<Waiting>,
}

impl Log {
    /// Makes the file; a preallocated one starts over when `bytes` are full, as if its old part had been consumed.
    pub(crate) fn make(path: &Path, kind: Kind, bytes: u64) -> anyhow::Result<Self> {
        let file = Arc::new(File::options().read(true).write(true).create_new(true).open(path)?);
        let end = match kind {
            Kind::Plain => u64::MAX,
            Kind::Preallocated => {
                let zeros = vec![0; 1 << 20];
                for at in (0..bytes).step_by(zeros.len()) {
                    file.write_all_at(&zeros, at)?;
                }
                bytes
            }
        };
        file.sync_all()?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let writing = file.clone();
        let writer = std::thread::Builder::new().name("log-writer".into());
        let writer = writer.spawn(move || write(&writing, end, waiting))?;
        Ok(Self { file, waiting: sender, writer })
    }

    pub(crate) fn queues(&self) -> Queues {
        Queues { file: self.file.clone(), waiting: self.waiting.clone() }
    }

    /// Ends the writer; answers how many syncs it made.
    pub(crate) fn close(self) -> anyhow::Result<u64> {
        drop(self.waiting);
        self.writer.join().map_err(|_| anyhow!("the log's writer panicked"))
    }
}

impl Queues {
    /// Answers once the bodies are on disk.
    pub(crate) async fn send(&self, bodies: Vec<Bytes>) -> anyhow::Result<()> {
        self.append(Entry::Messages(bodies)).await
    }

    /// Answers with the bodies of those messages, the first of the log, once it is on disk that they are taken. All
    /// bodies have the same size.
    pub(crate) async fn receive(&self, numbers: Vec<u64>, body_bytes: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        self.append(Entry::Receive(numbers.clone())).await?;
        let read = |number: u64| {
            let mut body = vec![0; body_bytes];
            let at = number * (LENGTH_BYTES + body_bytes as u64) + LENGTH_BYTES;
            self.file.read_exact_at(&mut body, at).map(|()| body)
        };
        Ok(numbers.into_iter().map(read).collect::<io::Result<_>>()?)
    }

    /// Answers once it is on disk that the message is gone.
    pub(crate) async fn delete(&self, number: u64) -> anyhow::Result<()> {
        self.append(Entry::Delete(number)).await
    }

    async fn append(&self, entry: Entry) -> anyhow::Result<()> {
        let (caller, answer) = oneshot::channel();
        self.waiting.send(Waiting { entry, caller }).await.ok().context("the log is closed")?;
        answer.await?.map_err(|kind| anyhow!("the log cannot be written: {kind}"))
    }
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Messages(bodies) => bodies.iter().for_each(|body| record(out, body)),
            Self::Receive(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                record(out, &bytes);
            }
            Self::Delete(number) => record(out, &number.to_le_bytes()),
        }
    }
}

fn record(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a record is far smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write(file: &File, end: u64, mut waiting: mpsc::Receiver<Waiting>) -> u64 {
    let (mut group, mut bytes) = (Vec::with_capacity(GROUP_MAX), Vec::new());
    let (mut at, mut syncs) = (0_u64, 0);
    while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        bytes.clear();
        group.iter().for_each(|one: &Waiting| one.entry.encode(&mut bytes));
        if end - at < bytes.len() as u64 {
            at = 0;
        }
        let written = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
        at += bytes.len() as u64;
        syncs += 1;
        for one in group.drain(..) {
            // A caller that went away does not need its answer.
            let _ = one.caller.send(written.as_ref().map_err(io::Error::kind).copied());
        }
    }
    syncs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    #[tokio::test]
    async fn a_log_gives_back_what_it_took_in() -> anyhow::Result<()> {
        for kind in [Kind::Plain, Kind::Preallocated] {
            let dir = tempfile::tempdir()?;
            let log = Log::make(&dir.path().join("log"), kind, 1 << 20)?;
            let queues = log.queues();
            queues.send((0..10).map(|number| load::numbered(number, 64)).collect()).await?;
            let bodies = queues.receive(vec![3, 7], 64).await?;
            assert_eq!([load::number(&bodies[0])?, load::number(&bodies[1])?], [3, 7]);
            queues.delete(3).await?;
            drop(queues);
            assert_eq!(log.close()?, 3);
        }
        Ok(())
    }
}
