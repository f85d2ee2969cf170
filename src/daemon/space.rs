//! Watches the free space of the store's disk: tells the door, which refuses sends in time, and keeps a ballast file
//! that is given up when others have filled the disk all the same.

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

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And while little is free: less than four times the reserve.
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
    /// Told at each look.
    space: Arc<Space>,
    /// What was told to the log last.
    told: Told,
}

/// How the disk stood at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// There is room.
    Room,
    /// Sends to ordinary queues are refused.
    Low,
    /// All sends are refused.
    VeryLow,
    /// Nobody knows: the system does not say.
    Unknown,
}

impl Watch {
    /// A watch over the disk of `settings.data_dir`. The first look gives up the ballast of an earlier life when the disk
    /// is full, so that the store can be opened.
    pub(super) fn new(settings: &Settings) -> Self {
        let served = settings.functions.iter().map(|function| function.pool.queue.clone()).collect();
        let reserve_bytes = settings.daemon.reserve_bytes;
        let space = Arc::new(Space::new(reserve_bytes, served));
        let watch = Self { dir: settings.data_dir.clone(), reserve_bytes, space, told: Told::Room };
        // Before the first start there is no directory, and nothing to give up.
        if watch.free_bytes().is_ok_and(|free| free < watch.ballast_bytes() / 4) {
            let _ = std::fs::remove_file(watch.ballast());
        }
        watch
    }

    /// What the door is to hold.
    pub(super) fn space(&self) -> Arc<Space> {
        self.space.clone()
    }

    /// Looks now: tells the door, gives up the ballast or makes it again. Answers when to look again.
    pub(super) fn look(&mut self) -> Duration {
        let looked = self.free_bytes().and_then(|free| {
            let free = self.trim(free)?;
            self.space.saw(free);
            Ok(free)
        });
        match looked {
            Ok(free) => {
                self.tell(self.standing(free), &format!("{} free", units::show_size(free)));
                if free < self.reserve_bytes.saturating_mul(4) { LOOK_EVERY_WHEN_LOW } else { LOOK_EVERY }
            }
            Err(error) => {
                self.tell(Told::Unknown, &error.to_string());
                LOOK_EVERY
            }
        }
    }

    /// Gives up the ballast when less than a quarter of it is free, and makes it when the reserve is there without it;
    /// answers what is free then. Between the two the ballast stays as it is, and so it is not made and given up in turn.
    fn trim(&self, free: u64) -> io::Result<u64> {
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

    fn standing(&self, free: u64) -> Told {
        match free {
            free if free >= self.reserve_bytes => Told::Room,
            free if free >= self.reserve_bytes / 2 => Told::Low,
            _ => Told::VeryLow,
        }
    }

    /// Logs a change; a disk that stays as it is fills no log.
    fn tell(&mut self, now: Told, why: &str) {
        if now == self.told {
            return;
        }
        let dir = self.dir.display();
        match now {
            Told::Room => tracing::info!(%dir, "there is room on the disk again ({why}): sends go on"),
            Told::Low => tracing::warn!(%dir, "the disk is nearly full ({why}): sends are refused, but to functions"),
            Told::VeryLow => tracing::error!(%dir, "the disk is nearly full ({why}): all sends are refused"),
            Told::Unknown => tracing::warn!(%dir, "the free space of the disk cannot be watched: {why}"),
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

/// Makes a file whose bytes are really taken on the disk.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => io::copy(&mut io::repeat(b'.').take(bytes), &mut file).map(drop),
        other => Ok(other?),
    }
}

/// Looks until `shutdown`.
pub(super) async fn run(mut watch: Watch, shutdown: CancellationToken) -> Result<(), Error> {
    loop {
        // The system may take its time: the loops of the daemon do not wait for it.
        let looked = tokio::task::spawn_blocking(move || {
            let pause = watch.look();
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
