//! Runs a side of a comparison as a child process of this binary, and measures what a process costs.

use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// USER_HZ, the unit of processor time in `/proc`; a constant of Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// The figures of one run of a side.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Users whose statement was mailed, or, of a fan-out alone, who got a message.
    pub(crate) users: u64,
    /// From the start of the run to its last commit.
    pub(crate) seconds: f64,
    /// Until all users were fetched; 0 for the loop.
    pub(crate) fetched_seconds: f64,
    /// Processor time of this process within `seconds`, user and system.
    pub(crate) cpu_seconds: f64,
    /// The most memory that the process ever had, in MB (10^6 bytes).
    pub(crate) peak_mb: f64,
    /// Commits within `seconds`; 0 for the loop.
    pub(crate) commits: u64,
}

impl Figures {
    pub(crate) fn users_per_second(&self) -> f64 {
        self.users as f64 / self.seconds
    }

    /// Processor time for one user, in ms.
    pub(crate) fn cpu_ms_per_user(&self) -> f64 {
        self.cpu_seconds * 1e3 / self.users as f64
    }
}

/// This binary with a hidden subcommand; it dies with its parent's handle.
pub(crate) fn command(arguments: &[String]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).kill_on_drop(true);
    Ok(command)
}

/// Runs a side to its end and reads its figures, [`Figures`] or others.
pub(crate) async fn measure<T: DeserializeOwned>(subcommand: &str, arguments: Vec<String>) -> anyhow::Result<T> {
    let arguments = [vec![subcommand.to_owned()], arguments].concat();
    let output = command(&arguments)?.stdin(Stdio::null()).output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{subcommand} ended with {}:\n{errors}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{subcommand} printed no figures:\n{errors}"))
}

/// Processor time of this process so far, in seconds.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds_of(std::process::id())
}

/// Processor time of another process so far, in seconds.
pub(crate) fn cpu_seconds_of(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat has a name in parentheses")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/<pid>/stat has processor times")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// The most memory that this process ever had, in MB (10^6 bytes).
pub(crate) fn peak_mb() -> anyhow::Result<f64> {
    memory_mb(std::process::id(), "VmHWM:")
}

/// The memory that this process has now, in MB (10^6 bytes).
pub(crate) fn resident_mb() -> anyhow::Result<f64> {
    resident_mb_of(std::process::id())
}

/// The memory that another process has now, in MB (10^6 bytes).
pub(crate) fn resident_mb_of(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmRSS:")
}

fn memory_mb(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib: f64 =
        line.with_context(|| format!("/proc/{pid}/status has {field}"))?.trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_time() -> anyhow::Result<()> {
        assert!(resident_mb()? > 0.5);
        assert!(peak_mb()? >= resident_mb()?);
        assert!(cpu_seconds()? < 600.0);
        Ok(())
    }
}
