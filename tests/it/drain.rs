//! SIGTERM under load: the daemon ends in time, loses nothing, duplicates nothing, and charges no released message.
//!
//! `NIGHTMAIL_TERMS=100` is the full size; `NIGHTMAIL_SEED` replays the moments.

use std::time::Duration;

use nightmail::base::{Clock, SystemClock};
use nightmail_demo::{bank, sink};

use crate::harness::{Child, Harness, Rng, assert_recounted, messages, say, size, until};

/// The daemon must end within the drain time plus this, for closing the store on a busy machine.
const DRAIN: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_term_under_load_ends_in_time_and_nobody_is_lost_or_doubled_after_the_restart() {
    let terms = size("NIGHTMAIL_TERMS", 3);
    let users = 60 * terms;
    let latency = Some(Duration::from_millis(30));
    let options = bank::Options { users, latency, page_size: 50, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("DAEMON__DRAIN", format_args!("{}s", DRAIN.as_secs()));
    let (mut rng, clock) = (Rng::new(), SystemClock::new());
    let (mut run, mut longest, mut under_load) = (None, Duration::ZERO, 0);
    for _ in 0..terms {
        let child = harness.child().await;
        let id = match run {
            Some(id) => id,
            None => child.operator.start().await,
        };
        run = Some(id);
        let busy = async || {
            let is_over = child.operator.report(id).await.is_complete();
            (is_over || child.operator.queue("statements").await.in_flight > 0).then_some(!is_over)
        };
        under_load += u32::from(until("work in hand", busy).await);
        tokio::time::sleep(rng.span(250)).await;
        let before = clock.monotonic();
        let end = child.terminate(DRAIN + MARGIN).await;
        longest = longest.max(clock.monotonic() - before);
        assert_eq!(end.code(), Some(0), "{end:?}\n{}", harness.log());
        assert_given_back(&harness, id);
    }
    let child = harness.child().await;
    let report = child.operator.complete(run.unwrap()).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(users), 0, 0));
    harness.assert_one_mail_each(users);
    child.operator.assert_empty().await;
    assert!(child.terminate(DRAIN + MARGIN).await.success());
    assert!(under_load > 0, "no signal came under load");
    say(format_args!("{terms} terms, {under_load} under load, over {users} users: the longest end took {longest:.2?}"));
}

/// After a drain nobody holds a message, and only failed attempts are charged: none here.
fn assert_given_back(harness: &Harness, run: u64) {
    let queues = harness.queues();
    assert_recounted(&queues, run);
    for queue in ["statements", "fan-out"] {
        for message in messages(&queues, queue) {
            assert_eq!((message.phase.as_str(), message.attempts_charged), ("ready", 0), "{queue}: {message:?}");
            assert!(message.history.is_empty(), "{queue}: {message:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_ends_a_fan_out_at_once_while_a_page_is_on_its_way_and_while_it_waits_for_room() {
    const USERS: u32 = 100;
    let options = bank::Options { users: USERS, page_size: 40, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("DAEMON__DRAIN", "60s");
    harness.set_key("QUEUES__STATEMENTS__MAX_MESSAGES", 50);
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__GUARD", "off");
    harness.bank.set(bank::Route::Account, bank::Behaviour::Silent);
    harness.bank.set(bank::Route::Users, bank::Behaviour::Silent);
    let stop = async |harness: &Harness, child: Child, run| {
        let at_once = child.terminate(MARGIN).await;
        assert_eq!(at_once.code(), Some(0), "{at_once:?}\n{}", harness.log());
        let queues = harness.queues();
        assert_recounted(&queues, run);
        let message = messages(&queues, "fan-out").remove(0);
        assert_eq!((message.phase.as_str(), message.attempts_charged), ("ready", 0), "{message:?}");
        assert!(message.history.is_empty(), "{message:?}");
    };
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("a page on its way", async || (harness.bank.counts().users > 0).then_some(())).await;
    stop(&harness, child, run).await;

    // Nobody works on the statements, so that only the fan-out is in work.
    harness.bank.set(bank::Route::Users, bank::Behaviour::Normal);
    harness.set_key("QUEUES__STATEMENTS__DELAY", "15m");
    let child = harness.child().await;
    until("a full target", async || (child.operator.report(run).await.fetched == 50).then_some(())).await;
    stop(&harness, child, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_outlasts_the_grace_is_given_back_without_a_charge() {
    const USERS: u32 = 40;
    let mut harness = Harness::with_users(USERS).await;
    harness.set_key("DAEMON__DRAIN", "300ms");
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 8);
    harness.bank.set(bank::Route::Account, bank::Behaviour::Silent);
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("a full pool", async || (child.operator.queue("statements").await.in_flight == 8).then_some(())).await;
    until("all users", async || child.operator.report(run).await.fetched_at).await;
    let end = child.terminate(Duration::from_millis(300) + MARGIN).await;
    assert_eq!(end.code(), Some(0), "{end:?}\n{}", harness.log());
    assert_given_back(&harness, run);
    assert_eq!(messages(&harness.queues(), "statements").len(), USERS as usize);

    harness.bank.set(bank::Route::Account, bank::Behaviour::Normal);
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0), "none had begun to mail");
    harness.assert_one_mail_each(USERS);
    child.kill().await;
}
