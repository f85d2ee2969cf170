//! Since when the calls to one destination wait for a reply: what `nightmail status` shows of a destination that holds
//! the connection and says nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::Clock;

/// The calls to one destination that wait for a reply now.
pub(super) struct Silences {
    clock: Arc<dyn Clock>,
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    /// Counts up; the next wait's number.
    next: u64,
    /// The monotonic time at which each call last heard something.
    since: BTreeMap<u64, Duration>,
}

impl Silences {
    /// No call waits yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, waits: Mutex::default() })
    }

    /// Begins to count for one call. The count ends when the wait is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Wait {
        let now = self.clock.monotonic();
        let mut waits = self.waits();
        let number = waits.next;
        waits.next += 1;
        waits.since.insert(number, now);
        Wait { of: Arc::clone(self), number }
    }

    /// How long the call that has waited longest has heard nothing; `None` when no call waits.
    pub(super) fn longest(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        self.waits().since.values().min().map(|since| now.saturating_sub(*since))
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Every change under the lock is complete in itself, so a poisoned lock guards valid data.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Silences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silences").field("longest", &self.longest()).finish()
    }
}

/// One call that waits for replies.
#[derive(Debug)]
pub(super) struct Wait {
    of: Arc<Silences>,
    number: u64,
}

impl Wait {
    /// Something came, or it is our turn: the silence begins anew.
    pub(super) fn restart(&self) {
        let now = self.of.clock.monotonic();
        self.of.waits().since.insert(self.number, now);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.of.waits().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ManualClock, Timestamp};

    #[test]
    fn the_longest_silence_is_that_of_the_call_that_heard_nothing_for_longest() {
        let clock = ManualClock::new(Timestamp::ZERO);
        let silences = Silences::new(clock.clone());
        assert_eq!(silences.longest(), None);
        let (first, second) = (silences.begin(), silences.begin());
        clock.advance(Duration::from_secs(40));
        first.restart();
        clock.advance(Duration::from_secs(5));
        assert_eq!(silences.longest(), Some(Duration::from_secs(45)));
        drop(second);
        assert_eq!(silences.longest(), Some(Duration::from_secs(5)));
        drop(first);
        assert_eq!(silences.longest(), None);
    }
}
