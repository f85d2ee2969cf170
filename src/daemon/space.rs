//! Watches the free space of the store's disk. Reports it to the queues, which refuse sends in time, and keeps a
//! ballast file that is deleted when other programs fill the disk nevertheless.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::base::units;
use crate::config::Settings;
use crate::queue::Space;

use super::Error;

/// How often the free space is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is checked while less than four times the reserve is free.
const LOOK_EVERY_WHEN_LOW: Duration = Duration::from_millis(100);
/// The ballast is a quarter of the reserve, but never more bytes than this.
const BALLAST_BYTES_MAX: u64 = 16 << 20;

/// The watch over one disk.
#[derive(Debug)]
pub(super) struct Watch {
    /// The store's directory.
    dir: PathBuf,
    /// `store.reserve`.
    reserve_bytes: u64,
    /// The queues' view of the free space; updated at each check.
    space: Arc<Space>,
    /// What was logged last.
    told: DiskState,
}

/// The state of the disk at the last check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskState {
    /// At least the reserve is free.
    Room,
    /// Sends to ordinary queues are refused.
    Low,
    /// All sends are refused.
    VeryLow,
    /// The free space cannot be read.
    Unknown,
}

impl Watch {
    /// A watch over the disk of `settings.data_dir`. It deletes the ballast of an earlier process at once when the disk
    /// is full, so that the store can be opened.
    pub(super) fn new(settings: &Settings) -> Self {
        let reserve_bytes = settings.daemon.reserve_bytes;
        let space = Arc::new(Space::new(reserve_bytes, settings.served_queues()));
        let watch = Self { dir: settings.data_dir.clone(), reserve_bytes, space, told: DiskState::Room };
        // Before the first start there is no directory and no ballast.
        if watch.free_bytes().is_ok_and(|free| free < watch.ballast_bytes() / 4) {
            let _ = std::fs::remove_file(watch.ballast());
        }
        watch
    }

    /// The shared state that the queues check before a send.
    pub(super) fn space(&self) -> Arc<Space> {
        self.space.clone()
    }

    /// Checks the disk: updates the shared state, and deletes or recreates the ballast. Returns the pause until the
    /// next check.
    pub(super) fn check(&mut self) -> Duration {
        let looked = self.free_bytes().and_then(|free| {
            let free = self.adjust_ballast(free)?;
            self.space.saw(free);
            Ok(free)
        });
        match looked {
            Ok(free) => {
                self.tell(self.state(free), &format!("{} free", units::show_size(free)));
                if free < self.reserve_bytes.saturating_mul(4) { LOOK_EVERY_WHEN_LOW } else { LOOK_EVERY }
            }
            Err(error) => {
                self.tell(DiskState::Unknown, &error.to_string());
                LOOK_EVERY
            }
        }
    }

    /// Deletes the ballast when less than a quarter of its size is free, and recreates it when the reserve is free in
    /// addition to it; returns the free bytes afterwards. The gap between the two limits prevents an endless
    /// alternation.
    fn adjust_ballast(&self, free: u64) -> io::Result<u64> {
        let (path, bytes) = (self.ballast(), self.ballast_bytes());
        let is_there = path.exists();
        if is_there && free < bytes / 4 {
            std::fs::remove_file(&path)?;
            tracing::error!(dir = %self.dir.display(), "the disk is full: the reserve of the store was given up");
        } else if !is_there && free >= self.reserve_bytes.saturating_add(bytes) {
            allocate(&path, bytes).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        } else {
            return Ok(free);
        }
        self.free_bytes()
    }

    fn state(&self, free: u64) -> DiskState {
        match free {
            free if free >= self.reserve_bytes => DiskState::Room,
            free if free >= self.reserve_bytes / 2 => DiskState::Low,
            _ => DiskState::VeryLow,
        }
    }

    /// Logs a change of state only, so that a full disk does not flood the log.
    fn tell(&mut self, now: DiskState, why: &str) {
        if now == self.told {
            return;
        }
        let dir = self.dir.display();
        match now {
            DiskState::Room => tracing::info!(%dir, "there is room on the disk again ({why}): sends go on"),
            DiskState::Low => {
                tracing::warn!(
                    %dir,
                    "the disk is nearly full ({why}): sends are refused, except to queues that functions serve"
                );
            }
            DiskState::VeryLow => tracing::error!(%dir, "the disk is nearly full ({why}): all sends are refused"),
            DiskState::Unknown => tracing::warn!(%dir, "the free space of the disk cannot be watched: {why}"),
        }
        self.told = now;
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("nightmail.reserve")
    }

    fn ballast_bytes(&self) -> u64 {
        (self.reserve_bytes / 4).min(BALLAST_BYTES_MAX)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Creates a file whose blocks are allocated on the disk; a sparse file would reserve nothing.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => io::copy(&mut io::repeat(b'.').take(bytes), &mut file).map(drop),
        other => Ok(other?),
    }
}

/// Checks the disk until `shutdown`.
pub(super) async fn run(mut watch: Watch, shutdown: CancellationToken) -> Result<(), Error> {
    loop {
        // File system calls may block for long, so they must not run on an async worker thread.
        let looked = tokio::task::spawn_blocking(move || {
            let pause = watch.check();
            (watch, pause)
        });
        let pause;
        (watch, pause) =
            looked.await.map_err(|error| Error::Broken { part: "the watch of the disk", reason: error.to_string() })?;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}
