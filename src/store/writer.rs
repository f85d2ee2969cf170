//! The one writer: takes all steps that wait, runs them in one transaction, commits once, then answers all callers.
//!
//! Idle, it commits at once; there is no timer. A storage fault fails the whole group and stops the store.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Error, Tx};

/// A step that waits for its turn, and the caller that waits for its answer.
pub(super) trait Waiting: Send {
    /// Runs the step and keeps its result.
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran;
    /// Answers the caller: with the result when the group was committed, else with the fault.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

/// Whether a step did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Done,
    Refused,
}

/// A step as a closure.
pub(super) struct Step<F, T, E> {
    /// Taken when the step runs.
    step: Option<F>,
    /// Set when the step has run.
    result: Option<Result<T, E>>,
    /// Answered after the commit.
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Step<F, T, E> {
    pub(super) fn new(step: F, caller: oneshot::Sender<Result<T, E>>) -> Self {
        Self { step: Some(step), result: None, caller }
    }
}

impl<F, T, E> Waiting for Step<F, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran {
        let step = self.step.take().expect("a step runs once");
        let result = step(tx);
        let ran = if result.is_ok() { Ran::Done } else { Ran::Refused };
        self.result = Some(result);
        ran
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Stopped("the step never ran".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // A caller that went away does not need its answer.
        let _ = self.caller.send(result);
    }
}

/// Wakes those who wait for something to change.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// One counter per topic; it moves with each commit that signals the topic.
    topics: Mutex<HashMap<u64, watch::Sender<u64>>>,
}

impl Signals {
    pub(super) fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.entry(topic).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn send(&self, signals: &BTreeSet<u64>) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in signals.iter().filter_map(|topic| topics.get(topic)) {
            sender.send_modify(|version| *version += 1);
        }
    }
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) db: Arc<Database>,
    pub(super) waiting: mpsc::Receiver<Box<dyn Waiting>>,
    pub(super) group_max: usize,
    pub(super) signals: Arc<Signals>,
    /// Counts the commits of this life.
    pub(super) commits: Arc<AtomicU64>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
}

impl Writer {
    /// Runs until all handles are gone or a write fails; then refuses what still waits.
    pub(super) fn run(mut self) {
        let mut group: Vec<Box<dyn Waiting>> = Vec::with_capacity(self.group_max);
        while self.waiting.blocking_recv_many(&mut group, self.group_max) > 0 {
            let end = self.commit(&mut group);
            if let Err(error) = &end {
                self.stopped.send_replace(Some(error.clone()));
            }
            for waiting in group.drain(..) {
                waiting.answer(end.clone());
            }
            if let Err(error) = end {
                return self.refuse(&Error::Stopped(error.to_string()));
            }
        }
    }

    fn commit(&self, group: &mut [Box<dyn Waiting>]) -> Result<(), Error> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_quick_repair(true);
        let mut tx = Tx::new(&transaction);
        for waiting in group {
            let before = tx.writes();
            let ran = waiting.run(&mut tx);
            if let Some(error) = tx.failure() {
                return Err(error.clone());
            }
            assert!(ran == Ran::Done || tx.writes() == before, "a refused step must leave no trace in its group");
        }
        let wrote = tx.writes() > 0;
        let signals = tx.finish()?;
        if wrote {
            transaction.commit()?;
            self.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            transaction.abort()?;
        }
        self.signals.send(&signals);
        Ok(())
    }

    fn refuse(&mut self, error: &Error) {
        self.waiting.close();
        while let Some(waiting) = self.waiting.blocking_recv() {
            waiting.answer(Err(error.clone()));
        }
    }
}
