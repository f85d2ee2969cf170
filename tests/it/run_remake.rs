//! A gate that is passed in another way than by the release of statements that are all made: they are made again, the rest is
//! not waited for, nobody is left, or they are not the same any more.

use std::collections::BTreeSet;
use std::time::Duration;

use nightmail::base::outcome::DeliveryProof;
use nightmail::function::{Effects, Permission, Stage};
use nightmail::queue::Received;
use nightmail::queue::settle;
use nightmail::run::effects::Ending;
use nightmail::run::{self, Accept, Decision, Refetch, RunState, accept};
use nightmail::store::Tx;
use nightmail::store::record::Gate;

use crate::run_gate::{AUTO, End, Gated, MANUAL, document, good, ids};
use crate::run_refetch::user_of;

impl Gated {
    /// A run of 20 users that was let go, of whom user 4 is a letter since then, because its statement changed.
    async fn with_a_changed_one() -> Self {
        let gated = Self::of(MANUAL, 20).await;
        gated.work(good).await;
        gated.decide(Decision::Release).await;
        let end = |user: &str| if user == "4" { End::Changed } else { End::Pages(2) };
        assert_eq!(gated.work(end).await.len(), 19);
        gated
    }

    /// Fetches the users again, so many by now.
    async fn refetch(&self, gate: Gate, users: u32) {
        self.begin_refetch(gate).await;
        self.fetch(users).await;
    }

    async fn begin_refetch(&self, gate: Gate) {
        let now = self.0.world.now();
        let what = Refetch { run: self.0.run, queue: "own".into(), guard: None, gate: Some(gate) };
        self.0.queues.store().write(move |tx: &mut Tx<'_>| run::refetch(tx, &what, now)).await.unwrap();
        self.end_fan_out().await;
    }

    async fn put_back(&self, message: &Received) {
        let handle = message.handle;
        self.0.queues.store().write(move |tx: &mut Tx<'_>| settle::release(tx, handle)).await.unwrap();
    }
}

fn three_pages(_: &str) -> End {
    End::Pages(3)
}

#[tokio::test]
async fn statements_that_the_gate_found_wrong_are_all_made_again_and_only_the_new_ones_are_mailed() {
    let gated = Gated::of(MANUAL, 200).await;
    gated.work(|user| if user == "7" { End::Dead } else { End::Pages(11) }).await;
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 199, 199));
    assert!(gated.report().remedy().contains(&format!("`nightmail run remake {}`", gated.0.run)));
    gated.decide(Decision::Remake).await;
    assert_eq!(gated.figures(), (RunState::Rendering, 199, 199));
    let refused = gated.0.decide(Decision::Release).await.unwrap_err().to_string();
    assert!(refused.contains("are about to be made again"), "{refused}");
    gated.0.work_off().await;
    assert_eq!(gated.figures(), (RunState::Rendering, 199, 0), "all are forgotten");
    gated.redrive().await;
    assert_eq!(gated.work(three_pages).await, BTreeSet::new());
    let report = gated.report();
    let gate = report.gate.unwrap();
    assert_eq!((report.state, gate.waiting, gate.pages, gate.over), (RunState::AwaitingRelease, 200, 600, 0));
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(three_pages).await, ids(0..200));
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn what_an_attempt_of_before_makes_is_forgotten_too_and_a_guard_has_nothing_to_make_again() {
    let gated = Gated::of(MANUAL, 3).await;
    gated.work(|user| if user == "1" { End::Dead } else { End::Pages(2) }).await;
    gated.redrive().await;
    let message = gated.0.receive("users").await.remove(0);
    let effects = gated.begin(&message);
    gated.decide(Decision::Remake).await;
    let working = gated.0.work_off();
    let ending = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(gated.report().gate.unwrap().waiting, 2, "it is waited for");
        gated.settle(effects, &message, Ending::Rendered(document(2))).await;
    };
    tokio::join!(working, ending);
    assert_eq!(gated.figures(), (RunState::Rendering, 3, 0));
    gated.work(three_pages).await;
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(three_pages).await, ids(0..3));
    // Abandoned meanwhile, nobody gets anything.
    let gated = Gated::of(MANUAL, 3).await;
    gated.work(good).await;
    gated.decide(Decision::Remake).await;
    gated.decide(Decision::Abandon).await;
    assert_eq!(gated.work(good).await, BTreeSet::new());
    assert_eq!((gated.report().state, gated.report().withdrawn), (RunState::Abandoned, 3));
    let refused = gated.0.decide(Decision::Remake).await.unwrap_err().to_string();
    assert!(refused.contains("is abandoned, so it cannot be remade"), "{refused}");
}

#[tokio::test]
async fn a_refetch_makes_those_alone_again_whom_it_has_added() {
    let gated = Gated::of(MANUAL, 5).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    let end = |user: &str| if user == "4" { End::Changed } else { End::Pages(2) };
    assert_eq!(gated.work(end).await, ids(0..4));
    gated.refetch(MANUAL, 8).await;
    let report = gated.report();
    assert_eq!(report.gate.as_ref().unwrap().checked_at, None, "the check on record is the first fetch's");
    gated.work(good).await;
    assert!(gated.report().remedy().contains("makes the statements of those who are new again"));
    gated.decide(Decision::Remake).await;
    gated.work(three_pages).await;
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(three_pages).await, ids(5..8));
    gated.redrive().await;
    assert_eq!(gated.work(end).await, BTreeSet::new(), "what was let go is compared as before");
    assert_eq!(gated.report().dead, 1);
}

#[tokio::test]
async fn a_release_while_statements_are_made_waits_for_nobody_and_mails_what_was_made() {
    let gated = Gated::of(MANUAL, 5).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    for message in &messages[..3] {
        gated.attempt(message, End::Pages(2)).await;
    }
    let slow = gated.begin(&messages[3]);
    gated.put_back(&messages[4]).await;
    assert_eq!((gated.report().state, gated.report().unmade()), (RunState::Rendering, 2));
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await.len(), 4, "the others wait for the slow one no more");
    gated.settle(slow, &messages[3], Ending::Rendered(document(2))).await;
    assert_eq!(gated.work(good).await, [user_of(&messages[3])].into());
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn a_run_that_awaits_its_release_says_how_many_letters_are_being_made_again() {
    let gated = Gated::of(MANUAL, 5).await;
    gated.work(|user| if user == "1" { End::Dead } else { End::Pages(2) }).await;
    gated.redrive().await;
    assert!(gated.because().ends_with("; 1 more statement not made yet"), "{}", gated.because());
}

#[tokio::test]
async fn a_gate_opens_once_nobody_is_left_behind_it() {
    let gated = Gated::of(MANUAL, 5).await;
    gated.work(|_| End::Dead).await;
    assert_eq!(gated.report().state, RunState::AwaitingRelease);
    gated.0.queues.purge("letters").await.unwrap();
    gated.0.queues.remove_purged().await.unwrap();
    assert_eq!((gated.report().state, gated.report().withdrawn), (RunState::Complete, 5));
    // A refetch that names nobody new holds up nobody, whether there are letters of before or open ones.
    let gated = Gated::with_a_changed_one().await;
    gated.refetch(MANUAL, 20).await;
    assert_eq!((gated.report().state, gated.report().dead), (RunState::CompleteWithLetters, 1));
    gated.begin_refetch(MANUAL).await;
    gated.redrive().await;
    gated.fetch(20).await;
    assert_eq!(gated.report().state, RunState::Sending);
    assert_eq!(gated.work(good).await, ["4".to_owned()].into());
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn a_refetch_whose_new_users_all_die_mails_their_letters_after_its_release_alone() {
    let gated = Gated::of(AUTO, 5).await;
    gated.work(good).await;
    gated.refetch(MANUAL, 8).await;
    gated.work(|_| End::Dead).await;
    assert_eq!((gated.report().state, gated.report().dead), (RunState::AwaitingRelease, 3));
    gated.redrive().await;
    assert_eq!(gated.work(good).await, BTreeSet::new(), "nobody has seen them");
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await, ids(5..8));
}

#[tokio::test]
async fn whoever_was_fetched_before_a_refetch_gets_the_mail_while_that_waits_and_when_it_is_given_up() {
    for is_given_up in [false, true] {
        let gated = Gated::with_a_changed_one().await;
        gated.refetch(MANUAL, 21).await;
        gated.0.work_off().await;
        let message = gated.0.receive("users").await.remove(0);
        let effects = gated.begin(&message);
        gated.redrive().await;
        // The stop takes the message of the one of before back, and the last statement is made meanwhile.
        gated.decide(Decision::Stop).await;
        gated.settle(effects, &message, Ending::Rendered(document(2))).await;
        gated.0.work_off().await;
        gated.decide(Decision::Resume).await;
        assert_eq!(gated.figures(), (RunState::AwaitingRelease, 2, 2));
        if is_given_up {
            gated.decide(Decision::AbandonRefetch).await;
        }
        assert_eq!(gated.work(good).await, ["4".to_owned()].into(), "{is_given_up}");
    }
}

#[tokio::test]
async fn a_copy_of_a_mail_that_was_sent_is_a_copy_whatever_the_account_says_by_then() {
    let gated = Gated::of(MANUAL, 1).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    gated.0.work_off().await;
    let message = gated.0.receive("users").await.remove(0);
    gated.attempt(&message, End::Pages(2)).await;
    gated.0.queues.send("users", nightmail::queue::Send::text(message.body.to_vec())).await.unwrap();
    let copied = gated.0.receive("users").await.remove(0);
    let effects = gated.0.effects(&copied);
    assert_eq!(effects.stage(&gated.intent("0")).unwrap(), Stage::Mail { sha256: None }, "it is not compared");
    assert_eq!(effects.intend(gated.intent("0")).await.unwrap(), Permission::Duplicate);
}

#[tokio::test]
async fn all_changed_statements_of_a_run_are_accepted_at_once() {
    let gated = Gated::of(MANUAL, 150).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    let end = |user: &str| if user == "0" { End::Pages(2) } else { End::Changed };
    assert_eq!(gated.work(end).await, ids(0..1));
    let what = Accept { run: gated.0.run, users: Vec::new(), accounts: Vec::new() };
    assert_eq!(accept::accept(&gated.0.queues, &what).await, Ok(149));
    assert_eq!(accept::accept(&gated.0.queues, &what).await, Ok(0));
    gated.redrive().await;
    assert_eq!(gated.work(three_pages).await, ids(1..150));
}

#[tokio::test]
async fn a_doubt_that_a_crash_leaves_counts_in_the_phase_of_sending() {
    let gated = Gated::of(MANUAL, 2).await;
    let recover = async || {
        let policies = [("users".to_owned(), run::OnUnknown::Hold)].into();
        run::effects::recover(&gated.0.queues, &policies).await.unwrap()
    };
    assert_eq!(recover().await, 0);
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    let effects = gated.0.effects(&messages[0]);
    assert_eq!(effects.intend(gated.intent(&user_of(&messages[0]))).await.unwrap(), Permission::Granted);
    assert_eq!(recover().await, 1);
    let (report, phases) = (gated.report(), gated.report().phases);
    assert_eq!((report.unknown, phases.send.dead, phases.render.done), (1, 1, 2));
    // The attempt may report all the same.
    gated.settle(effects, &messages[0], Ending::Done(DeliveryProof::default())).await;
    assert_eq!((gated.report().sent, gated.report().unknown), (1, 0));
}
