//! Ticks in the store: the verdict on a due moment is durable, and a run starts in the same commit.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::api::control::{Answer, Control, Overview, Request};
use nightmail::base::Timestamp;
use nightmail::queue::stats;
use nightmail::run::{self, report};
use nightmail::schedule::retention;
use nightmail::schedule::tick::{self, Decisions};
use nightmail::schedule::watermark::{self, ForgetError};
use nightmail::schedule::{Misfire, Options, rule::Rule};
use nightmail::store::Tx;
use nightmail::store::record::{TickRecord, TickVerdict};

use crate::support::{START, World};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn hourly(misfire: Misfire) -> Options {
    schedule("0 * * * *", misfire, DAY)
}

fn schedule(cron: &str, misfire: Misfire, grace: Duration) -> Options {
    Options {
        name: "hourly".into(),
        rule: Rule::parse(cron, "UTC").unwrap(),
        misfire,
        grace,
        function: "fan-out".into(),
        params: BTreeMap::from([("hour".into(), "{{ tick.scheduled_for }}".into())]),
        guard: None,
        brake: None,
        deadline: None,
        gate: None,
    }
}

async fn world() -> World {
    let world = World::new();
    world.queues().ensure("fan-out", &nightmail::queue::Options::default()).await.unwrap();
    world
}

async fn look(world: &World, options: &Options) -> Decisions {
    let (options, now) = (options.clone(), world.now());
    let step = move |tx: &mut Tx<'_>| tick::decide_due(tx, &options, "fan-out", now);
    world.queues().store().write::<_, run::Error, _>(step).await.unwrap()
}

/// Decides ticks until none is due, as the service does; returns the moments that fired.
async fn settle(world: &World, options: &Options) -> Vec<Timestamp> {
    let mut fired = Vec::new();
    for looks in 1.. {
        assert!(looks < 1000, "there is always more to decide");
        let look = look(world, options).await;
        let fires = look.decided.iter().filter(|tick| matches!(tick.verdict, TickVerdict::Fired { .. }));
        fired.extend(fires.map(|tick| tick.scheduled_for));
        if !look.more {
            break;
        }
    }
    fired
}

fn runs(world: &World) -> usize {
    report::list(&world.snapshot(), 1000).unwrap().len()
}

fn at(hours: u32) -> Timestamp {
    START.after(HOUR * hours)
}

#[tokio::test]
async fn a_schedule_that_was_never_seen_owes_nothing_and_fires_at_its_next_tick() {
    let world = world().await;
    let options = hourly(Misfire::All);
    assert_eq!(settle(&world, &options).await, []);
    world.clock.advance(HOUR);
    assert_eq!(settle(&world, &options).await, [at(1)]);
    assert_eq!(settle(&world, &options).await, [], "a tick with a row is never decided again");
    assert_eq!(runs(&world), 1);
}

#[tokio::test]
async fn a_tick_and_its_run_and_its_message_are_one() {
    let mut world = world().await;
    let options = hourly(Misfire::Once);
    settle(&world, &options).await;
    world.clock.advance(HOUR);
    settle(&world, &options).await;
    world.reopen().await;
    let snapshot = world.snapshot();
    let ticks = tick::newest(&snapshot, "hourly", world.now().wall, 10).unwrap();
    assert_eq!(ticks[0].0, at(1));
    assert_eq!(ticks[0].1.verdict, TickVerdict::Fired { run: 1 });
    assert_eq!(report::report(&snapshot, 1).unwrap().scheduled_for, at(1));
    let queue = world.queue("fan-out");
    assert_eq!(stats::stats(&snapshot, &queue, world.now()).unwrap().ready, 1);
    drop(snapshot);
    assert_eq!(settle(&world, &options).await, []);
}

#[tokio::test]
async fn a_daemon_that_was_down_makes_up_what_its_policy_says() {
    for (misfire, expected) in
        [(Misfire::Once, vec![at(5)]), (Misfire::All, (1..=5).map(at).collect()), (Misfire::Skip, vec![])]
    {
        let mut world = world().await;
        let options = hourly(misfire);
        settle(&world, &options).await;
        world.close();
        world.clock.advance(HOUR * 5 + HOUR / 2);
        world.reopen().await;
        assert_eq!(settle(&world, &options).await, expected, "{misfire:?}");
        let snapshot = world.snapshot();
        let accounted = tick::newest(&snapshot, "hourly", world.now().wall, 10).unwrap();
        assert_eq!(accounted.len(), 6, "each of the five ticks has a row, and so has the first sight of the schedule");
    }
}

#[tokio::test]
async fn a_missed_tick_beyond_its_grace_is_skipped_and_says_so() {
    let world = world().await;
    let options = schedule("0 0 * * *", Misfire::Once, HOUR);
    settle(&world, &options).await;
    world.clock.advance(DAY + HOUR * 2);
    assert_eq!(settle(&world, &options).await, []);
    let snapshot = world.snapshot();
    let (moment, tick) = tick::newest(&snapshot, "hourly", world.now().wall, 1).unwrap().remove(0);
    assert_eq!(moment, START.after(DAY));
    assert!(matches!(&tick.verdict, TickVerdict::Skipped { why } if why.contains("grace")), "{tick:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_back_and_runs_again_fires_no_tick_twice() {
    let world = world().await;
    let options = hourly(Misfire::All);
    settle(&world, &options).await;
    let mut fired = Vec::new();
    for _ in 0..3 {
        world.clock.advance(HOUR);
        fired.extend(settle(&world, &options).await);
    }
    assert_eq!(look(&world, &options).await.ahead, None);
    world.clock.set(at(1));
    assert_eq!(look(&world, &options).await.ahead, Some(at(3)), "the quiet has a reason that can be told");
    for _ in 0..4 {
        fired.extend(settle(&world, &options).await);
        world.clock.advance(HOUR);
    }
    assert_eq!(fired, [at(1), at(2), at(3), at(4)]);
    assert_eq!(runs(&world), 4);
}

#[tokio::test]
async fn a_tick_whose_run_was_started_by_hand_starts_no_second_one() {
    let world = world().await;
    let mut options = hourly(Misfire::Once);
    options.params = BTreeMap::from([("day".into(), "{{ tick.date }}".into())]);
    settle(&world, &options).await;
    let (by_hand, now) = (options.clone(), world.now());
    let given = BTreeMap::from([("day".to_owned(), "2026-11-01".to_owned())]);
    let step = move |tx: &mut Tx<'_>| tick::start_by_hand(tx, &by_hand, "fan-out", (&given, ""), now);
    assert_eq!(world.queues().store().write::<_, tick::StartError, _>(step).await.unwrap(), 1);
    world.clock.advance(HOUR);
    assert_eq!(settle(&world, &options).await, []);
    let snapshot = world.snapshot();
    let (_, tick) = tick::newest(&snapshot, "hourly", world.now().wall, 1).unwrap().remove(0);
    assert!(matches!(&tick.verdict, TickVerdict::Skipped { why } if why.contains("run 1")), "{tick:?}");
}

#[tokio::test]
async fn an_edited_rule_fires_for_nothing_before_the_edit() {
    let world = world().await;
    settle(&world, &schedule("0 2 * * *", Misfire::Once, DAY)).await;
    world.clock.advance(HOUR * 10);
    assert_eq!(settle(&world, &schedule("0 8 * * *", Misfire::Once, DAY)).await, [], "08:00 was before the edit");
    world.clock.advance(DAY);
    assert_eq!(settle(&world, &schedule("0 8 * * *", Misfire::Once, DAY)).await, [at(24 + 8)]);
}

/// Monthly at 08:00 on the first.
fn monthly(misfire: Misfire, grace: Duration) -> Options {
    schedule("0 8 1 * *", misfire, grace)
}

fn december() -> Timestamp {
    START.after(DAY * 30 + HOUR * 8)
}

/// A world whose clock was ahead by 40 days for a while: on 10 November it said 20 December.
async fn once_ahead(options: &Options) -> (World, Vec<Timestamp>) {
    let world = world().await;
    settle(&world, options).await;
    world.clock.set(at(8));
    let mut fired = settle(&world, options).await;
    world.clock.advance(DAY * 9);
    fired.extend(settle(&world, options).await);
    world.clock.set(START.after(DAY * 49));
    fired.extend(settle(&world, options).await);
    world.clock.set(START.after(DAY * 9));
    fired.extend(settle(&world, options).await);
    (world, fired)
}

#[tokio::test]
async fn a_clock_that_was_forty_days_ahead_cancels_no_month() {
    for options in [monthly(Misfire::Skip, DAY), monthly(Misfire::Once, DAY), monthly(Misfire::All, DAY)] {
        let (world, fired) = once_ahead(&options).await;
        assert_eq!(fired, [at(8)], "November's");
        let ahead = watermark::ahead(&world.snapshot(), "hourly", world.now().wall, 10).unwrap();
        assert_eq!(ahead.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(), [december()]);
        assert!(!watermark::has_run(&ahead[0].1), "{ahead:?}");
        world.clock.set(december());
        assert_eq!(settle(&world, &options).await, [december()], "{:?}", options.misfire);
        assert_eq!(runs(&world), 2);
        world.clock.set(START.after(DAY * 49));
        assert_eq!(settle(&world, &options).await, []);
        let decided = tick::newest(&world.snapshot(), "hourly", world.now().wall, 10).unwrap();
        assert_eq!(decided.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(), [december(), at(8), START]);
    }
}

#[tokio::test]
async fn a_tick_that_a_clock_ahead_fired_never_fires_again() {
    for misfire in [Misfire::Once, Misfire::All] {
        let options = monthly(misfire, DAY * 30);
        let (world, fired) = once_ahead(&options).await;
        assert_eq!(fired, [at(8), december()]);
        world.clock.set(december());
        assert_eq!(settle(&world, &options).await, []);
        assert_eq!(runs(&world), 2);
        let (tick, row) = tick::newest(&world.snapshot(), "hourly", world.now().wall, 1).unwrap().remove(0);
        assert_eq!((tick, row.verdict), (december(), TickVerdict::Fired { run: 2 }), "its row still names its run");
        let january = START.after(DAY * 61 + HOUR * 8);
        world.clock.set(january);
        assert_eq!(settle(&world, &options).await, [january], "the next one does");
    }
}

#[tokio::test]
async fn ticks_between_those_that_a_clock_ahead_fired_are_made_up_after_a_stop() {
    let world = world().await;
    let options = schedule("0 * * * *", Misfire::All, HOUR * 2);
    settle(&world, &options).await;
    world.clock.set(at(10));
    assert_eq!(settle(&world, &options).await, [at(8), at(9), at(10)], "within its grace");
    world.clock.set(START.after(HOUR / 2));
    settle(&world, &options).await;
    world.clock.set(at(9));
    assert_eq!(settle(&world, &options).await, [at(7)], "the ones before its grace are skipped, 8 and 9 have a run");
    world.clock.set(at(11));
    assert_eq!(settle(&world, &options).await, [at(11)]);
    assert_eq!(runs(&world), 5);
}

#[tokio::test]
async fn a_schedule_first_seen_or_edited_by_a_clock_ahead_starts_when_the_clock_is_right() {
    let world = world().await;
    world.clock.set(START.after(DAY * 40));
    settle(&world, &hourly(Misfire::All)).await;
    world.clock.set(START);
    assert_eq!(settle(&world, &hourly(Misfire::All)).await, []);
    world.clock.advance(HOUR);
    assert_eq!(settle(&world, &hourly(Misfire::All)).await, [at(1)]);
    world.clock.set(START.after(DAY * 40));
    let edited = schedule("30 * * * *", Misfire::All, DAY);
    settle(&world, &edited).await;
    world.clock.set(at(3));
    assert_eq!(settle(&world, &edited).await, [START.after(HOUR * 3 / 2), START.after(HOUR * 5 / 2)]);
    assert_eq!(runs(&world), 3);
}

#[tokio::test]
async fn a_clock_that_steps_both_ways_in_the_middle_fires_each_tick_once() {
    let world = world().await;
    let options = hourly(Misfire::Once);
    settle(&world, &options).await;
    let mut fired = Vec::new();
    let ten_minutes = Duration::from_secs(600);
    for hour in 1..=6 {
        // 600 s ahead just before the tick, then back behind it, then right again.
        world.clock.set(at(hour - 1).after(HOUR - ten_minutes / 2));
        fired.extend(settle(&world, &options).await);
        world.clock.set(world.now().wall.after(ten_minutes));
        fired.extend(settle(&world, &options).await);
        world.clock.set(at(hour - 1).after(HOUR - ten_minutes / 4));
        fired.extend(settle(&world, &options).await);
        world.clock.set(at(hour));
        fired.extend(settle(&world, &options).await);
    }
    assert_eq!(fired, (1..=6).map(at).collect::<Vec<_>>());
    assert_eq!(runs(&world), 6);
}

#[tokio::test]
async fn what_a_clock_ahead_decided_can_be_forgotten_but_a_tick_with_a_run_stays() {
    let world = world().await;
    let options = hourly(Misfire::Skip);
    settle(&world, &options).await;
    world.clock.set(at(5));
    settle(&world, &options).await;
    world.clock.set(at(1).after(HOUR / 2));
    settle(&world, &options).await;
    let now = world.now().wall;
    let forget = async |tick: Timestamp| {
        let step = move |tx: &mut Tx<'_>| watermark::forget_one(tx, "hourly", tick, now);
        world.queues().store().write::<_, ForgetError, _>(step).await
    };
    assert_eq!(forget(at(5)).await, Err(ForgetError::HasRun { tick: at(5), run: 1 }));
    assert_eq!(forget(at(1)).await, Err(ForgetError::Past { tick: at(1) }));
    let odd = at(2).after(Duration::from_secs(1));
    assert_eq!(forget(odd).await, Err(ForgetError::NotDecided { schedule: "hourly".into(), tick: odd }));
    assert_eq!(forget(at(4)).await, Ok(()));
    let step = move |tx: &mut Tx<'_>| watermark::forget(tx, "hourly", now);
    let forgotten = world.queues().store().write::<_, nightmail::store::Error, _>(step).await.unwrap();
    assert_eq!((forgotten.removed, forgotten.with_run, forgotten.upto), (2, 1, None), "hours 2 and 3");
    let left = watermark::ahead(&world.snapshot(), "hourly", now, 10).unwrap();
    assert_eq!(left.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(), [at(5)]);
}

#[tokio::test]
async fn an_overview_names_the_tick_that_nobody_has_decided() {
    let world = world().await;
    let options = hourly(Misfire::Once);
    let overview = async || {
        let control = Control::of_cli(world.queues().clone(), vec![(options.clone(), "fan-out".into())]);
        match control.answer(Request::Overview).await.unwrap() {
            Answer::Overview(overview) => *overview,
            other => panic!("{other:?}"),
        }
    };
    let ticks =
        |overview: &Overview| overview.schedules.iter().map(|tick| (tick.next, tick.late_since)).collect::<Vec<_>>();
    let hour = |hours: u32| Some(START.after(hours * HOUR));
    assert_eq!(ticks(&overview().await), [(hour(1), None)], "nobody has looked at the schedule yet");
    settle(&world, &options).await;
    world.pass(3600 + 60);
    assert_eq!(ticks(&overview().await), [(hour(2), None)], "a minute is no lateness");
    world.pass(1);
    let late = overview().await;
    assert_eq!(ticks(&late), [(hour(2), hour(1))]);
    assert_eq!(late.problems(), ["hourly is late: the tick of 2026-11-01T01:00:00.000Z has not been decided"]);
    settle(&world, &options).await;
    assert_eq!(ticks(&overview().await), [(hour(2), None)]);
    assert_eq!(overview().await.problems(), Vec::<String>::new());
}

/// The rows of a schedule, as many as there are.
fn rows(world: &World, schedule: &str) -> Vec<u64> {
    let range = (schedule.to_owned(), 0)..=(schedule.to_owned(), u64::MAX);
    let rows = world.snapshot().ticks().unwrap().first(range, usize::MAX).unwrap();
    rows.into_iter().map(|((_, at), _)| at).collect()
}

#[tokio::test]
async fn ticks_are_kept_for_400_days_and_at_most_ten_thousand_of_a_schedule() {
    let world = world().await;
    let (now, day) = (START.after(DAY * 1000), 86_400_000);
    world.clock.set(now);
    let now = now.as_millis();
    let decided = |schedule: &str, ticks: Vec<u64>| {
        let schedule = schedule.to_owned();
        let row = TickRecord { decided_at: START, verdict: TickVerdict::Known };
        let write = move |tx: &mut Tx<'_>| {
            ticks.iter().try_for_each(|at| tx.ticks()?.insert(&(schedule.clone(), *at), &row).map(drop))
        };
        world.queues().store().write::<_, nightmail::store::Error, _>(write)
    };
    let many = retention::KEPT_MAX as u64 + 1234;
    decided("busy", (0..many).map(|n| now - n * 60_000).collect()).await.unwrap();
    decided("busy", vec![now + 1, now + day]).await.unwrap();
    decided("daily", (0..500).map(|n| now - n * day).collect()).await.unwrap();
    decided("once", vec![now - 600 * day, now - 500 * day]).await.unwrap();
    decided("yearly", vec![now - 365 * day, now]).await.unwrap();
    let outdated = retention::outdated(&world.snapshot(), world.now().wall).unwrap();
    assert_eq!(outdated.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["busy", "daily", "once"]);
    let mut steps = 0;
    for (schedule, upto) in outdated {
        loop {
            let name = schedule.clone();
            let step = move |tx: &mut Tx<'_>| retention::remove(tx, &name, upto);
            let removed = world.queues().store().write::<_, nightmail::store::Error, _>(step).await.unwrap();
            steps += 1;
            assert!(removed <= 500 && steps < 20, "bounded steps");
            if removed < retention::STEP_MAX {
                break;
            }
        }
    }
    assert_eq!(steps, 3 + 1 + 1, "bounded steps");
    let busy = rows(&world, "busy");
    assert_eq!(busy.len(), retention::KEPT_MAX + 2, "the future does not count");
    assert_eq!(busy[0], now - (retention::KEPT_MAX as u64 - 1) * 60_000, "the newest are kept");
    assert_eq!(rows(&world, "daily")[0], now - 400 * day);
    assert_eq!(rows(&world, "once"), [now - 500 * day], "the newest stays");
    assert_eq!(rows(&world, "yearly").len(), 2);
    assert_eq!(retention::outdated(&world.snapshot(), world.now().wall).unwrap(), []);
}

/// Writes ticks of the hourly schedule as a clock that stood at `decided_at` did.
async fn decided_by(world: &World, decided_at: Timestamp, ticks: Vec<(Timestamp, TickVerdict)>) {
    let step = move |tx: &mut Tx<'_>| {
        ticks.into_iter().try_for_each(|(at, verdict)| {
            tx.ticks()?.insert(&("hourly".to_owned(), at.as_millis()), &TickRecord { decided_at, verdict }).map(drop)
        })
    };
    world.queues().store().write::<_, nightmail::store::Error, _>(step).await.unwrap();
}

#[tokio::test]
async fn a_store_of_an_earlier_version_goes_on_after_its_newest_tick() {
    let world = world().await;
    let options = hourly(Misfire::All);
    settle(&world, &options).await;
    world.clock.set(at(2));
    assert_eq!(settle(&world, &options).await, [at(1), at(2)]);
    let step = |tx: &mut Tx<'_>| tx.meta()?.remove(&"decided hourly".to_owned());
    assert_eq!(world.queues().store().write::<_, nightmail::store::Error, _>(step).await, Ok(true));
    world.clock.set(at(4));
    assert_eq!(settle(&world, &options).await, [at(3), at(4)]);
}

#[tokio::test]
async fn after_a_clock_that_was_ahead_for_long_the_way_back_is_bounded_and_nothing_fires_twice() {
    let world = world().await;
    let options = schedule("* * * * *", Misfire::Skip, DAY);
    settle(&world, &options).await;
    let minute = Duration::from_secs(60);
    let count = watermark::STEP_MAX as u32 + 100;
    let fired = (1..=count + 50).map(|n| (START.after(minute * n), TickVerdict::Fired { run: u64::from(n) }));
    decided_by(&world, START.after(DAY * 40), fired.collect()).await;
    let ahead = START.after(DAY * 40).as_millis();
    let step = move |tx: &mut Tx<'_>| tx.meta()?.insert(&"decided hourly".to_owned(), &ahead);
    world.queues().store().write::<_, nightmail::store::Error, _>(step).await.unwrap();
    world.clock.set(START.after(minute * (count + 20)));
    assert_eq!(settle(&world, &options).await, []);
    assert_eq!(runs(&world), 0);
    let watermark = world.snapshot().meta().unwrap().get(&"decided hourly".to_owned()).unwrap();
    assert_eq!(watermark, Some(world.now().wall.as_millis()));
    world.clock.set(START.after(minute * (count + 51)));
    assert_eq!(settle(&world, &options).await, [world.now().wall]);
}

#[tokio::test]
async fn a_void_decision_leaves_no_trace_once_its_time_has_passed() {
    let world = world().await;
    let options = schedule("0 8 1 * *", Misfire::Skip, DAY);
    world.clock.set(START.after(DAY * 40));
    settle(&world, &options).await;
    world.clock.set(START);
    settle(&world, &options).await;
    decided_by(&world, START.after(DAY * 40), vec![(at(5), TickVerdict::Skipped { why: "missed".into() })]).await;
    world.clock.set(START.after(DAY * 61 + HOUR * 8));
    assert_eq!(settle(&world, &options).await, [world.now().wall]);
    let ticks = tick::newest(&world.snapshot(), "hourly", Timestamp::MAX, 10).unwrap();
    let ticks: Vec<Timestamp> = ticks.into_iter().map(|(tick, _)| tick).collect();
    assert_eq!(ticks, [world.now().wall, december(), at(8), START]);
}

#[tokio::test]
async fn any_number_of_decisions_is_forgotten_in_one_command() {
    let world = world().await;
    let options = hourly(Misfire::Once);
    let count = 2 * watermark::STEP_MAX as u32 + 7;
    let skipped = |n: u32| (at(n), TickVerdict::Skipped { why: "missed".into() });
    decided_by(
        &world,
        at(count),
        (1..=count).map(skipped).chain([(at(count + 1), TickVerdict::Fired { run: 1 })]).collect(),
    )
    .await;
    let control = Control::of_cli(world.queues().clone(), vec![(options, "fan-out".into())]);
    let request = Request::ForgetTicks { schedule: "hourly".into(), tick: None };
    let Answer::Forgotten(forgotten) = control.answer(request).await.unwrap() else { panic!("another answer") };
    assert_eq!((forgotten.forgotten, forgotten.with_run), (u64::from(count), 1));
    assert_eq!(rows(&world, "hourly"), [at(count + 1).as_millis()]);
}

/// A fan-out's queue that holds one message, and holds one.
async fn full_world() -> World {
    let world = World::new();
    let options = nightmail::queue::Options { messages_max: Some(1), ..crate::support::forever() };
    world.queues().ensure("fan-out", &options).await.unwrap();
    world.queues().send("fan-out", nightmail::queue::Send::text("other")).await.unwrap();
    world
}

/// Makes room for one message in the fan-out's queue.
async fn make_room(world: &World) {
    let taken = world.take_one("fan-out").await;
    world.queues().delete(taken.handle).await.unwrap();
}

#[tokio::test]
async fn a_tick_waits_while_the_fan_outs_queue_is_full_and_is_never_skipped_whatever_the_policy() {
    for misfire in [Misfire::Once, Misfire::All, Misfire::Skip] {
        let mut world = full_world().await;
        let options = schedule("0 * * * *", misfire, HOUR / 2);
        settle(&world, &options).await;
        for hour in 1..=2 {
            world.clock.advance(HOUR);
            let look = look(&world, &options).await;
            assert_eq!(look.decided.len(), 1, "{misfire:?}");
            assert_eq!((look.decided[0].scheduled_for, &look.decided[0].verdict), (at(hour), &TickVerdict::Waiting));
            assert!(look.is_waiting);
            assert_eq!(settle(&world, &options).await, [], "{misfire:?}: nothing changes without room");
        }
        assert_eq!(runs(&world), 0);
        // A restart, and a day beyond every grace.
        world.clock.advance(DAY);
        world.reopen().await;
        assert!(!settle(&world, &options).await.contains(&at(1)));
        for hour in 1..=2 {
            make_room(&world).await;
            assert_eq!(settle(&world, &options).await, [at(hour)], "{misfire:?}");
            assert_eq!(report::list(&world.snapshot(), 1).unwrap()[0].scheduled_for, at(hour));
        }
        world.check();
    }
}

#[tokio::test]
async fn no_tick_waits_any_more_once_all_have_fired() {
    let world = full_world().await;
    let options = hourly(Misfire::All);
    settle(&world, &options).await;
    world.clock.advance(HOUR * 3);
    assert_eq!(settle(&world, &options).await, []);
    for hour in 1..=3 {
        assert!(look(&world, &options).await.is_waiting);
        make_room(&world).await;
        assert_eq!(settle(&world, &options).await, [at(hour)]);
    }
    assert!(!look(&world, &options).await.is_waiting);
    world.check();
}

#[tokio::test]
async fn a_tick_that_waits_by_a_clock_that_was_ahead_waits_for_its_time() {
    let world = full_world().await;
    let options = hourly(Misfire::Once);
    settle(&world, &options).await;
    world.clock.advance(HOUR);
    assert!(look(&world, &options).await.is_waiting);
    world.clock.set(START.after(HOUR / 2));
    make_room(&world).await;
    assert_eq!(settle(&world, &options).await, [], "it lies in the future");
    world.clock.advance(HOUR);
    assert_eq!(settle(&world, &options).await, [at(1)]);
    world.check();
}
