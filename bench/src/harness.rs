//! Bank and mail sink in a process of their own, so that neither side of a comparison pays for them.
//!
//! The process prints its addresses as one line of JSON. To each line on its standard input it answers with what the
//! sink has seen so far; it ends with its standard input.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use clap::Args;
use nightmail_demo::{bank, sink};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

use crate::settings::Side;
use crate::{child, output};

/// The arguments of the harness's process.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many users the bank has
    #[arg(long)]
    users: u32,
}

#[derive(Serialize, Deserialize)]
struct Addresses {
    bank: SocketAddr,
    sink: SocketAddr,
}

/// What the sink has seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Mails, over all runs.
    pub(crate) mails: u64,
    /// Different recipients, over all runs.
    pub(crate) recipients: u64,
    /// What was wrong with mails or dialogues.
    pub(crate) violations: u64,
}

/// Runs the harness's own process.
pub(crate) async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let end = CancellationToken::new();
    let options = bank::Options { users: arguments.users, ..bank::Options::default() };
    let bank = bank::Bank::start(listener().await?, options, end.clone());
    let options = sink::Options { records_max: 0, ..sink::Options::default() };
    let sink = sink::Sink::start(listener().await?, options, end.clone())?;
    output::json(&Addresses { bank: bank.address(), sink: sink.address() })?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let summary = sink.summary();
        let violations = summary.violations.values().sum();
        output::json(&Seen { mails: summary.total, recipients: summary.distinct, violations })?;
    }
    end.cancel();
    bank.stopped().await;
    sink.stopped().await;
    Ok(())
}

async fn listener() -> anyhow::Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
}

/// The parent's handle of a harness process, which ends when the handle is dropped.
pub(crate) struct Harness {
    addresses: Addresses,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _process: Child,
}

impl Harness {
    /// Starts a harness with that many users.
    pub(crate) async fn set(users: u32) -> anyhow::Result<Self> {
        let mut process = child::command(&["serve-harness".into(), format!("--users={users}")])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = process.stdin.take().context("the harness's standard input is a pipe")?;
        let answers = process.stdout.take().context("the harness's standard output is a pipe")?;
        let mut answers = BufReader::new(answers).lines();
        let first = answers.next_line().await?.context("the harness ended at its start")?;
        Ok(Self { addresses: serde_json::from_str(&first)?, questions, answers, _process: process })
    }

    /// A side that uses this harness, with a directory of its own.
    pub(crate) fn side(&self, dir: &Path) -> Side {
        Side { bank: self.addresses.bank, sink: self.addresses.sink, dir: dir.to_owned() }
    }

    /// What the sink has seen so far.
    pub(crate) async fn seen(&mut self) -> anyhow::Result<Seen> {
        self.questions.write_all(b"seen\n").await?;
        let line = self.answers.next_line().await?.context("the harness ended by itself")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Checks that all mails since `before` went to all `users`, once each and well formed.
    pub(crate) async fn check(&mut self, before: Seen, users: u32) -> anyhow::Result<()> {
        let now = self.seen().await?;
        let mails = now.mails - before.mails;
        ensure!(mails == u64::from(users), "{mails} mails came for {users} users");
        ensure!(now.recipients == u64::from(users), "{} of {users} users got a mail", now.recipients);
        ensure!(now.violations == 0, "the sink saw {} violations", now.violations);
        Ok(())
    }
}
