//! A command that is told about a run: JSON on its standard input, no shell, bounded time and output.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::base::{outcome, units};
use crate::run::notifications;
use crate::store::record::NotificationRecord;

/// Of what a command writes to standard error, this much is kept for the log; the rest is read and dropped.
const STDERR_BYTES_MAX: usize = 2048;
/// What the log shows of it.
const SHOWN_BYTES_MAX: usize = 300;

/// A command with its arguments.
pub(super) struct Command {
    pub(super) words: Vec<String>,
    /// It is killed after this time, with everything that it started.
    pub(super) limit: Duration,
}

impl Command {
    /// Runs it once. It gets the notification on standard input, and of the environment `PATH` and two variables alone: the
    /// daemon's may hold secrets.
    pub(super) async fn run(&self, notification: &NotificationRecord) -> Result<(), String> {
        let (program, arguments) = self.words.split_first().ok_or("no command is configured")?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
            .env("NIGHTMAIL_NOTIFICATION", notifications::name(notification.kind))
            .env("NIGHTMAIL_NOTIFICATION_ID", notification.id.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let spawned = command.process_group(0).kill_on_drop(true).spawn();
        let child = spawned.map_err(|error| format!("{program}: {error}"))?;
        let _group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        match tokio::time::timeout(self.limit, talk(child, notification.body.as_bytes())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(format!("{program}: {why}")),
            Err(_) => {
                Err(format!("{program}: it was killed after notify.timeout ({})", units::show_duration(self.limit)))
            }
        }
    }
}

/// The processes of a command. Killed when dropped: none outlives its time, or the daemon's shutdown.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // It fails when all have ended.
        let _ = self.0.map(|leader| kill_process_group(leader, Signal::KILL));
    }
}

/// Writes the input, reads standard error and waits for the end, all at once: a command may do them in any order.
async fn talk(mut child: Child, input: &[u8]) -> Result<(), String> {
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async {
        let mut kept = Vec::new();
        if let Some(mut stderr) = stderr {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                kept.extend_from_slice(&buffer[..count.min(STDERR_BYTES_MAX - kept.len())]);
            }
        }
        kept
    };
    let ((), stderr, status) = tokio::join!(write, read, child.wait());
    let status = status.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let said = outcome::shorten(String::from_utf8_lossy(&stderr).trim(), SHOWN_BYTES_MAX);
    Err(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{MessageId, SystemClock, Timestamp};
    use crate::store::record::NotificationKind;

    fn notification() -> NotificationRecord {
        NotificationRecord {
            id: MessageId::from_bytes([7; 16]),
            run: 1,
            schedule: "monthly".into(),
            kind: NotificationKind::End,
            at: Timestamp::ZERO,
            body: "{\"kind\":\"end\"}".into(),
            owed: Vec::new(),
        }
    }

    async fn run(script: &str, limit: Duration) -> Result<(), String> {
        let words = ["sh", "-c", script].map(str::to_owned).into();
        Command { words, limit }.run(&notification()).await
    }

    const ENOUGH: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn it_gets_the_event_and_no_secret_of_the_daemon() {
        let checks = "read line; test \"$line\" = '{\"kind\":\"end\"}' && test \"$NIGHTMAIL_NOTIFICATION\" = end \
                      && test ${#NIGHTMAIL_NOTIFICATION_ID} = 36 && test -z \"$HOME$CARGO_MANIFEST_DIR\"";
        assert_eq!(run(checks, ENOUGH).await, Ok(()));
        assert_eq!(run("true", ENOUGH).await, Ok(()), "it need not read");
    }

    #[tokio::test]
    async fn what_it_says_when_it_fails_is_kept_and_a_flood_is_not() {
        assert_eq!(run("echo no room >&2; exit 3", ENOUGH).await, Err("sh: exit status: 3: no room".into()));
        let flood = run("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1", ENOUGH).await.unwrap_err();
        assert!(flood.len() < 400, "{} bytes", flood.len());
        let missing = Command { words: vec!["/no/such/command".into()], limit: ENOUGH }.run(&notification()).await;
        assert!(missing.unwrap_err().starts_with("/no/such/command: No such file"));
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("child");
        let script = format!("sleep 600 & echo $! > {}; wait", mark.display());
        let killed = run(&script, Duration::from_millis(500)).await.unwrap_err();
        assert_eq!(killed, "sh: it was killed after notify.timeout (500ms)");
        let child: i32 = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
        let clock = SystemClock::new();
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while is_alive() {
            assert!(crate::base::Clock::monotonic(&clock) < Duration::from_secs(30), "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
