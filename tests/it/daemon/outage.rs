//! A destination that is away in the middle of a run costs nobody an attempt or a mail, and few lines and calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nightmail::api::control::{Answer, Request};
use nightmail::work::{BreakerState, BreakerView};
use nightmail_demo::bank::{self, Behaviour, Route};
use nightmail_demo::sink::{self, Action, Step};

use crate::harness::{Child, Harness, Inner, Operator, assert_recounted, until};
use crate::proxy::Proxy;

const USERS: u32 = 60;

/// The breakers that are not closed.
async fn away(operator: &Operator) -> Vec<BreakerView> {
    match operator.try_ask(Request::Breakers).await.unwrap() {
        Answer::Breakers(all) => all.into_iter().filter(|view| view.state != BreakerState::Closed).collect(),
        other => panic!("{other:?}"),
    }
}

async fn until_away(operator: &Operator) -> BreakerView {
    until("an open breaker", async || away(operator).await.pop()).await
}

async fn probe(operator: &Operator) -> Vec<String> {
    match operator.try_ask(Request::Probe { destination: None }).await.unwrap() {
        Answer::Probed(destinations) => destinations,
        other => panic!("{other:?}"),
    }
}

/// Checks that nobody was charged for the outage: every message in the queue has at most the attempt in hand.
async fn assert_nobody_is_charged(operator: &Operator) {
    for message in operator.peek("statements").await {
        let in_hand = u32::from(message.phase == "in flight");
        assert!(message.attempts_charged <= in_hand, "{message:?}");
    }
}

/// The lines of the log about attempts and breakers.
fn lines(harness: &Harness) -> Vec<String> {
    let log = harness.log();
    let is_told = |line: &&str| line.contains("WARN") || line.contains("ERROR") || line.contains("answers again");
    log.lines().filter(is_told).map(str::to_owned).collect()
}

async fn assert_all_mailed(harness: &Harness, child: Child, run: u64) {
    let report = child.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0));
    harness.assert_one_mail_each(USERS);
    child.terminate(std::time::Duration::from_secs(60)).await;
    assert_recounted(&harness.queues(), run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_goes_away_in_the_middle_of_a_run_costs_nobody_anything() {
    let mut harness = Harness::with_users(USERS).await;
    let mut relay = Proxy::to(harness.sink.address()).await;
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", relay.address().port());
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 8);
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "1s");
    harness.set_key("LOG__LEVEL", "info");
    // A relay that is stopped ends the dialogues that it has begun. There is one at a time, so that no mail is taken
    // after the first refusal: it would close the breaker, rightly.
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__CONNECTIONS", 1);
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__MAILS_PER_CONNECTION", 1);
    let child = harness.child().await;
    let stopped = async {
        harness.sink.received(10).await;
        relay.refuses().await;
    };
    let (run, ()) = tokio::join!(child.operator.start(), stopped);
    let view = until_away(&child.operator).await;
    assert_eq!(view.destination, format!("relay {}", relay.address()));
    assert!(view.cause.unwrap().contains("refused"), "the cause is named");
    // Two probes find nobody: after one and two seconds.
    until("two probes", async || {
        let next = away(&child.operator).await.pop()?.next_try?;
        (next.since(view.since?) > std::time::Duration::from_secs(6)).then_some(())
    })
    .await;
    assert_nobody_is_charged(&child.operator).await;
    relay.comes_back();
    assert_eq!(probe(&child.operator).await, [format!("relay {}", relay.address())]);
    until("a closed breaker", async || away(&child.operator).await.is_empty().then_some(())).await;
    assert_all_mailed(&harness, child, run).await;
    let lines = lines(&harness);
    let told = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((told("is away"), told("answers again")), (1, 1), "{lines:#?}");
    let of_a_message = |line: &&String| line.contains("is away") && line.contains("\"span\"");
    assert_eq!(lines.iter().find(of_a_message), None, "it is about no single message");
    assert!(lines.len() <= 12, "at most one line for each attempt that failed before it opened: {lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_api_that_goes_away_in_the_middle_of_a_run_costs_nobody_anything() {
    let mut harness = Harness::with_users(USERS).await;
    let mut accounts = Proxy::to(harness.bank.address()).await;
    let url = format!("http://{}/accounts/{{account_id}}/transactions?period={{period}}", accounts.address());
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__URL", url);
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 8);
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "1s");
    harness.set_key("LOG__LEVEL", "info");
    let child = harness.child().await;
    // A part of the run is done before.
    let gone = async {
        harness.sink.received(10).await;
        accounts.goes_away().await;
    };
    let (run, ()) = tokio::join!(child.operator.start(), gone);
    let view = until_away(&child.operator).await;
    assert_eq!(view.destination, format!("account API {}", accounts.address()));
    assert_nobody_is_charged(&child.operator).await;
    accounts.comes_back();
    assert_all_mailed(&harness, child, run).await;
    let lines = lines(&harness);
    assert_eq!(lines.iter().filter(|line| line.contains("is away")).count(), 1, "{lines:#?}");
    // The other seven attempts in work may have been answered before, and report it between the refusals: each takes
    // back at most four votes.
    assert!(lines.len() <= 7 * 4 + 8, "{lines:#?}");
    assert!(accounts.connections() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_api_that_is_away_when_a_run_begins_costs_its_fan_out_nothing() {
    let mut harness = Harness::with_users(USERS).await;
    let mut users = Proxy::to(harness.bank.address()).await;
    harness.set_key("FUNCTIONS__FAN_OUT__USERS__URL", format!("http://{}/users?period={{period}}", users.address()));
    harness.set_key("FUNCTIONS__FAN_OUT__DEFERRAL_PAUSE", "100ms");
    users.refuses().await;
    let child = harness.child().await;
    let run = child.operator.start().await;
    let view = until_away(&child.operator).await;
    assert_eq!(view.destination, format!("users API {}", users.address()));
    let fan_out = until("a deferral", async || {
        let waiting = child.operator.peek("fan-out").await;
        waiting.into_iter().find(|message| !message.history.is_empty())
    });
    let fan_out = fan_out.await;
    assert!(fan_out.attempts_charged <= u32::from(fan_out.phase == "in flight"), "{fan_out:?}");
    users.comes_back();
    probe(&child.operator).await;
    assert_all_mailed(&harness, child, run).await;
    assert_eq!(lines(&harness).iter().filter(|line| line.contains("is away")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_429_costs_a_handful_of_calls() {
    let mut harness = Harness::with_users(USERS).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 8);
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "20ms");
    harness.bank.set(Route::Account, Behaviour::Status { status: 429, retry_after: None });
    let daemon: Inner = harness.daemon().await;
    let run = daemon.operator.start().await;
    let view = until_away(&daemon.operator).await;
    until("a probe", async || {
        let next = away(&daemon.operator).await.pop()?.next_try?;
        (next.since(view.since?) > std::time::Duration::from_secs(2)).then_some(())
    })
    .await;
    until("all users", async || (daemon.operator.report(run).await.fetched == u64::from(USERS)).then_some(())).await;
    let calls = harness.bank.counts().transactions;
    assert!(calls <= 16, "{calls} calls, and the pause of each of {USERS} messages passes fifty times a second");
    harness.bank.set(Route::Account, Behaviour::Normal);
    probe(&daemon.operator).await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead), (u64::from(USERS), 0));
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_for_a_pause_costs_no_attempt_and_nobody_a_mail() {
    let is_busy = Arc::new(AtomicBool::new(true));
    let busy = is_busy.clone();
    let script: sink::Script = Arc::new(move |_, _, step| match step {
        Step::Mail if busy.load(Ordering::SeqCst) => Action::Reply(421, "4.7.0 too busy, come back later".into()),
        _ => Action::Accept,
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__DEFERRAL_PAUSE", "20ms");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    until_away(&daemon.operator).await;
    assert_nobody_is_charged(&daemon.operator).await;
    is_busy.store(false, Ordering::SeqCst);
    // No command: the next probe is due within two seconds.
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, report.interrupted), (u64::from(USERS), 0, 0));
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}
