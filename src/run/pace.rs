//! How fast the recipients of a run end: a meter over its counters.
//!
//! Time is an argument, and recipients' rows are never counted. What is away or held does not count as time, because an estimate
//! adds the wait itself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::LeaseTime;

/// No rate looks further back.
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// A rate looks back over at least this time when there is that much, so that the distances of single commits do not show.
const WINDOW_MIN: Duration = Duration::from_secs(10);
/// And over this share of the run, in percent: less than the twentieth within which a changed limit must show, and enough to
/// even out the swings of a relay that is near its limit.
const WINDOW_SHARE: u64 = 3;
/// There is no rate before so many recipients have ended in the window.
const ENDED_MIN: u64 = 10;
/// A rate's spread is found from so many parts of its window.
const PARTS: u64 = 8;
/// The least relative spread: what the next minutes may differ from the last.
const SPREAD_MIN: f64 = 0.03;

/// How fast recipients end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Recipients a second.
    pub per_second: f64,
    /// By what share of itself it may be wrong.
    pub spread: f64,
}

impl Rate {
    /// A rate that was not measured: it may well be wrong.
    pub const fn assumed(per_second: f64) -> Self {
        Self { per_second, spread: 0.25 }
    }

    /// The slowest and the fastest that it may be.
    pub fn band(self) -> (f64, f64) {
        (self.per_second * (1.0 - self.spread.min(0.9)), self.per_second * (1.0 + self.spread))
    }
}

/// Measures one run.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// The time in which the run went on, in milliseconds.
    active_ms: u64,
    /// That time and the recipients that had ended then, the oldest first; those that a rate may look back to.
    samples: VecDeque<(u64, u64)>,
    /// The last look.
    last: Option<(LeaseTime, u64)>,
}

impl Meter {
    /// Takes in how many recipients have ended by now. `is_going`: the run's messages were worked on since the last look.
    pub fn observe(&mut self, now: LeaseTime, ended: u64, is_going: bool) {
        let before = self.last.replace((now, ended));
        match before {
            Some((at, count)) if count <= ended => {
                if !is_going && count == ended {
                    return;
                }
                self.active_ms += now.since(at).as_millis() as u64;
            }
            // The first look; or a redrive has opened some of them again.
            _ => self.samples.clear(),
        }
        self.samples.push_back((self.active_ms, ended));
        let oldest = self.active_ms.saturating_sub(WINDOW_MAX.as_millis() as u64);
        // The newest sample that is as old as the window stays: the window begins there.
        while self.samples.get(1).is_some_and(|(at, _)| *at <= oldest) {
            self.samples.pop_front();
        }
    }

    /// How fast recipients end now, of a run of `total`; `None` before enough of them have.
    pub fn rate(&self, total: u64) -> Option<Rate> {
        let (now, ended) = *self.samples.back()?;
        let enough = |(at, count): &&(u64, u64)| {
            let is_long = now - at >= WINDOW_MIN.as_millis() as u64;
            is_long && ended - count >= (total * WINDOW_SHARE / 100).max(ENDED_MIN)
        };
        let from = self.samples.iter().rev().find(enough).or_else(|| self.samples.front())?;
        let (span_ms, count) = (now - from.0, ended - from.1);
        if count < ENDED_MIN || span_ms == 0 {
            return None;
        }
        let per_second = count as f64 * 1000.0 / span_ms as f64;
        Some(Rate { per_second, spread: self.spread(*from, span_ms, per_second) })
    }

    /// By what share the mean may be wrong: twice its standard error, as the parts of the window differ.
    fn spread(&self, from: (u64, u64), span_ms: u64, mean: f64) -> f64 {
        let (mut squares, mut parts, mut begin) = (0.0, 0_u32, from);
        for sample in self.samples.iter().filter(|(at, _)| *at > from.0) {
            let span = sample.0 - begin.0;
            if span * PARTS >= span_ms {
                let rate = (sample.1 - begin.1) as f64 * 1000.0 / span as f64;
                squares += (rate - mean).powi(2);
                (parts, begin) = (parts + 1, *sample);
            }
        }
        if parts < 2 {
            return SPREAD_MIN.max(0.1);
        }
        let error = (squares / f64::from(parts - 1) / f64::from(parts)).sqrt();
        (2.0 * error / mean).max(SPREAD_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::statement::mail::simulation::{Relay, send};

    fn at(ms: u64) -> LeaseTime {
        LeaseTime::from_millis(1_000_000 + ms)
    }

    /// A meter that looked each second while so many a second ended.
    fn steady(per_second: u64, seconds: u64) -> Meter {
        let mut meter = Meter::default();
        (0..=seconds).for_each(|second| meter.observe(at(second * 1000), second * per_second, true));
        meter
    }

    #[test]
    fn a_steady_run_has_its_rate_within_the_first_twentieth_and_a_changed_one_a_twentieth_later() {
        let total = 100_000;
        let mut meter = steady(50, 100);
        let rate = meter.rate(total).unwrap();
        assert!((rate.per_second - 50.0).abs() < 0.5 && rate.spread <= 0.05, "{rate:?}");
        // From here on 20 a second: 5,000 more take 250 s.
        (1..=250).for_each(|second| meter.observe(at(100_000 + second * 1000), 5000 + second * 20, true));
        let rate = meter.rate(total).unwrap();
        assert!((rate.per_second - 20.0).abs() < 0.5, "{rate:?}");
    }

    /// The worst error of an estimate, as a share of the time that is left, from the moment on at which a twentieth of all mails
    /// has gone under the relay's last limit.
    fn worst(limits: &[(f64, f64)], seconds: f64) -> f64 {
        let night = send(&Relay::bucket(limits, 10.0), seconds);
        let (total, end) = (night.times.len(), night.times[night.times.len() - 1]);
        let (changed, _) = limits[limits.len() - 1];
        let sent = |until: f64| night.times.partition_point(|at| *at <= until);
        let (mut meter, mut worst) = (Meter::default(), 0.0_f64);
        for second in 0..seconds as u64 {
            let now = second as f64;
            meter.observe(at(second * 1000), sent(now) as u64, true);
            let is_due = now > changed && (sent(now) - sent(changed)) * 20 >= total;
            if is_due && end - now > 1.0 {
                let rate = meter.rate(total as u64).unwrap().per_second;
                let estimated = (total - sent(now)) as f64 / rate;
                worst = worst.max(((estimated - (end - now)) / (end - now)).abs());
            }
        }
        worst
    }

    #[test]
    fn estimates_are_within_a_tenth_after_a_twentieth_at_a_relay_with_a_hidden_limit_and_a_twentieth_after_it_changes()
    {
        for per_second in [14.0, 50.0, 200.0] {
            let worst = worst(&[(0.0, per_second)], 600.0);
            assert!(worst < 0.1, "{per_second} a second: {worst:.3}");
        }
        for changes in [[(0.0, 50.0), (300.0, 20.0)], [(0.0, 20.0), (300.0, 100.0)], [(0.0, 100.0), (300.0, 30.0)]] {
            let worst = worst(&changes, 900.0);
            assert!(worst < 0.1, "{changes:?}: {worst:.3}");
        }
    }

    #[test]
    fn time_in_which_nothing_could_go_on_does_not_count() {
        let mut meter = steady(10, 60);
        (1..=600).for_each(|second| meter.observe(at(60_000 + second * 1000), 600, false));
        assert!((meter.rate(10_000).unwrap().per_second - 10.0).abs() < 0.1);
        let mut stalled = steady(10, 60);
        (1..=600).for_each(|second| stalled.observe(at(60_000 + second * 1000), 600, true));
        assert_eq!(stalled.rate(10_000), None, "one that nothing holds up and that still does not go on has no rate");
    }

    #[test]
    fn there_is_no_rate_before_anything_is_measured_and_a_redrive_begins_anew() {
        assert_eq!(Meter::default().rate(100), None);
        assert_eq!(steady(1, 5).rate(100), None);
        let mut meter = steady(10, 60);
        meter.observe(at(61_000), 590, true);
        assert_eq!(meter.rate(10_000), None);
    }

    #[test]
    fn a_run_that_goes_by_fits_and_starts_has_a_wide_band() {
        let mut meter = Meter::default();
        (0..=80_u64).for_each(|second| meter.observe(at(second * 1000), second / 20 * 200, true));
        let rate = meter.rate(4000).unwrap();
        let (slow, fast) = rate.band();
        assert!(rate.spread > 0.2 && slow < 8.0 && fast > 12.0, "{rate:?}");
    }
}
