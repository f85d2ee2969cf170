//! The log's thread: makes groups safe in the order in which they ran, then signals and answers. The groups that wait
//! share one sync, and the writer runs the next ones meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use tokio::sync::watch;

use super::Error;
use super::log::Log;
use super::writer::{Signals, Waiting};

/// So many groups may have run that the log has not taken yet.
pub(super) const HANDED_OVER_MAX: usize = 2;

/// A group that has run, on its way to the disk.
pub(super) struct Group {
    pub(super) waiting: Vec<Box<dyn Waiting>>,
    pub(super) signals: BTreeSet<u64>,
    pub(super) end: End,
}

/// What makes a group safe.
pub(super) enum End {
    /// Nothing: it wrote nothing. Its answers may rest on groups before it.
    Nothing,
    /// A record of the log.
    Record { number: u64, record: Vec<u8> },
    /// A checkpoint, which redb holds durably by now: the log starts over.
    Checkpoint { number: u64 },
    /// It failed.
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
    /// Runs until the writer is gone; answers the log when it is whole.
    pub(super) fn run(mut self) -> Option<Log> {
        let mut batch = Vec::with_capacity(HANDED_OVER_MAX + 1);
        while let Ok(group) = self.groups.recv() {
            batch.push(group);
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
                End::Record { number, record } => {
                    self.log.append(*number, std::mem::take(record))?;
                    is_synced = false;
                }
                End::Checkpoint { number } => {
                    self.log.restart(*number)?;
                    self.syncs.fetch_add(1, Ordering::Relaxed);
                    is_synced = true;
                }
            }
        }
        if !is_synced {
            self.log.sync()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            self.log.mark()?;
        }
        Ok(())
    }

    fn finish(&self, group: Group) {
        let end = match group.end {
            End::Failed(error) => Err(error),
            End::Nothing | End::Record { .. } | End::Checkpoint { .. } => Ok(()),
        };
        if end.is_ok() {
            self.signals.send(&group.signals);
        }
        for waiting in group.waiting {
            waiting.answer(end.clone());
        }
    }

    /// Nothing is acknowledged from now on.
    fn fail(self, batch: Vec<Group>, error: &Error) {
        stop(&self.stopped, error);
        let refused = Error::Stopped(error.to_string());
        let refuse = |error: &Error, group: Group| {
            group.waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
        };
        batch.into_iter().for_each(|group| refuse(error, group));
        self.groups.into_iter().for_each(|group| refuse(&refused, group));
    }
}

/// Says why the store stops, to be heard once.
pub(super) fn stop(stopped: &watch::Sender<Option<Error>>, error: &Error) {
    stopped.send_if_modified(|reason| {
        let is_first = reason.is_none();
        reason.get_or_insert_with(|| error.clone());
        is_first
    });
}
