//! A run's gate as text, and `nightmail run accept`.

use clap::Args;

use crate::api::control::{Answer, Request};
use crate::base::outcome::shorten;
use crate::base::units;
use crate::run::report::GateReport;
use crate::run::{Accept, Report, RunState};

use super::ask::{ask, strange};
use super::context::Context;
use super::output::{FAILURE_BYTES_MAX, Output, wrap_behind};

pub(super) const ACCEPT_HELP: &str = "\
A recipient whose statement is another one at sending than the gate has seen is dead with `data statement changed`, and \
nothing was mailed. When the new statement is right, accept it and redrive the letter: then what is made now is mailed.";

pub(super) const REMAKE_HELP: &str = "\
For a run with a gate whose statements are made and wrong: mend the account API, the template or the configuration, and have \
all of them made and checked again. None that waits now is mailed, also with `archive = \"files\"`.";

/// What is asked before statements are made again.
pub(super) fn remake_question(run: &Report) -> String {
    let statements = units::count(run.gate.as_ref().map_or(0, |gate| gate.waiting), "statement");
    format!("run {} of {}: {statements} wait for its release. Make them again?", run.id, run.schedule)
}

/// What is asked before a release; `None` when there is nothing to ask.
pub(super) fn release_question(run: &Report) -> Option<String> {
    let (because, is_rendering) = match (&run.held_because, run.state) {
        (Some(because), _) => (because.as_str(), false),
        (None, RunState::Rendering) => ("its statements are being made, and are not checked", true),
        _ => return None,
    };
    let open = units::count(run.open, "recipient");
    let is_checked = run.gate.as_ref().is_some_and(|gate| gate.mode.is_some() && gate.checked_at.is_some());
    let is_unmade = run.gate.as_ref().is_some_and(|gate| gate.mode.is_some()) && !is_checked && !is_rendering;
    let what_for = if is_unmade { "Make the statements of" } else { "Send to" };
    let unseen = match run.unmade() {
        unmade @ 1.. if !is_unmade => format!(", {unmade} of them with statements that are not made yet"),
        _ => String::new(),
    };
    Some(format!("run {} of {}: {because}. {what_for} {open}{unseen}?", run.id, run.schedule))
}

/// `nightmail run accept`
#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The run
    run: u64,
    /// The user with this id; several times for several
    #[arg(long = "recipient", value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    recipients: Vec<String>,
    /// Every recipient whose statement changed
    #[arg(long)]
    all: bool,
    /// Of a user with several accounts, this one; several times for several
    #[arg(long = "account", value_name = "ACCOUNT", requires = "recipients")]
    accounts: Vec<String>,
}

pub(super) async fn accept(context: &Context, what: AcceptArgs) -> anyhow::Result<()> {
    let run = what.run;
    let order = Accept { run, users: what.recipients, accounts: what.accounts };
    let accepted = match ask(context, Request::Accept(order)).await? {
        Answer::Count(accepted) => accepted,
        other => return Err(strange(&other)),
    };
    let answer = serde_json::json!({ "run": run, "accepted": accepted });
    context.output.show(&answer, |_| {
        let statements = units::count(accepted, "changed statement");
        format!("{statements} of run {run} accepted: `nightmail redrive … --where run={run}` mails them")
    })
}

/// What the gate has seen, for `run show`; each line ends with a line break.
pub(super) fn gate_text(output: Output, gate: &GateReport) -> String {
    let size = units::show_size(gate.bytes);
    let statements = units::count(gate.statements, "statement");
    let mut made = format!("{statements}, {} pages, {size}, {} without transactions", gate.pages, gate.empty);
    if gate.over > 0 {
        made += &format!(", {} over a limit", gate.over);
    }
    let mode = gate.mode.as_deref().map_or_else(|| "open".to_owned(), |mode| format!("shut, {mode}"));
    let mut out = format!("  gate      {mode}\n  made      {}\n", wrap_behind(12, &made));
    if let Some(at) = gate.checked_at {
        let found = match gate.findings.is_empty() {
            true => "nothing found".to_owned(),
            false => output.bad(format!("{} found", gate.findings.len())),
        };
        out += &format!("  checked   {at}: {found}\n");
    }
    for finding in &gate.findings {
        out += &format!("            {}\n", wrap_behind(12, &shorten(finding, FAILURE_BYTES_MAX)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_shown_with_what_it_has_seen_and_every_finding() {
        let gate = GateReport {
            mode: Some("auto".into()),
            statements: 1200,
            waiting: 1200,
            pages: 1300,
            bytes: 3 << 20,
            empty: 7,
            over: 2,
            checked_at: Some(crate::base::Timestamp::from_secs(1_793_491_200)),
            findings: vec!["first".into(), "second".into()],
        };
        let text = gate_text(Output::new(false), &gate);
        let made = "made      1200 statements, 1300 pages, 3.0 MiB, 7 without transactions, 2 over a limit";
        let checked = "checked   2026-11-01T00:00:00.000Z: 2 found";
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines, ["gate      shut, auto", made, checked, "first", "second"]);
        let open = GateReport { mode: None, findings: Vec::new(), ..gate };
        let text = gate_text(Output::new(false), &open);
        assert!(text.starts_with("  gate      open\n") && text.ends_with("Z: nothing found\n"), "{text}");
    }

    #[test]
    fn the_question_before_a_release_says_what_nobody_has_seen() {
        let report = |state: &str, because: Option<&str>, checked_at: Option<u64>| -> Report {
            let gate = serde_json::json!({
                "mode": "manual", "statements": 3, "waiting": 3, "pages": 3, "bytes": 3, "empty": 0, "over": 0,
                "checked_at": checked_at.map(crate::base::Timestamp::from_secs), "findings": [],
            });
            serde_json::from_value(serde_json::json!({
                "id": 7, "schedule": "monthly", "params": {}, "scheduled_for": 0, "started_at": 0, "fetched_at": 0,
                "fetched": 5, "sent": 0, "dead": 0, "withdrawn": 0, "open": 5, "repeated": 0, "interrupted": 0,
                "state": state, "held_because": because, "fetch_death": null, "gate": gate,
            }))
            .unwrap()
        };
        let question = |state, because, checked_at| release_question(&report(state, because, checked_at));
        let unseen = ", 2 of them with statements that are not made yet?";
        let rendering = "run 7 of monthly: its statements are being made, and are not checked. Send to 5 recipients";
        assert_eq!(question("rendering", None, None), Some(format!("{rendering}{unseen}")));
        let waiting = question("awaiting-release", Some("odd"), Some(1)).unwrap();
        assert_eq!(waiting, format!("run 7 of monthly: odd. Send to 5 recipients{unseen}"));
        let of_guard = question("awaiting-release", Some("odd"), None).unwrap();
        assert_eq!(of_guard, "run 7 of monthly: odd. Make the statements of 5 recipients?");
        assert_eq!(question("sending", None, None), None);
    }
}
