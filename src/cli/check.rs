//! `nightmail check`: every error of the configuration at once.

use clap::Args;
use serde::Serialize;

use crate::base::outcome::shorten;
use crate::base::{SystemClock, units};
use crate::config::{self, Finding, Origin, Settings};
use crate::daemon::connect::{ContactState, Contacted, Order, connect};
use crate::daemon::error::FunctionFault;
use crate::daemon::{self, functions};

use super::context::Context;
use super::exit::Exit;
use super::output::{note, wrap};
use super::params::{params, parse_param};

/// What a destination answered is shown up to this many bytes, the remedy always; `--json` shows all of it.
const TEXT_BYTES_MAX: usize = 1000;

/// What `--help` says about the exit code.
pub(super) const AFTER_HELP: &str = "\
Exit codes: 0 all is well; 78 the configuration is wrong; with --connect also 69: a destination did not answer as it \
should. --timeout bounds each contact.";

/// `nightmail check`
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Also contact what the functions call: the first page of the users API, the account of one user of it, the relay up
    /// to the login. Sends no mail
    #[arg(long)]
    connect: bool,
    /// With --connect: a run's parameter, e.g. period=2026-10 [default: what a tick of now would have]
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param, requires = "connect")]
    params: Vec<(String, String)>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked {
    /// The configuration's file.
    file: String,
    /// Whether the daemon would start with it.
    valid: bool,
    /// Why not.
    errors: Vec<Told>,
    /// Advice.
    warnings: Vec<Told>,
    queues: Vec<String>,
    functions: Vec<String>,
    schedules: Vec<String>,
    /// What each destination answered, with `--connect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    destinations: Option<Vec<Contacted>>,
}

/// A fault or a piece of advice.
#[derive(Serialize)]
struct Told {
    /// In the file, from 1; neither for what is missing nor for a variable.
    line: Option<u32>,
    column: Option<u32>,
    /// The environment variable that set the value.
    variable: Option<String>,
    /// The key's path; empty for the file as a whole.
    field: String,
    /// What is wrong, the limit, and the remedy.
    text: String,
}

impl From<&Finding> for Told {
    fn from(finding: &Finding) -> Self {
        let (line, column, variable) = match &finding.origin {
            Origin::Default => (None, None, None),
            Origin::File { line, column } => (Some(*line), Some(*column), None),
            Origin::Variable(name) => (None, None, Some(name.clone())),
        };
        Self { line, column, variable, field: finding.field.clone(), text: finding.text.clone() }
    }
}

impl From<&FunctionFault> for Told {
    fn from(fault: &FunctionFault) -> Self {
        let field = format!("functions.{}", fault.function);
        Self { line: None, column: None, variable: None, field, text: fault.reason.to_string() }
    }
}

/// Checks the configuration and shows a summary; with `--connect` what the destinations answer, too.
pub(super) async fn check(context: &Context, check: Check) -> anyhow::Result<Exit> {
    let built = context.settings().and_then(|settings| {
        functions::check(&settings, &SystemClock::shared())?;
        Ok(settings)
    });
    let settings = match built {
        Ok(settings) => settings,
        Err(error) if context.output.is_json() => return refused(context, error),
        Err(error) => return Err(error),
    };
    if !context.output.is_json() {
        for warning in &settings.warnings {
            note(format_args!("warning: {warning}"));
        }
    }
    let destinations = match check.connect {
        true => {
            let order = Order { params: params(check.params)?, limit: context.timeout };
            Some(connect(&settings, &SystemClock::shared(), &order).await?)
        }
        false => None,
    };
    let has_failed = |contacted: &Contacted| contacted.state == ContactState::Failed;
    let is_failed = destinations.as_ref().is_some_and(|destinations| destinations.iter().any(has_failed));
    let checked = Checked {
        file: context.name(),
        valid: true,
        errors: Vec::new(),
        warnings: settings.warnings.iter().map(Told::from).collect(),
        queues: settings.queues.keys().cloned().collect(),
        functions: settings.functions.iter().map(|function| function.pool.function.clone()).collect(),
        schedules: settings.schedules.iter().map(|schedule| schedule.name.clone()).collect(),
        destinations,
    };
    context.output.show(&checked, |checked| {
        let overview = overview(context, &checked.file, &settings);
        checked.destinations.iter().flatten().fold(overview, |text, contacted| text + "\n" + &line(context, contacted))
    })?;
    Ok(if is_failed { Exit::Unavailable } else { Exit::Ok })
}

fn line(context: &Context, contacted: &Contacted) -> String {
    let Contacted { destination, function, text, .. } = contacted;
    let (word, painted) = match contacted.state {
        ContactState::Ok => ("ok", context.output.good("ok")),
        ContactState::Failed => ("FAILED", context.output.bad("FAILED")),
        ContactState::NotTried => ("not tried:", "not tried:".into()),
    };
    // Wrapped before it is painted: colours have no width.
    let line = wrap(&shorten(&format!("{word} {destination} ({function}): {text}"), TEXT_BYTES_MAX));
    line.replacen(word, &painted, 1)
}

/// Shows the faults as JSON.
fn refused(context: &Context, error: anyhow::Error) -> anyhow::Result<Exit> {
    let errors = if let Some(config::Errors(findings)) = error.downcast_ref() {
        findings.iter().map(Told::from).collect()
    } else if let Some(daemon::Error::Functions(faults)) = error.downcast_ref() {
        faults.iter().map(Told::from).collect()
    } else {
        return Err(error);
    };
    let (queues, functions, schedules, destinations) = (Vec::new(), Vec::new(), Vec::new(), None);
    let (file, warnings) = (context.name(), Vec::new());
    let checked = Checked { file, valid: false, errors, warnings, queues, functions, schedules, destinations };
    context.output.show(&checked, |_| String::new())?;
    Ok(Exit::Config)
}

fn overview(context: &Context, name: &str, settings: &Settings) -> String {
    let mut lines = vec![context.output.good(format!("{name} is valid"))];
    for (name, queue) in &settings.queues {
        let dead = queue
            .redrive
            .as_ref()
            .map(|redrive| (units::count(redrive.max_receive_count, "attempt"), &redrive.dead_letter_queue))
            .map(|(attempts, queue)| format!(", after {attempts} to {queue}"));
        let retention = queue.retention.map_or_else(|| "for ever".into(), units::show_duration);
        lines.push(format!("  queue     {name}: kept {retention}{}", dead.unwrap_or_default()));
    }
    for function in &settings.functions {
        let pool = &function.pool;
        let timeout = units::show_duration(pool.timeout);
        lines.push(format!(
            "  function  {}: takes from {}, {} at once, {timeout} each",
            pool.function, pool.queue, pool.concurrency
        ));
    }
    for schedule in &settings.schedules {
        let rule = &schedule.rule;
        lines.push(format!("  schedule  {}: {}", schedule.name, rule.describe()));
    }
    lines.join("\n")
}
