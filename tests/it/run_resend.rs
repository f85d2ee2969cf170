//! Mails that are sent again by hand: whom they go to, how they are stopped, and how a doubt about one is resolved.

use nightmail::function::Permission;
use nightmail::function::statement::{Record, User};
use nightmail::queue::Received;
use nightmail::queue::settle;
use nightmail::run::effects::Ending;
use nightmail::run::report::{self, Filter};
use nightmail::run::{self, Again, Decision, Erase, Resolution, Resolve, RunState, again, erase, resolve};
use nightmail::store::Tx;

use crate::harness::{assert_recounted, messages};
use crate::run_refetch::{Runs, set, user_of};
use crate::slices::{malformed, page, user};
use crate::support::START;

/// A user with that account.
fn with_account(id: &str, account: &str) -> Record {
    let json = format!(r#"{{"id":"{id}","name":"Ada","email":"{account}@example.test","account_id":"{account}"}}"#);
    Record::User(User::check(&json).unwrap())
}

async fn resend(runs: &Runs, user: &str, accounts: &[&str]) -> Result<usize, run::Error> {
    let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
    let what = Again { run: runs.run, users: vec![user.into()], accounts };
    again::resend(&runs.queues, &what, "users").await.map(|resent| resent.len())
}

async fn resolved(runs: &Runs, users: &[&str], resolution: Resolution) -> Result<u64, run::Error> {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    let what = Resolve { run: runs.run, users, resolution, accounts: Vec::new() };
    resolve::resolve(&runs.queues, &what, "users").await
}

/// Ends the attempt on each message that can be received as one whose mail is in doubt.
async fn doubt_all(runs: &Runs) -> Vec<Received> {
    let received = runs.receive("users").await;
    for message in &received {
        let ((effects, permission), handle) = (runs.ask(message).await, message.handle);
        assert_eq!(permission, Permission::Granted);
        let step = move |tx: &mut Tx<'_>| {
            effects.end(tx, Ending::Unknown("no reply".into()), START)?;
            settle::hold(tx, handle)
        };
        runs.queues.store().write(step).await.unwrap();
    }
    received
}

/// The purposes and states of the user's resends.
fn resends(runs: &Runs, user: &str) -> Vec<(String, String)> {
    let filter = Filter { user: Some(user.into()), resent: true, ..Filter::default() };
    let rows = report::rows(&runs.world.snapshot(), runs.run, &filter, None).unwrap();
    rows.into_iter().flat_map(|row| row.resends).map(|resend| (resend.purpose, resend.state)).collect()
}

#[tokio::test]
async fn a_malformed_record_of_the_same_id_is_in_nobodys_way_and_of_two_accounts_only_the_named_one_is_mailed_again() {
    let records =
        [user(1), malformed(r#"{"id":"1"}"#), with_account("2", "a"), with_account("2", "b"), malformed("{}")];
    let runs = Runs::with(page(records, None)).await;
    while let Some(message) = runs.receive("users").await.pop() {
        let (effects, _) = runs.ask_for(&message, account_of(&message)).await;
        runs.end(&message, effects).await;
        runs.world.pass(100);
    }
    assert_eq!(resend(&runs, "1", &[]).await, Ok(1));
    let refused = resend(&runs, "2", &[]).await.unwrap_err().to_string();
    let accounts = refused.split(['(', ')']).nth(1).unwrap_or_default();
    assert!(matches!(accounts, "a, b" | "b, a"), "{refused}");
    assert!(refused.starts_with(&format!("user \"2\" has several accounts in run {} (", runs.run)), "{refused}");
    let refused = resend(&runs, "2", &["c"]).await.unwrap_err().to_string();
    assert!(refused.starts_with("user \"2\" has none of the named accounts in run "), "{refused}");
    assert_eq!(resend(&runs, "2", &["b"]).await, Ok(1));
    let mut mailed: Vec<String> = runs.receive("users").await.iter().map(account_of).collect();
    mailed.sort();
    assert_eq!(mailed, ["1", "b"]);
}

fn account_of(message: &Received) -> String {
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
    body["user"]["account_id"].as_str().map_or_else(|| user_of(message), str::to_owned)
}

#[tokio::test]
async fn a_stop_holds_the_resends_of_a_complete_run_until_it_is_resumed_and_one_without_any_cannot_be_stopped() {
    let runs = Runs::new().await;
    runs.mail_all().await;
    let refused = runs.decide(Decision::Stop).await.unwrap_err().to_string();
    assert!(refused.starts_with(&format!("run {} is complete, so it cannot be stopped (", runs.run)), "{refused}");
    runs.resend("1").await;
    runs.resend("2").await;
    let report = assert_recounted(&runs.queues, runs.run);
    assert_eq!((report.resending, report.state), (2, RunState::Complete));
    let received = runs.receive("users").await;
    let (effects, permission) = runs.ask(&received[0]).await;
    assert_eq!(permission, Permission::Granted);
    runs.end(&received[0], effects).await;
    runs.decide(Decision::Stop).await.unwrap();
    let report = assert_recounted(&runs.queues, runs.run);
    assert_eq!((report.resending, report.state), (1, RunState::Stopped));
    assert_eq!(runs.ask(&received[1]).await.1, Permission::Held);
    runs.world.pass(100);
    runs.work_off().await;
    assert_eq!(runs.receive("users").await, []);
    assert_eq!(messages(&runs.queues, "users").len(), 1, "it waits");
    runs.decide(Decision::Resume).await.unwrap();
    runs.work_off().await;
    runs.world.pass(100);
    assert_eq!(runs.mail_all().await, set(&[&user_of(&received[1])]));
    let report = assert_recounted(&runs.queues, runs.run);
    assert_eq!((report.resending, report.state), (0, RunState::Complete));
}

#[tokio::test]
async fn a_resend_in_doubt_is_counted_and_resolved_as_sent_or_sent_again_under_its_own_purpose() {
    let runs = Runs::new().await;
    runs.mail_all().await;
    for user in ["1", "2"] {
        runs.resend(user).await;
    }
    assert_eq!(doubt_all(&runs).await.len(), 2);
    let report = assert_recounted(&runs.queues, runs.run);
    assert_eq!((report.resends_unknown, report.unknown, report.sent), (2, 0, 20));
    let erase = Erase { user: "1".into(), run: None };
    let refused = erase::erase(&runs.queues, &erase, runs.world.dir.path()).await.unwrap_err().to_string();
    assert!(refused.starts_with("\"1\" is not erased: its mail of run 1 is unknown"), "{refused}");
    let refused = resolved(&runs, &["3"], Resolution::Sent).await.unwrap_err().to_string();
    assert!(refused.starts_with("recipient \"3\" of run 1 is sent, not unknown"), "{refused}");
    assert_eq!(resolved(&runs, &["1"], Resolution::Sent).await, Ok(1));
    let of = |user: &str| resends(&runs, user);
    assert_eq!(of("1"), [("resend-1".to_owned(), "sent".to_owned())]);
    assert_eq!(resolved(&runs, &[], Resolution::Resend).await, Ok(1));
    assert_eq!(of("2"), [("resend-1".to_owned(), "open".to_owned())]);
    assert_eq!(runs.mail_all().await, set(&["2"]));
    assert_eq!(of("2"), [("resend-1".to_owned(), "sent".to_owned())]);
    assert_eq!(of("3"), []);
    let report = assert_recounted(&runs.queues, runs.run);
    assert_eq!((report.resends_unknown, report.resending, report.sent, report.state), (0, 0, 20, RunState::Complete));
    assert_eq!(resolved(&runs, &[], Resolution::Sent).await, Ok(0));
}
