//! Kill -9 of a process under load, and the time until a fresh process has the store open and answers a receive.
//!
//! The page cache stays warm, as after a crash of the daemon; a power cut would have the pages read from the disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use nightmail::base::SystemClock;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::engine::Engine;
use crate::output::{self, count, median, note, table};
use crate::{child, disk, load};

/// 3,600,000 of them are about 6 GB.
const BODY_BYTES: usize = 1638;
/// Sends at once, and receives with deletes at once, when the process is killed.
const CALLERS: usize = 16;
/// How long the load goes on before the kill.
const UNDER_LOAD: Duration = Duration::from_millis(700);
const KILLS: usize = 5;
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

/// Measures several kills of one store; an error when the median passes its limit.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let messages = if full { 3_600_000 } else { 100_000 };
    let dir = tempfile::tempdir()?;
    let mut found = Vec::new();
    for kill in 0..KILLS {
        let more = if kill == 0 { messages } else { 0 };
        load_and_kill(dir.path(), more).await?;
        let arguments = vec![format!("--dir={}", dir.path().display())];
        let opened: Opened = child::measure("run-recovery-open", arguments).await?;
        note(format_args!("recovery: {:.1} ms after kill {}", opened.open_ms + opened.receive_ms, kill + 1));
        found.push(opened);
    }
    let bytes = disk::taken(dir.path())?.held as f64;
    let of = |figure: fn(&Opened) -> f64| median(found.iter().map(figure));
    let ready = of(|opened| opened.open_ms + opened.receive_ms);
    let most = found.iter().map(|opened| opened.open_ms + opened.receive_ms).fold(0.0, f64::max);
    let rows = [vec![
        count(of(|opened| opened.messages as f64)),
        format!("{:.2}", bytes / 1e9),
        format!("{:.1}", of(|opened| opened.open_ms)),
        format!("{:.1}", of(|opened| opened.receive_ms)),
        format!("{ready:.1}"),
        format!("{most:.1}"),
        format!("{READY_MS_MAX:.0}"),
    ]];
    let head = ["messages", "GB on disk", "open ms", "first receive ms", "ready ms", "slowest ms", "limit"];
    table(&format!("recovery: kill -9 under load, medians of {KILLS} kills"), &head, &rows)?;
    ensure!(ready <= READY_MS_MAX, "ready after {ready:.0} ms; at most {READY_MS_MAX} ms");
    Ok(())
}

async fn load_and_kill(dir: &Path, messages: u64) -> anyhow::Result<()> {
    let arguments = ["run-recovery-load".into(), format!("--dir={}", dir.display()), format!("--messages={messages}")];
    let mut process = child::command(&arguments)?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = process.stdout.take().context("the load's standard output is a pipe")?;
    let line = BufReader::new(lines).lines().next_line().await?.context("the load ended at its start")?;
    let begun: UnderLoad = serde_json::from_str(&line)?;
    ensure!(begun.messages >= messages, "{} of {messages} messages are queued", begun.messages);
    tokio::time::sleep(UNDER_LOAD).await;
    ensure!(process.try_wait()?.is_none(), "the load ended by itself");
    Ok(process.kill().await?)
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
                return engine.send(load::numbered(number, BODY_BYTES)).await;
            }
            for message in engine.receive(1).await? {
                engine.delete(message.handle).await?;
            }
            Ok(())
        }
    };
    load::share(&clock, 2 * CALLERS, u64::MAX, work).await.map(drop)
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
