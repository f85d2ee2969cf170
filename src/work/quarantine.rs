//! After a crash: which attempts may begin while messages that were in work at the crash are tried alone.
//!
//! Such a message, a suspect, is tried as the only attempt in the process, so that a message that crashes the daemon is
//! found and its neighbours never pay. Suspects run one after the other in a window of 30 s; then ordinary messages
//! come in for 30 s, and so on until no suspect is left. A suspect behind an open breaker or in a paused queue blocks
//! nobody. Pure bookkeeping over lease time: it reads neither the store nor a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::LeaseTime;
use crate::queue::ReceiptHandle;

/// Suspects keep ordinary messages out for this long at most; ordinary messages then come in for as long.
const WINDOW: Duration = Duration::from_secs(30);

/// A queue's next suspect: attempts charged and sequence number. The least of all queues is tried next.
pub(super) type Next = (u32, u64);

/// What a pool may receive now. Attempts are recorded before the receive, so that no suspect begins beside them.
#[derive(Debug)]
pub(super) enum Turn {
    /// Ordinary messages.
    Ordinary(Arc<InWork>),
    /// One suspect of its queue.
    Suspect {
        /// Its record here.
        in_work: Arc<InWork>,
        /// Whether it is the only attempt in the process, and a crash is therefore charged to it. Not beside work that
        /// has outlived a window: that may be what crashes.
        is_alone: bool,
    },
    /// Nothing yet: the mark of this attempt, that it is alone, must be removed from the store first. Then
    /// [`Quarantine::alone_ended`] is to be called.
    EndAlone(ReceiptHandle),
    /// Nothing until something changes, or until this moment.
    Wait(LeaseTime),
}

/// The quarantine of one process; all pools share it.
#[derive(Clone, Debug)]
pub struct Quarantine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts changes that may give a waiting pool its turn.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Queues with suspects; a queue leaves when its last suspect is taken.
    queues: BTreeMap<u32, Next>,
    /// Those whose suspects cannot be tried now; kept up to date by [`Quarantine::turn`].
    blocked: BTreeSet<u32>,
    /// Attempts in work by number, with the moment at which they began.
    in_work: BTreeMap<u64, LeaseTime>,
    /// The attempt that is marked as alone in the store: its number and its receive.
    alone: Option<(u64, ReceiptHandle)>,
    /// The number of the next attempt.
    next_attempt: u64,
    /// Until when suspects keep ordinary messages out; `None` while no window has begun.
    window_until: Option<LeaseTime>,
    /// Until when ordinary messages come in although there are suspects.
    ordinary_until: Option<LeaseTime>,
    /// Set when a pool was told to wait; until the next attempt ends and wakes it.
    somebody_waits: bool,
}

/// The attempts of one receive; they leave the quarantine when this is dropped.
#[derive(Debug)]
pub(super) struct InWork {
    quarantine: Quarantine,
    attempt: u64,
}

impl InWork {
    /// Records that this is the attempt of that receive, marked as alone in the store.
    pub(super) fn is_alone(&self, handle: ReceiptHandle) {
        self.quarantine.state().alone = Some((self.attempt, handle));
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        let mut state = self.quarantine.state();
        state.in_work.remove(&self.attempt);
        state.alone.take_if(|(attempt, _)| *attempt == self.attempt);
        // Without this, pools with empty queues would wake each other for as long as there are suspects.
        let somebody_waits = std::mem::take(&mut state.somebody_waits);
        drop(state);
        if somebody_waits {
            self.quarantine.signal();
        }
    }
}

impl Quarantine {
    /// A quarantine with the suspects that the recovery found, by queue.
    pub fn new(suspects: BTreeMap<u32, (u32, u64)>) -> Self {
        let state = State { queues: suspects, ..State::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0) }))
    }

    /// Wakes whenever a pool that waits should ask again.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// What the pool of `queue` may receive at `now`; `is_blocked` while its suspects cannot be tried.
    pub(super) fn turn(&self, queue: u32, is_blocked: bool, now: LeaseTime) -> Turn {
        let mut state = self.state();
        let has_changed = if is_blocked { state.blocked.insert(queue) } else { state.blocked.remove(&queue) };
        let decision = state.decide(queue, now);
        let mut begin = || Arc::new(InWork { quarantine: self.clone(), attempt: state.begin(now) });
        let turn = match decision {
            Decision::Ordinary => Turn::Ordinary(begin()),
            Decision::Suspect { is_alone } => Turn::Suspect { in_work: begin(), is_alone },
            Decision::EndAlone(handle) => Turn::EndAlone(handle),
            Decision::Wait(until) => Turn::Wait(until),
        };
        state.somebody_waits |= matches!(turn, Turn::Wait(_));
        drop(state);
        if has_changed {
            self.signal();
        }
        turn
    }

    /// Records that the suspects of `queue` cannot be tried now, until its pool asks for another [`Quarantine::turn`].
    pub(super) fn block(&self, queue: u32) {
        let has_changed = self.state().blocked.insert(queue);
        if has_changed {
            self.signal();
        }
    }

    /// Records that the mark of that receive, which said that it is alone, is removed.
    pub(super) fn alone_ended(&self, handle: ReceiptHandle) {
        self.state().alone.take_if(|(_, alone)| *alone == handle);
        self.signal();
    }

    /// Records which suspect of `queue` is the next one, after one was taken or none was found.
    pub(super) fn update(&self, queue: u32, next: Option<Next>) {
        match next {
            Some(next) => self.state().queues.insert(queue, next),
            None => self.state().queues.remove(&queue),
        };
        self.signal();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }
}

/// A [`Turn`] without its reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Ordinary,
    Suspect { is_alone: bool },
    EndAlone(ReceiptHandle),
    Wait(LeaseTime),
}

impl State {
    fn begin(&mut self, now: LeaseTime) -> u64 {
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        self.in_work.insert(attempt, now);
        attempt
    }

    fn decide(&mut self, queue: u32, now: LeaseTime) -> Decision {
        let decision = self.suspects_first(queue, now);
        match self.alone {
            // Others are about to come in, so a crash must not be charged to the attempt that was alone so far.
            Some((_, handle)) if decision == Decision::Ordinary => Decision::EndAlone(handle),
            _ => decision,
        }
    }

    fn suspects_first(&mut self, queue: u32, now: LeaseTime) -> Decision {
        let next = self.queues.iter().filter(|(queue, _)| !self.blocked.contains(queue)).min_by_key(|(_, next)| **next);
        // The last suspect is still alone: its window goes on.
        if next.is_none() && self.alone.is_none() {
            return Decision::Ordinary;
        }
        let next = next.map(|(queue, _)| *queue);
        if self.ordinary_until.is_some_and(|until| now < until) {
            return Decision::Ordinary;
        }
        self.ordinary_until = None;
        let until = *self.window_until.get_or_insert(now.after(WINDOW));
        if now >= until {
            self.window_until = None;
            self.ordinary_until = Some(now.after(WINDOW));
            return Decision::Ordinary;
        }
        // Work that has outlived a window must not keep suspects waiting for hours.
        let must_wait = next != Some(queue) || self.in_work.values().any(|began| now.since(*began) < WINDOW);
        if must_wait { Decision::Wait(until) } else { Decision::Suspect { is_alone: self.in_work.is_empty() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: LeaseTime = LeaseTime::from_millis(1_000_000);
    const HANDLE: ReceiptHandle = ReceiptHandle { queue: 1, sequence: 5, lease: 7 };

    fn at(seconds: u64) -> LeaseTime {
        START.after(Duration::from_secs(seconds))
    }

    /// What a pool is told, as text; a turn is given back at once.
    fn told(turn: &Turn) -> String {
        match turn {
            Turn::Ordinary(_) => "ordinary".into(),
            Turn::Suspect { is_alone: true, .. } => "suspect".into(),
            Turn::Suspect { is_alone: false, .. } => "suspect among others".into(),
            Turn::EndAlone(_) => "end alone".into(),
            Turn::Wait(until) => format!("wait {}s", until.since(START).as_secs()),
        }
    }

    #[test]
    fn without_suspects_everybody_comes_in() {
        let quarantine = Quarantine::new(BTreeMap::new());
        let _one = quarantine.turn(1, false, at(0));
        assert_eq!(told(&quarantine.turn(1, false, at(0))), "ordinary");
    }

    #[test]
    fn suspects_are_tried_one_at_a_time_and_the_least_charged_of_all_queues_goes_first() {
        let quarantine = Quarantine::new(BTreeMap::from([(1, (1, 5)), (2, (0, 9))]));
        assert_eq!(told(&quarantine.turn(1, false, at(0))), "wait 30s");
        let alone = quarantine.turn(2, false, at(1));
        assert_eq!(told(&alone), "suspect");
        quarantine.update(2, None);
        assert_eq!(told(&quarantine.turn(1, false, at(2))), "wait 30s", "it would not be alone");
        assert_eq!(told(&quarantine.turn(2, false, at(2))), "wait 30s", "ordinary messages wait for the suspects");
        drop(alone);
        let last = quarantine.turn(1, false, at(3));
        assert_eq!(told(&last), "suspect");
        quarantine.update(1, None);
        drop(last);
        assert_eq!(told(&quarantine.turn(2, false, at(3))), "ordinary");
    }

    #[test]
    fn the_last_suspect_is_alone_too() {
        let quarantine = Quarantine::new(BTreeMap::from([(1, (0, 5))]));
        let Turn::Suspect { in_work: alone, .. } = quarantine.turn(1, false, at(0)) else {
            panic!("nobody else is there")
        };
        alone.is_alone(HANDLE);
        quarantine.update(1, None);
        assert_eq!(told(&quarantine.turn(2, false, at(1))), "wait 30s");
        drop(alone);
        assert_eq!(told(&quarantine.turn(2, false, at(1))), "ordinary");
    }

    #[test]
    fn after_30_s_its_mark_is_removed_others_come_in_for_30_s_and_then_the_suspects_go_on() {
        let quarantine = Quarantine::new(BTreeMap::from([(1, (0, 5))]));
        let Turn::Suspect { in_work: slow, .. } = quarantine.turn(1, false, at(0)) else {
            panic!("nobody else is there")
        };
        slow.is_alone(HANDLE);
        quarantine.update(1, Some((0, 6)));
        assert_eq!(told(&quarantine.turn(2, false, at(29))), "wait 30s");
        let Turn::EndAlone(handle) = quarantine.turn(2, false, at(30)) else { panic!("the window is over") };
        assert_eq!(handle, HANDLE);
        assert_eq!(told(&quarantine.turn(3, false, at(30))), "end alone", "until the mark is gone");
        quarantine.alone_ended(handle);
        assert_eq!(told(&quarantine.turn(2, false, at(31))), "ordinary");
        assert_eq!(told(&quarantine.turn(2, false, at(59))), "ordinary");
        assert_eq!(told(&quarantine.turn(2, false, at(60))), "wait 90s");
        let next = quarantine.turn(1, false, at(60));
        assert_eq!(told(&next), "suspect among others", "old work keeps nobody waiting, and may be what crashes");
        drop(slow);
        assert_eq!(told(&quarantine.turn(1, false, at(60))), "wait 90s");
        drop(next);
        assert_eq!(told(&quarantine.turn(1, false, at(60))), "suspect");
    }

    #[test]
    fn an_attempt_that_ends_wakes_only_those_who_were_told_to_wait() {
        let quarantine = Quarantine::new(BTreeMap::from([(1, (0, 5))]));
        quarantine.block(1);
        let mut changed = quarantine.changed();
        assert_eq!(told(&quarantine.turn(2, false, at(0))), "ordinary");
        assert!(!changed.has_changed().unwrap(), "a pool with an empty queue would wake itself for ever");
        quarantine.block(1);
        assert!(!changed.has_changed().unwrap(), "it was blocked before");
        let alone = quarantine.turn(1, false, at(1));
        assert_eq!(told(&quarantine.turn(2, false, at(1))), "wait 31s");
        changed.mark_unchanged();
        drop(alone);
        assert!(changed.has_changed().unwrap());
    }

    #[test]
    fn a_suspect_that_cannot_be_tried_blocks_nobody() {
        let quarantine = Quarantine::new(BTreeMap::from([(1, (0, 5))]));
        let mut changed = quarantine.changed();
        assert_eq!(told(&quarantine.turn(2, false, at(0))), "wait 30s");
        assert_eq!(told(&quarantine.turn(1, true, at(0))), "ordinary");
        assert!(changed.has_changed().unwrap(), "those who wait are woken");
        changed.mark_unchanged();
        assert_eq!(told(&quarantine.turn(2, false, at(0))), "ordinary");
        let alone = quarantine.turn(1, false, at(1));
        assert_eq!(told(&alone), "suspect");
        assert_eq!(told(&quarantine.turn(2, false, at(1))), "wait 30s");
    }
}
