//! One HTTP client for one of the team's services: connects, reads a bounded body, retries and classifies failures.
//!
//! Must not know what the responses mean. Secrets go into requests only, never into an error, a log line or `Debug`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LINK, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::fault::RetryAfter;
use super::{Fault, Options, link};
use crate::base::{Backoff, Clock, Contact, Destination, Failure, Verdict, units};
use crate::function::silence::{Silences, Wait};
use crate::function::unreachable::{self, Keys, Unreachable};
use crate::function::{Error, tls};

/// At most this much of an error response is read, for its excerpt.
const EXCERPT_BYTES_MAX: usize = 2048;
/// The excerpt of an error response has at most this many characters.
const EXCERPT_CHARS_MAX: usize = 200;
/// Reading the excerpt takes at most this long.
const EXCERPT_TIMEOUT: Duration = Duration::from_secs(1);
/// At most this many idle connections are kept.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// An idle connection is kept this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls one service. Cheap to share by reference; holds the service's connections.
pub struct Client {
    http: reqwest::Client,
    response_bytes_max: u64,
    timeout: Duration,
    retries: u32,
    backoff: Backoff,
    /// What is called, for the contacts.
    destination: Destination,
    clock: Arc<dyn Clock>,
    /// The calls that wait for the service.
    silences: Arc<Silences>,
    /// Secrets that must not appear in an excerpt when the service echoes them.
    secrets: Vec<SecretString>,
}

/// A successful response (2xx), read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body, at most `response_bytes_max` bytes.
    pub body: Bytes,
    /// The raw target of the `Link` header with `rel="next"`: it may be relative or of another origin.
    pub link_next: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// Whether the status is 204 (No Content).
    pub is_no_content: bool,
}

impl Client {
    /// Builds the client with every limit set: time-outs, body size, no redirects, no proxy from the environment. The
    /// clock measures a `Retry-After` that is a date.
    ///
    /// # Errors
    /// [`Error`] when the token or a header cannot be sent or TLS cannot be set up.
    pub fn new(options: &Options, destination: Destination, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut config = tls::client_config()?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .default_headers(headers(options)?)
            .user_agent(concat!("nightmail/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect_limit(options))
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|e| Error::Http(e.without_url().to_string()))?;
        Ok(Self {
            http,
            response_bytes_max: options.response_bytes_max,
            timeout: options.timeout,
            retries: options.retries,
            backoff: options.backoff,
            destination,
            silences: Silences::new(Arc::clone(&clock)),
            clock,
            secrets: options.token.iter().chain(options.headers.iter().map(|(_, value)| value)).cloned().collect(),
        })
    }

    /// Gets `url`; temporary faults are retried within this call as the options say. `place` names the service in
    /// failures: `users`, `account`. What the last try says about the service is added to `contacts`.
    ///
    /// # Errors
    /// [`Fault`]: no response, a response that is not 2xx, or one that is too large.
    pub async fn get(&self, url: &Url, place: &str, contacts: &mut Vec<Contact>) -> Result<Answer, Fault> {
        let answer = self.try_repeatedly(Call { url, place, method: "GET" }).await;
        let verdict = match &answer {
            Ok(_) => Some(Verdict::Answered),
            Err(fault) => fault.verdict().cloned(),
        };
        if let Some(verdict) = verdict {
            Contact { destination: self.destination.clone(), verdict }.add_to(contacts);
        }
        answer
    }

    /// Posts JSON, once; `key` lets the receiver know a repetition (the header `Idempotency-Key`). The body of the answer is
    /// not read.
    ///
    /// # Errors
    /// [`Fault`]: no response, or one that is not 2xx.
    pub async fn post(&self, url: &Url, place: &str, json: String, key: &str) -> Result<(), Fault> {
        let call = Call { url, place, method: "POST" };
        let request =
            self.http.post(url.clone()).header(CONTENT_TYPE, "application/json").header("idempotency-key", key);
        let response = request.body(json).send().await.map_err(|e| call.broken(&e, self.timeout))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(call, response).await) }
    }

    /// What is called.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// How long the service has been silent in the call that has waited longest; `None` without a call.
    pub fn longest_silence(&self) -> Option<Duration> {
        self.silences.longest()
    }

    async fn try_repeatedly(&self, call: Call<'_>) -> Result<Answer, Fault> {
        let mut failures = 0;
        loop {
            let fault = match self.try_once(call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            failures += 1;
            if failures > self.retries || !fault.is_temporary() {
                return Err(fault);
            }
            tokio::time::sleep(self.backoff.wait(failures, rand::random())).await;
        }
    }

    async fn try_once(&self, call: Call<'_>) -> Result<Answer, Fault> {
        let wait = self.silences.begin();
        let sent = self.http.get(call.url.clone()).send().await;
        let mut response = sent.map_err(|e| call.broken(&e, self.timeout))?;
        if !response.status().is_success() {
            return Err(self.refused(call, response).await);
        }
        if let Some(encoding) = header(&response, &CONTENT_ENCODING).filter(|e| !e.eq_ignore_ascii_case("identity")) {
            let text = format!("the answer is compressed ({encoding}), which was not asked for: send it as it is");
            return Err(Fault::permanent(call.failure("encoding", text)).with(Verdict::Answered));
        }
        let link_next = response.headers().get_all(LINK).iter().find_map(|value| link::next(value.to_str().ok()?));
        let content_type = header(&response, &CONTENT_TYPE);
        let is_no_content = response.status() == StatusCode::NO_CONTENT;
        let body = self.read(call, &mut response, &wait).await?;
        Ok(Answer { body, link_next, content_type, is_no_content })
    }

    /// Reads the body chunk by chunk, so that never more than the limit and one chunk are held.
    async fn read(&self, call: Call<'_>, response: &mut Response, wait: &Wait) -> Result<Bytes, Fault> {
        let announced = response.content_length().unwrap_or(0);
        if announced > self.response_bytes_max {
            return Err(call.too_large(self.response_bytes_max));
        }
        let mut body = BytesMut::with_capacity(usize::try_from(announced.min(1 << 20)).unwrap_or(0));
        while let Some(chunk) = response.chunk().await.map_err(|e| call.broken(&e, self.timeout))? {
            if (body.len() + chunk.len()) as u64 > self.response_bytes_max {
                return Err(call.too_large(self.response_bytes_max));
            }
            body.extend_from_slice(&chunk);
            wait.restart();
        }
        Ok(body.freeze())
    }

    /// Classifies a response that is not 2xx.
    async fn refused(&self, call: Call<'_>, response: Response) -> Fault {
        let status = response.status();
        let retry_after = header(&response, &RETRY_AFTER).as_deref().and_then(RetryAfter::parse);
        let retry_after = retry_after.map(|asked| asked.wait(self.clock.wall()));
        if status.is_redirection() {
            let text = format!(
                "answered {status}, a redirect, and none is followed (set {}.url to the final address)",
                call.place
            );
            return Fault::permanent(call.failure("redirect", text)).with(Verdict::Answered);
        }
        let excerpt = self.excerpt(response).await;
        let failure =
            call.failure(status.as_str(), format!("answered {status}{excerpt}{}", remedy(status, call.place)));
        match status {
            StatusCode::TOO_MANY_REQUESTS => Fault::throttled(failure, retry_after),
            StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => Fault::throttled(failure, retry_after),
            // As permanent faults, a token that ran out would kill every message of a run.
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Fault::unauthorized(failure),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Fault::temporary(failure).with(Verdict::Answered),
            status if status.is_server_error() => Fault::temporary(failure).with(Verdict::ServerError),
            _ => Fault::permanent(failure).with(Verdict::Answered),
        }
    }

    /// The beginning of an error response as one line, without our own secrets.
    async fn excerpt(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk[..chunk.len().min(EXCERPT_BYTES_MAX - body.len())]);
                if body.len() == EXCERPT_BYTES_MAX {
                    break;
                }
            }
        };
        // An excerpt needs no whole body: what was read within the time limit is enough.
        let _ = tokio::time::timeout(EXCERPT_TIMEOUT, reading).await;
        let mut text = String::from_utf8_lossy(&body).into_owned();
        for secret in self.secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "[secret]");
        }
        let text: String =
            text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(EXCERPT_CHARS_MAX).collect();
        if text.is_empty() { text } else { format!("; its body begins: {text}") }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("response_bytes_max", &self.response_bytes_max).finish_non_exhaustive()
    }
}

/// How long a connection may take: less than the whole call, so that a service without a connection is told from one
/// that is silent.
fn connect_limit(options: &Options) -> Duration {
    options.connect_timeout.min(options.timeout * 9 / 10)
}

/// The address and the name of one call, for its failures.
#[derive(Clone, Copy)]
struct Call<'a> {
    url: &'a Url,
    place: &'a str,
    method: &'static str,
}

impl Call<'_> {
    fn failure(self, code: &str, text: impl fmt::Display) -> Failure {
        Failure::new("http", self.place, code, format!("{} {}: {text}", self.method, shown(self.url)))
    }

    fn too_large(self, bytes_max: u64) -> Fault {
        let limit = units::show_size(bytes_max);
        let text =
            format!("the answer is larger than {limit} (send less at once, or raise {}.response_max)", self.place);
        Fault::permanent(self.failure("too-large", text)).with(Verdict::Answered)
    }

    /// Classifies a call that ended without a complete response. Without a connection it is deferred; a connection that
    /// breaks or falls silent is a temporary fault, because the message may be what breaks it.
    fn broken(self, error: &reqwest::Error, timeout: Duration) -> Fault {
        if error.is_builder() {
            return Fault::permanent(
                self.failure("request", format!("the address cannot be called (check {}.url)", self.place)),
            );
        }
        if error.is_connect() {
            let mut cause = Unreachable::of(error);
            if error.is_timeout() {
                cause.code = "connect-timeout";
            }
            let key = |name: &str| format!("{}.{name}", self.place);
            let tls = format!("the scheme and the port of {}", key("url"));
            let keys = Keys { address: &key("url"), tls: &tls, connect_timeout: &key("connect_timeout") };
            let remedy = cause.remedy(&keys);
            let failure = self.failure(cause.code, format!("{} ({remedy})", cause.text));
            return Fault::unreachable(failure, cause.needs_operator);
        }
        let failure = if error.is_timeout() {
            let limit = units::show_duration(timeout);
            self.failure("timeout", format!("no whole answer within {}.timeout ({limit})", self.place))
        } else {
            self.failure("connection", format!("the connection broke: {}", unreachable::root_cause(error)))
        };
        Fault::temporary(failure).with(Verdict::TimedOut)
    }
}

/// Scheme, host, port and path: what may be shown. User, password and query may hold secrets.
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path: String = url.path().chars().take(300).collect();
    let query = if url.query().is_some() { "?…" } else { "" };
    format!("{}://{host}{port}{path}{query}", url.scheme())
}

fn remedy(status: StatusCode, place: &str) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(" (check {place}.token and its rights)"),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => format!(" (check {place}.url: a proxy there asks for a login)"),
        StatusCode::NOT_FOUND | StatusCode::GONE => format!(" (check {place}.url and that the record exists)"),
        StatusCode::TOO_MANY_REQUESTS => " (lower the function's concurrency)".into(),
        _ => String::new(),
    }
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.trim().to_owned())
}

fn headers(options: &Options) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(token) = &options.token {
        let value = secret(&format!("Bearer {}", token.expose_secret())).ok_or(Error::Token)?;
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in &options.headers {
        let refused = || Error::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        headers.insert(key, secret(value.expose_secret()).ok_or_else(refused)?);
    }
    Ok(headers)
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
