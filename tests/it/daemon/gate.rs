//! A gate end to end: what was made before the release is what is mailed after it, over kills and changes of the data.

use std::collections::BTreeMap;
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail::base::SystemClock;
use nightmail::daemon::trial::{Choice, Trial};
use nightmail::run::report::{Filter, Report, Row};
use nightmail::run::{Accept, Again, Decision, RunState};
use nightmail_demo::bank::{self, Behaviour, Route};
use nightmail_demo::sink;

use crate::harness::{Harness, Inner, Operator, PERIOD, Rng, SCHEDULE, assert_recounted, assert_sound, until};

const GATE: &str = "SCHEDULES__MONTHLY_STATEMENTS__GATE";

async fn harness(users: u32, gate: &str) -> Harness {
    let mut harness = Harness::with_users(users).await;
    harness.set_key(GATE, gate);
    harness
}

async fn waits(operator: &Operator, run: u64) -> Report {
    until("the gate", async || {
        let report = operator.report(run).await;
        (report.state == RunState::AwaitingRelease).then_some(report)
    })
    .await
}

/// The recipients' documents, by user.
async fn documents(daemon: &Inner, run: u64) -> BTreeMap<String, Option<String>> {
    let rows = rows(daemon, run, None).await;
    rows.into_iter().map(|row| (row.user, row.document_sha256)).collect()
}

async fn rows(daemon: &Inner, id: u64, state: Option<&str>) -> Vec<Row> {
    let filter = Filter { state: state.map(str::to_owned), ..Filter::default() };
    match daemon.operator.try_ask(Request::Recipients { id, filter, after: None }).await.unwrap() {
        Answer::Recipients(rows) => rows,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_run_mails_what_was_made_before_its_release_and_nothing_earlier() {
    let harness = harness(30, "manual").await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = waits(&daemon.operator, run).await;
    let gate = report.gate.unwrap();
    assert_eq!((report.open, gate.statements, gate.waiting, gate.findings.len()), (30, 30, 30, 0));
    assert!(gate.pages >= 30 && gate.bytes > 30 * 1024, "{gate:?}");
    let made = documents(&daemon, run).await;
    assert!(made.len() == 30 && made.values().all(Option::is_some));
    assert_eq!((harness.sink.summary().total, daemon.operator.queue("statements").await.total()), (0, 0));
    daemon.operator.decide(run, Decision::Release).await;
    assert_eq!(daemon.operator.complete(run).await.sent, 30);
    assert_eq!(documents(&daemon, run).await, made);
    harness.assert_one_mail_each(30);
    assert_sound(&daemon.queues);
    assert_recounted(&daemon.queues, run);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_changed_after_the_gate_is_never_mailed_before_it_is_accepted() {
    let mut harness = harness(6, "manual").await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    waits(&daemon.operator, run).await;
    daemon.stop().await;
    harness.set_key("FUNCTIONS__STATEMENT__DOCUMENT__ISSUER", "Another Bank");
    let daemon = harness.daemon().await;
    daemon.operator.decide(run, Decision::Release).await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.state, report.dead, harness.sink.summary().total), (RunState::CompleteWithLetters, 6, 0));
    let letters = daemon.operator.letters("statements-dead").await;
    assert!(letters.values().all(|class| class == "data statement changed"), "{letters:?}");
    let reason = rows(&daemon, run, Some("dead")).await.remove(0).reason.unwrap();
    assert!(reason.contains(&format!("`nightmail run accept {run} --recipient ID`")), "{reason}");
    let accepted: Vec<String> = letters.keys().take(2).cloned().collect();
    let order = Request::Accept(Accept { run, users: accepted, accounts: Vec::new() });
    assert_eq!(daemon.operator.try_ask(order).await.unwrap(), Answer::Count(2));
    daemon.operator.redrive("statements-dead").await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.dead, harness.sink.summary().total), (2, 4, 2));
    daemon.stop().await;
    // As it was, the others are mailed too.
    harness.unset_key("FUNCTIONS__STATEMENT__DOCUMENT__ISSUER");
    let daemon = harness.daemon().await;
    daemon.operator.redrive("statements-dead").await;
    assert_eq!(daemon.operator.complete(run).await.sent, 6);
    harness.assert_one_mail_each(6);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_files_the_archived_statement_is_mailed_whatever_the_account_api_says_by_then() {
    let mut harness = harness(6, "manual").await;
    harness.set_key("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    waits(&daemon.operator, run).await;
    let made = documents(&daemon, run).await;
    daemon.stop().await;
    harness.set_key("FUNCTIONS__STATEMENT__DOCUMENT__ISSUER", "Another Bank");
    harness.bank.set(Route::Account, Behaviour::Status { status: 404, retry_after: None });
    let daemon = harness.daemon().await;
    daemon.operator.decide(run, Decision::Release).await;
    assert_eq!(daemon.operator.complete(run).await.sent, 6);
    assert_eq!((documents(&daemon, run).await, harness.bank.asked(0)), (made, 1));
    harness.assert_one_mail_each(6);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automatic_gate_waits_for_accounts_that_fail_and_goes_on_by_itself_once_they_are_redriven() {
    let bank = bank::Options { users: 100, fail_share: 0.1, ..bank::Options::default() };
    let mut harness = Harness::set(bank, sink::Options::default()).await;
    harness.set_key(GATE, "auto");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = waits(&daemon.operator, run).await;
    assert!(report.dead > 1 && report.sent == 0, "{report:?}");
    let because = report.held_because.unwrap();
    assert!(because.contains("recipients are dead") && because.contains("checks.failures is 1%"), "{because}");
    assert_eq!(harness.sink.summary().total, 0);
    harness.bank.fix();
    let (report, _) = daemon.operator.all_sent(run).await;
    assert_eq!((report.state, report.sent), (RunState::Complete, 100));
    harness.assert_one_mail_each(100);
    // The check is made again with each letter that was the last one without a statement.
    let phases = report.phases;
    assert_eq!((phases.fetch.done, phases.send.done, phases.render.done), (100, 100, 100));
    assert!(
        phases.render.dead >= report.gate.unwrap().findings.len() as u64 && phases.check.retried >= 1,
        "{phases:?}"
    );
    assert_eq!((phases.check.done, phases.send.dead), (100, 0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_and_dry_runs_and_resends_know_no_gate() {
    let harness = harness(6, "manual").await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    waits(&daemon.operator, run).await;
    let (settings, clock) = (harness.settings(), SystemClock::shared());
    let params = BTreeMap::from([("period".to_owned(), PERIOD.to_owned())]);
    let trial = Trial::choose(&settings, &clock, (SCHEDULE, &params), &Choice::Sample(2)).await.unwrap();
    assert_eq!(trial.documents(&settings, &clock).await.unwrap().len(), 2);
    for body in trial.messages("test@example.test").unwrap() {
        let request = Request::Send { queue: trial.queue.clone(), body, with: Box::default() };
        daemon.operator.try_ask(request).await.unwrap();
    }
    until("the test's mails", async || (harness.sink.summary().total == 2).then_some(())).await;
    assert!(harness.sink.records().iter().all(|record| record.recipient == "test@example.test"));
    assert_eq!(daemon.operator.report(run).await.open, 6);
    daemon.operator.decide(run, Decision::Release).await;
    daemon.operator.complete(run).await;
    let again = Again { run, users: vec![harness.fixtures().user(0).id], accounts: Vec::new() };
    daemon.operator.try_ask(Request::Resend(again)).await.unwrap();
    until("the resend", async || (harness.sink.summary().total == 9).then_some(())).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gate_the_phases_tell_what_failed_where() {
    let bank = bank::Options { users: 60, fail_share: 0.1, malformed_users: 2, ..bank::Options::default() };
    let harness = Harness::set(bank, sink::Options::default()).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    let (phases, sent, dead) = (report.phases, report.sent, report.dead);
    assert_eq!((phases.fetch.done, phases.fetch.dead, phases.fetch.read), (58, 2, 60));
    assert!(dead > 2 && report.gate.is_none());
    assert_eq!((phases.render.done, phases.render.dead, phases.send.done, phases.send.dead), (sent, dead - 2, sent, 0));
    assert_eq!(phases.check.read, 0);
    harness.bank.fix();
    let (report, _) = daemon.operator.all_sent(run).await;
    assert_eq!((report.phases.fetch.done, report.phases.render.done, report.phases.send.done), (60, 60, 60));
    daemon.stop().await;
}

#[tokio::test]
async fn a_kill_at_any_moment_of_the_making_loses_nobody_and_mails_nobody_before_all_are_made() {
    let mut harness = harness(200, "manual").await;
    harness.set_key("QUEUES__STATEMENTS__MAX_MESSAGES", 60);
    let mut rng = Rng::new();
    let mut child = harness.child().await;
    let run = child.operator.start().await;
    for _ in 0..8 {
        tokio::time::sleep(rng.span(300)).await;
        child.kill().await;
        assert_eq!(harness.sink.summary().total, 0);
        child = harness.child().await;
    }
    let report = waits(&child.operator, run).await;
    assert_eq!((report.fetched, report.open, report.gate.unwrap().waiting), (200, 200, 200));
    assert_eq!(harness.sink.summary().total, 0);
    child.operator.decide(run, Decision::Release).await;
    tokio::time::sleep(rng.span(300)).await;
    child.kill().await;
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    assert_eq!(report.sent + report.unknown, 200, "{report:?}");
    child.terminate(Duration::from_secs(60)).await;
    let queues = harness.queues();
    assert_sound(&queues);
    assert_recounted(&queues, run);
    assert!(harness.sink.summary().doubled.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_made_again_are_what_is_mailed_although_the_old_files_are_in_the_archive() {
    let mut harness = harness(6, "manual").await;
    harness.set_key("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    waits(&daemon.operator, run).await;
    let wrong = documents(&daemon, run).await;
    daemon.stop().await;
    harness.set_key("FUNCTIONS__STATEMENT__DOCUMENT__ISSUER", "Another Bank");
    let daemon = harness.daemon().await;
    daemon.operator.decide(run, Decision::Remake).await;
    assert_eq!(waits(&daemon.operator, run).await.gate.unwrap().waiting, 6);
    let made = documents(&daemon, run).await;
    assert!(made.iter().all(|(user, document)| document.is_some() && wrong[user] != *document));
    daemon.operator.decide(run, Decision::Release).await;
    assert_eq!(daemon.operator.complete(run).await.sent, 6);
    assert_eq!(documents(&daemon, run).await, made);
    harness.assert_one_mail_each(6);
    daemon.stop().await;
}

#[tokio::test]
async fn a_kill_while_statements_are_forgotten_has_all_made_again_and_mails_nobody() {
    let harness = harness(300, "manual").await;
    let mut rng = Rng::new();
    let mut child = harness.child().await;
    let run = child.operator.start().await;
    let before = waits(&child.operator, run).await.phases.render.done;
    child.operator.decide(run, Decision::Remake).await;
    for _ in 0..4 {
        tokio::time::sleep(rng.span(60)).await;
        child.kill().await;
        child = harness.child().await;
    }
    let report = waits(&child.operator, run).await;
    assert!(report.phases.render.done >= before + 300, "each was made twice: {:?}", report.phases);
    assert_eq!((report.open, report.gate.unwrap().waiting, harness.sink.summary().total), (300, 300, 0));
    child.operator.decide(run, Decision::Release).await;
    assert_eq!(child.operator.complete(run).await.sent, 300);
    child.terminate(Duration::from_secs(60)).await;
    let queues = harness.queues();
    assert_sound(&queues);
    assert_recounted(&queues, run);
    harness.assert_one_mail_each(300);
}
