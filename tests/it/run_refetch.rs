//! Refetches that do not end as they should: given up, dead, out of bounds, or overtaken. Nobody but whom they have added
//! waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::outcome::DeliveryProof;
use nightmail::base::{Failure, MessageId};
use nightmail::function::statement::Page;
use nightmail::function::{Effects, Intent, Permission};
use nightmail::queue::redrive::Redrive;
use nightmail::queue::settle::{self, Ended};
use nightmail::queue::{Options, Queues, Receive, Received, RedrivePolicy};
use nightmail::run::control::work_off;
use nightmail::run::effects::{AttemptEffects, Ending};
use nightmail::run::notifications::{self, RunWatch};
use nightmail::run::{self, Again, Decision, Ledger, OnUnknown, Refetch, RunState, again};
use nightmail::schedule::fan_out::Error;
use nightmail::store::Tx;
use nightmail::store::record::{
    Guard, NotificationKind, Owner, RecipientState, Refetching, RunHold, RunRecord, Selection,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{assert_recounted, assert_sound, messages, until};
use crate::run_again::ids;
use crate::slices::{self, page, user};
use crate::support::{START, World, forever};

const AT_LEAST_24: Guard = Guard { users_min: 24, deviation: None };

/// A run whose users are fetched, from pages that a test may fetch again.
pub(crate) struct Runs {
    pub(crate) world: World,
    pub(crate) queues: Queues,
    pub(crate) run: u64,
}

impl Runs {
    /// A run with 20 users that are fetched.
    pub(crate) async fn new() -> Self {
        Self::with(page((0..20).map(user), None)).await
    }

    /// A run whose users are those of the page.
    pub(crate) async fn with(users: Page) -> Self {
        let world = World::new();
        let redrive = Some(RedrivePolicy { dead_letter_queue: "letters".into(), max_receive_count: 3 });
        slices::make_queues(world.queues(), Options { redrive, ..forever() }, forever()).await;
        let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
        let run = slices::start_run(&world, "2026-10").await;
        let runs = Self { world, queues, run: run.id };
        let (fan_out, queues) = (runs.receive("own").await.remove(0).handle, &runs.queues);
        queues.store().write(move |tx: &mut Tx<'_>| settle::done(tx, fan_out)).await.unwrap();
        slices::commit_whole(&runs.world, run, users).await;
        runs
    }

    pub(crate) async fn refetch(&self, guard: Option<Guard>) -> Result<RunRecord, run::Error> {
        let (what, now) = (Refetch { run: self.run, queue: "own".into(), guard, gate: None }, self.world.now());
        self.queues.store().write(move |tx: &mut Tx<'_>| run::refetch(tx, &what, now)).await?;
        Ok(slices::stored(&self.world, self.run))
    }

    pub(crate) async fn decide(&self, decision: Decision) -> Result<(), run::Error> {
        let run = self.run;
        self.queues.store().write(move |tx| run::decide(tx, run, decision, START)).await
    }

    pub(crate) async fn receive(&self, queue: &str) -> Vec<Received> {
        let what = Receive { max: 10, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        self.queues.receive_now(self.world.queue(queue).id, what).await.unwrap().messages
    }

    /// Ends an attempt on the message as one that cannot succeed.
    pub(crate) async fn kill(&self, message: &Received) {
        let (handle, now) = (message.handle, self.queues.now());
        let why = Failure::new("http", "account", "404", "there is no such account");
        let ended = Ended { function: "statement".into(), why, at: now };
        let step = move |tx: &mut Tx<'_>| settle::move_to_dlq(tx, &Ledger, handle, &ended, Duration::ZERO);
        self.queues.store().write(step).await.unwrap();
    }

    /// Drives a letter back.
    pub(crate) async fn redrive(&self, letter: MessageId) {
        let selection = Selection { ids: vec![letter], ..Selection::default() };
        let what = Redrive { from: "letters".into(), selection, ..Redrive::default() };
        let redrive = self.queues.start_redrive(what).await.unwrap();
        self.queues.drive(redrive, &CancellationToken::new()).await.unwrap();
    }

    /// Lets the background do its part until nothing is left.
    pub(crate) async fn work_off(&self) {
        let (stop, targets) = (CancellationToken::new(), BTreeMap::from([("fan-out".into(), "users".into())]));
        let working = tokio::spawn(work_off(self.queues.clone(), targets, stop.clone()));
        until("the background", async || {
            let controls = self.queues.store().snapshot().unwrap().run_controls().unwrap();
            let mut left = controls.first(0..=u64::MAX, usize::MAX).unwrap();
            let is_ending = |refetch: Refetching| refetch.abandoned_at.is_some();
            left.retain(|(_, control)| {
                let is_remaking = control.hold == RunHold::Remaking;
                is_remaking || control.has_queued || control.has_unsent || control.refetch.is_some_and(is_ending)
            });
            left.is_empty().then_some(())
        })
        .await;
        stop.cancel();
        working.await.unwrap().unwrap();
    }

    /// State, recipients, open ones, and the users whose row says that an abandoned refetch had added them.
    pub(crate) fn figures(&self) -> (RunState, u64, u64, BTreeSet<String>) {
        assert_sound(&self.queues);
        let report = assert_recounted(&self.queues, self.run);
        assert!(report.does_balance());
        let rows = self.world.snapshot().recipients().unwrap();
        let rows = rows.first((self.run, [0; 16])..=(self.run, [0xff; 16]), usize::MAX).unwrap();
        let abandoned = RecipientState::Withdrawn("refetch abandoned".into());
        let given_up = rows.into_iter().filter(|(_, row)| row.state == abandoned).map(|(_, row)| row.user).collect();
        (report.state, report.fetched, report.open, given_up)
    }
}

pub(crate) fn user_of(message: &Received) -> String {
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
    body["user"]["id"].as_str().unwrap().to_owned()
}

impl Runs {
    pub(crate) fn effects(&self, message: &Received) -> AttemptEffects {
        AttemptEffects::new(&crate::support::intents(&self.queues), message, OnUnknown::Hold)
    }

    pub(crate) async fn ask(&self, message: &Received) -> (AttemptEffects, Permission) {
        self.ask_for(message, user_of(message)).await
    }

    /// Asks for permission to mail the user's statement of that account.
    pub(crate) async fn ask_for(&self, message: &Received, account: String) -> (AttemptEffects, Permission) {
        let (effects, user) = (self.effects(message), user_of(message));
        let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
        let purpose = body["purpose"].as_str().unwrap_or_default().to_owned();
        let intent = Intent { run: self.run, account, user, purpose, ..Intent::default() };
        let permission = effects.intend(intent).await.unwrap();
        (effects, permission)
    }

    pub(crate) async fn end(&self, message: &Received, effects: AttemptEffects) {
        let handle = message.handle;
        let step = move |tx: &mut Tx<'_>| {
            effects.end(tx, Ending::Done(DeliveryProof::default()), START)?;
            settle::done(tx, handle)
        };
        assert!(self.queues.store().write(step).await.unwrap().is_some());
    }

    /// Receives and mails what can be received; returns whose it was.
    pub(crate) async fn mail_all(&self) -> BTreeSet<String> {
        let mut mailed = BTreeSet::new();
        loop {
            let received = self.receive("users").await;
            if received.is_empty() {
                return mailed;
            }
            for message in received {
                let (effects, permission) = self.ask(&message).await;
                assert_eq!(permission, Permission::Granted, "{}", user_of(&message));
                self.end(&message, effects).await;
                assert!(mailed.insert(user_of(&message)), "a user got two mails");
            }
        }
    }

    /// Has that user mailed again.
    pub(crate) async fn resend(&self, user: &str) {
        let what = Again { run: self.run, users: vec![user.into()], accounts: Vec::new() };
        assert_eq!(again::resend(&self.queues, &what, "users").await.unwrap().len(), 1);
    }
}

pub(crate) fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

#[tokio::test]
async fn an_abandoned_refetch_withdraws_those_alone_whom_it_has_added_and_a_later_one_adds_them_again() {
    let runs = Runs::new().await;
    assert_eq!(runs.mail_all().await, ids(0..20));
    let refused = runs.decide(Decision::AbandonRefetch).await.unwrap_err();
    assert_eq!(refused, run::Error::NoRefetch(runs.run));
    let fetched_at = assert_recounted(&runs.queues, runs.run).fetched_at;
    runs.world.pass(1000);
    let again = runs.refetch(Some(AT_LEAST_24)).await.unwrap();
    let malformed = slices::malformed("{\"id\":\"m\"}");
    slices::commit_whole(&runs.world, again, page((17..22).map(user).chain([malformed]), None)).await;
    assert_eq!(runs.figures(), (RunState::AwaitingRelease, 23, 2, set(&[])));
    let report = assert_recounted(&runs.queues, runs.run);
    let back = format!("`nightmail run abandon {} --refetch` gives the refetch up", runs.run);
    assert!(report.remedy().ends_with(&back), "{}", report.remedy());
    runs.resend("3").await;
    assert_eq!(runs.mail_all().await, set(&["3"]), "who belonged to the run does not wait");

    runs.decide(Decision::AbandonRefetch).await.unwrap();
    let refused = runs.refetch(None).await.unwrap_err().to_string();
    assert!(refused.contains("is sending, so it cannot be refetched"), "{refused}");
    runs.work_off().await;
    assert_eq!(runs.figures(), (RunState::Complete, 23, 0, set(&["20", "21", "m"])));
    assert_eq!(assert_recounted(&runs.queues, runs.run).fetched_at, fetched_at);
    assert_eq!((messages(&runs.queues, "own").len(), messages(&runs.queues, "letters").len()), (0, 0));
    assert_eq!(runs.mail_all().await, set(&[]));

    let again = runs.refetch(Some(AT_LEAST_24)).await.unwrap();
    slices::commit_whole(&runs.world, again, page((0..20).map(user), None)).await;
    let because = assert_recounted(&runs.queues, runs.run).held_because;
    assert_eq!(because.as_deref(), Some("20 users fetched, but users.min is 24"), "whom that had added is no user");
    runs.decide(Decision::AbandonRefetch).await.unwrap();
    runs.work_off().await;

    let again = runs.refetch(Some(AT_LEAST_24)).await.unwrap();
    slices::commit_whole(&runs.world, again, page((0..25).map(user), None)).await;
    assert_eq!(runs.figures(), (RunState::Sending, 26, 5, set(&["m"])));
    runs.work_off().await;
    assert_eq!(runs.mail_all().await, ids(20..25));
    assert_eq!(runs.figures(), (RunState::Complete, 26, 0, set(&["m"])));
}

#[tokio::test]
async fn a_refetch_that_is_dead_holds_up_nobody_who_belonged_to_the_run_before_it() {
    let runs = Runs::new().await;
    let dead = runs.receive("users").await.remove(0);
    runs.kill(&dead).await;
    runs.world.pass(100);
    assert_eq!(runs.mail_all().await.len(), 19);
    let again = runs.refetch(Some(AT_LEAST_24)).await.unwrap();
    slices::commit_whole(&runs.world, again, page((15..22).map(user), Some("b"))).await;
    let fan_out = runs.receive("own").await.remove(0);
    runs.kill(&fan_out).await;
    assert_eq!(runs.figures(), (RunState::FetchDead, 22, 2, set(&[])));
    runs.redrive(dead.message_id).await;
    assert_eq!(runs.figures(), (RunState::FetchDead, 22, 3, set(&[])));

    // What a stop takes back comes again, and again nobody else with it.
    runs.decide(Decision::Stop).await.unwrap();
    runs.work_off().await;
    assert_eq!(messages(&runs.queues, "users").len(), 0);
    runs.decide(Decision::Resume).await.unwrap();
    runs.work_off().await;
    let sent = user_of(&dead) == "7";
    let other = if sent { "8" } else { "7" };
    runs.resend(other).await;
    assert_eq!(runs.mail_all().await, set(&[&user_of(&dead), other]));
    assert_eq!(runs.figures(), (RunState::FetchDead, 22, 2, set(&[])));

    runs.decide(Decision::AbandonRefetch).await.unwrap();
    runs.work_off().await;
    assert_eq!(runs.figures(), (RunState::Complete, 22, 0, set(&["20", "21"])));
    assert_eq!(messages(&runs.queues, "letters").len(), 0, "there is nothing to redrive any more");
}

#[tokio::test]
async fn whom_a_refetch_without_a_guard_has_mailed_stays_sent_when_it_is_abandoned() {
    let runs = Runs::new().await;
    runs.mail_all().await;
    let again = runs.refetch(None).await.unwrap();
    slices::commit_whole(&runs.world, again, page((18..24).map(user), Some("b"))).await;
    let received = runs.receive("users").await;
    assert_eq!(received.len(), 4);
    let (sent, _) = runs.ask(&received[0]).await;
    runs.end(&received[0], sent).await;
    let (begun, permission) = runs.ask(&received[1]).await;
    assert_eq!(permission, Permission::Granted);
    runs.decide(Decision::AbandonRefetch).await.unwrap();
    assert_eq!(runs.ask(&received[2]).await.1, Permission::Held);
    runs.end(&received[1], begun).await;
    runs.world.pass(100);
    assert_eq!(runs.receive("users").await, [], "before the background has done anything");
    runs.work_off().await;
    let given_up = received[2..].iter().map(user_of).collect();
    assert_eq!(runs.figures(), (RunState::Complete, 24, 0, given_up));
}

#[tokio::test]
async fn a_page_that_was_read_before_a_refetch_is_not_committed_in_it() {
    let runs = Runs::new().await;
    runs.mail_all().await;
    let stale = slices::start_run(&runs.world, "2026-11").await;
    slices::commit_whole(&runs.world, stale.clone(), page((0..3).map(user), None)).await;
    let runs = Runs { run: stale.id, ..runs };
    assert_eq!(runs.mail_all().await, ids(0..3));
    let again = runs.refetch(None).await.unwrap();
    let late = page((50..53).map(user), None);
    let refused = slices::commit_from(&runs.world, &stale, 0, late.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::Overtaken), "{refused}");
    runs.decide(Decision::AbandonRefetch).await.unwrap();
    runs.work_off().await;
    runs.refetch(None).await.unwrap();
    let refused = slices::commit_from(&runs.world, &again, 0, late).await.unwrap_err();
    assert!(matches!(refused, Error::Overtaken), "{refused}");
    assert_eq!(runs.figures().1, 3);
}

#[tokio::test]
async fn a_run_that_is_older_than_the_64_newest_is_announced_when_it_comes_to_wait_for_its_release() {
    let runs = Runs::with(page([user(0)], None)).await;
    runs.queues.store().write(notifications::begin).await.unwrap();
    runs.mail_all().await;
    for n in 0..70 {
        let later = slices::start_run(&runs.world, &format!("later-{n}")).await;
        slices::commit_whole(&runs.world, later, page([user(0)], None)).await;
    }
    let mut watch = RunWatch::default();
    let mut look = || {
        let changes = watch.changes(&runs.world.snapshot()).unwrap();
        changes
            .into_iter()
            .filter(|change| change.run.id == runs.run)
            .flat_map(|change| change.kinds)
            .collect::<Vec<_>>()
    };
    look();
    let again = runs.refetch(Some(AT_LEAST_24)).await.unwrap();
    slices::commit_whole(&runs.world, again, page([user(1)], None)).await;
    assert_eq!(runs.figures().0, RunState::AwaitingRelease);
    assert_eq!(look(), [NotificationKind::AwaitingRelease]);
}
