//! What is common to the sides whose clients each have a connection of their own.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use nightmail::base::Clock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::side::Side;
use crate::load::{self, BODY_BYTES};

/// How to reach a queue.
pub(crate) trait Queue {
    type Client: Client;

    /// The process that writes to the disk.
    fn pid(&self) -> u32;

    /// A client with a connection of its own.
    async fn connect(&self) -> anyhow::Result<Self::Client>;

    /// Ends the server.
    async fn end(self) -> anyhow::Result<()>;
}

/// One producer or consumer.
pub(crate) trait Client: Send + 'static {
    /// Answers when the queue says that it has the message.
    fn send(&mut self, body: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// The number of a message that was taken and acknowledged; none when nothing came for a while, a second at most.
    fn take(&mut self) -> impl Future<Output = anyhow::Result<Option<u64>>> + Send;
}

/// A queue and the clock that it is measured with.
pub(crate) struct ByClients<Q> {
    queue: Q,
    clock: Arc<dyn Clock>,
}

impl<Q: Queue> ByClients<Q> {
    pub(crate) fn new(queue: Q, clock: Arc<dyn Clock>) -> Self {
        Self { queue, clock }
    }

    async fn connect(&self, clients: usize) -> anyhow::Result<Vec<Q::Client>> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(self.queue.connect().await?);
        }
        Ok(connected)
    }
}

impl<Q: Queue> Side for ByClients<Q> {
    fn pid(&self) -> u32 {
        self.queue.pid()
    }

    async fn produce(&mut self, producers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let clients = self.connect(producers).await?;
        let next = Arc::new(AtomicU64::new(numbers.start));
        let began = self.clock.monotonic();
        let mut tasks = JoinSet::new();
        for mut client in clients {
            let next = next.clone();
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return anyhow::Ok(());
                    }
                    client.send(load::numbered(number, BODY_BYTES)).await?;
                }
            });
        }
        while let Some(end) = tasks.join_next().await {
            end??;
        }
        Ok(self.clock.monotonic() - began)
    }

    async fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let clients = self.connect(consumers).await?;
        let arrivals = Arc::new(Mutex::new(Arrivals::expect(numbers)?));
        let all = CancellationToken::new();
        let began = self.clock.monotonic();
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(empty(client, arrivals.clone(), all.clone(), self.clock.clone()));
        }
        let mut ended = None;
        while let Some(end) = tasks.join_next().await {
            ended = end??.or(ended);
        }
        Ok(ended.context("no consumer had the last message")? - began)
    }

    async fn end(self) -> anyhow::Result<()> {
        self.queue.end().await
    }
}

/// Takes until all are there; the one who had the last message says when that was.
async fn empty(
    mut client: impl Client,
    arrivals: Arc<Mutex<Arrivals>>,
    all: CancellationToken,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Option<Duration>> {
    while !all.is_cancelled() {
        let Some(number) = client.take().await? else { continue };
        if arrivals.lock().expect("nothing panics with the lock").came(number)? {
            all.cancel();
            return Ok(Some(clock.monotonic()));
        }
    }
    Ok(None)
}
