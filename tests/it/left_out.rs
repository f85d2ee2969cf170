//! Who gets no mail and is counted all the same: accounts that a rule leaves out, and addresses on the suppression list.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use nightmail::api::control::request::FailureKind;
use nightmail::api::control::{Answer, Request};
use nightmail::run::report::Filter;
use nightmail::run::{Suppression, report};
use nightmail_demo::bank;
use nightmail_demo::fixtures::{user_id, user_index};
use nightmail_demo::sink::{self, Action, Step};
use serde_json::{Value, json};

use crate::harness::{Harness, Operator, PERIOD, assert_recounted, assert_sound, listener};

/// An account API whose accounts are, in turn, usual, without a transaction, with a balance of zero, and both.
async fn quiet_accounts() -> String {
    let account = async |Path(id): Path<String>| -> Json<Value> {
        let (transactions, opening, closing) = match user_index(&id).unwrap() % 4 {
            0 => (json!([{"date": "2026-10-02", "description": "Rent", "amount": "-1.00"}]), "9.00", "8.00"),
            1 => (json!([]), "9.00", "9.00"),
            2 => (json!([{"date": "2026-10-02", "description": "Rent", "amount": "-9.00"}]), "9.00", "0.00"),
            _ => (json!([]), "0.00", "0.00"),
        };
        Json(json!({
            "account": id, "currency": "EUR", "period": PERIOD, "opening_balance": opening,
            "closing_balance": closing, "transactions": transactions,
        }))
    };
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/accounts/{id}", get(account));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/accounts/{{account_id}}")
}

/// How many recipients of the run were left out, by the reason.
async fn reasons(operator: &Operator, run: u64, state: &str) -> BTreeMap<String, usize> {
    let filter = Filter { state: Some(state.into()), ..Filter::default() };
    let Ok(Answer::Recipients(rows)) = operator.try_ask(Request::Recipients { id: run, filter, after: None }).await
    else {
        panic!("no list of recipients");
    };
    let mut reasons = BTreeMap::new();
    for row in rows {
        *reasons.entry(row.reason.unwrap()).or_default() += 1;
    }
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_leaves_accounts_out_and_the_run_counts_them() {
    let (none, zero, both) = ("no transactions", "zero balance", "no transactions and zero balance");
    for (rule, expected) in [
        ("never", vec![]),
        ("no-transactions", vec![(none, 4)]),
        ("zero-balance", vec![(zero, 4)]),
        ("either", vec![(none, 4), (zero, 2)]),
        ("both", vec![(both, 2)]),
    ] {
        let mut harness = Harness::with_users(8).await;
        harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__URL", quiet_accounts().await);
        harness.set_key("FUNCTIONS__STATEMENT__SKIP", rule);
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        let report = daemon.operator.complete(run).await;
        let skipped = expected.iter().map(|(_, count)| *count).sum::<usize>();
        assert_eq!((report.sent, report.skipped), (8 - skipped as u64, skipped as u64), "{rule}");
        assert_eq!(harness.sink.summary().total, report.sent, "{rule}: nobody who was left out was mailed");
        let expected = expected.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        assert_eq!(reasons(&daemon.operator, run, "skipped").await, expected, "{rule}");
        daemon.operator.assert_empty().await;
        assert_recounted(&daemon.queues, run);
        assert_sound(&daemon.queues);
        daemon.stop().await;
    }
}

async fn suppress(operator: &Operator, addresses: &[&str]) -> Result<u64, String> {
    let one = |address: &&str| Suppression { address: (*address).into(), reason: "left the bank".into(), since: None };
    match operator.try_ask(Request::Suppress { what: addresses.iter().map(one).collect() }).await {
        Ok(Answer::Count(added)) => Ok(added),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::Request);
            Err(failure.text)
        }
    }
}

async fn suppressed(operator: &Operator) -> Vec<Suppression> {
    match operator.try_ask(Request::Suppressions { after: None }).await {
        Ok(Answer::Suppressions(rows)) => rows,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suppressed_address_is_not_mailed_by_any_run_until_it_is_off_the_list() {
    let harness = Harness::with_users(5).await;
    let address = harness.fixtures().user(3).email;
    let daemon = harness.daemon().await;
    let loud = address.to_uppercase();
    assert_eq!(suppress(&daemon.operator, &[&loud, "nobody@bank.example"]).await, Ok(2));
    assert_eq!(suppress(&daemon.operator, &[&address]).await, Ok(0), "in whatever case, it is on the list");
    let refused = suppress(&daemon.operator, &["fine@bank.example", "no address"]).await.unwrap_err();
    assert!(refused.contains("\"no address\" is no mail address"), "{refused}");
    assert_eq!(suppressed(&daemon.operator).await.len(), 2, "a refused request adds nothing");
    daemon.stop().await;

    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    assert_eq!((report.sent, report.suppressed), (4, 1), "the list outlives a restart");
    assert_eq!(reasons(&daemon.operator, run, "suppressed").await, BTreeMap::from([("left the bank".to_owned(), 1)]));
    assert_eq!(harness.bank.asked(3), 0, "its account was not even fetched");
    assert_eq!(harness.sink.summary().total, 4);
    assert_recounted(&daemon.queues, run);
    assert_sound(&daemon.queues);
    let removed = daemon.operator.try_ask(Request::Unsuppress { address: address.clone() }).await;
    assert_eq!(removed, Ok(Answer::Count(1)));
    let run = daemon.operator.try_start("2026-09").await.unwrap();
    assert_eq!(daemon.operator.complete(run).await.sent, 5);
    daemon.stop().await;
}

/// A relay that refuses the first recipient with that text.
async fn refusing(text: &'static str, policy: &str) -> Harness {
    let script: sink::Script = Arc::new(move |connection, _, at| match (connection, at) {
        (1, Step::Rcpt) => Action::Reply(550, text.into()),
        _ => Action::Accept,
    });
    let options = bank::Options { users: 1, ..bank::Options::default() };
    let mut harness = Harness::set(options, sink::Options { script: Some(script), ..sink::Options::default() }).await;
    harness.set_key("FUNCTIONS__STATEMENT__MAIL__SUPPRESS_ON", policy);
    harness
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_bounce_suppresses_its_address_where_the_policy_says_so() {
    for (text, policy, is_suppressed) in [
        ("5.1.1 no such user", "hard-bounce", true),
        ("5.1.10 null MX", "hard-bounce", true),
        ("5.1.2 no such domain", "hard-bounce", false),
        ("5.7.1 denied", "hard-bounce", false),
        ("no such user", "hard-bounce", false),
        ("5.1.1 no such user", "never", false),
    ] {
        let harness = refusing(text, policy).await;
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        assert_eq!(daemon.operator.complete(run).await.dead, 1, "{text} {policy}");
        let listed = suppressed(&daemon.operator).await;
        assert_eq!(listed.len(), usize::from(is_suppressed), "{text} {policy}");
        if let [one] = &listed[..] {
            assert_eq!(one.address, harness.fixtures().user(0).email);
            assert!(one.reason.contains(text), "{one:?}");
            daemon.operator.redrive("statements-dead").await;
            assert_eq!(daemon.operator.complete(run).await.suppressed, 1, "a redrive does not mail it");
        } else {
            daemon.operator.redrive("statements-dead").await;
            assert_eq!(daemon.operator.complete(run).await.sent, 1, "{text} {policy}");
        }
        assert_eq!(harness.sink.summary().total, u64::from(!is_suppressed));
        assert_recounted(&daemon.queues, run);
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_given_a_thousand_at_a_time_in_order() {
    let harness = Harness::with_users(1).await;
    let daemon = harness.daemon().await;
    let addresses: Vec<String> = (0..1500).map(|n| format!("{}@Bank.example", user_id(n))).collect();
    let refs: Vec<&str> = addresses.iter().map(String::as_str).collect();
    assert!(
        suppress(&daemon.operator, &refs).await.unwrap_err().contains("1500 addresses in one request, at most 500")
    );
    for some in refs.chunks(500) {
        assert_eq!(suppress(&daemon.operator, some).await, Ok(500));
    }
    let first = suppressed(&daemon.operator).await;
    assert_eq!(first.len(), 1000);
    let after = first.last().map(|last| last.address.clone());
    let Ok(Answer::Suppressions(second)) = daemon.operator.try_ask(Request::Suppressions { after }).await else {
        panic!("no list");
    };
    let found: Vec<_> = first.into_iter().chain(second).map(|one| one.address).collect();
    assert_eq!(found, addresses);
    let run = daemon.operator.start().await;
    assert_eq!(daemon.operator.complete(run).await.suppressed, 0);
    assert_eq!(report::report(&daemon.queues.store().snapshot().unwrap(), run).unwrap().sent, 1);
    daemon.stop().await;
}
