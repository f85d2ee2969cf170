//! A whole run: each user gets one correct statement, faulty accounts get theirs after the fix, and the books balance.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use nightmail::base::{Clock, SystemClock};
use nightmail::store::record::RecipientState;
use nightmail_demo::{bank, fixtures, sink};

use super::document;
use crate::harness::{Harness, PERIOD, assert_recounted, has, period, say, size, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_user_gets_one_right_statement_and_the_faulty_accounts_theirs_after_the_fix() {
    let users = size("NIGHTMAIL_E2E_USERS", 200);
    let options = bank::Options { users, fail_share: 0.04, ..bank::Options::default() };
    let harness =
        Harness::set(options, sink::Options { pdf_dir: Some("pdfs".into()), ..sink::Options::default() }).await;
    let daemon = harness.daemon().await;
    let clock = SystemClock::new();
    let run = daemon.operator.start().await;
    let faulty = u64::from(harness.bank.plan().faulty_accounts());
    let report = daemon.operator.complete(run).await;
    let took = clock.monotonic();
    assert_eq!((report.fetched, report.sent, report.dead), (u64::from(users), u64::from(users) - faulty, faulty));
    assert_eq!(assert_recounted(&daemon.queues, run), report);
    assert_eq!(harness.sink.summary().distinct, report.sent);
    let groups = daemon.operator.dead("statements-dead").await;
    let mut classes: Vec<&str> = groups.iter().map(|group| group.class.as_str()).collect();
    classes.sort_unstable();
    let expected =
        ["data account account-mismatch", "data account balance-mismatch", "http account 404", "http account 500"];
    assert_eq!(classes, expected);

    harness.bank.fix();
    assert_eq!(daemon.operator.redrive("statements-dead").await, faulty);
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.fetched, report.sent), (u64::from(users), u64::from(users)));
    assert_eq!((report.dead, report.withdrawn, report.repeated, report.interrupted), (0, 0, 0, 0));
    assert_eq!(assert_recounted(&daemon.queues, run), report);
    daemon.operator.assert_empty().await;
    harness.assert_one_mail_each(users);
    check_mails(&harness, &daemon.queues, run);
    check_documents(&harness, users).await;
    daemon.stop().await;
    say(format_args!("{users} users: {faulty} died of 4 faults and were mailed after the fix; first pass {took:.2?}"));
}

/// Each mail says who it is for, and the ledger knows its Message-ID and its document.
fn check_mails(harness: &Harness, queues: &nightmail::queue::Queues, run: u64) {
    let mut receipts = BTreeMap::new();
    let snapshot = queues.store().snapshot().unwrap();
    let rows = (run, [0; 16])..=(run, [0xff; 16]);
    let keep = |_, row: nightmail::store::record::RecipientRecord| {
        let RecipientState::Sent(receipt) = row.state else { panic!("{} is not sent", row.user) };
        receipts.insert(row.user, receipt);
        ControlFlow::Continue(())
    };
    snapshot.recipients().unwrap().scan(rows, keep).unwrap();
    for record in harness.sink.records() {
        let id = record.recipient.split('@').next().unwrap();
        let user = harness.fixtures().user(fixtures::user_index(id).unwrap());
        assert_eq!(record.to_name.as_deref(), Some(user.name.as_str()), "{id}");
        assert!(record.subject.unwrap().contains(PERIOD), "{id}");
        let (receipt, pdf) = (&receipts[id], record.pdf.unwrap());
        assert_eq!(receipt.document_sha256.as_deref(), Some(pdf.sha256.as_str()), "{id}: another's document");
        let kept = receipt.message_id.as_deref().map(|id| id.trim_matches(['<', '>']));
        assert_eq!(kept, record.message_id.as_deref(), "{id}");
    }
}

/// Every PDF opens and agrees with the bank; in CI one in ten is also checked by `qpdf`.
async fn check_documents(harness: &Harness, users: u32) {
    let (has_text, has_check) = (has("pdftotext"), has("qpdf"));
    let is_full = users >= 10_000;
    let checks = harness.sink.records().into_iter().map(|record| {
        let id = record.recipient.split('@').next().unwrap().to_owned();
        let index = fixtures::user_index(&id).unwrap();
        let expected = harness.fixtures().expected(index, period());
        let path: PathBuf = harness.dir.path().join("pdfs").join(format!("{}-{}.pdf", record.number, record.recipient));
        tokio::task::spawn_blocking(move || {
            if has_check && (is_full || index.is_multiple_of(10)) {
                document::check_structure(&path);
            }
            if has_text {
                document::check_content(&document::text_of(&path), &expected);
            }
        })
    });
    let mut checks = futures_util::stream::iter(checks).buffer_unordered(3);
    let mut checked = 0;
    while let Some(check) = checks.next().await {
        check.unwrap();
        checked += 1;
    }
    assert_eq!(checked, users);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_for_the_same_period_is_refused_and_names_the_earlier_one() {
    let harness = Harness::with_users(20).await;
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    for _ in 0..2 {
        let refused = daemon.operator.try_start(PERIOD).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("run {run}")) && refused.contains(PERIOD), "{refused}");
        daemon.operator.complete(run).await;
    }
    assert_eq!(daemon.operator.runs().await.len(), 1);
    daemon.operator.assert_empty().await;
    harness.assert_one_mail_each(20);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_bank_never_has_more_attempts_in_hand_than_the_concurrency_allows() {
    let mut harness = Harness::with_users(60).await;
    harness.set_key("FUNCTIONS__STATEMENT__CONCURRENCY", 3);
    harness.bank.set(bank::Route::Account, bank::Behaviour::Silent);
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    until("three attempts", async || (daemon.operator.queue("statements").await.in_flight == 3).then_some(())).await;
    until("all users", async || (daemon.operator.report(run).await.fetched == 60).then_some(())).await;
    tokio::time::timeout(Duration::from_millis(300), async {
        loop {
            assert!(daemon.operator.queue("statements").await.in_flight <= 3);
        }
    })
    .await
    .unwrap_err();
    assert_eq!(harness.bank.counts().transactions, 3);
    harness.bank.set(bank::Route::Account, bank::Behaviour::Normal);
    daemon.operator.complete(run).await;
    harness.assert_one_mail_each(60);
    daemon.stop().await;
}
