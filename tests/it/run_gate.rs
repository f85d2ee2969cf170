//! The gate of a run: all of its statements are made and checked before the first may be mailed, whatever is decided, driven
//! back or given up meanwhile. A worker that makes statements of given sizes stands in for the pool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::outcome::DeliveryProof;
use nightmail::base::{Failure, RenderedDocument};
use nightmail::function::{Effects, Intent, Permission, Stage};
use nightmail::queue::redrive::Redrive;
use nightmail::queue::settle::{self, Ended};
use nightmail::queue::{Error as Refused, Options, Queues, Received, RedrivePolicy};
use nightmail::run::effects::{AttemptEffects, Ending, Left};
use nightmail::run::report::{self, Filter, GateReport, PhaseReport, PhasesReport, Report};
use nightmail::run::{self, Accept, Again, Decision, Erase, Ledger, Refetch, RunState, accept, again, erase};
use nightmail::store::record::{Brake, BrakeLimit, Gate, GateLimits, GateMode, Guard, RunRecord};
use nightmail::store::{self, Tx};
use tokio_util::sync::CancellationToken;

use crate::harness::{assert_recounted, assert_sound};
use crate::run_refetch::{Runs, user_of};
use crate::slices::{self, malformed, page, user};
use crate::support::{START, World, forever};

pub(crate) const LIMITS: GateLimits =
    GateLimits { failures: Some(1000), empty: Some(5000), pages_max: 10, bytes_max: 5000, deviation: Some(2500) };
pub(crate) const MANUAL: Gate = Gate { mode: GateMode::Manual, limits: LIMITS, checked_at: None };
pub(crate) const AUTO: Gate = Gate { mode: GateMode::Auto, limits: LIMITS, checked_at: None };

/// How an attempt ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The statement has so many pages.
    Pages(u32),
    /// There are no transactions.
    Empty,
    /// There is no such account.
    Dead,
    /// The statement is another one than before.
    Changed,
}

pub(crate) struct Gated(pub(crate) Runs);

impl Gated {
    /// A run with that gate, of which no user is fetched.
    pub(crate) async fn new(gate: Gate, guard: Option<Guard>) -> Self {
        let world = World::new();
        let redrive = Some(RedrivePolicy { dead_letter_queue: "letters".into(), max_receive_count: 3 });
        slices::make_queues(world.queues(), Options { redrive, ..forever() }, forever()).await;
        let queues = Queues::new(world.queues().store().clone(), world.clock.clone(), Arc::new(Ledger));
        let run = slices::start_gated(&world, "2026-10", guard, Some(gate)).await;
        let gated = Self(Runs { world, queues, run: run.id });
        gated.end_fan_out().await;
        gated
    }

    /// The same with so many users that are fetched.
    pub(crate) async fn of(gate: Gate, users: u32) -> Self {
        let gated = Self::new(gate, None).await;
        gated.fetch(users).await;
        gated
    }

    pub(crate) async fn end_fan_out(&self) {
        let fan_out = self.0.receive("own").await.remove(0).handle;
        self.0.queues.store().write(move |tx: &mut Tx<'_>| settle::done(tx, fan_out)).await.unwrap();
    }

    pub(crate) async fn fetch(&self, users: u32) -> RunRecord {
        let run = slices::stored(&self.0.world, self.0.run);
        slices::commit_whole(&self.0.world, run, page((0..users).map(user), None)).await
    }

    /// The next run of the schedule, and its statements made.
    async fn next(self, period: &str, gate: Gate, users: u32, end: impl Fn(&str) -> End) -> Self {
        let run = slices::start_gated(&self.0.world, period, None, Some(gate)).await;
        let next = Self(Runs { run: run.id, ..self.0 });
        next.end_fan_out().await;
        next.fetch(users).await;
        next.work(end).await;
        next
    }

    pub(crate) async fn decide(&self, decision: Decision) {
        self.0.decide(decision).await.unwrap();
    }

    /// Works off what there is until nothing is left; returns who was mailed.
    pub(crate) async fn work(&self, end: impl Fn(&str) -> End) -> BTreeSet<String> {
        let mut mailed = BTreeSet::new();
        loop {
            self.0.work_off().await;
            let messages = self.0.receive("users").await;
            if messages.is_empty() {
                return mailed;
            }
            for message in messages {
                if self.attempt(&message, end(&user_of(&message))).await {
                    assert!(mailed.insert(user_of(&message)), "nobody gets two mails");
                }
            }
        }
    }

    /// One attempt; whether it has mailed.
    pub(crate) async fn attempt(&self, message: &Received, end: End) -> bool {
        let effects = self.0.effects(message);
        let intent = self.intent(&user_of(message));
        let stage = effects.stage(&intent).unwrap();
        let made = match (end, stage) {
            (End::Dead, _) => return self.kill(message, ("http", "account", "404")).await,
            (End::Changed, Stage::Mail { sha256: Some(_) }) => {
                return self.kill(message, ("data", "statement", "changed")).await;
            }
            (End::Pages(pages), _) => document(pages),
            (End::Empty | End::Changed, _) => RenderedDocument { is_empty: true, ..document(1) },
        };
        match stage {
            Stage::Wait => panic!("a message was received that may not be worked on"),
            Stage::Render => {
                self.settle(effects, message, Ending::Rendered(made)).await;
                false
            }
            Stage::Mail { sha256 } => {
                assert!(sha256.is_none_or(|sha256| sha256 == made.sha256), "the statement is another one");
                assert_eq!(effects.intend(intent).await.unwrap(), Permission::Granted);
                self.settle(effects, message, Ending::Done(DeliveryProof::default())).await;
                true
            }
        }
    }

    /// An attempt that is to make the statement, and has not ended.
    pub(crate) fn begin(&self, message: &Received) -> AttemptEffects {
        let effects = self.0.effects(message);
        assert_eq!(effects.stage(&self.intent(&user_of(message))).unwrap(), Stage::Render);
        effects
    }

    pub(crate) fn intent(&self, user: &str) -> Intent {
        let (run, user, account) = (self.0.run, user.to_owned(), user.to_owned());
        Intent { run, user, account, address: "ada@example.test".into(), ..Intent::default() }
    }

    pub(crate) async fn settle(&self, effects: AttemptEffects, message: &Received, ending: Ending) {
        let handle = message.handle;
        let step = move |tx: &mut Tx<'_>| match effects.end(tx, ending, START)? {
            Left::Again => settle::release(tx, handle).map(drop),
            Left::ToItsOutcome | Left::Held => settle::done(tx, handle).map(drop),
        };
        self.0.queues.store().write::<_, Refused, _>(step).await.unwrap();
    }

    pub(crate) async fn kill(&self, message: &Received, (kind, place, code): (&str, &str, &str)) -> bool {
        let (handle, now) = (message.handle, self.0.queues.now());
        let ended = Ended { function: "statement".into(), why: Failure::new(kind, place, code, "it failed"), at: now };
        let step = move |tx: &mut Tx<'_>| settle::move_to_dlq(tx, &Ledger, handle, &ended, Duration::ZERO);
        self.0.queues.store().write(step).await.unwrap();
        false
    }

    /// Drives all letters back.
    pub(crate) async fn redrive(&self) {
        let what = Redrive { from: "letters".into(), ..Redrive::default() };
        let redrive = self.0.queues.start_redrive(what).await.unwrap();
        self.0.queues.drive(redrive, &CancellationToken::new()).await.unwrap();
    }

    /// Drives the letters of that user back.
    pub(crate) async fn redrive_some(&self, user: &str) {
        let letters = crate::harness::messages(&self.0.queues, "letters");
        for letter in letters.into_iter().filter(|letter| letter.body.contains(&format!(r#""id":"{user}""#))) {
            self.0.redrive(letter.message_id).await;
        }
    }

    pub(crate) fn report(&self) -> Report {
        assert_sound(&self.0.queues);
        let report = assert_recounted(&self.0.queues, self.0.run);
        assert!(report.does_balance());
        let mut findings = store::check::Findings::new(CancellationToken::new());
        run::verify::verify(&self.0.world.snapshot(), self.0.run, &mut findings).unwrap();
        assert_eq!(findings.shown, []);
        report
    }

    pub(crate) fn gate(&self) -> GateReport {
        self.report().gate.unwrap()
    }

    /// State, open recipients, and those whose statement is made and waits.
    pub(crate) fn figures(&self) -> (RunState, u64, u64) {
        let report = self.report();
        let waiting = report.gate.as_ref().map_or(0, |gate| gate.waiting);
        (report.state, report.open, waiting)
    }

    pub(crate) fn because(&self) -> String {
        self.report().held_because.unwrap_or_default()
    }

    pub(crate) fn dump(&self) -> usize {
        crate::harness::messages(&self.0.queues, "users").len()
    }
}

pub(crate) fn document(pages: u32) -> RenderedDocument {
    let sha256 = [u8::try_from(pages).unwrap(); 32];
    RenderedDocument { sha256, bytes: 100 * u64::from(pages), pages, is_empty: false }
}

pub(crate) fn ids(users: std::ops::Range<u32>) -> BTreeSet<String> {
    users.map(|id| id.to_string()).collect()
}

pub(crate) fn good(_: &str) -> End {
    End::Pages(2)
}

#[tokio::test]
async fn a_manual_gate_has_all_statements_made_and_mails_them_after_the_release_alone() {
    let gated = Gated::of(MANUAL, 25).await;
    assert_eq!(gated.figures(), (RunState::Rendering, 25, 0));
    assert_eq!(gated.work(good).await, BTreeSet::new());
    assert_eq!((gated.figures(), gated.dump()), ((RunState::AwaitingRelease, 25, 25), 0), "nobody has a message");
    assert_eq!(gated.because(), "25 statements to send, the checks found nothing, and the gate is manual");
    let made = GateReport { statements: 25, waiting: 25, pages: 50, bytes: 5000, ..GateReport::default() };
    let mode = Some("manual".to_owned());
    assert_eq!(gated.gate(), GateReport { mode, checked_at: Some(START), ..made.clone() });
    assert!(!gated.report().is_complete());
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await, ids(0..25));
    assert_eq!(gated.report().state, RunState::Complete);
    assert_eq!(gated.gate(), GateReport { waiting: 0, checked_at: Some(START), ..made }, "what was seen is kept");
    let all = PhaseReport { read: 25, done: 25, ..PhaseReport::default() };
    assert_eq!(gated.report().phases, PhasesReport { fetch: all, render: all, check: all, send: all });
}

#[tokio::test]
async fn each_phase_counts_what_happened_in_it() {
    let gated = Gated::new(MANUAL, None).await;
    let run = slices::stored(&gated.0.world, gated.0.run);
    let users = (0..20).chain([3, 4]).map(user).chain([malformed(r#"{"id":"x","name":"Ada"}"#)]);
    slices::commit_whole(&gated.0.world, run, page(users, None)).await;
    let end = |user: &str| match user {
        "1" | "2" => End::Dead,
        "5" => End::Pages(11),
        _ => End::Pages(2),
    };
    gated.work(end).await;
    let report = |filtered, done, skipped, retried, dead| {
        let read = filtered + done + skipped + retried + dead;
        PhaseReport { read, filtered, done, skipped, retried, dead }
    };
    let fetch = report(2, 20, 0, 0, 1);
    let (render, check) = (report(0, 18, 0, 0, 2), report(0, 17, 1, 0, 0));
    let phases = PhasesReport { fetch, render, check, send: PhaseReport::default() };
    assert_eq!(gated.report().phases, phases);
    // Two of three letters are made again, and the check too.
    gated.redrive_some("1").await;
    gated.work(good).await;
    let (render, check) = (report(0, 19, 0, 0, 2), report(0, 18, 1, 1, 0));
    assert_eq!(gated.report().phases, PhasesReport { render, check, ..phases });
    gated.decide(Decision::Release).await;
    let end = |user: &str| match user {
        "7" => End::Changed,
        "5" => End::Pages(11),
        _ => End::Pages(2),
    };
    gated.work(end).await;
    let send = report(0, 18, 0, 0, 1);
    assert_eq!(gated.report().phases, PhasesReport { render, check, send, ..phases });
    // A letter of before the release is made and mailed in one go.
    gated.redrive_some("2").await;
    assert_eq!(gated.work(good).await, ["2".to_owned()].into());
    let (render, send) = (report(0, 20, 0, 0, 2), report(0, 19, 0, 0, 1));
    assert_eq!(gated.report().phases, PhasesReport { render, check, send, ..phases });
}

#[tokio::test]
async fn an_automatic_gate_lets_a_run_go_when_nothing_is_found() {
    let gated = Gated::of(AUTO, 25).await;
    assert_eq!(gated.work(good).await, ids(0..25));
    let report = gated.report();
    let gate = report.gate.unwrap();
    assert_eq!((report.state, gate.mode, gate.findings), (RunState::Complete, None, Vec::new()));
}

#[tokio::test]
async fn an_automatic_gate_waits_with_every_reason_and_a_redrive_of_what_failed_lets_it_go() {
    let gated = Gated::of(AUTO, 20).await;
    let end = |user: &str| match user {
        "1" | "2" | "3" => End::Dead,
        "4" => End::Pages(11),
        "5" | "6" => End::Pages(60),
        _ => End::Empty,
    };
    assert_eq!(gated.work(end).await, BTreeSet::new());
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 17, 17));
    let found = [
        "3 statements over checks.pages_max or checks.size_max (`run recipients --reason checks.`)",
        "3 of 20 recipients are dead (15%, checks.failures is 10%)",
        "14 of 17 statements have no transactions (82.35%, checks.empty is 50%)",
    ];
    assert_eq!(gated.gate().findings, found);
    assert_eq!(gated.because(), format!("17 statements to send, and the checks found: {}", found.join("; ")));
    let filter = Filter { reason: Some("checks.".into()), ..Filter::default() };
    let rows = report::rows(&gated.0.world.snapshot(), gated.0.run, &filter, None).unwrap();
    let reasons: BTreeSet<String> = rows.into_iter().filter_map(|row| row.reason).collect();
    let expected = ["11 pages, and checks.pages_max is 10", "60 pages, and checks.pages_max is 10"];
    assert_eq!(reasons, expected.map(str::to_owned).into());

    let gated = Gated::of(AUTO, 20).await;
    let end = |user: &str| if user.parse::<u32>().unwrap() < 3 { End::Dead } else { End::Pages(2) };
    gated.work(end).await;
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 17, 17));
    gated.redrive().await;
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 20, 17), "nothing is mailed while some are made again");
    assert_eq!(gated.work(good).await, ids(0..20));
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn a_run_is_compared_with_the_previous_one_that_was_let_go() {
    let first = Gated::of(AUTO, 20).await;
    first.work(good).await;
    let next = first.next("2026-11", AUTO, 24, good).await;
    assert_eq!(next.report().state, RunState::Complete, "a fifth more is within the limits");
    let before = next.0.run;
    let next = next.next("2026-12", AUTO, 24, |_| End::Pages(3)).await;
    let found = [
        format!("300 pages in 100 statements, 200 in run {before} (checks.deviation is 25%)"),
        format!("300 bytes a statement, 200 in run {before} (checks.deviation is 25%)"),
    ];
    assert_eq!((next.report().state, next.gate().findings), (RunState::AwaitingRelease, found.to_vec()));
    next.decide(Decision::Abandon).await;
    next.0.work_off().await;
    let end = |user: &str| if user.parse::<u32>().unwrap() % 3 == 0 { End::Empty } else { End::Pages(2) };
    let next = next.next("2027-01", AUTO, 16, end).await;
    let found = next.gate().findings.join("\n");
    assert!(found.contains(&format!("16 statements, 24 in run {before} ")), "{found}");
    assert!(found.contains(&format!("37.5% have no transactions, 0% in run {before} ")), "{found}");
}

#[tokio::test]
async fn a_guard_comes_first_and_its_release_has_the_statements_made() {
    let gated = Gated::new(MANUAL, Some(Guard { users_min: 100, deviation: None })).await;
    gated.fetch(25).await;
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 25, 0));
    assert_eq!(gated.because(), "25 users fetched, but users.min is 100");
    assert!(gated.report().remedy().contains("has its statements made"), "{}", gated.report().remedy());
    assert_eq!(gated.work(good).await, BTreeSet::new());
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 25, 0));
    gated.decide(Decision::Release).await;
    assert_eq!((gated.figures(), gated.work(good).await), ((RunState::Rendering, 25, 0), BTreeSet::new()));
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 25, 25));
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await.len(), 25);
}

#[tokio::test]
async fn a_stop_while_statements_are_made_keeps_what_is_made_and_the_resumption_makes_the_rest() {
    let gated = Gated::of(MANUAL, 25).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    for message in &messages[..4] {
        gated.attempt(message, End::Pages(2)).await;
    }
    let begun: Vec<_> = messages[4..].iter().map(|message| (message, gated.begin(message))).collect();
    gated.decide(Decision::Stop).await;
    assert_eq!(gated.figures(), (RunState::Stopped, 25, 4));
    // Those that were begun end, and count.
    for (message, effects) in begun {
        let intended = effects.intend(gated.intent(&user_of(message))).await.unwrap();
        assert_eq!(intended, Permission::Held, "nothing could be mailed all the same");
        gated.settle(effects, message, Ending::Rendered(document(2))).await;
    }
    gated.0.work_off().await;
    assert_eq!((gated.figures(), gated.dump()), ((RunState::Stopped, 25, 10), 0));
    gated.decide(Decision::Resume).await;
    assert_eq!(gated.figures(), (RunState::Rendering, 25, 10));
    assert_eq!(gated.work(good).await, BTreeSet::new());
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 25, 25));
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await, ids(0..25));
}

#[tokio::test]
async fn a_resumption_of_a_run_whose_last_statements_were_made_after_its_stop_is_checked_at_once() {
    let gated = Gated::of(AUTO, 5).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    let begun: Vec<_> = messages.iter().map(|message| (message, gated.begin(message))).collect();
    gated.decide(Decision::Stop).await;
    for (message, effects) in begun {
        gated.settle(effects, message, Ending::Rendered(document(2))).await;
    }
    assert_eq!(gated.figures(), (RunState::Stopped, 5, 5));
    gated.decide(Decision::Resume).await;
    assert_eq!(gated.report().state, RunState::Sending);
    assert_eq!(gated.work(good).await, ids(0..5));
}

#[tokio::test]
async fn an_abandoned_run_mails_nobody_whether_its_statements_are_made_or_not() {
    for made in [0, 6, 25] {
        let gated = Gated::of(MANUAL, 25).await;
        gated.0.work_off().await;
        let mut done = 0;
        while done < made {
            for message in gated.0.receive("users").await {
                if done < made {
                    gated.attempt(&message, End::Pages(2)).await;
                    done += 1;
                } else {
                    let handle = message.handle;
                    gated.0.queues.store().write(move |tx: &mut Tx<'_>| settle::release(tx, handle)).await.unwrap();
                }
            }
        }
        gated.decide(Decision::Abandon).await;
        assert_eq!(gated.work(good).await, BTreeSet::new());
        let report = gated.report();
        assert_eq!((report.state, report.withdrawn, gated.dump()), (RunState::Abandoned, 25, 0));
    }
}

#[tokio::test]
async fn a_run_of_which_no_statement_can_be_made_waits_and_its_letters_are_made_again_not_mailed() {
    for gate in [MANUAL, AUTO] {
        let gated = Gated::of(gate, 5).await;
        gated.work(|_| End::Dead).await;
        assert_eq!(gated.figures(), (RunState::AwaitingRelease, 0, 0));
        gated.redrive().await;
        let mailed = gated.work(good).await;
        let is_auto = gate.mode == GateMode::Auto;
        assert_eq!(mailed.len(), if is_auto { 5 } else { 0 });
        let state = if is_auto { RunState::Complete } else { RunState::AwaitingRelease };
        assert_eq!(gated.report().state, state);
    }
}

#[tokio::test]
async fn a_brake_stops_the_making_of_statements_and_a_resumption_goes_on_behind_the_gate() {
    let gated = Gated::new(MANUAL, None).await;
    let (run, limit) = (gated.0.run, BrakeLimit { share: 1000, of: 20 });
    let brake = move |tx: &mut Tx<'_>| {
        let mut control = tx.run_controls()?.get(&run)?.unwrap();
        control.brake = Some(Brake { limit, from: 0, failures: 0 });
        tx.run_controls()?.insert(&run, &control)
    };
    gated.0.queues.store().write::<_, store::Error, _>(brake).await.unwrap();
    gated.fetch(25).await;
    gated.work(|_| End::Dead).await;
    let report = gated.report();
    // Those that were in work with the one that was one too many end as they end.
    assert_eq!((report.state, report.dead), (RunState::Braked, 10));
    gated.decide(Decision::Resume).await;
    assert_eq!((gated.report().state, gated.work(good).await), (RunState::Rendering, BTreeSet::new()));
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 15, 15));
    gated.decide(Decision::Release).await;
    let mailed = gated.work(good).await;
    let report = gated.report();
    assert_eq!((report.state, mailed.len(), report.dead), (RunState::CompleteWithLetters, 15, 10));
}

#[tokio::test]
async fn a_braked_run_whose_last_attempts_die_is_not_let_go() {
    let gated = Gated::new(AUTO, None).await;
    let (run, limit) = (gated.0.run, BrakeLimit { share: 1000, of: 20 });
    let brake = move |tx: &mut Tx<'_>| {
        let mut control = tx.run_controls()?.get(&run)?.unwrap();
        control.brake = Some(Brake { limit, from: 0, failures: 0 });
        tx.run_controls()?.insert(&run, &control)
    };
    gated.0.queues.store().write::<_, store::Error, _>(brake).await.unwrap();
    gated.fetch(5).await;
    gated.0.work_off().await;
    for message in gated.0.receive("users").await {
        gated.attempt(&message, End::Dead).await;
    }
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 0, 0), "all that were in work have died");
}

#[tokio::test]
async fn a_refetch_makes_and_checks_the_statements_of_those_who_are_new_and_holds_up_nobody_else() {
    let gated = Gated::of(MANUAL, 5).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    let end = |user: &str| if user == "4" { End::Dead } else { End::Pages(2) };
    assert_eq!(gated.work(end).await, ids(0..4));
    let (what, now) =
        (Refetch { run: gated.0.run, queue: "own".into(), guard: None, gate: Some(MANUAL) }, gated.0.world.now());
    gated.0.queues.store().write(move |tx: &mut Tx<'_>| run::refetch(tx, &what, now)).await.unwrap();
    gated.end_fan_out().await;
    gated.fetch(8).await;
    assert_eq!(gated.figures(), (RunState::Rendering, 3, 0));
    gated.redrive().await;
    assert_eq!(gated.work(good).await, ["4".to_owned()].into(), "the letter of before is mailed meanwhile");
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 3, 3));
    let what = Again { run: gated.0.run, users: vec!["5".into()], accounts: Vec::new() };
    let refused = again::resend(&gated.0.queues, &what, "users").await.unwrap_err().to_string();
    assert!(refused.contains("its mail is still to come"), "{refused}");
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await, ids(5..8));
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn a_refetch_that_is_given_up_withdraws_whose_statements_are_made() {
    for decision in [None, Some(Decision::Stop)] {
        let gated = Gated::of(AUTO, 5).await;
        assert_eq!(gated.work(good).await.len(), 5);
        let (what, now) =
            (Refetch { run: gated.0.run, queue: "own".into(), guard: None, gate: Some(MANUAL) }, gated.0.world.now());
        gated.0.queues.store().write(move |tx: &mut Tx<'_>| run::refetch(tx, &what, now)).await.unwrap();
        gated.end_fan_out().await;
        gated.fetch(8).await;
        gated.0.work_off().await;
        let messages = gated.0.receive("users").await;
        gated.attempt(&messages[0], End::Pages(2)).await;
        if let Some(decision) = decision {
            gated.decide(decision).await;
        }
        gated.decide(Decision::AbandonRefetch).await;
        for message in &messages[1..] {
            let handle = message.handle;
            gated.0.queues.store().write(move |tx: &mut Tx<'_>| settle::release(tx, handle)).await.unwrap();
        }
        if decision.is_some() {
            gated.decide(Decision::Resume).await;
        }
        assert_eq!(gated.work(good).await, BTreeSet::new());
        let report = gated.report();
        assert_eq!((report.state, report.withdrawn, gated.dump()), (RunState::Complete, 3, 0));
    }
}

#[tokio::test]
async fn a_changed_statement_is_a_letter_of_its_own_class_until_it_is_accepted() {
    let gated = Gated::of(AUTO, 3).await;
    let end = |user: &str| if user == "1" { End::Changed } else { End::Pages(2) };
    let first = gated.work(|_| End::Pages(2)).await;
    assert_eq!(first.len(), 3, "without a change all are mailed");
    let gated = Gated::of(MANUAL, 3).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(end).await.len(), 2);
    let report = gated.report();
    assert_eq!((report.state, report.dead), (RunState::CompleteWithLetters, 1));
    gated.redrive().await;
    assert_eq!(gated.work(end).await, BTreeSet::new(), "it is compared again");
    let accept = async |user: &str| {
        let what = Accept { run: gated.0.run, users: vec![user.into()], accounts: Vec::new() };
        accept::accept(&gated.0.queues, &what).await
    };
    let refused = accept("0").await.unwrap_err().to_string();
    assert!(refused.contains("is sent, and not dead with `data statement changed`"), "{refused}");
    assert_eq!(accept("1").await, Ok(1));
    assert_eq!(gated.report().gate.unwrap().statements, 2, "what was made then is forgotten");
    gated.redrive().await;
    assert_eq!(gated.work(end).await, ["1".to_owned()].into());
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn records_that_are_no_users_and_people_who_are_erased_hold_no_gate_up() {
    let gated = Gated::new(MANUAL, None).await;
    let run = slices::stored(&gated.0.world, gated.0.run);
    let users = (0..20).map(user).chain([malformed(r#"{"id":"x","name":"Ada"}"#)]);
    slices::commit_whole(&gated.0.world, run, page(users, None)).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    let dir = tempfile::tempdir().unwrap();
    for message in &messages {
        gated.attempt(message, End::Pages(2)).await;
    }
    // One whose statement is made, and one whose is not.
    let made = user_of(&messages[0]);
    let unmade = (0..20).map(|id| id.to_string()).find(|id| messages.iter().all(|message| user_of(message) != *id));
    let unmade = unmade.unwrap();
    for user in [made, unmade] {
        erase::erase(&gated.0.queues, &Erase { user, run: None }, dir.path()).await.unwrap();
    }
    assert_eq!(gated.work(good).await, BTreeSet::new());
    let report = gated.report();
    assert_eq!((report.state, report.open, report.dead, report.withdrawn), (RunState::AwaitingRelease, 18, 1, 2));
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await.len(), 18);
}

#[tokio::test]
async fn a_message_that_was_copied_mails_nobody_before_the_release_and_nobody_twice_after_it() {
    let gated = Gated::of(MANUAL, 3).await;
    gated.0.work_off().await;
    let messages = gated.0.receive("users").await;
    for message in &messages {
        gated.attempt(message, End::Pages(2)).await;
    }
    let body = &messages[0].body;
    let copy = async || {
        gated.0.queues.send("users", nightmail::queue::Send::text(body.to_vec())).await.unwrap();
    };
    assert_eq!(gated.figures(), (RunState::AwaitingRelease, 3, 3));
    copy().await;
    let copied = gated.0.receive("users").await.remove(0);
    let effects = gated.0.effects(&copied);
    assert_eq!(effects.stage(&gated.intent(&user_of(&copied))).unwrap(), Stage::Wait);
    let handle = copied.handle;
    gated.0.queues.store().write(move |tx: &mut Tx<'_>| settle::done(tx, handle)).await.unwrap();
    gated.decide(Decision::Release).await;
    assert_eq!(gated.work(good).await, ids(0..3));
}

#[tokio::test]
async fn a_mail_that_was_begun_before_the_statement_was_made_is_held_when_it_would_be_another_one() {
    let gated = Gated::of(MANUAL, 1).await;
    gated.work(good).await;
    gated.decide(Decision::Release).await;
    gated.0.work_off().await;
    let message = gated.0.receive("users").await.remove(0);
    let other = Intent { document: Some([9; 32]), ..gated.intent("0") };
    let same = Intent { document: Some(document(2).sha256), ..gated.intent("0") };
    let effects = gated.0.effects(&message);
    assert_eq!(effects.intend(other).await.unwrap(), Permission::OtherDocument);
    assert_eq!(effects.intend(same).await.unwrap(), Permission::Granted);
    gated.settle(effects, &message, Ending::Done(DeliveryProof::default())).await;
    assert_eq!(gated.report().state, RunState::Complete);
}

#[tokio::test]
async fn a_letter_that_is_made_again_while_the_run_is_released_is_mailed() {
    let gated = Gated::of(MANUAL, 3).await;
    gated.work(|user| if user == "1" { End::Dead } else { End::Pages(2) }).await;
    gated.redrive().await;
    let message = gated.0.receive("users").await.remove(0);
    let effects = gated.begin(&message);
    gated.decide(Decision::Release).await;
    gated.settle(effects, &message, Ending::Rendered(document(2))).await;
    assert_eq!(gated.work(good).await, ids(0..3));
    assert_eq!(gated.report().state, RunState::Complete);
}
