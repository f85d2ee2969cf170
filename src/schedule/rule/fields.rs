//! The strict grammar of bare cron rules: text to checked fields.
//!
//! croner accepts more than people mean (`MON` as a minute, `15W3`, `1,,2`, an `L` among weekdays that never matches),
//! so every item is read here first and croner is given canonical text only. Knows nothing of zones or of moments.

use std::fmt;

use super::error::{Error, RULE_BYTES_MAX, cut};

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// One of the six fields of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FieldKind {
    name: &'static str,
    min: u8,
    max: u8,
    /// Words for `first_word`, `first_word + 1`, …
    words: &'static [&'static str],
    first_word: u8,
}

const SECOND: FieldKind = FieldKind { name: "second", min: 0, max: 59, words: &[], first_word: 0 };
const MINUTE: FieldKind = FieldKind { name: "minute", ..SECOND };
const HOUR: FieldKind = FieldKind { name: "hour", max: 23, ..SECOND };
const DAY: FieldKind = FieldKind { name: "day-of-month", min: 1, max: 31, ..SECOND };
const MONTH: FieldKind = FieldKind { name: "month", min: 1, max: 12, words: &MONTHS, first_word: 1 };
const WEEKDAY: FieldKind = FieldKind { name: "day-of-week", min: 0, max: 7, words: &WEEKDAYS, first_word: 0 };

/// One item of a field's comma list, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`
    Every,
    /// `*/n`
    EveryNth { step: u8 },
    /// `5`, `1-5`, `10-50/20`
    Range { start: u8, end: u8, step: u8 },
    /// `L` = 0, `L-3` = 3 days before the month's last.
    Last { days_before: u8 },
    /// `LW`: the month's last Monday-to-Friday day.
    LastWorkday,
    /// `15W`: the Monday-to-Friday day nearest the 15th within its month.
    NearestWorkday { day: u8 },
    /// `5#2`: the month's second Friday.
    Nth { weekday: u8, nth: u8 },
    /// `5L`: the month's last Friday.
    LastOf { weekday: u8 },
}

impl fmt::Display for Item {
    /// Canonical: numbers for names, Sunday 0 unless it ends a range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Every => f.write_str("*"),
            Self::EveryNth { step } => write!(f, "*/{step}"),
            Self::Range { start, end, step: 1 } if start == end => write!(f, "{start}"),
            Self::Range { start, end, step: 1 } => write!(f, "{start}-{end}"),
            Self::Range { start, end, step } => write!(f, "{start}-{end}/{step}"),
            Self::Last { days_before: 0 } => f.write_str("L"),
            Self::Last { days_before } => write!(f, "L-{days_before}"),
            Self::LastWorkday => f.write_str("LW"),
            Self::NearestWorkday { day } => write!(f, "{day}W"),
            Self::Nth { weekday, nth } => write!(f, "{weekday}#{nth}"),
            Self::LastOf { weekday } => write!(f, "{weekday}L"),
        }
    }
}

/// A field's items in canonical text.
pub(super) fn join(items: &[Item]) -> String {
    items.iter().map(Item::to_string).collect::<Vec<_>>().join(",")
}

/// Whether a field holds back no day, or holds days back on top of the other day field: as in crontab(5), a day field
/// that starts with `*` is not "restricted".
pub(super) fn starts_with_star(items: &[Item]) -> bool {
    matches!(items.first(), Some(Item::Every | Item::EveryNth { .. }))
}

/// A bare rule, read and checked field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) seconds: Vec<Item>,
    pub(super) minutes: Vec<Item>,
    pub(super) hours: Vec<Item>,
    pub(super) days: Vec<Item>,
    pub(super) months: Vec<Item>,
    pub(super) weekdays: Vec<Item>,
}

impl Fields {
    /// Reads a bare rule of five or six fields, or an `@name`.
    pub(super) fn parse(rule: &str) -> Result<Self, Error> {
        let rule = rule.trim();
        refuse_other_forms(rule)?;
        let upper = rule.to_ascii_uppercase();
        let text = if upper.starts_with('@') { nickname(&upper)? } else { &upper };
        let places: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match places.len() {
            5 => ("0", &places[..]),
            6 => (places[0], &places[1..]),
            count => return Err(Error::FieldCount { rule: cut(rule), count }),
        };
        Ok(Self {
            seconds: read_list(SECOND, second)?,
            minutes: read_list(MINUTE, rest[0])?,
            hours: read_list(HOUR, rest[1])?,
            days: read_list(DAY, rest[2])?,
            months: read_list(MONTH, rest[3])?,
            weekdays: read_list(WEEKDAY, rest[4])?,
        })
    }

    pub(super) fn second_bits(&self) -> u64 {
        bits(SECOND, &self.seconds)
    }

    pub(super) fn minute_bits(&self) -> u64 {
        bits(MINUTE, &self.minutes)
    }

    pub(super) fn hour_bits(&self) -> u64 {
        bits(HOUR, &self.hours)
    }

    pub(super) fn month_bits(&self) -> u64 {
        bits(MONTH, &self.months)
    }
}

fn refuse_other_forms(rule: &str) -> Result<(), Error> {
    if rule.is_empty() {
        return Err(Error::Empty);
    }
    if rule.len() > RULE_BYTES_MAX {
        return Err(Error::TooLong { bytes: rule.len() });
    }
    if let Some((form, _)) = rule.split_once('(')
        && ["cron", "quartz", "rate", "at"].contains(&form.trim().to_ascii_lowercase().as_str())
    {
        return Err(Error::Form { form: form.trim().to_ascii_lowercase() });
    }
    if rule.contains('?') {
        return Err(Error::QuestionMark { rule: cut(rule) });
    }
    Ok(())
}

fn nickname(name: &str) -> Result<&'static str, Error> {
    match name {
        "@YEARLY" | "@ANNUALLY" => Ok("0 0 1 1 *"),
        "@MONTHLY" => Ok("0 0 1 * *"),
        "@WEEKLY" => Ok("0 0 * * 0"),
        "@DAILY" | "@MIDNIGHT" => Ok("0 0 * * *"),
        "@HOURLY" => Ok("0 * * * *"),
        _ => Err(Error::Nickname { name: cut(&name.to_ascii_lowercase()) }),
    }
}

/// The values of a field as a bit set; modifiers have none.
fn bits(kind: FieldKind, items: &[Item]) -> u64 {
    let set = |start: u8, end: u8, step: u8| {
        (start..=end).step_by(usize::from(step)).fold(0_u64, |bits, value| bits | 1 << value)
    };
    items.iter().fold(0, |bits, item| match *item {
        Item::Every => bits | set(kind.min, kind.max, 1),
        Item::EveryNth { step } => bits | set(kind.min, kind.max, step),
        Item::Range { start, end, step } => bits | set(start, end, step),
        _ => bits,
    })
}

fn read_list(kind: FieldKind, text: &str) -> Result<Vec<Item>, Error> {
    text.split(',').map(|item| read_item(kind, item)).collect()
}

fn read_item(kind: FieldKind, item: &str) -> Result<Item, Error> {
    let special = match kind {
        DAY => day_item(item)?,
        WEEKDAY => weekday_item(item)?,
        _ => None,
    };
    match (special, item.split_once('/')) {
        (Some(special), _) => Ok(special),
        (None, Some((range, step))) => stepped(kind, item, range, step),
        (None, None) if item == "*" => Ok(Item::Every),
        (None, None) => {
            let (start, end) = range_of(kind, item, item)?;
            let sunday = kind == WEEKDAY && start == 7;
            Ok(if sunday { Item::Range { start: 0, end: 0, step: 1 } } else { Item::Range { start, end, step: 1 } })
        }
    }
}

/// `L`, `L-3`, `LW` and `15W`.
fn day_item(item: &str) -> Result<Option<Item>, Error> {
    let special = if item == "L" {
        Item::Last { days_before: 0 }
    } else if item == "LW" {
        Item::LastWorkday
    } else if let Some(days) = item.strip_prefix("L-") {
        let days_before = number(days).filter(|days| (1..=30).contains(days));
        Item::Last { days_before: days_before.ok_or_else(|| wrong(DAY, item, "must be L-1 to L-30"))? }
    } else if let Some(day) = item.strip_suffix('W') {
        let day = number(day).filter(|day| (1..=31).contains(day));
        Item::NearestWorkday { day: day.ok_or_else(|| wrong(DAY, item, "must be 1W to 31W, or LW"))? }
    } else {
        return Ok(None);
    };
    Ok(Some(special))
}

/// `FRI#2` and `5L`.
fn weekday_item(item: &str) -> Result<Option<Item>, Error> {
    let sunday_is_0 = |day: u8| day % 7;
    if let Some((day, nth)) = item.split_once('#') {
        let weekday = value(WEEKDAY, item, day)?;
        let nth = number(nth).filter(|nth| (1..=5).contains(nth));
        let nth = nth.ok_or_else(|| wrong(WEEKDAY, item, "must name the 1st to 5th of a month, e.g. FRI#2"))?;
        return Ok(Some(Item::Nth { weekday: sunday_is_0(weekday), nth }));
    }
    match item.strip_suffix('L') {
        Some("") => Err(wrong(WEEKDAY, item, "needs a weekday before it, e.g. 5L for the month's last Friday")),
        Some(day) => Ok(Some(Item::LastOf { weekday: sunday_is_0(value(WEEKDAY, item, day)?) })),
        None => Ok(None),
    }
}

fn stepped(kind: FieldKind, item: &str, range: &str, step: &str) -> Result<Item, Error> {
    let step = number(step).filter(|step| *step > 0);
    let step = step.ok_or_else(|| wrong(kind, item, "needs a step of 1 or more after the slash"))?;
    let (start, end) = match range {
        "*" if kind == WEEKDAY => (0, 6),
        "*" => (kind.min, kind.max),
        _ if !range.contains('-') => {
            let remedy = format!(
                "needs a range before the slash: write */{step} or a range such as {}-{}/{step}",
                if number(range).is_some() { range } else { "1" },
                kind.max
            );
            return Err(wrong(kind, item, &remedy));
        }
        _ => range_of(kind, item, range)?,
    };
    if step > end - start {
        let problem = format!("has a step that never reaches a second value (at most {} here)", end - start);
        return Err(wrong(kind, item, &problem));
    }
    Ok(if range == "*" { Item::EveryNth { step } } else { Item::Range { start, end, step } })
}

fn range_of(kind: FieldKind, item: &str, range: &str) -> Result<(u8, u8), Error> {
    let Some((start_text, end_text)) = range.split_once('-') else {
        let single = value(kind, item, range)?;
        return Ok((single, single));
    };
    let (start, mut end) = (value(kind, item, start_text)?, value(kind, item, end_text)?);
    if kind == WEEKDAY && end_text == "SUN" && start > 0 {
        end = 7;
    }
    if start > end {
        let problem = format!(
            "runs backwards: write two items, {start}-{} and {}-{end}",
            kind.max - u8::from(kind == WEEKDAY),
            kind.min
        );
        return Err(wrong(kind, item, &problem));
    }
    Ok((start, end))
}

/// A number, or a name that is valid in this field.
fn value(kind: FieldKind, item: &str, text: &str) -> Result<u8, Error> {
    let word = || kind.words.iter().zip(kind.first_word..).find(|(word, _)| **word == text).map(|(_, value)| value);
    let value = number(text).or_else(word).filter(|value| (kind.min..=kind.max).contains(value));
    value.ok_or_else(|| {
        let words = match (kind.words.first(), kind.words.last()) {
            (Some(first), Some(last)) => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        wrong(kind, item, &format!("must be {} to {}{words}", kind.min, kind.max))
    })
}

/// One or two digits, nothing else.
fn number(text: &str) -> Option<u8> {
    let well_formed = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if well_formed { text.parse().ok() } else { None }
}

fn wrong(kind: FieldKind, item: &str, problem: &str) -> Error {
    Error::Field { field: kind.name, item: cut(item), problem: problem.into() }
}
