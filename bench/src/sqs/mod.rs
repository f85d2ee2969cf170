//! The SQS endpoint over HTTP: throughput next to a bare stub, thousands of idle long polls, and trickling sockets beside
//! a normal load. The daemon and the stub each run in a process of their own.

mod client;
mod idle;
mod pair;
mod requests;
mod server;
mod stub;
mod throughput;
mod trickle;

pub(crate) use client::{Connection, messages};
pub(crate) use requests::{Prepared, Signer};
pub(crate) use server::{Arguments as ServerArguments, Server, serve};
pub(crate) use stub::{Arguments as StubArguments, serve as serve_stub};

use anyhow::ensure;
use nightmail::base::SystemClock;

/// Measures and prints all of it; an error when a limit is passed.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let mut passed = throughput::run(&clock, full).await?;
    passed.extend(idle::run(&clock, full).await?);
    passed.extend(trickle::run(&clock, full).await?);
    ensure!(passed.is_empty(), "{}", passed.join("; "));
    Ok(())
}
