//! Walking a rule's wall-clock times forwards and backwards: the civil domain, where every day has 24 hours.
//!
//! croner decides which days match (its `L`, `W` and `#`); `L-3`, which croner does not know, is added here. Knows no
//! zone.

use croner::parser::{CronParser, Seconds, Year};
use croner::{CronPattern, Weekday};
use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};

use super::error::Error;
use super::fields::{Fields, Item, join, starts_with_star};

/// The Gregorian calendar repeats after 400 years, weekdays included: a day not found within them never comes.
const CYCLE_YEARS: i16 = 400;

/// Which wall-clock times a rule names.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    /// croner's reading of day-of-month; `None` when the field has nothing that croner knows.
    days: Option<CronPattern>,
    /// Bit n: n days before the month's last day.
    days_before_last: u64,
    /// croner's reading of day-of-week.
    weekdays: CronPattern,
    /// Both day fields must match, as one of them starts with `*`; otherwise either suffices.
    both: bool,
}

impl Calendar {
    pub(super) fn new(fields: &Fields) -> Result<Self, Error> {
        let (last, known): (Vec<Item>, Vec<Item>) =
            fields.days.iter().partition(|item| matches!(item, Item::Last { .. }));
        let days_before_last = last.iter().fold(0, |bits, item| match item {
            Item::Last { days_before } => bits | 1 << days_before,
            _ => bits,
        });
        Ok(Self {
            seconds: fields.second_bits(),
            minutes: fields.minute_bits(),
            hours: fields.hour_bits(),
            months: fields.month_bits(),
            days: if known.is_empty() { None } else { Some(croner_pattern("day-of-month", &join(&known), "*")?) },
            days_before_last,
            weekdays: croner_pattern("day-of-week", "*", &join(&fields.weekdays))?,
            both: starts_with_star(&fields.days) || starts_with_star(&fields.weekdays),
        })
    }

    /// The first wall time of this rule after `wall`.
    pub(super) fn next(&self, wall: DateTime) -> Option<DateTime> {
        let today = wall.date();
        let second_of_day = second_of_day(wall.time());
        if let Some(time) = self.time_from(second_of_day + 1)
            && self.has(today)
        {
            return Some(today.to_datetime(time));
        }
        let time = self.time_from(0)?;
        Some(self.date_from(today.tomorrow().ok()?)?.to_datetime(time))
    }

    /// The last wall time of this rule that is not after `wall`.
    pub(super) fn previous(&self, wall: DateTime) -> Option<DateTime> {
        let today = wall.date();
        if let Some(time) = self.time_until(second_of_day(wall.time()))
            && self.has(today)
        {
            return Some(today.to_datetime(time));
        }
        let time = self.time_until(86_399)?;
        Some(self.date_until(today.yesterday().ok()?)?.to_datetime(time))
    }

    /// How many wall times each day of this rule has.
    pub(super) fn times_a_day(&self) -> u64 {
        u64::from(self.seconds.count_ones() * self.minutes.count_ones() * self.hours.count_ones())
    }

    /// Whether the rule has any day at all.
    pub(super) fn has_days(&self) -> bool {
        self.date_from(Date::constant(2000, 1, 1)).is_some()
    }

    /// Whether the rule names this day.
    pub(super) fn has(&self, date: Date) -> bool {
        if !self.has_month(date) {
            return false;
        }
        let days_left = date.days_in_month() - date.day();
        let by_day = self.days_before_last >> days_left & 1 == 1
            || self.days.as_ref().is_some_and(|pattern| croner_has(pattern, date));
        let by_weekday = croner_has(&self.weekdays, date);
        if self.both { by_day && by_weekday } else { by_day || by_weekday }
    }

    fn has_month(&self, date: Date) -> bool {
        self.months >> date.month() & 1 == 1
    }

    fn date_from(&self, from: Date) -> Option<Date> {
        let mut date = from;
        while date.year() - from.year() <= CYCLE_YEARS {
            if self.has(date) {
                return Some(date);
            }
            date = if self.has_month(date) {
                date.tomorrow().ok()?
            } else {
                date.first_of_month().checked_add(1.month()).ok()?
            };
        }
        None
    }

    fn date_until(&self, until: Date) -> Option<Date> {
        let mut date = until;
        while until.year() - date.year() <= CYCLE_YEARS {
            if self.has(date) {
                return Some(date);
            }
            date = if self.has_month(date) { date } else { date.first_of_month() }.yesterday().ok()?;
        }
        None
    }

    /// The first time of day at or after a second of the day.
    fn time_from(&self, second_of_day: u32) -> Option<Time> {
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        let (first_minute, first_second) = (bit_from(self.minutes, 0)?, bit_from(self.seconds, 0)?);
        let found_hour = bit_from(self.hours, hour)?;
        if found_hour > hour {
            return time(found_hour, first_minute, first_second);
        }
        match bit_from(self.minutes, minute) {
            Some(found) if found > minute => return time(hour, found, first_second),
            Some(_) => {
                if let Some(found) = bit_from(self.seconds, second) {
                    return time(hour, minute, found);
                }
                if let Some(found) = bit_from(self.minutes, minute + 1) {
                    return time(hour, found, first_second);
                }
            }
            None => {}
        }
        time(bit_from(self.hours, hour + 1)?, first_minute, first_second)
    }

    /// The last time of day at or before a second of the day.
    fn time_until(&self, second_of_day: u32) -> Option<Time> {
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        let (last_minute, last_second) = (bit_until(self.minutes, 59)?, bit_until(self.seconds, 59)?);
        let found_hour = bit_until(self.hours, hour)?;
        if found_hour < hour {
            return time(found_hour, last_minute, last_second);
        }
        match bit_until(self.minutes, minute) {
            Some(found) if found < minute => return time(hour, found, last_second),
            Some(_) => {
                if let Some(found) = bit_until(self.seconds, second) {
                    return time(hour, minute, found);
                }
                if let Some(found) = minute.checked_sub(1).and_then(|minute| bit_until(self.minutes, minute)) {
                    return time(hour, found, last_second);
                }
            }
            None => {}
        }
        time(bit_until(self.hours, hour.checked_sub(1)?)?, last_minute, last_second)
    }
}

fn croner_pattern(field: &'static str, days: &str, weekdays: &str) -> Result<CronPattern, Error> {
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    let cron = parser.parse(&format!("0 0 0 {days} * {weekdays}")).map_err(|why| Error::Field {
        field,
        item: if days == "*" { weekdays.into() } else { days.into() },
        problem: format!("is refused: {why}"),
    })?;
    Ok(cron.pattern)
}

fn croner_has(pattern: &CronPattern, date: Date) -> bool {
    let weekday = match date.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    };
    let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
    pattern
        .day_match(i32::from(date.year()), u32::from(month), u32::from(day), weekday)
        .expect("croner refuses only days that no calendar has, and jiff's date is a real one")
}

fn second_of_day(time: Time) -> u32 {
    let part = |value: i8| u32::from(value.unsigned_abs());
    part(time.hour()) * 3600 + part(time.minute()) * 60 + part(time.second())
}

fn time(hour: u32, minute: u32, second: u32) -> Option<Time> {
    let part = |value: u32| i8::try_from(value).ok();
    Time::new(part(hour)?, part(minute)?, part(second)?, 0).ok()
}

/// The first value at or after `from` in a bit set of values below 64.
fn bit_from(bits: u64, from: u32) -> Option<u32> {
    let rest = bits.checked_shr(from)?;
    if rest == 0 { None } else { Some(from + rest.trailing_zeros()) }
}

/// The last value at or before `until`, which is below 63.
fn bit_until(bits: u64, until: u32) -> Option<u32> {
    let rest = bits & ((1 << (until + 1)) - 1);
    rest.checked_ilog2()
}
