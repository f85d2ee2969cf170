//! The promises of [`decide`](super::decide), one by one and over random histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> Timestamp {
    Timestamp::from_jiff(text.parse().unwrap())
}

fn rule(cron: &str) -> Rule {
    Rule::parse(cron, "UTC").unwrap()
}

/// All rows that a caller gets by repeating the call until nothing is due, and the number of calls.
fn all(rule: &Rule, misfire: Misfire, grace: Duration, last: Option<Timestamp>, seen: &str, now: &str) -> Vec<Decided> {
    let (mut last, mut rows) = (last, Vec::new());
    loop {
        let decision = decide(rule, misfire, grace, last, at(seen), at(now));
        assert!(decision.due.len() <= DECIDED_MAX);
        let Some(newest) = decision.due.last() else { return rows };
        assert!(Some(newest.scheduled_for) > last, "what was decided is due again");
        last = Some(newest.scheduled_for);
        rows.extend(decision.due);
    }
}

fn fired(rows: &[Decided]) -> Vec<Timestamp> {
    rows.iter().filter(|row| row.verdict == Verdict::Fire).map(|row| row.scheduled_for).collect()
}

fn stood_for(rows: &[Decided]) -> u64 {
    let ticks = |row: &Decided| match row.verdict {
        Verdict::Fire => 1,
        Verdict::Skipped { ticks, .. } => ticks,
    };
    rows.iter().map(ticks).sum()
}

#[test]
fn a_tick_found_within_a_minute_fires_whatever_the_policy() {
    let daily = rule("0 7 * * *");
    let last = Some(at("2026-01-01T07:00:00Z"));
    for misfire in [Misfire::Once, Misfire::All, Misfire::Skip] {
        let decision = decide(&daily, misfire, Duration::ZERO, last, Timestamp::ZERO, at("2026-01-02T07:01:00Z"));
        assert_eq!(fired(&decision.due), [at("2026-01-02T07:00:00Z")], "{misfire:?}");
        assert_eq!(decision.next, Some(at("2026-01-03T07:00:00Z")));
    }
    let late = decide(&daily, Misfire::Skip, DAY, last, Timestamp::ZERO, at("2026-01-02T07:01:00.001Z"));
    assert_eq!(fired(&late.due), []);
    assert_eq!(late.due.len(), 1);
}

#[test]
fn once_fires_the_latest_missed_tick_and_names_it_in_the_earlier_ones() {
    let rows = all(&rule("0 7 * * *"), Misfire::Once, DAY, None, "2026-01-01T00:00:00Z", "2026-01-03T09:00:00Z");
    let latest = at("2026-01-03T07:00:00Z");
    assert_eq!(rows.len(), 3);
    for (row, day) in rows.iter().zip([at("2026-01-01T07:00:00Z"), at("2026-01-02T07:00:00Z")]) {
        assert_eq!(row.scheduled_for, day);
        assert_eq!(row.verdict, Verdict::Skipped { why: Why::MadeUpBy(latest), first: day, ticks: 1 });
    }
    assert_eq!(rows[2], Decided { scheduled_for: latest, verdict: Verdict::Fire });
    assert_eq!(Why::MadeUpBy(latest).to_string(), "made up by the later tick 2026-01-03T07:00:00.000Z");
}

#[test]
fn a_missed_tick_later_than_its_grace_never_fires() {
    let daily = rule("0 7 * * *");
    for misfire in [Misfire::Once, Misfire::All] {
        let rows = |now| all(&daily, misfire, HOUR, None, "2026-01-01T00:00:00Z", now);
        assert_eq!(fired(&rows("2026-01-02T08:00:00Z")), [at("2026-01-02T07:00:00Z")], "{misfire:?}: within");
        let beyond = rows("2026-01-02T08:00:00.001Z");
        assert_eq!(fired(&beyond), [], "{misfire:?}: beyond");
        assert_eq!(stood_for(&beyond), 2);
        let whys = beyond.iter().map(|row| &row.verdict);
        assert!(whys.clone().all(|verdict| matches!(verdict, Verdict::Skipped { why: Why::LaterThanGrace(HOUR), .. })));
    }
    assert_eq!(Why::LaterThanGrace(HOUR).to_string(), "found later than its grace of 1h");
}

#[test]
fn all_fires_each_missed_tick_oldest_first_a_hundred_at_a_time() {
    let rows = all(&rule("* * * * *"), Misfire::All, DAY, None, "2026-01-01T00:00:00Z", "2026-01-01T10:00:00Z");
    let fired = fired(&rows);
    assert_eq!(fired.len(), 601);
    assert_eq!((fired[0], fired[600]), (at("2026-01-01T00:00:00Z"), at("2026-01-01T10:00:00Z")));
    assert!(fired.is_sorted());
}

#[test]
fn skip_fires_only_what_is_on_time() {
    let rows = all(&rule("*/10 * * * *"), Misfire::Skip, DAY, None, "2026-01-01T00:00:00Z", "2026-01-01T01:00:30Z");
    assert_eq!(fired(&rows), [at("2026-01-01T01:00:00Z")]);
    assert_eq!(stood_for(&rows), 7);
    assert!(matches!(rows[0].verdict, Verdict::Skipped { why: Why::Missed, .. }));
}

#[test]
fn no_tick_before_the_schedule_was_known_is_due() {
    let rows = all(&rule("0 * * * *"), Misfire::All, DAY, None, "2026-01-01T05:00:00Z", "2026-01-01T06:30:00Z");
    assert_eq!(fired(&rows), [at("2026-01-01T05:00:00Z"), at("2026-01-01T06:00:00Z")]);
    let none = all(&rule("0 * * * *"), Misfire::All, DAY, None, "2026-01-01T05:00:00.001Z", "2026-01-01T05:30:00Z");
    assert_eq!(none, []);
}

#[test]
fn a_schedule_that_comes_back_owes_nothing_for_the_time_it_was_gone() {
    let last = Some(at("2025-12-01T00:00:00Z"));
    let rows = all(&rule("0 * * * *"), Misfire::All, DAY, last, "2026-01-01T05:30:00Z", "2026-01-01T06:30:00Z");
    assert_eq!(rows, [Decided { scheduled_for: at("2026-01-01T06:00:00Z"), verdict: Verdict::Fire }]);
}

#[test]
fn a_clock_set_back_gives_no_tick_again() {
    let hourly = rule("0 * * * *");
    let last = Some(at("2026-01-01T10:00:00Z"));
    for now in ["2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T10:59:59.999Z", "1970-01-01T00:00:00Z"] {
        for misfire in [Misfire::Once, Misfire::All, Misfire::Skip] {
            let decision = decide(&hourly, misfire, DAY, last, Timestamp::ZERO, at(now));
            assert_eq!(decision.due, [], "{misfire:?} at {now}");
            assert_eq!(decision.next, Some(at("2026-01-01T11:00:00Z")), "{misfire:?} at {now}");
        }
    }
}

#[test]
fn years_of_a_rule_that_fires_each_second_are_a_few_rows() {
    let each_second = rule("* * * * * *");
    let last = Some(at("2016-01-01T00:00:00Z"));
    let now = at("2026-01-01T00:00:00Z");
    let missed = 3653 * 86_400 - 61;
    for misfire in [Misfire::Once, Misfire::Skip] {
        let decision = decide(&each_second, misfire, DAY, last, Timestamp::ZERO, now);
        let made_up = usize::from(misfire == Misfire::Once);
        assert_eq!(decision.due.len(), 1 + SKIPPED_ROWS_MAX + made_up + 61);
        let Verdict::Skipped { first, ticks, .. } = decision.due[0].verdict else { panic!("{:?}", decision.due[0]) };
        assert_eq!(first, at("2016-01-01T00:00:01Z"));
        assert_eq!(ticks, missed - (SKIPPED_ROWS_MAX + made_up) as u64);
        assert_eq!(decision.due.last().map(|row| row.scheduled_for), Some(now));
        let again = decide(&each_second, misfire, DAY, Some(now), Timestamp::ZERO, now);
        assert_eq!(again.due, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A daemon that wakes at odd moments, its clock jumping both ways, against plain arithmetic over every tick.
    #[test]
    fn every_tick_gets_exactly_one_row_and_fires_only_when_its_policy_says_so(
        wakes in proptest::collection::vec(-7_200_i64..40_000, 1..12),
        misfire in prop_oneof![Just(Misfire::Once), Just(Misfire::All), Just(Misfire::Skip)],
        grace_s in 0_u64..20_000,
        cron in prop_oneof![Just("*/5 * * * *"), Just("17 * * * *"), Just("*/20 * * * * *"), Just("0 */2 * * *")],
    ) {
        let rule = rule(cron);
        let (seen, grace) = (at("2026-03-28T20:00:00Z"), Duration::from_secs(grace_s));
        let (mut now_s, mut last) = (i64::try_from(seen.as_secs()).unwrap(), None);
        let before_seen = Timestamp::from_millis(seen.as_millis() - 1);
        let mut newest_now = before_seen;
        let mut rows: Vec<Decided> = Vec::new();
        for wake in wakes {
            now_s += wake;
            let now = Timestamp::from_secs(u64::try_from(now_s).unwrap());
            newest_now = newest_now.max(now);
            loop {
                let decision = decide(&rule, misfire, grace, last, seen, now);
                prop_assert!(decision.due.len() <= DECIDED_MAX);
                prop_assert!(decision.next > last && decision.next > Some(now));
                for row in &decision.due {
                    prop_assert!(Some(row.scheduled_for) > last && row.scheduled_for <= now);
                    let late = now.since(row.scheduled_for);
                    let on_time = late <= ON_TIME_MAX;
                    let made_up = matches!(row.verdict, Verdict::Skipped { why: Why::MadeUpBy(_), .. });
                    let fires = match misfire {
                        Misfire::Skip => on_time,
                        Misfire::All => on_time || late <= grace,
                        Misfire::Once => on_time || (late <= grace && !made_up),
                    };
                    prop_assert_eq!(row.verdict == Verdict::Fire, fires, "{:?} at {}", row, now);
                    last = Some(row.scheduled_for);
                }
                if misfire == Misfire::Once {
                    let missed = |row: &&Decided| now.since(row.scheduled_for) > ON_TIME_MAX;
                    let fired = decision.due.iter().filter(missed).filter(|row| row.verdict == Verdict::Fire);
                    prop_assert!(fired.count() <= 1, "once fires at most one missed tick");
                }
                let done = decision.due.is_empty();
                rows.extend(decision.due);
                if done { break }
            }
        }
        let every_tick: Vec<Timestamp> = rule.ticks_between(before_seen, newest_now).collect();
        prop_assert_eq!(stood_for(&rows), every_tick.len() as u64);
        let mut next = every_tick.iter();
        for row in &rows {
            let ticks = match row.verdict { Verdict::Fire => 1, Verdict::Skipped { ticks, .. } => ticks };
            let newest = next.by_ref().take(usize::try_from(ticks).unwrap()).last();
            prop_assert_eq!(newest, Some(&row.scheduled_for));
        }
    }
}
