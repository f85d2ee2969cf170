//! The store's options.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::holder::Purpose;
use super::segment;

/// The checked settings of the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, `nightmail.redb` under `data_dir`.
    pub path: PathBuf,
    /// The size in bytes of the log's two segments together, `nightmail.log0` and `nightmail.log1`. Half of a segment full
    /// begins a checkpoint. Existing segments are resized when the store opens.
    pub log_bytes: u64,
    /// redb's page cache, in bytes.
    pub cache_bytes: u64,
    /// At most this many steps share one commit.
    pub group_max: usize,
    /// At most this many steps wait for the writer; further callers wait for a free place.
    pub waiting_max: usize,
    /// What the store is opened for: the lock names it to whoever finds it taken.
    pub purpose: Purpose,
    /// Counts the rows that an upgrade from an earlier format has rewritten, for whoever watches a long start.
    pub upgraded_rows: Arc<AtomicU64>,
}

impl Options {
    /// The defaults for a file: 32 MiB of log, 32 MiB of cache, groups of 1024, 4096 waiting, for a daemon.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            log_bytes: 32 << 20,
            cache_bytes: 32 << 20,
            group_max: 1024,
            waiting_max: 4096,
            purpose: Purpose::Serve,
            upgraded_rows: Arc::default(),
        }
    }

    /// The directory of the store.
    pub(super) fn dir(&self) -> &Path {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        }
    }

    /// The file that says that there is a store.
    pub(super) fn marker(&self) -> PathBuf {
        self.path.with_extension("store")
    }

    /// The files that the store writes.
    pub(super) fn files(&self) -> [PathBuf; 3] {
        [self.path.clone(), segment::path(&self.path, 0), segment::path(&self.path, 1)]
    }
}
