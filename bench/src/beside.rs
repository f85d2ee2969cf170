//! What others wait for while something long goes on: paced callers send, receive and delete in a queue of their own,
//! first alone and then beside a purge, a page of users, a redrive and the like, in the same store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nightmail::base::{Clock, Failure, SystemClock};
use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::settle::Ended;
use nightmail::queue::{
    Error, LetterAdmission, Options, Queues, Receive, RedrivePolicy, Send, catalog, dead, send, stats,
};
use nightmail::run::ledger::Ledger;
use nightmail::store::record::Owner;
use nightmail::store::{self, Store, Tx};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::load::{self, BODY_BYTES};
use crate::output::{count, median, note, percentile, table};
use crate::page;

const CALLERS: u32 = 8;
/// Between two rounds of a caller: a send, a receive and a delete.
const EVERY: Duration = Duration::from_millis(8);
/// So long the callers are alone; what is short is repeated for as long.
const LEAST: Duration = Duration::from_secs(3);
/// The 99th percentile of their waits may be this many times what it is alone.
const RATIO_MAX: f64 = 2.0;
/// Waits up to this are short enough, in ms: below, a shared machine's noise decides.
const ENOUGH_MS: f64 = 2.0;
/// The queue of the callers, and those of the work.
const BESIDE: &str = "beside";
pub(crate) const WORK: &str = "work";
const DEAD: &str = "dead";
/// Messages of one step when a queue is filled, which is not measured.
const FILL: u64 = 100;
const FILLERS: usize = 4;
/// Fewer than SQS's limit of messages in flight.
const IN_FLIGHT_MAX: u64 = 100_000;

/// What goes on beside the callers.
#[derive(Clone, Copy, Debug)]
enum Work {
    Purge,
    PurgeOfGroups,
    Page,
    GroupedSends,
    Stats,
    Groups,
    Preview,
    Redrive,
    Polls,
    GroupedReceive,
    Leases,
}

const WORKS: [(Work, &str); 11] = [
    (Work::Purge, "purge"),
    (Work::PurgeOfGroups, "purge, one message group"),
    (Work::Page, "a page of users with ledger rows"),
    (Work::GroupedSends, "send_all to one message group"),
    (Work::Stats, "stats, all delays due"),
    (Work::Groups, "groups of dead letters"),
    (Work::Preview, "preview of a redrive"),
    (Work::Redrive, "redrive"),
    (Work::Polls, "sends to waiting polls"),
    (Work::GroupedReceive, "receive 100, one group each"),
    (Work::Leases, "leases of a dead process"),
];

/// A store with the queues of the callers and of the work.
struct Bed {
    queues: Queues,
    clock: Arc<dyn Clock>,
    messages: u64,
    _dir: TempDir,
}

/// How the callers fared.
struct Row {
    name: &'static str,
    messages: u64,
    /// Each time that the work took, in ms.
    took: Vec<f64>,
    alone: Vec<f64>,
    beside: Vec<f64>,
}

/// Measures and prints it; an error when callers waited too long.
pub(crate) async fn run(full: bool) -> anyhow::Result<()> {
    let messages = match std::env::var("NIGHTMAIL_BESIDE_MESSAGES") {
        Ok(number) => number.parse().context("NIGHTMAIL_BESIDE_MESSAGES is not a number")?,
        Err(_) if full => 1_000_000,
        Err(_) => 5_000,
    };
    let clock = SystemClock::shared();
    let mut rows = Vec::new();
    for (work, name) in WORKS {
        rows.push(measure(&clock, messages, (work, name)).await?);
        note(format_args!("beside: {name}"));
    }
    show(&rows)?;
    let missed: Vec<String> = rows.iter().filter(|row| row.is_missed()).map(|row| row.name.to_owned()).collect();
    ensure!(missed.is_empty(), "callers wait more than {RATIO_MAX} x beside: {}", missed.join("; "));
    Ok(())
}

impl Row {
    fn ratio(&self) -> f64 {
        percentile(&self.beside, 99.0) / percentile(&self.alone, 99.0)
    }

    fn is_missed(&self) -> bool {
        self.ratio() > RATIO_MAX && percentile(&self.beside, 99.0) > ENOUGH_MS
    }
}

fn show(rows: &[Row]) -> anyhow::Result<()> {
    let row = |row: &Row| {
        let ms = |waits: &[f64], percent: f64| format!("{:.2}", percentile(waits, percent));
        let limit = if row.is_missed() { format!("{RATIO_MAX}, missed") } else { RATIO_MAX.to_string() };
        vec![
            row.name.to_owned(),
            count(row.messages as f64),
            format!("{:.1}", median(row.took.iter().copied())),
            ms(&row.alone, 50.0),
            ms(&row.alone, 99.0),
            ms(&row.beside, 50.0),
            ms(&row.beside, 99.0),
            ms(&row.beside, 100.0),
            format!("{:.2}", row.ratio()),
            limit,
        ]
    };
    let head = [
        "ms",
        "messages",
        "it takes",
        "p50 alone",
        "p99 alone",
        "p50 beside",
        "p99 beside",
        "longest beside",
        "p99 ratio",
        "limit",
    ];
    let per_second = f64::from(CALLERS) * 3.0 / EVERY.as_secs_f64();
    let title = format!("beside: {} calls/s (send, receive, delete) while something long goes on", count(per_second));
    table(&title, &head, &rows.iter().map(row).collect::<Vec<_>>())
}

async fn measure(clock: &Arc<dyn Clock>, messages: u64, (work, name): (Work, &'static str)) -> anyhow::Result<Row> {
    let messages = match work {
        Work::Page => messages.min(10_000),
        Work::Polls => messages.min(10_000),
        Work::Leases | Work::GroupedReceive => messages.min(IN_FLIGHT_MAX),
        _ => messages,
    };
    let bed = Bed::make(clock, messages).await?;
    bed.prepare(work).await?;
    let stop = CancellationToken::new();
    let (alone, ()) = tokio::join!(bed.call(&stop), async {
        tokio::time::sleep(LEAST).await;
        stop.cancel();
    });
    let stop = CancellationToken::new();
    let (beside, took) = tokio::join!(bed.call(&stop), async {
        let took = bed.work(work).await;
        stop.cancel();
        took
    });
    Ok(Row { name, messages, took: took?, alone: alone?, beside: beside? })
}

impl Bed {
    async fn make(clock: &Arc<dyn Clock>, messages: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&store::Options::at(dir.path().join("nightmail.redb")))?;
        let queues = Queues::new(store, clock.clone(), Arc::new(Ledger));
        let redrive = Some(RedrivePolicy { dead_letter_queue: DEAD.into(), max_receive_count: 3 });
        queues.ensure(BESIDE, &Options::default()).await?;
        queues.ensure(DEAD, &Options::default()).await?;
        queues.ensure(WORK, &Options { redrive, ..Options::default() }).await?;
        Ok(Self { queues, clock: clock.clone(), messages, _dir: dir })
    }

    /// Fills the queue of the work with what it needs.
    async fn prepare(&self, work: Work) -> anyhow::Result<()> {
        match work {
            Work::Page | Work::GroupedSends | Work::Polls => Ok(()),
            Work::Purge => self.fill(text).await,
            Work::PurgeOfGroups => self.fill(grouped).await,
            Work::GroupedReceive => self.fill(|number| Send { group: Some(number.to_string()), ..text(number) }).await,
            Work::Stats => {
                self.fill(|number| Send { delay: Some(Duration::from_secs(1)), ..text(number) }).await?;
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(())
            }
            Work::Groups | Work::Preview | Work::Redrive => self.fill_with_letters().await,
            Work::Leases => {
                self.fill(text).await?;
                let what = Receive { max: 100, visibility: Some(Duration::from_secs(3600)), owner: Owner::Worker };
                for _ in 0..self.messages.div_ceil(100) {
                    self.queues.receive_now(self.number()?, what).await?;
                }
                Ok(())
            }
        }
    }

    /// Does the work; returns how long it took each time, in ms.
    async fn work(&self, work: Work) -> anyhow::Result<Vec<f64>> {
        match work {
            Work::Stats | Work::Groups | Work::Preview => {
                let (began, mut took) = (self.clock.monotonic(), Vec::new());
                while self.clock.monotonic() - began < LEAST {
                    took.push(self.timed(self.read(work)).await?);
                }
                Ok(took)
            }
            Work::GroupedReceive => {
                let what = Receive { max: 100, visibility: Some(Duration::from_secs(3600)), owner: Owner::Worker };
                let mut took = Vec::new();
                for _ in 0..self.messages.div_ceil(100) {
                    let receive = async { anyhow::Ok(self.queues.receive_now(self.number()?, what).await.map(drop)?) };
                    took.push(self.timed(receive).await?);
                }
                Ok(took)
            }
            Work::Polls => self.wake_polls().await,
            _ => Ok(vec![self.timed(self.once(work)).await?]),
        }
    }

    async fn once(&self, work: Work) -> anyhow::Result<()> {
        match work {
            Work::Purge | Work::PurgeOfGroups => {
                self.queues.purge(WORK).await?;
                let removed = self.queues.remove_purged().await?;
                ensure!(removed == self.messages, "{removed} of {} messages were removed", self.messages);
            }
            Work::Page => page::commit(&self.queues, self.messages).await?,
            Work::GroupedSends => drop(self.queues.send_all(WORK, (0..self.messages).map(grouped).collect()).await?),
            Work::Redrive => {
                let id = self.queues.start_redrive(all()).await?;
                self.queues.drive(id, &CancellationToken::new()).await?;
            }
            Work::Leases => self.queues.end_worker_leases(&BTreeSet::from([WORK.to_owned()])).await?,
            other => unreachable!("{other:?} is repeated"),
        }
        Ok(())
    }

    /// What a command that shows something reads.
    async fn read(&self, work: Work) -> anyhow::Result<()> {
        let now = self.queues.now();
        let read = move |snapshot: &store::Snapshot| {
            match work {
                Work::Stats => drop(stats::stats(snapshot, &catalog::look_up(snapshot, WORK)?, now)?),
                Work::Groups => drop(dead::groups(snapshot, &catalog::look_up(snapshot, DEAD)?)?),
                _ => drop(redrive::plan(snapshot, &all(), now.wall)?),
            }
            Ok::<_, Error>(())
        };
        Ok(self.queues.store().read(read).await?)
    }

    /// Lets as many polls wait as there are messages, and sends a tenth of that; each send wakes one.
    async fn wake_polls(&self) -> anyhow::Result<Vec<f64>> {
        let mut polls = JoinSet::new();
        for _ in 0..self.messages {
            let queues = self.queues.clone();
            polls.spawn(async move { queues.receive(WORK, Receive::for_client(1), Duration::from_secs(20)).await });
        }
        tokio::time::sleep(LEAST).await;
        let mut took = Vec::new();
        for number in 0..self.messages / 10 {
            let send = async { anyhow::Ok(self.queues.send(WORK, text(number)).await.map(drop)?) };
            took.push(self.timed(send).await?);
        }
        polls.shutdown().await;
        Ok(took)
    }

    async fn timed(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
        let began = self.clock.monotonic();
        work.await?;
        Ok((self.clock.monotonic() - began).as_secs_f64() * 1e3)
    }

    /// Calls at a fixed pace until `stop`; returns all waits in ms.
    async fn call(&self, stop: &CancellationToken) -> anyhow::Result<Vec<f64>> {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (queues, clock, stop) = (self.queues.clone(), self.clock.clone(), stop.clone());
            callers.spawn(async move {
                tokio::time::sleep(EVERY * caller / CALLERS).await;
                let mut ticks = interval(EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let queue = catalog::look_up(&queues.store().snapshot()?, BESIDE)?.id;
                let mut waits = Vec::new();
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    let mut began = clock.monotonic();
                    let mut lap = || {
                        let now = clock.monotonic();
                        waits.push((now - std::mem::replace(&mut began, now)).as_secs_f64() * 1e3);
                    };
                    queues.send(BESIDE, text(0)).await?;
                    lap();
                    let found = queues.receive_now(queue, Receive::for_client(1)).await?;
                    lap();
                    for message in found.messages {
                        queues.delete(message.handle).await?;
                    }
                    lap();
                }
                anyhow::Ok(waits)
            });
        }
        let mut waits = Vec::new();
        while let Some(ended) = callers.join_next().await {
            waits.extend(ended??);
        }
        Ok(waits)
    }

    /// The number of the queue of the work.
    fn number(&self) -> anyhow::Result<u32> {
        Ok(catalog::look_up(&self.queues.store().snapshot()?, WORK)?.id)
    }

    async fn fill(&self, message: fn(u64) -> Send) -> anyhow::Result<()> {
        let (queues, messages) = (self.queues.clone(), self.messages);
        let fill = move |part: u64| {
            let queues = queues.clone();
            let part = (part * FILL..messages.min((part + 1) * FILL)).map(message).collect();
            async move { anyhow::Ok(queues.send_all(WORK, part).await.map(drop)?) }
        };
        load::share(&self.clock, FILLERS, messages.div_ceil(FILL), fill).await.map(drop)
    }

    /// Makes dead letters of twenty classes.
    async fn fill_with_letters(&self) -> anyhow::Result<()> {
        let (queues, messages) = (self.queues.clone(), self.messages);
        let fill_with_letters = move |part: u64| {
            let queues = queues.clone();
            let part = part * FILL..messages.min((part + 1) * FILL);
            async move {
                let now = queues.now();
                let step = move |tx: &mut Tx<'_>| {
                    let queue = catalog::find(tx, WORK)?;
                    let mut admission = LetterAdmission::to(tx, &queue)?;
                    for number in part {
                        let why = Failure::new("http", "account", (400 + number % 20).to_string(), "refused");
                        let ended = Ended { function: "bench".into(), why, at: now };
                        let letter = admission.admit(tx, text(number), now)?;
                        send::send_dead(tx, &Ledger, letter, &ended)?;
                    }
                    Ok::<_, Error>(())
                };
                Ok(queues.store().write(step).await?)
            }
        };
        load::share(&self.clock, FILLERS, messages.div_ceil(FILL), fill_with_letters).await.map(drop)
    }
}

fn text(number: u64) -> Send {
    Send::text(load::numbered(number, BODY_BYTES))
}

fn grouped(number: u64) -> Send {
    Send { group: Some("one".into()), ..text(number) }
}

/// A redrive of all letters.
fn all() -> Redrive {
    Redrive { from: DEAD.into(), ..Redrive::default() }
}
