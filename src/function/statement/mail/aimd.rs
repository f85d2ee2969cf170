//! What a relay takes in a second, found from its replies: additive increase, multiplicative decrease.
//!
//! Pure: time is an argument. While nothing was refused there is no rate, and nothing is slowed down. A refusal that speaks
//! of load lowers the rate a little below what was accepted meanwhile, since that is what the other side takes; one that may
//! have any reason does so only when too many of the mails are refused. Each accepted mail raises the rate by a step, and
//! the steps grow while it is not lowered, so that a limit that was raised is found soon.

use std::collections::VecDeque;
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
/// Refusals for unclear reasons are counted over this time.
const UNCLEAR_WITHIN: Duration = Duration::from_secs(10);
/// They lower the rate when so many messages, and more than this share of the mails that were begun, were refused. A hidden
/// limit may be exceeded by as much; what is refused comes again, uncharged.
const UNCLEAR_MIN: usize = 3;
const UNCLEAR_SHARE: f64 = 0.02;
/// More by so many standard deviations: as many are refused by chance now and then.
const UNCLEAR_DEVIATIONS: f64 = 3.0;

/// What a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// That there are too many mails.
    Load,
    /// That, or that something is wrong with this recipient.
    Unclear,
}

/// The mails that were accepted lately, counted without a lock: every mail is.
#[derive(Debug)]
pub(super) struct Accepted([AtomicU64; Self::SLOTS]);

impl Default for Accepted {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Self::SLOTS])
    }
}

impl Accepted {
    const SLOTS: usize = 64;
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
    /// The first refusal that gave it a rate, and the last that was a reason for one.
    limited: Duration,
    refused: Duration,
    /// Messages refused so far.
    pub(super) refusals: u64,
    /// Those refused lately for unclear reasons, since the rate was lowered.
    unclear: VecDeque<Duration>,
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
        self.sent += (1.0 / rate).min(1.0);
    }

    /// A message was refused for the first time. `own` are the accepted mails of the same destination; `accepted` are those, or
    /// while it has none, others that tell what was sent. Returns whether the rate was lowered.
    pub(super) fn refused(&mut self, now: Duration, sign: Sign, own: &Accepted, accepted: &Accepted) -> bool {
        self.refusals += 1;
        let known = self.per_second(now);
        if known.is_some() && now.saturating_sub(self.lowered) < HOLD {
            return false;
        }
        if sign == Sign::Unclear && !self.is_excess(now, own) {
            return false;
        }
        self.unclear.clear();
        if known.is_none() {
            self.limited = now;
        }
        self.refused = now;
        self.lower(now, known, accepted);
        true
    }

    /// Whether more are refused than can be put down to their recipients; counts one more.
    fn is_excess(&mut self, now: Duration, accepted: &Accepted) -> bool {
        let from = now.saturating_sub(UNCLEAR_WITHIN).max(self.lowered);
        while self.unclear.front().is_some_and(|at| *at < from) {
            self.unclear.pop_front();
        }
        self.unclear.push_back(now);
        let refused = self.unclear.len();
        let expected = (accepted.since(from, now) as f64 + refused as f64) * UNCLEAR_SHARE;
        refused >= UNCLEAR_MIN && refused as f64 > expected + UNCLEAR_DEVIATIONS * expected.sqrt()
    }

    fn lower(&mut self, now: Duration, known: Option<f64>, accepted: &Accepted) {
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

    /// How long there has been a rate.
    pub(super) fn limited_for(&self, now: Duration) -> Option<Duration> {
        self.per_second(now).map(|_| now.saturating_sub(self.limited))
    }

    /// When the last mail was refused for its rate.
    pub(super) fn last_refusal(&self) -> Option<Duration> {
        self.base.map(|_| self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{Night, Relay, send};
    use super::*;

    const BUCKET: Relay = Relay::bucket(&[(0.0, 50.0)], 10.0);

    fn share(night: &Night) -> f64 {
        night.accepted as f64 / night.oracle
    }

    #[test]
    fn what_is_sent_is_at_least_95_percent_of_what_an_oracle_would_send_whatever_the_limit() {
        for (sign, refused_max) in [(Sign::Load, 0.15), (Sign::Unclear, 0.2)] {
            for limit in [2.0, 14.0, 50.0, 200.0] {
                for depth in [5.0, 50.0] {
                    let limits = [(0.0, limit)];
                    let night = send(&Relay { sign, ..Relay::bucket(&limits, depth) }, 600.0);
                    let refused = night.refused as f64 / night.accepted as f64;
                    let share = share(&night);
                    assert!(share >= 0.95, "{sign:?}, {limit} a second, depth {depth}: {share:.3}");
                    assert!(refused < refused_max, "{sign:?}, {limit} a second, depth {depth}: {refused:.3} refused");
                }
            }
        }
    }

    #[test]
    fn a_limit_that_changes_is_found_again_and_again() {
        let limits = [(0.0, 50.0), (400.0, 20.0), (800.0, 100.0), (1200.0, 10.0), (1600.0, 60.0)];
        for sign in [Sign::Load, Sign::Unclear] {
            let night = send(&Relay { sign, ..Relay::bucket(&limits, 10.0) }, 2000.0);
            assert!(share(&night) >= 0.95, "{sign:?}: {:.3}, {} refused", share(&night), night.refused);
        }
    }

    #[test]
    fn recipients_that_are_refused_for_good_and_refusals_by_chance_leave_at_least_90_percent_of_the_capacity() {
        for domains in [1, 5, 200] {
            let limits = [(0.0, 1e9)];
            let free = Relay { domains, sign: Sign::Unclear, ..Relay::bucket(&limits, 1e9) };
            let oracle = send(&free, 50.0).accepted as f64;
            let dead = send(&Relay { dead: Some(2000), ..free }, 50.0);
            assert!(dead.accepted as f64 >= 0.9 * oracle, "{domains} domains: {} of {oracle}", dead.accepted);
            for by_chance in [0.005, 0.02] {
                let night = send(&Relay { by_chance, dead: Some(2000), ..free }, 50.0);
                assert!(
                    night.accepted as f64 >= 0.9 * oracle,
                    "{domains} domains, {by_chance}: {} of {oracle}",
                    night.accepted
                );
            }
        }
    }

    #[test]
    fn dialogues_of_varying_length_are_no_reason_to_stay_slow() {
        let night = send(&Relay { dialogue: (0.25, 0.5), ..BUCKET }, 600.0);
        assert!(share(&night) >= 0.9, "{:.3} of the oracle", share(&night));
    }

    #[test]
    fn a_minute_after_passing_refusals_mails_go_at_full_speed() {
        let limits = [(0.0, 1e9), (30.0, 0.0), (50.0, 1e9)];
        for sign in [Sign::Load, Sign::Unclear] {
            let relay = Relay { sign, dialogue: (0.25, 0.5), ..Relay::bucket(&limits, 1.0) };
            let night = send(&relay, 140.0);
            let last = night.times.iter().filter(|at| (110.0..130.0).contains(*at)).count();
            assert!(last >= 20 * 380, "{sign:?}: {last} in 20 seconds");
        }
    }

    #[test]
    fn nothing_is_slowed_down_before_a_refusal_and_a_rate_is_forgotten_without_one() {
        let (mut controller, accepted) = (Controller::default(), Accepted::default());
        let at = Duration::from_secs;
        (0..1000).for_each(|_| controller.accepted(at(10), Duration::from_millis(5)));
        assert_eq!(controller.per_second(at(10)), None);
        controller.refused(at(11), Sign::Load, &accepted, &accepted);
        assert_eq!(controller.per_second(at(12)), Some(10.0), "nothing at all was accepted");
        assert_eq!(controller.per_second(at(11 + 601)), None);
    }

    #[test]
    fn three_messages_and_more_than_two_percent_must_be_refused_for_unclear_reasons() {
        let lowered = |mails: u64, refused: u64| {
            let (mut controller, accepted) = (Controller::default(), Accepted::default());
            let at = Duration::from_secs(10);
            (0..mails).for_each(|_| accepted.add(at));
            (0..refused).any(|_| controller.refused(at, Sign::Unclear, &accepted, &accepted))
        };
        assert!(!lowered(0, 2) && lowered(0, 3));
        assert!(!lowered(1000, 20) && lowered(1000, 50));
    }
}
