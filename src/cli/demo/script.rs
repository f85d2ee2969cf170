//! The demo itself: start a bank, a relay and the real daemon; let the schedule fire; look at what died; fix; redrive.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::control::{Answer, Client, Request};
use crate::base::{Clock, SystemClock, Timestamp, units};
use crate::cli::ask::strange;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::queues::groups_table;
use crate::cli::runs::{balance, report_text};
use crate::config::{self, Environment, Settings};
use crate::daemon::{self, Daemon, logging};
use crate::queue::redrive::Redrive;
use crate::run::Report;
use nightmail_demo::{bank, sink};

use super::Script;
use super::progress::Progress;

/// The schedule of the example configuration.
const SCHEDULE: &str = "monthly-statements";
/// The dead-letter queue of the example configuration.
const DEAD: &str = "statements-dead";
/// The tick is this far ahead when the daemon starts.
const TICK_IN: Duration = Duration::from_secs(2);
/// The daemon, in this process, answers within this time also while it works on a large demo.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Mails and PDFs of larger demos are not kept.
const KEPT_USERS_MAX: u32 = 5000;

/// What runs during the demo.
struct Harness {
    bank: bank::Handle,
    sink: sink::Handle,
    settings: Settings,
    daemon: JoinHandle<Result<(), daemon::Error>>,
    /// Ends the daemon.
    stop: CancellationToken,
    /// Ends bank and sink.
    end: CancellationToken,
    clock: Arc<dyn Clock>,
}

/// Runs the demo and checks its result.
pub(super) async fn tell(context: &Context, script: Script) -> anyhow::Result<()> {
    let stopped = super::servers::until_told();
    let dir = make_dir()?;
    let clock = SystemClock::shared();
    let harness = Harness::set(context, script, &dir, clock).await?;
    let told = tokio::select! {
        told = harness.play(context, script) => told,
        () = stopped.cancelled() => Err(anyhow::anyhow!("stopped before its end")),
    };
    let sink = harness.sink.clone();
    let cleared = harness.clear().await;
    if told.is_err() || cleared.is_err() {
        std::fs::remove_dir_all(&dir)?;
    }
    cleared?;
    let report = told?;
    let sent = report.sent;

    let summary = sink.summary();
    let doubled = summary.doubled.len();
    context.output.text(format_args!(
        "the mail sink took {} to {}, {doubled} of them twice",
        units::count(summary.total, "mail"),
        units::count(summary.distinct, "recipient")
    ))?;
    show_files(context, script, &dir)?;
    context.output.json(&report)?;
    anyhow::ensure!(
        summary.distinct == sent,
        "the sink has {} recipients, the books have {sent} sent",
        summary.distinct
    );
    anyhow::ensure!(doubled == 0, "{doubled} recipients got their mail twice");
    Ok(())
}

impl Harness {
    async fn set(context: &Context, script: Script, dir: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let options = bank::Options { users: script.users, fail_share: script.fail, ..bank::Options::default() };
        let bank = bank::Bank::start(listener().await?, options, end.clone());
        let keeps = script.users <= KEPT_USERS_MAX;
        let options = sink::Options {
            keep: keeps.then(|| dir.join("mails")),
            pdf_dir: keeps.then(|| dir.join("pdfs")),
            ..sink::Options::default()
        };
        let sink = sink::Sink::start(listener().await?, options, end.clone())?;
        let settings = settings(context, dir, &bank, &sink, clock.wall())?;
        logging::start(&settings.log);
        let daemon = Daemon::open(settings.clone(), clock.clone()).await?;
        let daemon = tokio::spawn(daemon.work(stop.clone(), CancellationToken::new()));
        Ok(Self { bank, sink, settings, daemon, stop, end, clock })
    }

    async fn play(&self, context: &Context, script: Script) -> anyhow::Result<Report> {
        let output = context.output;
        output.text(format_args!("a bank with {} users, a mail sink and the daemon are up", script.users))?;
        output.text(format_args!("the schedule {SCHEDULE} fires in {}", units::show_duration(TICK_IN)))?;
        let began = self.clock.monotonic();
        let report = self.follow(script).await?;
        let took = self.clock.monotonic().saturating_sub(began).saturating_sub(TICK_IN);
        output.text(report_text(output, &report))?;
        output.text(format_args!("  {} statements in {:.1} s", report.sent, took.as_secs_f64()))?;
        if report.dead == 0 {
            return Ok(report);
        }
        output.text(format_args!("\n$ nightmail dead {DEAD}"))?;
        match self.ask(Request::Dead { queue: DEAD.into() }).await? {
            Answer::Dead(groups) => output.text(groups_table(&groups))?,
            other => return Err(strange(&other)),
        }
        self.bank.fix();
        output.text(format_args!("\nthe bank's accounts are fixed\n\n$ nightmail redrive {DEAD}"))?;
        let redrive = Redrive { from: DEAD.into(), ..Redrive::default() };
        self.ask(Request::StartRedrive(redrive)).await?;
        let report = self.follow(script).await?;
        output.text(balance(output, &report))?;
        Ok(report)
    }

    /// Follows the run until every recipient has an outcome and no redrive is running.
    async fn follow(&self, script: Script) -> anyhow::Result<Report> {
        let mut progress = Progress::new(u64::from(script.users));
        loop {
            anyhow::ensure!(!self.daemon.is_finished(), "the daemon ended by itself");
            let is_driving = match self.ask(Request::Redrives).await? {
                Answer::Redrives(redrives) => redrives.iter().any(|redrive| redrive.state == "running"),
                other => return Err(strange(&other)),
            };
            let report = match self.ask(Request::Runs { max: 1 }).await? {
                Answer::Runs(runs) => runs.into_iter().next(),
                other => return Err(strange(&other)),
            };
            if let Some(report) = report {
                progress.show(&report, self.clock.monotonic());
                if report.is_complete() && !is_driving {
                    progress.finish();
                    return Ok(report);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(&self, request: Request) -> anyhow::Result<Answer> {
        Ok(Client::new(&self.settings.control_socket).with_timeout(ANSWER_WITHIN).ask(&request).await?)
    }

    /// Stops everything that the demo started.
    async fn clear(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.daemon.await??;
        self.end.cancel();
        self.bank.stopped().await;
        self.sink.stopped().await;
        Ok(())
    }
}

async fn listener() -> anyhow::Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
}

/// Loads the example configuration in the usual way, with the demo's addresses set as by environment variables.
fn settings(
    context: &Context,
    dir: &Path,
    bank: &bank::Handle,
    sink: &sink::Handle,
    now: Timestamp,
) -> anyhow::Result<Settings> {
    let level = context.environment.get("NIGHTMAIL__LOG__LEVEL").unwrap_or("error");
    let overrides = [
        ("DATA_DIR", dir.join("data").display().to_string()),
        ("LOG__LEVEL", level.to_owned()),
        ("FUNCTIONS__FAN_OUT__USERS__URL", bank.url("/users?period={period}")),
        ("FUNCTIONS__STATEMENT__ACCOUNT__URL", bank.url("/accounts/{account_id}/transactions?period={period}")),
        // A demo does not wait as long between attempts as a night run does.
        ("FUNCTIONS__STATEMENT__BACKOFF__FIRST", "200ms".into()),
        ("FUNCTIONS__STATEMENT__BACKOFF__MAX", "1s".into()),
        ("FUNCTIONS__STATEMENT__MAIL__RELAY__HOST", sink.address().ip().to_string()),
        ("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", sink.address().port().to_string()),
        ("SCHEDULES__MONTHLY_STATEMENTS__CRON", cron_at(now.after(TICK_IN))),
        ("SCHEDULES__MONTHLY_STATEMENTS__TIMEZONE", "UTC".into()),
    ];
    let variables = overrides.into_iter().map(|(name, value)| (format!("NIGHTMAIL__{name}"), value));
    let environment: Environment = variables.collect();
    Ok(config::load_text("(example)", Path::new(""), config::EXAMPLE, &environment)?)
}

/// A rule of six fields that is due once a year, at that second.
fn cron_at(moment: Timestamp) -> String {
    let at = Timestamp::from_secs(moment.as_secs()).to_jiff().expect("the clock shows a year before 9999");
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    format!("{} {} {} {} {} *", at.second(), at.minute(), at.hour(), at.day(), at.month())
}

fn make_dir() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let name = |number: u32| std::env::temp_dir().join(format!("nightmail-demo-{}-{number}", std::process::id()));
    // An earlier demo whose process had the same number may have left its mails.
    for dir in (0..100).map(name) {
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => anyhow::bail!("{}: {error} (set TMPDIR to a directory that can be written)", dir.display()),
        }
    }
    anyhow::bail!("{} exists, and so do 99 like it (remove them)", name(0).display())
}

/// Says where the mails and PDFs are; without any, the directory goes away.
fn show_files(context: &Context, script: Script, dir: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(dir.join("data"))?;
    if script.users > KEPT_USERS_MAX {
        std::fs::remove_dir_all(dir)?;
        note(format_args!("mails and PDFs are kept for up to {KEPT_USERS_MAX} users"));
        return Ok(());
    }
    let first = |sub: &str| -> anyhow::Result<String> {
        let mut files: Vec<_> =
            std::fs::read_dir(dir.join(sub))?.filter_map(Result::ok).map(|file| file.path()).collect();
        files.sort();
        Ok(files.first().map(|path| path.display().to_string()).unwrap_or_default())
    };
    context.output.text(format_args!("a mail:  {}\na PDF:   {}", first("mails")?, first("pdfs")?))
}
