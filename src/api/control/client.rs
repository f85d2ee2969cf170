//! The CLI's side of the control socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::base::units;

use super::request::FailureKind;
use super::{Answer, Failure, Request};

/// The largest response, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A response must come within this time, unless the client is told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for requests that take as long as they take, once the daemon has shown that it answers.
const TIMEOUT_OF_LONG: Duration = Duration::from_secs(12 * 3600);

/// A client of the daemon's control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client for the daemon at this socket, with a time-out of [`TIMEOUT`].
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), timeout: TIMEOUT }
    }

    /// The same with another time-out.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether a daemon listens. Also true when this user may not use its socket, or when the daemon accepts no more
    /// connections: a request then fails with the reason.
    pub async fn is_there(&self) -> bool {
        match tokio::time::timeout(self.timeout, UnixStream::connect(&self.socket)).await {
            Ok(Ok(_)) | Err(_) => true,
            Ok(Err(error)) => !is_nobody_there(&error),
        }
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// The daemon refused the request, cannot be reached, or did not answer in time.
    pub async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        self.ask_if_there(request).await?.ok_or_else(|| self.nobody_there())
    }

    /// The same; `None` when no daemon listens. A request that takes as long as it takes (see
    /// [`Request::takes_long`]) is sent once the daemon has answered another one within the time-out.
    ///
    /// # Errors
    /// The daemon refused the request, cannot be reached, or did not answer in time.
    pub async fn ask_if_there(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        if !request.takes_long() {
            return self.ask_within(request, self.timeout).await;
        }
        match self.ask_within(&Request::Status, self.timeout).await? {
            Some(_) => self.ask_within(request, TIMEOUT_OF_LONG).await,
            None => Ok(None),
        }
    }

    async fn ask_within(&self, request: &Request, limit: Duration) -> Result<Option<Answer>, Failure> {
        let exchange = async {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => match self.exchange(stream, request).await {
                    // A daemon that ends drops the connections that it has not accepted.
                    Err(lost) if lost.kind == FailureKind::Unreachable && request.is_read_only() => {
                        if self.is_there().await { Err(lost) } else { Ok(None) }
                    }
                    answer => answer.map(Some),
                },
                Err(error) if is_nobody_there(&error) => Ok(None),
                Err(error) => Err(self.not_connected(&error)),
            }
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                let (socket, waited) = (self.socket.display(), units::show_duration(limit));
                let command = request.command();
                let maybe = if request.is_read_only() { "" } else { "; it may still do it" };
                let text = format!(
                    "waited {waited} for the daemon at {socket} to answer `nightmail {command}`: it listens but does \
                     not answer{maybe} (see its log; --timeout waits longer)"
                );
                Err(Failure { kind: FailureKind::Unreachable, text })
            }
        }
    }

    async fn exchange(&self, stream: UnixStream, request: &Request) -> Result<Answer, Failure> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        let connection = tokio::spawn(connection);
        let body = serde_json::to_vec(request).map_err(|error| self.unreachable(error))?;
        let request = hyper::Request::post("/v1/control")
            .header("host", "nightmail")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .map_err(|error| self.unreachable(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.unreachable(error))?.to_bytes();
        connection.abort();
        let strange = |error| self.unreachable(format!("the answer does not read ({error}); is it the same version?"));
        if status.is_success() {
            serde_json::from_slice(&body).map_err(strange)
        } else {
            Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
                self.unreachable(format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])))
            }))
        }
    }

    fn nobody_there(&self) -> Failure {
        let text = format!(
            "no daemon listens at {}, and this command needs one (start it with `nightmail serve` or `systemctl start \
             nightmail`; if it runs, check that control.socket is the same there and here)",
            self.socket.display()
        );
        Failure { kind: FailureKind::Unreachable, text }
    }

    fn not_connected(&self, error: &std::io::Error) -> Failure {
        if error.kind() != ErrorKind::PermissionDenied {
            return self.unreachable(error);
        }
        let remedy = "join the group nightmail, or run this as the daemon's user";
        let text = format!("control socket {}: permission denied ({remedy})", self.socket.display());
        Failure { kind: FailureKind::Denied, text }
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> Failure {
        let text = format!("daemon at {}: {reason} (see its log)", self.socket.display());
        Failure { kind: FailureKind::Unreachable, text }
    }
}

fn is_nobody_there(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}
