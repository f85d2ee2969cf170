//! A short and a long queue: throughput of both in the same rounds; memory and disk of the longest; whether its space
//! is reused.

use std::path::PathBuf;
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
/// The most memory that the longest queue may take, in MB.
const RESIDENT_MB_MAX: f64 = 100.0;
/// The most that the disk may hold, as a multiple of all bodies.
const DISK_RATIO_MAX: f64 = 1.5;
/// The most that the files may have grown after a second fill, as a multiple of their lengths after the first.
const GROWTH_MAX: f64 = 1.0;

/// How many messages are queued.
struct Sizes {
    short: u64,
    long: u64,
    longest: u64,
    /// Sent and taken in one round.
    round: u64,
}

const SMALL: Sizes = Sizes { short: 200, long: 20_000, longest: 100_000, round: 5_000 };
const FULL: Sizes = Sizes { short: 10_000, long: 1_000_000, longest: 5_000_000, round: 20_000 };

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
    peak_mb: f64,
    /// When full the first time, when drained, when full again, and when drained and full once more.
    disk: [Taken; 4],
}

/// Throughput of sending, and of receiving with deleting, in messages per second.
#[derive(Clone, Copy)]
struct Rates {
    send: f64,
    take: f64,
}

type Rate = fn(&Rates) -> f64;

/// Measures all and prints it; an error when a limit is passed.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let sizes = if full { FULL } else { SMALL };
    let mut passed = throughput(&sizes).await?;
    passed.extend(held(sizes.longest).await?);
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
    let works: [(_, Rate); 2] =
        [("send, 32 senders", |rates| rates.send), ("receive 10 + delete, 32 receivers", |rates| rates.take)];
    for (name, rate) in works {
        let ratio = median(shorts.iter().zip(&longs).map(|(short, long)| rate(long) / rate(short)));
        let rates = [&shorts, &longs].map(|rounds| count(median(rounds.iter().map(rate))));
        rows.push(
            [vec![name.to_owned()], rates.to_vec(), vec![format!("{ratio:.2}"), format!("{RATIO_MIN}")]].concat(),
        );
        if ratio < RATIO_MIN {
            passed.push(format!("{name}: {ratio:.2} of the short queue's throughput; at least {RATIO_MIN}"));
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

async fn held(messages: u64) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let arguments = vec![format!("--dir={}", dir.path().display()), format!("--messages={messages}")];
    let held: Held = child::measure("run-depth", arguments).await?;
    let payload = (messages * BODY_BYTES as u64) as f64;
    let [first, drained, second, third] = held.disk.map(|taken| taken.held as f64 / payload);
    let [length, _, grown, once_more] = held.disk.map(|taken| taken.length as f64);
    let rows = [
        ("memory when full, MB", held.resident_mb, RESIDENT_MB_MAX),
        ("memory at its peak, drained and filled again, MB", held.peak_mb, f64::INFINITY),
        ("blocks when full / payload", first, DISK_RATIO_MAX),
        ("blocks when drained / payload", drained, f64::INFINITY),
        ("blocks at the second fill / payload", second, f64::INFINITY),
        ("blocks at the third fill / payload", third, f64::INFINITY),
        ("file length at the second fill / first", grown / length, GROWTH_MAX),
        ("file length at the third fill / first", once_more / length, GROWTH_MAX),
    ];
    let cell = |value: f64| if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let limit = |limit: f64| if limit.is_finite() { cell(limit) } else { "-".into() };
    let lines = rows.map(|(name, value, most)| vec![name.to_owned(), cell(value), limit(most)]);
    table(&format!("depth: {} messages of 1 KiB queued", count(messages as f64)), &["", "value", "limit"], &lines)?;
    let is_passed = |(_, value, most): &&(&str, f64, f64)| value > most;
    Ok(rows.iter().filter(is_passed).map(|(name, value, most)| format!("{name}: {value:.2}; at most {most}")).collect())
}

/// Fills a queue, drains it and fills it again, twice.
pub(crate) async fn fill(Arguments { dir, messages }: Arguments) -> anyhow::Result<Held> {
    let engine = Engine::open(&dir, &SystemClock::shared()).await?;
    engine.fill(messages, BODY_BYTES).await?;
    let first = disk::taken(&dir)?;
    let resident_mb = child::resident_mb()?;
    engine.take(CALLERS, messages).await?;
    let drained = disk::taken(&dir)?;
    engine.fill(messages, BODY_BYTES).await?;
    let second = disk::taken(&dir)?;
    engine.take(CALLERS, messages).await?;
    engine.fill(messages, BODY_BYTES).await?;
    ensure!(engine.messages()? == messages, "{} messages are queued, not {messages}", engine.messages()?);
    let disk = [first, drained, second, disk::taken(&dir)?];
    Ok(Held { resident_mb, peak_mb: child::peak_mb()?, disk })
}
