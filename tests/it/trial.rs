//! Test runs: real documents of some users, to another address or into a directory, and nothing of it in any run's books.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use nightmail::api::control::Request;
use nightmail::base::SystemClock;
use nightmail::daemon::trial::{Choice, Trial, TrialError};
use serde_json::json;

use crate::harness::{Harness, PERIOD, SCHEDULE, until};
use crate::process;

async fn choose(harness: &Harness, choice: Choice) -> Result<Trial, TrialError> {
    let params = BTreeMap::from([("period".to_owned(), PERIOD.to_owned())]);
    Trial::choose(&harness.settings(), &SystemClock::shared(), (SCHEDULE, &params), &choice).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_run_mails_documents_of_some_users_to_the_test_address_alone_and_touches_no_run() {
    const TO: &str = "test@example.test";
    let harness = Harness::with_users(30).await;
    let daemon = harness.daemon().await;
    for round in 1..=2 {
        let trial = choose(&harness, Choice::Sample(5)).await.unwrap();
        assert_eq!(trial.users.iter().map(|user| &user.id).collect::<BTreeSet<_>>().len(), 5);
        for body in trial.messages(TO).unwrap() {
            let request = Request::Send { queue: trial.queue.clone(), body, with: Box::default() };
            daemon.operator.try_ask(request).await.unwrap();
        }
        until("the mails", async || (harness.sink.summary().total == 5 * round).then_some(())).await;
    }
    let records = harness.sink.records();
    assert!(records.iter().all(|record| record.recipient == TO), "{records:?}");
    let ids: BTreeSet<_> = records.iter().filter_map(|record| record.message_id.clone()).collect();
    assert_eq!(ids.len(), 10, "the same user's second test is another mail");
    assert_eq!(daemon.operator.runs().await, []);
    let run = daemon.operator.start().await;
    assert_eq!(daemon.operator.complete(run).await.sent, 30, "and everybody gets the run's own mail");
    let refused = choose(&harness, Choice::Sample(1)).await.unwrap().messages("nowhere").unwrap_err().to_string();
    assert!(refused.starts_with("\"nowhere\" is no mail address: "), "{refused}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_the_documents_of_the_named_users_and_mails_nobody() {
    let harness = Harness::with_users(130).await;
    let ids = [3, 120].map(|index| harness.fixtures().user(index).id);
    let trial = choose(&harness, Choice::Only(ids.to_vec())).await.unwrap();
    assert_eq!(trial.users.iter().map(|user| user.id.clone()).collect::<Vec<_>>(), ids);
    let documents = trial.documents(&harness.settings(), &SystemClock::shared()).await.unwrap();
    assert!(documents.iter().all(|document| document.as_ref().unwrap().starts_with(b"%PDF")));
    assert_eq!(harness.sink.summary().total, 0);
    let missing = choose(&harness, Choice::Only(vec![ids[0].clone(), "nobody".into()])).await.unwrap_err().to_string();
    assert_eq!(missing, "the users API does not name nobody");
    let schedule = ("monthly", &BTreeMap::new());
    let unknown = Trial::choose(&harness.settings(), &SystemClock::shared(), schedule, &Choice::Sample(1)).await;
    assert_eq!(unknown.unwrap_err().to_string(), "schedule \"monthly\" not found (known: monthly-statements)");
}

#[test]
fn run_test_writes_pdfs_that_only_their_owner_may_read_and_says_why_there_is_none() {
    let harness = process::Harness::with_bank(&["--users", "20", "--fail", "20%"]);
    let run = |more: &[&str]| {
        let words = ["run", "test", SCHEDULE, "--param", "period=2026-10", "--sample", "20", "--out", "pdf"];
        harness.run(&[&words[..], more].concat())
    };
    let tested = run(&["--json"]).json();
    let tested = tested.as_array().unwrap();
    assert_eq!(tested.len(), 20);
    let (made, failed): (Vec<_>, Vec<_>) = tested.iter().partition(|one| one["file"].is_string());
    assert_eq!((made.len(), failed.len()), (16, 4), "{tested:?}");
    for one in made {
        let file = harness.dir.path().join(one["file"].as_str().unwrap());
        assert!(std::fs::read(&file).unwrap().starts_with(b"%PDF"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(failed.iter().all(|one| one["reason"].is_string() && one["file"] == json!(null)), "{failed:?}");
    let again = run(&[]);
    assert!(again.code == 1 && again.err.contains("pdf/0001-"), "a file is not overwritten: {again:?}");
    let both = harness.run(&["run", "test", SCHEDULE, "--sample", "1", "--only", "a", "--to", "a@b.test"]);
    assert_eq!(both.code, 64, "{both:?}");
}
