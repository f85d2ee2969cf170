//! A tiny HTTP server on loopback for tests: it sends a scripted response to each request, well-formed or not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Options;
use crate::base::Backoff;

/// One step of a response. After the last one the connection is closed.
pub(crate) enum Part {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// The same bytes until the client goes away.
    Endless(Vec<u8>),
}

/// The running server; it ends with the test's runtime.
pub(crate) struct Stub {
    address: SocketAddr,
    /// The head of each request, in order of arrival.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// Responds to request number `n` (from 0) with the head `head` as `script` says.
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Vec<Part> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, requests }
    }

    /// A server that sends the same complete response to every request.
    pub(crate) async fn always(answer: String) -> Self {
        Self::start(move |_, _| vec![Part::Bytes(answer.clone().into_bytes())]).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<impl Fn(usize, &str) -> Vec<Part>>,
    log: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let number = {
        let mut log = log.lock().unwrap();
        log.push(head.clone());
        log.len() - 1
    };
    let parts = script(number, &head);
    for part in parts {
        match part {
            Part::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
            Part::Pause(span) => tokio::time::sleep(span).await,
            Part::Endless(bytes) => loop {
                stream.write_all(&bytes).await.ok()?;
            },
        }
    }
    stream.shutdown().await.ok()
}

/// A complete response with this status code and these further header lines.
pub(crate) fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// Options without retries: 1 MiB for a body, and more time for a call than a busy machine needs.
pub(crate) fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        response_bytes_max: 1 << 20,
        token: None,
        headers: Vec::new(),
        retries: 0,
        backoff: Backoff { first: Duration::from_millis(1), max: Duration::from_millis(1) },
    }
}
