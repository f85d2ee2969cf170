//! Executes control requests by calling the modules. The code is the same in the daemon and in the CLI.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::{Now, Timestamp};
use crate::function::Function;
use crate::function::statement::MessageIds;
use crate::queue::{self, Queues, Send, catalog, dead, peek, redrive, stats};
use crate::run::report::{self, Row};
use crate::run::{
    self, Accept, Again, Decision, Erase, Erased, Estimates, Refetch, Report, Resent, Resolve, RunState, SendingLimits,
    Suppression, accept, again, erase, resolve, suppression,
};
use crate::schedule::{self, tick, watermark};
use crate::store::check::Findings;
use crate::store::record::{
    Attribute, AttributeValue, QueueRecord, RedriveRecord, RedriveState, RedriveTotals, TickRecord, TickVerdict,
};
use crate::store::{self, Snapshot, Tx, backup};
use crate::work::{BreakerState, Breakers};

use super::overview::{Disk, LATE_AFTER, NextTick, Overview, SILENT_AFTER, Silence};
use super::request::{FailureKind, With};
use super::views::{AheadTick, Checked, ForgottenTicks, RedriveView, ScheduleView, Status};
use super::{Answer, Failure, Request, forecast, import, refusal};

/// A peek shows this many messages at most.
pub const PEEK_MAX: usize = 1000;
/// A peek shows this many bytes of each body at most.
const PEEK_BODY_BYTES_MAX: usize = 4096;
/// A schedule is shown with this many future ticks and as many past ones.
const TICKS_SHOWN: usize = 5;
/// Of the ticks that a clock which was ahead decided, this many are read to find the ticks that still fire.
const AHEAD_READ_MAX: usize = 500;
/// An overview looks for runs under way among this many of the newest.
const RUNS_LOOKED_AT: u64 = 16;

/// Executes control requests.
#[derive(Clone, Debug)]
pub struct Control {
    queues: Queues,
    /// The schedules, each with the queue of the fan-out that it starts.
    schedules: Vec<(schedule::Options, String)>,
    /// The daemon's circuit breakers; `None` in the CLI, which calls no destination.
    breakers: Option<Breakers>,
    /// The daemon's functions; none in the CLI.
    functions: Vec<Arc<dyn Function>>,
    /// By fan-out function.
    message_ids: Arc<BTreeMap<String, MessageIds>>,
    /// The URL of the daemon's SQS endpoint.
    sqs: Option<String>,
    /// The queue of a run's messages, by fan-out function.
    targets: Arc<BTreeMap<String, String>>,
    /// The directory of documents.
    archive: PathBuf,
    /// What the configuration allows for the mails of runs, by schedule.
    sending: Arc<BTreeMap<String, SendingLimits>>,
    /// When the runs under way will probably have ended; nothing in the CLI.
    estimates: Estimates,
    /// Whether the daemon executes the request, rather than the CLI on its own.
    is_daemon: bool,
    /// When the daemon began to answer; `None` in the CLI.
    started_at: Option<Timestamp>,
    /// Cancels requests that read the whole store; cancelled by the daemon when it ends.
    end: CancellationToken,
}

impl Control {
    /// For the daemon; `end` cancels requests that take long.
    pub fn of_daemon(
        queues: Queues,
        schedules: Vec<(schedule::Options, String)>,
        breakers: Breakers,
        end: CancellationToken,
    ) -> Self {
        let started_at = Some(queues.now().wall);
        Self {
            queues,
            schedules,
            breakers: Some(breakers),
            functions: Vec::new(),
            message_ids: Arc::default(),
            sqs: None,
            targets: Arc::default(),
            archive: PathBuf::new(),
            sending: Arc::default(),
            estimates: Estimates::default(),
            is_daemon: true,
            started_at,
            end,
        }
    }

    /// For the CLI when no daemon runs.
    pub fn of_cli(queues: Queues, schedules: Vec<(schedule::Options, String)>) -> Self {
        let end = CancellationToken::new();
        Self {
            queues,
            schedules,
            breakers: None,
            functions: Vec::new(),
            message_ids: Arc::default(),
            sqs: None,
            targets: Arc::default(),
            archive: PathBuf::new(),
            sending: Arc::default(),
            estimates: Estimates::default(),
            is_daemon: false,
            started_at: None,
            end,
        }
    }

    /// The same with the functions that the daemon runs, whose silences an overview names.
    pub fn with_functions(self, functions: Vec<Arc<dyn Function>>) -> Self {
        Self { functions, ..self }
    }

    /// The same with what gives the mails of a run their Message-IDs, by the name of its fan-out function.
    pub fn with_message_id_rules(self, message_ids: BTreeMap<String, MessageIds>) -> Self {
        Self { message_ids: Arc::new(message_ids), ..self }
    }

    /// The same with the URL of the SQS endpoint, which an overview names.
    pub fn with_sqs(self, sqs: Option<String>) -> Self {
        Self { sqs, ..self }
    }

    /// The same with the queue of a run's messages, by the name of its fan-out function.
    pub fn with_targets(self, targets: BTreeMap<String, String>) -> Self {
        Self { targets: Arc::new(targets), ..self }
    }

    /// The same with what the configuration allows for the mails of runs, by schedule.
    pub fn with_sending(self, sending: BTreeMap<String, SendingLimits>) -> Self {
        Self { sending: Arc::new(sending), ..self }
    }

    /// The same with the estimates that the daemon makes.
    pub fn with_estimates(self, estimates: Estimates) -> Self {
        Self { estimates, ..self }
    }

    /// The same with the directory of documents, which may not be there.
    pub fn with_archive(self, archive: PathBuf) -> Self {
        Self { archive, ..self }
    }

    /// Executes one request.
    ///
    /// # Errors
    /// A refusal that says what is wrong and what to do.
    pub async fn answer(&self, request: Request) -> Result<Answer, Failure> {
        if request.is_read_only() {
            let control = self.clone();
            // Scans of a large queue take a while: they must not block an async worker thread.
            let read = tokio::task::spawn_blocking(move || control.read(request)).await;
            return read.map_err(|error| failure(FailureKind::Store, error))?;
        }
        self.change(request).await
    }

    fn read(&self, request: Request) -> Result<Answer, Failure> {
        let snapshot = self.queues.store().snapshot()?;
        let now = self.queues.now();
        Ok(match request {
            Request::Overview => Answer::Overview(Box::new(self.overview(&snapshot, now)?)),
            Request::Queues => Answer::Queues(queues(&snapshot, now)?),
            Request::Peek { queue, max } => {
                let queue = catalog::look_up(&snapshot, &queue)?;
                Answer::Messages(peek::peek(&snapshot, &queue, max.min(PEEK_MAX), PEEK_BODY_BYTES_MAX, now)?)
            }
            Request::Dead { queue } => {
                let queue = dead_letter_queue(&snapshot, &queue)?;
                Answer::Dead(dead::groups(&snapshot, &queue)?)
            }
            Request::PreviewRedrive(what) => {
                not_folded(&snapshot, &what)?;
                Answer::Preview(redrive::plan(&snapshot, &what, now.wall)?.preview)
            }
            Request::Redrives => Answer::Redrives(redrives(&snapshot)?),
            Request::Runs { max } => Answer::Runs(self.estimated(report::list(&snapshot, max)?)),
            Request::Run { id } => {
                let mut run = report::report(&snapshot, id)?;
                run.eta = self.estimates.of(id);
                Answer::Run(run)
            }
            Request::Forecast { schedule, users } => {
                let (options, sending) = (&self.schedule(&schedule)?.0, self.sending.get(&schedule));
                Answer::Forecast(forecast::forecast(&snapshot, (options, sending), users, now.wall)?)
            }
            Request::Recipients { id, filter, after } => {
                let rows = report::rows(&snapshot, id, &filter, after.as_deref())?;
                Answer::Recipients(self.with_message_ids(&snapshot, id, rows)?)
            }
            Request::Suppressions { after } => Answer::Suppressions(suppression::list(&snapshot, after.as_deref())?),
            Request::VerifyRun { id } => {
                let mut findings = Findings::new(self.end.clone());
                run::verify::verify(&snapshot, id, &mut findings)?;
                Answer::Checked(checked(findings))
            }
            Request::PreviewResolve(what) => Answer::Count(resolve::unknown(&snapshot, &what)?.len()),
            Request::Schedules => Answer::Schedules(self.schedules(&snapshot, now.wall)?),
            Request::Breakers => Answer::Breakers(self.breakers.as_ref().map(Breakers::views).unwrap_or_default()),
            Request::Backup(order) => Answer::Backup(self.queues.store().backup(&order, &self.end)?),
            Request::CheckStore => Answer::Checked(check(&snapshot, Findings::new(self.end.clone()))?),
            _ => Answer::Status(self.status(now.wall)),
        })
    }

    async fn change(&self, request: Request) -> Result<Answer, Failure> {
        Ok(match request {
            Request::StartRedrive(what) => {
                let order = what.clone();
                self.queues.store().read(move |snapshot| not_folded(snapshot, &order)).await?;
                Answer::Started(self.queues.start_redrive(what).await?)
            }
            Request::CancelRedrive { id } => Answer::Count(self.queues.cancel_redrive(id).await?),
            Request::Purge { queue } => Answer::Count(self.queues.purge(&queue).await?),
            Request::Send { queue, body, with } => {
                Answer::Sent(self.queues.send(&queue, message(body, *with)).await?.message_id)
            }
            Request::Import { queue, source, messages } => {
                Answer::Imported(import::import(&self.queues, (&queue, &source), messages).await?)
            }
            Request::UndoRedrive { id } => Answer::Started(self.queues.undo_redrive(id).await?),
            Request::Pause { queue, by } => {
                self.queues.pause(&queue, &by).await?;
                tracing::info!(queue, by, "a queue was paused");
                Answer::Done
            }
            Request::Resume { queue } => {
                self.queues.resume(&queue).await?;
                tracing::info!(queue, "a queue goes on");
                Answer::Done
            }
            Request::Probe { destination } => Answer::Probed(self.probe(destination.as_deref())?),
            Request::ForgetTicks { schedule, tick } => Answer::Forgotten(self.forget_ticks(&schedule, tick).await?),
            Request::StartRun { schedule, params, note } => {
                Answer::Started(self.start_run(&schedule, params, note).await?)
            }
            Request::DecideRun { id, decision } => Answer::Run(self.decide_run(id, decision).await?),
            Request::RefetchRun { id } => Answer::Run(self.refetch_run(id).await?),
            Request::NoteRun { id, text } => Answer::Run(self.note_run(id, text).await?),
            Request::Resend(what) => Answer::Resent(self.resend(what).await?),
            Request::Accept(what) => Answer::Count(self.accept(what).await?),
            Request::Resolve(what) => Answer::Count(self.resolve(what).await?),
            Request::Erase(what) => Answer::Erased(self.erase(what).await?),
            Request::Suppress { what } => Answer::Count(self.suppress(what).await?),
            Request::Unsuppress { address } => Answer::Count(self.unsuppress(address).await?),
            _ => Answer::Status(self.status(self.queues.now().wall)),
        })
    }

    fn probe(&self, destination: Option<&str>) -> Result<Vec<String>, Failure> {
        let Some(breakers) = &self.breakers else { return Ok(Vec::new()) };
        breakers.probe_now(destination).ok_or_else(|| {
            let known: Vec<String> = breakers.views().into_iter().map(|view| view.destination).collect();
            let name = destination.unwrap_or_default();
            failure(FailureKind::Request, format!("destination {name:?} not found (known: {})", known.join(", ")))
        })
    }

    async fn start_run(&self, name: &str, params: BTreeMap<String, String>, note: String) -> Result<u64, Failure> {
        let (options, queue) = self.schedule(name)?.clone();
        let now = self.queues.now();
        let step = move |tx: &mut Tx<'_>| tick::start_by_hand(tx, &options, &queue, (&params, &note), now);
        let run = self.queues.store().write(step).await?;
        tracing::info!(schedule = name, run, "a run was started by hand");
        Ok(run)
    }

    async fn decide_run(&self, id: u64, decision: Decision) -> Result<Report, Failure> {
        let now = self.queues.now().wall;
        self.queues.store().write(move |tx| run::decide(tx, id, decision, now)).await?;
        let what = if decision == Decision::AbandonRefetch { "refetch of the run" } else { "run" };
        tracing::warn!(run = id, "the {what} was {} by hand", decision.past());
        Ok(self.queues.store().read(move |snapshot| report::report(snapshot, id)).await?)
    }

    async fn refetch_run(&self, id: u64) -> Result<Report, Failure> {
        let record =
            self.queues.store().read(move |snapshot| snapshot.runs()?.get(&id)?.ok_or(run::Error::NotFound(id)));
        let record = record.await?;
        let of_schedule = self.schedules.iter().find(|(options, _)| options.name == record.schedule);
        let of_function = || self.schedules.iter().find(|(options, _)| options.function == record.function);
        let Some((_, queue)) = of_schedule.or_else(of_function) else {
            return Err(run::Error::NoTarget { run: id, function: record.function }.into());
        };
        let (guard, gate) = of_schedule.map_or((None, None), |(options, _)| (options.guard, options.gate));
        let (what, now) = (Refetch { run: id, queue: queue.clone(), guard, gate }, self.queues.now());
        self.queues.store().write(move |tx| run::refetch(tx, &what, now)).await?;
        tracing::info!(run = id, "the users of the run are fetched again");
        Ok(self.queues.store().read(move |snapshot| report::report(snapshot, id)).await?)
    }

    async fn note_run(&self, id: u64, text: String) -> Result<Report, Failure> {
        self.queues.store().write(move |tx| run::note::note(tx, id, &text)).await?;
        tracing::info!(run = id, "the run's note was set");
        Ok(self.queues.store().read(move |snapshot| report::report(snapshot, id)).await?)
    }

    async fn resend(&self, what: Again) -> Result<Vec<Resent>, Failure> {
        limit_users(&what.users)?;
        let target = self.target(what.run).await?;
        let (queues, run) = (self.queues.clone(), what.run);
        // In a task of its own: one that has begun goes on when its client disconnects.
        let resent = tokio::spawn(async move { again::resend(&queues, &what, &target).await }).await;
        let resent = resent.map_err(|error| failure(FailureKind::Store, error))??;
        tracing::info!(run, mails = resent.len(), "recipients are mailed again by hand");
        Ok(resent)
    }

    async fn accept(&self, what: Accept) -> Result<u64, Failure> {
        limit_users(&what.users)?;
        let (queues, run) = (self.queues.clone(), what.run);
        // As for a resend, it goes on when the caller is gone.
        let accepted = tokio::spawn(async move { accept::accept(&queues, &what).await }).await;
        let accepted = accepted.map_err(|error| failure(FailureKind::Store, error))??;
        tracing::warn!(run, accepted, "changed statements were accepted by hand");
        Ok(accepted)
    }

    async fn erase(&self, what: Erase) -> Result<Erased, Failure> {
        let (queues, archive) = (self.queues.clone(), self.archive.clone());
        // As for a resolution, it goes on when the caller is gone.
        let erased = tokio::spawn(async move { erase::erase(&queues, &what, &archive).await }).await;
        let erased = erased.map_err(|error| failure(FailureKind::Store, error))??;
        // Without the user's id: a log outlives what is erased.
        let Erased { recipients, messages, documents, .. } = &erased;
        tracing::info!(recipients, messages, documents, "a person was erased");
        Ok(erased)
    }

    async fn resolve(&self, what: Resolve) -> Result<u64, Failure> {
        let target = self.target(what.run).await?;
        let (queues, order) = (self.queues.clone(), what.clone());
        // In a task of its own: one that has begun goes on when its client disconnects.
        let resolved = tokio::spawn(async move { resolve::resolve(&queues, &order, &target).await }).await;
        let resolved = resolved.map_err(|error| failure(FailureKind::Store, error))??;
        tracing::info!(run = what.run, resolved, resolution = ?what.resolution, "doubts were resolved by hand");
        Ok(resolved)
    }

    async fn suppress(&self, what: Vec<Suppression>) -> Result<u64, Failure> {
        if what.len() > suppression::ADDED_MAX {
            let text = format!("{} addresses in one request, at most {}", what.len(), suppression::ADDED_MAX);
            return Err(failure(FailureKind::Request, text));
        }
        let now = self.queues.now().wall;
        let added = self.queues.store().write(move |tx| suppression::add(tx, &what, now)).await?;
        tracing::info!(added, "addresses came onto the suppression list");
        Ok(added)
    }

    async fn unsuppress(&self, address: String) -> Result<u64, Failure> {
        let removed = self.queues.store().write(move |tx| suppression::remove(tx, &address)).await?;
        tracing::info!(removed, "an address was taken off the suppression list");
        Ok(u64::from(removed))
    }

    /// The queue of the messages of a run.
    async fn target(&self, run: u64) -> Result<String, Failure> {
        let read = move |snapshot: &Snapshot| snapshot.runs()?.get(&run)?.ok_or(run::Error::NotFound(run));
        let record = self.queues.store().read(read).await?;
        let target = self.targets.get(&record.function).cloned();
        Ok(target.ok_or(run::Error::NoTarget { run, function: record.function })?)
    }

    fn schedule(&self, name: &str) -> Result<&(schedule::Options, String), Failure> {
        self.schedules.iter().find(|(options, _)| options.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.schedules.iter().map(|(options, _)| options.name.as_str()).collect();
            let text = format!("schedule {name:?} not found (known: {})", known.join(", "));
            failure(FailureKind::Request, text)
        })
    }

    async fn forget_ticks(&self, name: &str, tick: Option<Timestamp>) -> Result<ForgottenTicks, Failure> {
        self.schedule(name)?;
        let now = self.queues.now().wall;
        let mut sum = ForgottenTicks { forgotten: 0, with_run: 0 };
        if let Some(tick) = tick {
            let schedule = name.to_owned();
            self.queues.store().write(move |tx| watermark::forget_one(tx, &schedule, tick, now)).await?;
            sum.forgotten = 1;
        }
        let mut after = Some(now).filter(|_| tick.is_none());
        while let Some(from) = after {
            let schedule = name.to_owned();
            let step = move |tx: &mut Tx<'_>| watermark::forget(tx, &schedule, from);
            let part = self.queues.store().write::<_, store::Error, _>(step).await?;
            sum.forgotten += part.removed;
            sum.with_run += part.with_run;
            after = part.upto;
        }
        tracing::info!(schedule = name, forgotten = sum.forgotten, "decisions about future ticks were forgotten");
        Ok(sum)
    }

    fn schedules(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Vec<ScheduleView>, Failure> {
        let view = |(options, _): &(schedule::Options, String)| {
            let past = tick::newest(snapshot, &options.name, now, TICKS_SHOWN)?;
            let past = past.into_iter().map(|(at, tick)| (at, verdict(&tick.verdict)));
            let ahead = watermark::ahead(snapshot, &options.name, now, AHEAD_READ_MAX)?;
            let next = std::iter::successors(options.rule.next_after(now), |at| options.rule.next_after(*at));
            // A tick with a run does not fire again.
            let has_run = |at: &Timestamp| ahead.iter().any(|(tick, row)| tick == at && watermark::has_run(row));
            let next = next.take(AHEAD_READ_MAX).filter(|at| !has_run(at));
            Ok(ScheduleView {
                name: options.name.clone(),
                rule: options.rule.describe(),
                timezone: options.rule.zone_name().to_owned(),
                next: next.take(TICKS_SHOWN).collect(),
                past: past.collect(),
                ahead: ahead.iter().take(TICKS_SHOWN).map(ahead_tick).collect(),
            })
        };
        self.schedules.iter().map(view).collect()
    }

    fn status(&self, now: Timestamp) -> Status {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Status { version, pid: std::process::id(), is_daemon: self.is_daemon, now, started_at: self.started_at }
    }

    fn overview(&self, snapshot: &Snapshot, now: Now) -> Result<Overview, Failure> {
        let mut runs = self.estimated(report::list_with_held(snapshot, RUNS_LOOKED_AT)?);
        let newest = runs.first().map(|run| run.id);
        let needs_a_look = |run: &Report| !run.is_complete() || run.unknown > 0 || run.state == RunState::Stopped;
        runs.retain(|run| needs_a_look(run) || Some(run.id) == newest);
        if runs.len() > 1 {
            runs.retain(needs_a_look);
        }
        let mut redrives = redrives(snapshot)?;
        redrives.retain(|redrive| redrive.state == "running");
        let views = self.schedules(snapshot, now.wall)?;
        let schedules = self.schedules.iter().zip(views).map(|((options, _), view)| next_tick(options, view, now.wall));
        let mut breakers = self.breakers.as_ref().map(Breakers::views).unwrap_or_default();
        breakers.retain(|breaker| breaker.state != BreakerState::Closed);
        Ok(Overview {
            status: self.status(now.wall),
            queues: queues(snapshot, now)?,
            runs,
            redrives,
            breakers,
            silences: self.silences(),
            paces: self.functions.iter().flat_map(|function| function.paces()).collect(),
            schedules: schedules.collect(),
            disk: self.disk(),
            sqs: self.sqs.clone(),
        })
    }

    /// The same runs with their estimates.
    fn estimated(&self, mut runs: Vec<Report>) -> Vec<Report> {
        runs.iter_mut().for_each(|run| run.eta = self.estimates.of(run.id));
        runs
    }

    /// The longest silence of each destination, of those that are worth telling.
    fn silences(&self) -> Vec<Silence> {
        let mut longest: BTreeMap<String, Duration> = BTreeMap::new();
        for (destination, silence) in self.functions.iter().flat_map(|function| function.silences()) {
            let known = longest.entry(destination.to_string()).or_default();
            *known = silence.max(*known);
        }
        let told = longest.into_iter().filter(|(_, silence)| *silence > SILENT_AFTER);
        let millis = |silence: Duration| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        told.map(|(destination, silence)| Silence { destination, silent_ms: millis(silence) }).collect()
    }

    /// Adds the Message-IDs of mails that the ledger has no proof of: those to come, and those in doubt.
    fn with_message_ids(&self, snapshot: &Snapshot, id: u64, mut rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
        let Some(run) = snapshot.runs()?.get(&id)? else { return Ok(rows) };
        let Some(ids) = self.message_ids.get(&run.function) else { return Ok(rows) };
        let identity = run::identity(&run.schedule, &run.params, run.scheduled_for);
        // A malformed record has no mail.
        for row in rows.iter_mut().filter(|row| row.message_id.is_none() && !row.address.is_empty()) {
            let account = row.account.as_deref().unwrap_or(&row.user);
            row.message_id = Some(ids.of(&identity, &row.user, account));
        }
        Ok(rows)
    }

    fn disk(&self) -> Disk {
        let store = self.queues.store();
        let free = rustix::fs::statvfs(store.path().parent().unwrap_or(Path::new(".")));
        Disk {
            free_bytes: free.ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            store_bytes: store.disk_bytes().ok(),
            reserve_bytes: self.is_daemon.then(|| self.queues.space().reserve_bytes()),
        }
    }
}

fn next_tick(options: &schedule::Options, view: ScheduleView, now: Timestamp) -> NextTick {
    // A tick is due after the newest decided one. A schedule that nobody has looked at yet has none that is due.
    let undecided = view.past.first().and_then(|(newest, _)| options.rule.next_after(*newest));
    NextTick {
        schedule: view.name,
        timezone: view.timezone,
        next: view.next.first().copied(),
        late_since: undecided.filter(|at| at.after(LATE_AFTER) < now),
    }
}

/// Checks every row by itself, then the rules between tables, module by module.
fn check(snapshot: &Snapshot, mut findings: Findings) -> Result<Checked, store::Error> {
    store::check::records(snapshot, &mut findings)?;
    queue::check::check(snapshot, &mut findings)?;
    run::check::check(snapshot, &mut findings)?;
    Ok(checked(findings))
}

fn checked(findings: Findings) -> Checked {
    Checked { rows: findings.rows, total: findings.total, findings: findings.shown }
}

fn queues(snapshot: &Snapshot, now: Now) -> Result<Vec<stats::Stats>, queue::Error> {
    catalog::list(snapshot)?.iter().map(|queue| stats::stats(snapshot, queue, now)).collect()
}

/// Refuses a redrive of the letters of a run that was folded.
fn not_folded(snapshot: &Snapshot, what: &redrive::Redrive) -> Result<(), run::Error> {
    what.selection.run.map_or(Ok(()), |run| run::fold::check(snapshot, run))
}

/// The dead-letter queue of the named queue; the queue itself if it has none, as dead-letter queues do.
fn dead_letter_queue(snapshot: &Snapshot, name: &str) -> Result<QueueRecord, queue::Error> {
    let queue = catalog::look_up(snapshot, name)?;
    match &queue.attributes.redrive {
        Some((dead_letter_queue, _)) => catalog::look_up(snapshot, dead_letter_queue),
        None => Ok(queue),
    }
}

/// One request names at most so many users.
fn limit_users(users: &[String]) -> Result<(), Failure> {
    if users.len() <= again::USERS_MAX {
        return Ok(());
    }
    let text = format!("{} recipients in one request, at most {}", users.len(), again::USERS_MAX);
    Err(failure(FailureKind::Request, text))
}

fn redrives(snapshot: &Snapshot) -> Result<Vec<RedriveView>, queue::Error> {
    let names: BTreeMap<u32, String> =
        catalog::list(snapshot)?.into_iter().map(|queue| (queue.id, queue.name)).collect();
    let view = |(redrive, totals): (RedriveRecord, RedriveTotals)| {
        let (state, ended_at, why) = match redrive.state {
            RedriveState::Running => ("running", None, None),
            RedriveState::Completed { at } => ("completed", Some(at), None),
            RedriveState::Cancelled { at } => ("cancelled", Some(at), None),
            RedriveState::Failed { at, why } | RedriveState::QueueGone { at, why } => ("failed", Some(at), Some(why)),
        };
        RedriveView {
            id: redrive.id,
            from: names.get(&redrive.from).cloned().unwrap_or_default(),
            state: state.into(),
            moved: redrive.moved,
            started_at: redrive.started_at,
            ended_at,
            why,
            succeeded: totals.succeeded,
            failed: totals.failed,
            undoes: redrive.undoes,
        }
    };
    Ok(redrive::list_with_outcomes(snapshot)?.into_iter().map(view).collect())
}

fn message(body: String, with: With) -> Send {
    let text = |text: String| Attribute { data_type: "String".into(), value: AttributeValue::Text(text) };
    Send {
        delay: with.delay,
        attributes: with.attributes.into_iter().map(|(name, value)| (name, text(value))).collect(),
        group: with.group,
        deduplication_id: with.deduplication_id,
        priority: with.priority,
        unique: with.unique,
        expires_at: with.expires_at,
        ..Send::text(body)
    }
}

fn ahead_tick((scheduled_for, tick): &(Timestamp, TickRecord)) -> AheadTick {
    AheadTick {
        scheduled_for: *scheduled_for,
        decided_at: tick.decided_at,
        decision: verdict(&tick.verdict),
        is_void: !watermark::has_run(tick),
    }
}

fn verdict(verdict: &TickVerdict) -> String {
    match verdict {
        TickVerdict::Fired { run } => format!("started run {run}"),
        TickVerdict::Known => "first seen".into(),
        TickVerdict::Waiting => "waits for room in the fan-out's queue".into(),
        TickVerdict::Skipped { why } => format!("skipped: {why}"),
    }
}

fn failure(kind: FailureKind, text: impl std::fmt::Display) -> Failure {
    Failure { kind, text: text.to_string() }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let kind = match error {
            store::Error::Denied { .. } => FailureKind::Denied,
            _ => FailureKind::Store,
        };
        failure(kind, error)
    }
}

impl From<backup::Error> for Failure {
    fn from(error: backup::Error) -> Self {
        match error {
            backup::Error::Store(error) => error.into(),
            other => failure(FailureKind::Request, other),
        }
    }
}

impl From<queue::Error> for Failure {
    fn from(error: queue::Error) -> Self {
        match error {
            queue::Error::Store(error) => error.into(),
            other => failure(FailureKind::Request, refusal::text(&other)),
        }
    }
}

impl From<run::Error> for Failure {
    fn from(error: run::Error) -> Self {
        match error {
            run::Error::Store(error) => error.into(),
            run::Error::Queue(error) => error.into(),
            other => failure(FailureKind::Request, other),
        }
    }
}

impl From<watermark::ForgetError> for Failure {
    fn from(error: watermark::ForgetError) -> Self {
        match error {
            watermark::ForgetError::Store(error) => error.into(),
            other => failure(FailureKind::Request, other),
        }
    }
}

impl From<tick::StartError> for Failure {
    fn from(error: tick::StartError) -> Self {
        match error {
            tick::StartError::Store(error) => error.into(),
            tick::StartError::Queue(error) => error.into(),
            tick::StartError::Run(error) => error.into(),
            tick::StartError::Params(error) => failure(FailureKind::Request, error),
        }
    }
}
