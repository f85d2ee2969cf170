//! Doubts: which recipients are listed because an attempt was cut off and may have mailed, and which are not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nightmail::api::control::{Answer, Request};
use nightmail_demo::bank;
use nightmail_demo::sink::{self, Action, Step};

use crate::harness::{Child, Harness, assert_recounted, until};

const USERS: u32 = 4;
/// The end of a daemon that aborts its attempts, on a busy machine.
const END_MAX: Duration = Duration::from_secs(60);

/// A relay that records each mail at its final dot and does not answer while the flag is set.
async fn silent_after_the_dot(is_silent: &Arc<AtomicBool>) -> Harness {
    let is_silent = is_silent.clone();
    let script: sink::Script = Arc::new(move |_, _, step| match step {
        Step::Dot if is_silent.load(Ordering::SeqCst) => Action::Stall,
        _ => Action::Accept,
    });
    let options = bank::Options { users: USERS, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", USERS);
    harness.set_key("DAEMON__DRAIN", "200ms");
    harness
}

async fn purge(child: &Child, queue: &str) -> u64 {
    match child.operator.try_ask(Request::Purge { queue: queue.into() }).await {
        Ok(Answer::Count(count)) => count,
        other => panic!("{other:?}"),
    }
}

async fn doubted(child: &Child, run: u64) -> BTreeSet<String> {
    child.operator.in_doubt(run).await.into_iter().map(|row| row.user).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_in_the_middle_of_an_attempt_hides_no_doubt() {
    for ending in ["no reply", "drain", "kill"] {
        let mut harness = silent_after_the_dot(&Arc::new(AtomicBool::new(true))).await;
        if ending == "no reply" {
            harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__END_OF_DATA_TIMEOUT", "3s");
        }
        let mut child = harness.child().await;
        let run = child.operator.start().await;
        let mailed = async || (harness.sink.summary().total == u64::from(USERS)).then_some(());
        until("a mail for each, without a reply", mailed).await;
        assert_eq!(purge(&child, "statements").await, u64::from(USERS), "{ending}");
        match ending {
            "no reply" => {
                let ended = async || harness.log().matches("unknown-after-dot").nth(USERS as usize - 1).map(drop);
                until("the end of the attempts", ended).await;
            }
            "drain" => {
                assert!(child.terminate(END_MAX).await.success());
                child = harness.child().await;
            }
            _ => {
                child.kill().await;
                child = harness.child().await;
            }
        }
        let unknown = async || (child.operator.report(run).await.unknown == u64::from(USERS)).then_some(());
        until("doubts", unknown).await;
        assert_eq!(doubted(&child, run).await.len(), USERS as usize, "{ending}");
        let report = child.operator.report(run).await;
        assert_eq!((report.withdrawn, report.interrupted), (0, u64::from(USERS)), "{ending}");
        child.kill().await;
        assert_recounted(&harness.queues(), run);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_has_not_begun_to_mail_mails_nothing_after_a_purge() {
    let harness = silent_after_the_dot(&Arc::new(AtomicBool::new(false))).await;
    harness.bank.set(bank::Route::Account, bank::Behaviour::Silent);
    let child = harness.child().await;
    let run = child.operator.start().await;
    let full = async || (child.operator.queue("statements").await.in_flight == u64::from(USERS)).then_some(());
    until("all in work", full).await;
    assert_eq!(purge(&child, "statements").await, u64::from(USERS));
    // Their calls are tried again within the attempts.
    harness.bank.set(bank::Route::Account, bank::Behaviour::Normal);
    let ended =
        async || harness.log().matches("was taken from this attempt meanwhile").nth(USERS as usize - 1).map(drop);
    until("the end of the attempts", ended).await;
    let report = child.operator.report(run).await;
    assert_eq!((report.sent, report.withdrawn, report.interrupted), (0, u64::from(USERS), 0));
    assert_eq!(harness.sink.summary().total, 0);
    child.kill().await;
    assert_recounted(&harness.queues(), run);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_drain_only_those_are_in_doubt_whose_mail_had_its_final_dot() {
    const EACH: u32 = 3;
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = is_silent.clone();
    // Of three connections one is silent after the dot, one before it and one at the recipient.
    let script: sink::Script = Arc::new(move |connection, _, step| match (connection % 3, step) {
        (0, Step::Dot) | (1, Step::Data) | (2, Step::Rcpt) if silent.load(Ordering::SeqCst) => Action::Stall,
        _ => Action::Accept,
    });
    let users = 3 * EACH;
    let options = bank::Options { users, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", users);
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__RELAY__CONNECTIONS", users);
    harness.set_key("DAEMON__DRAIN", "200ms");
    let child = harness.child().await;
    let run = child.operator.start().await;
    let mailed = async || (harness.sink.summary().total == u64::from(EACH)).then_some(());
    until("a mail without a reply on each third connection", mailed).await;
    let mailed_at_first: BTreeSet<String> = harness.sink.records().into_iter().map(|record| record.recipient).collect();
    let connected = async || (child.operator.report(run).await.fetched == u64::from(users)).then_some(());
    until("all users", connected).await;
    assert!(child.terminate(END_MAX).await.success());

    is_silent.store(false, Ordering::SeqCst);
    let child = harness.child().await;
    let report = child.operator.complete(run).await;
    let each = u64::from(EACH);
    assert_eq!((report.sent, report.unknown, report.interrupted), (u64::from(users) - each, each, each));
    let doubted: BTreeSet<String> =
        doubted(&child, run).await.into_iter().map(|user| format!("{user}@example.test")).collect();
    assert_eq!(doubted, mailed_at_first, "whose mail had its final dot is named, and nobody else");
    harness.assert_one_mail_each(users);
    child.kill().await;
}
