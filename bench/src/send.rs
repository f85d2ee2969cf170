//! Durable sends of 1 KiB bodies by 1, 32 and 256 callers at once and in batches of ten, then receive and delete by 32
//! receivers, each next to a plain and to a preallocated append-only log in the same rounds; then 32 paced senders.
//!
//! A receive and delete of the logs is the least that is durable: one record for each receive of ten, which tells their
//! numbers, ten reads of the bodies, one record for each delete, all in the same groups.

use std::ops::Range;
use std::sync::Arc;

use anyhow::ensure;
use futures_util::future::try_join_all;
use nightmail::base::{Clock, SystemClock};

use crate::engine::Engine;
use crate::load::{self, BODY_BYTES};
use crate::log::{Kind, Log};
use crate::output::{count, median, note, table};
use crate::paced;

/// Messages of one receive.
const RECEIVE: u64 = 10;
/// A preallocated log, which starts over when it is full.
const LOG_BYTES: u64 = 64 << 20;
/// A log from which is received does not start over: a message, its delete and its part of a receive.
const LOG_BYTES_PER_MESSAGE: u64 = 1_060;

/// A row of the table.
struct Work {
    name: &'static str,
    callers: usize,
    what: What,
    /// In a small round.
    messages: u64,
    /// The least that our rate may be of the plain log's in the same round.
    ratio_min: f64,
}

#[derive(Clone, Copy)]
enum What {
    /// Sends of so many messages in one call.
    Send(u64),
    /// Receives of ten, a delete for each.
    Take,
}

const WORKS: [Work; 5] = [
    Work { name: "1 sender", callers: 1, what: What::Send(1), messages: 2_000, ratio_min: 1.0 },
    Work { name: "32 senders", callers: 32, what: What::Send(1), messages: 20_000, ratio_min: 1.0 },
    Work { name: "256 senders", callers: 256, what: What::Send(1), messages: 60_000, ratio_min: 0.45 },
    Work { name: "32 senders x 10", callers: 32, what: What::Send(10), messages: 60_000, ratio_min: 0.5 },
    Work { name: "32 receivers, receive 10 + delete", callers: 32, what: What::Take, messages: 20_000, ratio_min: 0.4 },
];

/// One measurement.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    syncs_per_message: f64,
}

/// What one round of a work came to.
struct Rounds {
    ours: Round,
    plain: Round,
    preallocated: Round,
}

/// Measures all works and prints them; an error when one stays below its limit.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let (rounds, times) = if full { (5, 4) } else { (3, 1) };
    let clock = SystemClock::shared();
    let (mut rows, mut short) = (Vec::new(), Vec::new());
    for work in &WORKS {
        let messages = work.messages * times;
        let mut measured = Vec::new();
        for _ in 0..rounds {
            measured.push(Rounds {
                plain: log(&clock, work, messages, Kind::Plain).await?,
                preallocated: log(&clock, work, messages, Kind::Preallocated).await?,
                ours: engine(&clock, work, messages).await?,
            });
        }
        note(format_args!("send: {} measured", work.name));
        let ratio = median(measured.iter().map(|round| round.ours.per_second / round.plain.per_second));
        if ratio < work.ratio_min {
            short.push(format!("{}: {ratio:.2} of the plain log; at least {}", work.name, work.ratio_min));
        }
        rows.push(row(work, messages, ratio, &measured));
    }
    let head = [
        "durable, 1 KiB",
        "messages",
        "queue/s",
        "plain log/s",
        "preallocated/s",
        "to plain",
        "to prealloc.",
        "limit",
        "syncs/message",
        "of the log",
    ];
    table(&format!("send: medians of {rounds} rounds, ratios of each round"), &head, &rows)?;
    short.extend(paced::run(&clock, full).await?);
    ensure!(short.is_empty(), "{}", short.join("; "));
    Ok(())
}

fn row(work: &Work, messages: u64, to_plain: f64, rounds: &[Rounds]) -> Vec<String> {
    let of = |figure: fn(&Rounds) -> f64| median(rounds.iter().map(figure));
    vec![
        work.name.into(),
        count(messages as f64),
        count(of(|round| round.ours.per_second)),
        count(of(|round| round.plain.per_second)),
        count(of(|round| round.preallocated.per_second)),
        format!("{to_plain:.2}"),
        format!("{:.2}", of(|round| round.ours.per_second / round.preallocated.per_second)),
        format!("{}", work.ratio_min),
        format!("{:.4}", of(|round| round.ours.syncs_per_message)),
        format!("{:.4}", of(|round| round.plain.syncs_per_message)),
    ]
}

async fn engine(clock: &Arc<dyn Clock>, work: &Work, messages: u64) -> anyhow::Result<Round> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::open(dir.path(), clock).await?;
    if matches!(work.what, What::Take) {
        engine.fill(messages, BODY_BYTES).await?;
    }
    let before = engine.syncs();
    let took = match work.what {
        What::Take => engine.take(work.callers, messages).await?,
        What::Send(batch) => {
            let engine = engine.clone();
            let send = move |call: u64| {
                let engine = engine.clone();
                async move {
                    match batch {
                        1 => engine.send(load::numbered(call, BODY_BYTES)).await,
                        _ => engine.send_all(batch_of(call, batch).map(|n| load::numbered(n, BODY_BYTES))).await,
                    }
                }
            };
            load::share(clock, work.callers, messages / batch, send).await?
        }
    };
    let left = if matches!(work.what, What::Take) { 0 } else { messages };
    ensure!(engine.messages()? == left, "{} messages are in the queue, not {left}", engine.messages()?);
    let syncs = engine.syncs() - before;
    Ok(Round { per_second: messages as f64 / took.as_secs_f64(), syncs_per_message: syncs as f64 / messages as f64 })
}

async fn log(clock: &Arc<dyn Clock>, work: &Work, messages: u64, kind: Kind) -> anyhow::Result<Round> {
    let dir = tempfile::tempdir()?;
    let bytes = if matches!(work.what, What::Take) { messages * LOG_BYTES_PER_MESSAGE } else { LOG_BYTES };
    let log = Log::make(&dir.path().join("log"), kind, bytes)?;
    let queues = log.queues();
    let (callers, mut unmeasured) = (work.callers, 0);
    let took = match work.what {
        What::Send(batch) => {
            let send = move |call: u64| {
                let queues = queues.clone();
                let bodies = batch_of(call, batch).map(|number| load::numbered(number, BODY_BYTES)).collect();
                async move { queues.send(bodies).await }
            };
            load::share(clock, callers, messages / batch, send).await?
        }
        What::Take => {
            for call in 0..messages / RECEIVE {
                let numbers = batch_of(call, RECEIVE);
                queues.send(numbers.map(|number| load::numbered(number, BODY_BYTES)).collect()).await?;
            }
            unmeasured = messages / RECEIVE;
            let take = move |call: u64| {
                let queues = queues.clone();
                async move {
                    let bodies = queues.receive(batch_of(call, RECEIVE).collect(), BODY_BYTES).await?;
                    let deletes = bodies.iter().map(async |body| queues.delete(load::number(body)?).await);
                    try_join_all(deletes).await.map(drop)
                }
            };
            load::share(clock, callers, messages / RECEIVE, take).await?
        }
    };
    let syncs = log.close()? - unmeasured;
    Ok(Round { per_second: messages as f64 / took.as_secs_f64(), syncs_per_message: syncs as f64 / messages as f64 })
}

/// The numbers of one call's messages.
fn batch_of(call: u64, batch: u64) -> Range<u64> {
    call * batch..(call + 1) * batch
}
