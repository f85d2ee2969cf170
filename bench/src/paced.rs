//! 32 senders that each send at a fixed pace, well below what the queue can take: how long the longest of them waits
//! while checkpoints come and go, next to a plain append-only log under the same pace.
//!
//! A wait is from a call to its answer. A sender that is late for its next call makes it at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nightmail::base::Clock;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::Engine;
use crate::load::{self, BODY_BYTES};
use crate::log::{Kind, Log};
use crate::output::{count, median, note, percentile, table};

const SENDERS: u32 = 32;
/// Between two calls of a sender: 8,000 messages a second by all of them.
const EVERY: Duration = Duration::from_millis(4);
/// The longest wait may be this many times the plain log's 99.9th percentile of the same round.
const RATIO_MAX: f64 = 2.0;
/// A round must cross this many checkpoints.
const CHECKPOINTS_MIN: u64 = 3;
const ROUNDS: usize = 3;

/// The waits of one round.
struct Round {
    /// In ms.
    ours: Vec<f64>,
    /// In ms.
    plain: Vec<f64>,
    checkpoints: u64,
}

impl Round {
    fn ratio(&self) -> f64 {
        percentile(&self.ours, 100.0) / percentile(&self.plain, 99.9)
    }
}

/// Measures and prints it; returns the limits that were passed.
pub(crate) async fn run(clock: &Arc<dyn Clock>, full: bool) -> anyhow::Result<Vec<String>> {
    let calls = if full { 5_000 } else { 1_000 };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let plain = log(clock, calls).await?;
        let (ours, checkpoints) = engine(clock, calls).await?;
        rounds.push(Round { ours, plain, checkpoints });
    }
    note(format_args!("send: {SENDERS} paced senders measured"));
    let ratio = median(rounds.iter().map(Round::ratio));
    show(calls, ratio, &rounds)?;
    let mut passed = Vec::new();
    if ratio > RATIO_MAX {
        let longest = format!("the longest wait is {ratio:.1} p99.9 of the log; at most {RATIO_MAX}");
        passed.push(format!("{SENDERS} paced senders: {longest}"));
    }
    let checkpoints = rounds.iter().map(|round| round.checkpoints).min().unwrap_or(0);
    if checkpoints < CHECKPOINTS_MIN {
        passed
            .push(format!("{SENDERS} paced senders: {checkpoints} checkpoints in a round; at least {CHECKPOINTS_MIN}"));
    }
    Ok(passed)
}

fn show(calls: u64, ratio: f64, rounds: &[Round]) -> anyhow::Result<()> {
    let per_second = f64::from(SENDERS) / EVERY.as_secs_f64();
    let seconds = calls as f64 * EVERY.as_secs_f64();
    let row = |name: &str, waits: fn(&Round) -> &[f64], last: [String; 3]| {
        let of = |percent: f64| {
            let figure = median(rounds.iter().map(|round| percentile(waits(round), percent)));
            format!("{figure:.2}")
        };
        [vec![name.to_owned(), of(50.0), of(99.0), of(99.9), of(100.0)], last.to_vec()].concat()
    };
    let checkpoints = count(median(rounds.iter().map(|round| round.checkpoints as f64)));
    let rows = [
        row("queue", |round| &round.ours, [checkpoints, format!("{ratio:.2}"), format!("{RATIO_MAX}")]),
        row("plain log", |round| &round.plain, ["-"; 3].map(str::to_owned)),
    ];
    let head = ["wait, ms", "p50", "p99", "p99.9", "longest", "checkpoints", "longest to the log's p99.9", "limit"];
    let title = format!(
        "send: {SENDERS} paced senders, {} messages/s for {seconds:.0} s, medians of {ROUNDS} rounds",
        count(per_second)
    );
    table(&title, &head, &rows)
}

async fn engine(clock: &Arc<dyn Clock>, calls: u64) -> anyhow::Result<(Vec<f64>, u64)> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::open(dir.path(), clock).await?;
    let (before, sender) = (engine.checkpoints(), engine.clone());
    let send = move |body| {
        let sender = sender.clone();
        async move { sender.send(body).await }
    };
    let waits = pace(clock, calls, send).await?;
    Ok((waits, engine.checkpoints() - before))
}

async fn log(clock: &Arc<dyn Clock>, calls: u64) -> anyhow::Result<Vec<f64>> {
    let dir = tempfile::tempdir()?;
    let log = Log::make(&dir.path().join("log"), Kind::Plain, 0)?;
    let queues = log.queues();
    let send = move |body| {
        let queues = queues.clone();
        async move { queues.send(vec![body]).await }
    };
    let waits = pace(clock, calls, send).await?;
    log.close()?;
    Ok(waits)
}

/// Lets each sender make `calls` calls at its pace; returns all waits in ms.
async fn pace<F, C>(clock: &Arc<dyn Clock>, calls: u64, send: F) -> anyhow::Result<Vec<f64>>
where
    F: Fn(Bytes) -> C + Clone + Send + 'static,
    C: Future<Output = anyhow::Result<()>> + Send,
{
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (send, clock) = (send.clone(), clock.clone());
        senders.spawn(async move {
            // The senders are spread over the interval, so that they do not come in one burst.
            tokio::time::sleep(EVERY * sender / SENDERS).await;
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut waits = Vec::new();
            for call in 0..calls {
                ticks.tick().await;
                let body = load::numbered(u64::from(sender) * calls + call, BODY_BYTES);
                let began = clock.monotonic();
                send(body).await?;
                waits.push((clock.monotonic() - began).as_secs_f64() * 1e3);
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = senders.join_next().await {
        waits.extend(ended??);
    }
    Ok(waits)
}
