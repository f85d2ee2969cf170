//! What a destination that is away spares an attempt, on a real store and a manual clock.

use tempfile::TempDir;

use super::*;
use crate::base::outcome::DeliveryProof;
use crate::base::{Backoff, Clock, Contact, Destination, ManualClock, Timestamp, Verdict};
use crate::function::{Effects, Intent, Permission};
use crate::queue::peek::{Peeked, peek};
use crate::queue::{Receive, RedrivePolicy, Send, catalog};
use crate::run::ledger::{self, Recipient};
use crate::run::{Ledger, OnUnknown};
use crate::store::record::{Owner, RecipientRecord};
use crate::store::{self, Store};
use crate::work::Breakers;
use crate::work::breaker::Voter;

struct World {
    _dir: TempDir,
    clock: Arc<ManualClock>,
    settler: Settler,
    queue: u32,
}

fn relay() -> Destination {
    Destination::new("relay", "mail.example:587")
}

fn why() -> Failure {
    Failure::new("smtp", "relay", "451", "come back later")
}

fn retry(effect: Effect) -> Outcome {
    Outcome::Retry { why: why(), after: None, effect }
}

fn deferred() -> Outcome {
    Outcome::Deferred { why: why(), after: None }
}

impl World {
    /// Queue `orders` with one message of a run, which dies at its third charged failure or after an hour of deferrals.
    async fn new() -> Self {
        Self::with(OnUnknown::Hold).await
    }

    async fn with(on_unknown: OnUnknown) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::from_secs(1_793_491_200));
        let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb"))).unwrap();
        let queues = Queues::new(store, clock.clone(), Arc::new(Ledger));
        queues.ensure("dead", &queue::Options::default()).await.unwrap();
        let redrive = Some(RedrivePolicy { dead_letter_queue: "dead".into(), max_receive_count: 3 });
        let queue = queues.ensure("orders", &queue::Options { redrive, ..queue::Options::default() }).await.unwrap();
        let (clock_now, recipient) = (clock.wall(), ledger::user_key("ada", "ada"));
        queues.send("orders", Send { run: 1, recipient, ..Send::text("hello") }).await.unwrap();
        let (key, address, account, record) = (recipient, "", None, None);
        let row = Recipient { key, user: "ada", address, account, page: 1, record, body: 0, refetch: 0 };
        let add = move |tx: &mut Tx<'_>| ledger::add(tx, 1, row, clock_now);
        queues.store().write(add).await.unwrap();
        let options = Options {
            function: "statement".into(),
            queue: "orders".into(),
            concurrency: 1,
            timeout: Duration::from_secs(60),
            backoff: Backoff::default(),
            deferral_pause: Duration::from_secs(30),
            deferral_max: Duration::from_secs(3600),
            on_unknown,
        };
        let gate = Breakers::new(clock.clone()).gate(vec![relay()], 1);
        let (intents, mut pending) = Intents::new(&queues);
        tokio::spawn(async move {
            while pending.next().await.is_some() {
                pending.write().await;
            }
        });
        Self { _dir: dir, clock, settler: Settler { intents, queues, options: Arc::new(options), gate }, queue }
    }

    /// Receives the message, which must be visible, and settles it.
    async fn attempt(&self, outcome: Outcome, is_away: bool) -> Settled {
        let what = Receive { max: 1, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        let mut found = self.settler.queues.receive_now(self.queue, what).await.unwrap().messages;
        let message = found.pop().expect("it is visible");
        let effects = AttemptEffects::new(&self.settler.intents, &message, self.settler.options.on_unknown);
        if !matches!(outcome, Outcome::Deferred { .. } | Outcome::Paced { .. }) {
            let intent = Intent { run: 1, user: "ada".into(), account: "ada".into(), ..Intent::default() };
            assert_eq!(effects.intend(intent).await, Ok(Permission::Granted));
        }
        self.settler.settle(message, &effects, End::Outcome(outcome), is_away, self.clock.now()).await.unwrap()
    }

    /// The recipient's row; no intent is left behind.
    async fn row(&self) -> RecipientRecord {
        let read = |snapshot: &store::Snapshot| {
            let intents = snapshot.intents()?.first((0, [0; 16])..=(u64::MAX, [0xff; 16]), 1)?;
            Ok::<_, store::Error>((intents, snapshot.recipients()?.first((1, [0; 16])..=(1, [0xff; 16]), 1)?))
        };
        let (intents, mut rows) = self.settler.queues.store().read(read).await.unwrap();
        assert_eq!(intents, []);
        rows.remove(0).1
    }

    /// What happened in the phases render and send: done, retried, dead.
    async fn phases(&self) -> [(u64, u64, u64); 2] {
        let read = |snapshot: &store::Snapshot| Ok::<_, store::Error>(snapshot.totals()?.get(&1)?.unwrap_or_default());
        let phases = self.settler.queues.store().read(read).await.unwrap().phases;
        [phases.render, phases.send].map(|phase| (phase.done, phase.retried, phase.dead))
    }

    /// How long until the message is visible again.
    fn wait(&self, settled: Settled) -> Duration {
        match settled {
            Settled::Waits { until } => until.since(self.clock.lease()),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn relay_is(&self, verdict: Verdict) {
        let voter = Voter {
            message: crate::base::MessageId::fresh(),
            attempts_charged: 1,
            not_before: LeaseTime::ZERO,
            is_probe: false,
        };
        self.settler.gate.record(&[Contact { destination: relay(), verdict }], voter, None);
    }

    /// The message, while it is in its queue.
    async fn message(&self) -> Option<Peeked> {
        let now = self.clock.now();
        let read = move |snapshot: &store::Snapshot| {
            let queue = catalog::look_up(snapshot, "orders")?;
            Ok::<_, queue::Error>(peek(snapshot, &queue, 1, 10, now)?.pop())
        };
        self.settler.queues.store().read(read).await.unwrap()
    }
}

#[tokio::test]
async fn a_failure_while_its_destination_is_away_costs_nothing_and_comes_back_soon() {
    let world = World::new().await;
    for _ in 0..20 {
        for outcome in [retry(Effect::None), deferred()] {
            let settled = world.attempt(outcome, true).await;
            let wait = world.wait(settled);
            assert!(AWAY_PAUSE <= wait && wait <= AWAY_PAUSE * 2, "{wait:?}");
            world.pass(200);
        }
    }
    let message = world.message().await.unwrap();
    assert_eq!((message.receive_count, message.attempts_charged), (40, 0), "over two hours of deferrals");
    let row = world.row().await;
    assert_eq!((row.interrupted, row.state.name()), (0, "open"));
}

#[tokio::test]
async fn a_doubt_is_held_and_its_message_deleted() {
    let world = World::new().await;
    assert_eq!(world.attempt(retry(Effect::Unknown), true).await, Settled::Deleted);
    let row = world.row().await;
    assert_eq!((row.interrupted, row.state.name()), (1, "unknown"));
    assert_eq!(row.reason, "smtp relay 451: come back later");
    assert_eq!(world.message().await, None);
}

#[tokio::test]
async fn a_doubt_that_is_sent_again_is_charged_although_the_destination_is_away() {
    let world = World::with(OnUnknown::Resend).await;
    world.attempt(retry(Effect::Unknown), true).await;
    let row = world.row().await;
    assert_eq!((row.interrupted, row.state.name()), (1, "open"));
    assert_eq!(world.message().await.unwrap().attempts_charged, 1, "no recipient is mailed without end");
}

#[tokio::test]
async fn what_the_destination_said_about_the_message_keeps_its_meaning() {
    let world = World::new().await;
    assert_eq!(world.attempt(Outcome::Dead { why: why() }, true).await, Settled::MovedToDlq);
    let world = World::new().await;
    assert_eq!(world.attempt(Outcome::Done(DeliveryProof::default()), true).await, Settled::Deleted);
    let world = World::new().await;
    world.attempt(retry(Effect::None), false).await;
    assert_eq!(world.message().await.unwrap().attempts_charged, 1);
}

#[tokio::test]
async fn each_attempt_counts_in_the_phase_in_which_it_failed_and_what_is_spared_in_none() {
    let world = World::new().await;
    let account = Failure::new("http", "account", "500", "try again");
    world.attempt(Outcome::Retry { why: account.clone(), after: None, effect: Effect::None }, false).await;
    world.pass(3600);
    world.attempt(retry(Effect::None), true).await;
    world.pass(3600);
    world.attempt(retry(Effect::None), false).await;
    assert_eq!(world.phases().await, [(0, 1, 0), (0, 1, 0)]);
    world.pass(3600);
    world.attempt(Outcome::Done(DeliveryProof::default()), false).await;
    assert_eq!(world.phases().await, [(1, 1, 0), (1, 1, 0)]);
    let world = World::new().await;
    world.attempt(Outcome::Dead { why: account }, false).await;
    assert_eq!(world.phases().await, [(0, 0, 1), (0, 0, 0)]);
    for outcome in [Outcome::Dead { why: why() }, retry(Effect::Unknown)] {
        let world = World::new().await;
        world.attempt(outcome, false).await;
        assert_eq!(world.phases().await, [(1, 0, 0), (0, 0, 1)], "what could not be mailed was made");
    }
    let world = World::new().await;
    for _ in 0..3 {
        world.attempt(retry(Effect::None), false).await;
        world.pass(3600);
    }
    assert_eq!(world.phases().await, [(1, 0, 0), (0, 2, 1)], "the third one was the last");
}

#[tokio::test]
async fn the_time_that_a_destination_is_away_does_not_count_towards_the_limit_of_deferrals() {
    let world = World::new().await;
    world.attempt(deferred(), false).await;
    world.pass(60);
    world.relay_is(Verdict::Unreachable { needs_operator: false, why: "refused".into() });
    world.pass(100_000);
    world.relay_is(Verdict::Answered);
    world.pass(3000);
    let settled = world.attempt(deferred(), false).await;
    assert!(world.wait(settled) >= Duration::from_secs(30), "51 minutes of its own");
    world.pass(539);
    let settled = world.attempt(deferred(), false).await;
    assert!(matches!(settled, Settled::Waits { .. }), "a second less than an hour");
    world.pass(40);
    assert_eq!(world.attempt(deferred(), false).await, Settled::MovedToDlq);
}

#[tokio::test]
async fn a_wait_for_our_own_pace_leaves_no_trace_and_does_not_prolong_a_series_of_deferrals() {
    let world = World::new().await;
    let paced = || Outcome::Paced { why: why(), after: Some(Duration::from_secs(600)) };
    for _ in 0..3 {
        let wait = world.wait(world.attempt(paced(), false).await);
        assert!((600..=660).contains(&wait.as_secs()), "{wait:?}");
        world.pass(660);
    }
    let message = world.message().await.unwrap();
    assert_eq!((message.attempts_charged, message.history.len()), (0, 0), "{message:?}");
    // It is refused again and again, and waits for its turn in between.
    for _ in 0..5 {
        assert!(matches!(world.attempt(deferred(), false).await, Settled::Waits { .. }));
        world.pass(60);
        world.attempt(paced(), false).await;
        world.pass(661);
    }
    assert_eq!(world.attempt(deferred(), false).await, Settled::MovedToDlq);
}

#[test]
fn what_fails_because_its_destination_is_away_is_told_at_debug_level() {
    let told = |outcome: Outcome, is_away| {
        let lines = crate::work::breakers::tests::logged(|| tell(&End::Outcome(outcome), is_away, Duration::ZERO));
        lines.first().map(|line| line.split(' ').next().unwrap_or_default().to_owned())
    };
    for outcome in [retry(Effect::None), deferred()] {
        assert_eq!(told(outcome.clone(), true), None, "the log shows INFO and above");
        assert_eq!(told(outcome, false).as_deref(), Some("WARN"));
    }
    assert_eq!(told(Outcome::Paced { why: why(), after: None }, false), None, "our own limits are no fault");
    for outcome in [retry(Effect::Unknown), Outcome::Dead { why: why() }] {
        assert_eq!(told(outcome, true).as_deref(), Some("WARN"));
    }
}
