//! `nightmail redrive`: moves dead letters back, with a preview, a rate and progress.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::api::control::views::RedriveView;
use crate::api::control::{Answer, Client, Request};
use crate::base::outcome::shorten;
use crate::base::{Fingerprint, MessageId, units};
use crate::config::Settings;
use crate::queue::redrive::{CanaryOptions, Preview, RATE_MAX, Redrive as What};

use super::ask::{ask, ask_with, strange};
use super::confirm::{Sure, confirm};
use super::context::Context;
use super::exit::Interrupted;
use super::output::{seconds, table};

/// The interval between progress queries.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `nightmail redrive`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Redrive {
    #[command(subcommand)]
    command: Option<Command>,
    /// The dead-letter queue
    #[arg(required_unless_present = "cancel")]
    from: Option<String>,
    /// Where the letters go [default: each one's own source queue]
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Only letters of which this is true; may be given several times. One of fingerprint=HEX, error=TEXT (a part of its
    /// error), run=NUMBER, attribute.NAME=VALUE, older=DURATION, newer=DURATION (since the letter died)
    #[arg(long = "where", value_name = "CONDITION", value_parser = parse_where)]
    conditions: Vec<Condition>,
    /// Only these messages
    #[arg(long = "id", value_name = "MESSAGE ID")]
    ids: Vec<MessageId>,
    /// At most this many letters per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: Option<u32>,
    /// Say what would move, and move nothing
    #[arg(long)]
    preview: bool,
    /// Exactly the letters of a preview of this queue with the same conditions, which names this token
    #[arg(long, value_name = "TOKEN")]
    as_of: Option<String>,
    /// First this share of the letters, then ten times as many, and so on, each step when the one before has ended
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    canary: Option<u32>,
    /// With --canary: stop when more than this share of the letters died again
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "10%", requires = "canary")]
    max_failed: u32,
    /// Start it and return at once
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    sure: Sure,
    /// Stop a running redrive; what was moved stays moved
    #[arg(long, value_name = "REDRIVE", conflicts_with_all = ["from", "to", "conditions", "ids", "rate", "preview", "as_of", "canary"])]
    cancel: Option<u64>,
}

/// What can be done to a redrive that has ended.
#[derive(Debug, Subcommand)]
enum Command {
    /// Take back the letters of a redrive that nobody has received since
    Undo {
        /// The redrive, as `nightmail redrives` numbers it
        redrive: u64,
    },
}

/// One thing that must be true of a letter.
#[derive(Clone, Debug)]
enum Condition {
    Fingerprint(Fingerprint),
    Error(String),
    Run(u64),
    Attribute(String, String),
    Older(Duration),
    Newer(Duration),
}

fn parse_where(text: &str) -> Result<Condition, String> {
    const KNOWN: &str = "fingerprint, error, run, attribute.<name>, older, newer";
    let (key, value) = text.split_once('=').ok_or_else(|| format!("write one of {KNOWN}, =, and the value"))?;
    let duration = || units::duration(value).map_err(|error| error.to_string());
    match key {
        "fingerprint" => value.parse().map(Condition::Fingerprint).map_err(|error| format!("{error}")),
        "error" => Ok(Condition::Error(value.into())),
        "run" => value.parse().map(Condition::Run).map_err(|_| format!("run {value:?} is not a number")),
        "older" => duration().map(Condition::Older),
        "newer" => duration().map(Condition::Newer),
        other => match other.strip_prefix("attribute.") {
            Some(name) => Ok(Condition::Attribute(name.into(), value.into())),
            None => Err(format!("unknown condition {other:?} (known: {KNOWN})")),
        },
    }
}

/// A share such as `1%` or `0.5%`, in thousandths.
fn parse_share(text: &str) -> Result<u32, String> {
    let share = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match share.filter(|share| (0.0..=100.0).contains(share)).map(|share| share * 10.0) {
        Some(permille) if permille == 0.0 || permille >= 1.0 => Ok(permille.round() as u32),
        _ => Err(format!("must be 0%, or 0.1% to 100% (got {text:?})")),
    }
}

/// The letters that meet all conditions. The daemon turns ages into moments, so that they count from the preview.
fn selected(conditions: Vec<Condition>, ids: Vec<MessageId>) -> What {
    let mut what = What::default();
    let selection = &mut what.selection;
    selection.ids = ids;
    for condition in conditions {
        match condition {
            Condition::Fingerprint(fingerprint) => selection.fingerprint = Some(fingerprint),
            Condition::Error(part) => selection.error_contains = Some(part),
            Condition::Run(run) => selection.run = Some(run),
            Condition::Attribute(name, value) => selection.attribute = Some((name, value)),
            Condition::Older(span) => what.older = Some(span),
            Condition::Newer(span) => what.newer = Some(span),
        }
    }
    what
}

pub(super) async fn redrive(context: &Context, redrive: Redrive) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    if let Some(id) = redrive.cancel {
        return match ask_with(context, &settings, Request::CancelRedrive { id }).await? {
            Answer::Count(moved) => {
                let cancelled = serde_json::json!({ "redrive": id, "moved": moved });
                let moved = units::count(moved, "letter");
                context.output.show(&cancelled, |_| format!("redrive {id} cancelled; moved before that: {moved}"))
            }
            other => Err(strange(&other)),
        };
    }
    if let Some(Command::Undo { redrive: id }) = redrive.command {
        let id = started(ask_with(context, &settings, Request::UndoRedrive { id }).await?)?;
        return finish(context, &settings, id, 0).await;
    }
    let is_everything = redrive.conditions.is_empty() && redrive.ids.is_empty() && redrive.as_of.is_none();
    let what = What {
        from: redrive.from.unwrap_or_default(),
        to: redrive.to,
        per_second: redrive.rate,
        as_of: redrive.as_of,
        canary: redrive
            .canary
            .map(|first_permille| CanaryOptions { first_permille, failed_permille_max: redrive.max_failed }),
        ..selected(redrive.conditions, redrive.ids)
    };
    let request = Request::PreviewRedrive(what.clone());
    if redrive.preview {
        let preview = previewed(ask_with(context, &settings, request).await?)?;
        return context.output.show(&preview, |preview| preview_text(&what.from, preview));
    }
    // Not from the store, as other requests that read: without a daemon nobody should be asked in vain.
    let preview = previewed(context.client(&settings).ask(&request).await?)?;
    if is_everything {
        confirm_all(redrive.sure, &what.from, &preview)?;
    }
    let what = What { as_of: Some(preview.as_of.clone()), ..what };
    let id = started(ask_with(context, &settings, Request::StartRedrive(what)).await?)?;
    if redrive.detach {
        let started = serde_json::json!({ "redrive": id });
        return context.output.show(&started, |_| format!("redrive {id} started ({})", how_to_stop(id)));
    }
    finish(context, &settings, id, preview.matching).await
}

/// Asks before all letters of a queue move, on a terminal only: what a script redrives is as it always was with SQS, and
/// it can be cancelled and undone.
fn confirm_all(sure: Sure, from: &str, preview: &Preview) -> anyhow::Result<()> {
    if preview.matching == 0 || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let to = preview.destinations.iter().map(|(queue, count)| match queue.as_str() {
        "" => format!("{count} without a source"),
        queue => format!("{count} to {queue}"),
    });
    let to: Vec<String> = to.collect();
    let letters = match preview.matching {
        1 => "the only letter".to_owned(),
        all => format!("all {all} letters"),
    };
    confirm(sure, &format!("Redrive {letters} of {from} ({})?", to.join(", ")))
}

fn how_to_stop(id: u64) -> String {
    format!("`nightmail redrives` shows it, `nightmail redrive --cancel {id}` stops it")
}

fn previewed(answer: Answer) -> anyhow::Result<Preview> {
    match answer {
        Answer::Preview(preview) => Ok(preview),
        other => Err(strange(&other)),
    }
}

fn started(answer: Answer) -> anyhow::Result<u64> {
    match answer {
        Answer::Started(id) => Ok(id),
        other => Err(strange(&other)),
    }
}

/// Waits for the end of the redrive and reports the outcome.
async fn finish(context: &Context, settings: &Settings, id: u64, letters: u64) -> anyhow::Result<()> {
    let client = context.client(settings);
    let end = tokio::select! {
        end = follow(&client, id, letters) => end?,
        stop = tokio::signal::ctrl_c() => {
            stop?;
            return Err(Interrupted(format!("redrive {id} goes on in the daemon ({})", how_to_stop(id))).into());
        }
    };
    anyhow::ensure!(end.state != "failed", "redrive {id} failed: {}", end.why.unwrap_or_default());
    context.output.show(&end, |end| {
        let what = if end.undoes.is_some() { "taken back" } else { "moved" };
        format!("redrive {id} {}: {} {what}", end.state, units::count(end.moved, "letter"))
    })
}

fn preview_text(from: &str, preview: &Preview) -> String {
    let least = if preview.is_more { "at least " } else { "" };
    let all = units::count(preview.letters, "letter");
    let mut out = format!("{least}{} of {all} in {from} would move\n", preview.matching);
    for (queue, count) in &preview.destinations {
        let queue = if queue.is_empty() { "(no source: name a destination with --to)" } else { queue };
        out += &format!("  {count} to {queue}\n");
    }
    for id in &preview.sample {
        out += &format!("  {id}\n");
    }
    if preview.matching > preview.sample.len() as u64 {
        out += "  …\n";
    }
    out += &format!("exactly these, whatever dies in the meantime: the same with --as-of {}\n", preview.as_of);
    out
}

/// Shows progress until the redrive ends.
async fn follow(client: &Client, id: u64, letters: u64) -> anyhow::Result<RedriveView> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(letters) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("redrive {prefix} {bar:30} {pos}/{len} letters, {rate}");
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    bar.set_style(style.expect("the template is written above").with_key("rate", rate));
    bar.set_prefix(id.to_string());
    loop {
        let asked = client.ask(&Request::Redrives).await;
        let asked = asked.with_context(|| format!("redrive {id} goes on while the daemon runs ({})", how_to_stop(id)));
        let view = match asked? {
            Answer::Redrives(redrives) => redrives.into_iter().find(|redrive| redrive.id == id),
            other => return Err(strange(&other)),
        };
        let view = view.ok_or_else(|| anyhow::anyhow!("redrive {id} is gone"))?;
        bar.set_position(view.moved);
        if view.state != "running" {
            bar.finish_and_clear();
            return Ok(view);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) async fn list(context: &Context) -> anyhow::Result<()> {
    match ask(context, Request::Redrives).await? {
        Answer::Redrives(redrives) => context.output.list(&redrives, "no redrives so far", redrives_table),
        other => Err(strange(&other)),
    }
}

fn redrives_table(redrives: &[RedriveView]) -> String {
    let row = |redrive: &RedriveView| {
        let mut state = redrive.state.clone();
        if let Some(ended_at) = redrive.ended_at {
            state += &format!(" after {}", units::show_duration(ended_at.since(redrive.started_at)));
        }
        if let Some(id) = redrive.undoes {
            state += &format!(", undoes {id}");
        }
        if let Some(why) = &redrive.why {
            state += &format!(": {}", shorten(why, 300));
        }
        vec![
            format!("{} {}", redrive.id, redrive.from),
            redrive.moved.to_string(),
            redrive.succeeded.to_string(),
            redrive.failed.to_string(),
            seconds(redrive.started_at),
            state,
        ]
    };
    let header = ["redrive", "moved", "done", "died again", "started", "state"];
    table(&header, &[1, 2, 3], redrives.iter().map(row).collect())
}
