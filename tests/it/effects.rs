//! The ledger of effects: what is permitted, what an attempt's end leaves, what a crash leaves, and how doubts are resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nightmail::base::outcome::DeliveryProof;
use nightmail::base::{Clock, ManualClock};
use nightmail::function::{Effects, Intent, Permission, Quota};
use nightmail::queue::{Queues, Receive, Received, catalog, settle};
use nightmail::run::effects::{AttemptEffects, Ending, Intents, Left, recover};
use nightmail::run::ledger::{self, Recipient};
use nightmail::run::{Ledger, OnUnknown, Resolution, Resolve, Suppression, resolve, suppression, verify};
use nightmail::store::check::Findings;
use nightmail::store::record::{FanOutProgress, Owner, RecipientRecord, RecipientState, RunRecord, RunTotals};
use nightmail::store::{self, Store, Tx};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::harness::{assert_recounted, assert_sound};
use crate::support::{self, START, dying_after, forever};

const QUEUE: &str = "statements";
const DONE: fn() -> Ending =
    || Ending::Done(DeliveryProof { reply: Some("250 ok".into()), ..DeliveryProof::default() });

fn unknown() -> Ending {
    Ending::Unknown("no reply".into())
}

/// Run 1 with some recipients, each with a message.
struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    /// `None` only while reopening.
    queues: Option<Queues>,
}

fn run() -> RunRecord {
    RunRecord {
        id: 1,
        schedule: "monthly".into(),
        function: "fan-out".into(),
        params: BTreeMap::from([("period".into(), "2026-10".into())]),
        scheduled_for: START,
        started_at: START,
        fan_out: FanOutProgress { finished_at: Some(START), ..FanOutProgress::default() },
        refetches: 0,
        note: String::new(),
        folded_at: None,
        check: None,
    }
}

fn key(user: &str) -> [u8; 16] {
    ledger::user_key(user, user)
}

impl World {
    async fn with(users: &[&str]) -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(START), queues: None };
        world.open();
        world.queues().ensure("dead", &forever()).await.unwrap();
        world.queues().ensure(QUEUE, &dying_after(3)).await.unwrap();
        assert_eq!(recover(world.queues(), &BTreeMap::new()).await, Ok(0));
        let start = |tx: &mut Tx<'_>| {
            let run = run();
            tx.runs()?.insert(&1, &run)?;
            let identity = nightmail::run::identity(&run.schedule, &run.params, run.scheduled_for);
            tx.run_keys()?.insert(&identity, &1)?;
            *tx.totals_mut(1)? = RunTotals::default();
            Ok::<_, store::Error>(())
        };
        world.queues().store().write(start).await.unwrap();
        for user in users {
            world.add(user).await;
        }
        world
    }

    fn open(&mut self) {
        let path = self.dir.path().join("nightmail.redb");
        let store = Store::open(&store::Options { log_bytes: 1 << 20, ..store::Options::at(path) }).unwrap();
        self.queues = Some(Queues::new(store, self.clock.clone(), Arc::new(Ledger)));
    }

    fn queues(&self) -> &Queues {
        self.queues.as_ref().unwrap()
    }

    /// A recipient with a message.
    async fn add(&self, user: &str) {
        let record = RawValue::from_string(format!("{{\"id\":{user:?}}}")).unwrap();
        let body = self.send(user).await;
        let user = user.to_owned();
        let step = move |tx: &mut Tx<'_>| {
            let (key, record) = (key(&user), Some(record.get()));
            let row = Recipient { key, user: &user, address: "", account: None, page: 1, record, body, refetch: 0 };
            ledger::add(tx, 1, row, START)
        };
        assert!(self.queues().store().write::<_, store::Error, _>(step).await.unwrap());
    }

    /// Another message of a recipient; returns its inner id.
    async fn send(&self, user: &str) -> u64 {
        let record = RawValue::from_string(format!("{{\"id\":{user:?}}}")).unwrap();
        let message = nightmail::run::message::message(&run(), key(user), &record);
        self.queues().send(QUEUE, message).await.unwrap().sequence
    }

    async fn work(&self) -> Received {
        let queue = catalog::look_up(&self.queues().store().snapshot().unwrap(), QUEUE).unwrap().id;
        let what = Receive { max: 1, visibility: Some(Duration::from_secs(60)), owner: Owner::Worker };
        self.queues().receive_now(queue, what).await.unwrap().messages.pop().expect("a message to work on")
    }

    fn attempt(&self, message: &Received, on_unknown: OnUnknown) -> AttemptEffects {
        AttemptEffects::new(&support::intents(self.queues()), message, on_unknown)
    }

    /// The next message, received and permitted to be mailed.
    async fn begin(&self, user: &str, on_unknown: OnUnknown) -> (Received, AttemptEffects) {
        let message = self.work().await;
        let attempt = self.attempt(&message, on_unknown);
        assert_eq!(attempt.intend(intent(user)).await, Ok(Permission::Granted));
        (message, attempt)
    }

    /// Ends an attempt, and its message as the pool does when the outcome is a retry.
    async fn end(&self, (message, attempt): (Received, AttemptEffects), ending: Ending) -> Left {
        let (handle, now) = (message.handle, self.clock.wall());
        let is_done = matches!(ending, Ending::Done(_) | Ending::Duplicate | Ending::LeftOut(_));
        let step = move |tx: &mut Tx<'_>| {
            let left = attempt.end(tx, ending, now)?;
            match (left, is_done) {
                (Left::Held, _) => drop(settle::hold(tx, handle)?),
                (Left::ToItsOutcome, true) => drop(settle::done(tx, handle)?),
                (Left::ToItsOutcome, false) | (Left::Again, _) => drop(settle::release(tx, handle)?),
            }
            Ok::<_, nightmail::queue::Error>(left)
        };
        self.queues().store().write(step).await.unwrap()
    }

    /// The process dies and the next one starts.
    async fn crash(&mut self, on_unknown: OnUnknown) -> u64 {
        self.queues = None;
        // Those who wrote the intents of attempts that are gone end now, and with them the store closes.
        tokio::task::yield_now().await;
        self.clock.restart();
        self.open();
        let recovered = recover(self.queues(), &BTreeMap::from([(QUEUE.to_owned(), on_unknown)])).await.unwrap();
        self.queues().end_worker_leases(&BTreeSet::new()).await.unwrap();
        recovered
    }

    fn row(&self, user: &str) -> RecipientRecord {
        self.queues().store().snapshot().unwrap().recipients().unwrap().get(&(1, key(user))).unwrap().unwrap()
    }

    /// State and doubts of a recipient.
    fn state(&self, user: &str) -> (&'static str, u32) {
        let row = self.row(user);
        (row.state.name(), row.interrupted)
    }

    fn intents(&self) -> usize {
        let snapshot = self.queues().store().snapshot().unwrap();
        snapshot.intents().unwrap().first((0, [0; 16])..=(u64::MAX, [0xff; 16]), usize::MAX).unwrap().len()
    }

    /// What a check of the run finds.
    fn verify(&self) -> Vec<String> {
        let mut findings = Findings::new(CancellationToken::new());
        verify::verify(&self.queues().store().snapshot().unwrap(), 1, &mut findings).unwrap();
        findings.shown.into_iter().map(|found| format!("{} {}: {}", found.table, found.key, found.what)).collect()
    }

    fn messages(&self) -> u64 {
        let snapshot = self.queues().store().snapshot().unwrap();
        let queue = catalog::look_up(&snapshot, QUEUE).unwrap().id;
        snapshot.counts().unwrap().get(&queue).unwrap().unwrap_or_default().total()
    }

    fn check(&self) {
        assert_recounted(self.queues(), 1);
        assert_eq!(self.verify(), Vec::<String>::new());
        assert_sound(self.queues());
    }
}

fn intent(user: &str) -> Intent {
    let message_id = format!("<{user}@bank.example>");
    Intent {
        run: 1,
        user: user.into(),
        account: user.into(),
        purpose: String::new(),
        message_id,
        address: format!("{user}@bank.example"),
        quota: None,
        document: None,
    }
}

fn resend(user: &str) -> Intent {
    Intent { purpose: "resend-1".into(), ..intent(user) }
}

#[tokio::test]
async fn an_intent_is_on_disk_when_it_is_permitted_and_goes_with_the_end_of_its_attempt() {
    for (ending, state) in [(DONE(), "sent"), (Ending::None, "open")] {
        let world = World::with(&["ada"]).await;
        let attempt = world.begin("ada", OnUnknown::Hold).await;
        assert_eq!((world.intents(), world.state("ada")), (1, ("open", 0)));
        world.check();
        assert_eq!(world.end(attempt, ending).await, Left::ToItsOutcome);
        assert_eq!((world.intents(), world.state("ada")), (0, (state, 0)));
        world.check();
    }
}

#[tokio::test]
async fn a_second_message_waits_while_the_first_is_being_mailed_and_is_deleted_after_it() {
    for (ending, state) in [(DONE(), "sent"), (unknown(), "unknown")] {
        let world = World::with(&["ada"]).await;
        let first = world.begin("ada", OnUnknown::Hold).await;
        world.send("ada").await;
        let second = world.work().await;
        let copy = world.attempt(&second, OnUnknown::Hold);
        assert_eq!(copy.intend(intent("ada")).await, Ok(Permission::InWork));
        world.end(first, ending).await;
        assert_eq!(copy.intend(intent("ada")).await, Ok(Permission::Duplicate));
        world.end((second, copy), Ending::Duplicate).await;
        assert_eq!((world.state("ada").0, world.row("ada").copies, world.messages()), (state, 1, 0));
        world.check();
    }
}

#[tokio::test]
async fn a_crash_leaves_exactly_those_unknown_whose_intent_was_written() {
    let mut world = World::with(&["ada", "bob"]).await;
    drop(world.begin("ada", OnUnknown::Hold).await);
    world.work().await;
    assert_eq!(world.crash(OnUnknown::Hold).await, 1);
    assert_eq!((world.state("ada"), world.state("bob")), (("unknown", 1), ("open", 0)));
    assert_eq!((world.messages(), world.intents()), (1, 0), "bob's goes on");
    assert!(world.row("ada").reason.contains("died"), "{}", world.row("ada").reason);
    world.check();
    assert_eq!(world.crash(OnUnknown::Hold).await, 0);
}

#[tokio::test]
async fn under_resend_a_doubt_is_listed_and_its_message_is_tried_again() {
    let mut world = World::with(&["ada"]).await;
    drop(world.begin("ada", OnUnknown::Resend).await);
    world.crash(OnUnknown::Resend).await;
    assert_eq!((world.state("ada"), world.messages()), (("open", 1), 1));
    let again = world.begin("ada", OnUnknown::Resend).await;
    assert_eq!(world.end(again, unknown()).await, Left::ToItsOutcome);
    assert_eq!(world.state("ada"), ("open", 2));
    let again = world.begin("ada", OnUnknown::Resend).await;
    world.end(again, DONE()).await;
    assert_eq!(world.state("ada"), ("sent", 2), "the doubts stay: it may have got three mails");
    world.check();
}

#[tokio::test]
async fn an_attempt_whose_message_is_gone_may_not_mail_and_what_it_mailed_before_counts() {
    let world = World::with(&["ada"]).await;
    let message = world.work().await;
    let attempt = world.attempt(&message, OnUnknown::Hold);
    world.queues().purge(QUEUE).await.unwrap();
    assert_eq!(attempt.intend(intent("ada")).await, Ok(Permission::Lost));
    world.queues().remove_purged().await.unwrap();
    assert_eq!(world.state("ada"), ("withdrawn", 0));
    let endings = [(DONE(), ("sent", 0)), (unknown(), ("unknown", 1)), (Ending::None, ("withdrawn", 0))];
    for (ending, state) in &endings {
        // Its rows may leave the store before the attempt ends or after it.
        for ends_first in [false, true] {
            // Under resend too: there is no message that could be sent again.
            let world = World::with(&["ada"]).await;
            let attempt = world.begin("ada", OnUnknown::Resend).await;
            world.queues().purge(QUEUE).await.unwrap();
            if ends_first {
                world.end(attempt, ending.clone()).await;
                world.queues().remove_purged().await.unwrap();
            } else {
                world.queues().remove_purged().await.unwrap();
                world.end(attempt, ending.clone()).await;
            }
            assert_eq!((world.state("ada"), world.intents()), (*state, 0), "{ends_first}");
            world.check();
        }
    }
}

#[tokio::test]
async fn an_attempt_that_outlives_its_lease_keeps_others_from_mailing_until_it_reports() {
    let world = World::with(&["ada"]).await;
    let late = world.begin("ada", OnUnknown::Hold).await;
    world.clock.advance(Duration::from_secs(61));
    let message = world.work().await;
    let second = world.attempt(&message, OnUnknown::Hold);
    assert_eq!(second.intend(intent("ada")).await, Ok(Permission::Duplicate), "who knows what the first has done");
    assert_eq!(world.state("ada"), ("unknown", 1));
    world.end((message, second), Ending::Duplicate).await;
    world.end(late, DONE()).await;
    assert_eq!((world.state("ada").0, world.messages()), ("sent", 0), "what it says counts");
    world.check();
}

#[tokio::test]
async fn a_mail_with_a_purpose_of_its_own_is_another_effect() {
    let world = World::with(&["ada"]).await;
    let first = world.begin("ada", OnUnknown::Hold).await;
    world.end(first, DONE()).await;
    world.send("ada").await;
    let message = world.work().await;
    let attempt = world.attempt(&message, OnUnknown::Hold);
    assert_eq!(attempt.intend(resend("ada")).await, Ok(Permission::Granted));
    world.end((message, attempt), DONE()).await;
    world.send("ada").await;
    let message = world.work().await;
    let attempt = world.attempt(&message, OnUnknown::Hold);
    assert_eq!(attempt.intend(resend("ada")).await, Ok(Permission::Duplicate), "once for each purpose");
    world.check();
}

#[tokio::test]
async fn an_address_that_came_onto_the_suppression_list_meanwhile_is_not_mailed() {
    let world = World::with(&["ada"]).await;
    let message = world.work().await;
    let attempt = world.attempt(&message, OnUnknown::Hold);
    assert_eq!(attempt.suppressed(&intent("ada")), Ok(None));
    let one = Suppression { address: "Ada@BANK.example".into(), reason: "bounced".into(), since: None };
    world.queues().store().write(move |tx| suppression::add(tx, &[one], START)).await.unwrap();
    assert_eq!(attempt.intend(intent("ada")).await, Ok(Permission::Suppressed));
    assert_eq!(world.intents(), 0);
    world.end((message, attempt), Ending::LeftOut(RecipientState::Suppressed("bounced".into()))).await;
    assert_eq!((world.state("ada"), world.messages()), (("suppressed", 0), 0));
    world.check();
}

#[tokio::test]
async fn no_day_has_more_mails_than_the_relays_quota_restarts_and_mails_outside_of_runs_included() {
    let mut world = World::with(&["ada"]).await;
    let quota = |per_day| Some(Quota { relay: "relay:25".into(), per_day });
    let message = world.work().await;
    let ask =
        async |world: &World, intent: Intent| world.attempt(&message, OnUnknown::Hold).intend(intent).await.unwrap();
    let stranger = || Intent { run: 0, quota: quota(4), ..intent("bob") };
    world.clock.advance(Duration::from_secs(90 * 60));
    assert_eq!(ask(&world, Intent { quota: quota(4), ..intent("ada") }).await, Permission::Granted);
    assert_eq!(ask(&world, stranger()).await, Permission::Granted);
    // Those that come together are counted together.
    let permitted = {
        let (intents, mut pending) = Intents::new(world.queues());
        let asking = join_all((0..4).map(|_| {
            let attempt = AttemptEffects::new(&intents, &message, OnUnknown::Hold);
            async move { attempt.intend(stranger()).await.unwrap() }
        }));
        let write = async {
            while pending.count() < 4 {
                tokio::task::yield_now().await;
            }
            pending.write().await;
        };
        tokio::join!(asking, write).0
    };
    let free_in = Duration::from_secs((24 * 60 + 30) * 60);
    let refused = Permission::OverQuota(free_in);
    assert_eq!(permitted, [Permission::Granted, Permission::Granted, refused, refused]);
    world.crash(OnUnknown::Hold).await;
    assert_eq!(ask(&world, stranger()).await, refused);
    assert_eq!(
        ask(&world, Intent { quota: quota(5), ..stranger() }).await,
        Permission::Granted,
        "the limit was raised"
    );
    let other = Some(Quota { relay: "other:25".into(), per_day: 1 });
    assert_eq!(ask(&world, Intent { quota: other, ..stranger() }).await, Permission::Granted, "another relay");
    world.clock.advance(free_in - Duration::from_secs(1));
    assert_eq!(ask(&world, stranger()).await, Permission::OverQuota(Duration::from_secs(1)));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&world, stranger()).await, Permission::Granted);
    let hours = world.queues().store().snapshot().unwrap().mail_quotas().unwrap();
    let kept = hours.first(("relay:25".to_owned(), 0)..=("relay:25".to_owned(), u64::MAX), usize::MAX).unwrap();
    assert_eq!(kept.len(), 1, "hours that count no more are forgotten: {kept:?}");
}

#[tokio::test]
async fn outside_of_the_runs_recipients_nothing_is_written_down() {
    let world = World::with(&["ada"]).await;
    let message = world.work().await;
    for stranger in [intent("bob"), Intent { run: 0, ..intent("ada") }, Intent { run: 9, ..intent("ada") }] {
        let attempt = world.attempt(&message, OnUnknown::Hold);
        assert_eq!(attempt.intend(stranger).await, Ok(Permission::Granted));
        assert_eq!(world.intents(), 0);
    }
}

#[tokio::test]
async fn what_an_earlier_version_had_in_work_when_it_died_is_unknown_and_can_be_sent_again() {
    let mut world = World::with(&["ada", "bob"]).await;
    let forget = |tx: &mut Tx<'_>| {
        let row = tx.recipients()?.get(&(1, key("ada")))?.unwrap();
        tx.recipients()?.insert(&(1, key("ada")), &RecipientRecord { body: 0, ..row })?;
        tx.user_records()?.remove(&(1, key("ada")))?;
        tx.meta()?.remove(&"intents".to_owned())?;
        Ok::<_, store::Error>(())
    };
    world.queues().store().write(forget).await.unwrap();
    world.work().await;
    assert_eq!(world.crash(OnUnknown::Hold).await, 1);
    assert_eq!((world.state("ada"), world.state("bob"), world.messages()), (("unknown", 1), ("open", 0), 1));
    world.work().await;
    assert_eq!(world.crash(OnUnknown::Hold).await, 0, "from now on there are intents");
    let resent = resolve::resolve(world.queues(), &order(&["ada"], Resolution::Resend), QUEUE).await;
    assert_eq!((resent, world.messages()), (Ok(1), 2));
    world.check();
}

#[tokio::test]
async fn the_intents_of_a_crash_are_settled_in_slices() {
    let users: Vec<String> = (0..1100).map(|n| format!("user-{n}")).collect();
    let mut world = World::with(&[]).await;
    for user in &users {
        world.add(user).await;
        world.begin(user, OnUnknown::Hold).await;
    }
    assert_eq!(world.crash(OnUnknown::Hold).await, 1100);
    assert_eq!((world.intents(), world.messages()), (0, 0));
    let report = assert_recounted(world.queues(), 1);
    assert_eq!((report.unknown, report.open), (1100, 0));
}

fn order(users: &[&str], resolution: Resolution) -> Resolve {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    Resolve { run: 1, users, resolution, accounts: Vec::new() }
}

#[tokio::test]
async fn a_row_that_does_not_add_up_is_named_by_its_user() {
    let world = World::with(&["ada", "bob", "eve", "zoe"]).await;
    world.check();
    let damage = |tx: &mut Tx<'_>| {
        let mut row = |user: &str, edit: fn(&mut RecipientRecord)| {
            let mut row = tx.recipients()?.get(&(1, key(user)))?.unwrap();
            edit(&mut row);
            tx.recipients()?.insert(&(1, key(user)), &row)
        };
        row("ada", |row| row.body = 999)?;
        row("bob", |row| row.body += 1)?;
        row("eve", |row| row.state = RecipientState::Unknown(None))?;
        row("zoe", |row| row.address = "zoe@example.com".into())?;
        tx.user_records()?.remove(&(1, key("zoe")))?;
        Ok::<_, store::Error>(())
    };
    world.queues().store().write(damage).await.unwrap();
    let mut found = world.verify();
    found.sort();
    assert_eq!(
        found[..4],
        [
            "recipients \"ada\": is open, but its message is not there",
            "recipients \"bob\": is open, but its message is another recipient's",
            "recipients \"eve\": is unknown, but no attempt is in doubt",
            "recipients \"zoe\": is open, and its user record is not there",
        ]
    );
    assert!(found[4].starts_with("totals 1: says RunTotals { fetched: 4,") && found.len() == 5, "{found:?}");
}

#[tokio::test]
async fn an_unknown_mail_is_resolved_as_sent_or_sent_again_and_nothing_else_is_touched() {
    let mut world = World::with(&["ada", "bob", "eve", "zoe"]).await;
    for user in ["ada", "bob", "eve"] {
        world.begin(user, OnUnknown::Hold).await;
    }
    world.crash(OnUnknown::Hold).await;
    let resolve =
        async |users: &[&str], resolution| resolve::resolve(world.queues(), &order(users, resolution), QUEUE).await;
    assert_eq!(resolve(&["ada"], Resolution::Sent).await, Ok(1));
    assert_eq!(world.state("ada"), ("sent", 0), "no doubt is left");
    assert_eq!(world.row("ada").reason, "resolved by hand as sent");
    assert_eq!(resolve(&[], Resolution::Resend).await, Ok(2), "all that are left");
    assert_eq!((world.state("bob"), world.messages()), (("open", 1), 3));
    world.check();
    let refused = resolve(&["zoe"], Resolution::Sent).await.unwrap_err().to_string();
    assert!(refused.starts_with("recipient \"zoe\" of run 1 is open, not unknown ("), "{refused}");
    let refused = resolve(&["ann"], Resolution::Sent).await.unwrap_err().to_string();
    assert!(refused.starts_with("run 1 has no recipient \"ann\" ("), "{refused}");
    for user in ["zoe", "bob", "eve"] {
        let attempt = world.begin(user, OnUnknown::Hold).await;
        assert_eq!(attempt.0.recipient, key(user), "in the order of sending");
        let body: serde_json::Value = serde_json::from_slice(&attempt.0.body).unwrap();
        assert_eq!((&body["user"]["id"], &body["identity"]), (&user.into(), &"monthly period=\"2026-10\"".into()));
        world.end(attempt, DONE()).await;
    }
    assert_eq!((world.state("bob"), world.state("zoe")), (("sent", 1), ("sent", 0)), "bob may have got two mails");
    world.check();
}
