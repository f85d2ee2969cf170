//! The listener and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use super::tls::Tls;
use super::{Options, Service, http};

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
    reason: String,
}

/// The bound address.
#[derive(Debug)]
pub struct SqsListener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl SqsListener {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use, or not one of this machine; the certificate cannot be used.
    pub async fn bind(options: &Options) -> Result<Self, ListenError> {
        let address = options.listen;
        let failed = |reason: String| ListenError { address, reason };
        let tls = options.tls.as_ref().map(Tls::load).transpose().map_err(failed)?.map(Arc::new);
        let listener = TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
        Ok(Self { listener, address, tls })
    }

    /// What clients call.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// The address, with the port that port 0 came to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until `shutdown`; long polls end then, and other requests under way get a moment.
pub async fn serve(listener: SqsListener, service: Service, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    if let Some(tls) = listener.tls.clone() {
        let shutdown = shutdown.clone();
        connections.spawn(async move { tls.watch(shutdown).await });
    }
    while let Some((stream, permit)) = accept(&listener, &permits, &shutdown).await {
        while connections.try_join_next().is_some() {}
        let (service, tls, shutdown) = (service.clone(), listener.tls.clone(), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            connection(stream, tls, service, shutdown).await;
        });
    }
    // Those that do not end are aborted when the set is dropped.
    let _ = tokio::time::timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// The next connection; `None` at the shutdown.
async fn accept(
    listener: &SqsListener,
    permits: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
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

async fn connection(stream: TcpStream, tls: Option<Arc<Tls>>, service: Service, shutdown: CancellationToken) {
    // Both can fail only on a connection that has ended, which is seen below.
    let _ = stream.set_nodelay(true);
    let taken_within_ms = u32::try_from(TAKEN_WITHIN.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, taken_within_ms);
    let stream = Arc::new(stream);
    let socket = Socket(stream.clone());
    // Boxed: thousands of connections wait, and one in the clear takes no room for TLS then.
    match tls {
        None => Box::pin(requests(socket, stream, service, shutdown)).await,
        Some(tls) => Box::pin(protected(tls, socket, stream, service, shutdown)).await,
    }
}

/// The same after a handshake; a client whose handshake fails is told so by TLS itself.
async fn protected(
    tls: Arc<Tls>,
    socket: Socket,
    stream: Arc<TcpStream>,
    service: Service,
    shutdown: CancellationToken,
) {
    if let Ok(protected) = Box::pin(tls.accept(socket)).await {
        Box::pin(requests(protected, stream, service, shutdown)).await;
    }
}

/// Answers the requests of one connection, whose socket is `stream`.
async fn requests<S>(io: S, stream: Arc<TcpStream>, service: Service, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = |request| http::answer(service.clone(), stream.clone(), shutdown.clone(), request);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADER_FIELDS_MAX)
        // A client that ends its side after its request still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(io), service_fn(answer));
    tokio::pin!(serving);
    // An error is the client's: it went away, or does not speak HTTP.
    tokio::select! {
        _ = &mut serving => return,
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
