//! The log's thread: makes groups durable in the order in which they ran, then sends their signals and completes their
//! callers. Waiting groups share one sync, and the writer runs the next ones meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use tokio::sync::watch;

use super::Error;
use super::log::Log;
use super::writer::{PendingStep, Signals};

/// The writer may run at most this many groups ahead of the log.
pub(super) const HANDED_OVER_MAX: usize = 2;

/// A group that has run and is not durable yet.
pub(super) struct Group {
    pub(super) pending: Vec<Box<dyn PendingStep>>,
    pub(super) signals: BTreeSet<u64>,
    pub(super) end: End,
}

/// How a group becomes durable.
pub(super) enum End {
    /// Not needed: it wrote nothing. It still waits its turn, because its results may show the writes of groups before
    /// it.
    Nothing,
    /// By a record in the log.
    Record { number: u64, record: Vec<u8> },
    /// By a checkpoint, which redb already holds durably: the log starts over.
    Checkpoint { number: u64 },
    /// Not at all: it failed.
    Failed(Error),
}

/// What the log's thread owns.
pub(super) struct Appender {
    pub(super) log: Log,
    pub(super) groups: Receiver<Group>,
    pub(super) signals: Arc<Signals>,
    /// Counts the syncs of the log.
    pub(super) syncs: Arc<AtomicU64>,
    /// Set once, when the store stops.
    pub(super) stopped: watch::Sender<Option<Error>>,
}

impl Appender {
    /// Runs until the writer is gone; returns the log unless writing it failed.
    pub(super) fn run(mut self) -> Option<Log> {
        let mut batch = Vec::with_capacity(HANDED_OVER_MAX + 1);
        while let Ok(group) = self.groups.recv() {
            batch.push(group);
            // Groups that arrived during the last sync share the next one.
            while batch.len() <= HANDED_OVER_MAX
                && let Ok(group) = self.groups.try_recv()
            {
                batch.push(group);
            }
            if let Err(error) = self.make_safe(&mut batch) {
                self.fail(batch, &Error::log(&error));
                return None;
            }
            batch.drain(..).for_each(|group| self.finish(group));
        }
        Some(self.log)
    }

    fn make_safe(&mut self, batch: &mut [Group]) -> io::Result<()> {
        let mut is_synced = true;
        for group in batch {
            match &mut group.end {
                End::Nothing | End::Failed(_) => {}
                // Only written here: one sync below covers the whole batch.
                End::Record { number, record } => {
                    self.log.append(*number, std::mem::take(record))?;
                    is_synced = false;
                }
                End::Checkpoint { number } => {
                    // redb's checkpoint already holds the batch's earlier records too, so those need no sync of their
                    // own, and restart may overwrite them.
                    self.log.restart(*number)?;
                    self.syncs.fetch_add(1, Ordering::Relaxed);
                    is_synced = true;
                }
            }
        }
        if !is_synced {
            self.log.sync()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            // Without the mark, losing the last record could not be told from its never having been written.
            self.log.mark()?;
        }
        Ok(())
    }

    fn finish(&self, group: Group) {
        let end = match group.end {
            End::Failed(error) => Err(error),
            End::Nothing | End::Record { .. } | End::Checkpoint { .. } => Ok(()),
        };
        // Signals go out only once the group is durable, so a woken reader never acts on a commit that can be lost.
        if end.is_ok() {
            self.signals.send(&group.signals);
        }
        for pending in group.pending {
            pending.complete(end.clone());
        }
    }

    /// Fails this batch and every later group: once a log write has failed, nothing may be acknowledged. A failed sync
    /// cannot be retried, since the kernel may have dropped the pages.
    fn fail(self, batch: Vec<Group>, error: &Error) {
        stop(&self.stopped, error);
        let refused = Error::Stopped(error.to_string());
        let refuse = |error: &Error, group: Group| {
            group.pending.into_iter().for_each(|pending| pending.complete(Err(error.clone())));
        };
        batch.into_iter().for_each(|group| refuse(error, group));
        // Drains until the writer ends, which would otherwise block on the full channel.
        self.groups.into_iter().for_each(|group| refuse(&refused, group));
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
