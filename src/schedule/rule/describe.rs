//! A rule in plain English.
//!
//! The time of day is croner's wording; its steps are set right first, as it calls `0-30/10` "every 10 minutes". Days
//! and months are worded here, as croner calls `LW` "the last day of the month". Knows no zone.

use croner::parser::{CronParser, Seconds, Year};

use super::fields::{Fields, Item, join, starts_with_star};

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// E.g. `At 07:00, on day 1 of the month, in January`.
pub(super) fn describe(fields: &Fields) -> String {
    let mut text = time_of_day(fields);
    let days = each(&fields.days, day);
    let weekdays = each(&fields.weekdays, weekday);
    let link =
        if starts_with_star(&fields.days) || starts_with_star(&fields.weekdays) { "if it is also" } else { "or" };
    match (fields.days.contains(&Item::Every), fields.weekdays.contains(&Item::Every)) {
        (true, true) => {}
        (false, true) => text.push_str(&format!(", on {days}")),
        (true, false) => text.push_str(&format!(", on {weekdays}")),
        (false, false) => text.push_str(&format!(", on {days} {link} {weekdays}")),
    }
    if !fields.months.contains(&Item::Every) {
        text.push_str(&format!(", in {}", each(&fields.months, month)));
    }
    text
}

fn time_of_day(fields: &Fields) -> String {
    let [seconds, minutes, hours] = [&fields.seconds, &fields.minutes, &fields.hours];
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    let time = format!("{} {} {}", join(seconds), join(minutes), join(hours));
    let Ok(cron) = parser.parse(&format!("{time} * * *")) else { return format!("At {time}") };
    let mut pattern = cron.pattern;
    pattern.seconds.step = plain_step(seconds);
    pattern.minutes.step = plain_step(minutes);
    pattern.hours.step = plain_step(hours);
    let words = pattern.describe();
    let words = words.trim_end_matches('.').replace(", of ", " of ");
    match words.strip_prefix("At every ") {
        Some(rest) => format!("Every {rest}"),
        None => words,
    }
}

/// The step of a field that is `*/n` alone; croner then words it as an interval, otherwise as a list of values.
fn plain_step(items: &[Item]) -> u16 {
    match items {
        [Item::EveryNth { step }] => u16::from(*step),
        _ => 1,
    }
}

fn each(items: &[Item], word: fn(&Item) -> String) -> String {
    let words: Vec<String> = items.iter().map(word).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn day(item: &Item) -> String {
    match *item {
        Item::Range { start, end, step: 1 } if start == end => format!("day {start} of the month"),
        Item::Range { start, end, step: 1 } => format!("days {start} to {end} of the month"),
        Item::Range { start, end, step } => format!("every {} day from {start} to {end}", nth(step)),
        Item::EveryNth { step } => format!("every {} day from 1 to 31", nth(step)),
        Item::Last { days_before: 0 } => "the last day of the month".into(),
        Item::Last { days_before: 1 } => "the day before the last day of the month".into(),
        Item::Last { days_before } => format!("the day {days_before} days before the last day of the month"),
        Item::LastWorkday => "the last Monday-to-Friday day of the month".into(),
        Item::NearestWorkday { day } => format!("the Monday-to-Friday day nearest day {day} of the month"),
        ref other => other.to_string(),
    }
}

fn weekday(item: &Item) -> String {
    let name = |day: u8| WEEKDAYS[usize::from(day % 7)];
    match *item {
        Item::Range { start, end, step: 1 } if start == end => name(start).into(),
        Item::Range { start, end, step: 1 } => format!("{} to {}", name(start), name(end)),
        Item::Range { start, end, step } => format!("every {} day from {} to {}", nth(step), name(start), name(end)),
        Item::EveryNth { step } => format!("every {} day from Sunday to Saturday", nth(step)),
        Item::Nth { weekday, nth: count } => format!("the {} {} of the month", nth(count), name(weekday)),
        Item::LastOf { weekday } => format!("the last {} of the month", name(weekday)),
        ref other => other.to_string(),
    }
}

fn month(item: &Item) -> String {
    let name = |month: u8| MONTHS.get(usize::from(month)).copied().unwrap_or_default();
    match *item {
        Item::Range { start, end, step: 1 } if start == end => name(start).into(),
        Item::Range { start, end, step: 1 } => format!("{} to {}", name(start), name(end)),
        Item::Range { start, end, step } => format!("every {} month from {} to {}", nth(step), name(start), name(end)),
        Item::EveryNth { step } => format!("every {} month from January to December", nth(step)),
        ref other => other.to_string(),
    }
}

fn nth(number: u8) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, other) if other != 11 => "st",
        (2, other) if other != 12 => "nd",
        (3, other) if other != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}
