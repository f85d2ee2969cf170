//! The daemon is killed at random moments and restarted: no recipient is lost, none gets two mails, and who may have been
//! mailed is listed.
//!
//! `NIGHTMAIL_KILLS=200 NIGHTMAIL_KILL_USERS=100000` is the full size; `NIGHTMAIL_SEED` replays the moments.

use std::collections::BTreeSet;
use std::time::Duration;

use nightmail_demo::{bank, sink};

use crate::harness::{Harness, Rng, assert_recounted, messages, say, size, until};

/// How the kills of one test are spread over its run.
struct Spread {
    rng: Rng,
    kills_left: u32,
    kills: u32,
    at_start: u32,
}

impl Spread {
    fn new(kills: u32) -> Self {
        Self { rng: Rng::new(), kills_left: kills, kills: 0, at_start: 0 }
    }

    /// Starts the daemon and kills it, `left_ms` being the time that the rest of the work takes: so that the kills end
    /// before the work does. One kill in five hits the start itself.
    async fn live_and_die(&mut self, harness: &Harness, left_ms: u64) {
        let mut child = harness.spawn();
        if self.rng.below(5) == 0 {
            self.at_start += 1;
            tokio::time::sleep(self.rng.span(200)).await;
        } else {
            child.ready(harness).await;
            tokio::time::sleep(self.rng.span((3 * left_ms / u64::from(2 * self.kills_left + 2)).max(2))).await;
        }
        child.kill().await;
        self.kills_left -= 1;
        self.kills += 1;
    }
}

/// A first daemon that only starts the run.
async fn start_run(harness: &Harness) -> u64 {
    let child = harness.child().await;
    let run = child.operator.start().await;
    child.kill().await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_a_user_or_mails_one_twice_and_the_sink_has_those_that_are_sent_and_some_that_are_unknown() {
    let (kills, users) = (size("NIGHTMAIL_KILLS", 20), size("NIGHTMAIL_KILL_USERS", 5000));
    /// The bank's latency; with the default of attempts at once it makes the work last as long as the kills need.
    const LATENCY_MS: u64 = 30;
    const AT_ONCE: u64 = 32;
    let latency = Some(Duration::from_millis(LATENCY_MS));
    let options = bank::Options { users, latency, page_size: 100, ..bank::Options::default() };
    let harness = Harness::set(options, sink::Options::default()).await;
    let run = start_run(&harness).await;
    let mut spread = Spread::new(kills);
    while spread.kills_left > 0 {
        let left = u64::from(users).saturating_sub(harness.sink.summary().distinct);
        spread.live_and_die(&harness, left * LATENCY_MS / AT_ONCE).await;
    }
    let sent_under_fire = harness.sink.summary().distinct;

    let child = harness.child().await;
    let (report, driven) = child.operator.all_sent(run).await;
    assert_eq!((report.fetched, report.sent + report.unknown), (u64::from(users), u64::from(users)));
    assert_eq!((report.withdrawn, report.repeated, report.interrupted), (0, 0, report.unknown));
    let unknown: BTreeSet<String> = child.operator.in_doubt(run).await.into_iter().map(|row| row.address).collect();
    let summary = harness.sink.summary();
    assert!(summary.doubled.is_empty(), "{:?}", summary.doubled);
    let mailed: BTreeSet<String> = harness.sink.records().into_iter().map(|record| record.recipient).collect();
    let all: BTreeSet<String> = (0..users).map(|index| harness.fixtures().user(index).email).collect();
    let sent: BTreeSet<String> = all.difference(&unknown).cloned().collect();
    assert_eq!((sent.len() as u64, unknown.len() as u64), (report.sent, report.unknown));
    assert!(sent.is_subset(&mailed), "sent without a mail: {:?}", sent.difference(&mailed));
    assert!(mailed.is_subset(&all));
    child.operator.assert_empty().await;
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    assert_recounted(&harness.queues(), run);
    assert!(sent_under_fire < u64::from(users), "the work ended before the kills did");
    say(format_args!(
        "{users} users, {} kills ({} at the start): {} mails, none twice; {} sent, {} unknown of which {} have a mail, \
         {driven} letters driven back",
        spread.kills + 1,
        spread.at_start,
        summary.total,
        report.sent,
        report.unknown,
        mailed.intersection(&unknown).count(),
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_during_a_fan_out_loses_or_doubles_a_message() {
    kill_a_fan_out("off").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_during_a_guarded_fan_out_sends_a_message_early_loses_or_doubles_one() {
    kill_a_fan_out("on").await;
}

async fn kill_a_fan_out(guard: &str) {
    let (kills, users) = (size("NIGHTMAIL_KILLS", 4), size("NIGHTMAIL_KILL_USERS", 200));
    const LATENCY_MS: u64 = 40;
    const PAGE: u32 = 5;
    let latency = Some(Duration::from_millis(LATENCY_MS));
    let options = bank::Options { users, latency, page_size: PAGE, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    // No message becomes visible to a worker: each stays where the fan-out put it.
    harness.set_key("QUEUES__STATEMENTS__DELAY", "15m");
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__GUARD", guard);
    let run = start_run(&harness).await;
    let mut spread = Spread::new(kills);
    let mut fetched = 0;
    while spread.kills_left > 0 {
        let pages_left = (u64::from(users) - fetched) / u64::from(PAGE);
        spread.live_and_die(&harness, pages_left * LATENCY_MS).await;
        let queues = harness.queues();
        let report = assert_recounted(&queues, run);
        let sent = if guard == "on" { 0 } else { report.fetched };
        assert_eq!(messages(&queues, "statements").len() as u64, sent, "a message for each row, or none yet");
        fetched = report.fetched;
    }

    let child = harness.child().await;
    let mut driven = 0;
    let report = until("all users", async || {
        if child.operator.queue("fan-out-dead").await.total() > 0 {
            driven += child.operator.redrive("fan-out-dead").await;
        }
        Some(child.operator.report(run).await).filter(|report| report.fetched_at.is_some())
    })
    .await;
    assert_eq!((report.fetched, report.open, report.repeated), (u64::from(users), u64::from(users), 0));
    until("all messages", async || {
        (child.operator.queue("statements").await.total() >= u64::from(users)).then_some(())
    })
    .await;
    assert!(child.terminate(Duration::from_secs(30)).await.success());
    let queues = harness.queues();
    assert_recounted(&queues, run);
    let bodies = messages(&queues, "statements").into_iter().map(|message| {
        let body: serde_json::Value = serde_json::from_str(&message.body).unwrap();
        body["user"]["id"].as_str().unwrap().to_owned()
    });
    let bodies: Vec<String> = bodies.collect();
    let distinct: BTreeSet<&String> = bodies.iter().collect();
    assert_eq!((bodies.len(), distinct.len()), (users as usize, users as usize), "messages, and users in them");
    assert!(fetched < u64::from(users), "the fan-out ended before the kills did");
    say(format_args!("{users} users, {} kills of the fan-out, {driven} letters driven back", spread.kills + 1));
}
