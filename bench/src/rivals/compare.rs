//! The comparison itself: the rounds, in which all sides take turns, who syncs before answering, the table and its limit.

use std::time::Duration;

use anyhow::ensure;
use nightmail::base::SystemClock;

use super::side::{AnySide, Started};
use super::verdict::{self, Answers, Syncs};
use super::{apalis_redb, beanstalkd, bullmq, nats, ours, over_http, postgres, rabbitmq, redis, rust_queue, syncs};
use crate::output::{count, median, note, table};

/// Producers, then consumers, at once.
const MANY: usize = 32;
/// Messages under strace, one after the other.
const PROBES: u64 = 50;
const ROUNDS: usize = 3;
/// What the rates are of.
const WORKS: [&str; 3] = ["1 producer", "32 producers", "32 consumers"];

/// Messages of one round.
struct Sizes {
    /// By one producer.
    one: u64,
    /// By [`MANY`] producers.
    many: u64,
}

const SMALL: Sizes = Sizes { one: 500, many: 4_000 };
const FULL: Sizes = Sizes { one: 2_000, many: 20_000 };

/// Messages per second of each of [`WORKS`].
type Rates = [f64; 3];

/// One side of the comparison.
struct Entrant {
    name: &'static str,
    answers: Answers,
    version: String,
    side: Box<dyn AnySide>,
    /// Of each round.
    rounds: Vec<Rates>,
    /// None without strace.
    syncs: Option<Syncs>,
}

/// One that is not installed, does not start, or failed in a round.
struct LeftOut {
    name: &'static str,
    why: String,
}

type Entered = Result<Entrant, LeftOut>;

/// Starts a side. A macro, since each side is a type of its own.
macro_rules! entered {
    ($name:literal, $answers:expr, $started:expr) => {
        enter($name, $answers, $started.await.map(Started::boxed))
    };
}

/// Measures all that is installed, in turns, and prints them; an error when one that syncs before it answers is faster
/// than Nightmail.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let sizes = if full { FULL } else { SMALL };
    let clock = &SystemClock::shared();
    let started = vec![
        entered!("Nightmail", Answers::All, ours::start(clock)),
        entered!("Nightmail, SQS over HTTP", Answers::All, over_http::start(clock)),
        entered!("beanstalkd -b -f0", Answers::All, beanstalkd::start(clock)),
        entered!("Redis Streams, appendfsync always", Answers::All, redis::start(clock)),
        entered!("RabbitMQ quorum queue", Answers::SendsAlone, rabbitmq::start(clock)),
        entered!("PostgreSQL SKIP LOCKED", Answers::All, postgres::start(clock)),
        entered!("NATS JetStream, sync_interval always", Answers::All, nats::start(clock)),
        entered!("BullMQ, appendfsync always", Answers::All, bullmq::start()),
        entered!("apalis-redb", Answers::All, apalis_redb::start(clock)),
        entered!("RustQueue, redb, immediate", Answers::All, rust_queue::start(clock)),
    ];
    let mut all = take_turns(started, &sizes).await;
    for entrant in all.iter_mut().flatten() {
        let next = ROUNDS as u64 * (sizes.one + sizes.many);
        entrant.syncs = probe(&mut *entrant.side, next).await;
    }
    let [Ok(ours), rivals @ ..] = &*all else { return Err(left_out(&all)) };
    let rows: Vec<Vec<String>> = all.iter().map(|one| row(one, &ours.rounds)).collect();
    show(&rows)?;
    let faster: Vec<String> = rivals.iter().flatten().flat_map(|rival| losses(rival, &ours.rounds)).collect();
    for entrant in all.into_iter().flatten() {
        entrant.side.end().await?;
    }
    ensure!(faster.is_empty(), "slower than one that syncs before it answers: {}", faster.join("; "));
    Ok(())
}

fn enter(name: &'static str, answers: Answers, started: anyhow::Result<Started<Box<dyn AnySide>>>) -> Entered {
    match started {
        Ok(Started { version, side }) => Ok(Entrant { name, answers, version, side, rounds: Vec::new(), syncs: None }),
        Err(error) => Err(LeftOut { name, why: short(&error) }),
    }
}

/// Lets every side have its turn in every round, so that what else the machine does falls on all of them. A side that
/// fails is left out of the further rounds.
async fn take_turns(mut all: Vec<Entered>, sizes: &Sizes) -> Vec<Entered> {
    for round in 0..ROUNDS {
        let mut after = Vec::new();
        for one in all {
            after.push(match one {
                Ok(entrant) => turn(entrant, round as u64, sizes).await,
                left_out => left_out,
            });
        }
        all = after;
        note(format_args!("rivals: round {} of {ROUNDS} is measured", round + 1));
    }
    all
}

async fn turn(mut entrant: Entrant, round: u64, sizes: &Sizes) -> Entered {
    match rates(&mut *entrant.side, round, sizes).await {
        Ok(rates) => {
            entrant.rounds.push(rates);
            Ok(entrant)
        }
        Err(error) => Err(LeftOut { name: entrant.name, why: short(&error) }),
    }
}

async fn rates(side: &mut dyn AnySide, round: u64, sizes: &Sizes) -> anyhow::Result<Rates> {
    let first = round * (sizes.one + sizes.many);
    let (middle, end) = (first + sizes.one, first + sizes.one + sizes.many);
    let one = side.produce(1, first..middle).await?;
    let many = side.produce(MANY, middle..end).await?;
    let taken = side.consume(MANY, first..end).await?;
    let rate = |messages: u64, took: Duration| messages as f64 / took.as_secs_f64();
    Ok([rate(sizes.one, one), rate(sizes.many, many), rate(end - first, taken)])
}

/// Syncs for each message that is sent, and for each that is taken.
async fn probe(side: &mut dyn AnySide, next: u64) -> Option<Syncs> {
    let (pid, numbers) = (side.pid(), next..next + PROBES);
    let sent = syncs::count(pid, side.produce(1, numbers.clone())).await;
    let sent = sent.inspect_err(|error| note(format_args!("syncs are not counted: {error:#}"))).ok()?;
    let taken = syncs::count(pid, side.consume(1, numbers)).await;
    let taken = taken.inspect_err(|error| note(format_args!("syncs are not counted: {error:#}"))).ok()?;
    let [send, take] = [sent, taken].map(|syncs| syncs as f64 / PROBES as f64);
    Some(Syncs { send, take })
}

/// How many times faster Nightmail is at each work: the median of the rounds, each of which both sides were in.
fn faster_by(ours: &[Rates], theirs: &[Rates]) -> Rates {
    [0, 1, 2].map(|at| median(ours.iter().zip(theirs).map(|(ours, theirs)| ours[at] / theirs[at])))
}

/// The works at which a rival that syncs before it answers is faster.
fn losses(rival: &Entrant, ours: &[Rates]) -> Vec<String> {
    let binding = verdict::binding(rival.syncs, rival.answers);
    let works = WORKS.into_iter().zip(faster_by(ours, &rival.rounds)).zip(binding);
    let lost = works.filter(|((_, ratio), is_binding)| *is_binding && *ratio < 1.0);
    lost.map(|((work, ratio), _)| format!("{}, {work}: {ratio:.2} of it", rival.name)).collect()
}

fn show(rows: &[Vec<String>]) -> anyhow::Result<()> {
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
    table(&format!("rivals: in turns, medians of {ROUNDS} rounds"), &head, rows)
}

fn row(one: &Entered, ours: &[Rates]) -> Vec<String> {
    let entrant = match one {
        Ok(entrant) => entrant,
        Err(LeftOut { name, why }) => return vec![(*name).to_owned(), format!("left out: {why}")],
    };
    let rates = [0, 1, 2].map(|at| count(median(entrant.rounds.iter().map(|round| round[at]))));
    let times = faster_by(ours, &entrant.rounds).map(|times| format!("{times:.2}"));
    let of = |syncs: fn(Syncs) -> f64| entrant.syncs.map_or("not counted".into(), |of| format!("{:.2}", syncs(of)));
    let syncs = [of(|syncs| syncs.send), of(|syncs| syncs.take), verdict::text(entrant.syncs, entrant.answers)];
    let first = vec![entrant.name.to_owned(), entrant.version.clone()];
    [first, rates.to_vec(), vec![times.join(" / ")], syncs.to_vec()].concat()
}

fn left_out(all: &[Entered]) -> anyhow::Error {
    let why = all.first().and_then(|ours| ours.as_ref().err()).map(|ours| ours.why.clone());
    anyhow::anyhow!("Nightmail itself could not be measured: {}", why.unwrap_or_default())
}

/// The first line of an error, for a cell of the table.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}
