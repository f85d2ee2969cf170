//! What is decided about runs: stop, resume, abandon, and by their brake. Each decision counts at once and over restarts, other runs on
//! the same queue go on, and the books balance at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nightmail::api::control::Request;
use nightmail::base::outcome::DeliveryProof;
use nightmail::base::{Failure, LeaseTime, ManualClock};
use nightmail::function::{Effects, Intent, Permission};
use nightmail::queue::redrive::Redrive;
use nightmail::queue::settle::{self, Ended};
use nightmail::queue::{Queues, Receive, Received, Receiving, catalog};
use nightmail::run::control::work_off;
use nightmail::run::effects::{AttemptEffects, Ending};
use nightmail::run::ledger::{self, Recipient};
use nightmail::run::notifications::{self, RunWatch};
use nightmail::run::report::{self, Report};
use nightmail::run::{self, Decision, Ledger, OnUnknown, Resolution, Resolve, RunState, Start, message, resolve};
use nightmail::schedule::fan_out::Error as FanOutError;
use nightmail::store::record::{BrakeLimit, NotificationKind, Owner, RunRecord};
use nightmail::store::{self, Store, Tx};
use nightmail_demo::{bank, sink};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::harness::{Child, Harness, assert_recounted, assert_sound, until};
use crate::slices;
use crate::support::{self, START, World as QueueWorld, dying_after, forever};

const QUEUE: &str = "statements";

/// Runs whose recipients have messages in one queue.
struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    /// `None` only while reopening.
    queues: Option<Queues>,
    /// The brake of runs that start.
    brake: Option<BrakeLimit>,
}

impl World {
    async fn new() -> Self {
        let mut world =
            Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(START), queues: None, brake: None };
        world.open().await;
        for (name, options) in [("dead", forever()), (QUEUE, dying_after(3)), ("fan-out", forever())] {
            world.queues().ensure(name, &options).await.unwrap();
        }
        world
    }

    async fn open(&mut self) {
        self.queues = None;
        let path = self.dir.path().join("nightmail.redb");
        let options = store::Options { log_bytes: 1 << 20, ..store::Options::at(path) };
        // A read of the background that was cut off may hold the store for a moment.
        let store = until("the store to open", async || match Store::open(&options) {
            Err(store::Error::Locked { .. }) => None,
            opened => Some(opened.unwrap()),
        })
        .await;
        self.queues = Some(Queues::new(store, self.clock.clone(), Arc::new(Ledger)));
    }

    fn queues(&self) -> &Queues {
        self.queues.as_ref().unwrap()
    }

    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, run::Error> + Send + 'static,
    ) -> T {
        self.queues().store().write(step).await.unwrap()
    }

    async fn try_start(&self, period: &str) -> Result<u64, run::Error> {
        let start = Start {
            schedule: "monthly".into(),
            function: "fan-out".into(),
            queue: "fan-out".into(),
            params: BTreeMap::from([("period".into(), period.into())]),
            scheduled_for: START,
            guard: None,
            brake: self.brake,
            gate: None,
            note: String::new(),
        };
        let now = self.queues().now();
        self.queues().store().write(move |tx| run::start(tx, &start, now)).await
    }

    /// A run whose users are fetched: each has a row and a message.
    async fn run(&self, period: &str, users: u32) -> u64 {
        let id = self.try_start(period).await.unwrap();
        let fan_out = self.receive("fan-out").await.pop().unwrap().handle;
        self.step(move |tx| {
            settle::done(tx, fan_out)?;
            let run = tx.runs()?.get(&id)?.unwrap();
            let fan_out = store::record::FanOutProgress { finished_at: Some(START), ..run.fan_out };
            Ok(tx.runs()?.insert(&id, &RunRecord { fan_out, ..run })?)
        })
        .await;
        let run = self.queues().store().snapshot().unwrap().runs().unwrap().get(&id).unwrap().unwrap();
        let users: Vec<String> = (0..users).map(|n| format!("{period}-{n}")).collect();
        let record = |user: &String| RawValue::from_string(format!("{{\"id\":{user:?}}}")).unwrap();
        let messages = users.iter().map(|user| message::message(&run, key(user), &record(user))).collect();
        let sent = self.queues().send_all(QUEUE, messages).await.unwrap();
        for (user, sent) in users.into_iter().zip(sent) {
            let record = record(&user);
            self.step(move |tx| {
                let (key, record, body) = (key(&user), Some(record.get()), sent.sequence);
                let address = "someone@example.test";
                let row = Recipient { key, user: &user, address, account: None, page: 1, record, body, refetch: 0 };
                Ok(ledger::add(tx, id, row, START)?)
            })
            .await;
        }
        id
    }

    async fn decide(&self, run: u64, decision: Decision) -> Result<(), run::Error> {
        self.queues().store().write(move |tx| run::decide(tx, run, decision, START)).await
    }

    /// Lets the background do its part until nothing is left.
    async fn work_off(&self) {
        let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".into(), QUEUE.into())]));
        let working = tokio::spawn(work_off(self.queues().clone(), targets, stop.clone()));
        until("the background", async || {
            let controls = self.queues().store().snapshot().unwrap().run_controls().unwrap();
            let mut left = controls.first(0..=u64::MAX, usize::MAX).unwrap();
            left.retain(|(_, control)| control.has_queued || control.has_unsent);
            left.is_empty().then_some(())
        })
        .await;
        stop.cancel();
        working.await.unwrap().unwrap();
    }

    async fn receive(&self, queue: &str) -> Vec<Received> {
        self.receiving(queue).await.messages
    }

    async fn receiving(&self, queue: &str) -> Receiving {
        let queue = catalog::look_up(&self.queues().store().snapshot().unwrap(), queue).unwrap().id;
        let what = Receive { max: 10, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        self.queues().receive_now(queue, what).await.unwrap()
    }

    /// Receives and mails all that can be received; returns whose it was.
    async fn mail_all(&self) -> Vec<String> {
        let mut mailed = Vec::new();
        loop {
            let found = self.receiving(QUEUE).await;
            // A receive looks at a hundred messages at most.
            if found.messages.is_empty() && !found.has_more {
                return mailed;
            }
            for message in found.messages {
                let (attempt, permission) = self.ask(&message).await;
                assert_eq!(permission, Permission::Granted);
                self.end(&message, attempt).await;
                mailed.push(user_of(&message));
            }
        }
    }

    async fn ask(&self, message: &Received) -> (AttemptEffects, Permission) {
        let attempt = AttemptEffects::new(&support::intents(self.queues()), message, OnUnknown::Hold);
        let user = user_of(message);
        let intent = Intent { run: message.run, account: user.clone(), user, ..Intent::default() };
        let permission = attempt.intend(intent).await.unwrap();
        (attempt, permission)
    }

    async fn end(&self, message: &Received, attempt: AttemptEffects) {
        let handle = message.handle;
        self.step(move |tx| {
            attempt.end(tx, Ending::Done(DeliveryProof::default()), START)?;
            assert!(settle::done(tx, handle)?.is_some());
            Ok(())
        })
        .await;
    }

    async fn kill(&self, message: &Received) {
        let (handle, now) = (message.handle, self.queues().now());
        let why = Failure::new("http", "account", "404", "there is no such account");
        let ended = Ended { function: "statement".into(), why, at: now };
        self.step(move |tx| Ok(settle::move_to_dlq(tx, &Ledger, handle, &ended, Duration::ZERO)?)).await;
    }

    fn report(&self, run: u64) -> Report {
        assert_sound(self.queues());
        let report = assert_recounted(self.queues(), run);
        assert!(report.does_balance());
        report
    }

    /// State, open, sent, dead and withdrawn.
    fn figures(&self, run: u64) -> (RunState, u64, u64, u64, u64) {
        let report = self.report(run);
        (report.state, report.open, report.sent, report.dead, report.withdrawn)
    }

    fn messages(&self, queue: &str) -> usize {
        crate::harness::messages(self.queues(), queue).len()
    }
}

fn key(user: &str) -> [u8; 16] {
    ledger::user_key(user, user)
}

fn order(run: u64, users: &[&str], resolution: Resolution) -> Resolve {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    Resolve { run, users, resolution, accounts: Vec::new() }
}

fn user_of(message: &Received) -> String {
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
    body["user"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_stop_counts_at_once_for_its_run_alone_and_each_open_recipient_gets_one_message_after_the_resumption() {
    let mut world = World::new().await;
    let (october, november) = (world.run("2026-10", 200).await, world.run("2026-11", 30).await);
    let begun = world.receive(QUEUE).await;
    for message in &begun[..2] {
        let (attempt, _) = world.ask(message).await;
        world.end(message, attempt).await;
    }
    let (in_work, permission) = world.ask(&begun[2]).await;
    assert_eq!(permission, Permission::Granted);
    world.decide(october, Decision::Stop).await.unwrap();
    // The mail that has begun ends; one that has not does not begin.
    world.end(&begun[2], in_work).await;
    assert_eq!(world.ask(&begun[3]).await.1, Permission::Held);
    world.kill(&begun[4]).await;
    let mailed: BTreeSet<String> = world.mail_all().await.into_iter().collect();
    assert_eq!(mailed, (0..30).map(|n| format!("2026-11-{n}")).collect(), "before the background has done anything");
    assert_eq!(world.figures(october), (RunState::Stopped, 196, 3, 1, 0));
    assert_eq!(world.figures(november), (RunState::Complete, 0, 30, 0, 0));

    world.open().await;
    assert_eq!(world.figures(october).0, RunState::Stopped, "over restarts too");
    assert_eq!(world.mail_all().await, Vec::<String>::new());
    world.clock.advance(Duration::from_secs(100));
    world.work_off().await;
    assert_eq!((world.messages(QUEUE), world.messages("dead")), (0, 1), "letters stay");
    assert_eq!(world.figures(october), (RunState::Stopped, 196, 3, 1, 0));

    world.decide(october, Decision::Resume).await.unwrap();
    assert_eq!(world.figures(october).0, RunState::Sending);
    world.open().await;
    world.work_off().await;
    assert_eq!(world.figures(october), (RunState::Sending, 196, 3, 1, 0));
    assert_eq!(world.messages(QUEUE), 196);
    let mailed = world.mail_all().await;
    assert_eq!((mailed.len(), mailed.iter().collect::<BTreeSet<_>>().len()), (196, 196), "one message each");
    assert_eq!(world.figures(october), (RunState::CompleteWithLetters, 0, 199, 1, 0));
    let again = world.decide(october, Decision::Resume).await.unwrap_err().to_string();
    assert!(
        again.starts_with(&format!("run {october} is complete-with-letters, so it cannot be resumed (")),
        "{again}"
    );
}

#[tokio::test]
async fn a_run_that_is_resumed_and_stopped_in_the_middle_has_one_message_for_each_open_recipient_in_the_end() {
    let world = World::new().await;
    let run = world.run("2026-10", 300).await;
    let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".to_owned(), QUEUE.to_owned())]));
    let working = tokio::spawn(work_off(world.queues().clone(), targets, stop.clone()));
    for _ in 0..10 {
        world.decide(run, Decision::Stop).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(world.report(run).does_balance());
        world.decide(run, Decision::Resume).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_eq!(world.figures(run).1, 300);
    }
    stop.cancel();
    working.await.unwrap().unwrap();
    world.work_off().await;
    assert_eq!(world.messages(QUEUE), 300);
    let mailed = world.mail_all().await;
    assert_eq!((mailed.len(), mailed.iter().collect::<BTreeSet<_>>().len()), (300, 300));
    assert_eq!(world.figures(run), (RunState::Complete, 0, 300, 0, 0));
    let stop = world.decide(run, Decision::Stop).await.unwrap_err().to_string();
    assert!(stop.starts_with(&format!("run {run} is complete, so it cannot be stopped (")), "{stop}");
}

#[tokio::test]
async fn a_letter_that_is_redriven_into_a_stopped_run_waits_for_its_resumption() {
    let world = World::new().await;
    let run = world.run("2026-10", 3).await;
    let received = world.receive(QUEUE).await;
    world.kill(&received[0]).await;
    world.decide(run, Decision::Stop).await.unwrap();
    let redrive = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    world.queues().drive(redrive, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.receive(QUEUE).await, []);
    assert_eq!(world.figures(run), (RunState::Stopped, 3, 0, 0, 0));
    world.clock.advance(Duration::from_secs(100));
    world.work_off().await;
    world.decide(run, Decision::Resume).await.unwrap();
    world.work_off().await;
    assert_eq!(world.mail_all().await.len(), 3);
    assert_eq!(world.figures(run), (RunState::Complete, 0, 3, 0, 0));
}

#[tokio::test]
async fn an_abandoned_run_withdraws_what_is_open_and_dead_keeps_the_rest_and_never_begins_again() {
    let mut world = World::new().await;
    let (run, other) = (world.run("2026-10", 120).await, world.run("2026-11", 3).await);
    let received = world.receive(QUEUE).await;
    let (attempt, _) = world.ask(&received[0]).await;
    world.end(&received[0], attempt).await;
    world.kill(&received[1]).await;
    let (doubtful, _) = world.ask(&received[2]).await;
    let handle = received[2].handle;
    world
        .step(move |tx| {
            doubtful.end(tx, Ending::Unknown("no reply".into()), START)?;
            Ok(settle::hold(tx, handle)?)
        })
        .await;
    let (late, _) = world.ask(&received[3]).await;
    world.decide(run, Decision::Stop).await.unwrap();
    world.work_off_some().await;
    world.decide(run, Decision::Abandon).await.unwrap();
    assert_eq!(world.report(run).state, RunState::Abandoned);
    // The mail that has begun counts, however late it ends.
    world.end(&received[3], late).await;
    world.open().await;
    world.clock.advance(Duration::from_secs(100));
    world.work_off().await;
    assert_eq!(world.figures(run), (RunState::Abandoned, 0, 2, 0, 117));
    assert_eq!((world.report(run).unknown, world.report(run).is_complete()), (1, true));
    assert_eq!(world.messages("dead"), 0);
    assert_eq!(world.mail_all().await.len(), 3, "the other run's");
    assert_eq!(world.figures(other), (RunState::Complete, 0, 3, 0, 0));
    for decision in [Decision::Resume, Decision::Stop, Decision::Abandon] {
        let refused = world.decide(run, decision).await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("run {run} is abandoned, so it cannot be ")), "{refused}");
    }
    let again = world.try_start("2026-10").await.unwrap_err();
    assert!(matches!(again, run::Error::Exists { id, .. } if id == run), "its identity stays taken: {again}");
    let resend = order(run, &[], Resolution::Resend);
    let resend = resolve::resolve(world.queues(), &resend, QUEUE).await.unwrap_err().to_string();
    assert_eq!(resend, format!("run {run} is abandoned, so nothing of it is sent (that is for good)"));
    let sent = order(run, &[], Resolution::Sent);
    assert_eq!(resolve::resolve(world.queues(), &sent, QUEUE).await, Ok(1), "doubts can be resolved as sent");
    assert_eq!(world.figures(run), (RunState::Abandoned, 0, 3, 0, 117));
}

impl World {
    /// Lets the background work for a moment.
    async fn work_off_some(&self) {
        let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".into(), QUEUE.into())]));
        let working = tokio::spawn(work_off(self.queues().clone(), targets, stop.clone()));
        tokio::time::sleep(Duration::from_millis(2)).await;
        stop.cancel();
        working.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_fan_out_of_a_stopped_run_commits_nothing_waits_in_its_queue_and_goes_on_at_its_cursor() {
    let world = QueueWorld::new();
    let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
    slices::make_queues(world.queues(), forever(), forever()).await;
    let run = slices::start_run(&world, "2026-10").await;
    let page = || slices::page((0..5).map(slices::user), Some("b"));
    let slice = slices::commit_from(&world, &run, 0, page()).await.unwrap();
    let id = run.id;
    let decide = async |decision| {
        world.queues().store().write(move |tx| run::decide(tx, id, decision, START)).await.unwrap();
    };
    decide(Decision::Stop).await;
    let refused = slices::commit_from(&world, &slice.run, 0, slices::page([slices::user(9)], None)).await.unwrap_err();
    assert!(matches!(refused, FanOutError::Held { state: "stopped", .. }), "{refused}");
    assert_eq!(slices::stored(&world, id), slice.run);
    let receive = async || {
        let what = Receive { max: 1, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        queues.receive_now(world.queue("own").id, what).await.unwrap()
    };
    let waiting = receive().await;
    assert_eq!(waiting.messages, []);
    assert!(waiting.next_visible_at.is_some_and(|at| at > LeaseTime::ZERO), "it is looked at again");
    decide(Decision::Resume).await;
    world.pass(10);
    assert_eq!(receive().await.messages.len(), 1);
    let last = slices::commit_from(&world, &slice.run, 0, slices::page([slices::user(9)], None)).await.unwrap();
    assert_eq!(report::report(&world.snapshot(), id).unwrap().fetched, 6);
    assert!(last.run.fan_out.finished_at.is_some());
}

#[tokio::test]
async fn an_open_recipient_without_a_message_is_a_finding_unless_its_run_is_stopped() {
    let world = World::new().await;
    let run = world.run("2026-10", 1).await;
    let message = world.receive(QUEUE).await.remove(0).handle;
    world
        .step(move |tx| {
            settle::done(tx, message)?;
            Ok(ledger::has_message(tx, (run, key("2026-10-0")), 0)?)
        })
        .await;
    let found = || {
        let mut findings = store::check::Findings::new(CancellationToken::new());
        run::verify::verify(&world.queues().store().snapshot().unwrap(), run, &mut findings).unwrap();
        findings.shown.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    assert_eq!(found(), ["is open, but it has no message"]);
    world.decide(run, Decision::Stop).await.unwrap();
    assert_eq!(found(), Vec::<String>::new());
}

#[tokio::test]
async fn a_message_of_no_run_to_a_recipient_of_a_held_run_waits_and_is_refused_once_that_is_abandoned() {
    let world = World::new().await;
    let run = world.run("2026-10", 1).await;
    world.decide(run, Decision::Stop).await.unwrap();
    world.work_off().await;
    let by_hand = nightmail::queue::Send::text("by hand");
    world.queues().send(QUEUE, by_hand).await.unwrap();
    let message = world.receive(QUEUE).await.remove(0);
    let ask = async || {
        let attempt = AttemptEffects::new(&support::intents(world.queues()), &message, OnUnknown::Hold);
        let user = "2026-10-0".to_owned();
        attempt.intend(Intent { run, account: user.clone(), user, ..Intent::default() }).await.unwrap()
    };
    assert_eq!(ask().await, Permission::Held);
    world.decide(run, Decision::Abandon).await.unwrap();
    assert_eq!(ask().await, Permission::Abandoned);
}

#[tokio::test]
async fn an_end_is_announced_again_once_after_a_long_resolution() {
    let world = World::new().await;
    world.step(|tx| Ok(notifications::begin(tx)?)).await;
    let run = world.run("2026-10", 4).await;
    for message in world.receive(QUEUE).await {
        let ((attempt, _), handle) = (world.ask(&message).await, message.handle);
        let doubt = move |tx: &mut Tx<'_>| {
            attempt.end(tx, Ending::Unknown("no reply".into()), START)?;
            Ok(settle::hold(tx, handle)?)
        };
        world.step(doubt).await;
    }
    let mut look = RunWatch::default();
    let mut look = async || {
        let changes = look.changes(&world.queues().store().snapshot().unwrap()).unwrap();
        let kinds: Vec<NotificationKind> = changes.iter().flat_map(|change| change.kinds.clone()).collect();
        world
            .step(move |tx| {
                Ok(changes.iter().try_for_each(|one| notifications::announce(tx, one, &BTreeMap::new(), START))?)
            })
            .await;
        kinds
    };
    assert_eq!((look().await, look().await), (vec![NotificationKind::End], vec![]));
    for user in ["2026-10-0", "2026-10-1", "2026-10-2"] {
        let sent = order(run, &[user], Resolution::Sent);
        assert_eq!(resolve::resolve(world.queues(), &sent, QUEUE).await, Ok(1));
        assert_eq!(look().await, vec![], "it goes on");
    }
    assert_eq!((look().await, look().await), (vec![NotificationKind::End], vec![]));
}

#[tokio::test]
async fn a_brake_stops_its_run_alone_at_the_failure_that_is_one_too_many_and_keeps_everything() {
    let mut world = World::new().await;
    let other = world.run("2026-11", 5).await;
    world.mail_all().await;
    world.brake = Some(BrakeLimit { share: 1000, of: 20 });
    let run = world.run("2026-10", 60).await;
    let received = world.receive(QUEUE).await;
    world.kill(&received[0]).await;
    let (doubtful, _) = world.ask(&received[1]).await;
    let handle = received[1].handle;
    world
        .step(move |tx| {
            doubtful.end(tx, Ending::Unknown("no reply".into()), START)?;
            Ok(settle::hold(tx, handle)?)
        })
        .await;
    let (attempt, _) = world.ask(&received[2]).await;
    world.end(&received[2], attempt).await;
    let (in_work, _) = world.ask(&received[3]).await;
    assert_eq!(world.figures(run), (RunState::Sending, 57, 1, 1, 0), "a tenth of 20 may fail");
    world.kill(&received[4]).await;
    let report = world.report(run);
    let because = "of the last 4 recipients that ended 3 failed, and the brake is 10% of 20";
    assert_eq!((report.state, report.held_because.as_deref()), (RunState::Braked, Some(because)));
    world.end(&received[3], in_work).await;
    assert_eq!(world.ask(&received[5]).await.1, Permission::Held);
    assert_eq!(world.mail_all().await, Vec::<String>::new());
    world.open().await;
    world.clock.advance(Duration::from_secs(100));
    world.work_off().await;
    assert_eq!(world.figures(run), (RunState::Braked, 55, 2, 2, 0));
    assert_eq!((world.messages(QUEUE), world.messages("dead")), (0, 2));
    let refused = world.decide(run, Decision::Stop).await.unwrap_err().to_string();
    let remedy = format!("`nightmail run resume {run}` goes on, `nightmail run abandon {run}` ends it");
    assert_eq!(refused, format!("run {run} is braked, so it cannot be stopped ({remedy})"));

    world.decide(run, Decision::Resume).await.unwrap();
    world.work_off().await;
    let received = world.receive(QUEUE).await;
    for (at, message) in received[..3].iter().enumerate() {
        assert_eq!(world.report(run).state, RunState::Sending, "{at}: it counts anew");
        world.kill(message).await;
    }
    assert_eq!(world.figures(run), (RunState::Braked, 52, 2, 5, 0));
    assert_eq!(world.figures(other), (RunState::Complete, 0, 5, 0, 0));
    world.decide(run, Decision::Abandon).await.unwrap();
    world.clock.advance(Duration::from_secs(100));
    world.work_off().await;
    assert_eq!(world.figures(run), (RunState::Abandoned, 0, 2, 0, 57));
}

#[tokio::test]
async fn a_braked_run_whose_last_mails_end_is_complete_and_a_redrive_of_its_letters_goes_on() {
    let mut world = World::new().await;
    world.brake = Some(BrakeLimit { share: 1000, of: 20 });
    let run = world.run("2026-10", 5).await;
    let received = world.receive(QUEUE).await;
    let mut in_work = Vec::new();
    for message in &received[3..] {
        in_work.push(world.ask(message).await.0);
    }
    for message in &received[..3] {
        world.kill(message).await;
    }
    assert_eq!(world.figures(run), (RunState::Braked, 2, 0, 3, 0));
    for (message, attempt) in received[3..].iter().zip(in_work) {
        world.end(message, attempt).await;
    }
    assert_eq!(world.figures(run), (RunState::CompleteWithLetters, 0, 2, 3, 0));
    let refused = world.decide(run, Decision::Resume).await.unwrap_err().to_string();
    assert!(refused.contains("is complete-with-letters, so it cannot be resumed"), "{refused}");
    world.work_off().await;
    let redrive = world.queues().start_redrive(Redrive { from: "dead".into(), ..Redrive::default() }).await.unwrap();
    world.queues().drive(redrive, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.figures(run).0, RunState::Sending);
    assert_eq!(world.mail_all().await.len(), 3);
    assert_eq!(world.figures(run), (RunState::Complete, 0, 5, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_braked_run_is_told_over_a_kill_and_completes_after_the_fix() {
    let options = bank::Options { users: 300, fail_share: 0.5, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options::default()).await;
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__RETRIES", "0");
    harness.set_key("FUNCTIONS__STATEMENT__BACKOFF__MAX", "20ms");
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__BRAKE", "10% of 50");
    harness.set_key("SCHEDULES__MONTHLY_STATEMENTS__NOTIFY__QUEUE", "alerts");
    harness.add_sections("\n[queues.alerts]\n");
    let child = harness.child().await;
    let run = child.operator.start().await;
    let braked = async |child: &Child| {
        until("the brake", async || {
            let report = child.operator.report(run).await;
            (report.state == RunState::Braked).then_some(report)
        })
        .await
    };
    braked(&child).await;
    child.kill().await;
    let child = harness.child().await;
    let report = braked(&child).await;
    assert!(report.dead >= 6 && report.open > 0, "{report:?}");
    let notifications = until("the notification", async || {
        let notifications = child.operator.peek("alerts").await;
        notifications.iter().any(|notification| notification.body.contains("\"braked\"")).then_some(notifications)
    })
    .await;
    let text = format!("stopped sending by itself: {}", report.held_because.unwrap());
    assert!(notifications.iter().any(|notification| notification.body.contains(&text)), "{notifications:?}");

    harness.bank.fix();
    child.operator.decide(run, Decision::Resume).await;
    let (report, _) = child.operator.all_sent(run).await;
    assert_eq!(report.sent + report.unknown, 300);
    child.terminate(Duration::from_secs(60)).await;
    let queues = harness.queues();
    assert_sound(&queues);
    assert_recounted(&queues, run);
}

#[tokio::test]
async fn a_stop_and_a_resumption_outlive_kills_of_the_daemon_and_nobody_gets_two_mails() {
    let mut harness = Harness::with_users(400).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 4);
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("the first mails", async || (child.operator.report(run).await.sent >= 20).then_some(())).await;
    let stopped = child.operator.decide(run, Decision::Stop).await;
    assert_eq!(stopped.state, RunState::Stopped);
    child.kill().await;
    let child = harness.child().await;
    until("the queue to be empty of it", async || {
        let (queue, report) = (child.operator.queue(QUEUE).await, child.operator.report(run).await);
        assert!(report.does_balance());
        (queue.total() == 0).then_some(())
    })
    .await;
    let report = child.operator.report(run).await;
    assert_eq!(report.state, RunState::Stopped);
    let mails = harness.sink.summary().total;
    assert!(mails < 400 && report.sent + report.unknown >= mails, "{mails} mails, {report:?}");
    let other = child.operator.try_start("2026-11").await.unwrap();
    assert_eq!(child.operator.complete(other).await.sent, 400, "another run goes on meanwhile");
    assert_eq!(child.operator.report(run).await, report, "and nothing happens to this one");

    child.operator.decide(run, Decision::Resume).await;
    child.kill().await;
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    assert_eq!((report.state, report.fetched), (RunState::Complete, 400));
    child.terminate(Duration::from_secs(60)).await;
    let queues = harness.queues();
    assert_sound(&queues);
    assert_recounted(&queues, run);
    let mut mails: BTreeMap<String, u64> = BTreeMap::new();
    for record in harness.sink.records() {
        *mails.entry(record.recipient).or_default() += 1;
    }
    // One of each run; of the few in doubt after the kills perhaps one less.
    assert!(mails.values().all(|count| *count <= 2), "nobody got one twice: {mails:?}");
    assert!(mails.values().sum::<u64>() + report.unknown >= 800);
}

#[tokio::test]
async fn an_abandonment_in_the_middle_of_the_fetch_ends_the_fan_out_too_and_outlives_a_kill() {
    let mut harness = Harness::with_users(3000).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 2);
    let child = harness.child().await;
    let run = child.operator.start().await;
    until("some users", async || (child.operator.report(run).await.fetched >= 100).then_some(())).await;
    child.operator.decide(run, Decision::Abandon).await;
    child.kill().await;
    let child = harness.child().await;
    let report = until("its end", async || {
        let report = child.operator.report(run).await;
        assert!(report.does_balance());
        let queues = child.operator.queues().await;
        (report.open == 0 && queues.iter().all(|queue| queue.total() == 0)).then_some(report)
    })
    .await;
    assert_eq!((report.state, report.open, report.dead), (RunState::Abandoned, 0, 0));
    assert_eq!(report.withdrawn + report.sent + report.unknown, report.fetched);
    let refused = child.operator.try_ask(Request::DecideRun { id: run, decision: Decision::Resume }).await.unwrap_err();
    assert_eq!(refused.text, format!("run {run} is abandoned, so it cannot be resumed (that is for good)"));
    child.terminate(Duration::from_secs(60)).await;
    assert_sound(&harness.queues());
}
