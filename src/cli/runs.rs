//! `nightmail run …`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use crate::api::control::request::FailureKind;
use crate::api::control::{Answer, Failure, Request};
use crate::base::outcome::shorten;
use crate::base::units;
use crate::run::Report;
use crate::run::report::{Filter, ROWS_SHOWN_MAX, Row};

use super::ask::{ask, strange};
use super::context::Context;
use super::output::{FAILURE_BYTES_MAX, Output, seconds, table, tame, wrap};

/// `nightmail run …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a run of a schedule now
    Start(Start),
    /// Show the newest runs
    List,
    /// Show one run and its balance
    Show {
        /// The run
        run: u64,
    },
    /// Show recipients of a run
    Recipients(Recipients),
}

/// `nightmail run start`
#[derive(Debug, Args)]
pub(super) struct Start {
    /// The schedule
    schedule: String,
    /// An identifying parameter, e.g. period=2026-10 [default: what a tick of now would have]
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
}

/// `nightmail run recipients`
#[derive(Debug, Args)]
pub(super) struct Recipients {
    /// The run
    run: u64,
    /// Only those in this state
    #[arg(long, value_parser = ["open", "sent", "dead", "withdrawn"])]
    state: Option<String>,
    /// Only those in doubt: an attempt was cut off and may have mailed
    #[arg(long)]
    in_doubt: bool,
    /// Only the user with this id
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only those with this mail address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Only those whose reason, fingerprint or relay's reply has this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn parse_param(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
    match pair.filter(|(key, value)| !key.is_empty() && !value.is_empty()) {
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err(format!("{text:?} is not KEY=VALUE, e.g. period=2026-10")),
    }
}

/// The parameters by name; one that is given twice is refused, since only one of its values could count.
pub(super) fn params(given: Vec<(String, String)>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for (name, value) in given {
        if let Some(first) = params.get(&name) {
            let text = format!("--param {name} is given twice, as {first:?} and {value:?} (give it once)");
            return Err(Failure { kind: FailureKind::Request, text }.into());
        }
        params.insert(name, value);
    }
    Ok(params)
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(start) => {
            let params = params(start.params)?;
            match ask(context, Request::StartRun { schedule: start.schedule, params }).await? {
                Answer::Started(id) => {
                    let started = serde_json::json!({ "run": id });
                    context.output.show(&started, |_| format!("run {id} started (see `nightmail run show {id}`)"))
                }
                other => Err(strange(&other)),
            }
        }
        Command::List => match ask(context, Request::Runs { max: 50 }).await? {
            Answer::Runs(runs) => context.output.list(&runs, "no runs so far", runs_table),
            other => Err(strange(&other)),
        },
        Command::Show { run } => match ask(context, Request::Run { id: run }).await? {
            Answer::Run(report) => context.output.show(&report, |report| report_text(context.output, report)),
            other => Err(strange(&other)),
        },
        Command::Recipients(what) => recipients(context, what).await,
    }
}

async fn recipients(context: &Context, what: Recipients) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    let Recipients { run, state, in_doubt, user, address, reason } = what;
    let filter = Filter { state, interrupted: in_doubt, user, address, reason };
    loop {
        let after = rows.last().map(|row| row.key.clone());
        let request = Request::Recipients { id: run, filter: filter.clone(), after };
        let part = match ask(context, request).await? {
            Answer::Recipients(part) => part,
            other => return Err(strange(&other)),
        };
        let is_last = part.len() < ROWS_SHOWN_MAX;
        rows.extend(part);
        if is_last {
            break;
        }
    }
    rows.sort_by(|a, b| a.user.cmp(&b.user));
    context.output.list(&rows, "no such recipients", recipients_text)
}

/// Runs as a table, for `run list` and for `status`. Its first column names the run, so that it fits 80 characters.
pub(super) fn runs_table(runs: &[Report]) -> String {
    let is_withdrawn = runs.iter().any(|run| run.withdrawn > 0);
    let row = |run: &Report| {
        let name = format!("{} {} {}", run.id, run.schedule, params_text(run));
        let withdrawn = is_withdrawn.then_some(run.withdrawn);
        let numbers = [run.fetched, run.sent, run.dead].into_iter().chain(withdrawn).chain([run.open]);
        [tame(name.trim_end(), 200), run.state.name().into()]
            .into_iter()
            .chain(numbers.map(|number| number.to_string()))
            .collect()
    };
    let mut header = vec!["run", "state", "fetched", "sent", "dead", "open"];
    if is_withdrawn {
        header.insert(5, "withdrawn");
    }
    table(&header, &[2, 3, 4, 5, 6], runs.iter().map(row).collect())
}

/// One run as text, for `run show` and for the demo.
pub(super) fn report_text(output: Output, report: &Report) -> String {
    let mut out = format!("run {}: {} {}\n", report.id, report.schedule, params_text(report));
    out += &format!("  started   {}\n", report.started_at);
    let state = report.state.name();
    out += &format!("  state     {}\n", if report.fetch_death.is_some() { output.bad(state) } else { state.into() });
    if let Some(at) = report.fetched_at {
        out += &format!("  fetched   {at}\n");
    }
    if let Some(death) = &report.fetch_death {
        out += &format!("  letter    {} in {}, since {}\n", death.letter, quoted_queue(&death.queue), death.died_at);
        out += &format!("  because   {}: {}\n", death.class, tame(&death.text, 500));
        out += &format!("  remedy    {}\n", death.remedy);
    }
    out += &format!("  {}\n", balance(output, report));
    if report.repeated > 0 {
        out += &format!("  records that named a user again and were left out: {}\n", report.repeated);
    }
    if report.interrupted > 0 {
        out += &format!(
            "  {} cut off, which may have mailed (see `nightmail run recipients {} --in-doubt`)\n",
            units::count(report.interrupted, "attempt"),
            report.id
        );
    }
    out
}

/// The books in one line: fetched = sent + dead + …, in red when they do not balance.
pub(super) fn balance(output: Output, report: &Report) -> String {
    let mut terms = vec![format!("sent {}", report.sent), format!("dead {}", report.dead)];
    if report.withdrawn > 0 {
        terms.push(format!("withdrawn {}", report.withdrawn));
    }
    if report.open > 0 {
        terms.push(format!("open {}", report.open));
    }
    let does_balance = report.fetched == report.sent + report.dead + report.withdrawn + report.open;
    let line = format!("balance: fetched {} = {}", report.fetched, terms.join(" + "));
    if does_balance { output.good(line) } else { output.bad(format!("{line} DOES NOT BALANCE")) }
}

fn quoted_queue(name: &str) -> &str {
    if name.is_empty() { "no queue any more" } else { name }
}

/// The identity's parameters; each value in quotes, so that a blank in it is seen.
fn params_text(run: &Report) -> String {
    run.params.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join(" ")
}

/// A few lines for each recipient: a Message-ID alone fills most of one.
fn recipients_text(rows: &[Row]) -> String {
    rows.iter().map(recipient_text).collect::<Vec<_>>().join("\n")
}

fn recipient_text(row: &Row) -> String {
    let address = if row.address.is_empty() { String::new() } else { format!(" <{}>", tame(&row.address, 320)) };
    let mut lines = vec![format!("{}{address}: {} since {}", tame(&row.user, 80), row.state, seconds(row.updated_at))];
    if row.interrupted > 0 {
        let attempts = units::count(row.interrupted, "attempt");
        lines.push(format!("in doubt: {attempts} cut off that may have mailed"));
    }
    let class = row.fingerprint.as_ref().map(|fingerprint| format!("{fingerprint} "));
    match (&row.reply, &row.reason) {
        (Some(reply), _) => lines.push(format!("relay: {}", shorten(reply, FAILURE_BYTES_MAX))),
        (None, Some(reason)) => {
            lines.push(format!("reason: {}{}", class.unwrap_or_default(), shorten(reason, FAILURE_BYTES_MAX)))
        }
        (None, None) => lines.extend(class.map(|class| format!("reason: {}", class.trim_end()))),
    }
    // Only a mail that was begun is in the relay's log.
    let is_begun = row.state == "sent" || row.interrupted > 0;
    lines.extend(row.message_id.as_ref().filter(|_| is_begun).map(|id| format!("Message-ID: {}", tame(id, 400))));
    lines.iter().map(|line| wrap(line).replace('\n', "\n  ")).collect::<Vec<_>>().join("\n  ")
}
