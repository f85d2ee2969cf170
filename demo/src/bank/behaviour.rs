//! How a whole route answers when a test breaks it: with a web page, cut short, endless, slow or with a status.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// The size of [`Behaviour::HugeBody`], in bytes: 500 MB.
pub const HUGE_BODY_BYTES: u64 = 500_000_000;
/// What a huge body is made of.
const FILLER: &[u8; 64 * 1024] = &[b'a'; 64 * 1024];
/// A log-in page, as a proxy answers when a session has ended.
const PAGE: &str = "<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n";

/// How a route group answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Normal,
    /// 200 with a web page.
    Html,
    /// 200 with the first half of the body, as if that were all: a whole answer with broken JSON.
    Truncated,
    /// 200 with the first half of the body, then the connection closes: an answer that does not end.
    Cut,
    /// 200 with a JSON string of [`HUGE_BODY_BYTES`], its length not announced.
    HugeBody,
    /// 200 with the right body, one byte at a time.
    Slow {
        /// The pause before each byte.
        every: Duration,
    },
    /// No answer at all, until the client leaves or the bank stops.
    Silent,
    /// This status with a short JSON body.
    Status {
        /// 200 to 599; anything else becomes 500.
        status: u16,
        /// Sent as `Retry-After`, in whole seconds.
        retry_after: Option<u32>,
    },
}

/// Sends the right answer as `behaviour` wants it sent.
pub(super) async fn answer(behaviour: Behaviour, headers: HeaderMap, body: Bytes, end: &CancellationToken) -> Response {
    let half = body.slice(..body.len() / 2);
    match behaviour {
        Behaviour::Normal => (headers, body).into_response(),
        Behaviour::Html => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE).into_response(),
        Behaviour::Truncated => (headers, half).into_response(),
        Behaviour::Cut => {
            let broken = Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut as asked"));
            (headers, Body::from_stream(stream::iter([Ok(half)]).chain(pause_then(broken)))).into_response()
        }
        Behaviour::HugeBody => (headers, huge(end.clone())).into_response(),
        Behaviour::Slow { every } => (headers, slow(body, every, end.clone())).into_response(),
        Behaviour::Silent => {
            end.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Behaviour::Status { status, retry_after } => refuse(status, retry_after),
    }
}

/// One item after the ones before it had time to be written.
fn pause_then(item: io::Result<Bytes>) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    stream::once(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        item
    })
}

/// A JSON string without an end in sight.
fn huge(end: CancellationToken) -> Body {
    let first = Bytes::from_static(b"{\"users\":[{\"id\":\"");
    let left = HUGE_BODY_BYTES - first.len() as u64;
    let rest = stream::unfold(left, |left| async move {
        let size = left.min(FILLER.len() as u64);
        (size > 0).then(|| (Bytes::from_static(&FILLER[..size as usize]), left - size))
    });
    let body = stream::iter([first]).chain(rest).take_until(end.cancelled_owned());
    Body::from_stream(body.map(Ok::<_, Infallible>))
}

/// The body, one byte after the other.
fn slow(body: Bytes, every: Duration, end: CancellationToken) -> Body {
    let bytes = stream::unfold(0, move |at| {
        let byte = (at < body.len()).then(|| body.slice(at..at + 1));
        async move {
            tokio::time::sleep(every).await;
            byte.map(|byte| (byte, at + 1))
        }
    });
    Body::from_stream(bytes.take_until(end.cancelled_owned()).map(Ok::<_, Infallible>))
}

/// A bare status.
fn refuse(status: u16, retry_after: Option<u32>) -> Response {
    let known = StatusCode::from_u16(status).ok().filter(|status| (200..600).contains(&status.as_u16()));
    let status = known.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(serde_json::json!({ "error": status.as_str() }))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
