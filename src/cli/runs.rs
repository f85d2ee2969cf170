//! `nightmail run …`.

use clap::{Args, Subcommand};

use crate::api::control::{Answer, Request};
use crate::base::outcome::shorten;
use crate::base::units;
use crate::run::eta::Basis;
use crate::run::report::{Filter, ROWS_SHOWN_MAX, Resend, Row};
use crate::run::{Again, Decision, Erase, Eta, Report, Resent, Resolution, Resolve, RunState};
use crate::store::record::DeadlineState;

use super::ask::{ask, strange};
use super::confirm::{Sure, confirm};
use super::context::Context;
use super::exit::Unsound;
use super::forecast;
use super::gate;
use super::output::{FAILURE_BYTES_MAX, Output, seconds, tame, wrap_behind};
use super::params::{params, parse_param};
use super::pdf;
use super::report;
use super::run_table::{params_text, phases_text, runs_list};
use super::store::findings_text;
use super::trial;

/// `nightmail run …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a run of a schedule now
    Start(Start),
    /// Stop a run: no more mail of it begins until it is resumed
    #[command(after_help = STOP_HELP)]
    Stop {
        /// The run
        run: u64,
    },
    /// Let a stopped or braked run go on where it was
    Resume {
        /// The run
        run: u64,
    },
    /// Send the messages of a run that awaits its release, or have its statements made
    #[command(after_help = RELEASE_HELP)]
    Release(Release),
    /// Make all statements again that wait for the run's release
    #[command(after_help = gate::REMAKE_HELP)]
    Remake(Release),
    /// End a run for good: what is open or dead is withdrawn
    #[command(after_help = ABANDON_HELP)]
    Abandon(Abandon),
    /// Fetch the users of a complete run again, and mail those who are new
    #[command(after_help = REFETCH_HELP)]
    Refetch {
        /// The run
        run: u64,
    },
    /// Accept statements that changed after the run's gate had seen them
    #[command(after_help = gate::ACCEPT_HELP)]
    Accept(gate::AcceptArgs),
    /// Set the note of a run; an empty text removes it
    Note {
        /// The run
        run: u64,
        /// The text, at most 2000 bytes
        text: String,
    },
    /// Mail recipients of a run again
    #[command(after_help = RESEND_HELP)]
    Resend(ResendArgs),
    /// Make the documents of some users and mail them to a test address, or write them to a directory
    #[command(after_help = trial::AFTER_HELP)]
    Test(trial::Test),
    /// Write the document of one recipient
    #[command(after_help = pdf::AFTER_HELP)]
    Pdf(pdf::Pdf),
    /// Erase a person: name, address, messages and documents
    #[command(after_help = ERASE_HELP)]
    Erase(EraseArgs),
    /// Show the newest runs
    List,
    /// Show one run and its balance
    Show {
        /// The run
        run: u64,
    },
    /// Say how the next run of a schedule will go: whether it fits, and what holds it up
    #[command(after_help = forecast::AFTER_HELP)]
    Forecast(forecast::ForecastArgs),
    /// Show recipients of a run
    Recipients(Recipients),
    /// Recount a run from its recipients' rows and name each that does not add up
    #[command(after_help = "Exit codes: 0 nothing wrong, 65 something does not add up.")]
    Verify {
        /// The run
        run: u64,
    },
    /// Write who got the mail, who did not and why, as CSV, JSON or a page
    #[command(after_help = report::AFTER_HELP)]
    Report(report::ReportArgs),
    /// Resolve doubts: say that mails arrived, or send them again
    #[command(after_help = RESOLVE_HELP)]
    Resolve(ResolveArgs),
}

const STOP_HELP: &str = "\
When the answer is there, no mail of the run begins any more, over restarts too; mails that the relay is being given end as \
they end. The fan-out stops as well, and so do mails that are sent again (`run resend`), of a complete run too. Other runs go on. Recipients stay open, and each gets its message again by \
`nightmail run resume RUN`; `nightmail run abandon RUN` withdraws them.";

const RELEASE_HELP: &str = "\
A run awaits its release when the number of its users is out of the bounds of its schedule (`users.min`, \
`users.deviation`): nothing of it is sent until then. With `gate = \"manual\"`, or \"auto\" when the checks have found \
something, it awaits it again, once all of its statements are made and checked. `nightmail run show RUN` says why. While \
statements are being made, a release sends those that are made, and the others, unchecked, as they are made.";

/// `nightmail run release`, `nightmail run remake`
#[derive(Debug, Args)]
pub(super) struct Release {
    /// The run
    run: u64,
    #[command(flatten)]
    sure: Sure,
}

const REFETCH_HELP: &str = "\
Recipients who have a row keep it, and get nothing. The guard of the schedule looks at the number of all recipients again. \
Until the refetch has ended, `nightmail run abandon RUN --refetch` gives it up: the recipients that it has added are withdrawn.";

const RESEND_HELP: &str = "\
A recipient whose mail was sent gets another one, with a Message-ID of its own, made from the user record and the account's \
data of now. It is recorded as `resend-1` and so on (`nightmail run recipients RUN --user ID`), and the run's balance stays as \
it is. A recipient whose message was withdrawn gets the run's own mail after all.";

/// `nightmail run resend`
#[derive(Debug, Args)]
pub(super) struct ResendArgs {
    /// The run
    run: u64,
    /// The user with this id; several times for several
    #[arg(long = "recipient", value_name = "ID", required = true)]
    recipients: Vec<String>,
    /// Of a user with several accounts, this one; several times for several
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
}

const ERASE_HELP: &str = "\
Rows keep their keys, which are hashes, and what became of the mail, so the books balance and a refetch mails nobody twice. \
Open messages and dead letters of the person are withdrawn. It is refused while a mail of the person is unknown or is being \
sent. The suppression list, logs, backups and messages that were sent by hand are not touched.";

/// `nightmail run erase`
#[derive(Debug, Args)]
pub(super) struct EraseArgs {
    /// The user's id
    #[arg(long = "recipient", value_name = "ID")]
    recipient: String,
    /// Only in this run [default: in all]
    #[arg(long)]
    run: Option<u64>,
    #[command(flatten)]
    sure: Sure,
}

const ABANDON_HELP: &str = "\
Open recipients and dead letters of the run are withdrawn, and nothing of it can be resumed, redriven or resent. Doubts \
stay as they are. A run with the same parameters cannot be started again.

With --refetch only the recipients that an unfinished refetch has added are withdrawn, those who were mailed already excepted; \
a later refetch that names them adds them again.";

/// `nightmail run abandon`
#[derive(Debug, Args)]
pub(super) struct Abandon {
    /// The run
    run: u64,
    /// Only its refetch: whom that has added is withdrawn, and the run is as it was before
    #[arg(long)]
    refetch: bool,
    #[command(flatten)]
    sure: Sure,
}

const RESOLVE_HELP: &str = "\
A mail is unknown when its connection broke after its last byte, or when the daemon died while it was handed over. Look for \
its Message-ID (`nightmail run recipients RUN --state unknown`) in the relay's log: accepted, it was sent. Mails that were sent \
again by hand and are in doubt are resolved too (`nightmail run recipients RUN --resent`).";

/// `nightmail run resolve`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("resolution").required(true))]
pub(super) struct ResolveArgs {
    /// The run
    run: u64,
    /// The mails arrived
    #[arg(long, group = "resolution")]
    sent: bool,
    /// Send the mails again, with the same Message-ID
    #[arg(long, group = "resolution")]
    resend: bool,
    /// Only the user with this id; several times for several [default: all that are unknown]
    #[arg(long = "recipient", value_name = "ID")]
    recipients: Vec<String>,
    /// Of a user with several accounts in doubt, this one; several times for several
    #[arg(long = "account", value_name = "ACCOUNT", requires = "recipients")]
    accounts: Vec<String>,
    /// Only show how many it would be
    #[arg(long)]
    preview: bool,
    #[command(flatten)]
    sure: Sure,
}

/// `nightmail run start`
#[derive(Debug, Args)]
pub(super) struct Start {
    /// The schedule
    schedule: String,
    /// An identifying parameter, e.g. period=2026-10 [default: what a tick of now would have]
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_param)]
    params: Vec<(String, String)>,
    /// A note for people, at most 2000 bytes
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// `nightmail run recipients`
#[derive(Debug, Args)]
pub(super) struct Recipients {
    /// The run
    run: u64,
    /// Only those in this state
    #[arg(long, value_parser = ["open", "sent", "dead", "withdrawn", "unknown", "skipped", "suppressed"])]
    state: Option<String>,
    /// Only those in doubt: an attempt may have mailed without an answer
    #[arg(long)]
    in_doubt: bool,
    /// Only those who were mailed again by hand
    #[arg(long)]
    resent: bool,
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

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(start) => {
            let params = params(start.params)?;
            let (schedule, note) = (start.schedule, start.note.unwrap_or_default());
            match ask(context, Request::StartRun { schedule, params, note }).await? {
                Answer::Started(id) => {
                    let started = serde_json::json!({ "run": id });
                    context.output.show(&started, |_| format!("run {id} started (see `nightmail run show {id}`)"))
                }
                other => Err(strange(&other)),
            }
        }
        Command::Stop { run } => decide(context, run, Decision::Stop).await,
        Command::Resume { run } => decide(context, run, Decision::Resume).await,
        Command::Refetch { run } => refetch(context, run).await,
        Command::Note { run, text } => note(context, run, text).await,
        Command::Resend(what) => resend(context, what).await,
        Command::Remake(what) => remake(context, what).await,
        Command::Accept(what) => gate::accept(context, what).await,
        Command::Test(what) => trial::test(context, what).await,
        Command::Erase(what) => erase(context, what).await,
        Command::Pdf(what) => pdf::pdf(context, what).await,
        Command::Release(what) => release(context, what).await,
        Command::Abandon(what) => abandon(context, what).await,
        Command::List => match ask(context, Request::Runs { max: 50 }).await? {
            Answer::Runs(runs) => context.output.list(&runs, "no runs so far", runs_list),
            other => Err(strange(&other)),
        },
        Command::Show { run } => {
            let report = report(ask(context, Request::Run { id: run }).await?)?;
            context.output.show(&report, |report| report_text(context.output, report))
        }
        Command::Forecast(what) => forecast::forecast(context, what).await,
        Command::Recipients(what) => recipients(context, what).await,
        Command::Verify { run } => verify(context, run).await,
        Command::Report(what) => report::report(context, what).await,
        Command::Resolve(what) => resolve(context, what).await,
    }
}

async fn decide(context: &Context, id: u64, decision: Decision) -> anyhow::Result<()> {
    let report = report(ask(context, Request::DecideRun { id, decision }).await?)?;
    let open = units::count(report.open, "recipient");
    context.output.show(&report, |report| match decision {
        Decision::Stop => format!("run {id} is stopped, {open} open: {}", report.remedy()),
        Decision::Resume => format!("run {id} goes on, {open} open (see `nightmail run show {id}`)"),
        Decision::Release => format!("run {id} is released, {open} open (see `nightmail run show {id}`)"),
        Decision::Remake => format!("the statements of run {id} are made again (see `nightmail run show {id}`)"),
        Decision::Abandon => {
            format!("run {id} is abandoned: what is open is withdrawn (see `nightmail run show {id}`)")
        }
        Decision::AbandonRefetch => format!(
            "the refetch of run {id} is abandoned: whom it has added is withdrawn (see `nightmail run show {id}`)"
        ),
    })
}

async fn refetch(context: &Context, id: u64) -> anyhow::Result<()> {
    let report = report(ask(context, Request::RefetchRun { id }).await?)?;
    let known = units::count(report.fetched, "recipient");
    context.output.show(&report, |_| {
        format!("the users of run {id} are fetched again, {known} so far (see `nightmail run show {id}`)")
    })
}

async fn note(context: &Context, id: u64, text: String) -> anyhow::Result<()> {
    let report = report(ask(context, Request::NoteRun { id, text }).await?)?;
    context.output.show(&report, |report| match report.note.is_empty() {
        true => format!("run {id} has no note"),
        false => format!("run {id}: {}", tame(&report.note, 2000)),
    })
}

async fn resend(context: &Context, what: ResendArgs) -> anyhow::Result<()> {
    let (run, order) = (what.run, Again { run: what.run, users: what.recipients, accounts: what.accounts });
    let resent = match ask(context, Request::Resend(order)).await? {
        Answer::Resent(resent) => resent,
        other => return Err(strange(&other)),
    };
    let answer = serde_json::json!({ "run": run, "resent": resent });
    context.output.show(&answer, |_| {
        let line = |one: &Resent| {
            let what = one.purpose.as_deref().unwrap_or("the run's own mail");
            format!("{}: {what} is on its way", tame(&one.user, 80))
        };
        resent.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

async fn erase(context: &Context, what: EraseArgs) -> anyhow::Result<()> {
    let from = what.run.map_or_else(|| "all runs".to_owned(), |run| format!("run {run}"));
    let user = tame(&what.recipient, 80);
    confirm(what.sure, &format!("{user} is erased from {from}, which nothing brings back. Erase?"))?;
    let request = Request::Erase(Erase { user: what.recipient, run: what.run });
    let erased = match ask(context, request).await? {
        Answer::Erased(erased) => erased,
        other => return Err(strange(&other)),
    };
    context.output.show(&erased, |erased| {
        let rows = units::count(erased.recipients, "row");
        let messages = units::count(erased.messages, "message");
        let documents = units::count(erased.documents, "document");
        format!(
            "{rows} of {} erased, {messages} withdrawn, {documents} removed",
            units::count(erased.runs.len(), "run")
        )
    })
}

async fn release(context: &Context, what: Release) -> anyhow::Result<()> {
    let id = what.run;
    let run = report(ask(context, Request::Run { id }).await?)?;
    if let Some(question) = gate::release_question(&run) {
        confirm(what.sure, &question)?;
    }
    decide(context, id, Decision::Release).await
}

async fn remake(context: &Context, what: Release) -> anyhow::Result<()> {
    let id = what.run;
    let run = report(ask(context, Request::Run { id }).await?)?;
    confirm(what.sure, &gate::remake_question(&run))?;
    decide(context, id, Decision::Remake).await
}

async fn abandon(context: &Context, what: Abandon) -> anyhow::Result<()> {
    let id = what.run;
    let run = report(ask(context, Request::Run { id }).await?)?;
    if what.refetch {
        confirm(
            what.sure,
            &format!("run {id} of {}: whom its refetch has added gets nothing. Abandon it?", run.schedule),
        )?;
        return decide(context, id, Decision::AbandonRefetch).await;
    }
    let (open, letters) = (units::count(run.open, "open recipient"), units::count(run.dead, "dead one"));
    confirm(
        what.sure,
        &format!("run {id} of {}: {open} and {letters} get nothing any more. Abandon it?", run.schedule),
    )?;
    decide(context, id, Decision::Abandon).await
}

fn report(answer: Answer) -> anyhow::Result<Report> {
    match answer {
        Answer::Run(report) => Ok(report),
        other => Err(strange(&other)),
    }
}

async fn verify(context: &Context, run: u64) -> anyhow::Result<()> {
    let checked = match ask(context, Request::VerifyRun { id: run }).await? {
        Answer::Checked(checked) => checked,
        other => return Err(strange(&other)),
    };
    context.output.show(&checked, |checked| match checked.total {
        0 => context.output.good(format!("run {run}: {}, nothing wrong", units::count(checked.rows, "recipient"))),
        _ => findings_text(checked),
    })?;
    match checked.total {
        0 => Ok(()),
        total => Err(Unsound { faults: units::count(total, "fault") }.into()),
    }
}

async fn resolve(context: &Context, what: ResolveArgs) -> anyhow::Result<()> {
    let resolution = if what.sent { Resolution::Sent } else { Resolution::Resend };
    let order = Resolve { run: what.run, users: what.recipients, resolution, accounts: what.accounts };
    let matching = counted(ask(context, Request::PreviewResolve(order.clone())).await?)?;
    let mails = units::count(matching, "unknown mail");
    if what.preview {
        let preview = serde_json::json!({ "run": what.run, "unknown": matching });
        return context.output.show(&preview, |_| format!("{mails} of run {}", what.run));
    }
    let effect = match resolution {
        Resolution::Sent => "count as sent",
        Resolution::Resend => "are sent again",
    };
    if order.users.is_empty() && matching > 0 {
        confirm(what.sure, &format!("{mails} of run {}: all {effect}?", what.run))?;
    }
    let resolved = counted(ask(context, Request::Resolve(order)).await?)?;
    let answer = serde_json::json!({ "run": what.run, "resolved": resolved });
    context.output.show(&answer, |_| format!("{} of run {} {effect}", units::count(resolved, "mail"), what.run))
}

fn counted(answer: Answer) -> anyhow::Result<u64> {
    match answer {
        Answer::Count(count) => Ok(count),
        other => Err(strange(&other)),
    }
}

async fn recipients(context: &Context, what: Recipients) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    let Recipients { run, state, in_doubt, resent, user, address, reason } = what;
    let filter = Filter { state, interrupted: in_doubt, resent, user, address, reason };
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

/// One run as text, for `run show` and for the demo.
pub(super) fn report_text(output: Output, report: &Report) -> String {
    let mut out = format!("run {}: {} {}\n", report.id, report.schedule, params_text(report));
    if !report.note.is_empty() {
        out += &format!("  note      {}\n", tame(&report.note, 2000));
    }
    out += &format!("  started   {}\n", report.started_at);
    out += &state_text(output, report);
    if let Some(at) = report.folded_at {
        out += &format!("  folded    {at}: its recipients are not on record any more\n");
    }
    if let Some(at) = report.fetched_at {
        out += &format!("  fetched   {at}\n");
    }
    out += &times_text(output, report);
    if let Some(gate) = &report.gate {
        out += &gate::gate_text(output, gate);
    }
    if let Some(death) = &report.fetch_death {
        out += &format!("  letter    {} in {}, since {}\n", death.letter, quoted_queue(&death.queue), death.died_at);
        let because = format!("{}: {}", death.class, shorten(&death.text, FAILURE_BYTES_MAX));
        out += &format!("  because   {}\n", wrap_behind(12, &because));
        out += &format!("  remedy    {}\n", wrap_behind(12, &death.remedy));
    }
    out += &format!("  {}\n", balance(output, report));
    out += &phases_text(report);
    if report.repeated > 0 {
        out += &format!("  records that named a user again and were left out: {}\n", report.repeated);
    }
    if report.copies > 0 {
        let copies = units::count(report.copies, "message");
        out += &format!("  already sent: {copies} of recipients who had been mailed, deleted without a mail\n");
    }
    if report.resending > 0 {
        out += &format!("  resends on their way: {}\n", report.resending);
    }
    if report.resends_unknown > 0 {
        let (mails, id) = (units::count(report.resends_unknown, "resend"), report.id);
        let line = format!("{mails} unknown: the relay may have taken them (see `nightmail run resolve --help`)");
        out += &format!("  {}\n  they are listed by `nightmail run recipients {id} --resent`\n", output.bad(line));
    }
    if report.unknown > 0 {
        let (mails, id) = (units::count(report.unknown, "mail"), report.id);
        let line = format!("{mails} unknown: the relay may have taken them (see `nightmail run resolve --help`)");
        out +=
            &format!("  {}\n  they are listed by `nightmail run recipients {id} --state unknown`\n", output.bad(line));
    }
    let resent = report.interrupted.saturating_sub(report.unknown);
    if resent > 0 {
        out += &format!(
            "  {} without an answer, and sent again (see `nightmail run recipients {} --in-doubt`)\n",
            units::count(resent, "mail"),
            report.id
        );
    }
    out
}

/// The run's state, and why it is held and what to do about it.
fn state_text(output: Output, report: &Report) -> String {
    let state = report.state.name();
    let is_held = matches!(report.state, RunState::Stopped | RunState::AwaitingRelease | RunState::Braked);
    let needs_a_look = report.fetch_death.is_some() || is_held;
    let since = report.held_since.map(|since| format!(" since {since}")).unwrap_or_default();
    let mut out = format!("  state     {}{since}\n", if needs_a_look { output.bad(state) } else { state.into() });
    if let Some(because) = &report.held_because {
        out += &format!("  because   {}\n", wrap_behind(12, &shorten(because, FAILURE_BYTES_MAX)));
    }
    if is_held {
        out += &format!("  remedy    {}\n", wrap_behind(12, &report.remedy()));
    }
    out
}

/// When the run ended or will, and its deadline, a line each.
fn times_text(output: Output, report: &Report) -> String {
    let mut out = String::new();
    if let Some(at) = report.ended_at {
        out += &format!("  ended     {at}\n");
    }
    if let Some(eta) = &report.eta {
        let bound = eta.bound_by.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let line = format!("{} ({} to {}), {}{bound}", eta.at, eta.earliest, eta.latest, rate_text(eta));
        out += &format!("  eta       {}\n", wrap_behind(12, &line));
    }
    if let Some(deadline) = &report.deadline {
        let state = match deadline.state {
            DeadlineState::OnTime => "on time".into(),
            DeadlineState::Met => output.good("met"),
            DeadlineState::AtRisk => output.bad("will probably be missed"),
            DeadlineState::Missed => output.bad("missed"),
        };
        out += &format!("  deadline  {}: {state}\n", deadline.at);
    }
    out
}

/// The rate of an estimate, and where it is from.
fn rate_text(eta: &Eta) -> String {
    let rate = match eta.per_hour {
        slow @ ..=7200 => format!("{slow} an hour"),
        fast => format!("{} a second", fast / 3600),
    };
    let basis = match eta.basis {
        Basis::Measured => "measured",
        Basis::EarlierRun => "as an earlier run",
        Basis::Limit => "as the limits allow, nothing is measured yet",
    };
    format!("{rate}, {basis}")
}

/// The books in one line: fetched = sent + dead + …, in red when they do not balance.
pub(super) fn balance(output: Output, report: &Report) -> String {
    let mut terms = vec![format!("sent {}", report.sent), format!("dead {}", report.dead)];
    let others = [
        ("skipped", report.skipped),
        ("suppressed", report.suppressed),
        ("unknown", report.unknown),
        ("withdrawn", report.withdrawn),
        ("open", report.open),
    ];
    terms.extend(others.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")));
    let line = format!("balance: fetched {} = {}", report.fetched, terms.join(" + "));
    if report.does_balance() { output.good(line) } else { output.bad(format!("{line} DOES NOT BALANCE")) }
}

fn quoted_queue(name: &str) -> &str {
    if name.is_empty() { "no queue any more" } else { name }
}

/// A few lines for each recipient: a Message-ID alone fills most of one.
fn recipients_text(rows: &[Row]) -> String {
    rows.iter().map(recipient_text).collect::<Vec<_>>().join("\n")
}

fn recipient_text(row: &Row) -> String {
    let address = if row.address.is_empty() { String::new() } else { format!(" <{}>", tame(&row.address, 320)) };
    let account = row.account.as_ref().map(|account| format!(" account {}", tame(account, 80))).unwrap_or_default();
    let (user, since) = (tame(&row.user, 80), seconds(row.updated_at));
    let mut lines = vec![format!("{user}{account}{address}: {} since {since}", row.state)];
    if row.interrupted > 0 {
        let attempts = units::count(row.interrupted, "attempt");
        lines.push(format!("in doubt: {attempts} may have mailed without an answer"));
    }
    let class = row.fingerprint.as_ref().map(|fingerprint| format!("{fingerprint} "));
    match (&row.reply, &row.reason) {
        (Some(reply), _) => lines.push(format!("relay: {}", shorten(reply, FAILURE_BYTES_MAX))),
        (None, Some(reason)) => {
            lines.push(format!("reason: {}{}", class.unwrap_or_default(), shorten(reason, FAILURE_BYTES_MAX)))
        }
        (None, None) => lines.extend(class.map(|class| format!("reason: {}", class.trim_end()))),
    }
    lines.extend(row.resends.iter().map(|resend| {
        let Resend { purpose, state, updated_at, message_id, detail, .. } = resend;
        let id = message_id.as_ref().map(|id| format!(", Message-ID {}", tame(id, 400))).unwrap_or_default();
        let detail =
            if detail.is_empty() { String::new() } else { format!(", {}", shorten(detail, FAILURE_BYTES_MAX)) };
        format!("{purpose}: {state} since {}{id}{detail}", seconds(*updated_at))
    }));
    // Only a mail that was begun is in the relay's log.
    let is_begun = matches!(row.state.as_str(), "sent" | "unknown") || row.interrupted > 0;
    lines.extend(row.message_id.as_ref().filter(|_| is_begun).map(|id| format!("Message-ID: {}", tame(id, 400))));
    lines.iter().map(|line| wrap_behind(2, line)).collect::<Vec<_>>().join("\n  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(counts: &[(&str, u64)]) -> String {
        let mut report = json!({
            "id": 7, "schedule": "monthly", "params": {}, "scheduled_for": 0, "started_at": 0, "fetched_at": 0,
            "fetched": 0, "sent": 0, "dead": 0, "withdrawn": 0, "open": 0, "repeated": 0, "interrupted": 0,
            "state": "complete", "fetch_death": null,
        });
        for (name, count) in counts {
            report[name] = json!(count);
        }
        report_text(Output::new(false), &serde_json::from_value(report).unwrap())
    }

    #[test]
    fn what_is_rare_has_a_line_when_it_happened_and_none_otherwise() {
        let usual = text(&[]);
        for (counts, line) in [
            (&[("repeated", 1)][..], "records that named a user again and were left out: 1"),
            (&[("copies", 2)], "already sent: 2 messages of recipients who had been mailed, deleted without a mail"),
            (&[("fetched", 1), ("unknown", 1), ("interrupted", 1)], "1 mail unknown: the relay may have taken them"),
            (&[("interrupted", 3)], "3 mails without an answer, and sent again"),
        ] {
            let start = line.split(':').next().unwrap_or(line);
            assert!(!usual.contains(start), "{usual}");
            assert!(text(counts).contains(line), "{line}: {}", text(counts));
        }
        let doubt = text(&[("fetched", 1), ("unknown", 1), ("interrupted", 1)]);
        assert!(!doubt.contains("sent again"), "a doubt that is held was not sent again: {doubt}");
    }
}
