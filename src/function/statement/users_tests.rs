//! The users source against a server whose pages lead on, astray and in circles.

use super::*;
use crate::base::{ManualClock, Timestamp};
use crate::function::upstream::stub::{Part, Stub, answer, options as upstream_options};

const USER: &str = r#"{"id":1,"name":"Ada","email":"ada@example.com"}"#;

fn users(url: String) -> Users {
    let options = UsersOptions {
        url,
        upstream: upstream_options(),
        items: None,
        next: None,
        cursor_param: "cursor".into(),
        pages_max: 10,
    };
    Users::new(&options, &["period"], ManualClock::new(Timestamp::ZERO)).unwrap()
}

fn params() -> BTreeMap<String, String> {
    BTreeMap::from([("period".to_owned(), "2026-10".to_owned())])
}

/// Serves each path (with query) from a list; other paths are 404.
async fn serve(pages: &'static [(&'static str, &'static [&'static str], &'static str)]) -> Stub {
    Stub::start(move |_, head| {
        let path = head.split(' ').nth(1).unwrap();
        let whole = match pages.iter().find(|(at, _, _)| *at == path) {
            Some((_, headers, body)) => answer("200 OK", headers, &body.replace("USER", USER)),
            None => answer("404 Not Found", &[], path),
        };
        vec![Part::Bytes(whole.into_bytes())]
    })
    .await
}

/// Follows the pages to their end; the addresses on the way.
async fn walk(users: &Users) -> Result<Vec<PageAddress>, Fault> {
    let (mut address, mut way) = (PageAddress::First, Vec::new());
    loop {
        let page = users.page(&address, &params(), &mut Vec::new()).await?;
        assert!(way.len() < 1000, "the pages never end: {address:?}");
        way.extend(page.records.iter().map(|_| address.clone()));
        let Some(next) = page.next else { return Ok(way) };
        // The cursor is stored between pages.
        address = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
    }
}

async fn code(stub: &Stub) -> String {
    let fault = walk(&users(stub.url("/u?m={period}"))).await.unwrap_err();
    assert!(fault.is_permanent(), "{fault:?}");
    fault.failure().class()
}

#[tokio::test]
async fn pages_are_followed_by_link_header_body_link_and_cursor() {
    let stub = serve(&[
        ("/u?m=2026-10", &["Link: </u/2>; rel=next"], r#"{"users":[USER],"next":"https://evil/"}"#),
        ("/u/2", &[], r#"{"data":[USER],"links":{"next":"?p=3"}}"#),
        ("/u/2?p=3", &[], r#"{"data":[USER],"next_cursor":"a&b=1"}"#),
        ("/u?m=2026-10&cursor=a%26b%3D1", &[], "[USER]"),
    ])
    .await;
    let way = walk(&users(stub.url("/u?m={period}"))).await.unwrap();
    let expected = [
        PageAddress::First,
        PageAddress::Url(stub.url("/u/2")),
        PageAddress::Url(stub.url("/u/2?p=3")),
        PageAddress::Cursor("a&b=1".into()),
    ];
    assert_eq!(way, expected);
}

#[tokio::test]
async fn a_next_page_elsewhere_is_refused_and_not_called() {
    for (next, code_expected) in [
        ("https://127.0.0.1/steal", "data users foreign-origin"),
        ("//169.254.169.254/latest/meta-data", "data users foreign-origin"),
        ("http://127.0.0.1:1/", "data users foreign-origin"),
        ("file:///etc/passwd", "data users foreign-origin"),
        ("http://[", "data users malformed"),
    ] {
        let body = format!(r#"{{"users":[],"next":"{next}"}}"#);
        let stub = Stub::always(answer("200 OK", &[], &body)).await;
        assert_eq!(code(&stub).await, code_expected, "{next}");
        assert_eq!(stub.requests().len(), 1);
    }
    let stub = serve(&[]).await;
    let stored = PageAddress::Url("http://127.0.0.1:1/x".into());
    let fault = users(stub.url("/u")).page(&stored, &params(), &mut Vec::new()).await.unwrap_err();
    assert_eq!(fault.failure().code, "foreign-origin");
}

#[tokio::test]
async fn a_page_that_leads_to_itself_is_a_loop() {
    for body in [r#"{"users":[],"next":"/u?m=2026-10"}"#, r#"{"users":[],"next_cursor":"c1"}"#] {
        let stub = Stub::always(answer("200 OK", &[], body)).await;
        assert_eq!(code(&stub).await, "data users loop", "{body}");
    }
}

#[tokio::test]
async fn an_overlong_cursor_is_refused() {
    let body = format!(r#"{{"users":[],"next":"{}"}}"#, "c".repeat(PAGE_ADDRESS_BYTES_MAX + 1));
    assert_eq!(code(&Stub::always(answer("200 OK", &[], &body)).await).await, "data users cursor-too-long");
}

#[tokio::test]
async fn faults_of_the_call_come_through_and_a_missing_parameter_is_permanent() {
    let stub = serve(&[]).await;
    assert_eq!(code(&stub).await, "http users 404");
    let fault = users(stub.url("/u?m={period}"))
        .page(&PageAddress::First, &BTreeMap::new(), &mut Vec::new())
        .await
        .unwrap_err();
    assert_eq!((fault.failure().class().as_str(), fault.is_permanent()), ("data users address-value", true));
}
