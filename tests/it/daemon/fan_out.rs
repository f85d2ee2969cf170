//! The fan-out in the running daemon: the ways of paging, a source that breaks off, malformed records, and its memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use nightmail::api::control::Request;
use nightmail::queue::Send;
use nightmail::run::{Decision, Report, RunState};
use nightmail_demo::bank::{Behaviour, Malformed, Route};
use nightmail_demo::{bank, sink};
use serde_json::{Value, json};

use crate::harness::{Harness, assert_recounted, listener, say, size, until};

async fn paged(users: u32, page_size: u32) -> Harness {
    let options = bank::Options { users, page_size, ..bank::Options::default() };
    Harness::set(options, sink::Options::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_fetched_whether_pages_go_on_by_cursor_by_link_or_as_lines() {
    for path in ["/users", "/users-link", "/users.jsonl"] {
        let mut harness = paged(50, 7).await;
        harness.set_key("FUNCTIONS__FAN_OUT__USERS__URL", harness.bank.url(&format!("{path}?period={{period}}")));
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        let report = daemon.operator.complete(run).await;
        assert_eq!((report.fetched, report.sent, report.repeated), (50, 50, 0), "{path}");
        harness.assert_one_mail_each(50);
        let counts = harness.bank.counts();
        let requests = counts.users + counts.users_link + counts.users_jsonl;
        assert_eq!(requests, if path == "/users.jsonl" { 1 } else { 8 }, "{path}");
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_source_that_dies_in_the_middle_is_resumed_from_its_cursor() {
    let options = bank::Options {
        users: 300,
        page_size: 10,
        latency: Some(std::time::Duration::from_millis(20)),
        ..bank::Options::default()
    };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("FUNCTIONS__FAN_OUT__USERS__RETRIES", 0);
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    until("some pages", async || (daemon.operator.report(run).await.fetched >= 100).then_some(())).await;
    harness.bank.set(Route::Users, Behaviour::Cut);
    until("a failed attempt", async || {
        let messages = daemon.operator.peek("fan-out").await;
        messages.first().filter(|message| !message.history.is_empty()).map(drop)
    })
    .await;
    let before = daemon.operator.report(run).await.fetched;
    assert!((100..300).contains(&before), "{before} users were there when the source broke off");
    harness.bank.set(Route::Users, Behaviour::Normal);
    let (report, _) = daemon.operator.all_sent(run).await;
    assert_eq!((report.fetched, report.repeated), (300, 0), "a page that is read again would name users again");
    assert_recounted(&daemon.queues, run);
    harness.assert_one_mail_each(300);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_users_become_letters_with_reasons_and_are_mailed_after_the_fix() {
    const USERS: u32 = 90;
    let options = bank::Options { users: USERS, malformed_users: 12, page_size: 25, ..bank::Options::default() };
    let harness = Harness::set(options, sink::Options::default()).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(USERS), u64::from(USERS) - 12, 12));
    let groups = daemon.operator.dead("fan-out-dead").await;
    let mut classes: Vec<(&str, u64)> = groups.iter().map(|group| (group.class.as_str(), group.count)).collect();
    classes.sort_unstable();
    let expected = [
        ("data users control-character", 2),
        ("data users invalid-email", 2),
        ("data users invalid-name", 2),
        ("data users malformed", 2),
        ("data users missing-email", 2),
        ("data users missing-id", 2),
    ];
    assert_eq!(classes, expected);
    assert!(groups.iter().all(|group| !group.sample.is_empty()));
    assert_eq!(Malformed::ALL.len(), expected.len());

    // Redriven too early they die again, and the books still balance.
    assert_eq!(daemon.operator.redrive("fan-out-dead").await, 12);
    daemon.operator.died("fan-out-dead", 12).await;
    let again = assert_recounted(&daemon.queues, run);
    assert_eq!((report.phases.fetch.dead, again.phases.fetch.dead), (12, 24), "what is done again counts again");
    assert_eq!(Report { phases: report.phases, ..again }, report);

    harness.bank.fix();
    assert_eq!(daemon.operator.redrive("fan-out-dead").await, 12);
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(USERS), u64::from(USERS), 0));
    assert_eq!(assert_recounted(&daemon.queues, run), report);
    daemon.operator.assert_empty().await;
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_user_an_abandoned_refetch_had_added_is_mailed_when_it_is_redriven() {
    const USERS: u32 = 30;
    let options = bank::Options { users: USERS, malformed_users: 6, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__USERS__MIN", "40");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let held = async || (daemon.operator.report(run).await.state == RunState::AwaitingRelease).then_some(());
    until("the guard", held).await;
    daemon.operator.decide(run, Decision::Release).await;
    assert_eq!(daemon.operator.complete(run).await.sent, 24);
    harness.bank.fix();
    daemon.operator.try_ask(Request::RefetchRun { id: run }).await.unwrap();
    until("the guard again", held).await;
    daemon.operator.decide(run, Decision::AbandonRefetch).await;
    until("nobody open", async || (daemon.operator.report(run).await.withdrawn == 6).then_some(())).await;
    assert_eq!(daemon.operator.redrive("fan-out-dead").await, 6);
    let report = daemon.operator.complete(run).await;
    let letters = daemon.operator.dead("fan-out-dead").await;
    assert!(letters.is_empty(), "{letters:?}");
    assert_eq!((report.fetched, report.sent, report.withdrawn), (u64::from(USERS), u64::from(USERS), 0));
    assert_eq!(assert_recounted(&daemon.queues, run), report);
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_fan_out_does_not_grow_with_its_users() {
    let users = size("NIGHTMAIL_FAN_OUT_USERS", 2000);
    let harness = Harness::with_users(users).await;
    harness.bank.set(Route::Account, Behaviour::Silent);
    let child = harness.child().await;
    let run = child.operator.start().await;
    let all = async || Some(child.operator.report(run).await).filter(|report| report.fetched_at.is_some());
    let report = until("all users", all).await;
    assert_eq!(report.fetched, u64::from(users));
    let (peak, took) = (child.peak_mib(), report.fetched_at.unwrap().since(report.started_at));
    say(format_args!("{users} users fanned out in {took:.2?}; peak memory of the daemon {peak} MiB"));
    assert!(peak < 150, "{peak} MiB");
    child.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_record_that_is_mended_waits_for_room_in_a_full_target_and_costs_no_attempt() {
    const USERS: u32 = 90;
    let options = bank::Options { users: USERS, malformed_users: 12, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("QUEUES__STATEMENTS__MAX_MESSAGES", 30);
    harness.set_key("FUNCTIONS__FAN_OUT__DEFERRAL_PAUSE", "50ms");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    assert_eq!(daemon.operator.complete(run).await.sent, 78);
    let queue = || "statements".to_owned();
    daemon.operator.try_ask(Request::Pause { queue: queue(), by: "a test".into() }).await.unwrap();
    for _ in 0..30 {
        daemon.queues.send("statements", Send::text("{}")).await.unwrap();
    }

    harness.bank.fix();
    assert_eq!(daemon.operator.redrive("fan-out-dead").await, 12);
    let waiting = until("all to wait", async || {
        let waiting = daemon.operator.peek("fan-out").await;
        waiting.iter().filter(|message| message.history.len() > 1).count().eq(&12).then_some(waiting)
    });
    for message in waiting.await {
        let why = message.history.last().and_then(|attempt| attempt.failure.as_ref()).unwrap();
        assert_eq!(why.class(), "store fan-out queue-full", "{message:?}");
        assert!(message.attempts_charged <= 1, "only the one in hand: {message:?}");
    }
    let report = assert_recounted(&daemon.queues, run);
    assert_eq!((report.fetched, report.sent, report.open), (u64::from(USERS), 78, 12));

    daemon.operator.try_ask(Request::Purge { queue: queue() }).await.unwrap();
    daemon.operator.try_ask(Request::Resume { queue: queue() }).await.unwrap();
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead), (u64::from(USERS), 0));
    assert_eq!(daemon.queues.store().roll_backs(), 0, "nothing was written before it was refused");
    harness.assert_one_mail_each(USERS);
    daemon.stop().await;
}

/// The bank's users in pages of seven; until it is mended, the last page names the second as its next.
#[derive(Clone)]
struct Ring {
    users: Arc<Vec<Value>>,
    is_mended: Arc<AtomicBool>,
}

impl Ring {
    async fn page(State(ring): State<Self>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
        let number = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        let pages: Vec<_> = ring.users.chunks(7).collect();
        let next = match number + 1 {
            next if next < pages.len() => Some(next),
            _ => (!ring.is_mended.load(Ordering::Relaxed)).then_some(1),
        };
        Json(json!({ "users": pages[number], "next_cursor": next.map(|next| next.to_string()) }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_form_a_ring_end_as_a_letter_of_their_own_class_and_the_run_goes_on_after_the_fix() {
    let mut harness = paged(60, 60).await;
    let users = (0..60).map(|index| serde_json::to_value(harness.fixtures().user(index)).unwrap()).collect();
    let ring = Ring { users: Arc::new(users), is_mended: Arc::default() };
    let served = listener().await;
    harness.set_key("FUNCTIONS__FAN_OUT__USERS__URL", format!("http://{}/", served.local_addr().unwrap()));
    let router = Router::new().route("/", get(Ring::page)).with_state(ring.clone());
    let server = tokio::spawn(async move { axum::serve(served, router).await });
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let groups = daemon.operator.died("fan-out-dead", 1).await;
    assert_eq!((groups.len(), groups[0].class.as_str()), (1, "data users cursor-came-back"), "{groups:?}");
    assert!(groups[0].sample.contains("the pages form a ring"), "{groups:?}");
    assert_eq!(daemon.operator.report(run).await.state, RunState::FetchDead);

    ring.is_mended.store(true, Ordering::Relaxed);
    assert_eq!(daemon.operator.redrive("fan-out-dead").await, 1);
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent), (60, 60));
    harness.assert_one_mail_each(60);
    daemon.stop().await;
    server.abort();
}
