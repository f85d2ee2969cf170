//! Recovery: applies the frames that redb does not hold in one commit, before the store accepts work.

use std::path::Path;
use std::sync::Arc;

use redb::Database;

use super::checkpoint::{self, Covers};
use super::layers::{Base, Layers};
use super::log::{Log, Position, UnclaimedLog};
use super::memtable::Memtable;
use super::meta::{GENERATION, LOG_OPEN, SEQUENCE, STORE};
use super::{Error, Snapshot, reindex};

/// What redb's file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The store's number.
    pub(super) store: u64,
    /// What the tables hold.
    pub(super) covers: Covers,
}

impl Standing {
    /// Reads it.
    ///
    /// # Errors
    /// A row is missing or damaged.
    pub(super) fn read(base: &Arc<Layers>, path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let meta = Snapshot::new(base.clone()).meta()?;
        let row = |name: &str| {
            let row = meta.get(&name.to_owned()).map_err(|error| damaged(error.to_string()))?;
            row.ok_or_else(|| damaged(format!("its row {name} is missing")))
        };
        let through = Position { generation: row(GENERATION)?, sequence: row(SEQUENCE)? };
        Ok(Self { store: row(STORE)?, covers: Covers { through, is_log_open: row(LOG_OPEN)? != 0 } })
    }

    /// That of redb's last commit.
    ///
    /// # Errors
    /// As [`Standing::read`], or a storage fault.
    pub(super) fn of(db: &Database, path: &Path) -> Result<Self, Error> {
        Self::read(&Arc::new(Layers::of(Base::open(db)?)), path)
    }
}

/// Applies what the log holds, and takes it over for new frames. The claim is part of the same commit, so that frames of
/// an earlier life are never taken for frames of this one.
///
/// # Errors
/// A frame that was on disk cannot be read, redb's file is older than the log, or a storage fault.
pub(super) fn recover(db: &Database, log: impl UnclaimedLog, path: &Path) -> Result<Box<dyn Log>, Error> {
    let mut rows = Memtable::default();
    let end = log.replay(&mut |writes| rows.replay(writes)).map_err(|error| error.of_store(path))?;
    let mut log = log.claim(end).map_err(|error| error.of_store(path))?;
    checkpoint::apply(db, &rows, Covers { through: log.end(), is_log_open: true })?;
    reindex::fill(db)?;
    log.trim(log.end())?;
    Ok(log)
}
