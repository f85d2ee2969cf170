//! A run's gate as text, and `nightmail run accept`.

use clap::Args;

use crate::api::control::{Answer, Request};
use crate::base::outcome::shorten;
use crate::base::units;
use crate::run::Accept;
use crate::run::report::GateReport;

use super::ask::{ask, strange};
use super::context::Context;
use super::output::{FAILURE_BYTES_MAX, Output, wrap_behind};

pub(super) const ACCEPT_HELP: &str = "\
A recipient whose statement is another one at sending than the gate has seen is dead with `data statement changed`, and \
nothing was mailed. When the new statement is right, accept it and redrive the letter: then what is made now is mailed.";

/// `nightmail run accept`
#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The run
    run: u64,
    /// The user with this id; several times for several
    #[arg(long = "recipient", value_name = "ID", required = true)]
    recipients: Vec<String>,
    /// Of a user with several accounts, this one; several times for several
    #[arg(long = "account", value_name = "ACCOUNT")]
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
}
