//! The one writer: takes all steps that wait, runs them in one transaction, and hands the group to the log's thread,
//! which makes it safe and answers all callers.
//!
//! Idle, it begins at once; there is no timer. A storage fault fails the whole group and stops the store.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot, watch};

use super::appender::{End, Group, stop};
use super::log::{Log, Space};
use super::{Error, Tx, recover};

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

    pub(super) fn send(&self, signals: &BTreeSet<u64>) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in signals.iter().filter_map(|topic| topics.get(topic)) {
            sender.send_modify(|version| *version += 1);
        }
    }
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) db: Arc<Database>,
    /// What errors call the file.
    pub(super) path: PathBuf,
    pub(super) waiting: mpsc::Receiver<Box<dyn Waiting>>,
    pub(super) group_max: usize,
    /// Counts the commits of this life.
    pub(super) commits: Arc<AtomicU64>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
    /// The number of the last record.
    pub(super) last: u64,
    /// What is left of the log once all that was handed over is written.
    pub(super) space: Space,
    /// To the log's thread.
    pub(super) ran: SyncSender<Group>,
    /// The log's thread; joined at the end.
    pub(super) appender: JoinHandle<Option<Log>>,
}

impl Writer {
    /// Runs until all handles are gone or a write fails; then refuses what still waits.
    pub(super) fn run(mut self) {
        let mut waiting: Vec<Box<dyn Waiting>> = Vec::with_capacity(self.group_max);
        while self.waiting.blocking_recv_many(&mut waiting, self.group_max) > 0 {
            let has_stopped = self.stopped.borrow().as_ref().map(|error| Error::Stopped(error.to_string()));
            let ran = match has_stopped {
                Some(error) => Err(error),
                None => self.run_group(&mut waiting),
            };
            let (signals, end) = ran.unwrap_or_else(|error| (BTreeSet::new(), End::Failed(error)));
            if let End::Failed(error) = &end {
                stop(&self.stopped, error);
            }
            let has_failed = matches!(end, End::Failed(_));
            let group = Group { waiting: std::mem::take(&mut waiting), signals, end };
            self.ran.send(group).expect("the log's thread lives as long as the writer");
            if has_failed {
                return self.refuse();
            }
        }
        self.close();
    }

    /// Runs the steps of a group and gives redb what they wrote. A panic of theirs, or of redb, ends the store.
    fn run_group(&mut self, group: &mut [Box<dyn Waiting>]) -> Result<(BTreeSet<u64>, End), Error> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.commit(group)));
        ran.unwrap_or_else(|panic| Err(Error::Stopped(format!("a step broke: {}", words_of(&*panic)))))
    }

    fn commit(&mut self, group: &mut [Box<dyn Waiting>]) -> Result<(BTreeSet<u64>, End), Error> {
        let mut transaction = self.guarded(|| Ok(self.db.begin_write()?))?;
        let mut tx = Tx::new(&transaction);
        for waiting in group {
            let before = tx.writes();
            let ran = waiting.run(&mut tx);
            if let Some(error) = tx.failure() {
                return Err(error.clone());
            }
            assert!(ran == Ran::Done || tx.writes() == before, "a refused step must leave no trace in its group");
        }
        if tx.writes() == 0 {
            let signals = tx.into_signals();
            self.guarded(|| Ok(transaction.abort()?))?;
            return Ok((signals, End::Nothing));
        }
        let number = self.last + 1;
        let finished = tx.finish(number)?;
        let fits = self.space.take(finished.record.len());
        if fits {
            transaction.set_durability(Durability::None).expect("the store makes no savepoints");
        } else {
            transaction.set_quick_repair(true);
        }
        self.guarded(|| Ok(transaction.commit()?))?;
        self.last = number;
        self.commits.fetch_add(1, Ordering::Relaxed);
        let end = if fits {
            End::Record { number, record: finished.record }
        } else {
            // redb holds it durably now, with all before it: also a group that is larger than the log.
            self.space.restart();
            End::Checkpoint { number }
        };
        Ok((finished.signals, end))
    }

    /// redb panics on some damaged pages: the callers get an error that names the file instead.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let reason = format!("redb cannot make sense of its pages: {}", words_of(&*panic));
            Err(Error::Damaged { path: self.path.clone(), reason })
        })
    }

    /// The checkpoint of a clean end, after which the log holds nothing. When it fails, the log still holds all.
    fn close(self) {
        drop(self.ran);
        let Ok(Some(mut log)) = self.appender.join() else { return };
        let closed = catch_unwind(AssertUnwindSafe(|| recover::close(&self.db, self.last)));
        if let Ok(Ok(number)) = closed {
            // The next start does it when this fails: redb's row says that the store was closed.
            let _ = log.restart(number);
        }
    }

    fn refuse(mut self) {
        self.waiting.close();
        let reason = self.stopped.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        while let Some(waiting) = self.waiting.blocking_recv() {
            waiting.answer(Err(Error::Stopped(reason.clone())));
        }
        drop(self.ran);
        // What ran before the failure is made safe and answered; a panic was told to its callers.
        let _ = self.appender.join();
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}
