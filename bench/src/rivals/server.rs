//! A rival's server as a child with a directory of its own, on a socket in it or a port that was free.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long a server may take to answer, and to end.
const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running server. One that is dropped without an end is killed.
pub(crate) struct Server {
    name: &'static str,
    process: Child,
    dir: TempDir,
    /// Killed after the server.
    _companion: Option<Child>,
}

/// A directory for a server, open to other users when the server will not run as this one.
pub(crate) fn dir() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("rival-").tempdir()?)
}

/// Where a program is: on the path or in one of `places`; the error is what the table says.
pub(crate) fn find(program: &str, places: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = places.iter().cloned().chain(std::env::split_paths(&path));
    let found = places.find_map(|place| Some(place.join(program)).filter(|file| file.is_file()));
    found.with_context(|| format!("{program} is not installed (scripts/install-rivals)"))
}

/// What this repository's own files and installed rivals lie under.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// The first line that a program prints about its version.
pub(crate) async fn version(program: &Path, argument: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().await?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A port that was free just now, for a server that cannot tell which one it took.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Server {
    /// Starts it; what it prints goes to a log in `dir`.
    pub(crate) fn start(name: &'static str, dir: TempDir, command: &mut Command) -> anyhow::Result<Self> {
        let log = File::create(dir.path().join("server.log"))?;
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Self { name, process, dir, _companion: None })
    }

    /// Keeps another process for as long as this server.
    pub(crate) fn with_companion(mut self, companion: Child) -> Self {
        self._companion = Some(companion);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        // Only a process that was waited for has none, and that is when the server ends.
        self.process.id().unwrap_or_default()
    }

    /// Tries until the server answers; an error with its log when it ends or takes too long.
    pub(crate) async fn ready<T>(&mut self, attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut left = START;
        loop {
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let ended = self.process.try_wait()?;
            if ended.is_some() || left.is_zero() {
                let log = fs::read_to_string(self.dir().join("server.log")).unwrap_or_default();
                bail!("{} did not get ready ({ended:?}): {error:#}\n{log}", self.name);
            }
            tokio::time::sleep(LOOK_EVERY).await;
            left = left.saturating_sub(LOOK_EVERY);
        }
    }

    /// Asks it to end, waits, and removes its directory.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("the server has ended by itself")?;
        kill_process(pid, Signal::INT)?;
        if tokio::time::timeout(END, self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(())
    }
}
