//! Crashes of the whole daemon charge only who may have caused them.

use std::time::Duration;

use nightmail::base::AttemptEnd;
use nightmail_demo::{bank, sink};

use crate::harness::{Child, Harness, say, size, until};

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
    // The first crash had company and is charged to nobody.
    assert!((MAX_RECEIVE_COUNT..=MAX_RECEIVE_COUNT + 1).contains(&dead[0].history.len()), "{dead:?}");
    assert!(dead[0].history.iter().all(|attempt| attempt.end == AttemptEnd::Lost), "{dead:?}");
    assert!((MAX_RECEIVE_COUNT..=MAX_RECEIVE_COUNT + 1).contains(&crashes), "{crashes} crashes");
    let sent = harness.sink.summary().distinct;
    assert_eq!(sent, u64::from(USERS) - 1);
}
