//! Tests of the bank over HTTP: pages, faults, switches.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use axum::http::HeaderMap;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::*;
use crate::fixtures::{Statement, User, user_id};

async fn bank(options: Options) -> (Handle, tokio_util::sync::DropGuard) {
    let shutdown = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (Bank::start(listener, options, shutdown.clone()), shutdown.drop_guard())
}

async fn open(bank: &Handle, method: &str, path: &str, token: &str) -> hyper::Response<Incoming> {
    let socket = TcpStream::connect(bank.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "bank.example.test");
    let request = request.header("authorization", format!("Bearer {token}")).body(Empty::<Bytes>::new()).unwrap();
    sender.send_request(request).await.unwrap()
}

async fn get(bank: &Handle, path: &str) -> (u16, HeaderMap, Bytes) {
    let response = open(bank, "GET", path, "").await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.into_body().collect().await.unwrap().to_bytes())
}

fn ids(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn paging_by_cursor_returns_each_user_once() {
    let (bank, _stop) = bank(Options { users: 1234, page_size: 100, ..Options::default() }).await;
    let (mut seen, mut path, mut pages) = (Vec::new(), "/users?period=2026-10".to_owned(), 0);
    loop {
        let (status, _, body) = get(&bank, &path).await;
        assert_eq!(status, 200);
        let page: Value = serde_json::from_slice(&body).unwrap();
        seen.extend(ids(page["users"].as_array().unwrap()));
        pages += 1;
        assert!(pages <= 13, "the cursor never ends");
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/users?period=2026-10&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..1234).map(user_id).collect::<Vec<_>>());
    assert_eq!((pages, bank.counts().users), (13, 13));
}

#[tokio::test]
async fn paging_by_link_header_returns_each_user_once() {
    let (bank, _stop) = bank(Options { users: 1000, ..Options::default() }).await;
    let (mut seen, mut path) = (Vec::new(), "/users-link?period=2026-10&limit=300".to_owned());
    loop {
        let (_, headers, body) = get(&bank, &path).await;
        seen.extend(ids(&serde_json::from_slice::<Vec<Value>>(&body).unwrap()));
        assert!(seen.len() <= 1000, "the links never end");
        let Some(link) = headers.get("link") else { break };
        let address = link.to_str().unwrap().strip_prefix("<http://bank.example.test").unwrap();
        path = address.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(seen, (0..1000).map(user_id).collect::<Vec<_>>());
    assert_eq!(bank.counts().users_link, 4);
}

#[tokio::test]
async fn json_lines_stream_each_user_once() {
    let (bank, _stop) = bank(Options { users: 1700, ..Options::default() }).await;
    let (_, headers, body) = get(&bank, "/users.jsonl").await;
    assert_eq!(headers["content-type"], "application/x-ndjson");
    let users: Vec<User> = body.split_inclusive(|b| *b == b'\n').map(|l| serde_json::from_slice(l).unwrap()).collect();
    assert_eq!(users, (0..1700).map(|index| bank.fixtures().user(index)).collect::<Vec<_>>());
    let (_, _, body) = get(&bank, "/users.jsonl?limit=3&cursor=after-u-000002").await;
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 3);
}

#[tokio::test]
async fn exactly_the_planned_records_are_malformed_until_fixed() {
    let (bank, _stop) = bank(Options { users: 600, malformed_users: 9, page_size: 600, ..Options::default() }).await;
    let malformed = |body: &Bytes| -> BTreeSet<usize> {
        let page: Value = serde_json::from_slice(body).unwrap();
        let records = page["users"].as_array().unwrap().iter().enumerate();
        let good = |record: &Value| {
            serde_json::from_value::<User>(record.clone())
                .is_ok_and(|user| user.email.contains('@') && !user.name.contains(char::is_control))
        };
        records.filter(|(_, record)| !good(record)).map(|(index, _)| index).collect()
    };
    let planned: BTreeSet<usize> = (0..600).filter(|i| bank.plan().malformed(*i as u32).is_some()).collect();
    assert_eq!(planned.len(), 9);
    assert_eq!(malformed(&get(&bank, "/users").await.2), planned);
    bank.fix();
    assert_eq!(malformed(&get(&bank, "/users").await.2), BTreeSet::new());
}

/// The kind of an account's answer, in one word.
async fn account(bank: &Handle, index: u32) -> &'static str {
    let (status, _, body) = get(bank, &format!("/accounts/{}/transactions?period=2026-10", user_id(index))).await;
    if status != 200 {
        return if status == 404 { "404" } else { "500" };
    }
    let statement: Statement = serde_json::from_slice(&body).unwrap();
    let expected = bank.fixtures().statement(index, "2026-10".parse().unwrap());
    match statement {
        ok if ok == expected => "good",
        other if other.account != expected.account => "other account",
        off if off.closing_balance != expected.closing_balance => "balance",
        _ => "unexpected",
    }
}

#[tokio::test]
async fn exactly_the_planned_accounts_fail_in_four_ways_until_fixed() {
    let options = Options { users: 200, fail_share: 0.06, malformed_users: 5, ..Options::default() };
    let (bank, _stop) = bank(options).await;
    let mut found = BTreeMap::<&str, u32>::new();
    for index in 0..200 {
        let kind = account(&bank, index).await;
        assert_eq!(kind != "good", bank.plan().fault(index).is_some(), "user {index}");
        *found.entry(kind).or_default() += 1;
    }
    assert_eq!(found, BTreeMap::from([("404", 3), ("500", 3), ("balance", 3), ("other account", 3), ("good", 188)]));
    assert_eq!(open(&bank, "POST", "/admin/fix", "").await.status(), 200);
    for index in 0..200 {
        assert_eq!(account(&bank, index).await, "good", "user {index}");
    }
    assert_eq!((bank.counts().transactions, bank.counts().fix), (400, 1));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let (bank, _stop) = bank(Options { users: 10, ..Options::default() }).await;
    for (path, expected) in [
        ("/users?cursor=after-u-000011", 400),
        ("/users?cursor=5", 400),
        ("/users?limit=0", 400),
        ("/users?limit=10001", 400),
        ("/users?period=october", 400),
        ("/accounts/u-000001/transactions", 400),
        ("/accounts/u-000001/transactions?period=2026-13", 400),
        ("/accounts/u-000011/transactions?period=2026-10", 404),
        ("/accounts/..%2F..%2Fadmin/transactions?period=2026-10", 404),
        ("/admin/fix", 405),
        ("/nowhere", 404),
        ("/healthz", 200),
    ] {
        assert_eq!(get(&bank, path).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn without_its_token_only_the_health_is_told() {
    let (bank, _stop) = bank(Options { token: Some("s3cret".into()), ..Options::default() }).await;
    for path in ["/users", "/users.jsonl", "/users-link", "/accounts/u-000001/transactions?period=2026-10", "/x"] {
        assert_eq!(open(&bank, "GET", path, "wrong").await.status(), 401, "{path}");
        assert_ne!(open(&bank, "GET", path, "s3cret").await.status(), 401, "{path}");
    }
    assert_eq!(open(&bank, "POST", "/admin/fix", "").await.status(), 401);
    assert_eq!(get(&bank, "/healthz").await.0, 200);
    assert_eq!(bank.counts().unauthorized, 6);
}

#[tokio::test]
async fn a_route_breaks_as_it_is_told_and_the_other_does_not() {
    let (bank, _stop) = bank(Options::default()).await;
    let path = "/accounts/u-000001/transactions?period=2026-10";
    let (_, _, whole) = get(&bank, path).await;

    bank.set(Route::Account, Behaviour::Html);
    let (status, headers, body) = get(&bank, path).await;
    assert!(status == 200 && headers["content-type"] == "text/html; charset=utf-8" && body.starts_with(b"<!doctype"));
    assert_eq!(get(&bank, "/users").await.1["content-type"], "application/json");

    bank.set(Route::Account, Behaviour::Truncated);
    assert_eq!(get(&bank, path).await.2, whole.slice(..whole.len() / 2));

    bank.set(Route::Account, Behaviour::Cut);
    let cut = open(&bank, "GET", path, "").await;
    assert_eq!(cut.status(), 200);
    assert!(cut.into_body().collect().await.is_err());

    bank.set(Route::Account, Behaviour::Status { status: 503, retry_after: Some(7) });
    let (status, headers, _) = get(&bank, path).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (503, "7"));

    bank.set(Route::Account, Behaviour::Slow { every: Duration::from_micros(10) });
    assert_eq!(get(&bank, path).await.2, whole);

    bank.set(Route::Account, Behaviour::Silent);
    assert!(tokio::time::timeout(Duration::from_millis(100), get(&bank, path)).await.is_err());

    bank.set(Route::Account, Behaviour::Normal);
    assert_eq!(get(&bank, path).await.2, whole);
}

#[tokio::test]
async fn a_huge_body_is_as_long_as_it_says() {
    let (bank, _stop) = bank(Options::default()).await;
    bank.set(Route::Users, Behaviour::HugeBody);
    let response = open(&bank, "GET", "/users", "").await;
    assert!(response.headers().get("content-length").is_none());
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len() as u64;
    }
    assert_eq!(bytes, HUGE_BODY_BYTES);
}

#[tokio::test]
async fn the_latency_delays_an_answer() {
    let (bank, _stop) = bank(Options { latency: Some(Duration::from_secs(60)), ..Options::default() }).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), get(&bank, "/users")).await.is_err());
    assert_eq!(get(&bank, "/healthz").await.0, 200);
}

#[tokio::test]
async fn a_shutdown_ends_the_server_in_spite_of_open_answers() {
    let (bank, stop) = bank(Options::default()).await;
    bank.set(Route::Users, Behaviour::Slow { every: Duration::from_secs(3600) });
    let response = open(&bank, "GET", "/users", "").await;
    drop(stop);
    tokio::time::timeout(Duration::from_secs(5), bank.stopped()).await.unwrap();
    drop(response);
    assert!(TcpStream::connect(bank.address()).await.is_err());
}
