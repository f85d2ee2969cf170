//! A disk that fails at one of its calls: nothing is acknowledged after that, and what the disk holds still opens.
//!
//! `NIGHTMAIL_DISK_FAULTS_EVERY=1` makes every call fail in turn, not only every tenth.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nightmail::base::ManualClock;
use nightmail::queue::{Error, Queues, Receive, Send, peek};
use nightmail::run::Ledger;
use nightmail::store::{Disk, Disks, Store};

use super::disk::{Bytes, LOGS, Machine, STORE, open, options};
use crate::harness::{say, size};
use crate::support::{START, START_NOW, World};

/// Steps of each life: sends, receives and deletes.
const STEPS: usize = 75;

/// How a call fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// EIO once, as from a loose cable.
    Once,
    /// EIO from then on.
    ForEver,
    /// Half of a write reaches the disk, then EIO from then on.
    Half,
    /// No space for writes and growth, but syncs work.
    Full,
}

/// Counts the calls to all disks.
#[derive(Debug)]
struct Failing {
    fault: Fault,
    /// The first call that fails.
    fails_at: usize,
    /// Calls that change a disk, so far.
    calls: AtomicUsize,
}

/// One of the disks.
#[derive(Debug)]
struct FailingDisk {
    inner: Arc<dyn Disk>,
    failing: Arc<Failing>,
}

impl Failing {
    fn fails_now(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Once => call == self.fails_at,
            Fault::ForEver | Fault::Half | Fault::Full => call >= self.fails_at,
        }
    }

    fn has_failed(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.fails_at
    }

    fn error(&self) -> io::Error {
        match self.fault {
            Fault::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("input/output error"),
        }
    }
}

impl Disk for FailingDisk {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        if self.failing.fails_now() { Err(self.failing.error()) } else { self.inner.set_bytes(bytes) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !self.failing.fails_now() {
            return self.inner.write(offset, data);
        }
        if matches!(self.failing.fault, Fault::Half) {
            self.inner.write(offset, &data[..data.len() / 2])?;
        }
        Err(self.failing.error())
    }

    fn sync(&self) -> io::Result<()> {
        let fails = self.failing.fails_now() && !matches!(self.failing.fault, Fault::Full);
        if fails { Err(self.failing.error()) } else { self.inner.sync() }
    }
}

/// The queue's content as its client knows it, and the change in flight.
#[derive(Default)]
struct Client {
    acknowledged: BTreeSet<String>,
    in_doubt: Option<BTreeSet<String>>,
}

impl Client {
    /// Runs steps until one fails; returns the error.
    async fn work(&mut self, queues: &Queues) -> Option<Error> {
        for step in 0..STEPS {
            let after = self.change(step);
            self.in_doubt = Some(after.clone());
            if let Err(error) = self.step(queues, step, &after).await {
                return Some(error);
            }
            self.acknowledged = after;
            self.in_doubt = None;
        }
        None
    }

    /// What the queue holds after a step.
    fn change(&self, step: usize) -> BTreeSet<String> {
        let mut after = self.acknowledged.clone();
        if step % 3 == 2 {
            after.pop_first();
        } else {
            after.extend((0..=step % 3).map(|nth| format!("{step:02}-{nth} {}", "x".repeat(step * 150))));
        }
        after
    }

    async fn step(&self, queues: &Queues, step: usize, after: &BTreeSet<String>) -> Result<(), Error> {
        if step % 3 == 2 {
            let queue = nightmail::queue::catalog::look_up(&queues.store().snapshot()?, "orders")?.id;
            let taken = queues.receive_now(queue, Receive::for_client(1)).await?.messages;
            queues.delete(taken[0].handle).await?;
        } else {
            let new = after.difference(&self.acknowledged).map(|text| Send::text(text.clone())).collect();
            queues.send_all("orders", new).await?;
        }
        Ok(())
    }
}

fn queues(store: Store) -> Queues {
    Queues::new(store, ManualClock::new(START), Arc::new(Ledger))
}

fn texts(queues: &Queues) -> BTreeSet<String> {
    let snapshot = queues.store().snapshot().unwrap();
    let queue = nightmail::queue::catalog::look_up(&snapshot, "orders").unwrap();
    let messages = peek::peek(&snapshot, &queue, 1000, 1 << 20, START_NOW).unwrap();
    messages.into_iter().map(|message| message.body).collect()
}

/// One life on a disk that fails at that call; false when the life needs fewer calls.
async fn live(start: &Bytes, fault: Fault, fails_at: usize) -> bool {
    let phase = format!("{fault:?} at call {fails_at}");
    let machine = Machine::holding(start.clone());
    let failing = Arc::new(Failing { fault, fails_at, calls: AtomicUsize::new(0) });
    let disk =
        |disk| -> Arc<dyn Disk> { Arc::new(FailingDisk { inner: machine.disk(disk), failing: failing.clone() }) };
    let mut client = Client::default();
    let disks = Disks { store: disk(STORE), log: LOGS.map(disk) };
    if let Ok(store) = Store::open_on(disks, &options()) {
        let queues = queues(store);
        let failed = client.work(&queues).await;
        assert!(failed.is_none() || failing.has_failed(), "{phase}: {failed:?} without a fault");
        if let Some(error) = &failed {
            assert!(matches!(error, Error::Store(_)), "{phase}: {error:?}");
        }
        // The fault of a checkpoint stops the store too, although it fails no step.
        if failing.has_failed() {
            let reason = tokio::time::timeout(std::time::Duration::from_secs(10), queues.store().stopped()).await;
            reason.unwrap_or_else(|_| panic!("{phase}: the store does not say that it stopped"));
            assert!(matches!(queues.send("orders", Send::text("late")).await, Err(Error::Store(_))), "{phase}");
        }
    }
    let found = open(&Machine::holding(machine.content()));
    let queues = queues(found.unwrap_or_else(|error| panic!("{phase}: does not open: {error}")));
    let found = texts(&queues);
    let is_right = found == client.acknowledged || client.in_doubt.as_ref() == Some(&found);
    assert!(is_right, "{phase}: {found:?}, acknowledged {:?}, in doubt {:?}", client.acknowledged, client.in_doubt);
    queues.send("orders", Send::text("again")).await.unwrap_or_else(|error| panic!("{phase}: {error}"));
    failing.has_failed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_any_call_ends_the_store_and_loses_nothing_that_was_acknowledged() {
    let made = Machine::holding(Bytes::default());
    let world = World::around(open(&made).unwrap());
    world.make_orders().await;
    drop(world);
    let start = made.content();
    let every = size("NIGHTMAIL_DISK_FAULTS_EVERY", 10) as usize;
    let mut lives = 0;
    for fault in [Fault::Once, Fault::ForEver, Fault::Half, Fault::Full] {
        for call in (0..).step_by(every) {
            lives += 1;
            if !live(&start, fault, call).await {
                break;
            }
        }
    }
    say(format_args!("{lives} lives of {STEPS} steps, each on a disk that failed at another call"));
}
