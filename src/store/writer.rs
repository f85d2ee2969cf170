//! The single writer thread: takes the pending steps, runs them as one group on the layers in memory, and hands the
//! group over to be made durable.
//!
//! There is no timer: an idle writer starts with the first step, unless its caller is about to send more (`hold`), and a
//! busy one collects the next group meanwhile. A storage fault fails the whole group and stops the store.
//!
//! Steps check first and write after. A step that is refused after a write is a bug: its writes alone are rolled back,
//! it is logged, and the rest of the group goes on.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use tokio::sync::{mpsc, watch};

use super::checkpoint::{self, Checkpoint, Covers, Progress};
use super::committer::{Committer, End, Group, stop};
use super::hints::Hints;
use super::hold::Holds;
use super::layers::{Base, Layers};
use super::log::{Position, Space};
use super::memtable::Memtable;
use super::step::{PendingStep, Refused};
use super::tx::Finished;
use super::{Error, Tx, guard};

/// A group is closed after the step with which its writes exceed this.
const GROUP_BYTES: usize = 1 << 20;
/// A checkpoint begins when this much of a segment is used, in thousandths.
const CHECKPOINT_AT: u64 = 500;
/// While a checkpoint is made and more than this of the segment is used, each group waits a little, in thousandths.
const SLOW_FROM: u64 = 600;
/// A group's wait when the segment is full.
const SLOWEST: Duration = Duration::from_millis(4);

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) db: Arc<Database>,
    /// The file's path as errors show it.
    pub(super) path: PathBuf,
    pub(super) pending: mpsc::Receiver<Box<dyn PendingStep>>,
    /// Callers that are about to send more steps.
    pub(super) holds: Arc<Holds>,
    pub(super) group_max: usize,
    pub(super) layers: Layers,
    pub(super) hints: Hints,
    /// Counts the commits since the store was opened.
    pub(super) commits: Arc<AtomicU64>,
    /// Counts the refused steps whose writes were rolled back; each is a bug.
    pub(super) roll_backs: Arc<AtomicU64>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
    /// The sequence of the last group, and the generation of the next frame.
    pub(super) last: Position,
    /// The free space of the generation once all groups handed over so far are written. The log keeps its own copy and
    /// advances it by the same rule, so neither waits for the other.
    pub(super) space: Space,
    /// What the checkpoint under way covers, or the latest one.
    pub(super) frozen_through: Position,
    /// What a checkpoint has covered and the log does not know yet.
    pub(super) covered: Option<Position>,
    pub(super) progress: Arc<Progress>,
    /// Used by the writer itself while nothing is under way.
    pub(super) committer: Arc<Mutex<Committer>>,
    /// How many groups are handed over and not durable yet.
    pub(super) under_way: Arc<AtomicUsize>,
    /// To the log's thread; bounded, so that the writer cannot run far ahead of the disk.
    pub(super) ran: SyncSender<Group>,
    /// The log's thread; joined at the end.
    pub(super) appender: JoinHandle<()>,
    /// The thread of the checkpoints; joined at the end.
    pub(super) checkpointer: JoinHandle<Result<(), Error>>,
}

/// A group that has run.
struct Executed {
    signals: BTreeSet<u64>,
    end: End,
}

impl Writer {
    /// Runs until all handles are dropped or a write fails; then refuses the pending steps.
    pub(super) fn run(mut self) {
        let (mut taken, mut waiting) = (Vec::with_capacity(self.group_max), VecDeque::new());
        loop {
            if waiting.is_empty() {
                if self.pending.blocking_recv_many(&mut taken, self.group_max) == 0 {
                    return self.close();
                }
                if taken.len() < self.group_max {
                    self.holds.wait();
                }
                while taken.len() < self.group_max
                    && let Ok(pending) = self.pending.try_recv()
                {
                    taken.push(pending);
                }
                waiting.extend(taken.drain(..));
            }
            // Another thread may have failed since the last group. Nothing more may be committed after that.
            let has_stopped = self.stopped.borrow().as_ref().map(|error| Error::Stopped(error.to_string()));
            let mut group = Vec::new();
            let ran = match has_stopped {
                Some(error) => {
                    group.extend(waiting.drain(..));
                    Err(error)
                }
                None => self.run_group(&mut waiting, &mut group),
            };
            let Executed { signals, end } =
                ran.unwrap_or_else(|error| Executed { signals: BTreeSet::new(), end: End::Failed(error) });
            let failed = if let End::Failed(error) = &end { Some(error.clone()) } else { None };
            if let Some(error) = &failed {
                stop(&self.stopped, error);
            }
            let view = failed.is_none().then(|| Arc::new(self.layers.clone()));
            let covered = self.covered.take();
            self.hand_over(Group { pending: group, signals, view, end, covered, checkpoint: None }, waiting.is_empty());
            if failed.is_some() {
                return self.refuse(waiting);
            }
        }
    }

    /// Makes the group durable at once while nothing else is under way or waits, otherwise lets the log's thread do it.
    /// A failed group passes through it too, so that callers are answered in the order of the groups.
    fn hand_over(&self, group: Group, is_last: bool) {
        let is_idle = is_last && self.pending.is_empty();
        if is_idle && self.under_way.load(Ordering::Acquire) == 0 {
            self.committer.lock().unwrap_or_else(PoisonError::into_inner).commit(&mut vec![group], true);
        } else {
            self.under_way.fetch_add(1, Ordering::AcqRel);
            self.ran.send(group).expect("the log's thread lives as long as the writer");
        }
    }

    /// Runs the steps of a group, as many as fit. A panic in a step or in redb stops the store.
    fn run_group(
        &mut self,
        waiting: &mut VecDeque<Box<dyn PendingStep>>,
        group: &mut Vec<Box<dyn PendingStep>>,
    ) -> Result<Executed, Error> {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            self.prepare()?;
            self.run_steps(waiting, group)
        }));
        ran.unwrap_or_else(|panic| Err(Error::Stopped(format!("a step broke: {}", panic_message(&*panic)))))
    }

    /// Takes a finished checkpoint, and begins the next one when it is time.
    fn prepare(&mut self) -> Result<(), Error> {
        if let Some(base) = self.progress.take()? {
            self.replace_base(base);
        }
        let wants_one = self.progress.wants_one.swap(false, Ordering::Relaxed);
        if self.layers.frozen.is_some() {
            self.slow_down();
        } else if self.space.used() > 0 && (wants_one || self.space.used_thousandths() >= CHECKPOINT_AT) {
            let rows = std::mem::take(&mut self.layers.active);
            let checkpoint = self.freeze(rows, self.last.sequence);
            self.begin(checkpoint);
        }
        Ok(())
    }

    /// The closer the segment is to its end while a checkpoint is made, the longer a group waits: many short waits
    /// instead of a long one at the end.
    fn slow_down(&self) {
        if let Some(over) = self.space.used_thousandths().checked_sub(SLOW_FROM) {
            let share = u32::try_from(over * 1000 / (1000 - SLOW_FROM)).unwrap_or(1000);
            self.progress.wait_at_most(SLOWEST * share / 1000);
        }
    }

    fn run_steps(
        &mut self,
        waiting: &mut VecDeque<Box<dyn PendingStep>>,
        group: &mut Vec<Box<dyn PendingStep>>,
    ) -> Result<Executed, Error> {
        let mut tx = Tx::new(&mut self.layers, &mut self.hints);
        while tx.bytes() < GROUP_BYTES
            && let Some(pending) = waiting.pop_front()
        {
            tx.begin_step();
            group.push(pending);
            let pending = group.last_mut().expect("it was added in the line before");
            let ran = pending.run(&mut tx);
            // A step may have swallowed the fault that `Tx` saw; the group's rows are unsound either way.
            if let Some(error) = tx.failure() {
                return Err(error.clone());
            }
            // Half of a refused step must not be committed with its neighbours.
            if ran == Err(Refused) && tx.has_step_written() {
                self.roll_backs.fetch_add(1, Ordering::Relaxed);
                let step = pending.name();
                tracing::error!(step, "bug: a step was refused after it had written; its writes are rolled back");
                tx.roll_back_step()?;
            }
        }
        // A group of reads and refusals needs no frame and no sync.
        if !tx.has_written() {
            return Ok(Executed { signals: tx.into_signals(), end: End::Nothing });
        }
        let finished = tx.finish()?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.last.sequence += 1;
        self.progress.sequence.store(self.last.sequence, Ordering::Relaxed);
        self.place(finished)
    }

    /// Finds room for the frame of a group that has run: in the segment in use, or in the other one, or in redb itself.
    fn place(&mut self, Finished { frame, before, signals }: Finished) -> Result<Executed, Error> {
        let sequence = self.last.sequence;
        if self.space.take(frame.len()).is_none() {
            if self.layers.frozen.is_some() {
                let base = self.progress.wait()?;
                self.replace_base(base);
            }
            if self.space.emptied().take(frame.len()).is_none() {
                let rows = std::mem::take(&mut self.layers.active);
                let checkpoint = self.freeze(rows, sequence);
                return Ok(Executed { signals, end: End::ByCheckpoint(checkpoint) });
            }
            // The groups before this one go to redb; its own rows are the first of the next generation.
            self.layers.active = Memtable::default();
            self.layers.active.replay(&frame[super::frame::HEAD_BYTES..])?;
            let checkpoint = self.freeze(before, sequence - 1);
            self.begin(checkpoint);
            self.space.take(frame.len()).expect("it fits into an empty generation");
        }
        Ok(Executed { signals, end: End::Frame { at: self.last, frame } })
    }

    /// Leaves the generation in use to a checkpoint of these rows, which cover everything up to `sequence`.
    fn freeze(&mut self, rows: Memtable, sequence: u64) -> Checkpoint {
        let through = Position { sequence, ..self.last };
        let rows = Arc::new(rows);
        self.layers.frozen = Some(rows.clone());
        self.frozen_through = through;
        self.last.generation += 1;
        self.space = self.space.emptied();
        Checkpoint { rows, covers: Covers { through, is_log_open: true } }
    }

    /// Lets a checkpoint begin once the groups before it are durable.
    fn begin(&mut self, checkpoint: Checkpoint) {
        let group = Group {
            pending: Vec::new(),
            signals: BTreeSet::new(),
            view: None,
            end: End::Nothing,
            covered: self.covered.take(),
            checkpoint: Some(checkpoint),
        };
        self.hand_over(group, true);
    }

    fn replace_base(&mut self, base: Base) {
        self.layers.base = Arc::new(base);
        self.layers.frozen = None;
        self.covered = Some(self.frozen_through);
        self.hints.base_was_replaced();
    }

    /// Makes the checkpoint of a clean close, after which the log is not needed. When it fails, the log still holds
    /// everything.
    fn close(self) {
        // Ends the log's thread, so that every frame is on disk, and then that of the checkpoints.
        drop(self.ran);
        let _ = self.appender.join();
        self.committer.lock().unwrap_or_else(PoisonError::into_inner).checkpoints = None;
        let are_applied = match self.checkpointer.join() {
            Ok(Err(error)) => {
                tracing::error!(%error, "the store was not closed cleanly");
                false
            }
            ended => ended.is_ok(),
        };
        if are_applied && self.stopped.borrow().is_none() {
            let covers = Covers { through: self.last, is_log_open: false };
            // If it fails, the next start does it from the log.
            let _ = guard::file(&self.path, || checkpoint::apply(&self.db, &self.layers.active, covers));
        }
    }

    fn refuse(mut self, waiting: VecDeque<Box<dyn PendingStep>>) {
        self.pending.close();
        let reason = self.stopped.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        for pending in waiting {
            pending.complete(Err(Error::Stopped(reason.clone())));
        }
        while let Some(pending) = self.pending.blocking_recv() {
            pending.complete(Err(Error::Stopped(reason.clone())));
        }
        // Lets the log's thread end after the groups that were already handed over: these are still made durable and
        // answered. A panic of that thread has already failed its callers.
        drop(self.ran);
        let _ = self.appender.join();
        self.committer.lock().unwrap_or_else(PoisonError::into_inner).checkpoints = None;
        let _ = self.checkpointer.join();
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words")
}
