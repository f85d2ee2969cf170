//! A short and a long queue: throughput of both in the same rounds; memory and disk of the longest; whether its space
//! is reused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use nightmail::base::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::disk::Taken;
use crate::engine::Engine;
use crate::load::{self, BODY_BYTES};
use crate::output::{count, median, note, table};
use crate::{child, disk};

const CALLERS: usize = 32;
const ROUNDS: usize = 5;
/// The least that a long queue's throughput may be of a short one's.
const RATIO_MIN: f64 = 0.8;
/// Sends to a long queue are fast enough at this rate, whatever the short one's.
const SENDS_PER_SECOND_MIN: f64 = 100_000.0;
/// The most memory that the longest queue may take, in MB.
const RESIDENT_MB_MAX: f64 = 100.0;
/// The most that the files may have grown after a second fill, as a multiple of their lengths after the first.
const GROWTH_MAX: f64 = 1.0;

/// How many messages are queued.
struct Sizes {
    short: u64,
    long: u64,
    longest: u64,
    /// Sent and taken in one round.
    round: u64,
    /// The most that the disk may hold for the longest queue at rest, as a multiple of all bodies.
    disk_ratio_max: f64,
}

/// The log's 32 MiB are a sixth of this longest queue, which is why its disk ratio may be greater.
const SMALL: Sizes = Sizes { short: 200, long: 20_000, longest: 200_000, round: 5_000, disk_ratio_max: 1.7 };
const FULL: Sizes = Sizes { short: 10_000, long: 1_000_000, longest: 5_000_000, round: 100_000, disk_ratio_max: 1.5 };

/// The process that fills a queue.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    messages: u64,
}

/// Memory and disk of a full queue.
#[derive(Serialize, Deserialize)]
pub(crate) struct Held {
    resident_mb: f64,
    /// The same once the last checkpoint is made.
    rest_mb: f64,
    peak_mb: f64,
    /// At rest: when full the first time, when drained, when full again, and when drained and full once more.
    disk: [Taken; 4],
}

/// Throughput of sending, and of receiving with deleting, in messages per second.
#[derive(Clone, Copy)]
struct Rates {
    send: f64,
    take: f64,
}

type Rate = fn(&Rates) -> f64;

/// A row of the table: what is done, and the rate at which a long queue is fast enough, if there is one.
struct Work {
    name: &'static str,
    rate: Rate,
    enough: Option<f64>,
}

const WORKS: [Work; 2] = [
    Work { name: "send, 32 senders", rate: |rates| rates.send, enough: Some(SENDS_PER_SECOND_MIN) },
    Work { name: "receive 10 + delete, 32 receivers", rate: |rates| rates.take, enough: None },
];

/// Measures all and prints it; an error when a limit is passed.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let sizes = if full { FULL } else { SMALL };
    let mut passed = throughput(&sizes).await?;
    passed.extend(held(&sizes).await?);
    ensure!(passed.is_empty(), "{}", passed.join("; "));
    Ok(())
}

async fn throughput(sizes: &Sizes) -> anyhow::Result<Vec<String>> {
    let clock = SystemClock::shared();
    let (short_dir, long_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let short = Engine::open(short_dir.path(), &clock).await?;
    let long = Engine::open(long_dir.path(), &clock).await?;
    short.fill(sizes.short, BODY_BYTES).await?;
    long.fill(sizes.long, BODY_BYTES).await?;
    short.rest().await;
    long.rest().await;
    note(format_args!("depth: {} and {} messages are queued", sizes.short, sizes.long));
    let (mut shorts, mut longs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        shorts.push(round(&clock, &short, sizes.round).await?);
        longs.push(round(&clock, &long, sizes.round).await?);
    }
    for (engine, messages) in [(short, sizes.short), (long, sizes.long)] {
        ensure!(engine.messages()? == messages, "{} messages are left, not {messages}", engine.messages()?);
    }
    let (mut rows, mut passed) = (Vec::new(), Vec::new());
    for Work { name, rate, enough } in &WORKS {
        let ratio = median(shorts.iter().zip(&longs).map(|(short, long)| rate(long) / rate(short)));
        let rates = [&shorts, &longs].map(|rounds| median(rounds.iter().map(rate)));
        let or = enough.map_or_else(String::new, |enough| format!(" or {}/s", count(enough)));
        let figures = vec![count(rates[0]), count(rates[1]), format!("{ratio:.2}"), format!("{RATIO_MIN}{or}")];
        rows.push([vec![(*name).to_owned()], figures].concat());
        if ratio < RATIO_MIN && enough.is_none_or(|enough| rates[1] < enough) {
            passed.push(format!("{name}: {ratio:.2} of the short queue's throughput; at least {RATIO_MIN}{or}"));
        }
    }
    let queued = [sizes.short, sizes.long].map(|messages| format!("at {} queued", count(messages as f64)));
    let head = ["messages/s", &queued[0], &queued[1], "ratio", "limit"];
    table(&format!("depth: medians of {ROUNDS} rounds of {} messages of 1 KiB", sizes.round), &head, &rows)?;
    Ok(passed)
}

async fn round(clock: &Arc<dyn Clock>, engine: &Engine, messages: u64) -> anyhow::Result<Rates> {
    let sender = engine.clone();
    let send = move |number| {
        let sender = sender.clone();
        async move { sender.send(load::numbered(number, BODY_BYTES)).await }
    };
    let sent = load::share(clock, CALLERS, messages, send).await?;
    let taken = engine.take(CALLERS, messages).await?;
    Ok(Rates { send: messages as f64 / sent.as_secs_f64(), take: messages as f64 / taken.as_secs_f64() })
}

async fn held(sizes: &Sizes) -> anyhow::Result<Vec<String>> {
    let messages = sizes.longest;
    let dir = tempfile::tempdir()?;
    let arguments = vec![format!("--dir={}", dir.path().display()), format!("--messages={messages}")];
    let held: Held = child::measure("run-depth", arguments).await?;
    let payload = (messages * BODY_BYTES as u64) as f64;
    let [first, drained, second, third] = held.disk.map(|taken| taken.held as f64 / payload);
    let [length, _, grown, once_more] = held.disk.map(|taken| taken.length as f64);
    let rows = [
        ("memory when full, MB", held.resident_mb, RESIDENT_MB_MAX),
        ("memory at rest, MB", held.rest_mb, f64::INFINITY),
        ("memory at its peak, drained and filled again, MB", held.peak_mb, f64::INFINITY),
        ("blocks when full / payload", first, sizes.disk_ratio_max),
        ("blocks when drained / payload", drained, f64::INFINITY),
        ("blocks at the second fill / payload", second, f64::INFINITY),
        ("blocks at the third fill / payload", third, f64::INFINITY),
        ("file length at the second fill / first", grown / length, GROWTH_MAX),
        ("file length at the third fill / first", once_more / length, GROWTH_MAX),
    ];
    let cell = |value: f64| if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let limit = |limit: f64| if limit.is_finite() { cell(limit) } else { "-".into() };
    let lines = rows.map(|(name, value, most)| vec![name.to_owned(), cell(value), limit(most)]);
    let title = format!("depth: {} messages of 1 KiB queued, disk at rest, all files", count(messages as f64));
    table(&title, &["", "value", "limit"], &lines)?;
    let is_passed = |(_, value, most): &&(&str, f64, f64)| value > most;
    Ok(rows.iter().filter(is_passed).map(|(name, value, most)| format!("{name}: {value:.2}; at most {most}")).collect())
}

/// Fills a queue, drains it and fills it again, twice. The memory is that under load, the disk that at rest.
pub(crate) async fn fill(Arguments { dir, messages }: Arguments) -> anyhow::Result<Held> {
    let engine = Engine::open(&dir, &SystemClock::shared()).await?;
    engine.fill(messages, BODY_BYTES).await?;
    let resident_mb = child::resident_mb()?;
    let first = at_rest(&engine, &dir).await?;
    let rest_mb = child::resident_mb()?;
    engine.take(CALLERS, messages).await?;
    let drained = at_rest(&engine, &dir).await?;
    engine.fill(messages, BODY_BYTES).await?;
    let second = at_rest(&engine, &dir).await?;
    engine.take(CALLERS, messages).await?;
    engine.fill(messages, BODY_BYTES).await?;
    ensure!(engine.messages()? == messages, "{} messages are queued, not {messages}", engine.messages()?);
    let disk = [first, drained, second, at_rest(&engine, &dir).await?];
    Ok(Held { resident_mb, rest_mb, peak_mb: child::peak_mb()?, disk })
}

async fn at_rest(engine: &Engine, dir: &Path) -> anyhow::Result<Taken> {
    engine.rest().await;
    disk::taken(dir)
}
