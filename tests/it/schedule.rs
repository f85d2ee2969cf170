//! Ticks in the store: the verdict on a due moment is durable, and a run starts in the same commit.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::base::Timestamp;
use nightmail::queue::stats;
use nightmail::run::{self, report};
use nightmail::schedule::tick::{self, Decisions};
use nightmail::schedule::{Misfire, Options, rule::Rule};
use nightmail::store::Tx;
use nightmail::store::record::TickVerdict;

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
    loop {
        let look = look(world, options).await;
        let fires = look.decided.iter().filter(|tick| matches!(tick.verdict, TickVerdict::Fired { .. }));
        fired.extend(fires.map(|tick| tick.scheduled_for));
        if !look.more {
            return fired;
        }
    }
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
    let ticks = tick::newest(&snapshot, "hourly", 10).unwrap();
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
        let accounted = tick::newest(&snapshot, "hourly", 10).unwrap();
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
    let (moment, tick) = tick::newest(&snapshot, "hourly", 1).unwrap().remove(0);
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
    let step = move |tx: &mut Tx<'_>| tick::start_by_hand(tx, &by_hand, "fan-out", &given, now);
    assert_eq!(world.queues().store().write::<_, tick::StartError, _>(step).await.unwrap(), 1);
    world.clock.advance(HOUR);
    assert_eq!(settle(&world, &options).await, []);
    let snapshot = world.snapshot();
    let (_, tick) = tick::newest(&snapshot, "hourly", 1).unwrap().remove(0);
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
