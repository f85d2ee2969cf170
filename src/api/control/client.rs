//! The CLI's side of the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::request::FailureKind;
use super::{Answer, Failure, Request};

/// The largest response, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A response must come within this time; a purge of a large queue takes a while.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The same for requests that read the whole store.
const TIMEOUT_OF_ALL: Duration = Duration::from_secs(12 * 3600);

/// A client of the daemon's control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for the daemon at this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether a daemon listens. Also true when this user may not use its socket: the request then fails with the
    /// reason.
    pub async fn is_there(&self) -> bool {
        match UnixStream::connect(&self.socket).await {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }

    /// Sends a request and waits for the response.
    ///
    /// # Errors
    /// The daemon refused the request or cannot be reached.
    pub async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let limit = if request.reads_all() { TIMEOUT_OF_ALL } else { TIMEOUT };
        match tokio::time::timeout(limit, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_there(&error))?;
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

    fn not_there(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let text = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => format!(
                "no daemon listens at {socket}, and this command needs one (start it with `nightmail serve` or \
                 `systemctl start nightmail`; if it runs, check that control.socket is the same there and here)"
            ),
            std::io::ErrorKind::PermissionDenied => format!(
                "control socket {socket}: permission denied (join the group nightmail, or run this command as the \
                 daemon's user)"
            ),
            _ => return self.unreachable(error),
        };
        Failure { kind: FailureKind::Unreachable, text }
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> Failure {
        let text = format!("daemon at {}: {reason} (see its log)", self.socket.display());
        Failure { kind: FailureKind::Unreachable, text }
    }
}
