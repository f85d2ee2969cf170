//! Who is told about a run's first death and its end: each target, at least once, over kill -9, with one id for each notification.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use nightmail::api::control::Request;
use nightmail::base::{SystemClock, Timestamp};
use nightmail::run::Decision;
use nightmail::store::record::NotificationRecord;
use nightmail_demo::{bank, sink};
use serde_json::Value;

use crate::harness::{Harness, Inner, cron_at, listener, until};

/// A receiver on loopback.
#[derive(Clone, Default)]
struct Receiver {
    /// What it was sent, with the header `Idempotency-Key`.
    got: Arc<Mutex<Vec<(String, Value)>>>,
    /// How many calls it refuses first.
    refused: Arc<Mutex<usize>>,
    /// Heartbeats.
    beats: Arc<Mutex<u64>>,
    /// Whether a call of `/heartbeat` is never answered.
    is_deaf: bool,
}

impl Receiver {
    fn refusing(count: usize) -> Self {
        Self { refused: Arc::new(Mutex::new(count)), ..Self::default() }
    }

    /// Listens, and returns its address.
    async fn start(&self) -> String {
        let listener = listener().await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/hook", post(hook)).route("/heartbeat", axum::routing::get(beat));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn got(&self) -> Vec<(String, Value)> {
        self.got.lock().unwrap().clone()
    }

    fn beats(&self) -> u64 {
        *self.beats.lock().unwrap()
    }

    /// Waits for so many notifications.
    async fn wait_for(&self, count: usize) -> Vec<(String, Value)> {
        until("the notifications", async || Some(self.got()).filter(|got| got.len() >= count)).await
    }
}

async fn hook(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    {
        let mut refused = receiver.refused.lock().unwrap();
        if *refused > 0 {
            *refused -= 1;
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    assert_eq!(headers["content-type"], "application/json");
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    receiver.got.lock().unwrap().push((key, serde_json::from_str(&body).unwrap()));
    StatusCode::OK
}

async fn beat(State(receiver): State<Receiver>) -> StatusCode {
    *receiver.beats.lock().unwrap() += 1;
    if receiver.is_deaf {
        std::future::pending::<()>().await;
    }
    StatusCode::OK
}

const NOTIFY: &str = "SCHEDULES__MONTHLY_STATEMENTS__NOTIFY";

/// Eight users, of whom a quarter dies.
async fn harness() -> Harness {
    let options = bank::Options { users: 8, fail_share: 0.25, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", "0");
    harness.set_key("FUNCTIONS__STATEMENT__BACKOFF__MAX", "20ms");
    harness
}

fn owed(daemon: &Inner) -> Vec<NotificationRecord> {
    let rows = daemon.queues.store().snapshot().unwrap().notifications().unwrap().first(0..=u64::MAX, 100).unwrap();
    rows.into_iter().map(|(_, notification)| notification).collect()
}

/// Waits until nobody is owed anything.
async fn settled(daemon: &Inner) {
    until("everybody to be told", async || owed(daemon).is_empty().then_some(())).await;
}

/// The ids by notification.
fn ids(notifications: impl IntoIterator<Item = Value>) -> BTreeMap<String, BTreeSet<String>> {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for notification in notifications {
        let text = |name: &str| notification[name].as_str().unwrap().to_owned();
        ids.entry(text("kind")).or_default().insert(text("id"));
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_gets_the_first_death_and_each_end_with_one_id() {
    let mut harness = harness().await;
    let (receiver, file) = (Receiver::refusing(1), harness.dir.path().join("told"));
    harness.add_sections("\n[queues.alerts]\n");
    harness.set_key(&format!("{NOTIFY}__QUEUE"), "alerts");
    harness.set_key(&format!("{NOTIFY}__URL"), format!("{}/hook", receiver.start().await));
    // One write a line: two are told at once.
    let script = format!("body=$(cat); printf '%s\\n' \"$body\" | tee -a {}", file.display());
    harness.set_key(&format!("{NOTIFY}__COMMAND"), serde_json::json!(["sh", "-c", script]));
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    assert!(report.dead > 0 && report.sent > 0, "{report:?}");
    let got = receiver.wait_for(2).await;
    settled(&daemon).await;
    let by_post = ids(got.iter().map(|(_, notification)| notification.clone()));
    assert_eq!(by_post.keys().map(String::as_str).collect::<Vec<_>>(), ["end", "first-death"]);
    assert!(by_post.values().all(|ids| ids.len() == 1), "{by_post:?}");
    for (key, notification) in &got {
        assert_eq!(notification["id"], **key, "the header names the id, too");
    }
    let messages = daemon.operator.peek("alerts").await;
    assert_eq!(messages.len(), 2, "each message is in the queue once");
    assert_eq!(ids(messages.iter().map(|message| serde_json::from_str(&message.body).unwrap())), by_post);
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(ids(lines.lines().map(|line| serde_json::from_str(line).unwrap())), by_post);
    let end =
        got.iter().map(|(_, notification)| notification).find(|notification| notification["kind"] == "end").unwrap();
    assert_eq!((&end["run"]["id"], &end["run"]["dead"]), (&run.into(), &report.dead.into()));
    let told = format!("fetched 8 = sent {} + dead {}", report.sent, report.dead);
    assert!(end["text"].as_str().unwrap().ends_with(&told), "{end}");

    harness.bank.fix();
    daemon.operator.redrive("statements-dead").await;
    daemon.operator.all_sent(run).await;
    let got = receiver.wait_for(3).await;
    assert_eq!(got[2].1["kind"], "end", "a run that was opened again is told when it ends again");
    assert!(!by_post["end"].contains(&got[2].0), "and that is another notification");
    settled(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_abandoned_run_is_told() {
    let mut harness = Harness::with_users(5).await;
    let receiver = Receiver::default();
    harness.set_key(&format!("{NOTIFY}__URL"), format!("{}/hook", receiver.start().await));
    let daemon = harness.daemon().await;
    daemon.operator.try_ask(Request::Pause { queue: "statements".into(), by: "test".into() }).await.unwrap();
    let run = daemon.operator.start().await;
    until("all users", async || daemon.operator.report(run).await.fetched_at).await;
    daemon.operator.decide(run, Decision::Abandon).await;
    let got = receiver.wait_for(1).await;
    let text =
        format!("run {run} of monthly-statements (period=2026-10) is abandoned: fetched 5 = sent 0 + withdrawn 5");
    assert_eq!((&got[0].1["kind"], &got[0].1["text"]), (&"end".into(), &text.into()));
    settled(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_outlives_a_kill_and_what_ended_before_is_not_told() {
    let mut harness = harness().await;
    let old = harness.daemon().await;
    let before = old.operator.start().await;
    old.operator.complete(before).await;
    old.stop().await;
    // Nobody listens there.
    let silent = listener().await.local_addr().unwrap();
    harness.set_key(&format!("{NOTIFY}__URL"), format!("http://{silent}/hook"));
    let child = harness.child().await;
    let run = child.operator.try_start("2026-09").await.unwrap();
    child.operator.complete(run).await;
    until("a try that fails", async || harness.log().contains("the url was not told").then_some(())).await;
    child.kill().await;

    let receiver = Receiver::default();
    harness.set_key(&format!("{NOTIFY}__URL"), format!("{}/hook", receiver.start().await));
    let daemon = harness.daemon().await;
    let got = receiver.wait_for(2).await;
    settled(&daemon).await;
    assert!(got.iter().all(|(_, notification)| notification["run"]["id"] == run), "{got:?}");
    assert!(
        got.len() >= 2 && ids(got.into_iter().map(|(_, notification)| notification)).values().all(|ids| ids.len() == 1)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_takes_nothing_is_given_up_and_holds_nobody_up() {
    let mut harness = harness().await;
    let receiver = Receiver::default();
    harness.set_key(&format!("{NOTIFY}__URL"), format!("{}/hook", receiver.start().await));
    harness.set_key(&format!("{NOTIFY}__COMMAND"), serde_json::json!(["sh", "-c", "sleep 600"]));
    harness.set_key(&format!("{NOTIFY}__TIMEOUT"), "200ms");
    harness.set_key(&format!("{NOTIFY}__ATTEMPTS"), "2");
    harness.set_key(&format!("{NOTIFY}__ON"), serde_json::json!(["end"]));
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    daemon.operator.complete(run).await;
    let got = receiver.wait_for(1).await;
    assert_eq!(got[0].1["kind"], "end");
    settled(&daemon).await;
    assert_eq!(receiver.got().len(), 1, "only the end, and once");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_sent_at_ticks_and_ends_and_a_deaf_receiver_holds_nothing_up() {
    let mut harness = Harness::with_users(2).await;
    let receiver = Receiver { is_deaf: true, ..Receiver::default() };
    let heartbeat = format!("{}/heartbeat", receiver.start().await);
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__HEARTBEAT__URL", heartbeat);
    let soon = Timestamp::from_millis(nightmail::base::Clock::wall(&SystemClock::new()).as_millis() + 4000);
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__CRON", cron_at(soon));
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__TIMEZONE", "UTC");
    let daemon = harness.daemon().await;
    assert_eq!(receiver.beats(), 0);
    let run = until("the tick's run", async || daemon.operator.runs().await.first().map(|run| run.id)).await;
    daemon.operator.complete(run).await;
    // At the tick and at the end, or both in one look.
    until("the heartbeats", async || (receiver.beats() >= 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!((1..=2).contains(&receiver.beats()), "{} beats", receiver.beats());
    daemon.stop().await;
}
