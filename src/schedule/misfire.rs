//! Decides the ticks that have come due: which fire, which are recorded as skipped, and why.
//!
//! A pure decision over a rule and moments; the caller writes one durable row for each [`Decided`] and asks again until
//! nothing is due. Knows no store, no clock and no fan-out.

use std::fmt;
use std::time::Duration;

use crate::base::Timestamp;

use super::options::Misfire;
use super::rule::Rule;

/// A tick decided within this time is on time, whatever the policy: daemons restart and clocks are corrected.
pub const ON_TIME_MAX: Duration = Duration::from_secs(60);
/// One call decides at most this many rows.
pub const DECIDED_MAX: usize = 100;
/// Of one run of skipped ticks, the newest ones with a row of their own; one row sums up all before them. Together with
/// the at most 61 ticks on time and one that is made up this stays below [`DECIDED_MAX`], so `once` is always decided
/// in one call.
pub const SKIPPED_ROWS_MAX: usize = 32;

/// What is due now and when to check again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Oldest first, at most [`DECIDED_MAX`]; when it is not empty there may be more: write the rows and ask again with
    /// the newest of them as `last_decided`.
    pub due: Vec<Decided>,
    /// The first tick that is still to come: after `now` and after every tick that counts as decided.
    pub next: Option<Timestamp>,
}

/// One durable row of the tick ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The tick; of a row that sums up several, the newest of them.
    pub scheduled_for: Timestamp,
    /// The decision.
    pub verdict: Verdict,
}

/// The decision about a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts its run.
    Fire,
    /// It never starts a run.
    Skipped {
        /// Why not.
        why: Why,
        /// The oldest tick that this row stands for; equal to `scheduled_for` in a row of one tick.
        first: Timestamp,
        /// How many ticks this row stands for, from `first` to `scheduled_for`; at least 1.
        ticks: u64,
    },
}

/// Why a tick was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// `misfire = "once"`: this later tick fires for all that were missed.
    MadeUpBy(Timestamp),
    /// It was found later than its grace.
    LaterThanGrace(Duration),
    /// `misfire = "skip"`: it was missed.
    Missed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeUpBy(later) => write!(f, "made up by the later tick {later}"),
            Self::LaterThanGrace(grace) => {
                write!(f, "found later than its grace of {}", crate::base::units::show_duration(*grace))
            }
            Self::Missed => f.write_str("missed, and the schedule skips missed ticks"),
        }
    }
}

/// Decides the ticks after `last_decided` (none before `first_seen`) up to and including `now`.
///
/// A tick is *on time* when it is found at most [`ON_TIME_MAX`] after its moment, and then it fires. A later one is
/// *missed*: with [`Misfire::Once`] the latest missed tick fires, if within `grace`, and stands for all before it; with
/// [`Misfire::All`] each one within `grace` fires; with [`Misfire::Skip`] none does.
///
/// `last_decided` is the newest tick whose decision counts (see [`super::watermark`]); no tick up to it is decided
/// again. `first_seen` is when the schedule was first known. Memory is bounded by [`DECIDED_MAX`] rows, and years of
/// missed ticks cost a count by days.
pub fn decide(
    rule: &Rule,
    misfire: Misfire,
    grace: Duration,
    last_decided: Option<Timestamp>,
    first_seen: Timestamp,
    now: Timestamp,
) -> Decision {
    let undecided_after = last_decided.unwrap_or(Timestamp::ZERO).max(before(first_seen));
    let mut due = Due { rule, upto: undecided_after, rows: Vec::new() };
    let missed_until = latest_later_than(now, ON_TIME_MAX);
    let forgone_until = missed_until.min(latest_later_than(now, grace));
    match misfire {
        Misfire::Once => due.once(missed_until, forgone_until, grace),
        Misfire::All => due.skip(forgone_until, Why::LaterThanGrace(grace)),
        Misfire::Skip => due.skip(missed_until, Why::Missed),
    }
    due.fire(now);
    Decision { due: due.rows, next: rule.next_after(undecided_after.max(now)) }
}

/// The newest moment that is more than `span` before `now`.
fn latest_later_than(now: Timestamp, span: Duration) -> Timestamp {
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(span_ms).saturating_sub(1))
}

fn before(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis().saturating_sub(1))
}

/// The rows of one decision as they grow, oldest first.
struct Due<'a> {
    rule: &'a Rule,
    /// Every tick up to here has its row.
    upto: Timestamp,
    rows: Vec<Decided>,
}

impl Due<'_> {
    /// The latest missed tick stands for all before it.
    fn once(&mut self, missed_until: Timestamp, forgone_until: Timestamp, grace: Duration) {
        let Some(latest) = self.rule.latest_until(missed_until).filter(|tick| *tick > self.upto) else { return };
        if latest <= forgone_until {
            return self.skip(latest, Why::LaterThanGrace(grace));
        }
        self.skip(before(latest), Why::MadeUpBy(latest));
        self.rows.push(Decided { scheduled_for: latest, verdict: Verdict::Fire });
        self.upto = latest;
    }

    /// Skips every tick up to `until`: a row each for the newest, one for all before those.
    fn skip(&mut self, until: Timestamp, why: Why) {
        let rule = self.rule;
        let upto = self.upto;
        let earlier = |tick: Timestamp| rule.latest_until(tick).filter(|tick| *tick > upto);
        let newest_first = std::iter::successors(earlier(until), |tick| earlier(before(*tick)));
        let mut single: Vec<Timestamp> = newest_first.take(SKIPPED_ROWS_MAX).collect();
        single.reverse();
        let Some(oldest) = single.first() else { return };
        if let Some(last) = earlier(before(*oldest)) {
            let first = rule.next_after(upto).unwrap_or(last);
            let ticks = rule.count_between(upto, last);
            self.rows.push(Decided { scheduled_for: last, verdict: Verdict::Skipped { why, first, ticks } });
        }
        self.rows.extend(
            single.iter().map(|tick| Decided {
                scheduled_for: *tick,
                verdict: Verdict::Skipped { why, first: *tick, ticks: 1 },
            }),
        );
        self.upto = until.max(upto);
    }

    /// Fires the ticks up to `until`, at most as many as fit under [`DECIDED_MAX`].
    fn fire(&mut self, until: Timestamp) {
        let capacity = DECIDED_MAX.saturating_sub(self.rows.len());
        let ticks = self.rule.ticks_between(self.upto, until).take(capacity);
        self.rows.extend(ticks.map(|scheduled_for| Decided { scheduled_for, verdict: Verdict::Fire }));
    }
}

#[cfg(test)]
#[path = "misfire_tests.rs"]
mod tests;
