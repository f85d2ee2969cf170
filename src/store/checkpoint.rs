//! Checkpoints: redb gets the rows of a memtable in one durable commit, in the order of their keys, and the log's segment
//! is free again. A thread of its own does them, while the writer goes on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, WriteTransaction};

use super::layers::Base;
use super::log::Position;
use super::memtable::Memtable;
use super::meta::{GENERATION, LOG_OPEN, SEQUENCE};
use super::present::Present;
use super::table_id::{META, TABLES};
use super::{Error, apply, checksum, guard};

/// A store that is idle for this long makes a checkpoint, so that recovery is short and memory is given back.
const IDLE: Duration = Duration::from_secs(1);

/// What redb holds after a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covers {
    /// All of this generation, and all frames up to this one.
    pub(super) through: Position,
    /// Whether the log may hold more.
    pub(super) is_log_open: bool,
}

/// Writes the rows and what is covered with them, in one durable commit.
///
/// # Errors
/// A storage fault.
pub(super) fn apply(db: &Database, rows: &Memtable, covers: Covers) -> Result<(), Error> {
    let mut transaction = db.begin_write()?;
    // With quick repair redb keeps the state of its allocator in the commit, so that opening after a crash does not
    // read the whole file.
    transaction.set_quick_repair(true);
    for table in TABLES.iter().filter(|table| !rows.table(**table).is_empty()) {
        guard::table(*table, || {
            let mut open = transaction.open_table(table.definition())?;
            apply::apply(&mut open, rows.table(*table))?;
            Ok(())
        })?;
    }
    put_covers(&transaction, covers)?;
    guard::table(META, || Ok(transaction.commit()?))
}

/// Writes what a commit covers.
///
/// # Errors
/// A storage fault.
pub(super) fn put_covers(transaction: &WriteTransaction, covers: Covers) -> Result<(), Error> {
    put_number(transaction, GENERATION, covers.through.generation)?;
    put_number(transaction, SEQUENCE, covers.through.sequence)?;
    put_number(transaction, LOG_OPEN, covers.is_log_open.into())
}

/// Writes a row of `meta`.
///
/// # Errors
/// A storage fault.
pub(super) fn put_number(transaction: &WriteTransaction, name: &str, number: u64) -> Result<(), Error> {
    let value = checksum::seal(META, name.as_bytes(), number.to_be_bytes().to_vec());
    guard::table(META, || {
        let mut meta = transaction.open_table(META.definition())?;
        meta.insert(name.as_bytes(), value.as_slice())?;
        Ok(())
    })
}

/// A checkpoint that is to be made.
pub(super) struct Checkpoint {
    pub(super) rows: Arc<Memtable>,
    pub(super) covers: Covers,
}

/// How far the checkpoints are; shared by the store's threads.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    /// The last sequence given to a group.
    pub(super) sequence: AtomicU64,
    /// Whether the store is idle and has something to apply.
    pub(super) wants_one: AtomicBool,
    /// How many were made.
    pub(super) made: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The last sequence that redb holds.
    covered: u64,
    /// Redb's tables after the newest checkpoint, until the writer takes them.
    base: Option<Base>,
    failed: Option<Error>,
}

impl Progress {
    /// The progress of a store whose redb holds all, up to that sequence.
    pub(super) fn starting_at(sequence: u64) -> Self {
        let state = Mutex::new(State { covered: sequence, ..State::default() });
        Self { state, sequence: AtomicU64::new(sequence), ..Self::default() }
    }

    /// Redb's tables after a checkpoint, if there was one since the last call.
    ///
    /// # Errors
    /// A checkpoint failed.
    pub(super) fn take(&self) -> Result<Option<Base>, Error> {
        let mut state = self.lock();
        state.failed.clone().map_or_else(|| Ok(state.base.take()), Err)
    }

    /// Waits for the checkpoint that is being made.
    ///
    /// # Errors
    /// It failed, or the store has stopped.
    pub(super) fn wait(&self) -> Result<Base, Error> {
        let waits = |state: &mut State| state.base.is_none() && state.failed.is_none();
        let mut state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match state.failed.clone() {
            Some(error) => Err(error),
            None => Ok(state.base.take().expect("the wait ends with one or the other")),
        }
    }

    /// Waits for the checkpoint that is being made, but not for long.
    pub(super) fn wait_at_most(&self, wait: Duration) {
        let waits = |state: &mut State| state.base.is_none() && state.failed.is_none();
        drop(self.changed.wait_timeout_while(self.lock(), wait, waits));
    }

    /// Waits until redb holds everything up to a sequence.
    ///
    /// # Errors
    /// As [`Progress::wait`].
    pub(super) fn wait_for(&self, sequence: u64) -> Result<(), Error> {
        let waits = |state: &mut State| state.covered < sequence && state.failed.is_none();
        let state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        state.failed.clone().map_or(Ok(()), Err)
    }

    /// The last sequence that redb holds.
    pub(super) fn covered(&self) -> u64 {
        self.lock().covered
    }

    fn done(&self, covered: u64, base: Base) {
        let mut state = self.lock();
        (state.covered, state.base) = (covered, Some(base));
        self.made.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Ends all waits: the store has stopped.
    pub(super) fn fail(&self, error: &Error) {
        self.lock().failed.get_or_insert_with(|| error.clone());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread of the checkpoints owns.
pub(super) struct Checkpointer<W> {
    pub(super) db: Arc<Database>,
    pub(super) path: PathBuf,
    pub(super) checkpoints: Receiver<Checkpoint>,
    pub(super) progress: Arc<Progress>,
    /// The files, which must stay where they are.
    pub(super) present: Present,
    /// Makes the writer look up; does nothing when it is gone.
    pub(super) wake: W,
}

impl<W: Fn()> Checkpointer<W> {
    /// Runs until nobody can send a checkpoint any more, or until a fault, which it returns and which stops the store.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let ended = self.work();
        if let Err(error) = &ended {
            self.progress.fail(error);
            (self.wake)();
        }
        ended
    }

    fn work(&mut self) -> Result<(), Error> {
        let mut seen = self.progress.sequence.load(Ordering::Relaxed);
        loop {
            match self.checkpoints.recv_timeout(IDLE) {
                Ok(checkpoint) => {
                    let base = guard::file(&self.path, || {
                        apply(&self.db, &checkpoint.rows, checkpoint.covers)?;
                        Base::open(&self.db)
                    })?;
                    self.present.check_after_commit()?;
                    self.progress.done(checkpoint.covers.through.sequence, base);
                    (self.wake)();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.present.check()?;
                    let now = self.progress.sequence.load(Ordering::Relaxed);
                    if now == seen && now > self.progress.covered() {
                        self.progress.wants_one.store(true, Ordering::Relaxed);
                        (self.wake)();
                    }
                    seen = now;
                }
                // The store is about to be closed, which must not be done to files that are not its own any more.
                Err(RecvTimeoutError::Disconnected) => return self.present.check(),
            }
        }
    }
}
