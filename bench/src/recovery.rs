//! Kill -9 of a process under load, and the time until a fresh process has the store open and answers a receive. The
//! process is killed when its log is as full as it gets under that load, since recovery replays the log.
//!
//! The page cache stays warm, as after a crash of the daemon; a power cut would have the pages read from the disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::future::try_join_all;
use nightmail::base::SystemClock;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::engine::Engine;
use crate::log_fill;
use crate::output::{self, count, median, note, table};
use crate::{child, disk, load};

/// 3,600,000 of them are about 6 GB.
const BODY_BYTES: usize = 1638;
/// Senders and receivers at once when the process is killed; more than the checkpoints keep up with.
const CALLERS: usize = 64;
/// Messages of one send under load.
const BATCH: u64 = 10;
/// How long the load goes on before the log is full enough for a kill.
const UNDER_LOAD: Duration = Duration::from_millis(700);
/// The kill comes when the log holds this much of the most that was seen, and asks for less and less of it, down to
/// nothing after [`KILL_WITHIN`].
const FULL_ENOUGH: f64 = 0.95;
const KILL_WITHIN: Duration = Duration::from_secs(8);
/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const KILLS: usize = 7;
/// The most that opening and the first receive may take, in ms.
const READY_MS_MAX: f64 = 500.0;

/// The process that is killed.
#[derive(Debug, Args)]
pub(crate) struct Load {
    #[arg(long)]
    dir: PathBuf,
    /// How many messages are queued before the load begins
    #[arg(long)]
    messages: u64,
}

/// The process that comes after it.
#[derive(Debug, Args)]
pub(crate) struct Open {
    #[arg(long)]
    dir: PathBuf,
}

/// What the process after a kill found.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opened {
    open_ms: f64,
    receive_ms: f64,
    messages: u64,
}

/// Said when the load begins.
#[derive(Serialize, Deserialize)]
struct UnderLoad {
    messages: u64,
}

/// What one kill came to.
struct Killed {
    opened: Opened,
    /// What the log held at the kill, at most: its older segment may have been applied already.
    log_bytes: u64,
}

impl Killed {
    fn ready_ms(&self) -> f64 {
        self.opened.open_ms + self.opened.receive_ms
    }
}

/// Measures several kills of one store; an error when the slowest start passes the limit.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let messages = if full { 3_600_000 } else { 100_000 };
    let dir = tempfile::tempdir()?;
    let mut found = Vec::new();
    for kill in 0..KILLS {
        let more = if kill == 0 { messages } else { 0 };
        let log_bytes = load_and_kill(dir.path(), more).await?;
        let arguments = vec![format!("--dir={}", dir.path().display())];
        let opened: Opened = child::measure("run-recovery-open", arguments).await?;
        let killed = Killed { opened, log_bytes };
        note(format_args!("recovery: {:.1} ms after kill {}", killed.ready_ms(), kill + 1));
        found.push(killed);
    }
    let bytes = disk::taken(dir.path())?.held as f64;
    let of = |figure: fn(&Killed) -> f64| median(found.iter().map(figure));
    let slowest = found.iter().map(Killed::ready_ms).fold(0.0, f64::max);
    let rows = [vec![
        count(of(|killed| killed.opened.messages as f64)),
        format!("{:.2}", bytes / 1e9),
        format!("{:.1}", of(|killed| killed.log_bytes as f64) / f64::from(1 << 20)),
        format!("{:.1}", of(|killed| killed.opened.open_ms)),
        format!("{:.1}", of(|killed| killed.opened.receive_ms)),
        format!("{:.1}", of(Killed::ready_ms)),
        format!("{slowest:.1}"),
        format!("{READY_MS_MAX:.0}"),
    ]];
    let head = [
        "messages",
        "GB on disk",
        "MiB in the log",
        "open ms",
        "first receive ms",
        "ready ms",
        "slowest ready ms",
        "limit of the slowest",
    ];
    table(&format!("recovery: kill -9 under load, medians of {KILLS} kills"), &head, &rows)?;
    ensure!(slowest <= READY_MS_MAX, "ready after {slowest:.0} ms; at most {READY_MS_MAX} ms");
    Ok(())
}

/// Kills a process under load when its log is full; returns what the log held.
async fn load_and_kill(dir: &Path, messages: u64) -> anyhow::Result<u64> {
    let arguments = ["run-recovery-load".into(), format!("--dir={}", dir.display()), format!("--messages={messages}")];
    let mut process = child::command(&arguments)?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = process.stdout.take().context("the load's standard output is a pipe")?;
    let line = BufReader::new(lines).lines().next_line().await?.context("the load ended at its start")?;
    let begun: UnderLoad = serde_json::from_str(&line)?;
    ensure!(begun.messages >= messages, "{} of {messages} messages are queued", begun.messages);
    until_full(dir).await?;
    ensure!(process.try_wait()?.is_none(), "the load ended by itself");
    process.kill().await?;
    log_fill::bytes(dir)
}

/// Waits for the load to go on for a while, and then for the log to be nearly as full as it was in that while.
async fn until_full(dir: &Path) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let (began, mut most) = (clock.monotonic(), 0);
    loop {
        let (waited, bytes) = (clock.monotonic() - began, log_fill::bytes(dir)?);
        let patience = 1.0 - waited.as_secs_f64() / KILL_WITHIN.as_secs_f64();
        if waited > UNDER_LOAD && bytes as f64 >= FULL_ENOUGH * patience * most as f64 {
            return Ok(());
        }
        most = most.max(bytes);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Fills the queue, says so, then sends, receives and deletes until it is killed.
pub(crate) async fn load(Load { dir, messages }: Load) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let engine = Engine::open(&dir, &clock).await?;
    engine.fill(messages, BODY_BYTES).await?;
    output::json(&UnderLoad { messages: engine.messages()? })?;
    let work = move |number: u64| {
        let engine = engine.clone();
        async move {
            if number.is_multiple_of(2) {
                return engine.send_all((0..BATCH).map(|_| load::numbered(number, BODY_BYTES))).await;
            }
            let received = engine.receive(BATCH as usize).await?;
            try_join_all(received.iter().map(|message| engine.delete(message.handle))).await.map(drop)
        }
    };
    load::share(&clock, CALLERS, u64::MAX, work).await.map(drop)
}

/// Opens the store and receives.
pub(crate) async fn open(Open { dir }: Open) -> anyhow::Result<Opened> {
    let clock = SystemClock::shared();
    let began = clock.monotonic();
    let engine = Engine::open(&dir, &clock).await?;
    let opened = clock.monotonic();
    let received = engine.receive(10).await?;
    let answered = clock.monotonic();
    ensure!(received.len() == 10, "the first receive found {} messages", received.len());
    ensure!(received.iter().all(|message| message.body.len() == BODY_BYTES), "a body has another size");
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    Ok(Opened { open_ms: ms(opened - began), receive_ms: ms(answered - opened), messages: engine.messages()? })
}
