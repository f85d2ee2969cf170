//! `nightmail status`: one sentence of state, then the figures behind it; the exit code says the same.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::api::control::overview::{NextTick, Overview};
use crate::api::control::{Answer, Request};
use crate::base::{Timestamp, units};
use crate::config::Settings;
use crate::function::PaceView;
use crate::queue::stats::Stats;
use crate::work::BreakerView;

use super::ask::{ask_with, strange};
use super::context::Context;
use super::exit::Exit;
use super::output::{Output, note, seconds, table, tame, wrap};
use super::queues::queues_table;
use super::run_table::runs_table;
use super::schedules::in_zone;

/// What `--help` says about the exit code.
pub(super) const AFTER_HELP: &str = "\
Exit codes: 0 healthy; 2 degraded: something of the first line needs a person (a run whose fan-out died, that awaits its \
release, is braked or stopped, or misses its deadline or probably will, a destination that is away, dead letters, a paused queue, a disk that is nearly full, a tick \
that is late); 69 no daemon runs; 77 and others as everywhere. \
With --watch, the code of the last look.";

/// The longest pause between two looks, in seconds.
const WATCH_SECONDS_MAX: u64 = 3600;

/// The first line is cut after this many characters; `--json` has all of it.
const SENTENCE_CHARS_MAX: usize = 2000;

/// `nightmail status`
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Look again every 2 s, or so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=WATCH_SECONDS_MAX)
    )]
    watch: Option<u64>,
}

/// What a look found.
#[derive(Serialize)]
struct Shown<'a> {
    /// `healthy`, `degraded` or `down`.
    health: &'static str,
    /// The first line of the text.
    sentence: String,
    /// What needs a person, a sentence each.
    problems: Vec<String>,
    #[serde(flatten)]
    overview: &'a Overview,
}

pub(super) async fn status(context: &Context, status: Status) -> anyhow::Result<Exit> {
    let settings = context.settings_without_secrets()?;
    let Some(seconds) = status.watch else {
        let overview = look(context, &settings).await?;
        let shown = Shown::of(&overview);
        context.output.show(&shown, |shown| text(context.output, shown))?;
        return Ok(shown.exit());
    };
    let stopped = tokio::signal::ctrl_c();
    let mut exit = Exit::Unavailable;
    let watching = async {
        loop {
            exit = redraw(context, &settings).await?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    };
    tokio::select! {
        ended = watching => return ended,
        stop = stopped => stop?,
    }
    Ok(exit)
}

async fn look(context: &Context, settings: &Settings) -> anyhow::Result<Overview> {
    match ask_with(context, settings, Request::Overview).await? {
        Answer::Overview(overview) => Ok(*overview),
        other => Err(strange(&other)),
    }
}

/// Looks once and shows it in the place of the last look. A daemon that does not answer is a state like others here.
async fn redraw(context: &Context, settings: &Settings) -> anyhow::Result<Exit> {
    let (text, exit) = match look(context, settings).await {
        Ok(overview) => {
            let shown = Shown::of(&overview);
            let line = || serde_json::to_string(&shown);
            (if context.output.is_json() { line()? } else { text(context.output, &shown) }, shown.exit())
        }
        Err(error) if context.output.is_json() => {
            note(format_args!("error: {error:#}"));
            return Ok(Exit::of(&error));
        }
        Err(error) => (context.output.bad(format_args!("{error:#}")), Exit::of(&error)),
    };
    context.output.show_in_place(&text)?;
    Ok(exit)
}

impl<'a> Shown<'a> {
    fn of(overview: &'a Overview) -> Self {
        let problems = overview.problems();
        let health = match (overview.status.is_daemon, problems.is_empty()) {
            (false, _) => "down",
            (true, false) => "degraded",
            (true, true) => "healthy",
        };
        let sentence = match health {
            "down" => down(overview),
            "degraded" => format!("degraded: {}", problems.join("; ")),
            _ => format!("healthy: {}", under_way(overview)),
        };
        Self { health, sentence, problems, overview }
    }

    fn exit(&self) -> Exit {
        match self.health {
            "healthy" => Exit::Ok,
            "degraded" => Exit::Degraded,
            _ => Exit::Unavailable,
        }
    }
}

fn down(overview: &Overview) -> String {
    let waiting: u64 = overview.queues.iter().map(Stats::total).sum();
    let waiting = match waiting {
        0 => "its store is empty".into(),
        1 => "1 message waits".into(),
        more => units::count(more, "message") + " wait",
    };
    format!("down: no daemon runs, and {waiting} (`nightmail serve` or `systemctl start nightmail` starts it)")
}

/// What is being done, for a daemon that needs nothing.
fn under_way(overview: &Overview) -> String {
    if let Some(run) = overview.runs.iter().find(|run| !run.is_complete()) {
        let fetching = if run.fetched_at.is_none() { " so far" } else { "" };
        let eta = run.eta.as_ref().map(|eta| format!(", until about {}", seconds(eta.at))).unwrap_or_default();
        return format!(
            "run {} of {} is under way, sent {} of {}{fetching}{eta}",
            run.id, run.schedule, run.sent, run.fetched
        );
    }
    if let Some(redrive) = overview.redrives.first() {
        return format!("redrive {} of {} is under way", redrive.id, redrive.from);
    }
    let next = overview.schedules.iter().filter_map(|tick| Some((tick.next?, tick))).min_by_key(|(at, _)| *at);
    match next {
        Some((at, tick)) => {
            format!("nothing is under way; next is {} at {}", tick.schedule, in_zone(at, &tick.timezone))
        }
        None => "nothing is under way".into(),
    }
}

fn text(output: Output, shown: &Shown<'_>) -> String {
    let overview = shown.overview;
    let sentence = wrap(&tame(&shown.sentence, SENTENCE_CHARS_MAX));
    let sentence = if shown.health == "healthy" { output.good(sentence) } else { output.bad(sentence) };
    let mut parts = vec![sentence, figures(overview)];
    if !overview.breakers.is_empty() {
        let row = |breaker: &BreakerView| {
            let moment = |at: Option<Timestamp>| at.map(seconds).unwrap_or_default();
            vec![breaker.destination.clone(), moment(breaker.since), moment(breaker.next_try)]
        };
        let header = ["away", "since", "next try"];
        parts.push(table(&header, &[], overview.breakers.iter().map(row).collect()));
    }
    if !overview.silences.is_empty() {
        let row = |silence: &crate::api::control::overview::Silence| {
            let span = units::show_duration(Duration::from_millis(silence.silent_ms));
            vec![silence.destination.clone(), span]
        };
        parts.push(table(&["owes a reply", "for"], &[], overview.silences.iter().map(row).collect()));
    }
    if !overview.paces.is_empty() {
        let header = ["mails to", "limit", "accepted now", "refused", "last"];
        parts.push(table(&header, &[3], overview.paces.iter().map(pace_row).collect()));
    }
    parts.push(queues_table(&overview.queues));
    if !overview.runs.is_empty() {
        parts.push(runs_table(&overview.runs));
    }
    if !overview.redrives.is_empty() {
        let line = |redrive: &crate::api::control::views::RedriveView| {
            let moved = units::count(redrive.moved, "letter");
            format!("redrive {} of {}: {moved} moved since {}", redrive.id, redrive.from, redrive.started_at)
        };
        parts.push(overview.redrives.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
    if !overview.schedules.is_empty() {
        parts.push(table(&["schedule", "next tick"], &[], overview.schedules.iter().map(tick_row).collect()));
    }
    parts.join("\n\n")
}

/// A limit of the rate of mails: what is configured, and what the other side is found to take.
fn pace_row(pace: &PaceView) -> Vec<String> {
    let to = pace.domain.as_ref().map_or_else(|| format!("relay {}", pace.relay), |name| tame(name, 80));
    let limit = [
        pace.per_second.map(|rate| format!("{rate} a second")),
        pace.connections.map(|count| units::count(count, "connection")),
    ];
    let found = pace.found_per_hour.map(|rate| match rate {
        slow @ ..3600 => format!("{slow} an hour"),
        fast => format!("{:.1} a second", fast as f64 / 3600.0),
    });
    let limit = limit.into_iter().flatten().collect::<Vec<_>>().join(", ");
    vec![
        to,
        limit,
        found.unwrap_or_default(),
        pace.refusals.to_string(),
        pace.last_refusal.map(seconds).unwrap_or_default(),
    ]
}

/// The daemon and its disk, a line each.
fn figures(overview: &Overview) -> String {
    let (status, disk) = (&overview.status, &overview.disk);
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".into(), units::show_size);
    let kept = disk.reserve_bytes.map(|bytes| format!(" ({} are kept)", units::show_size(bytes))).unwrap_or_default();
    let disk = format!("disk     {} free{kept}, the store takes {}", size(disk.free_bytes), size(disk.store_bytes));
    let Some(started_at) = status.started_at else { return disk };
    let up = Duration::from_secs(status.now.since(started_at).as_secs());
    let up = units::show_duration(up);
    let sqs = overview.sqs.as_ref().map(|url| format!("\nsqs      {url}")).unwrap_or_default();
    format!("daemon   version {}, pid {}, up {up}\n{disk}{sqs}", status.version, status.pid)
}

fn tick_row(tick: &NextTick) -> Vec<String> {
    let next = tick.next.map_or_else(|| "never".into(), |at| in_zone(at, &tick.timezone));
    vec![tick.schedule.clone(), next]
}
