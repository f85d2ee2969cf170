//! `nightmail redrive`: dead letters go back, with a preview, a rate and progress.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::api::control::request::RedriveView;
use crate::api::control::{Answer, Request};
use crate::base::{Fingerprint, MessageId, units};
use crate::config::Settings;
use crate::queue::redrive::{Preview, RATE_MAX, Redrive as What};

use super::args::Context;
use super::ask::{ask, ask_with, strange};
use super::output::table;

/// How often progress is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `nightmail redrive`
#[derive(Debug, Args)]
pub(super) struct Redrive {
    /// The dead-letter queue
    #[arg(required_unless_present = "cancel")]
    from: Option<String>,
    /// Where the letters go [default: each one's own source queue]
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Only letters of one fault: fingerprint=<8 hex digits>
    #[arg(long = "where", value_name = "fingerprint=…", value_parser = parse_where)]
    fingerprint: Option<Fingerprint>,
    /// Only these messages
    #[arg(long = "id", value_name = "MESSAGE ID")]
    ids: Vec<MessageId>,
    /// At most this many letters per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: Option<u32>,
    /// Say what would move, and move nothing
    #[arg(long)]
    preview: bool,
    /// Start it and return at once
    #[arg(long)]
    detach: bool,
    /// Stop a running redrive; what was moved stays moved
    #[arg(long, value_name = "REDRIVE", conflicts_with_all = ["from", "to", "fingerprint", "ids", "rate", "preview"])]
    cancel: Option<u64>,
}

fn parse_where(text: &str) -> Result<Fingerprint, String> {
    match text.split_once('=') {
        Some(("fingerprint", value)) => value.parse().map_err(|error| format!("{error}")),
        Some((key, _)) => Err(format!("unknown condition {key:?} (known: fingerprint)")),
        None => Err("write fingerprint=<8 hex digits>, as `nightmail dead <queue>` prints it".into()),
    }
}

pub(super) async fn redrive(context: &Context, redrive: Redrive) -> anyhow::Result<()> {
    let settings = context.settings_without_secrets()?;
    if let Some(id) = redrive.cancel {
        return match ask_with(&settings, Request::CancelRedrive { id }).await? {
            Answer::Count(moved) => {
                let cancelled = serde_json::json!({ "redrive": id, "moved": moved });
                let moved = units::count(moved, "letter");
                context.output.show(&cancelled, |_| format!("redrive {id} cancelled; moved before that: {moved}"))
            }
            other => Err(strange(&other)),
        };
    }
    let what = What {
        from: redrive.from.unwrap_or_default(),
        to: redrive.to,
        fingerprint: redrive.fingerprint,
        ids: redrive.ids,
        per_second: redrive.rate,
    };
    let preview = match ask_with(&settings, Request::PreviewRedrive(what.clone())).await? {
        Answer::Preview(preview) => preview,
        other => return Err(strange(&other)),
    };
    if redrive.preview {
        return context.output.show(&preview, |preview| preview_text(&what.from, preview));
    }
    let id = match ask_with(&settings, Request::StartRedrive(what)).await? {
        Answer::Started(id) => id,
        other => return Err(strange(&other)),
    };
    if redrive.detach {
        let started = serde_json::json!({ "redrive": id });
        return context.output.show(&started, |_| {
            format!("redrive {id} started (`nightmail redrives` shows it, `nightmail redrive --cancel {id}` stops it)")
        });
    }
    let end = follow(&settings, id, preview.matching).await?;
    anyhow::ensure!(end.state != "failed", "redrive {id} failed: {}", end.why.unwrap_or_default());
    context.output.show(&end, |end| format!("redrive {id} {}: {} moved", end.state, units::count(end.moved, "letter")))
}

fn preview_text(from: &str, preview: &Preview) -> String {
    let mut out = format!("{} of {} in {from} would move\n", preview.matching, units::count(preview.letters, "letter"));
    for (queue, count) in &preview.destinations {
        let queue = if queue.is_empty() { "(no source: name a destination with --to)" } else { queue };
        out += &format!("  {count} to {queue}\n");
    }
    out
}

/// Shows progress until the redrive ends.
async fn follow(settings: &Settings, id: u64, letters: u64) -> anyhow::Result<RedriveView> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(letters) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("redrive {bar:30} {pos}/{len} letters, {per_sec}");
    bar.set_style(style.expect("the template is written above"));
    loop {
        let view = match ask_with(settings, Request::Redrives).await? {
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
        vec![
            redrive.id.to_string(),
            redrive.from.clone(),
            redrive.state.clone(),
            redrive.moved.to_string(),
            redrive.started_at.to_string(),
            redrive.ended_at.map(|at| at.to_string()).unwrap_or_default(),
            redrive.why.clone().unwrap_or_default(),
        ]
    };
    let header = ["redrive", "from", "state", "moved", "started", "ended", "why"];
    table(&header, &[0, 3], redrives.iter().map(row).collect())
}
