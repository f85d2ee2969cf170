//! Thousands of idle long polls: what they cost in memory and processor time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use nightmail::base::Clock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::requests::{Prepared, Signer};
use super::server::Server;
use crate::child;
use crate::output::{count, table};

/// The daemon's memory with [`POLLS`] polls waiting, in MB (10^6 bytes).
const RESIDENT_MB_MAX: f64 = 200.0;
const POLLS: usize = 10_000;
/// A poll's wait, SQS's longest.
const WAIT_SECONDS: u64 = 20;
/// After the last poll was sent, until all wait.
const SETTLE: Duration = Duration::from_secs(2);
/// For so long processor time is counted.
const WATCH: Duration = Duration::from_secs(5);

/// Measures and prints it; returns the limits that were passed.
pub(super) async fn run(clock: &Arc<dyn Clock>, full: bool) -> anyhow::Result<Vec<String>> {
    allow_open_files()?;
    let polls = if full { POLLS } else { POLLS / 5 };
    let server = Server::daemon(clock).await?;
    let before = child::resident_mb_of(server.pid())?;
    let request = Signer::new(clock).receive(10, WAIT_SECONDS)?.bytes();
    let mut waiting = Vec::with_capacity(polls);
    for _ in 0..polls {
        let mut stream = TcpStream::connect(server.address).await?;
        stream.write_all(&request).await?;
        waiting.push(stream);
    }
    tokio::time::sleep(SETTLE).await;
    let cpu = child::cpu_seconds_of(server.pid())?;
    tokio::time::sleep(WATCH).await;
    let cpu = child::cpu_seconds_of(server.pid())? - cpu;
    let resident = child::resident_mb_of(server.pid())?;
    for stream in &mut waiting {
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await?;
        ensure!(&answer == b"HTTP/1.1 200 OK", "a poll was refused: {}", String::from_utf8_lossy(&answer));
    }
    let each = (resident - before) * 1e6 / polls as f64;
    let limit = if full { RESIDENT_MB_MAX.to_string() } else { "-".into() };
    let row = vec![
        count(polls as f64),
        format!("{before:.0}"),
        format!("{resident:.0}"),
        limit,
        count(each),
        format!("{:.1}", cpu / WATCH.as_secs_f64() * 100.0),
    ];
    let head = ["idle long polls", "MB before", "MB while they wait", "limit", "bytes each", "% of a core"];
    table("sqs: idle long polls", &head, &[row])?;
    let is_over = full && resident > RESIDENT_MB_MAX;
    Ok(is_over
        .then(|| format!("{resident:.0} MB with {polls} idle polls; at most {RESIDENT_MB_MAX}"))
        .into_iter()
        .collect())
}

/// Each connection of the bench is an open file too.
pub(super) fn allow_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

impl Prepared {
    /// The request as it goes over the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.head.method, self.head.uri).into_bytes();
        for (name, value) in &self.head.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
