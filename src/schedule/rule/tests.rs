//! The promises of [`Rule`] one by one; `oracle` walks every minute.

use std::str::FromStr as _;

use jiff::Zoned;

use super::{Error, Rule};
use crate::base::Timestamp;

fn at(text: &str) -> Timestamp {
    Timestamp::from_jiff(text.parse().unwrap())
}

fn rule(cron: &str, zone: &str) -> Rule {
    Rule::parse(cron, zone).unwrap()
}

/// The ticks of a span as the zone's clock shows them, with the offset.
fn ticks(cron: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
    let rule = rule(cron, zone);
    let show = |tick: Timestamp| {
        tick.to_jiff().unwrap().to_zoned(rule.zone().clone()).strftime("%m-%dT%H:%M:%S%:z").to_string()
    };
    rule.ticks_between(at(after), at(until)).map(show).collect()
}

fn refusal(cron: &str) -> String {
    match Rule::parse(cron, "UTC") {
        Ok(rule) => panic!("{cron:?} must be refused, but is: {}", rule.describe()),
        Err(why) => why.to_string(),
    }
}

#[test]
fn a_time_in_the_spring_gap_fires_once_at_the_first_moment_after_it() {
    let berlin = |cron| ticks(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
    assert_eq!(berlin("30 2 * * *"), ["03-29T03:00:00+02:00"]);
    assert_eq!(berlin("*/15 1-3 29 3 *").len(), 4 + 4);
    assert_eq!(berlin("0,30 2,3 * * *"), ["03-29T03:00:00+02:00", "03-29T03:30:00+02:00"]);
    let york = ticks("30 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", "2026-03-08T23:00:00Z");
    assert_eq!(york, ["03-08T03:00:00-04:00"]);
    let lord_howe = ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-04T00:00:00Z");
    assert_eq!(lord_howe, ["10-04T02:30:00+11:00"]);
}

#[test]
fn a_time_that_exists_twice_fires_at_its_first_occurrence_only() {
    let berlin = |cron| ticks(cron, "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T02:30:00Z");
    assert_eq!(berlin("30 2 * * *"), ["10-25T02:30:00+02:00"]);
    assert_eq!(
        berlin("0,30 1-3 * * *"),
        [
            "10-25T01:00:00+02:00",
            "10-25T01:30:00+02:00",
            "10-25T02:00:00+02:00",
            "10-25T02:30:00+02:00",
            "10-25T03:00:00+01:00",
            "10-25T03:30:00+01:00",
        ]
    );
    let lord_howe = ticks("*/15 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z");
    assert_eq!(
        lord_howe,
        ["04-05T01:00:00+11:00", "04-05T01:15:00+11:00", "04-05T01:30:00+11:00", "04-05T01:45:00+11:00"]
    );
}

#[test]
fn midnight_that_a_zone_leaves_out_fires_at_the_first_moment_of_the_day() {
    let sao_paulo = ticks("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-05T12:00:00Z");
    assert_eq!(sao_paulo, ["11-04T01:00:00-02:00", "11-05T00:00:00-02:00"]);
}

#[test]
fn a_day_that_a_zone_leaves_out_fires_at_the_first_moment_of_the_next() {
    let apia = |cron| ticks(cron, "Pacific/Apia", "2011-12-29T12:00:00Z", "2012-01-01T12:00:00Z");
    assert_eq!(apia("0 9 30 * *"), ["12-31T00:00:00+14:00"]);
    assert_eq!(
        apia("0 9 * * *"),
        ["12-29T09:00:00-10:00", "12-31T00:00:00+14:00", "12-31T09:00:00+14:00", "01-01T09:00:00+14:00"]
    );
    let rule = rule("0 9 30 * *", "Pacific/Apia");
    assert_eq!(rule.count_between(at("2011-12-01T00:00:00Z"), at("2012-01-15T00:00:00Z")), 1);
}

#[test]
fn zones_without_whole_hours_and_with_ramadan_changes_follow_their_wall_clock() {
    assert_eq!(
        ticks("0 7 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        ["01-01T07:00:00+05:30"]
    );
    let casablanca = ticks("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00:00Z", "2026-02-16T12:00:00Z");
    assert_eq!(casablanca, ["02-15T02:30:00+01:00", "02-16T02:30:00+00:00"]);
}

#[test]
fn a_rule_with_seconds_fires_each_second_of_wall_time_once() {
    let rule = rule("* * * * * *", "Europe/Berlin");
    let (start, end) = (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z"));
    assert_eq!(rule.count_between(start, end), 86_400);
    assert_eq!(rule.next_after(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T02:00:00Z")));
    assert_eq!(rule.latest_until(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T00:59:59Z")));
    assert_eq!(rule.ticks_between(start, end).fold(0, |ticks, _| ticks + 1), 86_400);
    let spring = rule.count_between(at("2026-03-28T22:59:59.999Z"), at("2026-03-29T21:59:59Z"));
    assert_eq!(spring, 23 * 3600);
}

#[test]
fn years_of_a_rule_that_fires_each_second_are_counted_and_not_walked() {
    let rule = rule("* * * * * *", "UTC");
    let ten_years = rule.count_between(at("2016-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    assert_eq!(ten_years, 3653 * 86_400);
}

#[test]
fn the_search_is_strictly_after_and_keeps_to_milliseconds() {
    let rule = rule("0 7 * * *", "UTC");
    let seven = at("2026-01-01T07:00:00Z");
    assert_eq!(rule.next_after(at("2026-01-01T06:59:59.999Z")), Some(seven));
    assert_eq!(rule.next_after(seven), Some(at("2026-01-02T07:00:00Z")));
    assert_eq!(rule.latest_until(seven), Some(seven));
    assert_eq!(rule.latest_until(at("2026-01-01T06:59:59.999Z")), Some(at("2025-12-31T07:00:00Z")));
    assert_eq!(rule.next_after(Timestamp::MAX), None);
    assert_eq!(rule.latest_until(Timestamp::ZERO), None);
    assert_eq!(rule.next_after(Timestamp::ZERO), Some(at("1970-01-01T07:00:00Z")));
    assert_eq!(rule.ticks_between(seven, at("2026-01-03T07:00:00Z")).count(), 2);
}

#[test]
fn when_both_day_fields_are_restricted_either_matches() {
    let july = |cron| ticks(cron, "UTC", "2026-07-01T00:00:00Z", "2026-07-31T23:00:00Z").len();
    assert_eq!(july("0 12 13 * FRI"), 6, "five Fridays and Monday the 13th");
    assert_eq!(july("0 12 13 * *"), 1);
    assert_eq!(july("0 12 * * FRI"), 5);
    assert_eq!(july("0 12 */2 * FRI"), 3, "a field that starts with * restricts on top: Fridays with an odd day");
}

#[test]
fn days_counted_from_the_end_and_by_weekday_are_found() {
    let first = |cron, after: &str| {
        let ticks = ticks(cron, "UTC", after, "2040-01-01T00:00:00Z");
        ticks.first().cloned().unwrap()
    };
    assert_eq!(first("0 0 L * *", "2024-02-02T00:00:00Z"), "02-29T00:00:00+00:00");
    assert_eq!(first("0 0 L-3 * *", "2026-02-02T00:00:00Z"), "02-25T00:00:00+00:00");
    assert_eq!(first("0 0 L-30 * *", "2026-02-02T00:00:00Z"), "03-01T00:00:00+00:00");
    assert_eq!(first("0 0 LW * *", "2026-05-02T00:00:00Z"), "05-29T00:00:00+00:00");
    assert_eq!(first("0 0 15W * *", "2026-08-02T00:00:00Z"), "08-14T00:00:00+00:00");
    assert_eq!(first("0 0 1W * *", "2026-08-01T00:00:00Z"), "08-03T00:00:00+00:00");
    assert_eq!(first("0 0 * * FRI#2", "2026-08-01T00:00:00Z"), "08-14T00:00:00+00:00");
    assert_eq!(first("0 0 * * 6#5", "2026-08-01T00:00:00Z"), "08-29T00:00:00+00:00");
    assert_eq!(first("0 0 * * 7L", "2026-08-01T00:00:00Z"), "08-30T00:00:00+00:00");
    assert_eq!(first("0 0 29 2 *", "2026-01-01T00:00:00Z"), "02-29T00:00:00+00:00");
}

#[test]
fn what_is_out_of_range_or_means_nothing_is_refused_with_its_field() {
    for (cron, field) in [
        ("0 0 0 * *", "day-of-month"),
        ("0 0 32 * *", "day-of-month"),
        ("0 0 * 13 *", "month"),
        ("0 24 * * *", "hour"),
        ("60 * * * *", "minute"),
        ("60 * * * * *", "second"),
        ("0 0 * * 8", "day-of-week"),
        ("0 0 * 0 *", "month"),
        ("MON 0 * * *", "minute"),
        ("0 JAN * * *", "hour"),
        ("0 0 * MON *", "month"),
        ("0 0 * * JAN", "day-of-week"),
        ("0 0 * JANFEB *", "month"),
        ("0 0 * 1FEB *", "month"),
        ("0 0 1,,2 * *", "day-of-month"),
        (", 0 * * *", "minute"),
        ("0 0 15W3 * *", "day-of-month"),
        ("0 0 0W * *", "day-of-month"),
        ("0 0 L-31 * *", "day-of-month"),
        ("0 0 L-0 * *", "day-of-month"),
        ("0 0 1-5W * *", "day-of-month"),
        ("0 0 * * L", "day-of-week"),
        ("0 0 * * FRI#6", "day-of-week"),
        ("0 0 * * FRI#0", "day-of-week"),
        ("0 0 * * 1-5L", "day-of-week"),
        ("0 0 * * +1", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("*/60 * * * *", "minute"),
        ("5/15 * * * *", "minute"),
        ("/15 * * * *", "minute"),
        ("10-5 * * * *", "minute"),
        ("0 22-2 * * *", "hour"),
        ("0 0 * * FRI-MON", "day-of-week"),
        ("1-2-3 * * * *", "minute"),
        ("*/5/5 * * * *", "minute"),
        ("-5 * * * *", "minute"),
        ("L * * * *", "minute"),
        ("0 0 * L *", "month"),
        ("0 0 * * MONDAY", "day-of-week"),
        ("001 * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("0 0 * * 15W", "day-of-week"),
        ("0 0 1#2 * *", "day-of-month"),
        ("H * * * *", "minute"),
        ("10-20/11 * * * *", "minute"),
    ] {
        let why = refusal(cron);
        assert!(why.starts_with(&format!("cron field {field}: ")), "{cron}: {why}");
    }
}

#[test]
fn rules_of_another_shape_are_refused_with_a_hint() {
    assert!(refusal("").contains("is empty") && refusal("  ").contains("is empty"));
    assert!(refusal("* * * *").contains("has 4 fields"));
    assert!(refusal("0 0 0 1 1 * 2027").contains("year field"));
    assert!(refusal("* * * * * * * *").contains("has 8 fields"));
    for cron in ["0 7 1 * ?", "0 7 ? * MON", "0 0 7 1 * ?"] {
        let why = refusal(cron);
        assert!(why.contains("cron(…)") && why.contains("quartz(…)") && why.contains("write \"*\""), "{why}");
    }
    assert!(refusal("cron(0 7 1 * ? *)").contains("\"cron(…)\" comes later"));
    assert!(refusal("rate(5 minutes)").contains("\"rate(…)\" comes later"));
    assert!(refusal("@reboot").contains("@monthly"));
    assert!(refusal(&"1,".repeat(200)).contains("at most 256"));
}

#[test]
fn a_rule_without_any_day_never_fires_and_is_refused() {
    for cron in ["* * 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 L-30 2 *", "0 0 30W FEB *"] {
        assert!(refusal(cron).contains("never fires"), "{cron}");
    }
    assert!(Rule::parse("0 0 31 2 MON", "UTC").is_ok(), "either day field suffices");
    assert!(Rule::parse("0 0 29 2 *", "UTC").is_ok());
}

#[test]
fn an_unknown_zone_names_the_nearest() {
    for (wrong, right) in
        [("Europe/Berln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("America/New York", "America/New_York")]
    {
        match Rule::parse("@daily", wrong) {
            Err(Error::Zone { nearest, .. }) => assert_eq!(nearest.as_deref(), Some(right)),
            other => panic!("{wrong}: {other:?}"),
        }
    }
    let why = Rule::parse("@daily", "").unwrap_err().to_string();
    assert!(why.contains("time zone \"\" is not known"), "{why}");
}

#[test]
fn equal_rules_are_those_with_equal_fields_and_zone() {
    assert_eq!(rule("0 7 * * MON", "Europe/Berlin"), rule(" 0  7 * * 1", "europe/berlin"));
    assert_eq!(rule("0 7 * * 7", "UTC"), rule("0 0 7 * * SUN", "UTC"));
    assert_eq!(rule("@monthly", "UTC"), rule("0 0 1 * *", "UTC"));
    assert_ne!(rule("0 7 * * MON", "Europe/Berlin"), rule("0 7 * * MON", "Europe/Paris"));
    assert_ne!(rule("0 7 * * 1", "UTC"), rule("0 7 * * 2", "UTC"));
    assert_eq!(rule("0 7 1 * *", "Europe/Berlin").to_string(), "0 7 1 * * Europe/Berlin");
}

#[test]
fn a_rule_is_told_in_plain_english() {
    for (cron, words) in [
        ("0 7 1 * *", "At 07:00, on day 1 of the month (UTC)"),
        ("*/15 * * * *", "Every 15 minutes (UTC)"),
        ("0-30/10 * * * *", "At minute 0, 10, 20, and 30 past every hour (UTC)"),
        ("30 0 14 * * *", "At 14:00:30 (UTC)"),
        ("0 9 LW * *", "At 09:00, on the last Monday-to-Friday day of the month (UTC)"),
        ("0 9 L-3 * *", "At 09:00, on the day 3 days before the last day of the month (UTC)"),
        ("0 9 13 * FRI", "At 09:00, on day 13 of the month or Friday (UTC)"),
        ("0 9 */2 * FRI", "At 09:00, on every 2nd day from 1 to 31 if it is also Friday (UTC)"),
        ("0 9 * JAN,MAR-MAY MON-FRI", "At 09:00, on Monday to Friday, in January and March to May (UTC)"),
        ("*/10 * * * * *", "Every 10 seconds (UTC)"),
        ("0-30/10 * * * * *", "At second 0, 10, 20, and 30 (UTC)"),
        ("0 9 * * FRI#1", "At 09:00, on the 1st Friday of the month (UTC)"),
        ("0 9 * * FRI#3", "At 09:00, on the 3rd Friday of the month (UTC)"),
        ("0 9 * * FRI#4", "At 09:00, on the 4th Friday of the month (UTC)"),
        ("0 9 */11 * *", "At 09:00, on every 11th day from 1 to 31 (UTC)"),
        ("0 9 */12 * *", "At 09:00, on every 12th day from 1 to 31 (UTC)"),
        ("0 9 */13 * *", "At 09:00, on every 13th day from 1 to 31 (UTC)"),
        ("0 9 */21 * *", "At 09:00, on every 21st day from 1 to 31 (UTC)"),
        ("0 9 */22 * *", "At 09:00, on every 22nd day from 1 to 31 (UTC)"),
        ("0 9 */23 * *", "At 09:00, on every 23rd day from 1 to 31 (UTC)"),
        ("0 9 * * FRI#2", "At 09:00, on the 2nd Friday of the month (UTC)"),
        (
            "0 9 L,15W * *",
            "At 09:00, on the last day of the month and the Monday-to-Friday day nearest day 15 of the month (UTC)",
        ),
    ] {
        assert_eq!(rule(cron, "UTC").describe(), words, "{cron}");
    }
}

/// Why the search is our own: should croner change this, the rule could lean on it more.
#[test]
fn croner_alone_fires_twice_in_autumn_and_drops_ticks_in_spring() {
    let cron = croner::Cron::from_str("0,30 2 * * *").unwrap();
    let next = |after: &str| cron.find_next_occurrence(&after.parse::<Zoned>().unwrap(), false).unwrap().to_string();
    assert_eq!(next("2026-10-25T02:30:00+02:00[Europe/Berlin]"), "2026-10-25T02:00:00+01:00[Europe/Berlin]");
    assert_eq!(next("2026-03-28T03:00:00+01:00[Europe/Berlin]"), "2026-03-30T02:00:00+02:00[Europe/Berlin]");
}
