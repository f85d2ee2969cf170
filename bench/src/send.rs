//! Durable sends of 1 KiB bodies by 1, 32 and 256 callers at once, next to an append-only log in the same rounds; then
//! receive and delete by 32 receivers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::try_join_all;
use nightmail::base::{Clock, SystemClock};
use nightmail::queue::{self, Door, Receive, Send};
use nightmail::run::Ledger;
use nightmail::store::{self, Store};
use tokio::task::JoinSet;

use crate::log::Log;
use crate::output::{count, median, note, table};

const BODY_BYTES: usize = 1024;
const QUEUE: &str = "bench";
/// Callers at once and the messages of a small round.
const SENDERS: [(usize, u64); 3] = [(1, 2_000), (32, 20_000), (256, 60_000)];
const RECEIVERS: usize = 32;
/// The syncs of one commit: two-phase, for a quick start after a crash.
const SYNCS_PER_COMMIT: u64 = 2;

/// One measurement.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    syncs_per_message: f64,
}

/// Measures all and prints two tables.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let (rounds, times) = if full { (5, 4) } else { (3, 1) };
    let clock = SystemClock::shared();
    let mut rows = Vec::new();
    for (senders, messages) in SENDERS {
        let messages = messages * times;
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            limits.push(log(&clock, senders, messages).await?);
            ours.push(door(&clock, senders, messages).await?);
        }
        note(format_args!("{senders} senders are measured"));
        rows.push(row(&senders.to_string(), messages, &ours, &limits));
    }
    let head = ["senders", "messages", "queue/s", "log/s", "ratio", "queue syncs/message", "log syncs/message"];
    table(&format!("send: durable, {BODY_BYTES} bytes, medians of {rounds} rounds"), &head, &rows)?;

    let messages = 20_000 * times;
    let mut received = Vec::new();
    for _ in 0..rounds {
        received.push(receive(&clock, messages).await?);
    }
    let of = |figure: fn(&Round) -> f64| median(received.iter().map(figure));
    let rows = [vec![
        RECEIVERS.to_string(),
        messages.to_string(),
        count(of(|round| round.per_second)),
        format!("{:.4}", of(|round| round.syncs_per_message)),
    ]];
    let head = ["receivers", "messages", "messages/s", "syncs/message"];
    table(&format!("receive ten, delete each: medians of {rounds} rounds"), &head, &rows)
}

fn row(senders: &str, messages: u64, ours: &[Round], limits: &[Round]) -> Vec<String> {
    let rate = |round: &Round| round.per_second;
    let syncs = |round: &Round| round.syncs_per_message;
    let ratios = ours.iter().zip(limits).map(|(ours, limit)| ours.per_second / limit.per_second);
    vec![
        senders.into(),
        messages.to_string(),
        count(median(ours.iter().map(rate))),
        count(median(limits.iter().map(rate))),
        format!("{:.2}", median(ratios)),
        format!("{:.4}", median(ours.iter().map(syncs))),
        format!("{:.4}", median(limits.iter().map(syncs))),
    ]
}

async fn door(clock: &Arc<dyn Clock>, senders: usize, messages: u64) -> anyhow::Result<Round> {
    let dir = tempfile::tempdir()?;
    let (door, _) = open(dir.path(), clock).await?;
    let before = door.store().commits();
    let body = body();
    let one = door.clone();
    let per_second = rate(clock, senders, messages, move || {
        let (door, body) = (one.clone(), body.clone());
        async move { Ok(door.send(QUEUE, Send::text(body)).await.map(drop)?) }
    })
    .await?;
    let syncs = (door.store().commits() - before) * SYNCS_PER_COMMIT;
    Ok(Round { per_second, syncs_per_message: syncs as f64 / messages as f64 })
}

async fn log(clock: &Arc<dyn Clock>, senders: usize, messages: u64) -> anyhow::Result<Round> {
    let dir = tempfile::tempdir()?;
    let log = Log::make(&dir.path().join("log"))?;
    let (door, body) = (log.door(), body());
    let per_second = rate(clock, senders, messages, move || {
        let (door, body) = (door.clone(), body.clone());
        async move { door.send(body).await }
    })
    .await?;
    let syncs = log.close()?;
    Ok(Round { per_second, syncs_per_message: syncs as f64 / messages as f64 })
}

async fn receive(clock: &Arc<dyn Clock>, messages: u64) -> anyhow::Result<Round> {
    let dir = tempfile::tempdir()?;
    let (door, queue) = open(dir.path(), clock).await?;
    let mut left = messages;
    while left > 0 {
        let batch = left.min(1_000);
        door.send_all(QUEUE, (0..batch).map(|_| Send::text(body())).collect()).await?;
        left -= batch;
    }
    let (before, began) = (door.store().commits(), clock.monotonic());
    let mut receivers = JoinSet::new();
    for _ in 0..RECEIVERS {
        let door = door.clone();
        receivers.spawn(async move { empty(&door, queue).await });
    }
    let mut deleted = 0;
    while let Some(count) = receivers.join_next().await {
        deleted += count??;
    }
    anyhow::ensure!(deleted == messages, "{deleted} of {messages} messages were deleted");
    let per_second = messages as f64 / (clock.monotonic() - began).as_secs_f64();
    let syncs = (door.store().commits() - before) * SYNCS_PER_COMMIT;
    Ok(Round { per_second, syncs_per_message: syncs as f64 / messages as f64 })
}

/// Receives and deletes until nothing is there; answers how many it deleted.
async fn empty(door: &Door, queue: u32) -> anyhow::Result<u64> {
    let mut deleted = 0;
    loop {
        let found = door.receive_now(queue, Receive::for_client(10)).await?.messages;
        if found.is_empty() {
            return Ok(deleted);
        }
        let answers = try_join_all(found.iter().map(|message| door.delete(message.handle))).await?;
        deleted += answers.into_iter().map(u64::from).sum::<u64>();
    }
}

async fn open(dir: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<(Door, u32)> {
    let store = Store::open(&store::Options::at(dir.join("nightmail.redb")))?;
    let door = Door::new(store, clock.clone(), Arc::new(Ledger));
    let queue = door.ensure(QUEUE, &queue::Options::default()).await?;
    Ok((door, queue))
}

fn body() -> Bytes {
    vec![b'a'; BODY_BYTES].into()
}

/// Messages per second when `senders` tasks share `messages` sends.
async fn rate<F, S>(clock: &Arc<dyn Clock>, senders: usize, messages: u64, send: F) -> anyhow::Result<f64>
where
    F: Fn() -> S + Clone + std::marker::Send + 'static,
    S: Future<Output = anyhow::Result<()>> + std::marker::Send,
{
    let begun = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let mut tasks = JoinSet::new();
    for _ in 0..senders {
        let (send, begun) = (send.clone(), begun.clone());
        tasks.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < messages {
                send().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(end) = tasks.join_next().await {
        end??;
    }
    Ok(messages as f64 / (clock.monotonic() - began).as_secs_f64())
}
