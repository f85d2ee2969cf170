//! The queue engine as the benches use it: all calls of its public interface are here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use futures_util::future::try_join_all;
use nightmail::base::Clock;
use nightmail::queue::{self, Queues, ReceiptHandle, Receive, Received, Send, stats};
use nightmail::run::Ledger;
use nightmail::store::{self, Store};

use crate::load;

const QUEUE: &str = "bench";
/// The syncs of redb's file for one checkpoint: two-phase, for a quick start after a crash.
const SYNCS_PER_CHECKPOINT: u64 = 2;
/// The most messages of one receive.
const RECEIVE_MAX: usize = 10;
/// The messages of one call when a queue is filled, which is not measured.
const FILL_BATCH: u64 = 1_000;
/// Callers that fill a queue.
const FILLERS: usize = 4;
/// A store that makes no checkpoint for this long has made its last one: it makes one after a second without work.
const NO_CHECKPOINT_FOR: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An open store with one queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Engine {
    queues: Queues,
    queue: u32,
    clock: Arc<dyn Clock>,
}

impl Engine {
    /// Opens the store in that directory with the default options, or makes it.
    pub(crate) async fn open(dir: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let store = Store::open(&store::Options::at(dir.join("nightmail.redb")))?;
        let queues = Queues::new(store, clock.clone(), Arc::new(Ledger));
        let queue = queues.ensure(QUEUE, &queue::Options::default()).await?;
        Ok(Self { queues, queue, clock: clock.clone() })
    }

    /// Answers once the message is on disk.
    pub(crate) async fn send(&self, body: Bytes) -> anyhow::Result<()> {
        self.queues.send(QUEUE, Send::text(body)).await?;
        Ok(())
    }

    /// Answers once all messages are on disk.
    pub(crate) async fn send_all(&self, bodies: impl IntoIterator<Item = Bytes>) -> anyhow::Result<()> {
        self.queues.send_all(QUEUE, bodies.into_iter().map(Send::text).collect()).await?;
        Ok(())
    }

    /// What is there now, at most `max`.
    pub(crate) async fn receive(&self, max: usize) -> anyhow::Result<Vec<Received>> {
        Ok(self.queues.receive_now(self.queue, Receive::for_client(max)).await?.messages)
    }

    /// One message, waited for; none after 20 s.
    pub(crate) async fn wait(&self) -> anyhow::Result<Option<Received>> {
        Ok(self.queues.receive(QUEUE, Receive::for_client(1), Duration::from_secs(20)).await?.pop())
    }

    /// Answers once the message is gone from the disk.
    pub(crate) async fn delete(&self, handle: ReceiptHandle) -> anyhow::Result<()> {
        ensure!(self.queues.delete(handle).await?, "the receipt handle of a message in flight is refused");
        Ok(())
    }

    /// How many messages are in the queue, in any state.
    pub(crate) fn messages(&self) -> anyhow::Result<u64> {
        let snapshot = self.queues.store().snapshot()?;
        let queue = queue::catalog::look_up(&snapshot, QUEUE)?;
        Ok(stats::stats(&snapshot, &queue, self.queues.now())?.total())
    }

    /// The number of syncs so far, of the log and of redb's file.
    pub(crate) fn syncs(&self) -> u64 {
        self.queues.store().syncs() + self.checkpoints() * SYNCS_PER_CHECKPOINT
    }

    /// The number of checkpoints so far.
    pub(crate) fn checkpoints(&self) -> u64 {
        self.queues.store().checkpoints()
    }

    /// Waits until a store without work has made its last checkpoint, so that all its messages are in redb's file.
    pub(crate) async fn rest(&self) {
        let (mut seen, mut since) = (self.checkpoints(), self.clock.monotonic());
        while self.clock.monotonic() - since < NO_CHECKPOINT_FOR {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.checkpoints();
            if now != seen {
                (seen, since) = (now, self.clock.monotonic());
            }
        }
    }

    /// Sends so many messages in large batches.
    pub(crate) async fn fill(&self, messages: u64, body_bytes: usize) -> anyhow::Result<()> {
        let engine = self.clone();
        let fill = move |batch: u64| {
            let engine = engine.clone();
            let numbers = batch * FILL_BATCH..messages.min((batch + 1) * FILL_BATCH);
            async move { engine.send_all(numbers.map(|number| load::numbered(number, body_bytes))).await }
        };
        load::share(&self.clock, FILLERS, messages.div_ceil(FILL_BATCH), fill).await.map(drop)
    }

    /// Receives ten at a time and deletes each, by `receivers` at once and `messages` in all; answers how long it took.
    pub(crate) async fn take(&self, receivers: usize, messages: u64) -> anyhow::Result<Duration> {
        let engine = self.clone();
        let calls = messages / RECEIVE_MAX as u64;
        let take = move |_| {
            let engine = engine.clone();
            async move {
                let found = engine.receive(RECEIVE_MAX).await?;
                ensure!(found.len() == RECEIVE_MAX, "{} messages where {RECEIVE_MAX} are left", found.len());
                try_join_all(found.iter().map(|message| engine.delete(message.handle))).await.map(drop)
            }
        };
        load::share(&self.clock, receivers, calls, take).await
    }
}
