//! Erasing a person: nothing says any more who it was, the books balance, and what is under way is withdrawn or refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nightmail::api::control::{Answer, Failure, Request};
use nightmail::run::erase::ERASED;
use nightmail::run::report::{Filter, Row};
use nightmail::run::{Erase, Erased, Report, Resolution, Resolve};
use nightmail_demo::bank::{Behaviour, Route};
use nightmail_demo::sink::{self, Action, Step};
use nightmail_demo::{Fixtures, bank};

use crate::harness::{Harness, Inner, PERIOD, assert_recounted, assert_sound, until};
use crate::support::files;

/// The person, by number; the others stay.
const PERSON: u32 = 2;

async fn erase(daemon: &Inner, user: &str, run: Option<u64>) -> Result<Erased, Failure> {
    match daemon.operator.try_ask(Request::Erase(Erase { user: user.into(), run })).await? {
        Answer::Erased(erased) => Ok(erased),
        other => panic!("{other:?}"),
    }
}

async fn rows(daemon: &Inner, id: u64) -> Vec<Row> {
    match daemon.operator.try_ask(Request::Recipients { id, filter: Filter::default(), after: None }).await.unwrap() {
        Answer::Recipients(rows) => rows,
        other => panic!("{other:?}"),
    }
}

/// The states of the run's rows, those of erased recipients apart.
async fn states(daemon: &Inner, run: u64) -> (Vec<String>, BTreeMap<String, usize>) {
    let (mut erased, mut others) = (Vec::new(), BTreeMap::new());
    for row in rows(daemon, run).await {
        match row.user.as_str() {
            ERASED => erased.push(row.state),
            _ => *others.entry(row.state).or_default() += 1,
        }
    }
    (erased, others)
}

/// Checks that neither rows, user records nor messages name the person.
async fn assert_forgotten(daemon: &Inner, fixtures: Fixtures, run: u64) -> Report {
    let user = fixtures.user(PERSON);
    let snapshot = daemon.queues.store().snapshot().unwrap();
    let records = snapshot.user_records().unwrap().first((run, [0; 16])..=(run, [0xff; 16]), 1000).unwrap();
    let bodies = snapshot.bodies().unwrap().first(0..=u64::MAX, 1000).unwrap();
    let bodies = bodies.into_iter().map(|(_, body)| String::from_utf8_lossy(&body.bytes).into_owned());
    let said: Vec<String> = records.iter().map(|(_, record)| record.0.clone()).chain(bodies).collect();
    let said = format!("{:?} {said:?}", rows(daemon, run).await);
    for name in [&user.id, &user.email, &user.name] {
        assert!(!said.contains(name.as_str()), "{name} is still in {said}");
    }
    assert_sound(&daemon.queues);
    assert_recounted(&daemon.queues, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_is_in_no_run_and_no_document_any_more_the_books_balance_and_nobody_is_mailed_again() {
    const USERS: u32 = 6;
    let mut harness = Harness::with_users(USERS).await;
    harness.set_key("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let daemon = harness.daemon().await;
    let mut runs = Vec::new();
    for period in ["2026-09", PERIOD] {
        let run = daemon.operator.try_start(period).await.unwrap();
        daemon.operator.complete(run).await;
        runs.push(run);
    }
    let user = harness.fixtures().user(PERSON);
    let archive = harness.dir.path().join("data/archive");
    let names_it =
        |file: &&PathBuf| std::fs::read(file).unwrap().windows(user.email.len()).any(|at| at == user.email.as_bytes());
    assert_eq!((files(&archive).len(), files(&archive).iter().filter(names_it).count()), (24, 2));

    let erased = erase(&daemon, &user.id, Some(runs[0])).await.unwrap();
    assert_eq!(erased, Erased { runs: vec![runs[0]], recipients: 1, messages: 0, documents: 1 });
    assert_eq!(states(&daemon, runs[1]).await.0, Vec::<String>::new(), "only that run");
    let erased = erase(&daemon, &user.id, None).await.unwrap();
    assert_eq!(erased, Erased { runs: vec![runs[1]], recipients: 1, messages: 0, documents: 1 });
    assert_eq!((files(&archive).len(), files(&archive).iter().filter(names_it).count()), (20, 0));
    for run in &runs {
        let report = assert_forgotten(&daemon, harness.fixtures(), *run).await;
        assert_eq!((report.fetched, report.sent), (u64::from(USERS), u64::from(USERS)));
    }
    let again = erase(&daemon, &user.id, None).await.unwrap_err();
    assert!(again.text.starts_with("no run has a recipient"), "{again:?}");

    // The users API names the person again: the key of the row says that the mail was sent.
    let mails = harness.sink.summary().total;
    daemon.operator.try_ask(Request::RefetchRun { id: runs[1] }).await.unwrap();
    let report = daemon.operator.complete(runs[1]).await;
    assert_eq!((report.fetched, report.sent), (u64::from(USERS), u64::from(USERS)));
    assert_eq!(harness.sink.summary().total, mails);
    assert_forgotten(&daemon, harness.fixtures(), runs[1]).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_message_is_withdrawn_first_one_in_work_is_refused() {
    const USERS: u32 = 5;
    let mut harness = Harness::with_users(USERS).await;
    harness.set_key("QUEUES__STATEMENTS__DELAY", "15m");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let all = async || (daemon.operator.queue("statements").await.delayed == u64::from(USERS)).then_some(());
    until("all messages", all).await;
    let user = harness.fixtures().user(PERSON);
    let erased = erase(&daemon, &user.id, None).await.unwrap();
    assert_eq!((erased.recipients, erased.messages), (1, 1));
    assert_eq!(states(&daemon, run).await, (vec!["withdrawn".into()], BTreeMap::from([("open".into(), 4)])));
    let report = assert_forgotten(&daemon, harness.fixtures(), run).await;
    assert_eq!((report.fetched, report.withdrawn, report.open), (5, 1, 4));
    daemon.stop().await;

    let harness = Harness::with_users(USERS).await;
    harness.bank.set(Route::Account, Behaviour::Silent);
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let all = async || (daemon.operator.queue("statements").await.in_flight == u64::from(USERS)).then_some(());
    until("all in work", all).await;
    let refused = erase(&daemon, &user.id, None).await.unwrap_err();
    assert!(refused.text.contains("being sent at this moment"), "{refused:?}");
    assert_eq!(states(&daemon, run).await, (vec![], BTreeMap::from([("open".into(), 5)])));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_withdrawn_with_its_history() {
    const USERS: u32 = 4;
    let harness = Harness::with_users(USERS).await;
    harness.bank.set(Route::Account, Behaviour::Status { status: 404, retry_after: None });
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    daemon.operator.died("statements-dead", u64::from(USERS)).await;
    let erased = erase(&daemon, &harness.fixtures().user(PERSON).id, Some(run)).await.unwrap();
    assert_eq!((erased.recipients, erased.messages), (1, 1));
    let report = assert_forgotten(&daemon, harness.fixtures(), run).await;
    assert_eq!((report.fetched, report.dead, report.withdrawn), (4, 3, 1));
    assert_eq!(daemon.operator.queue("statements-dead").await.total(), 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_in_doubt_is_resolved_before_its_recipient_is_erased() {
    // It is delivered, and nobody here knows.
    let script: sink::Script = Arc::new(|_, _, step| if step == Step::Dot { Action::Close } else { Action::Accept });
    let options = bank::Options { users: 3, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    until("doubts", async || (daemon.operator.report(run).await.unknown == 3).then_some(())).await;
    let user = harness.fixtures().user(PERSON).id;
    let refused = erase(&daemon, &user, None).await.unwrap_err();
    assert!(refused.text.contains(&format!("`nightmail run resolve {run} --recipient {user}`")), "{refused:?}");
    assert_eq!(states(&daemon, run).await.0, Vec::<String>::new());
    let what = Resolve { run, users: vec![user.clone()], resolution: Resolution::Sent, accounts: Vec::new() };
    daemon.operator.try_ask(Request::Resolve(what)).await.unwrap();
    let archive = harness.dir.path().join("data/archive");
    assert_eq!(files(&archive).len(), 6);
    let erased = erase(&daemon, &user, None).await.unwrap();
    assert_eq!((erased.recipients, erased.documents), (1, 1), "although no row has the document's hash");
    assert_eq!(files(&archive).len(), 4);
    assert_forgotten(&daemon, harness.fixtures(), run).await;
    assert_eq!(states(&daemon, run).await, (vec!["sent".into()], BTreeMap::from([("unknown".into(), 2)])));
    daemon.stop().await;
}
