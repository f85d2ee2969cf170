//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};

use super::holder::Holder;
use crate::base::units;

/// A fault of the store. After a failed write the store refuses all further work and the daemon restarts from disk.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Another process holds the data directory.
    #[error("data directory {dir} is in use by {holder} (stop it first, or give this one another data_dir)")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, as it is named in the lock file.
        holder: Holder,
    },
    /// This user may not use the directory or file.
    #[error("{path}: permission denied (run this as the daemon's user, e.g. `sudo -u nightmail nightmail …`)")]
    Denied {
        /// The directory or file.
        path: PathBuf,
    },
    /// The directory or file cannot be opened or created.
    #[error("{path}: {reason} (the store needs a directory that it may write; see data_dir)")]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// The operating system's error.
        reason: String,
    },
    /// The file is not a store, or is damaged.
    #[error("{path} is damaged or not a Nightmail store: {reason} (restore a backup; the file was left as it is)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has format {found}, this version knows up to {known} (install the newer version; the file was left as it is)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// The disk has no room for the upgrade to this version's format.
    #[error(
        "{path}: an upgrade to this version's format needs {} free on its disk, and {} are free (free some, or move \
         data_dir to a larger disk; the file was left as it is)",
        units::show_size(*needed_bytes),
        units::show_size(*free_bytes)
    )]
    NoRoomToUpgrade {
        /// The file.
        path: PathBuf,
        /// As much as the file has.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// A record does not decode.
    #[error("record in table {table} does not decode: {reason} (the file is damaged; restore a backup)")]
    Record {
        /// The table.
        table: &'static str,
        /// What was found.
        reason: String,
    },
    /// A read or write failed.
    #[error("storage failed: {0} (what was being written may or may not be there after the restart)")]
    Storage(String),
    /// The store stopped after an earlier failure, or is closed.
    #[error("the store has stopped: {0} (the daemon restarts from disk)")]
    Stopped(String),
}

impl Error {
    /// A directory or file that cannot be opened or created.
    pub fn of_open(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path: path.to_owned() },
            _ => Self::Open { path: path.to_owned(), reason: error.to_string() },
        }
    }
}

/// The table name for damage of redb's own pages.
const PAGES: &str = "(pages)";

impl From<redb::StorageError> for Error {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Corrupted(reason) => Self::Record { table: PAGES, reason },
            other => Self::Storage(other.to_string()),
        }
    }
}

impl From<redb::TableError> for Error {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            // The names and types of the tables never change, so this means a damaged page.
            other => Self::Record { table: PAGES, reason: other.to_string() },
        }
    }
}

impl From<redb::TransactionError> for Error {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => Self::Storage(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for Error {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => Self::Storage(other.to_string()),
        }
    }
}
