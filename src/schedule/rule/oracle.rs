//! The oracle: two years of every minute in nine zones, walked against a matcher that shares nothing with the rule's
//! own search.
//!
//! It keeps the furthest wall time that the zone's clock has shown. A minute that takes the clock further is a tick
//! when any wall time on the way matches; a minute that shows an old time again is never one.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp as Moment, ToSpan};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::{Error, Rule};
use crate::base::Timestamp;

/// Zones, each with two years in which its clock changes in an unusual way.
const WINDOWS: [(&str, i16); 9] = [
    ("Europe/Berlin", 2025),
    ("America/New_York", 2025),
    ("Australia/Lord_Howe", 2025),
    ("Africa/Casablanca", 2025),
    ("Asia/Kolkata", 2025),
    ("America/Sao_Paulo", 2017),
    ("Pacific/Apia", 2011),
    ("America/Havana", 2025),
    ("Africa/Cairo", 2023),
];

const RULES: [&str; 40] = [
    "* * * * *",
    "*/15 * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 * * * *",
    "59 23 * * *",
    "0 0 * * *",
    "1 0 * * *",
    "30 0 * * *",
    "15 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "*/20 1-3 * * *",
    "5-55/10 0-3,22-23 * * *",
    "0,30 */6 * * *",
    "0 7 1 * *",
    "0 9 L * *",
    "0 9 L-3 * *",
    "0 9 L-30 * *",
    "0 9 LW * *",
    "0 9 15W * *",
    "0 9 1W,31W * *",
    "0 0 30 12 *",
    "30 5 30 * *",
    "0 12 * * MON-FRI",
    "0 12 * * FRI-SUN",
    "0 12 * * 7",
    "0 12 * * FRI#2",
    "0 12 * * 5L",
    "0 12 * * 6#5",
    "0 0 13 * 5",
    "0 0 */2 * 1",
    "0 0 1-7 * */2",
    "0 0 29 2 *",
    "0 6 L,15 JAN,MAR-MAY *",
    "@monthly",
    "@weekly",
    "45 23 31 */2 SUN",
    "0 9 L-1,LW * 1#1",
];

/// A rule in the oracle's own terms: text, read anew for every day.
struct Naive {
    times: Vec<bool>,
    days: String,
    months: String,
    weekdays: String,
}

impl Naive {
    fn new(rule: &str) -> Self {
        let rule = match rule {
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            other => other,
        };
        let mut text = rule.to_owned();
        for (number, name) in ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"].iter().enumerate() {
            text = text.replace(name, &(number + 1).to_string());
        }
        for (number, name) in ["JAN", "FEB", "MAR", "APR", "MAY"].iter().enumerate() {
            text = text.replace(name, &(number + 1).to_string());
        }
        let fields: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let times = (0..1440).map(|minute| listed(&fields[0], minute % 60, 0) && listed(&fields[1], minute / 60, 0));
        let times = times.collect();
        Self { times, days: fields[2].clone(), months: fields[3].clone(), weekdays: fields[4].clone() }
    }

    fn has(&self, date: Date) -> bool {
        let by_day = self.days.split(',').any(|item| day_is(item, date));
        let by_weekday = self.weekdays.split(',').any(|item| weekday_is(item, date));
        let both = self.days.starts_with('*') || self.weekdays.starts_with('*');
        let day = if both { by_day && by_weekday } else { by_day || by_weekday };
        day && listed(&self.months, i32::from(date.month()), 1)
    }
}

fn listed(field: &str, value: i32, min: i32) -> bool {
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let step: i32 = step.parse().unwrap();
        match range.split_once('-') {
            _ if range == "*" => (value - min) % step == 0,
            Some((start, end)) => {
                let (start, end): (i32, i32) = (start.parse().unwrap(), end.parse().unwrap());
                (start..=end).contains(&value) && (value - start) % step == 0
            }
            None => range.parse() == Ok(value),
        }
    })
}

fn day_is(item: &str, date: Date) -> bool {
    let month: Vec<Date> =
        date.first_of_month().series(1.day()).take_while(|day| day.month() == date.month()).collect();
    let works = |day: &Date| day.weekday().to_monday_one_offset() <= 5;
    if item == "LW" {
        return month.iter().rfind(|day| works(day)) == Some(&date);
    }
    if let Some(day) = item.strip_suffix('W') {
        let wanted: i8 = day.parse().unwrap();
        let exists = month.iter().any(|day| day.day() == wanted);
        let nearest = month.iter().filter(|day| works(day)).min_by_key(|day| (day.day() - wanted).abs());
        return exists && nearest == Some(&date);
    }
    if let Some(back) = item.strip_prefix('L') {
        let back: i64 = if back.is_empty() { 0 } else { back[1..].parse().unwrap() };
        return date.checked_add(back.days()).unwrap() == *month.last().unwrap();
    }
    listed(item, i32::from(date.day()), 1)
}

fn weekday_is(item: &str, date: Date) -> bool {
    let is = |number: &str| number.parse::<i8>().unwrap() % 7 == date.weekday().to_sunday_zero_offset();
    if let Some((weekday, nth)) = item.split_once('#') {
        let earlier = (1..=5).take_while(|weeks| (date - weeks.weeks()).month() == date.month()).count();
        return is(weekday) && nth.parse() == Ok(earlier + 1);
    }
    if let Some(weekday) = item.strip_suffix('L') {
        return is(weekday) && (date + 1.week()).month() != date.month();
    }
    let sunday_0 = i32::from(date.weekday().to_sunday_zero_offset());
    listed(item, sunday_0, 0) || (sunday_0 == 0 && !item.starts_with('*') && listed(item, 7, 0))
}

/// What one zone's clock shows in each minute of its window: (the minute, minutes of wall time shown since 1970).
fn walk(zone: &TimeZone, first_year: i16) -> Vec<(i64, i64)> {
    let minute_of =
        |year: i16| Date::constant(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second() / 60;
    let shown = |minute: i64| {
        let moment = Moment::from_second(minute * 60).unwrap();
        minute + i64::from(zone.to_offset(moment).seconds()) / 60
    };
    (minute_of(first_year) - 1440..minute_of(first_year + 2)).map(|minute| (minute, shown(minute))).collect()
}

fn naive_ticks(rule: &Naive, walk: &[(i64, i64)]) -> Vec<Timestamp> {
    let first_day = walk[0].1.div_euclid(1440) - 1;
    let days = 2 + walk.len() / 1440 + 2;
    let epoch = Date::constant(1970, 1, 1);
    let date = |day: i64| epoch.checked_add(SignedDuration::from_hours(day * 24)).unwrap();
    let has: Vec<bool> = (0..days).map(|n| rule.has(date(first_day + i64::try_from(n).unwrap()))).collect();
    let matches = |wall: i64| {
        let day = usize::try_from(wall.div_euclid(1440) - first_day).unwrap();
        has[day] && rule.times[usize::try_from(wall.rem_euclid(1440)).unwrap()]
    };
    let mut furthest = walk[0].1;
    let mut ticks = Vec::new();
    for (minute, shown) in &walk[1..] {
        if (furthest + 1..=*shown).any(matches) {
            ticks.push(Timestamp::from_secs(u64::try_from(minute * 60).unwrap()));
        }
        furthest = furthest.max(*shown);
    }
    ticks
}

fn compare(text: &str, zone_name: &str, walk: &[(i64, i64)]) {
    let first = Timestamp::from_secs(u64::try_from(walk[0].0 * 60).unwrap());
    let last = Timestamp::from_secs(u64::try_from(walk[walk.len() - 1].0 * 60).unwrap());
    let expected = naive_ticks(&Naive::new(text), walk);
    let rule = match Rule::parse(text, zone_name) {
        Err(Error::NeverFires { .. }) => {
            assert_eq!(expected, [], "{text} {zone_name}: refused as never firing, but it fires");
            return;
        }
        parsed => parsed.unwrap(),
    };
    let mut ticks = rule.ticks_between(first, last);
    for tick in &expected {
        let found = ticks.next();
        assert_eq!(found, Some(*tick), "{rule}: expected {tick}, found {found:?}");
    }
    assert_eq!(ticks.next(), None, "{rule}: a tick too many");
    assert_eq!(rule.count_between(first, last), expected.len() as u64, "{rule}: count");
    for pair in expected.windows(2).take(2_000) {
        let just_before = Timestamp::from_millis(pair[1].as_millis() - 1);
        assert_eq!(rule.latest_until(just_before), Some(pair[0]), "{rule}: the last until just before {}", pair[1]);
        assert_eq!(rule.latest_until(pair[1]), Some(pair[1]), "{rule}: the last until {}", pair[1]);
    }
}

fn compare_in_all_zones(rules: &[String]) {
    for (zone_name, first_year) in WINDOWS {
        let walk = walk(&TimeZone::get(zone_name).unwrap(), first_year);
        for rule in rules {
            compare(rule, zone_name, &walk);
        }
    }
}

/// One field: `*`, a step, a range, a range with a step, or a list of numbers.
fn field(min: u8, max: u8) -> BoxedStrategy<String> {
    let range = (min..max).prop_flat_map(move |start| (Just(start), start + 1..=max));
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (1..=(max - min) / 2).prop_map(|step| format!("*/{step}")),
        1 => range.clone().prop_map(|(start, end)| format!("{start}-{end}")),
        1 => range.prop_flat_map(|(start, end)| (Just(start), Just(end), 1..=end - start))
            .prop_map(|(start, end, step)| format!("{start}-{end}/{step}")),
        3 => proptest::collection::vec(min..=max, 1..4)
            .prop_map(|values| values.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    ]
    .boxed()
}

fn random_rule() -> impl Strategy<Value = String> {
    let special_day = prop_oneof![
        Just("L".to_owned()),
        Just("LW".to_owned()),
        (1..=30_u8).prop_map(|days| format!("L-{days}")),
        (1..=31_u8).prop_map(|day| format!("{day}W")),
    ];
    let special_weekday = prop_oneof![
        (0..=7_u8).prop_map(|day| format!("{day}L")),
        (0..=7_u8, 1..=5_u8).prop_map(|(day, nth)| format!("{day}#{nth}")),
    ];
    let days = prop_oneof![
        2 => field(1, 31),
        1 => special_day.clone(),
        1 => (special_day, 1..=31_u8).prop_map(|(special, day)| format!("{special},{day}")),
    ];
    let weekdays = prop_oneof![
        3 => Just("*".to_owned()),
        1 => field(0, 6),
        1 => field(1, 7),
        1 => special_weekday,
    ];
    (field(0, 59), field(0, 23), days, field(1, 12), weekdays)
        .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

#[test]
fn known_rules_tick_exactly_when_a_walk_over_every_minute_says_so() {
    compare_in_all_zones(&RULES.map(str::to_owned));
}

/// Replay with `NIGHTMAIL_SEED=<seed>`.
#[test]
fn random_rules_tick_exactly_when_a_walk_over_every_minute_says_so() {
    let seed: u64 = std::env::var("NIGHTMAIL_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let rules: Vec<String> = (0..30).map(|_| random_rule().new_tree(&mut runner).unwrap().current()).collect();
    let compared = std::panic::catch_unwind(|| compare_in_all_zones(&rules));
    assert!(compared.is_ok(), "NIGHTMAIL_SEED={seed} replays this; its rules: {rules:?}");
}
