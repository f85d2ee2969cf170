//! The store's options.

use std::path::PathBuf;

use super::holder::Purpose;

/// The checked settings of the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, `nightmail.redb` under `data_dir`.
    pub path: PathBuf,
    /// The size in bytes of the log beside it, `nightmail.log`; when the log is full, the store makes a checkpoint. An
    /// existing log is resized when the store opens.
    pub log_bytes: u64,
    /// redb's page cache, in bytes.
    pub cache_bytes: u64,
    /// At most this many steps share one commit.
    pub group_max: usize,
    /// At most this many steps wait for the writer; further callers wait for a free place.
    pub waiting_max: usize,
    /// What the store is opened for: the lock names it to whoever finds it taken.
    pub purpose: Purpose,
}

impl Options {
    /// The defaults for a file: 16 MiB of log, 64 MiB of cache, groups of 1024, 4096 waiting, for a daemon.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            log_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            group_max: 1024,
            waiting_max: 4096,
            purpose: Purpose::Serve,
        }
    }

    /// The log's path.
    pub(super) fn log_path(&self) -> PathBuf {
        self.path.with_extension("log")
    }
}
