//! One process per data directory: an advisory lock on `nightmail.lock`, which names its holder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Error;

/// The lock; released on drop, or when the process ends in any way.
#[derive(Debug)]
pub(super) struct Lock {
    /// Held open for as long as the store is.
    file: File,
}

impl Lock {
    /// Takes the lock of `dir`; the error names its holder.
    pub(super) fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("nightmail.lock");
        let failed = |error: std::io::Error| Error::Open { path: path.clone(), reason: error.to_string() };
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
            let mut holder = String::new();
            Read::by_ref(&mut file).take(200).read_to_string(&mut holder).map_err(failed)?;
            let holder = holder.trim();
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder.to_owned() };
            return Err(Error::Locked { dir: dir.to_owned(), holder });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "nightmail with pid {}", std::process::id()).map_err(failed)?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is being started holds a copy of the descriptor until it
        // execs. Closing is only the fallback when unlocking fails.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}
