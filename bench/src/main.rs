//! Benchmarks against rivals and limits: `cargo run --release -p nightmail-bench -- <bench> [--full]`.
//!
//! One file per bench. Servers, the daemon and the bare loop each run in a process of their own, started from this
//! binary by hidden subcommands.

mod bare_loop;
mod beside;
mod child;
mod daemon;
mod depth;
mod disk;
mod engine;
mod fan_out;
mod harness;
mod latency;
mod load;
mod log;
mod log_fill;
mod output;
mod paced;
mod page;
mod pdf;
mod pipeline;
mod recovery;
mod rivals;
mod send;
mod settings;
mod sqs;

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
    /// Durable sends, receive and delete, paced senders, next to append-only logs
    Send,
    /// Throughput, memory and disk with few and with many messages queued
    Depth,
    /// From a send to its handler on an idle queue, next to one fsync
    Latency,
    /// What paced callers wait for while something long goes on
    Beside,
    /// From a kill -9 under load to serving again
    Recovery,
    /// Other queues on this machine, the same work over their own clients
    Rivals,
    /// The SQS endpoint over HTTP next to a bare stub; idle long polls; trickling sockets
    Sqs,
    /// Rate and peak memory of a fan-out, and of a whole run
    FanOut,
    /// The time that one document takes
    Pdf,
    /// All of them
    All,
    /// A queue that is filled, drained and filled again; prints memory and disk as JSON
    #[command(hide = true)]
    RunDepth(depth::Arguments),
    /// Load on a queue until it is killed
    #[command(hide = true)]
    RunRecoveryLoad(recovery::Load),
    /// Opens what was killed and receives; prints the times as JSON
    #[command(hide = true)]
    RunRecoveryOpen(recovery::Open),
    /// Bank and mail sink for another process, until standard input ends
    #[command(hide = true)]
    ServeHarness(harness::Arguments),
    /// One run by a daemon; prints its figures as JSON
    #[command(hide = true)]
    RunDaemon(daemon::Arguments),
    /// A daemon whose SQS endpoint is on, until standard input ends
    #[command(hide = true)]
    ServeSqs(sqs::ServerArguments),
    /// A bare server that answers fixed bytes, until standard input ends
    #[command(hide = true)]
    ServeSqsStub(sqs::StubArguments),
    /// One run by a bare loop; prints its figures as JSON
    #[command(hide = true)]
    RunLoop(settings::Side),
}

/// The same runtime as the daemon's.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { bench, full } = Cli::parse();
    match bench {
        Bench::All => Box::pin(all(full)).await,
        Bench::ServeHarness(arguments) => harness::serve(arguments).await,
        Bench::RunDaemon(arguments) => output::json(&daemon::run(arguments).await?),
        Bench::RunLoop(side) => output::json(&bare_loop::run(&side).await?),
        Bench::ServeSqs(arguments) => sqs::serve(arguments).await,
        Bench::ServeSqsStub(arguments) => sqs::serve_stub(arguments).await,
        Bench::RunDepth(arguments) => output::json(&depth::fill(arguments).await?),
        Bench::RunRecoveryLoad(arguments) => recovery::load(arguments).await,
        Bench::RunRecoveryOpen(arguments) => output::json(&recovery::open(arguments).await?),
        one => Box::pin(run(&one, full)).await,
    }
}

async fn run(bench: &Bench, full: bool) -> anyhow::Result<()> {
    match bench {
        Bench::Pipeline => pipeline::run(full).await,
        Bench::Send => send::run(full).await,
        Bench::Depth => depth::run(full).await,
        Bench::Latency => latency::run(full).await,
        Bench::Beside => beside::run(full).await,
        Bench::Recovery => recovery::run(full).await,
        Bench::Rivals => Box::pin(rivals::run(full)).await,
        Bench::Sqs => sqs::run(full).await,
        Bench::FanOut => fan_out::run(full).await,
        Bench::Pdf => pdf::run(full),
        _ => Ok(()),
    }
}

/// Runs every bench, also after one misses its limit.
async fn all(full: bool) -> anyhow::Result<()> {
    let benches = [
        Bench::Pdf,
        Bench::Send,
        Bench::Latency,
        Bench::Depth,
        Bench::Beside,
        Bench::Recovery,
        Bench::Sqs,
        Bench::FanOut,
        Bench::Pipeline,
    ];
    let mut failures = Vec::new();
    for bench in benches {
        if let Err(error) = Box::pin(run(&bench, full)).await {
            failures.push(format!("{bench:?}: {error}"));
        }
    }
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
