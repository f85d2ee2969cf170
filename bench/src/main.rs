//! Benchmarks against rivals and limits: `cargo run --release -p nightmail-bench -- <bench> [--full]`.
//!
//! One file per bench. Servers, the daemon and the bare loop each run in a process of their own, started from this
//! binary by hidden subcommands.

mod bare_loop;
mod child;
mod daemon;
mod fan_out;
mod log;
mod output;
mod pdf;
mod pipeline;
mod send;
mod settings;
mod stage;

use clap::{Parser, Subcommand};

/// Measures Nightmail beside its rivals and limits
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
    /// The sizes that the README's figures were measured with
    #[arg(long, global = true)]
    full: bool,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The daemon's whole pipeline next to a bare loop over the same users
    Pipeline,
    /// Durable sends next to an append-only log; receive and delete
    Send,
    /// Rate and peak memory of a fan-out, and of a whole run
    FanOut,
    /// The time that one document takes
    Pdf,
    /// All of them
    All,
    /// Bank and mail sink for another process, until standard input ends
    #[command(hide = true)]
    ServeStage(stage::Arguments),
    /// One run by a daemon; prints its figures as JSON
    #[command(hide = true)]
    RunDaemon(daemon::Arguments),
    /// One run by a bare loop; prints its figures as JSON
    #[command(hide = true)]
    RunLoop(settings::Side),
}

/// The same runtime as the daemon's.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { bench, full } = Cli::parse();
    match bench {
        Bench::Pipeline => pipeline::run(full).await,
        Bench::Send => send::run(full).await,
        Bench::FanOut => fan_out::run(full).await,
        Bench::Pdf => pdf::run(full),
        Bench::All => {
            pdf::run(full)?;
            send::run(full).await?;
            fan_out::run(full).await?;
            pipeline::run(full).await
        }
        Bench::ServeStage(arguments) => stage::serve(arguments).await,
        Bench::RunDaemon(arguments) => output::json(&daemon::run(arguments).await?),
        Bench::RunLoop(side) => output::json(&bare_loop::run(&side).await?),
    }
}
