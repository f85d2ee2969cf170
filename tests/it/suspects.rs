//! Crashes of the whole daemon charge only who may have caused them.

use std::collections::BTreeSet;
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail::base::{AttemptEnd, Clock, SystemClock};
use nightmail::run::{Resolution, Resolve};
use nightmail_demo::bank::{Behaviour, Route};
use nightmail_demo::{bank, sink};

use crate::harness::{Child, Harness, Operator, Rng, assert_recounted, messages, say, size, until};

/// The bank waits this long before it answers, so that attempts are in work when the daemon is killed.
const LATENCY: Duration = Duration::from_millis(150);

async fn slow_bank(users: u32) -> Harness {
    let options = bank::Options { users, latency: Some(LATENCY), ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    // What was being mailed at a kill is tried again, too.
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__UNKNOWN", "resend");
    harness
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_kills_in_a_row_kill_none_of_200_messages() {
    const KILLS: u32 = 12;
    let users = size("NIGHTMAIL_KILL_USERS", 200);
    let harness = slow_bank(users).await;
    let mut child = harness.child().await;
    let run = child.operator.start().await;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        child.kill().await;
        child = harness.child().await;
    }
    let report = child.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(users), u64::from(users), 0));
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    harness.assert_recipients(users);
    say(format_args!("{users} users, {KILLS} kills: {} attempts interrupted, none dead", report.interrupted));
}

/// Kills the daemon as soon as it has asked the bank for that user's account more than `seen` times; false when all work
/// is done first.
async fn killed_at(harness: &Harness, child: Child, user: u32, seen: u64) -> bool {
    let is_asked = until("the poison, or the end of the work", async || {
        if harness.bank.asked(user) > seen {
            return Some(true);
        }
        let queues = child.operator.queues().await;
        let left: u64 = ["statements", "fan-out"].iter().map(|name| total(&queues, name)).sum();
        (left == 0).then_some(false)
    })
    .await;
    if is_asked {
        child.kill().await;
    } else {
        assert!(child.terminate(Duration::from_secs(30)).await.success());
    }
    is_asked
}

fn total(queues: &[nightmail::queue::Stats], name: &str) -> u64 {
    queues.iter().find(|queue| queue.name == name).unwrap().total()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_the_daemon_dies_after_max_receive_count_crashes_alone_and_nobody_else_pays() {
    const USERS: u32 = 40;
    const POISON: u32 = 20;
    const MAX_RECEIVE_COUNT: usize = 5;
    let harness = slow_bank(USERS).await;
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("all users", async || child.operator.report(run).await.fetched_at).await;
    until("work", async || (child.operator.queue("statements").await.in_flight > 0).then_some(())).await;
    let mut crashes = 0;
    let mut child = Some(child);
    let mut seen = 0;
    while killed_at(&harness, child.take().unwrap(), POISON, seen).await {
        crashes += 1;
        // Read while no daemon runs: the next one may ask before this test looks again.
        seen = harness.bank.asked(POISON);
        let queues = harness.queues();
        for message in crate::harness::messages(&queues, "statements") {
            let is_poison = message.body.contains("u-000021@");
            assert!(is_poison || message.attempts_charged <= 1, "a neighbour pays: {message:?}");
        }
        drop(queues);
        child = Some(harness.child().await);
    }
    let dead = crate::harness::messages(&harness.queues(), "statements-dead");
    assert_eq!(dead.len(), 1, "{dead:?}");
    // Others were in work at the first crash, so it is charged to nobody.
    assert!((MAX_RECEIVE_COUNT..=MAX_RECEIVE_COUNT + 1).contains(&dead[0].history.len()), "{dead:?}");
    assert!(dead[0].history.iter().all(|attempt| attempt.end == AttemptEnd::Lost), "{dead:?}");
    assert!((MAX_RECEIVE_COUNT..=MAX_RECEIVE_COUNT + 1).contains(&crashes), "{crashes} crashes");
    let sent = harness.sink.summary().distinct;
    assert_eq!(sent, u64::from(USERS) - 1);
}

/// A bank whose users come byte by byte, two on a page, beside a pool that mails those who are there.
async fn slow_pages(users: u32) -> Harness {
    let options = bank::Options { users, page_size: 2, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.bank.set(Route::Users, Behaviour::Slow { every: Duration::from_millis(1) });
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__GUARD", "off");
    // Two crashes that are charged would kill it.
    harness.set_key("QUEUES__FAN_OUT__MAX_RECEIVE_COUNT", 2);
    harness
}

/// Waits until the fan-out has committed more users than that; returns how many.
async fn more_users(operator: &Operator, run: u64, than: u64) -> u64 {
    let more = async || Some(operator.report(run).await.fetched).filter(|fetched| *fetched > than);
    until("another page of users", more).await
}

/// Has those mails sent that were in doubt and did not arrive, and says of the others that they did.
async fn resolve(harness: &Harness, operator: &Operator, run: u64) -> usize {
    let mailed: BTreeSet<String> = harness.sink.records().into_iter().map(|record| record.recipient).collect();
    let doubts = operator.in_doubt(run).await;
    for row in &doubts {
        let resolution = if mailed.contains(&row.address) { Resolution::Sent } else { Resolution::Resend };
        let what = Resolve { run, users: vec![row.user.clone()], resolution, accounts: Vec::new() };
        let answer = operator.try_ask(Request::Resolve(what)).await.unwrap();
        assert!(matches!(answer, Answer::Count(1)), "{answer:?}");
    }
    doubts.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_fan_out_survives_kills_in_a_row_goes_on_where_it_was_and_each_user_gets_one_mail() {
    let (kills, users) = (size("NIGHTMAIL_KILLS", 8), size("NIGHTMAIL_KILL_USERS", 60));
    let harness = slow_pages(users).await;
    let (mut rng, mut fetched) = (Rng::new(), 0);
    let mut child = harness.child().await;
    let run = child.operator.start().await;
    for _ in 0..kills {
        fetched = more_users(&child.operator, run, fetched).await;
        tokio::time::sleep(rng.span(500)).await;
        child.kill().await;
        let queues = harness.queues();
        let open = messages(&queues, "fan-out").remove(0);
        assert!(open.attempts_charged <= 1, "only the attempt that was cut off: {open:?}");
        let report = assert_recounted(&queues, run);
        assert!(report.fetched >= fetched, "{} after {fetched}", report.fetched);
        fetched = report.fetched;
        drop(queues);
        child = harness.child().await;
    }
    assert!(fetched < u64::from(users), "the fan-out ended before the kills did");
    let all_ended = async || Some(child.operator.report(run).await).filter(|report| report.open == 0);
    until("the last user", async || child.operator.report(run).await.fetched_at).await;
    until("an outcome for each", all_ended).await;
    let doubts = resolve(&harness, &child.operator, run).await;
    let report = child.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(users), u64::from(users), 0));
    assert_eq!(report.repeated, 0, "a page that is read again names nobody twice");
    let (pages, requests) = (u64::from(users.div_ceil(2)), harness.bank.counts().users);
    assert!(requests <= pages + u64::from(kills), "{requests} requests for {pages} pages and {kills} kills");
    child.operator.assert_empty().await;
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    harness.assert_one_mail_each(users);
    say(format_args!("{kills} kills of a fan-out over {pages} pages: {requests} requests, {doubts} mails in doubt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_that_was_at_work_in_a_crash_waits_at_most_30_s_for_suspects_that_hang() {
    const USERS: u32 = 40;
    let mut harness = slow_pages(USERS).await;
    // Each suspect hangs for longer than the 30 s that they have.
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__TIMEOUT", "40s");
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", 0);
    harness.bank.set(Route::Account, Behaviour::Silent);
    let child = harness.child().await;
    let run = child.operator.start().await;
    let fetched = more_users(&child.operator, run, 4).await;
    let in_work = async || (child.operator.queue("statements").await.in_flight >= 3).then_some(());
    until("suspects to be", in_work).await;
    child.kill().await;

    let child = harness.child().await;
    let clock = SystemClock::new();
    let began = clock.monotonic();
    let before = harness.bank.counts().users;
    until("a suspect", async || (child.operator.queue("statements").await.in_flight == 1).then_some(())).await;
    more_users(&child.operator, run, fetched + 1).await;
    let waited = clock.monotonic() - began;
    assert!(harness.bank.counts().users > before);
    assert!((Duration::from_secs(15)..Duration::from_secs(45)).contains(&waited), "{waited:?}");
    let open = child.operator.peek("fan-out").await.remove(0);
    assert_eq!(
        (open.attempts_charged, open.history.len()),
        (1, 1),
        "the one in work, after one that was lost: {open:?}"
    );

    harness.bank.set(Route::Account, Behaviour::Normal);
    let report = child.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(USERS), u64::from(USERS), 0));
    harness.assert_one_mail_each(USERS);
    assert!(child.terminate(Duration::from_secs(60)).await.success());
    say(format_args!("the fan-out waited {waited:.1?} for suspects"));
}
