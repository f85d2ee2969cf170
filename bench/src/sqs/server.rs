//! A daemon whose SQS endpoint is on, in a process of its own. It checks signatures, as it does in production.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use nightmail::base::{Clock, SystemClock};
use nightmail::config::{self, EXAMPLE, Environment};
use nightmail::daemon::{Daemon, logging};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::client::Connection;
use super::requests::{KEY_ID, SECRET, Signer};
use crate::{child, output};

/// The arguments of the daemon's process.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A directory of its own
    #[arg(long)]
    dir: PathBuf,
}

/// Where a child of this bench listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listens {
    pub(super) address: SocketAddr,
}

/// Runs the daemon until standard input ends.
pub(crate) async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let text = format!("{EXAMPLE}\n[api.sqs.keys.bench]\nid = \"{KEY_ID}\"\nsecret = {{ env = \"BENCH_SECRET\" }}\n");
    let overrides = [
        ("DATA_DIR", arguments.dir.display().to_string()),
        ("API__SQS__LISTEN", "127.0.0.1:0".into()),
        ("LOG__LEVEL", "warn".into()),
    ];
    let overrides = overrides.into_iter().map(|(name, value)| (format!("NIGHTMAIL__{name}"), value));
    let environment: Environment = overrides.chain([("BENCH_SECRET".into(), SECRET.into())]).collect();
    let settings = config::load_text("(example)", Path::new(""), &text, &environment)?;
    logging::start(&settings.log);
    let daemon = Daemon::open(settings, SystemClock::shared()).await?;
    let address = daemon.sqs_address().context("the endpoint is on")?;
    let stop = CancellationToken::new();
    let work = tokio::spawn(daemon.work(stop.clone(), CancellationToken::new()));
    output::json(&Listens { address })?;
    until_input_ends().await?;
    stop.cancel();
    Ok(work.await??)
}

/// Returns when the parent's handle of this process is gone.
pub(super) async fn until_input_ends() -> anyhow::Result<()> {
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// The parent's handle of a process that listens; the process ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    process: Child,
    /// Removed in the end.
    _dir: Option<TempDir>,
}

impl Server {
    /// Starts a daemon that has the queue of the requests.
    pub(crate) async fn daemon(clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Self::start(&["serve-sqs".into(), format!("--dir={}", dir.path().display())], Some(dir)).await?;
        Connection::open(server.address).await?.call(&Signer::new(clock).create()?).await?;
        Ok(server)
    }

    /// Starts this binary with these arguments; it prints where it listens.
    pub(super) async fn start(arguments: &[String], dir: Option<TempDir>) -> anyhow::Result<Self> {
        let mut process = child::command(arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().context("its standard output is a pipe")?;
        let line = BufReader::new(output).lines().next_line().await?.context("it ended at its start")?;
        let Listens { address } = serde_json::from_str(&line)?;
        Ok(Self { address, process, _dir: dir })
    }

    pub(crate) fn pid(&self) -> u32 {
        // Only a process that was waited for has none, and nobody waits for it.
        self.process.id().unwrap_or_default()
    }
}
