//! One HTTP request: its limits, its protocol, and the answer in the same protocol.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, http};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::access::{self, Caller};
use super::action::{self, Input};
use super::call::Call;
use super::error::{Code, Error};
use super::{Access, Service, browser, json, query, xml};

/// The largest body: a batch of 1 MiB whose every byte is escaped.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// A request's body must come within this time.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A request's protocol, and with it its answer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// AWS JSON 1.0.
    Json,
    /// Query, whose answers are XML.
    Query,
}

/// Answers one request.
pub(super) async fn answer(
    service: Service,
    connection: Arc<TcpStream>,
    shutdown: CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let protocol = match request.headers().contains_key(json::TARGET) {
        true => Protocol::Json,
        false => Protocol::Query,
    };
    let id = Uuid::new_v4().to_string();
    let response = match perform(service, connection, shutdown, request).await {
        Ok((action, body)) => response(StatusCode::OK, protocol, &id, encode(protocol, action, &id, body)),
        Err(error) => refusal(&error, protocol, &id),
    };
    Ok(response)
}

/// Reads the request and executes its action; returns the answer's parameters.
async fn perform(
    service: Service,
    connection: Arc<TcpStream>,
    shutdown: CancellationToken,
    request: Request<Incoming>,
) -> Result<(&'static str, action::Output), Error> {
    // Boxed: while its action runs, a long poll say, a request takes no room for what reading it took.
    let Read { caller, action, input, base, path, room: _room } = Box::pin(read(&service, request)).await?;
    let call = Call { service: &service, action: &action, caller, base, path, connection, shutdown };
    action::perform(&action, input, &call).await
}

/// What is left of a request once it is read and its sender is known. Its header is not: a long poll would hold the
/// connection's read buffer with it.
struct Read<'a> {
    caller: Caller<'a>,
    action: String,
    input: Input,
    /// What the URLs of the answer begin with.
    base: String,
    path: String,
    /// The room that its body takes among those of all requests.
    room: Vec<OwnedSemaphorePermit>,
}

async fn read(service: &Service, request: Request<Incoming>) -> Result<Read<'_>, Error> {
    let (head, body) = request.into_parts();
    browser::check(service.options(), &head.headers)?;
    // Before the body, so that strangers cannot fill the memory with it.
    let claim = match &service.options().access {
        Access::Anyone => None,
        Access::Keys(keys) => Some(access::claim(&head, keys, service.queues().now().wall)?),
    };
    let (body, room) = read_body(service, body).await?;
    if let Some(claim) = &claim {
        claim.verify(&head, &body, service.signing_keys())?;
    }
    let caller = claim.map_or(Caller::Anyone, |claim| Caller::Key(claim.key));
    service.rates().check(&caller)?;
    let (action, input) = input(&head, body)?;
    caller.check_action(&action, service.options())?;
    Ok(Read { caller, action, input, base: base(service, &head), path: head.uri.path().to_owned(), room })
}

/// Reads the body. All bodies together have a limit: one for which there is no room waits until others are
/// through. The permits are what it holds of that room.
async fn read_body(service: &Service, mut body: Incoming) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Error> {
    let reading = async {
        let (mut read, mut held) = (Bytes::new(), Vec::new());
        let mut parts = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Error::new(Code::MalformedInput, "The request's body does not end."))?;
            let Ok(data) = frame.into_data() else { continue };
            if parts.len() + data.len() > BODY_BYTES_MAX {
                let text = format!("The request's body must not have more than {BODY_BYTES_MAX} bytes.");
                return Err(Error::new(Code::RequestEntityTooLarge, text));
            }
            // Taken as it comes, not as it is announced: who only announces a body holds no room.
            let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let room = service.bodies().clone().acquire_many_owned(bytes).await;
            held.push(room.expect("the semaphore is never closed"));
            if parts.is_empty() && body.is_end_stream() {
                // Most bodies come in one piece, which is not copied.
                read = data;
                break;
            }
            parts.extend_from_slice(&data);
        }
        if !parts.is_empty() {
            read = parts.freeze();
        }
        Ok((read, held))
    };
    let slow = || Error::new(Code::MalformedInput, "The request's body came too slowly.");
    tokio::time::timeout(BODY_WITHIN, reading).await.unwrap_or_else(|_| Err(slow()))
}

/// The action's name and its parameters.
fn input(head: &http::request::Parts, body: Bytes) -> Result<(String, Input), Error> {
    if let Some(target) = head.headers.get(json::TARGET) {
        return Ok((json::action(target)?, Input::Json(body)));
    }
    if ![Method::GET, Method::POST].contains(&head.method) {
        let text = format!("The method {} is not answered here; use POST or GET.", head.method);
        return Err(Error::new(Code::InvalidAction, text));
    }
    let parameters = query::parse(head.uri.query().unwrap_or_default().as_bytes(), &body)?;
    let action = parameters.text("Action").ok_or_else(|| Error::missing("Action"))?.to_owned();
    Ok((action, Input::Query(parameters)))
}

/// What the URLs of the answer begin with: as it is configured, else as the client reaches this machine.
fn base(service: &Service, head: &http::request::Parts) -> String {
    if let Some(url) = &service.options().url {
        return url.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let is_protected = service.options().tls.is_some() || text("x-forwarded-proto") == Some("https");
    let scheme = if is_protected { "https" } else { "http" };
    format!("{scheme}://{}", text("host").unwrap_or("localhost"))
}

fn encode(protocol: Protocol, action: &str, id: &str, output: action::Output) -> Vec<u8> {
    match (protocol, output) {
        (_, action::Output::Json(body)) => body,
        (_, action::Output::Query(value)) => xml::answer(action, id, &value),
    }
}

fn refusal(error: &Error, protocol: Protocol, id: &str) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let body = match protocol {
        Protocol::Json => json::refusal(error),
        Protocol::Query => xml::refusal(error, id),
    };
    let mut response = response(status, protocol, id, body);
    let both = format!("{};{}", error.code.query(), error.code.fault());
    if let (Protocol::Json, Ok(both)) = (protocol, HeaderValue::from_str(&both)) {
        response.headers_mut().insert("x-amzn-query-error", both);
    }
    if error.code == Code::RequestEntityTooLarge {
        // What is left of the body is not read.
        response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn response(status: StatusCode, protocol: Protocol, id: &str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = match protocol {
        Protocol::Json => "application/x-amz-json-1.0",
        Protocol::Query => "text/xml",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.extend(HeaderValue::from_str(id).map(|id| (http::HeaderName::from_static("x-amzn-requestid"), id)));
    response
}
