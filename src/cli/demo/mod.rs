//! `nightmail demo`: the whole pipeline on this machine, and its two servers on their own.

mod progress;
mod script;
mod servers;

use clap::{Args, Subcommand};

use super::context::Context;

/// `nightmail demo`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Demo {
    #[command(flatten)]
    script: Script,
    #[command(subcommand)]
    server: Option<Server>,
}

/// The size of the demo.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Script {
    /// How many users the bank has
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// The share of accounts that are broken until they are fixed
    #[arg(long, default_value = "3%", value_parser = parse_share)]
    fail: f64,
}

/// The two servers on their own, for a daemon in another process.
#[derive(Debug, Subcommand)]
enum Server {
    /// Run the bank's API until Ctrl-C
    Bank(servers::Bank),
    /// Run the mail sink until Ctrl-C
    MailSink(servers::MailSink),
}

fn parse_share(text: &str) -> Result<f64, String> {
    let refused = || format!("{text:?} is not a share (write a percentage from 0% to 100%, e.g. 3%)");
    let number: f64 = text.trim().strip_suffix('%').ok_or_else(refused)?.trim().parse().map_err(|_| refused())?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(refused()) }
}

pub(super) async fn demo(context: &Context, demo: Demo) -> anyhow::Result<()> {
    match demo.server {
        None => script::tell(context, demo.script).await,
        Some(Server::Bank(bank)) => servers::bank(context, bank).await,
        Some(Server::MailSink(sink)) => servers::mail_sink(context, sink).await,
    }
}
