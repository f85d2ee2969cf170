//! The listener and its connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use super::{Service, http};

/// Connections at once; further ones wait to be accepted.
pub(super) const CONNECTIONS_MAX: usize = 16_384;
/// A request's header must come within this time, and a kept connection is closed when no request comes for so long.
const HEADER_WITHIN: Duration = Duration::from_secs(30);
/// The largest header: request line and fields.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// The most fields of a header.
const HEADER_FIELDS_MAX: usize = 100;
/// A client that takes nothing of its answer for so long is cut off.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Requests that are under way at the shutdown get this long.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// The pause after a connection could not be accepted, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {reason} (see api.sqs.listen)")]
pub struct ListenError {
    address: SocketAddr,
    reason: io::Error,
}

/// The bound address.
#[derive(Debug)]
pub struct SqsListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl SqsListener {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use, or not one of this machine.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |reason| ListenError { address, reason };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that port 0 came to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until `shutdown`; long polls end then, and other requests under way get a moment.
pub async fn serve(listener: SqsListener, service: Service, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    while let Some((stream, place)) = accept(&listener, &places, &shutdown).await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(stream, service.clone(), place, shutdown.clone()));
    }
    // Those that do not end are aborted when the set is dropped.
    let _ = tokio::time::timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// The next connection; `None` at the shutdown.
async fn accept(
    listener: &SqsListener,
    places: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.listener.accept().await {
                Ok((stream, _)) => return (stream, place),
                Err(error) => {
                    tracing::warn!(%error, "an SQS client's connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => None,
        accepted = next => Some(accepted),
    }
}

async fn connection(stream: TcpStream, service: Service, _place: OwnedSemaphorePermit, shutdown: CancellationToken) {
    // Both can fail only on a connection that has ended, which is seen below.
    let _ = stream.set_nodelay(true);
    let taken_within_ms = u32::try_from(TAKEN_WITHIN.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, taken_within_ms);
    let stream = Arc::new(stream);
    let answer = |request| http::answer(service.clone(), stream.clone(), shutdown.clone(), request);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        // A client that ends its side after its request still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Socket(stream.clone())), service_fn(answer));
    tokio::pin!(serving);
    // An error is the client's: it went away, or does not speak HTTP.
    tokio::select! {
        _ = &mut serving => return,
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
