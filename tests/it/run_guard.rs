//! The guard of a run: nothing of it is sent before all users are fetched, and nothing at all when their number is out of
//! bounds, until an operator releases it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nightmail::function::statement::{Record, User};
use nightmail::queue::{Options, Queues, Receive};
use nightmail::run::control::work_off;
use nightmail::run::report::{self, Filter, Report};
use nightmail::run::{self, Again, Decision, Ledger, RunState, Start, again};
use nightmail::store::record::{Guard, Owner, RunRecord};
use nightmail::store::{self, Store};
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Inner, assert_recounted, assert_sound, until};
use crate::slices::{self, page, user};
use crate::support::{START, World, forever};

const ANY: Guard = Guard { users_min: 1, deviation: None };
const TENTH: Guard = Guard { users_min: 1, deviation: Some(1000) };

/// Fan-outs into the queue `users`, with the ledger of runs.
struct Runs {
    world: World,
    queues: Queues,
}

impl Runs {
    async fn new(users: Options) -> Self {
        let world = World::new();
        slices::make_queues(world.queues(), users, forever()).await;
        let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
        Self { world, queues }
    }

    /// The same after a restart.
    async fn reopen(self) -> Self {
        let Self { mut world, queues } = self;
        drop(queues);
        world.close();
        // A read of the background that was cut off may hold the store for a moment.
        until("the store to close", async || Store::open(&world.options()).ok().map(drop)).await;
        world.reopen().await;
        let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
        Self { world, queues }
    }

    /// Starts a run and fetches so many users in two pages.
    async fn fetch(&self, period: &str, users: u32, guard: Guard) -> u64 {
        let run = self.fetch_first(period, users, guard).await;
        self.fetch_last(run, users).await
    }

    async fn fetch_first(&self, period: &str, users: u32, guard: Guard) -> RunRecord {
        let run = slices::start_guarded(&self.world, period, Some(guard)).await;
        slices::commit_whole(&self.world, run, page((0..users / 2).map(user), Some("b"))).await
    }

    async fn fetch_last(&self, run: RunRecord, users: u32) -> u64 {
        slices::commit_whole(&self.world, run, page((users / 2..users).map(user), None)).await.id
    }

    async fn decide(&self, run: u64, decision: Decision) -> Result<(), run::Error> {
        self.queues.store().write(move |tx| run::decide(tx, run, decision, START)).await
    }

    fn report(&self, run: u64) -> Report {
        assert_sound(&self.queues);
        let report = assert_recounted(&self.queues, run);
        let mut findings = store::check::Findings::new(CancellationToken::new());
        run::verify::verify(&self.queues.store().snapshot().unwrap(), run, &mut findings).unwrap();
        assert_eq!(findings.shown, []);
        report
    }

    fn state(&self, run: u64) -> (RunState, u64) {
        let report = self.report(run);
        (report.state, report.open)
    }

    fn because(&self, run: u64) -> String {
        self.report(run).held_because.unwrap_or_default()
    }

    /// Lets the background work while what can be received is received and deleted; returns the users by run.
    async fn receive_all(&self) -> BTreeMap<u64, BTreeSet<String>> {
        let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".into(), "users".into())]));
        let working = tokio::spawn(work_off(self.queues.clone(), targets, stop.clone()));
        let mut received: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        until("all messages", async || {
            let what = Receive { max: 10, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
            for message in self.queues.receive_now(self.world.queue("users").id, what).await.unwrap().messages {
                let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
                let user = body["user"]["id"].as_str().unwrap().to_owned();
                assert!(received.entry(message.run).or_default().insert(user), "a user got two messages");
                self.queues.delete(message.handle).await.unwrap();
            }
            let controls = self.queues.store().snapshot().unwrap().run_controls().unwrap();
            let controls = controls.first(0..=u64::MAX, usize::MAX).unwrap();
            let is_idle = controls.iter().all(|(_, control)| !control.has_queued && !control.has_unsent);
            (is_idle && crate::harness::messages(&self.queues, "users").is_empty()).then_some(())
        })
        .await;
        stop.cancel();
        working.await.unwrap().unwrap();
        received
    }
}

#[tokio::test]
async fn a_guarded_run_sends_nothing_while_users_are_fetched_and_to_each_one_once_afterwards_however_small_the_queue() {
    let mut runs = Runs::new(Options { messages_max: Some(7), ..forever() }).await;
    let run = runs.fetch_first("2026-10", 300, ANY).await;
    assert_eq!(runs.receive_all().await, BTreeMap::new());
    assert_eq!(runs.state(run.id), (RunState::Fetching, 150), "the queue's bound does not hold the fetch up");
    runs = runs.reopen().await;
    let run = runs.fetch_last(run, 300).await;
    assert_eq!(runs.state(run), (RunState::Sending, 300));
    runs = runs.reopen().await;
    assert_eq!(runs.receive_all().await[&run].len(), 300);
    let report = runs.report(run);
    assert_eq!((report.state, report.withdrawn), (RunState::Complete, 300), "the test deletes messages");
}

#[tokio::test]
async fn a_run_whose_users_are_out_of_bounds_sends_nothing_before_its_release_over_restarts_too() {
    let mut runs = Runs::new(forever()).await;
    let first = runs.fetch("2026-09", 100, TENTH).await;
    assert_eq!(runs.receive_all().await[&first].len(), 100, "there is nothing to compare it with");
    let alike = runs.fetch("2026-10", 110, TENTH).await;
    assert_eq!(runs.receive_all().await[&alike].len(), 110, "a tenth more is within the bounds");
    let run = runs.fetch("2026-11", 98, Guard { users_min: 99, ..TENTH }).await;
    let bounds = "98 users fetched, but users.min is 99, and run 2 had 110 (10.9% fewer, users.deviation is 10%)";
    assert_eq!((runs.state(run), runs.because(run).as_str()), ((RunState::AwaitingRelease, 98), bounds));
    assert!(!runs.report(run).is_complete());
    runs = runs.reopen().await;
    assert_eq!(runs.receive_all().await, BTreeMap::new());
    for decision in [Decision::Stop, Decision::Resume] {
        let refused = runs.decide(run, decision).await.unwrap_err().to_string();
        let state = format!("run {run} is awaiting-release, so it cannot be {}", decision.past());
        let remedy = format!("`nightmail run release {run}` sends its messages, `nightmail run abandon {run}` ends it");
        assert_eq!(refused, format!("{state} ({remedy})"));
    }
    runs.decide(run, Decision::Release).await.unwrap();
    assert_eq!(runs.state(run), (RunState::Sending, 98));
    runs = runs.reopen().await;
    assert_eq!(runs.receive_all().await[&run].len(), 98);
    let again = runs.decide(run, Decision::Release).await.unwrap_err().to_string();
    assert!(again.starts_with(&format!("run {run} is complete, so it cannot be released")), "{again}");
    let next = runs.fetch("2026-12", 100, TENTH).await;
    assert_eq!(runs.state(next).0, RunState::Sending, "it is compared with the one that was released");
}

#[tokio::test]
async fn an_abandoned_run_is_not_what_the_next_one_is_compared_with() {
    let runs = Runs::new(forever()).await;
    let good = runs.fetch("2026-09", 100, TENTH).await;
    runs.receive_all().await;
    let wrong = runs.fetch("2026-10", 10, TENTH).await;
    assert_eq!(runs.state(wrong).0, RunState::AwaitingRelease);
    runs.decide(wrong, Decision::Abandon).await.unwrap();
    assert_eq!(runs.receive_all().await, BTreeMap::new());
    let report = runs.report(wrong);
    assert_eq!((report.state, report.open, report.withdrawn), (RunState::Abandoned, 0, 10));
    // This one is released first, and then it turns out to be wrong.
    let wrong = runs.fetch("2026-11", 12, TENTH).await;
    runs.decide(wrong, Decision::Release).await.unwrap();
    runs.decide(wrong, Decision::Abandon).await.unwrap();
    runs.receive_all().await;
    let next = runs.fetch("2026-12", 12, TENTH).await;
    let because = format!("12 users fetched, but run {good} had 100 (88% fewer, users.deviation is 10%)");
    assert_eq!((runs.state(next).0, runs.because(next)), (RunState::AwaitingRelease, because));
}

#[tokio::test]
async fn a_guarded_run_that_is_stopped_in_its_fetch_is_still_guarded_when_it_is_resumed() {
    let runs = Runs::new(forever()).await;
    let guard = Guard { users_min: 50, ..ANY };
    let (few, enough) = (runs.fetch_first("2026-10", 20, guard).await, runs.fetch_first("2026-11", 60, guard).await);
    for run in [few.id, enough.id] {
        runs.decide(run, Decision::Stop).await.unwrap();
        runs.receive_all().await;
        runs.decide(run, Decision::Resume).await.unwrap();
    }
    assert_eq!(runs.receive_all().await, BTreeMap::new());
    assert_eq!((runs.state(few.id).0, runs.state(enough.id).0), (RunState::Fetching, RunState::Fetching));
    let (few, enough) = (runs.fetch_last(few, 20).await, runs.fetch_last(enough, 60).await);
    assert_eq!((runs.state(few).0, runs.state(enough).0), (RunState::AwaitingRelease, RunState::Sending));
    assert_eq!(runs.because(few), "20 users fetched, but users.min is 50");
    assert_eq!(runs.receive_all().await.keys().copied().collect::<Vec<_>>(), [enough]);
}

#[tokio::test]
async fn a_schedule_whose_earlier_run_was_not_recorded_as_let_go_is_compared_with_it_all_the_same() {
    let runs = Runs::new(forever()).await;
    let first = runs.fetch("2026-09", 100, TENTH).await;
    // As a store of an earlier version.
    let forget =
        |tx: &mut store::Tx<'_>| tx.meta()?.remove(&"let-go monthly".to_owned()).map(|removed| assert!(removed));
    runs.queues.store().write::<_, store::Error, _>(forget).await.unwrap();
    let run = runs.fetch("2026-10", 89, TENTH).await;
    assert!(runs.because(run).contains(&format!("run {first} had 100 (11% fewer")), "{}", runs.because(run));
}

#[tokio::test]
async fn an_earlier_run_is_found_behind_many_of_other_schedules() {
    let runs = Runs::new(forever()).await;
    let first = runs.fetch("2026-09", 100, TENTH).await;
    let forget =
        |tx: &mut store::Tx<'_>| tx.meta()?.remove(&"let-go monthly".to_owned()).map(|removed| assert!(removed));
    runs.queues.store().write::<_, store::Error, _>(forget).await.unwrap();
    for n in 0..450 {
        let (now, params) = (runs.world.now(), BTreeMap::from([("n".to_owned(), n.to_string())]));
        let start = Start {
            schedule: "other".into(),
            function: "fan-out".into(),
            queue: "own".into(),
            params,
            scheduled_for: now.wall,
            guard: None,
            brake: None,
            gate: None,
            note: String::new(),
        };
        runs.queues.store().write(move |tx| run::start(tx, &start, now)).await.unwrap();
    }
    let run = runs.fetch("2026-10", 89, TENTH).await;
    assert!(runs.because(run).contains(&format!("run {first} had 100 (11% fewer")), "{}", runs.because(run));
}

#[tokio::test]
async fn a_recipient_whose_message_is_too_large_for_its_queue_by_now_is_withdrawn_and_the_others_are_mailed() {
    let runs = Runs::new(forever()).await;
    let run = slices::start_guarded(&runs.world, "2026-10", Some(ANY)).await;
    let lines = vec!["a".repeat(150); 10];
    let json = serde_json::json!({"id": "long", "name": "Ada", "email": "ada@example.test", "address": lines});
    let long = Record::User(User::check(&json.to_string()).unwrap());
    let limit = |message_bytes_max| Options { message_bytes_max, ..forever() };
    let run = slices::commit_whole(&runs.world, run, page((0..100).map(user).chain([long]), None)).await.id;
    let sizes = |runs: &Runs| crate::harness::messages(&runs.queues, "users").len();
    assert_eq!(sizes(&runs), 0);
    runs.queues.ensure("users", &limit(1024)).await.unwrap();
    assert_eq!(runs.receive_all().await[&run].len(), 100);
    let filter = Filter { user: Some("long".into()), ..Filter::default() };
    let row = || report::rows(&runs.world.snapshot(), run, &filter, None).unwrap().remove(0);
    let reason = row().reason.unwrap();
    assert_eq!(row().state, "withdrawn");
    assert!(reason.starts_with("refused: message has ") && reason.contains("queue \"users\" takes "), "{reason}");
    assert_eq!(runs.state(run), (RunState::Complete, 0));
    runs.queues.ensure("users", &forever()).await.unwrap();
    let what = Again { run, users: vec!["long".into()], accounts: Vec::new() };
    again::resend(&runs.queues, &what, "users").await.unwrap();
    assert_eq!(runs.receive_all().await[&run], BTreeSet::from(["long".to_owned()]));
}

/// The daemon whose schedule wants so many users.
async fn harness(users: u32, min: u32) -> Harness {
    let mut harness = Harness::with_users(users).await;
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__USERS__MIN", min);
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__NOTIFY__QUEUE", "alerts");
    harness.add_sections("\n[queues.alerts]\n");
    harness
}

async fn awaits_release(daemon: &Inner, run: u64) -> Report {
    until("the guard", async || {
        let report = daemon.operator.report(run).await;
        (report.state == RunState::AwaitingRelease).then_some(report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_about_runs_is_told_that_one_awaits_its_release_and_the_log_says_it() {
    let harness = harness(12, 13).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = awaits_release(&daemon, run).await;
    let because = "12 users fetched, but users.min is 13";
    assert_eq!(report.held_because.as_deref(), Some(because));
    let told = until("the alert", async || daemon.operator.peek("alerts").await.pop()).await;
    let told: serde_json::Value = serde_json::from_str(&told.body).unwrap();
    let text = format!(
        "run {run} of monthly-statements (period=2026-10) sends nothing before it is released: {because} (`nightmail \
         run release {run}` sends its messages, `nightmail run abandon {run}` ends it)"
    );
    assert_eq!((&told["kind"], &told["text"]), (&"awaiting-release".into(), &text.into()));
    assert_eq!((&told["run"]["state"], &told["run"]["held_because"]), (&"awaiting-release".into(), &because.into()));
    daemon.operator.decide(run, Decision::Release).await;
    assert_eq!(daemon.operator.complete(run).await.sent, 12);
    let notifications = until("the end", async || {
        let notifications = daemon.operator.peek("alerts").await;
        (notifications.len() >= 2).then_some(notifications)
    })
    .await;
    assert_eq!(notifications.len(), 2, "it is told once");
    daemon.stop().await;
}

#[tokio::test]
async fn a_run_that_awaits_its_release_mails_nobody_over_kills_and_everybody_once_after_its_release() {
    let mut harness = harness(300, 1000).await;
    harness.set_key("QUEUES__STATEMENTS__MAX_MESSAGES", 60);
    let child = harness.child().await;
    let run = child.operator.start().await;
    child.kill().await;
    let child = harness.child().await;
    until("the guard", async || (child.operator.report(run).await.state == RunState::AwaitingRelease).then_some(()))
        .await;
    child.kill().await;
    let child = harness.child().await;
    let report = child.operator.report(run).await;
    assert_eq!((report.state, report.fetched, report.open), (RunState::AwaitingRelease, 300, 300));
    assert_eq!(harness.sink.summary().total, 0);
    child.operator.decide(run, Decision::Release).await;
    until("the first mails", async || (harness.sink.summary().total >= 20).then_some(())).await;
    child.kill().await;
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    assert_eq!(report.sent + report.unknown, 300, "{report:?}");
    child.terminate(Duration::from_secs(60)).await;
    let queues = harness.queues();
    assert_sound(&queues);
    assert_recounted(&queues, run);
    let mails: Vec<String> = harness.sink.records().into_iter().map(|record| record.recipient).collect();
    let recipients: BTreeSet<&String> = mails.iter().collect();
    assert_eq!(recipients.len(), mails.len(), "nobody got two");
    assert!(mails.len() as u64 >= report.sent && mails.len() <= 300);
}

#[tokio::test]
async fn without_a_guard_mails_go_out_while_users_are_fetched() {
    let mut harness = harness(4000, 1_000_000).await;
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__GUARD", "off");
    harness.set_key("QUEUES__STATEMENTS__MAX_MESSAGES", 50);
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("a mail", async || (harness.sink.summary().total > 0).then_some(())).await;
    let report = child.operator.report(run).await;
    assert_eq!((report.state, report.fetched_at), (RunState::Fetching, None));
    child.kill().await;
}
