//! The bank and the mail sink as stand-alone servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::base::units;
use crate::cli::context::Context;
use crate::cli::output::note;
use nightmail_demo::{bank, sink};

/// `nightmail demo bank`
#[derive(Debug, Args)]
pub(super) struct Bank {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9700")]
    listen: SocketAddr,
    /// How many users it has
    #[arg(long, default_value_t = 1000)]
    users: u32,
    /// The share of accounts that are broken until POST /admin/fix
    #[arg(long, default_value = "0%", value_parser = super::parse_share)]
    fail: f64,
    /// How many user records are malformed until POST /admin/fix
    #[arg(long, default_value_t = 0)]
    malformed: u32,
    /// Each answer waits this many milliseconds
    #[arg(long, value_name = "MS")]
    latency: Option<u64>,
}

/// `nightmail demo mail-sink`
#[derive(Debug, Args)]
pub(super) struct MailSink {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9701")]
    listen: SocketAddr,
    /// Write each mail into this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write each PDF into this directory
    #[arg(long, value_name = "DIR")]
    pdfs: Option<PathBuf>,
    /// Write one JSON line per mail into this file, before the mail is acknowledged
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

pub(super) async fn bank(context: &Context, bank: Bank) -> anyhow::Result<()> {
    let listener = listen(bank.listen).await?;
    note(format_args!("bank with {} users on http://{} (Ctrl-C ends it)", bank.users, listener.local_addr()?));
    let options = bank::Options {
        users: bank.users,
        fail_share: bank.fail,
        malformed_users: bank.malformed,
        latency: bank.latency.map(Duration::from_millis),
        ..bank::Options::default()
    };
    let counts = bank::run_bank(listener, options, until_told()).await;
    context.output.show(&counts, |counts| {
        let (users, accounts) = (counts.users + counts.users_jsonl + counts.users_link, counts.transactions);
        format!("the bank answered {} and {}", units::count(users, "users page"), units::count(accounts, "account"))
    })
}

pub(super) async fn mail_sink(context: &Context, sink: MailSink) -> anyhow::Result<()> {
    let listener = listen(sink.listen).await?;
    note(format_args!("mail sink on {} (Ctrl-C ends it)", listener.local_addr()?));
    let options =
        sink::Options { keep: sink.keep, pdf_dir: sink.pdfs, journal: sink.journal, ..sink::Options::default() };
    let summary = sink::run_sink(listener, options, until_told()).await?;
    let taken = serde_json::json!({ "mails": summary.total, "recipients": summary.distinct });
    context.output.show(&taken, |_| {
        let (mails, recipients) = (units::count(summary.total, "mail"), units::count(summary.distinct, "recipient"));
        format!("the mail sink took {mails} to {recipients}")
    })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (name another with --listen)"))
}

/// Cancelled by Ctrl-C or SIGTERM.
pub(super) fn until_told() -> CancellationToken {
    let token = CancellationToken::new();
    let told = token.clone();
    // The handlers are installed now, not only when the task is first polled.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    tokio::spawn(async move {
        if let (Ok(mut terminate), Ok(mut interrupt)) = signals {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        told.cancel();
    });
    token
}
