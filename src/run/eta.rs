//! When a run will have ended, from its counters, its rate and the limits that hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

use super::effects::quota::Allowance;
use super::pace::Rate;

/// When a run will probably have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eta {
    /// The most likely moment.
    pub at: Timestamp,
    /// The band: not before this, as far as can be told ...
    pub earliest: Timestamp,
    /// ... and not after this.
    pub latest: Timestamp,
    /// Recipients an hour that it is made from.
    pub per_hour: u64,
    /// Where that rate is from.
    pub basis: Basis,
    /// The limit that holds the run up, or why it does not go on now; `None` when neither is known.
    pub bound_by: Option<String>,
}

/// Where the rate of an estimate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The last minutes of the run itself.
    Measured,
    /// An earlier run of the schedule.
    EarlierRun,
    /// A limit of the configuration: nothing was measured yet.
    Limit,
}

/// What is known about the rest of a run.
#[derive(Clone, Debug)]
pub struct Rest {
    /// The present moment.
    pub now: Timestamp,
    /// Before this no more of its recipients end: its users are being fetched, or a destination is away; and why.
    pub goes_on: Option<(Timestamp, String)>,
    /// Recipients that have not ended.
    pub left: u64,
    /// How fast they will end.
    pub rate: Rate,
    /// Where that is from.
    pub basis: Basis,
    /// The relay's limit for a second.
    pub per_second: Option<u32>,
    /// The relay's limit for a day.
    pub allowance: Option<Allowance>,
}

/// A rate so near to `relay.per_second` is bound by it.
const NEAR: f64 = 0.93;

impl Rest {
    /// When it will have ended; `None` when nothing says so.
    pub fn eta(&self) -> Option<Eta> {
        if self.rate.per_second <= 0.0 {
            return None;
        }
        let (slow, fast) = self.rate.band();
        let cap = self.per_second.map_or(f64::INFINITY, f64::from);
        let from = self.goes_on.as_ref().map_or(self.now, |(at, _)| (*at).max(self.now));
        let end = |per_second: f64| match &self.allowance {
            Some(allowance) => allowance.ends_at(from, self.left, per_second),
            None => Some(plain(from, self.left, per_second)),
        };
        let at = end(self.rate.per_second)?;
        let is_over_quota = at > plain(from, self.left, self.rate.per_second).after(Duration::from_secs(1));
        let bound_by = match &self.goes_on {
            Some((_, why)) => Some(why.clone()),
            None if is_over_quota => Some("relay.per_day".into()),
            None if self.rate.per_second >= cap * NEAR => Some("relay.per_second".into()),
            None => None,
        };
        Some(Eta {
            at,
            earliest: end(fast.min(cap.max(self.rate.per_second)))?.min(at),
            latest: end(slow)?.max(at),
            per_hour: (self.rate.per_second * 3600.0).round() as u64,
            basis: self.basis,
            bound_by,
        })
    }
}

/// When so many have ended at this rate.
fn plain(from: Timestamp, left: u64, per_second: f64) -> Timestamp {
    from.after(Duration::try_from_secs_f64(left as f64 / per_second).unwrap_or(Duration::MAX))
}

/// The estimates of all runs that are under way. Clones share them. The daemon sets them; whoever shows a run reads them.
#[derive(Clone, Debug, Default)]
pub struct Estimates(Arc<Mutex<BTreeMap<u64, Eta>>>);

impl Estimates {
    /// Replaces them all.
    pub fn set(&self, estimates: BTreeMap<u64, Eta>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = estimates;
    }

    /// That of a run.
    pub fn of(&self, run: u64) -> Option<Eta> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn rest(left: u64, per_second: f64) -> Rest {
        let rate = Rate { per_second, spread: 0.1 };
        let (per_second, allowance) = (None, None);
        Rest { now: NOW, goes_on: None, left, rate, basis: Basis::Measured, per_second, allowance }
    }

    fn seconds(eta: &Eta) -> [u64; 3] {
        [eta.earliest, eta.at, eta.latest].map(|at| at.since(NOW).as_secs())
    }

    #[test]
    fn the_rest_takes_its_number_over_the_rate_with_a_band_around_it() {
        let eta = rest(11_000, 10.0).eta().unwrap();
        assert_eq!((seconds(&eta), eta.per_hour, eta.bound_by), ([1000, 1100, 1222], 36_000, None));
        assert_eq!(rest(11_000, 0.0).eta(), None);
    }

    #[test]
    fn what_holds_the_run_up_is_added_and_named() {
        let away = Rest { goes_on: Some((NOW.after(Duration::from_secs(60)), "away".into())), ..rest(11_000, 10.0) };
        let eta = away.eta().unwrap();
        assert_eq!((seconds(&eta), eta.bound_by.as_deref()), ([1060, 1160, 1282], Some("away")));
        let paced = Rest { per_second: Some(10), ..rest(11_000, 9.8) };
        let eta = paced.eta().unwrap();
        assert_eq!(
            (seconds(&eta)[0], eta.bound_by.as_deref()),
            (1100, Some("relay.per_second")),
            "no faster than that"
        );
    }

    #[test]
    fn a_daily_quota_that_is_used_up_makes_the_rest_wait() {
        let allowance = Allowance { per_day: 1000, hours: BTreeMap::new() };
        let eta = Rest { allowance: Some(allowance), ..rest(1500, 10.0) }.eta().unwrap();
        let [_, at, _] = seconds(&eta);
        assert!((24 * 3600..=25 * 3600 + 60).contains(&at), "{at}");
        assert_eq!(eta.bound_by.as_deref(), Some("relay.per_day"));
    }
}
