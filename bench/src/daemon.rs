//! One run by the real daemon, in the process of the hidden subcommand `run-daemon`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use nightmail::api::control::{Answer, Client, Request};
use nightmail::base::{Clock, SystemClock};
use nightmail::config::Kind;
use nightmail::daemon::{Daemon, logging};
use nightmail::queue::Queues;
use nightmail::run::report;
use tokio_util::sync::CancellationToken;

use crate::child::{self, Figures};
use crate::settings::{PERIOD, SCHEDULE, Side};

/// How often the run is looked at; a look takes as much processor time as a tenth of a statement.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the daemon does.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    side: Side,
    /// Leave the statements in their queue
    #[arg(long)]
    fan_out_alone: bool,
}

/// Starts a daemon, lets it make one run, stops it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Figures> {
    let mut settings = arguments.side.settings()?;
    if arguments.fan_out_alone {
        settings.functions.retain(|function| matches!(function.kind, Kind::FanOut(_)));
    }
    logging::start(&settings.log);
    let clock = SystemClock::shared();
    let control = Client::new(&settings.control_socket);
    let daemon = Daemon::open(settings, clock.clone()).await?;
    let queues = daemon.queues().clone();
    let stop = CancellationToken::new();
    let mut work = tokio::spawn(daemon.work(stop.clone(), CancellationToken::new()));
    let figures = tokio::select! {
        figures = one_run(&clock, &control, &queues, arguments.fan_out_alone) => figures?,
        end = &mut work => bail!("the daemon ended by itself: {end:?}"),
    };
    stop.cancel();
    work.await??;
    Ok(Figures { peak_mb: child::peak_mb()?, ..figures })
}

async fn one_run(
    clock: &Arc<dyn Clock>,
    control: &Client,
    queues: &Queues,
    fan_out_alone: bool,
) -> anyhow::Result<Figures> {
    // The first answer comes when all functions are made and all pools wait.
    control.ask(&Request::Status).await?;
    let (began, cpu, commits) = (clock.monotonic(), child::cpu_seconds()?, queues.store().commits());
    let params = BTreeMap::from([("period".to_owned(), PERIOD.to_owned())]);
    let start = Request::StartRun { schedule: SCHEDULE.into(), params, note: String::new() };
    let Answer::Started(run) = control.ask(&start).await? else {
        bail!("the daemon does not say that the run is started");
    };
    let mut fetched_seconds = 0.0;
    let (report, seconds) = loop {
        let report = report::report(&queues.store().snapshot()?, run)?;
        let seconds = (clock.monotonic() - began).as_secs_f64();
        if report.fetched_at.is_some() && fetched_seconds == 0.0 {
            fetched_seconds = seconds;
        }
        if report.is_complete() || (fan_out_alone && report.fetched_at.is_some()) {
            break (report, seconds);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let users = if fan_out_alone { report.fetched } else { report.sent };
    anyhow::ensure!(users == report.fetched, "{} of {} users got their mail", users, report.fetched);
    Ok(Figures {
        users,
        seconds,
        fetched_seconds,
        cpu_seconds: child::cpu_seconds()? - cpu,
        peak_mb: 0.0,
        commits: queues.store().commits() - commits,
    })
}
