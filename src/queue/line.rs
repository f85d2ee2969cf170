//! The line of the long polls of each queue: one signal wakes one of them, and one of them watches the clock for all.
//!
//! Whoever was woken holds the turn. It takes what it finds, and passes the turn on when it left something or goes away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::base::LeaseTime;
use crate::store::Store;

/// The lines of all queues.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<u32, Weak<Line>>>);

/// Once there are this many lines, those where nobody waits go before a new one is made.
const LINES_KEPT_MAX: usize = 64;

impl Lines {
    /// The line of that queue.
    pub(super) fn of(&self, store: &Store, queue: u32) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&queue).and_then(Weak::upgrade) {
            return line;
        }
        if lines.len() >= LINES_KEPT_MAX {
            lines.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::new(Line { turns: store.subscribe_one(u64::from(queue)), watch: Mutex::default() });
        lines.insert(queue, Arc::downgrade(&line));
        line
    }
}

/// Those who wait for messages of one queue.
#[derive(Debug)]
pub(super) struct Line {
    /// Wakes the one who has waited longest.
    pub(super) turns: Arc<Notify>,
    watch: Mutex<Watched>,
}

/// When somebody in the line looks for messages that become visible by time alone.
#[derive(Debug, Default)]
struct Watched {
    /// The number of the latest [`Watch`].
    number: u64,
    /// When it ends; `None` while nobody watches.
    until: Option<LeaseTime>,
}

impl Line {
    /// The turn, for the one who was woken.
    pub(super) fn turn(self: &Arc<Self>) -> Turn {
        Turn { line: self.clone(), is_used: false }
    }

    /// The duty to look at that moment; `None` when somebody else looks as early.
    pub(super) fn watch(self: &Arc<Self>, until: LeaseTime) -> Option<Watch> {
        let mut watched = self.watched();
        if watched.until.is_some_and(|earlier| earlier <= until) {
            return None;
        }
        watched.number += 1;
        watched.until = Some(until);
        Some(Watch { line: self.clone(), number: watched.number, until })
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn to receive. It is passed on unless it was used up: whoever is dropped in the middle wakes the next one.
#[derive(Debug)]
pub(super) struct Turn {
    line: Arc<Line>,
    is_used: bool,
}

impl Turn {
    /// Ends the turn: there is nothing for the others.
    pub(super) fn use_up(mut self) {
        self.is_used = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_used {
            self.line.turns.notify_one();
        }
    }
}

/// The duty of one in the line to look at a certain moment. When it ends, another one is woken and takes it over.
#[derive(Debug)]
pub(super) struct Watch {
    line: Arc<Line>,
    number: u64,
    /// The moment.
    pub(super) until: LeaseTime,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.line.watched();
        if watched.number == self.number {
            watched.until = None;
            drop(watched);
            self.line.turns.notify_one();
        }
    }
}
