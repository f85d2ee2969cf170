//! When a schedule is due: a bare cron rule in an IANA time zone.
//!
//! Owns the reading of rules and the search for ticks. Candidates are wall-clock times, mapped to moments by jiff;
//! croner's own zone handling is not used, as it fires rules with several times a day twice in autumn and drops them in
//! a spring gap. Knows nothing of missed ticks, stores and clocks: a moment is always an argument.

use std::fmt;

use jiff::tz::TimeZone;

use crate::base::Timestamp;

mod calendar;
mod describe;
mod error;
mod fields;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
mod wall;

pub use error::Error;

use calendar::Calendar;
use fields::Fields;

/// A cron rule in a time zone.
///
/// **Fields** (crontab(5)): `minute hour day-of-month month day-of-week`, or six with seconds first. Lists, ranges,
/// steps, month and weekday names; Sunday is 0 or 7. Days also take `L` (the month's last), `L-3` (three days before
/// it), `LW` (its last Monday-to-Friday day), `15W` (the one nearest the 15th, in the same month), weekdays `FRI#2`
/// (the second Friday) and `5L` (the last Friday). `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`,
/// `@midnight`, `@hourly`.
///
/// **Two day fields**: when both are restricted a day that matches either is meant; a field that starts with `*` (also
/// `*/2`) is not restricted, and then both must match. This is what Unix cron does.
///
/// **Clock changes**: a rule names wall-clock times and each of them fires once, whatever the step. One that does not
/// exist fires at the first moment after the gap, together with whatever else is due at that moment, as one tick; one
/// that exists twice fires at its first occurrence.
///
/// Two rules are equal when their fields, names written as numbers, and their zones are.
#[derive(Clone)]
pub struct Rule {
    /// The rule as it was written, trimmed.
    text: String,
    fields: Fields,
    calendar: Calendar,
    zone: TimeZone,
    /// The zone's name as the database writes it.
    zone_name: String,
}

impl Rule {
    /// Reads a bare rule, at most 256 bytes, and finds its zone.
    ///
    /// # Errors
    /// [`Error`], which names the field, the value, the limit and the remedy; for a zone, the nearest known name.
    pub fn parse(cron: &str, timezone: &str) -> Result<Self, Error> {
        let fields = Fields::parse(cron)?;
        let calendar = Calendar::new(&fields)?;
        if !calendar.has_days() {
            return Err(Error::NeverFires { rule: error::cut(cron.trim()) });
        }
        let zone = wall::zone(timezone)?;
        let zone_name = zone.iana_name().unwrap_or(timezone).to_owned();
        Ok(Self { text: cron.trim().to_owned(), fields, calendar, zone, zone_name })
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The zone whose wall clock the rule follows.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The zone's IANA name.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The first tick strictly after `moment`; `None` only near the year 9999.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let mut wall = wall::reached(&self.zone, moment.to_jiff()?)?;
        loop {
            wall = self.calendar.next(wall)?;
            let tick = Timestamp::from_jiff(wall::moment_of(&self.zone, wall)?);
            if tick > moment {
                return Some(tick);
            }
        }
    }

    /// The last tick at or before `moment`; `None` when there is none since 1970.
    pub fn latest_until(&self, moment: Timestamp) -> Option<Timestamp> {
        let reached = wall::reached(&self.zone, moment.to_jiff()?)?;
        let tick = wall::moment_of(&self.zone, self.calendar.previous(reached)?)?;
        u64::try_from(tick.as_millisecond()).ok().map(Timestamp::from_millis)
    }

    /// The ticks after `after` up to and including `until`, oldest first. It is lazy: nothing is held in memory.
    pub fn ticks_between(&self, after: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        let due = move |tick: &Timestamp| *tick <= until;
        std::iter::successors(self.next_after(after).filter(due), move |tick| self.next_after(*tick).filter(due))
    }

    /// How many ticks [`Rule::ticks_between`] would give. Counts by days: only days that are cut by a bound or on which
    /// the clock changes are walked. Ten years of a rule that fires each second take about a second in a zone with
    /// summer time, of one that fires each minute 20 ms.
    pub fn count_between(&self, after: Timestamp, until: Timestamp) -> u64 {
        let reached = |moment: Timestamp| wall::reached(&self.zone, moment.to_jiff()?);
        let (Some(first), Some(last)) = (reached(after), reached(until)) else { return 0 };
        let (mut date, end) = (first.date(), last.date());
        let mut ticks = 0_u64;
        while date <= end {
            let Ok(tomorrow) = date.tomorrow() else { break };
            ticks = ticks.saturating_add(self.count_day(date, tomorrow, after, until));
            date = tomorrow;
        }
        ticks
    }

    fn count_day(
        &self,
        date: jiff::civil::Date,
        tomorrow: jiff::civil::Date,
        after: Timestamp,
        until: Timestamp,
    ) -> u64 {
        let midnight = |date: jiff::civil::Date| wall::moment_of(&self.zone, date.at(0, 0, 0, 0));
        let (Some(start), Some(end)) = (midnight(date), midnight(tomorrow)) else { return 0 };
        let moved = wall::moves_between(&self.zone, start, end);
        if !moved && !self.calendar.has(date) {
            return 0;
        }
        let before = |moment| Timestamp::from_millis(Timestamp::from_jiff(moment).as_millis().saturating_sub(1));
        let (from, to) = (before(start).max(after), before(end).min(until));
        if from >= to {
            return 0;
        }
        if !moved && from == before(start) && to == before(end) {
            return self.calendar.times_a_day();
        }
        self.ticks_between(from, to).fold(0, |ticks, _| ticks + 1)
    }

    /// The rule in plain English, e.g. `At 07:00, on day 1 of the month (Europe/Berlin)`.
    pub fn describe(&self) -> String {
        format!("{} ({})", describe::describe(&self.fields), self.zone_name)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.zone_name == other.zone_name
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    /// The rule as it was written, then the zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone_name)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({self})")
    }
}
