//! What a relay takes in a second, found from its replies: additive increase, multiplicative decrease.
//!
//! Pure: time is an argument. While nothing was refused there is no rate, and nothing is slowed down. A refusal lowers the
//! rate a little below what was accepted meanwhile, since that is what the other side takes; each accepted mail raises it by
//! a step, and the steps grow while nothing is refused, so that a limit that was raised is found soon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A refusal lowers the rate to this share of what was accepted.
const DECREASE: f64 = 0.97;
/// Where too little was accepted to tell, it is lowered to this share of itself.
const DECREASE_BLINDLY: f64 = 0.5;
/// But not below so many mails a second: a relay that takes none for a while has no rate, and what it takes afterwards is to be
/// found soon.
const BLINDLY_MIN: f64 = 1.0;
/// The first rate is not below so many mails a second: mostly little was sent before the first refusal.
const FIRST_MIN: f64 = 10.0;
/// Refusals within this time are of one excess: what was under way when the rate was lowered is refused too.
const HOLD: Duration = Duration::from_millis(500);
/// What is accepted is looked at over at most this time, and at least over that.
const MEASURE_MAX: Duration = Duration::from_secs(5);
const MEASURE_MIN: Duration = Duration::from_secs(1);
/// So many mails tell a rate well.
const MEASURED: f64 = 20.0;
/// Fewer mails than this say nothing about a rate.
const ACCEPTED_MIN: u64 = 3;
/// In each second of sending the rate rises by this share of what it was lowered to; by less below so many mails a second, where
/// a refusal costs more of what could have been sent ...
const STEP: f64 = 0.01;
const STEP_WHOLE: f64 = 20.0;
/// ... and by twice as much again and again after so many seconds of sending without a refusal.
const STEP_DOUBLES: f64 = 3.0;
/// The rate does not rise by more than this factor before the next refusal is waited for.
const RISE_MAX: f64 = 1024.0;
/// No refusals bring the rate below one mail in this time.
const SLOWEST: Duration = Duration::from_secs(10);
/// Without a refusal for so long the rate is forgotten: what refused may have been another's load.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A relay that takes so many times as long as at its best is not asked for more.
const SLOW: u32 = 2;
/// As long as this no relay is slow.
const SLOW_MIN: Duration = Duration::from_millis(100);

/// The mails that were accepted lately, counted without a lock: every mail is.
#[derive(Debug, Default)]
pub(super) struct Accepted([AtomicU64; Self::SLOTS]);

impl Accepted {
    const SLOTS: usize = 32;
    const SLOT: Duration = Duration::from_millis(250);

    /// One more is accepted.
    pub(super) fn add(&self, now: Duration) {
        let stamp = Self::stamp(now);
        let slot = &self.0[stamp as usize % Self::SLOTS];
        let count = |packed: u64| if packed >> 32 == stamp { packed + 1 } else { stamp << 32 | 1 };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| Some(count(packed)));
    }

    /// How many were accepted from that moment on, in whole slots.
    fn since(&self, from: Duration, now: Duration) -> u64 {
        let (first, last) = (Self::stamp(from), Self::stamp(now));
        let slots = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(|packed| (first..=last).contains(&(packed >> 32))).map(|packed| packed & u64::from(u32::MAX)).sum()
    }

    fn stamp(at: Duration) -> u64 {
        // One, so that no slot that was never used counts.
        (at.as_millis() / Self::SLOT.as_millis()) as u64 + 1
    }

    /// The beginning of the slot of a moment.
    fn begin(at: Duration) -> Duration {
        Self::SLOT * (Self::stamp(at) - 1) as u32
    }
}

/// The rate at which mails may be begun.
#[derive(Debug, Default)]
pub(super) struct Controller {
    /// What the rate was lowered to; `None` while nothing was refused.
    base: Option<f64>,
    /// Seconds of sending at the rate since then.
    sent: f64,
    /// Whether that is near what the other side takes. What was accepted before the first refusal may have been little, so
    /// the rate doubles with each second until the next one.
    is_found: bool,
    /// When it was lowered.
    lowered: Duration,
    /// The last refusal.
    refused: Duration,
    /// Refusals so far.
    pub(super) refusals: u64,
    /// The fastest dialogue since the rate was found, and the mean of the last ones.
    fastest: Option<Duration>,
    mean: Duration,
}

impl Controller {
    /// Mails a second; `None` while no limit is known.
    pub(super) fn per_second(&self, now: Duration) -> Option<f64> {
        let base = self.base?;
        if now.saturating_sub(self.refused) > FORGET_AFTER {
            return None;
        }
        if !self.is_found {
            return Some(base * self.sent.min(10.0).exp2());
        }
        let step = STEP * (base / STEP_WHOLE).min(1.0);
        let doubled = (self.sent / STEP_DOUBLES).floor();
        let grown = step * STEP_DOUBLES * (doubled.exp2() - 1.0);
        let growing = step * doubled.exp2() * (self.sent - doubled * STEP_DOUBLES);
        Some(base * (1.0 + grown + growing).min(RISE_MAX))
    }

    /// A mail was accepted; its dialogue took so long.
    pub(super) fn accepted(&mut self, now: Duration, took: Duration) {
        let Some(rate) = self.per_second(now) else { return };
        // What began before the rate was lowered says nothing about it.
        if now.saturating_sub(took) < self.lowered {
            return;
        }
        let fastest = self.fastest.map_or(took, |fastest| fastest.min(took));
        self.fastest = Some(fastest);
        self.mean = if self.mean.is_zero() { took } else { (self.mean * 7 + took) / 8 };
        // One that answers more and more slowly has as much as it can take.
        if self.mean <= (fastest * SLOW).max(SLOW_MIN) {
            self.sent += (1.0 / rate).min(1.0);
        }
    }

    /// A mail was refused because there were too many. `accepted` are those of the same destination.
    pub(super) fn refused(&mut self, now: Duration, accepted: &Accepted) {
        self.refusals += 1;
        let known = self.per_second(now);
        self.refused = now;
        if known.is_some() && now.saturating_sub(self.lowered) < HOLD {
            return;
        }
        // What was sent at the present rate; before there was one, in the last second.
        let from = if known.is_some() { self.lowered } else { now.saturating_sub(MEASURE_MIN) };
        // While it rose fast, only the end tells: what was accepted before is what was asked for.
        let enough = known
            .filter(|_| !self.is_found || self.sent > 2.0 * STEP_DOUBLES)
            .map_or(f64::INFINITY, |rate| MEASURED / rate);
        let span = Duration::try_from_secs_f64(enough).unwrap_or(MEASURE_MAX).clamp(MEASURE_MIN, MEASURE_MAX);
        let from = from.max(now.saturating_sub(span));
        let span = (now - Accepted::begin(from)).max(HOLD).as_secs_f64();
        let count = accepted.since(from, now);
        let measured = count as f64 / span * DECREASE;
        let is_told = count >= ACCEPTED_MIN;
        let rate = match known {
            Some(rate) if is_told => measured.min(rate * DECREASE),
            Some(rate) => (rate * DECREASE_BLINDLY).max(BLINDLY_MIN.min(rate)),
            None => measured.max(FIRST_MIN),
        };
        self.base = Some(rate.max(1.0 / SLOWEST.as_secs_f64()));
        self.is_found = known.is_some() && is_told;
        (self.sent, self.lowered) = (0.0, now);
    }

    /// When the last mail was refused.
    pub(super) fn last_refusal(&self) -> Option<Duration> {
        self.base.map(|_| self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::send;
    use super::*;

    #[test]
    fn what_is_sent_is_at_least_95_percent_of_what_an_oracle_would_send_whatever_the_limit() {
        for per_second in [2.0, 14.0, 50.0, 200.0] {
            for depth in [5.0, 50.0] {
                let night = send(&[(0.0, per_second)], depth, 600.0);
                let share = night.accepted as f64 / night.oracle;
                let refused = night.refused as f64 / night.accepted as f64;
                assert!(share >= 0.95, "{per_second} a second, depth {depth}: {share:.3}");
                assert!(refused < 0.15, "{per_second} a second, depth {depth}: {refused:.3} refused");
            }
        }
    }

    #[test]
    fn a_limit_that_changes_is_found_again_and_again() {
        let limits = [(0.0, 50.0), (400.0, 20.0), (800.0, 100.0), (1200.0, 10.0), (1600.0, 60.0)];
        let night = send(&limits, 10.0, 2000.0);
        let share = night.accepted as f64 / night.oracle;
        assert!(share >= 0.95, "{share:.3} of the oracle, {} refused", night.refused);
    }

    #[test]
    fn nothing_is_slowed_down_before_a_refusal_and_a_rate_is_forgotten_without_one() {
        let (mut controller, accepted) = (Controller::default(), Accepted::default());
        let at = Duration::from_secs;
        (0..1000).for_each(|_| controller.accepted(at(10), Duration::from_millis(5)));
        assert_eq!(controller.per_second(at(10)), None);
        controller.refused(at(11), &accepted);
        assert_eq!(controller.per_second(at(12)), Some(10.0), "nothing at all was accepted");
        assert_eq!(controller.per_second(at(11 + 601)), None);
    }

    #[test]
    fn a_relay_that_answers_more_and_more_slowly_is_not_asked_for_more() {
        let (mut controller, accepted) = (Controller::default(), Accepted::default());
        let at = Duration::from_secs(10);
        (0..50).for_each(|_| accepted.add(at));
        controller.refused(at, &accepted);
        let (rate, at) = (controller.per_second(at).unwrap(), at + Duration::from_secs(10));
        controller.accepted(at, Duration::from_millis(80));
        assert!(controller.per_second(at).unwrap() > rate);
        (0..100).for_each(|_| controller.accepted(at, Duration::from_secs(1)));
        let slow = controller.per_second(at).unwrap();
        (0..100).for_each(|_| controller.accepted(at, Duration::from_secs(1)));
        assert_eq!(controller.per_second(at), Some(slow));
    }
}
