//! Makes groups durable in the order in which they ran: writes and syncs the log, then shows the group to readers, sends
//! its signals and answers its callers. The writer does it itself while nothing else is under way; otherwise the log's
//! thread does, and the writer runs the next group meanwhile.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, atomic::AtomicUsize, atomic::Ordering};

use tokio::sync::watch;

use super::Error;
use super::checkpoint::{Checkpoint, Progress};
use super::layers::Layers;
use super::log::{Log, Position};
use super::step::{PendingStep, Signals};

/// The writer may run at most this many groups ahead of the log.
pub(super) const HANDED_OVER_MAX: usize = 2;

/// A group that has run and is not durable yet.
pub(super) struct Group {
    pub(super) pending: Vec<Box<dyn PendingStep>>,
    pub(super) signals: BTreeSet<u64>,
    /// What readers see once it is durable.
    pub(super) view: Option<Arc<Layers>>,
    pub(super) end: End,
    /// What a checkpoint has covered since the group before: the log may use its space again.
    pub(super) covered: Option<Position>,
    /// A checkpoint that may begin once the group is durable.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// How a group becomes durable.
pub(super) enum End {
    /// Not needed: it wrote nothing. It still waits its turn, because its results may show the writes of groups before
    /// it.
    Nothing,
    /// By a frame in the log.
    Frame { at: Position, frame: Vec<u8> },
    /// By a checkpoint: its frame fits into no segment.
    ByCheckpoint(Checkpoint),
    /// Not at all: it failed.
    Failed(Error),
}

/// The view that readers take: the newest that is durable.
pub(super) struct View(Mutex<Arc<Layers>>);

impl View {
    pub(super) fn new(layers: Arc<Layers>) -> Self {
        Self(Mutex::new(layers))
    }

    pub(super) fn get(&self) -> Arc<Layers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, layers: Arc<Layers>) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), layers);
        // The last holder of a view gives back its rows, which must not happen under the lock.
        drop(old);
    }
}

/// See the module.
pub(super) struct Committer {
    pub(super) log: Box<dyn Log>,
    pub(super) view: Arc<View>,
    pub(super) signals: Arc<Signals>,
    /// Counts the syncs of the log.
    pub(super) syncs: Arc<AtomicU64>,
    /// To the thread of the checkpoints; `None` once there will be no more.
    pub(super) checkpoints: Option<Sender<Checkpoint>>,
    pub(super) progress: Arc<Progress>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
    /// Why the log takes nothing more.
    pub(super) failed: Option<Error>,
}

impl Committer {
    /// Makes these groups durable with one sync and answers their callers; `is_last` when no other group follows soon.
    /// After a failure this batch and every later one fails: once a write has failed, nothing may be acknowledged. A
    /// failed sync cannot be retried, since the kernel may have dropped the pages.
    pub(super) fn commit(&mut self, batch: &mut Vec<Group>, is_last: bool) {
        let refused = match &self.failed {
            Some(error) => Some(Error::Stopped(error.to_string())),
            None => self.make_safe(batch).err(),
        };
        if let (Some(error), None) = (&refused, &self.failed) {
            self.fail(error);
        }
        for group in batch.drain(..) {
            self.finish(group, refused.as_ref());
        }
        // The callers need not wait for the mark. That frame may be one of an earlier batch, when this one wrote nothing.
        if is_last
            && refused.is_none()
            && let Err(error) = self.log.rest()
        {
            self.fail(&error.into());
        }
    }

    fn fail(&mut self, error: &Error) {
        self.failed = Some(error.clone());
        stop(&self.stopped, error);
        self.progress.fail(error);
    }

    fn make_safe(&mut self, batch: &mut [Group]) -> Result<(), Error> {
        for group in batch {
            if let Some(covered) = group.covered.take() {
                self.log.trim(covered)?;
            }
            match std::mem::replace(&mut group.end, End::Nothing) {
                End::Nothing => {}
                failed @ End::Failed(_) => group.end = failed,
                // Only written here: one sync below covers the whole batch.
                End::Frame { at, frame } => {
                    if at.generation != self.log.end().generation {
                        self.sync()?;
                    }
                    self.log.append(at, frame)?;
                }
                End::ByCheckpoint(checkpoint) => {
                    let through = checkpoint.covers.through;
                    self.sync()?;
                    self.send(checkpoint);
                    self.progress.wait_for(through.sequence)?;
                    self.log.trim(through)?;
                }
            }
        }
        self.sync()
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.log.durable_through() != self.log.end().sequence {
            self.log.sync()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn send(&self, checkpoint: Checkpoint) {
        // That thread ends before its senders only after a failure, which has stopped the store.
        let _ = self.checkpoints.as_ref().map(|checkpoints| checkpoints.send(checkpoint));
    }

    fn finish(&self, group: Group, refused: Option<&Error>) {
        let end = match (group.end, refused) {
            (End::Failed(error), _) => Err(error),
            (_, Some(error)) => Err(error.clone()),
            _ => Ok(()),
        };
        if end.is_ok() {
            if let Some(view) = group.view {
                self.view.set(view);
            }
            // Signals go out only once the group is durable, so that a woken reader never acts on what can be lost.
            self.signals.send(&group.signals);
            if let Some(checkpoint) = group.checkpoint {
                self.send(checkpoint);
            }
        }
        for pending in group.pending {
            pending.complete(end.clone());
        }
    }
}

/// What the log's thread owns.
pub(super) struct Appender {
    pub(super) groups: Receiver<Group>,
    pub(super) committer: Arc<Mutex<Committer>>,
    /// How many groups are handed over and not durable yet.
    pub(super) under_way: Arc<AtomicUsize>,
}

impl Appender {
    /// Runs until the writer is gone.
    pub(super) fn run(self) {
        let mut batch = Vec::with_capacity(HANDED_OVER_MAX + 1);
        while let Ok(group) = self.groups.recv() {
            batch.push(group);
            // Groups that arrived during the last sync share the next one.
            while batch.len() <= HANDED_OVER_MAX
                && let Ok(group) = self.groups.try_recv()
            {
                batch.push(group);
            }
            let count = batch.len();
            let is_last = self.under_way.load(Ordering::Acquire) == count;
            self.committer.lock().unwrap_or_else(PoisonError::into_inner).commit(&mut batch, is_last);
            self.under_way.fetch_sub(count, Ordering::Release);
        }
    }
}

/// Publishes why the store stops; only the first reason is kept.
pub(super) fn stop(stopped: &watch::Sender<Option<Error>>, error: &Error) {
    stopped.send_if_modified(|reason| {
        let is_first = reason.is_none();
        reason.get_or_insert_with(|| error.clone());
        is_first
    });
}
