//! Who syncs before answering: strace counts the syncs of a server while one client does one thing after the other.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::server;

const CALLS: &str = "fsync,fdatasync,msync,sync_file_range,syncfs,sync";
/// Until strace holds all threads, after it has said so of the first.
const ATTACH: Duration = Duration::from_millis(300);

/// How many syncs a process and its children make during `work`.
pub(crate) async fn count(pid: u32, work: impl Future<Output = anyhow::Result<Duration>>) -> anyhow::Result<u64> {
    let dir = server::dir()?;
    let summary = dir.path().join("syncs");
    let mut strace = Command::new(server::find("strace", &[])?)
        .args(["-f", "-c", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&summary)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let lines = strace.stderr.take().context("strace's standard error is a pipe")?;
    let mut lines = BufReader::new(lines).lines();
    let said = lines.next_line().await?.unwrap_or_default();
    ensure!(said.contains("attached"), "strace does not attach: {said}");
    // The pipe is read on, so that strace never waits for it.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    tokio::time::sleep(ATTACH).await;
    let worked = work.await;
    let id = strace.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.context("strace has ended by itself")?, Signal::INT)?;
    strace.wait().await?;
    reading.await?;
    worked?;
    Ok(calls(&fs::read_to_string(&summary)?))
}

/// The calls of strace's summary: share, seconds, microseconds for each call, calls, errors if any, name.
fn calls(summary: &str) -> u64 {
    let names: Vec<&str> = CALLS.split(',').collect();
    let rows = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of = |fields: Vec<&str>| -> Option<u64> {
        names.contains(fields.last()?).then(|| fields.get(3)?.parse().ok()).flatten()
    };
    rows.filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_summary_are_added_up() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            90.00    0.001000          20        50           fdatasync\n \
            10.00    0.000100          25         4         1 fsync\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.001100          20        54         1 total\n";
        assert_eq!(calls(summary), 54);
        assert_eq!(calls(""), 0);
    }
}
