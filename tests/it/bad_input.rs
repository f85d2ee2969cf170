//! Bad input from upstream services: each case ends in a clear error or a correct document, and nothing is
//! lost. Faults of the configuration are tested in the module `config`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use nightmail::base::attempt::AttemptEnd;
use nightmail_demo::bank::{Behaviour, Route};
use nightmail_demo::sink;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::daemon::document;
use crate::harness::{Harness, assert_recounted, has, listener, say, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_users_answer_that_is_no_page_is_a_dead_letter_with_the_reason_and_the_run_goes_on_after_the_fix() {
    let status = |status| Behaviour::Status { status, retry_after: None };
    for (behaviour, class, word) in [
        (Behaviour::Html, "data users html", "HTML"),
        (Behaviour::Truncated, "data users truncated", "end"),
        (status(404), "http users 404", "check users.url"),
        (status(500), "http users 500", "500"),
        (status(204), "data users truncated", ""),
    ] {
        let mut harness = Harness::with_users(20).await;
        harness.set_key("FUNCTIONS__FAN_OUT__USERS__RETRIES", 1);
        harness.bank.set(Route::Users, behaviour);
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        let groups = daemon.operator.died("fan-out-dead", 1).await;
        assert_eq!((groups.len(), groups[0].class.as_str()), (1, class), "{behaviour:?}: {groups:?}");
        assert!(groups[0].sample.contains(word), "{behaviour:?}: {}", groups[0].sample);
        let report = daemon.operator.report(run).await;
        assert_eq!((report.fetched, report.fetched_at), (0, None), "{behaviour:?}");

        harness.bank.set(Route::Users, Behaviour::Normal);
        assert_eq!(daemon.operator.redrive("fan-out-dead").await, 1);
        let report = daemon.operator.complete(run).await;
        assert_eq!((report.fetched, report.sent), (20, 20), "{behaviour:?}");
        harness.assert_one_mail_each(20);
        daemon.operator.assert_empty().await;
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_or_answers_that_break_off_kill_nothing_and_the_run_goes_on_after_the_fix() {
    let refused = Behaviour::Status { status: 401, retry_after: None };
    for (route, queue, behaviour) in [
        (Route::Users, "fan-out", refused),
        (Route::Account, "statements", refused),
        // The only message of its function: what is wrong cannot be told from what it makes the service do, so it is
        // not charged either.
        (Route::Users, "fan-out", Behaviour::Cut),
    ] {
        let mut harness = Harness::with_users(20).await;
        for function in ["FAN_OUT", "STATEMENT"] {
            harness.set_key(&format!("FUNCTIONS__{function}__DEFERRAL_PAUSE"), "50ms");
        }
        harness.bank.set(route, behaviour);
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        let deferred = until("a deferral", async || {
            let waiting = daemon.operator.peek(queue).await;
            waiting.into_iter().find(|message| !message.history.is_empty())
        });
        let message = deferred.await;
        assert!(message.history.iter().all(|attempt| attempt.end == AttemptEnd::Deferred), "{message:?}");
        assert!(message.attempts_charged <= 1, "only the one in hand: {message:?}");
        harness.bank.set(route, Behaviour::Normal);
        assert_eq!(daemon.operator.complete(run).await.sent, 20);
        harness.assert_one_mail_each(20);
        daemon.operator.assert_empty().await;
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_refused_at_its_limit_and_fills_no_memory() {
    for route in [Route::Users, Route::Account] {
        let harness = Harness::with_users(8).await;
        harness.bank.set(route, Behaviour::HugeBody);
        let child = harness.child().await;
        let run = child.operator.start().await;
        let (queue, letters, place) = match route {
            Route::Users => ("fan-out-dead", 1, "users"),
            Route::Account => ("statements-dead", 8, "account"),
        };
        let groups = child.operator.died(queue, letters).await;
        assert_eq!((groups.len(), groups[0].class.as_str()), (1, format!("http {place} too-large").as_str()));
        assert!(groups[0].sample.contains("MiB"), "{}", groups[0].sample);
        let peak = child.peak_mib();
        say(format_args!("500 MB from the {place} route: peak memory of the daemon {peak} MiB"));
        assert!(peak < 256, "{peak} MiB");

        harness.bank.set(route, Behaviour::Normal);
        assert_eq!(child.operator.redrive(queue).await, letters);
        assert_eq!(child.operator.complete(run).await.sent, 8);
        harness.assert_one_mail_each(8);
        child.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_api_that_breaks_for_a_while_loses_nobody() {
    for (behaviour, class) in [(Behaviour::Html, "data account html"), (Behaviour::Truncated, "data account truncated")]
    {
        let harness = Harness::with_users(12).await;
        harness.bank.set(Route::Account, behaviour);
        let daemon = harness.daemon().await;
        let run = daemon.operator.start().await;
        let groups = daemon.operator.died("statements-dead", 12).await;
        assert_eq!((groups.len(), groups[0].class.as_str()), (1, class), "{behaviour:?}: {groups:?}");
        harness.bank.set(Route::Account, Behaviour::Normal);
        daemon.operator.redrive("statements-dead").await;
        assert_eq!(daemon.operator.complete(run).await.sent, 12);
        assert_recounted(&daemon.queues, run);
        harness.assert_one_mail_each(12);
        daemon.stop().await;
    }
}

/// The expected outcome of a recipient.
enum End {
    /// A PDF that contains these words.
    Sent(&'static [&'static str]),
    /// A letter of this class in the statements' dead-letter queue.
    Dead(&'static str),
    /// A letter of this class in the fan-out's dead-letter queue.
    Malformed(&'static str),
}

/// One user, the bank's answer about the account, and how it must end.
struct Case {
    user: Value,
    account: Value,
    end: End,
}

fn user(id: &str, name: &str) -> Value {
    json!({ "id": id, "name": name, "email": format!("{id}@example.test") })
}

fn with(mut value: Value, field: &str, other: Value) -> Value {
    value[field] = other;
    value
}

/// An account with these amounts, whose balances fit.
fn account(id: &str, currency: &str, opening: &str, closing: &str, amounts: &[&str]) -> Value {
    let row = |amount: &&str| json!({ "date": "2026-10-05", "description": "Transfer", "amount": amount });
    let rows: Vec<Value> = amounts.iter().map(row).collect();
    json!({ "account": id, "currency": currency, "period": "2026-10", "opening_balance": opening,
        "closing_balance": closing, "transactions": rows })
}

/// 5,000 transactions of one cent.
fn long_account(id: &str) -> Value {
    account(id, "EUR", "0.00", "50.00", &["0.01"; 5000])
}

fn right_cases() -> Vec<Case> {
    let sent = |user: Value, account: Value, words| Case { user, account, end: End::Sent(words) };
    let plain = |id| account(id, "EUR", "100.00", "87.50", &["-12.50"]);
    vec![
        sent(
            user("none", "Nora Null"),
            account("none", "EUR", "1200.50", "1200.50", &[]),
            &["No transactions in this period", "1,200.50"],
        ),
        sent(user("many", "Max Many"), long_account("many"), &["Max Many", "50.00", "49.99", "Page 1 of"]),
        sent(user("zero", "Yuki Yen"), account("zero", "JPY", "1000", "12345", &["11345"]), &["JPY", "12,345"]),
        sent(user("three", "Dina Dinar"), account("three", "KWD", "1.000", "2.125", &["1.125"]), &["KWD", "2.125"]),
        sent(user("two", "Eva Euro"), plain("two"), &["Eva Euro", "-12.50", "87.50"]),
        sent(user("arabic", "محمد علي"), plain("arabic"), &["arabic", "87.50"]),
        sent(user("hebrew", "דוד כהן"), plain("hebrew"), &["hebrew", "87.50"]),
        sent(user("chinese", "王小明"), plain("chinese"), &["王小明", "87.50"]),
        sent(user("japanese", "山田太郎"), plain("japanese"), &["山田太郎", "87.50"]),
        sent(user("korean", "김철수"), plain("korean"), &["김철수", "87.50"]),
        sent(user("injector", "\"Eve\" <eve@evil.test>, Bcc"), plain("injector"), &["87.50"]),
    ]
}

fn wrong_cases() -> Vec<Case> {
    let malformed = |user: Value, class| Case { user, account: Value::Null, end: End::Malformed(class) };
    let dead = |id: &str, account: Value, class| Case { user: user(id, "Dora Dead"), account, end: End::Dead(class) };
    let plain = |id: &str| account(id, "EUR", "100.00", "87.50", &["-12.50"]);
    vec![
        malformed(user("crlf", "Ada\r\nBcc: victim@example.test"), "data users control-character"),
        malformed(with(user("nul", "Ada"), "email", json!("ada\u{0}@example.test")), "data users control-character"),
        malformed(with(user("at", "Ada"), "email", json!("ada.example.test")), "data users invalid-email"),
        malformed(with(user("two-at", "Ada"), "email", json!("a@b@example.test")), "data users invalid-email"),
        malformed(with(user("list", "Ada"), "email", json!(["ada@example.test"])), "data users invalid-email"),
        malformed(with(user("number", "Ada"), "name", json!(4711)), "data users invalid-name"),
        malformed(with(user("x", "Ada"), "id", json!({ "n": 1 })), "data users invalid-id"),
        malformed(json!(["not", "a", "user"]), "data users malformed"),
        malformed(Value::Null, "data users malformed"),
        dead("no-balance", json!({ "account": "no-balance" }), "data account malformed"),
        dead("amount-list", with(plain("amount-list"), "opening_balance", json!([1])), "data account invalid-amount"),
        dead("rows-text", with(plain("rows-text"), "transactions", json!("none")), "data account malformed"),
        dead("currency", with(plain("currency"), "currency", json!("XYZ")), "data account unknown-currency"),
        dead("decimals", account("decimals", "JPY", "1", "1.5", &["0.5"]), "data account too-many-decimals"),
        dead("sum", with(plain("sum"), "closing_balance", json!("87.49")), "data account balance-mismatch"),
        dead("period", with(plain("period"), "period", json!("2026-09")), "data account period-mismatch"),
        dead("foreign", plain("somebody-else"), "data account account-mismatch"),
    ]
}

/// A test bank with these users and accounts.
async fn desk(cases: &[Case]) -> (String, DropGuard) {
    let mut users: Vec<Value> = cases.iter().map(|case| case.user.clone()).collect();
    // The first three once more, with other names: the first record counts.
    let again: Vec<Value> = users[..3].iter().map(|user| with(user.clone(), "name", json!("Second Record"))).collect();
    users.extend(again);
    let ids = cases.iter().filter_map(|case| case.user["id"].as_str());
    let accounts: BTreeMap<String, Value> = ids
        .map(str::to_owned)
        .zip(cases.iter().filter(|case| case.user["id"].is_string()).map(|case| case.account.clone()))
        .collect();
    let page = json!({ "users": users }).to_string();
    let app = axum::Router::new()
        .route("/users", get(move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], page))))
        .route("/accounts/{id}", get(one_account))
        .with_state(Arc::new(accounts));
    let listener = listener().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let end = CancellationToken::new();
    let server = axum::serve(listener, app).with_graceful_shutdown(end.clone().cancelled_owned());
    tokio::spawn(async move { server.await });
    (url, end.drop_guard())
}

async fn one_account(State(accounts): State<Arc<BTreeMap<String, Value>>>, Path(id): Path<String>) -> Response {
    match accounts.get(&id) {
        Some(account) => ([(header::CONTENT_TYPE, "application/json")], account.to_string()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_odd_user_and_account_ends_in_a_right_document_or_a_clear_error_and_none_is_lost() {
    let cases: Vec<Case> = right_cases().into_iter().chain(wrong_cases()).collect();
    let (url, _desk) = desk(&cases).await;
    let options = sink::Options { pdf_dir: Some("pdfs".into()), ..sink::Options::default() };
    let mut harness = Harness::set(nightmail_demo::bank::Options::default(), options).await;
    harness.set_key("FUNCTIONS__FAN_OUT__USERS__URL", format_args!("{url}/users"));
    harness.set_key("FUNCTIONS__STATEMENT__ACCOUNT__URL", format_args!("{url}/accounts/{{account_id}}"));
    let daemon = harness.daemon().await;
    let run = daemon.operator.start().await;
    let report = daemon.operator.complete(run).await;
    let sent = cases.iter().filter(|case| matches!(case.end, End::Sent(_))).count() as u64;
    assert_eq!((report.fetched, report.sent), (cases.len() as u64, sent), "{report:?}");
    assert_eq!((report.dead, report.repeated), (cases.len() as u64 - sent, 3), "{report:?}");
    assert_eq!(assert_recounted(&daemon.queues, run), report);
    let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for case in &cases {
        match case.end {
            End::Sent(words) => check_mail(&harness, &case.user, words),
            End::Dead(class) => *expected.entry(("statements-dead", class)).or_default() += 1,
            End::Malformed(class) => *expected.entry(("fan-out-dead", class)).or_default() += 1,
        }
    }
    let mut found: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for queue in ["statements-dead", "fan-out-dead"] {
        for group in daemon.operator.dead(queue).await {
            assert!(group.sample.len() > 10, "the reason must say something: {group:?}");
            found.insert((queue, group.class), group.count);
        }
    }
    let expected: BTreeMap<(&str, String), u64> =
        expected.into_iter().map(|((queue, class), count)| ((queue, class.to_owned()), count)).collect();
    assert_eq!(found, expected);
    let summary = harness.sink.summary();
    assert_eq!((summary.total, summary.distinct, summary.violations), (sent, sent, BTreeMap::new()));
    daemon.stop().await;
}

/// One mail to that user, under the first record's name, whose PDF contains the words.
fn check_mail(harness: &Harness, user: &Value, words: &[&str]) {
    let address = user["email"].as_str().unwrap();
    let records = harness.sink.records();
    let mut mails = records.iter().filter(|record| record.recipient == address);
    let (Some(mail), None) = (mails.next(), mails.next()) else { panic!("{address} must have one mail") };
    assert_eq!(mail.to.as_deref(), Some(address));
    assert_eq!(mail.to_name.as_deref(), user["name"].as_str());
    let path = harness.dir.path().join("pdfs").join(format!("{}-{address}.pdf", mail.number));
    if has("qpdf") {
        document::check_structure(&path);
    }
    if has("pdftotext") {
        let text = document::text_of(&path);
        for word in words {
            assert!(
                text.contains(word),
                "{address} must say {word:?}:\n{}",
                &text.chars().take(3000).collect::<String>()
            );
        }
    }
}
