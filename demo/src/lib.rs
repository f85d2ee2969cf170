//! A bank's API and a mail sink on loopback: the servers of `nightmail demo`, and the independent oracle of the tests.
//!
//! It does not depend on nightmail: an oracle that shares code with what it checks would share its mistakes.

pub mod bank;
pub mod fixtures;
mod rng;
pub mod sink;

use std::path::PathBuf;

pub use bank::{Bank, run_bank};
pub use fixtures::{Fixtures, Period};
pub use sink::{Sink, run_sink};

/// Why a server of the demo could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory for mails or documents cannot be made.
    #[error("directory {path:?} for the sink's mails cannot be made: {source} (name one that this user can write)")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The sink's journal cannot be opened or read.
    #[error("journal {path:?} cannot be opened: {source} (name a file that this user can write)")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the sink's journal is not one of its records.
    #[error("journal {path:?}, line {line}: {source} (the file was not written by this sink; move it away)")]
    JournalLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
