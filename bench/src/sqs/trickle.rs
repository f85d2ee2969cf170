//! Sockets that send a header byte by byte, beside clients that send messages at a normal pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::Connection;
use super::idle::allow_open_files;
use super::pair::body;
use super::requests::{Prepared, Signer};
use super::server::Server;
use crate::output::{count, median, note, percentile, table};

const SENDERS: u32 = 8;
/// Between two sends of a sender: 1,000 messages a second by all of them.
const EVERY: Duration = Duration::from_millis(8);
const ROUNDS: usize = 3;
/// The 99th percentile beside the trickling sockets may be this many times that without them.
const RATIO_MAX: f64 = 2.0;
const SOCKETS: usize = 5_000;
/// Each socket sends a byte in this time.
const BYTE_EVERY: Duration = Duration::from_secs(1);
/// Sockets are written to in groups of this size, so that the bytes are spread over the time.
const GROUP: usize = 50;

/// Measures and prints it; returns the limits that were passed.
pub(super) async fn run(clock: &Arc<dyn Clock>, full: bool) -> anyhow::Result<Vec<String>> {
    allow_open_files()?;
    let sockets = if full { SOCKETS } else { SOCKETS / 5 };
    let sends = if full { 1_000 } else { 250 };
    let server = Server::daemon(clock).await?;
    let request = Signer::new(clock).send(&body(0)?)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(pace(clock, server.address, &request, sends).await?);
        let end = CancellationToken::new();
        let trickling = trickle(server.address, sockets, &request, &end).await?;
        beside.push(pace(clock, server.address, &request, sends).await?);
        end.cancel();
        trickling.await??;
    }
    note("sqs: trickling sockets measured");
    let of = |rounds: &[Vec<f64>], percent: f64| median(rounds.iter().map(|waits| percentile(waits, percent)));
    let ratio = of(&beside, 99.0) / of(&alone, 99.0);
    let row = |name: String, rounds: &[Vec<f64>], ratio: [String; 2]| {
        let times = [50.0, 99.0, 100.0].map(|percent| format!("{:.2}", of(rounds, percent)));
        [vec![name], times.to_vec(), ratio.to_vec()].concat()
    };
    let rows = [
        row("alone".into(), &alone, ["-".into(), "-".into()]),
        row(
            format!("beside {} trickling sockets", count(sockets as f64)),
            &beside,
            [format!("{ratio:.2}"), RATIO_MAX.to_string()],
        ),
    ];
    let per_second = count(f64::from(SENDERS) / EVERY.as_secs_f64());
    let title =
        format!("sqs: a send's time in ms, {SENDERS} connections, {per_second} sends/s, medians of {ROUNDS} rounds");
    table(&title, &["", "p50", "p99", "longest", "p99 to alone", "limit"], &rows)?;
    let is_over = ratio > RATIO_MAX;
    Ok(is_over
        .then(|| format!("p99 beside trickling sockets is {ratio:.2} of that alone; at most {RATIO_MAX}"))
        .into_iter()
        .collect())
}

/// Lets each sender make `sends` calls at its pace; returns all times in ms.
async fn pace(clock: &Arc<dyn Clock>, address: SocketAddr, request: &Prepared, sends: u32) -> anyhow::Result<Vec<f64>> {
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (clock, request) = (clock.clone(), request.clone());
        let mut connection = Connection::open(address).await?;
        senders.spawn(async move {
            tokio::time::sleep(EVERY * sender / SENDERS).await;
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut times = Vec::new();
            for _ in 0..sends {
                ticks.tick().await;
                let began = clock.monotonic();
                connection.call(&request).await?;
                times.push((clock.monotonic() - began).as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = senders.join_next().await {
        times.extend(ended??);
    }
    Ok(times)
}

/// Opens the sockets, then sends of the request's header a byte a second over each until `end`.
async fn trickle(
    address: SocketAddr,
    sockets: usize,
    request: &Prepared,
    end: &CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let (bytes, end) = (request.bytes(), end.clone());
    let mut open = Vec::with_capacity(sockets);
    for _ in 0..sockets {
        open.push(TcpStream::connect(address).await?);
    }
    let groups = sockets.div_ceil(GROUP);
    Ok(tokio::spawn(async move {
        let mut ticks = interval(BYTE_EVERY / u32::try_from(groups)?);
        // The header is longer than a round has seconds.
        for byte in &bytes {
            for group in open.chunks_mut(GROUP) {
                tokio::select! {
                    () = end.cancelled() => return Ok(()),
                    _ = ticks.tick() => {}
                }
                for socket in group {
                    socket.write_all(&[*byte]).await?;
                }
            }
        }
        Ok(())
    }))
}
