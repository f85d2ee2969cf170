//! `nightmail schedules`: the ticks to come, those decided, and what a clock that was ahead decided.

use clap::{Args, Subcommand};

use crate::api::control::views::{AheadTick, ForgottenTicks, ScheduleView};
use crate::api::control::{Answer, Request};
use crate::base::{Timestamp, units};

use super::ask::{ask, strange};
use super::context::Context;

/// `nightmail schedules`
#[derive(Debug, Args)]
pub(super) struct Schedules {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What can be done to schedules.
#[derive(Debug, Subcommand)]
enum Command {
    /// Remove what a clock that was ahead decided about ticks in the future; a tick with a run stays and does not fire
    /// again
    Forget(Forget),
}

/// `nightmail schedules forget`
#[derive(Debug, Args)]
struct Forget {
    /// The schedule
    schedule: String,
    /// The tick, as `nightmail schedules` shows it: "2026-11-01 08:00:00 +01:00"
    #[arg(value_parser = parse_tick, required_unless_present = "all", conflicts_with = "all")]
    tick: Option<Timestamp>,
    /// All of the schedule's ticks in the future
    #[arg(long)]
    all: bool,
}

fn parse_tick(text: &str) -> Result<Timestamp, String> {
    // The list has a space before the offset, which RFC 3339 has not.
    let moment = text.replace(" +", "+").replace(" -", "-").parse::<jiff::Timestamp>();
    moment.map(Timestamp::from_jiff).map_err(|error| {
        format!("{error} (write the tick as `nightmail schedules` shows it: \"2026-11-01 08:00:00 +01:00\")")
    })
}

pub(super) async fn run(context: &Context, what: Schedules) -> anyhow::Result<()> {
    let Some(Command::Forget(forget)) = what.command else { return list(context).await };
    let request = Request::ForgetTicks { schedule: forget.schedule, tick: forget.tick };
    match ask(context, request).await? {
        Answer::Forgotten(forgotten) => context.output.show(&forgotten, forgotten_text),
        other => Err(strange(&other)),
    }
}

fn forgotten_text(forgotten: &ForgottenTicks) -> String {
    let mut out = format!("{} in the future forgotten", units::count(forgotten.forgotten, "decision"));
    if forgotten.with_run > 0 {
        out += &format!("; {} with a run stay: they do not fire again", units::count(forgotten.with_run, "tick"));
    }
    out
}

async fn list(context: &Context) -> anyhow::Result<()> {
    match ask(context, Request::Schedules).await? {
        Answer::Schedules(schedules) => context.output.list(&schedules, "no schedules", schedules_text),
        other => Err(strange(&other)),
    }
}

fn schedules_text(schedules: &[ScheduleView]) -> String {
    let mut out = String::new();
    for schedule in schedules {
        out += &format!("{}: {}\n", schedule.name, schedule.rule);
        for at in &schedule.next {
            out += &format!("  next  {}\n", in_zone(*at, &schedule.timezone));
        }
        for tick in &schedule.ahead {
            out += &format!(
                "  ahead {}  {}\n",
                in_zone(tick.scheduled_for, &schedule.timezone),
                ahead_text(schedule, tick)
            );
        }
        for (at, what) in &schedule.past {
            out += &format!("  past  {}  {what}\n", in_zone(*at, &schedule.timezone));
        }
    }
    out
}

fn ahead_text(schedule: &ScheduleView, tick: &AheadTick) -> String {
    let by = format!("by a clock that was ahead, at {}", in_zone(tick.decided_at, &schedule.timezone));
    let meaning = if tick.is_void { "void: decided again when its time comes" } else { "does not fire again" };
    format!("{} {by} ({meaning})", tick.decision)
}

/// A moment as the wall clock of the schedule's zone shows it, with the offset from UTC.
pub(super) fn in_zone(at: Timestamp, zone: &str) -> String {
    let zoned = at.to_jiff().and_then(|moment| moment.in_tz(zone).ok());
    zoned.map_or_else(|| at.to_string(), |zoned| zoned.strftime("%Y-%m-%d %H:%M:%S %:z").to_string())
}
