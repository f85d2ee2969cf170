//! BullMQ over a Redis that syncs before each answer. Its client is for Node, so that a script
//! (`bench/rivals/bullmq.mjs`) runs all producers and consumers: an input line is a command, an output line the time
//! that it took.

use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::redis;
use super::server::{self, Server};
use super::side::{Side, Started};

pub(crate) struct BullMq {
    server: Server,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _script: Child,
}

#[derive(Serialize)]
struct RenderRequest {
    what: &'static str,
    callers: usize,
    first: u64,
    end: u64,
}

#[derive(Deserialize)]
struct Answer {
    seconds: f64,
}

#[derive(Deserialize)]
struct Package {
    version: String,
}

pub(crate) async fn start() -> anyhow::Result<Started<BullMq>> {
    let folder = server::repository().join("bench/rivals");
    let package = folder.join("node_modules/bullmq/package.json");
    let package = std::fs::read(package).context("BullMQ is not installed (scripts/install-rivals)")?;
    let Package { version } = serde_json::from_slice(&package)?;
    let node = server::find("node", &[])?;
    let (redis, server, socket) = redis::serve().await?;
    let mut script = Command::new(node)
        .arg(folder.join("bullmq.mjs"))
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let orders = script.stdin.take().context("the script's standard input is a pipe")?;
    let answers = script.stdout.take().context("the script's standard output is a pipe")?;
    let answers = BufReader::new(answers).lines();
    let side = BullMq { server, orders, answers, _script: script };
    Ok(Started { version: format!("{version}, Redis {redis}"), side })
}

impl BullMq {
    async fn order(&mut self, what: &'static str, callers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        let order = RenderRequest { what, callers, first: numbers.start, end: numbers.end };
        let line = format!("{}\n", serde_json::to_string(&order)?);
        self.orders.write_all(line.as_bytes()).await?;
        let line = self.answers.next_line().await?.context("the script ended by itself")?;
        let Answer { seconds } = serde_json::from_str(&line)?;
        ensure!(seconds.is_finite() && seconds >= 0.0, "the script took {seconds} s");
        Ok(Duration::from_secs_f64(seconds))
    }
}

impl Side for BullMq {
    fn pid(&self) -> u32 {
        self.server.pid()
    }

    async fn produce(&mut self, producers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        self.order("produce", producers, numbers).await
    }

    async fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> anyhow::Result<Duration> {
        self.order("consume", consumers, numbers).await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.end().await
    }
}
