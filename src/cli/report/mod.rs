//! `nightmail run report`: a run for those who keep its books, as CSV, JSON or one HTML page.
//!
//! `pages` reads the rows a page at a time, `csv`, `json` and `html` write them as they come, No format holds more
//! than one page of rows.

mod csv;
mod html;
mod json;
mod pages;

use std::path::PathBuf;

use clap::Args;

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Failure, Request};
use crate::base::{Timestamp, units};
use crate::config::Settings;
use crate::daemon::functions;
use crate::run::Report;

use super::ask::{Source, strange};
use super::context::Context;
use super::exit::Unsound;
use super::output::note;
use super::sink::Sink;
use pages::Recount;

/// What the help says below the options.
pub(super) const AFTER_HELP: &str = "\
CSV has one line for each recipient, after RFC 4180, with times in UTC; a cell that a spreadsheet would take for a formula \
begins with an apostrophe. JSON has the run, all recipients and a recount. HTML is one page without scripts: it lists \
everyone who needs attention, and the first 1,000 mails that were sent. Print it to keep it as a PDF.

Exit codes: 0 done, 65 the rows do not add up to the totals of the run (the report is written all the same).";

/// `nightmail run report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The run
    run: u64,
    /// One line for each recipient, for a spreadsheet
    #[arg(long, conflicts_with = "html")]
    csv: bool,
    /// One page for people, to read and to print
    #[arg(long)]
    html: bool,
    /// Write to this file, which only its owner may read; one of that name is replaced once the report is complete
    /// [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
    Html,
}

/// What stands at the beginning of a report.
#[derive(Clone, Debug)]
struct Head {
    /// The run before its rows are read.
    run: Report,
    /// When that was.
    made_at: Timestamp,
    /// The dead-letter queue of the run's messages; `None` when the configuration does not name it any more.
    letters: Option<String>,
    /// That of malformed user records.
    malformed: Option<String>,
}

pub(super) async fn report(context: &Context, what: ReportArgs) -> anyhow::Result<()> {
    let format = format(&what, context.output.is_json())?;
    let settings = context.settings_without_secrets()?;
    let source = Source::open(context, &settings, "run report").await?;
    let head = head(&source, &settings, what.run).await?;
    let mut sink = Sink::open(what.out.as_deref())?;
    let recount = match format {
        Format::Csv => csv::write(&source, &head, &mut sink).await,
        Format::Json => json::write(&source, &head, &mut sink).await,
        Format::Html => html::write(&source, &head, &mut sink).await,
    };
    let recount = match recount {
        // The reader closed the pipe, as `head` does.
        Err(error) if is_broken_pipe(&error) => return Ok(()),
        recount => recount?,
    };
    sink.finish()?;
    if let Some(file) = &what.out {
        note(format_args!("run {}: {} in {}", what.run, units::count(head.run.fetched, "recipient"), file.display()));
    }
    judge(&source, &head, &recount).await
}

fn format(what: &ReportArgs, is_json: bool) -> Result<Format, Failure> {
    match (what.csv, what.html, is_json) {
        (true, false, false) => Ok(Format::Csv),
        (false, true, false) => Ok(Format::Html),
        (false, false, true) => Ok(Format::Json),
        _ => {
            let text = "run report: give one of --csv, --json and --html".into();
            Err(Failure { kind: FailureKind::Request, text })
        }
    }
}

async fn head(source: &Source, settings: &Settings, run: u64) -> anyhow::Result<Head> {
    let made_at = match source.ask(Request::Status).await? {
        Answer::Status(status) => status.now,
        other => return Err(strange(&other)),
    };
    let run = run_now(source, run).await?;
    let fan_out = settings.schedules.iter().find(|schedule| schedule.name == run.schedule);
    let fan_out = fan_out.map(|schedule| schedule.function.as_str());
    let letters = |queue: &String| Some(settings.queues.get(queue)?.redrive.as_ref()?.dead_letter_queue.clone());
    let target = fan_out.and_then(|name| functions::targets(settings).remove(name));
    let own = settings.functions.iter().find(|function| fan_out == Some(function.pool.function.as_str()));
    let malformed = own.and_then(|function| letters(&function.pool.queue));
    Ok(Head { run, made_at, letters: target.as_ref().and_then(letters), malformed })
}

async fn run_now(source: &Source, run: u64) -> anyhow::Result<Report> {
    match source.ask(Request::Run { id: run }).await? {
        Answer::Run(run) => Ok(run),
        other => Err(strange(&other)),
    }
}

/// Compares the rows that were read with the totals, unless the run went on meanwhile.
async fn judge(source: &Source, head: &Head, recount: &Recount) -> anyhow::Result<()> {
    let run = &head.run;
    if run_now(source, run.id).await? != *run {
        note(format_args!("run {} went on while the report was written: its rows are of different moments", run.id));
        return Ok(());
    }
    match recount.faults(run) {
        0 => Ok(()),
        faults => Err(Unsound { faults: units::count(faults, "fault") }.into()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
