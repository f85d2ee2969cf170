//! Looks at the store at the moment when a wrong answer would show: a frame of the log is written and not yet synced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nightmail::store::Store;

use super::disk::Machine;
use super::workload::whole;

/// A sync that is looked at waits this long for an answer that must not come before its end.
const PAUSE: Duration = Duration::from_millis(2);
/// A disk on which every sync of the log takes so long that the groups behind it share one.
const SLOW: Duration = Duration::from_micros(200);

/// Who saw the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Viewer {
    Snapshot,
    /// A step that wrote nothing.
    ReadingStep,
}

/// A part of the store's content, as [`whole`] prints it, that was seen.
#[derive(Debug)]
pub(super) struct Sight {
    /// How many calls to the disks had been made by then.
    pub(super) calls: usize,
    pub(super) content: String,
    pub(super) by: Viewer,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Taken at the end, since the store itself holds the machine that holds the watch.
    store: Mutex<Option<Store>>,
    /// How long a sync that is looked at takes.
    pause: Duration,
    /// Whether the syncs of the step that runs now are looked at.
    is_looking: AtomicBool,
    /// How many steps were answered.
    answers: Mutex<u64>,
    has_answered: Condvar,
    sights: Mutex<Vec<Sight>>,
}

impl Watch {
    pub(super) fn over(store: Store) -> Self {
        Self { store: Mutex::new(Some(store)), pause: PAUSE, ..Self::default() }
    }

    /// Only makes every sync of the log slow.
    pub(super) fn slow() -> Self {
        Self { pause: SLOW, is_looking: true.into(), ..Self::default() }
    }

    /// Looks at each sync of the log from now on.
    pub(super) fn start(&self) {
        self.is_looking.store(true, Ordering::SeqCst);
    }

    /// Looks at none from now on.
    pub(super) fn stop(&self) {
        self.is_looking.store(false, Ordering::SeqCst);
    }

    /// A step was answered.
    pub(super) fn answer(&self) {
        *self.answers.lock().unwrap() += 1;
        self.has_answered.notify_all();
    }

    pub(super) fn keep(&self, sight: Sight) {
        self.sights.lock().unwrap().push(sight);
    }

    /// Lets the store go; returns what was seen.
    pub(super) fn end(&self) -> Vec<Sight> {
        // Dropped behind the lock: the store's end may sync, and so look.
        let store = self.store.lock().unwrap().take();
        drop(store);
        std::mem::take(&mut self.sights.lock().unwrap())
    }

    /// Called before a sync of the log.
    pub(super) fn look(&self, machine: &Machine) {
        if !self.is_looking.load(Ordering::SeqCst) {
            return;
        }
        if let Some(store) = &*self.store.lock().unwrap() {
            let content = whole(&store.snapshot().unwrap());
            self.keep(Sight { calls: machine.calls(), content, by: Viewer::Snapshot });
        }
        let answers = self.answers.lock().unwrap();
        let before = *answers;
        // In vain, unless an answer comes too early: then it is recorded before this sync.
        drop(self.has_answered.wait_timeout_while(answers, self.pause, |answers| *answers == before).unwrap());
    }
}
