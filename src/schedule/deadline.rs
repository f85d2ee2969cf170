//! From a schedule's deadline, a time of day, to the moment at which a run must have ended.

use jiff::civil::Date;

use crate::base::Timestamp;

use super::Options;

impl Options {
    /// When the run of that tick must have ended: at the deadline's time on the tick's day, in the schedule's zone, or on the
    /// day after when that is not after the tick. A time that the clock skips on that day is moved by as much as it skips,
    /// and of one that comes twice the first is meant. `None` without a deadline.
    pub fn deadline_of(&self, tick: Timestamp) -> Option<Timestamp> {
        let (time, zone) = (self.deadline?, self.rule.zone());
        let day = tick.to_jiff()?.to_zoned(zone.clone()).date();
        let on = |date: Date| date.to_datetime(time).to_zoned(zone.clone()).ok().map(|at| at.timestamp());
        let same_day = on(day).map(Timestamp::from_jiff).filter(|at| *at > tick);
        same_day.or_else(|| Some(Timestamp::from_jiff(on(day.tomorrow().ok()?)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::schedule::Misfire;
    use crate::schedule::rule::Rule;

    fn deadline(time: &str, tick: &str) -> String {
        let options = Options {
            name: "monthly".into(),
            rule: Rule::parse("0 2 1 * *", "Europe/Berlin").unwrap(),
            misfire: Misfire::Once,
            grace: Duration::ZERO,
            function: "fan-out".into(),
            params: BTreeMap::new(),
            guard: None,
            brake: None,
            gate: None,
            deadline: Some(time.parse().unwrap()),
        };
        let tick = Timestamp::from_jiff(tick.parse().unwrap());
        options.deadline_of(tick).unwrap().to_jiff().unwrap().to_string()
    }

    #[test]
    fn a_deadline_is_on_the_ticks_day_in_the_schedules_zone_or_else_on_the_next() {
        assert_eq!(deadline("10:00", "2026-11-01T02:00:00+01:00"), "2026-11-01T09:00:00Z");
        assert_eq!(deadline("10:00", "2026-11-01T09:59:59+01:00"), "2026-11-01T09:00:00Z");
        assert_eq!(deadline("10:00", "2026-11-01T10:00:00+01:00"), "2026-11-02T09:00:00Z", "it is past by then");
        assert_eq!(deadline("01:00", "2026-10-31T23:30:00+01:00"), "2026-11-01T00:00:00Z");
        assert_eq!(deadline("10:00", "2026-10-31T23:30:00Z"), "2026-11-01T09:00:00Z", "the zone's day has begun");
    }

    #[test]
    fn the_days_on_which_the_clock_changes_have_one_deadline_each() {
        assert_eq!(deadline("02:30", "2026-03-29T00:00:00+01:00"), "2026-03-29T01:30:00Z", "03:30 by the new time");
        assert_eq!(deadline("02:30", "2026-10-25T00:00:00+02:00"), "2026-10-25T00:30:00Z", "the first of the two");
    }
}
