//! One process per data directory: an advisory lock on `nightmail.lock`, whose text names the holder and what it does
//! with the store.
//!
//! Only commands that read are waited for: they are done within moments. A daemon and a command that changes the store
//! are not; whoever finds one is told its name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::Error;
use super::holder::{Holder, HolderKind, Purpose};

/// How long [`when_free`] waits for commands that read, unless told otherwise.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it tries again. A daemon tries more often than a reading command, so that commands in a loop do not keep
/// it from starting.
const TRY_EVERY: Duration = Duration::from_millis(25);
const DAEMON_TRIES_EVERY: Duration = Duration::from_millis(5);
/// A holder that is not waited for is looked at a second time after this: a process that was killed leaves its text
/// behind, and the next holder writes its own only after it has the lock.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The holder's text has fewer bytes than this.
const TEXT_BYTES_MAX: u64 = 200;

/// Tries `open` until the store is free, for at most `wait_max`, as long as commands that read hold it.
///
/// # Errors
/// What `open` fails with. [`Error::Locked`] at once, or a moment later, when a daemon or a command that changes the
/// store holds it.
pub async fn when_free<T>(
    purpose: Purpose,
    wait_max: Duration,
    mut open: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let try_every = if purpose == Purpose::Serve { DAEMON_TRIES_EVERY } else { TRY_EVERY };
    let mut locked = None;
    let tries = async {
        let mut was_refused = false;
        loop {
            match open() {
                Err(Error::Locked { dir, holder }) => {
                    let is_first = locked.is_none();
                    let is_brief = matches!(holder.kind, HolderKind::Read | HolderKind::Unknown);
                    let text = holder.to_string();
                    let error = Error::Locked { dir, holder };
                    if !is_brief && was_refused {
                        return Err(error);
                    }
                    if is_brief && is_first {
                        tracing::info!("waiting for {text}, which holds the store");
                    }
                    locked = is_brief.then_some(error);
                    was_refused = !is_brief;
                    tokio::time::sleep(if is_brief { try_every } else { LOOK_AGAIN_AFTER }).await;
                }
                other => return other,
            }
        }
    };
    match tokio::time::timeout(wait_max.max(2 * LOOK_AGAIN_AFTER), tries).await {
        Ok(opened) => opened,
        Err(_) => Err(locked.expect("the time passes only while the store is locked")),
    }
}

/// The lock; released on drop, or when the process ends in any way.
#[derive(Debug)]
pub(super) struct Lock {
    /// Held open for as long as the store is.
    file: File,
}

impl Lock {
    /// Takes the lock of `dir`; the error names its holder.
    pub(super) fn take(dir: &Path, purpose: Purpose) -> Result<Self, Error> {
        let path = dir.join("nightmail.lock");
        let failed = |error: std::io::Error| Error::of_open(&path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if let Err(errno) = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(errno.into()));
            }
            let mut text = Vec::new();
            Read::by_ref(&mut file).take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
            return Err(Error::Locked { dir: dir.into(), holder: Holder::parse(&String::from_utf8_lossy(&text)) });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{purpose} pid {}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The text is about this process alone. Whoever finds none takes the holder for a brief one.
        let _ = self.file.set_len(0);
        // Closing the file is not enough: a child process that is being started holds a copy of the descriptor until it
        // execs. Closing is only the fallback when unlocking fails.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path, purpose: Purpose) -> Result<Lock, Error> {
        Lock::take(dir, purpose)
    }

    fn holder(error: &Error) -> String {
        let Error::Locked { holder, .. } = error else { panic!("{error}") };
        holder.to_string()
    }

    /// Drops the lock when somebody has been refused.
    async fn release_when_waited_for(held: Lock, refusals: &std::sync::atomic::AtomicU32) {
        while refusals.load(std::sync::atomic::Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(held);
    }

    #[tokio::test]
    async fn a_reading_command_is_waited_for_whoever_comes() {
        let dir = tempfile::tempdir().unwrap();
        for purpose in [Purpose::Serve, Purpose::Read("queues"), Purpose::Write("compact")] {
            let held = take(dir.path(), Purpose::Read("dead")).unwrap();
            let refusals = std::sync::atomic::AtomicU32::new(0);
            let open = || {
                let taken = take(dir.path(), purpose);
                refusals.fetch_add(u32::from(taken.is_err()), std::sync::atomic::Ordering::Relaxed);
                taken
            };
            let waiting = when_free(purpose, WAIT_MAX, open);
            let (taken, ()) = tokio::join!(waiting, release_when_waited_for(held, &refusals));
            taken.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reading_command_that_takes_too_long_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let _held = take(dir.path(), Purpose::Read("dead")).unwrap();
        let wait_max = Duration::from_millis(300);
        let mut tries = 0;
        let refused = when_free(Purpose::Serve, wait_max, || {
            tries += 1;
            take(dir.path(), Purpose::Serve)
        });
        let refused = refused.await.unwrap_err();
        assert_eq!(holder(&refused), format!("`nightmail dead` (pid {})", std::process::id()));
        assert!(tries > 3, "it gave up after {tries} tries");
    }

    #[tokio::test]
    async fn a_daemon_and_a_changing_command_are_named_within_a_second() {
        let dir = tempfile::tempdir().unwrap();
        for (holds, name) in [(Purpose::Serve, "serve"), (Purpose::Write("compact"), "compact")] {
            let _held = take(dir.path(), holds).unwrap();
            for purpose in [Purpose::Serve, Purpose::Read("queues"), Purpose::Write("compact")] {
                let tried = when_free(purpose, WAIT_MAX, || take(dir.path(), purpose));
                let refused = tokio::time::timeout(Duration::from_secs(1), tried).await.expect("at once").unwrap_err();
                assert_eq!(holder(&refused), format!("`nightmail {name}` (pid {})", std::process::id()));
            }
        }
    }

    #[tokio::test]
    async fn the_text_that_a_killed_daemon_left_does_not_refuse_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(dir.path(), Purpose::Read("queues")).unwrap();
        // Between the lock and its text, a contender reads what the one before has left.
        std::fs::write(dir.path().join("nightmail.lock"), "serve pid 1\n").unwrap();
        let path = dir.path().to_owned();
        let reading = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::fs::write(path.join("nightmail.lock"), "read queues pid 2\n").unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(held);
        });
        when_free(Purpose::Serve, WAIT_MAX, || take(dir.path(), Purpose::Serve)).await.unwrap();
        reading.await.unwrap();
    }
}
