//! How fast mails may follow one another: a limit that is configured, and one that is found from the other side's replies.
//!
//! A [`Pace`] belongs to the relay or to one recipient domain. A mail takes its turn of both at once, so that neither is given a
//! turn that the other cannot use.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::aimd::{Accepted, Controller, Sign};
use crate::base::Clock;

/// Mails are this much further apart than the limit asks for, in percent: the relay counts when they arrive, and the way
/// there takes one a little longer than the next.
const MARGIN: u32 = 2;
/// So long before its turn a mail may take its connection: turns that are taken beforehand lose nothing to late timers.
const LEAD: Duration = Duration::from_millis(100);
/// A mail that is put back comes again after at least this.
const SLOT_MIN: Duration = Duration::from_secs(1);
/// And at most after that: nothing calls a mail back. It is shorter while the limit was only just found: it may be raised soon.
const SLOT_MAX: Duration = Duration::from_secs(600);
const SLOT_MAX_AT_FIRST: Duration = Duration::from_secs(60);

/// Gives out turns at even distances, the first at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// By the configuration.
    configured: Option<Duration>,
    /// The mails that the other side accepted.
    accepted: Accepted,
    /// Whether a rate was found; written under the lock, read without it on the way of every mail.
    is_found: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The next turn that nobody has, on the clock whose moments the callers give.
    next: Duration,
    /// When the last mail that was put back comes again.
    last_slot: Duration,
    /// What the other side takes.
    controller: Controller,
}

/// Whether it is a mail's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// At this moment, and nobody else has that turn.
    At(Duration),
    /// The domain has none yet: ask again after this time.
    Later(Duration),
    /// Not early enough.
    TooLate,
}

/// What was found about the other side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    /// Mails a second; `None` when it refuses nothing by now.
    pub(super) per_second: Option<f64>,
    /// Refusals so far.
    pub(super) refusals: u64,
    /// The last one.
    pub(super) last: Duration,
}

impl Pace {
    /// At most so many turns in any second.
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        let distance = |limit: NonZeroU32| Duration::from_secs(1) * (100 + MARGIN) / 100 / limit.get();
        let (accepted, is_found, state) = (Accepted::default(), AtomicBool::new(false), Mutex::default());
        Self { configured: per_second.map(distance), accepted, is_found, state }
    }

    /// Whether turns are given out at all.
    pub(super) fn is_limited(&self) -> bool {
        self.configured.is_some() || self.is_found()
    }

    /// Whether a rate was found.
    pub(super) fn is_found(&self) -> bool {
        self.is_found.load(Ordering::Relaxed)
    }

    /// Whether a turn is left before that moment.
    pub(super) fn has_turn(&self, before: Duration) -> bool {
        !self.is_limited() || self.state().next <= before
    }

    /// A mail was accepted; its dialogue took so long.
    pub(super) fn accepted(&self, now: Duration, took: Duration) {
        self.accepted.add(now);
        if self.is_found() {
            let mut state = self.state();
            state.controller.accepted(now, took);
            // Its time is over when it was forgotten.
            self.is_found.store(state.controller.per_second(now).is_some(), Ordering::Relaxed);
        }
    }

    /// A message was refused for the first time. `instead` has counted what was accepted while this has not. Returns whether
    /// the rate was lowered.
    pub(super) fn refused(&self, now: Duration, sign: Sign, instead: Option<&Self>) -> bool {
        let mut state = self.state();
        let is_first = state.controller.per_second(now).is_none();
        let accepted = instead.filter(|_| is_first).map_or(&self.accepted, |instead| &instead.accepted);
        let is_lowered = state.controller.refused(now, sign, &self.accepted, accepted);
        self.is_found.store(state.controller.per_second(now).is_some(), Ordering::Relaxed);
        is_lowered
    }

    /// Forgets what was found.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.controller = Controller::default();
        self.is_found.store(false, Ordering::Relaxed);
    }

    /// What was found; `None` when nothing was refused.
    pub(super) fn found(&self, now: Duration) -> Option<Found> {
        let state = self.state();
        let (refusals, last) = (state.controller.refusals, state.controller.last_refusal()?);
        Some(Found { per_second: state.controller.per_second(now), refusals, last })
    }

    /// Turns a second; `None` without a limit.
    pub(super) fn per_second(&self, now: Duration) -> Option<f64> {
        self.is_limited()
            .then(|| self.state().distance(self.configured, now))
            .flatten()
            .map(|it| 1.0 / it.as_secs_f64())
    }

    /// After what time a mail that is put back comes again, so that those put back come one after the other, each when its
    /// turn will be. `or` is their distance without a limit.
    pub(super) fn slot(&self, now: Duration, or: Duration, random: f64) -> Duration {
        let mut state = self.state();
        let distance = state.distance(self.configured, now).unwrap_or(or);
        let slot = state.last_slot.max(now + SLOT_MIN) + distance;
        let wait = slot - now;
        let limited_for = if self.configured.is_some() { None } else { state.controller.limited_for(now) };
        let most = limited_for.map_or(SLOT_MAX, |limited| limited.clamp(SLOT_MAX_AT_FIRST, SLOT_MAX));
        if wait > most {
            // More than that are put back: they come at any time of the later half.
            return most.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        }
        state.last_slot = slot;
        wait
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself, so a poisoned lock guards valid data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How far mails must be apart.
    fn distance(&self, configured: Option<Duration>, now: Duration) -> Option<Duration> {
        let found = self.controller.per_second(now).map(|rate| Duration::from_secs_f64(1.0 / rate));
        configured.max(found)
    }
}

/// Returns true when it is the caller's turn, of the relay and of the recipient's domain, those who ask first first; false
/// at once when its turn would come after `before`, and then it has taken none. A turn whose caller goes away while it waits is
/// not given to another one.
pub(super) async fn turn(relay: &Pace, domain: Option<&Pace>, clock: &dyn Clock, before: Duration) -> bool {
    let domain = domain.filter(|domain| domain.is_limited());
    if domain.is_none() && !relay.is_limited() {
        return true;
    }
    loop {
        let now = clock.monotonic();
        match take(relay, domain, now, before) {
            Turn::At(at) => {
                sleep(at.saturating_sub(now)).await;
                return true;
            }
            Turn::Later(wait) => sleep(wait).await,
            Turn::TooLate => return false,
        }
    }
}

/// How long it takes until the domain will soon have a turn that the relay has too; zero when it has one now.
pub(super) fn until_domain(relay: &Pace, domain: &Pace, now: Duration) -> Duration {
    if !domain.is_limited() {
        return Duration::ZERO;
    }
    let reached = if relay.is_limited() { relay.state().next.max(now) } else { now };
    domain.state().next.saturating_sub(reached + LEAD)
}

fn take(relay: &Pace, domain: Option<&Pace>, now: Duration, before: Duration) -> Turn {
    // Always in this order.
    let mut of_relay = relay.state();
    let mut of_domain = domain.map(Pace::state);
    let relay_distance = of_relay.distance(relay.configured, now);
    let mut at = if relay_distance.is_some() { of_relay.next.max(now) } else { now };
    if let (Some(state), Some(domain)) = (&mut of_domain, domain) {
        if relay_distance.is_none() {
            at = at.max(state.next);
        } else if state.next > at && state.next <= before {
            // A turn of the relay is not kept for a domain that cannot use it yet: others may.
            return Turn::Later(state.next - at);
        }
        if at.max(state.next) > before {
            return Turn::TooLate;
        }
        state.next = at + state.distance(domain.configured, now).unwrap_or_default();
    }
    if at > before {
        return Turn::TooLate;
    }
    if let Some(distance) = relay_distance {
        of_relay.next = at + distance;
    }
    Turn::At(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pace(per_second: u32) -> Pace {
        Pace::new(NonZeroU32::new(per_second))
    }

    fn at(turn: Turn) -> Option<Duration> {
        match turn {
            Turn::At(at) => Some(at),
            Turn::Later(_) | Turn::TooLate => None,
        }
    }

    fn assert_at_most(limit: usize, turns: &[Duration]) {
        for (index, turn) in turns.iter().enumerate() {
            let within = turns[index..].iter().filter(|other| **other - *turn < Duration::from_secs(1)).count();
            assert!(within <= limit, "{within} from turn {index} on");
        }
    }

    #[test]
    fn no_second_has_more_turns_than_the_limit_and_few_are_wasted() {
        let pace = pace(50);
        let (mut now, mut turns) = (Duration::from_secs(7), Vec::new());
        for asked in 0..500 {
            turns.push(at(take(&pace, None, now, now + MINUTE)).unwrap());
            // Now and then nobody asks for a while: what is missed is not made up for by a burst.
            if asked % 100 == 99 {
                now = turns[asked] + Duration::from_millis(700);
            }
        }
        assert_at_most(50, &turns);
        let took = *turns.last().unwrap() - turns[0];
        assert!(took < Duration::from_millis(500 * 21 + 4 * 700), "{took:?}");
    }

    #[test]
    fn who_would_come_too_late_takes_no_turn_from_those_who_ask_later() {
        let pace = pace(2);
        let now = Duration::from_secs(7);
        let second = now + Duration::from_secs(1);
        let taken = (0..100).filter(|_| at(take(&pace, None, now, second)).is_some()).count();
        assert_eq!(taken, 2);
        assert!(!pace.has_turn(second));
        let later = second + Duration::from_millis(100);
        assert!(at(take(&pace, None, later, later)).is_some(), "the hundred that were refused hold nobody up");
    }

    #[test]
    fn a_relay_and_a_domain_both_keep_their_limits_and_neither_wastes_the_turns_of_the_other() {
        let (relay, domain) = (pace(50), pace(10));
        let (mut now, mut all, mut of_domain) = (Duration::from_secs(7), Vec::new(), Vec::new());
        // Twenty mails wait for a turn at any time, every other one for the domain: each asks again when it is told to.
        while now < Duration::from_secs(27) {
            while relay.state().next < now + Duration::from_millis(400) {
                if let Turn::At(turn) = take(&relay, Some(&domain), now, now + MINUTE) {
                    all.push(turn);
                    of_domain.push(turn);
                }
                all.extend(at(take(&relay, None, now, now + MINUTE)));
            }
            now += Duration::from_millis(10);
        }
        assert_at_most(50, &all);
        assert_at_most(10, &of_domain);
        assert!(all.len() >= 49 * 20 && of_domain.len() >= 19 * 9, "{} and {}", all.len(), of_domain.len());
    }

    #[test]
    fn mails_that_are_put_back_come_again_one_by_one_and_within_ten_minutes() {
        let pace = pace(1);
        let now = Duration::from_secs(7);
        let slots: Vec<Duration> = (0..2000).map(|_| pace.slot(now, Duration::ZERO, 0.5)).collect();
        let apart = slots[..500].windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(1));
        assert!(apart && slots[0] >= Duration::from_secs(2), "{slots:?}");
        assert!(slots.iter().all(|slot| *slot <= SLOT_MAX));
    }

    #[test]
    fn sixty_thousand_mails_of_a_domain_of_ten_a_second_come_back_seldom() {
        let pace = pace(10);
        let (mut waiting, mut cycles) = (std::collections::BTreeMap::<u64, u64>::from([(0, 60_000)]), 0_u64);
        let mut left = 60_000_u64;
        for second in 0..1200 {
            let came = waiting.remove(&second).unwrap_or_default();
            let sent = came.min(10);
            left -= sent;
            for number in 0..came - sent {
                let random = (number * 7919 % 1000) as f64 / 1000.0;
                let wait = pace.slot(Duration::from_secs(second), Duration::ZERO, random);
                *waiting.entry(second + wait.as_secs().max(1)).or_default() += 1;
                cycles += 1;
            }
        }
        assert!(cycles < 60_000 * 5, "{cycles} cycles in 20 minutes");
        assert!(left < 60_000 - 1200 * 9, "{left} left: no turn is lost by the long waits");
    }

    #[test]
    fn mails_that_wait_for_a_limit_that_was_just_found_come_again_within_a_minute() {
        let (pace, now) = (Pace::new(None), Duration::from_secs(7));
        pace.refused(now, Sign::Load, None);
        let longest = |now| (0..10_000).map(|_| pace.slot(now, Duration::ZERO, 1.0)).max().unwrap();
        assert!(longest(now) <= SLOT_MAX_AT_FIRST);
        assert!(longest(now + Duration::from_secs(300)) > Duration::from_secs(200));
    }

    #[test]
    fn a_refusal_slows_the_next_turns_down_and_the_configured_limit_still_holds() {
        let (relay, now) = (pace(50), Duration::from_secs(7));
        (0..20).for_each(|_| relay.accepted(now, Duration::from_millis(5)));
        relay.refused(now, Sign::Load, None);
        let rate = relay.per_second(now).unwrap();
        assert!((10.0..20.0).contains(&rate), "{rate}");
        let now = now + Duration::from_secs(1);
        (0..100_000).for_each(|_| relay.accepted(now, Duration::from_millis(5)));
        let rate = relay.per_second(now).unwrap();
        assert!((49.0..50.0).contains(&rate), "{rate}");
    }
}
