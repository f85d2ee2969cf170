//! The comparison itself: the rounds, who syncs before answering, the table.

use std::time::Duration;

use anyhow::ensure;
use nightmail::base::SystemClock;

use super::side::{Side, Started};
use super::{apalis_redb, beanstalkd, bullmq, nats, ours, postgres, rabbitmq, redis, syncs};
use crate::output::{count, median, note, table};

/// Producers, then consumers, at once.
const MANY: usize = 32;
/// Messages under strace, one after the other.
const PROBES: u64 = 50;

/// Messages of one round.
struct Sizes {
    /// By one producer.
    one: u64,
    /// By [`MANY`] producers.
    many: u64,
    rounds: usize,
}

const SMALL: Sizes = Sizes { one: 1_000, many: 8_000, rounds: 1 };
const FULL: Sizes = Sizes { one: 2_000, many: 20_000, rounds: 3 };

/// What one side of the comparison came to.
struct Measured {
    version: String,
    /// Messages per second by one producer, by many, and taken and acknowledged by many; of each round.
    rounds: Vec<[f64; 3]>,
    /// For a send and for a take with its acknowledgement, each alone; none without strace.
    syncs: Option<[f64; 2]>,
}

/// Runs a side through all rounds, or says why there is none. A macro, since each side is a type of its own.
macro_rules! measured {
    ($name:literal, $started:expr, $sizes:expr) => {{
        let measured = match $started.await {
            Ok(started) => measure(started, $sizes).await,
            Err(error) => Err(error),
        };
        note(format_args!("rivals: {} is {}", $name, if measured.is_ok() { "measured" } else { "left out" }));
        ($name, measured)
    }};
}

/// Measures all that is installed, one after the other, and prints them.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let sizes = &if full { FULL } else { SMALL };
    let clock = &SystemClock::shared();
    let all = [
        measured!("Nightmail", ours::start(clock), sizes),
        measured!("beanstalkd -b -f0", beanstalkd::start(clock), sizes),
        measured!("Redis Streams, appendfsync always", redis::start(clock), sizes),
        measured!("RabbitMQ quorum queue", rabbitmq::start(clock), sizes),
        measured!("PostgreSQL SKIP LOCKED", postgres::start(clock), sizes),
        measured!("NATS JetStream, sync_interval always", nats::start(clock), sizes),
        measured!("BullMQ, appendfsync always", bullmq::start(), sizes),
        measured!("apalis-redb", apalis_redb::start(clock), sizes),
    ];
    let [(_, ours), ..] = &all;
    let ours = ours.as_ref().map_or([0.0; 3], Measured::medians);
    let rows: Vec<Vec<String>> = all.iter().map(|(name, measured)| row(name, measured, ours)).collect();
    let head = [
        "1 KiB messages, one at a time",
        "version",
        "1 producer/s",
        "32 producers/s",
        "32 consumers/s",
        "Nightmail is faster by",
        "syncs per send",
        "syncs per take + ack",
        "syncs before answering",
    ];
    table(&format!("rivals: median of {} round(s)", sizes.rounds), &head, &rows)?;
    ensure!(all[0].1.is_ok(), "Nightmail itself could not be measured");
    Ok(())
}

async fn measure<S: Side>(started: Started<S>, sizes: &Sizes) -> anyhow::Result<Measured> {
    let Started { version, mut side } = started;
    let mut rounds = Vec::new();
    let mut next = 0;
    for _ in 0..sizes.rounds {
        let (middle, end) = (next + sizes.one, next + sizes.one + sizes.many);
        let one = side.produce(1, next..middle).await?;
        let many = side.produce(MANY, middle..end).await?;
        let taken = side.consume(MANY, next..end).await?;
        rounds.push([rate(sizes.one, one), rate(sizes.many, many), rate(end - next, taken)]);
        next = end;
    }
    let syncs = probe(&mut side, next).await;
    side.end().await?;
    Ok(Measured { version, rounds, syncs })
}

fn rate(messages: u64, took: Duration) -> f64 {
    messages as f64 / took.as_secs_f64()
}

/// Syncs for each message that is sent, and for each that is taken.
async fn probe(side: &mut impl Side, next: u64) -> Option<[f64; 2]> {
    let (pid, numbers) = (side.pid(), next..next + PROBES);
    let sent = syncs::count(pid, side.produce(1, numbers.clone())).await;
    let sent = sent.inspect_err(|error| note(format_args!("syncs are not counted: {error:#}"))).ok()?;
    let taken = syncs::count(pid, side.consume(1, numbers)).await;
    let taken = taken.inspect_err(|error| note(format_args!("syncs are not counted: {error:#}"))).ok()?;
    Some([sent, taken].map(|syncs| syncs as f64 / PROBES as f64))
}

impl Measured {
    fn medians(&self) -> [f64; 3] {
        [0, 1, 2].map(|at| median(self.rounds.iter().map(|round| round[at])))
    }
}

fn row(name: &str, measured: &anyhow::Result<Measured>, ours: [f64; 3]) -> Vec<String> {
    let measured = match measured {
        Ok(measured) => measured,
        Err(error) => return vec![name.to_owned(), format!("left out: {}", short(error))],
    };
    let rates = measured.medians();
    let times: Vec<String> = ours.iter().zip(rates).map(|(ours, theirs)| format!("{:.1}", ours / theirs)).collect();
    let of = |at: usize| measured.syncs.map_or("not counted".into(), |syncs| format!("{:.2}", syncs[at]));
    let first = vec![name.to_owned(), measured.version.clone()];
    [first, rates.map(count).to_vec(), vec![times.join(" / "), of(0), of(1), verdict(measured.syncs)]].concat()
}

/// A client that awaits each answer cannot have fewer syncs than messages if each answer awaits one.
fn verdict(syncs: Option<[f64; 2]>) -> String {
    let says = |syncs: f64| if syncs >= 1.0 { "yes" } else { "no" };
    syncs.map_or("not counted".into(), |[send, take]| format!("send {}, ack {}", says(send), says(take)))
}

/// The first line of an error, for a cell of the table.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_syncs_than_messages_are_no_sync_before_answering() {
        assert_eq!(verdict(Some([1.0, 2.5])), "send yes, ack yes");
        assert_eq!(verdict(Some([0.98, 1.0])), "send no, ack yes");
        assert_eq!(verdict(None), "not counted");
    }
}
