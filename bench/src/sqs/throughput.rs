//! What 32 connections get through: the endpoint's rate as a ratio to the stub's, in turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use nightmail::base::Clock;
use tokio::task::JoinSet;

use super::client::{Connection, messages};
use super::pair::{BATCH, Pair, body};
use super::requests::{Prepared, Signer};
use crate::output::{count, median, note, table};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 5;
/// A connection receives at most so often before it deletes: SQS allows 120,000 messages in flight.
const CALLS_IN_FLIGHT_MAX: usize = 200;
/// Each ratio must be at least this.
const RATIO_MIN: f64 = 0.5;
/// What the rates are of.
const WORKS: [&str; 3] = ["single sends", "sends in batches of 10", "receive 10 + delete 10"];

/// Messages per second of each of [`WORKS`].
type Rates = [f64; 3];

/// How many calls each connection makes.
struct Sizes {
    singles: usize,
    batches: usize,
}

/// Measures and prints it; returns the limits that were passed.
pub(super) async fn run(clock: &Arc<dyn Clock>, full: bool) -> anyhow::Result<Vec<String>> {
    let sizes = if full { Sizes { singles: 2_000, batches: 400 } } else { Sizes { singles: 600, batches: 100 } };
    let signer = Signer::new(clock);
    let pair = Pair::start(clock, &signer).await?;
    let (mut ours, mut stubs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(rates(clock, pair.daemon.address, &signer, &sizes).await?);
        stubs.push(rates(clock, pair.stub.address, &signer, &sizes).await?);
        note(format_args!("sqs: round {} of {ROUNDS} is measured", round + 1));
    }
    let ratios = [0, 1, 2].map(|at| median(ours.iter().zip(&stubs).map(|(ours, stub)| ours[at] / stub[at])));
    let rate = |rounds: &[Rates], at: usize| count(median(rounds.iter().map(|round| round[at])));
    let row = |at: usize| {
        vec![
            WORKS[at].to_owned(),
            rate(&ours, at),
            rate(&stubs, at),
            format!("{:.2}", ratios[at]),
            RATIO_MIN.to_string(),
        ]
    };
    let head = ["1 KiB messages", "endpoint/s", "stub/s", "ratio", "limit"];
    table(
        &format!("sqs: {CONNECTIONS} connections, signed, in turns, medians of {ROUNDS} rounds"),
        &head,
        &[row(0), row(1), row(2)],
    )?;
    let missed = WORKS.iter().zip(ratios).filter(|(_, ratio)| *ratio < RATIO_MIN);
    Ok(missed.map(|(work, ratio)| format!("{work}: {ratio:.2} of the stub; at least {RATIO_MIN}")).collect())
}

async fn rates(clock: &Arc<dyn Clock>, address: SocketAddr, signer: &Signer, sizes: &Sizes) -> anyhow::Result<Rates> {
    let text = body(0)?;
    let single = vec![signer.send(&text)?; sizes.singles];
    let (singles, _) = all(clock, address, vec![single; CONNECTIONS]).await?;
    let ten = vec![signer.send_batch(&[&*text; BATCH])?; sizes.batches];
    let (batches, _) = all(clock, address, vec![ten; CONNECTIONS]).await?;
    let (calls, mut left) = (sizes.batches + sizes.singles / BATCH, sizes.batches + sizes.singles / BATCH);
    let mut taking = Duration::ZERO;
    while left > 0 {
        let part = left.min(CALLS_IN_FLIGHT_MAX);
        taking += take(clock, address, signer, part).await?;
        left -= part;
    }
    let rate = |messages: usize, took: Duration| (messages * CONNECTIONS) as f64 / took.as_secs_f64();
    Ok([rate(sizes.singles, singles), rate(sizes.batches * BATCH, batches), rate(calls * BATCH, taking)])
}

/// Each connection receives so many times ten messages, then deletes them; returns how long both took. A delete can be
/// signed only when its handles are known; that is not the endpoint's time.
async fn take(clock: &Arc<dyn Clock>, address: SocketAddr, signer: &Signer, calls: usize) -> anyhow::Result<Duration> {
    let receive = vec![signer.receive(BATCH, 0)?; calls];
    let (received, answers) = all(clock, address, vec![receive; CONNECTIONS]).await?;
    let mut deletes = Vec::new();
    for answers in answers {
        let mut of_one = Vec::new();
        for answer in answers {
            let handles: Vec<String> = messages(&answer)?.into_iter().map(|message| message.receipt_handle).collect();
            ensure!(handles.len() == BATCH, "{} messages where {BATCH} are left", handles.len());
            of_one.push(signer.delete_batch(&handles)?);
        }
        deletes.push(of_one);
    }
    let (deleted, _) = all(clock, address, deletes).await?;
    Ok(received + deleted)
}

/// Sends each list over a connection of its own, one request after the other; returns how long it took, without
/// connecting, and the answers.
async fn all(
    clock: &Arc<dyn Clock>,
    address: SocketAddr,
    lists: Vec<Vec<Prepared>>,
) -> anyhow::Result<(Duration, Vec<Vec<bytes::Bytes>>)> {
    let mut connections = Vec::new();
    for _ in &lists {
        connections.push(Connection::open(address).await?);
    }
    let began = clock.monotonic();
    let mut tasks = JoinSet::new();
    for (mut connection, list) in connections.into_iter().zip(lists) {
        tasks.spawn(async move {
            let mut answers = Vec::with_capacity(list.len());
            for request in &list {
                answers.push(connection.call(request).await?);
            }
            anyhow::Ok(answers)
        });
    }
    let mut answers = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        answers.push(ended??);
    }
    Ok((clock.monotonic() - began, answers))
}
