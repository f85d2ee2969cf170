//! The single writer thread: takes all pending steps, runs them in one transaction, and hands the group to the log's
//! thread, which makes it durable and completes the callers.
//!
//! There is no timer: an idle writer starts with the first step, and a busy one collects the next group meanwhile. A
//! storage fault fails the whole group and stops the store.
//!
//! Steps check first and write after. A step that is refused after a write is a bug: its writes alone are rolled back,
//! it is logged, and the rest of the group goes on.

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

/// A step in the queue, together with the caller that waits for its result.
pub(super) trait PendingStep: Send {
    /// The step's place in the source, for the log.
    fn name(&self) -> &'static str;
    /// Runs the step and keeps its result for [`PendingStep::complete`].
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Refused>;
    /// Completes the caller: with the step's result when the group was committed, else with the fault.
    fn complete(self: Box<Self>, commit: Result<(), Error>);
}

/// The step returned an error. It should have written nothing; what it wrote is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A step as a closure.
pub(super) struct Step<F, T, E> {
    /// Taken when the step runs.
    step: Option<F>,
    /// Set when the step has run.
    result: Option<Result<T, E>>,
    /// Receives the result once the commit is durable.
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Step<F, T, E> {
    pub(super) fn new(step: F, caller: oneshot::Sender<Result<T, E>>) -> Self {
        Self { step: Some(step), result: None, caller }
    }
}

impl<F, T, E> PendingStep for Step<F, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Refused> {
        let step = self.step.take().expect("a step runs once");
        let result = step(tx);
        let outcome = result.as_ref().map(drop).map_err(|_| Refused);
        self.result = Some(result);
        outcome
    }

    fn complete(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Stopped("the step never ran".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // The caller may be gone (a dropped future); its step is committed all the same.
        let _ = self.caller.send(result);
    }
}

/// Wakes the subscribers of topics after commits.
#[derive(Debug, Default)]
pub(super) struct Signals {
    topics: Mutex<Topics>,
}

/// See [`Signals`].
#[derive(Debug, Default)]
struct Topics {
    /// One counter for each topic that has subscribers; it moves with each commit that signals the topic.
    senders: HashMap<u64, watch::Sender<u64>>,
    /// How many topics are kept before those without a subscriber go.
    sweep_at: usize,
}

/// At least this many topics are kept before those without a subscriber go, such as the topics of removed queues.
const TOPICS_KEPT_MIN: usize = 64;

impl Topics {
    fn subscribe(&mut self, topic: u64) -> watch::Receiver<u64> {
        if let Some(sender) = self.senders.get(&topic) {
            return sender.subscribe();
        }
        if self.senders.len() >= self.sweep_at.max(TOPICS_KEPT_MIN) {
            // A later subscriber starts with a counter of its own and misses nothing.
            self.senders.retain(|_, sender| sender.receiver_count() > 0);
            // Twice those in use: a sweep costs a constant for each new topic.
            self.sweep_at = 2 * self.senders.len();
        }
        let (sender, receiver) = watch::channel(0);
        self.senders.insert(topic, sender);
        receiver
    }
}

impl Signals {
    pub(super) fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).subscribe(topic)
    }

    pub(super) fn send(&self, signals: &BTreeSet<u64>) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // A topic without an entry never had a subscriber.
        for sender in signals.iter().filter_map(|topic| topics.senders.get(topic)) {
            sender.send_modify(|version| *version += 1);
        }
    }
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) db: Arc<Database>,
    /// The file's path as errors show it.
    pub(super) path: PathBuf,
    pub(super) pending: mpsc::Receiver<Box<dyn PendingStep>>,
    pub(super) group_max: usize,
    /// Counts the commits since the store was opened.
    pub(super) commits: Arc<AtomicU64>,
    /// Counts the refused steps whose writes were rolled back; each is a bug.
    pub(super) roll_backs: Arc<AtomicU64>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
    /// The number of the last record.
    pub(super) last: u64,
    /// The log's free space once all groups handed over so far are written. The log's thread keeps its own copy and
    /// advances it by the same rule, so neither waits for the other.
    pub(super) space: Space,
    /// To the log's thread; bounded, so that the writer cannot run far ahead of the disk.
    pub(super) ran: SyncSender<Group>,
    /// The log's thread; joined at the end.
    pub(super) appender: JoinHandle<Option<Log>>,
}

impl Writer {
    /// Runs until all handles are dropped or a write fails; then refuses the pending steps.
    pub(super) fn run(mut self) {
        let mut pending: Vec<Box<dyn PendingStep>> = Vec::with_capacity(self.group_max);
        while self.pending.blocking_recv_many(&mut pending, self.group_max) > 0 {
            // The log's thread may have failed since the last group. Nothing more may be committed after that: a
            // checkpoint would make groups durable whose callers were told that they failed.
            let has_stopped = self.stopped.borrow().as_ref().map(|error| Error::Stopped(error.to_string()));
            let ran = match has_stopped {
                Some(error) => Err(error),
                None => self.run_group(&mut pending),
            };
            let (signals, end) = ran.unwrap_or_else(|error| (BTreeSet::new(), End::Failed(error)));
            if let End::Failed(error) = &end {
                stop(&self.stopped, error);
            }
            let has_failed = matches!(end, End::Failed(_));
            // A failed group passes through the log's thread too, so that callers complete in the order of the groups.
            let group = Group { pending: std::mem::take(&mut pending), signals, end };
            self.ran.send(group).expect("the log's thread lives as long as the writer");
            if has_failed {
                return self.refuse();
            }
        }
        self.close();
    }

    /// Runs the steps of a group and commits their writes to redb. A panic in a step or in redb stops the store.
    fn run_group(&mut self, group: &mut [Box<dyn PendingStep>]) -> Result<(BTreeSet<u64>, End), Error> {
        let ran = catch_unwind(AssertUnwindSafe(|| self.commit(group)));
        ran.unwrap_or_else(|panic| Err(Error::Stopped(format!("a step broke: {}", panic_message(&*panic)))))
    }

    fn commit(&mut self, group: &mut [Box<dyn PendingStep>]) -> Result<(BTreeSet<u64>, End), Error> {
        let mut transaction = self.guarded(|| Ok(self.db.begin_write()?))?;
        let mut tx = Tx::new(&transaction);
        for pending in group {
            tx.begin_step();
            let ran = pending.run(&mut tx);
            // A step may have swallowed the fault that `Tx` saw; the group's tables are unsound either way.
            if let Some(error) = tx.failure() {
                return Err(error.clone());
            }
            // Half of a refused step must not be committed with its neighbours.
            if ran == Err(Refused) && tx.has_step_written() {
                self.roll_backs.fetch_add(1, Ordering::Relaxed);
                let step = pending.name();
                tracing::error!(step, "bug: a step was refused after it had written; its writes are rolled back");
                let kept = tx.roll_back_step();
                self.guarded(|| Ok(transaction.abort()?))?;
                transaction = self.guarded(|| Ok(self.db.begin_write()?))?;
                tx = Tx::resume(&transaction, kept)?;
            }
        }
        // A group of reads and refusals needs no record and no sync.
        if tx.writes() == 0 {
            let signals = tx.into_signals();
            self.guarded(|| Ok(transaction.abort()?))?;
            return Ok((signals, End::Nothing));
        }
        let number = self.last + 1;
        let finished = tx.finish(number)?;
        // The usual commit is not durable in redb: the log's record makes it durable with one sync. When the log is
        // full, the commit is a durable one instead (a checkpoint), and the log starts over.
        let fits = self.space.take(finished.record.len());
        if fits {
            transaction.set_durability(Durability::None).expect("the store makes no savepoints");
        } else {
            // With quick repair redb stores its allocator state in the commit, so opening after a crash does not scan
            // the whole file.
            transaction.set_quick_repair(true);
        }
        self.guarded(|| Ok(transaction.commit()?))?;
        self.last = number;
        self.commits.fetch_add(1, Ordering::Relaxed);
        let end = if fits {
            End::Record { number, record: finished.record }
        } else {
            // redb now holds this group and all before it durably. This also covers a group larger than the whole log.
            self.space.restart();
            End::Checkpoint { number }
        };
        Ok((finished.signals, end))
    }

    /// Turns redb's panics on some damaged pages into an error that names the file.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let reason = format!("redb cannot make sense of its pages: {}", panic_message(&*panic));
            Err(Error::Damaged { path: self.path.clone(), reason })
        })
    }

    /// Makes the checkpoint of a clean close, after which the log is empty. When it fails, the log still holds
    /// everything.
    fn close(self) {
        // Ends the log's thread, so that every record is on disk before the checkpoint.
        drop(self.ran);
        let Ok(Some(mut log)) = self.appender.join() else { return };
        let closed = catch_unwind(AssertUnwindSafe(|| recover::close(&self.db, self.last)));
        if let Ok(Ok(number)) = closed {
            // If this fails, the next start does it: the `closed` row in redb says that the log is not needed.
            let _ = log.restart(number);
        }
    }

    fn refuse(mut self) {
        self.pending.close();
        let reason = self.stopped.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        while let Some(pending) = self.pending.blocking_recv() {
            pending.complete(Err(Error::Stopped(reason.clone())));
        }
        // Lets the log's thread end after the groups that were already handed over.
        drop(self.ran);
        // Earlier groups are still made durable and completed. A panic of that thread has already failed its callers.
        let _ = self.appender.join();
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_queues_that_nobody_waits_on_any_more_are_given_up() {
        let signals = Signals::default();
        let kept: Vec<_> = (0..100).map(|topic| signals.subscribe(topic)).collect();
        for topic in 100..10_000 {
            drop(signals.subscribe(topic));
        }
        let count = signals.topics.lock().unwrap().senders.len();
        assert!(count <= 2 * kept.len(), "{count} topics");
        signals.send(&(0..10_000).collect());
        assert!(kept.iter().all(|receiver| receiver.has_changed().unwrap()), "those in use still hear");
        assert!(!signals.subscribe(5000).has_changed().unwrap());
    }
}
