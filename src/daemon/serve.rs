//! The wiring of the daemon on one screen: open, build, start, wait, drain.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::control::Control;
use crate::api::control::server::{self, ControlListener};
use crate::api::sqs::{self, SqsListener};
use crate::base::{Clock, units};
use crate::config::{FunctionSettings, Kind, Settings};
use crate::function::Function;
use crate::function::statement::archive;
use crate::queue::{self, Queues, catalog};
use crate::run::{self, Estimates, Ledger, fold};
use crate::schedule::{self, Service};
use crate::store::{self, Store};
use crate::work::pool::Drain;
use crate::work::{Breakers, Pool, Quarantine};

use super::callbacks::Callbacks;
use super::outlook::Outlook;
use super::space::Watch;
use super::{Error, drain, functions, notify, progress, retention, space};

/// A daemon whose store is open and whose queues exist, but which receives no messages yet.
#[derive(Debug)]
pub struct Daemon {
    settings: Settings,
    clock: Arc<dyn Clock>,
    queues: Queues,
    control: ControlListener,
    sqs: Option<SqsListener>,
    watch: Watch,
}

/// Opens the daemon with these settings and runs it until `stop`; `force` ends the drain's grace period early.
///
/// # Errors
/// The daemon does not start, or the store stopped.
pub async fn run(
    settings: Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    force: CancellationToken,
) -> Result<(), Error> {
    Daemon::open(settings, clock).await?.work(stop, force).await
}

impl Daemon {
    /// Opens the store, creates the queues, ends the leases of an earlier process and binds the control socket.
    ///
    /// # Errors
    /// The store does not open, or the socket cannot be bound.
    pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        // Before the store: on a full disk it deletes the ballast, without which the store could not open.
        let mut watch = Watch::new(&settings);
        let opened = CancellationToken::new();
        tokio::spawn(notify::extend_start(settings.store.upgraded_rows.clone(), opened.clone()));
        let _opened = opened.drop_guard();
        let store = Store::open_when_free(&settings.store).await?;
        let queues = Queues::new(store, clock.clone(), Arc::new(Ledger)).with_space(watch.space());
        watch.check();
        queues.ensure_all(&settings.queues).await?;
        // First, because the leases name the messages of these effects.
        let recovered = run::effects::recover(&queues, &settings.policies()).await?;
        if recovered > 0 {
            tracing::warn!(mails = recovered, "the daemon died while mails were being handed over; they are in doubt");
        }
        // Workers live in this process, so no lease of an earlier one can still be in use.
        queues.end_worker_leases(&settings.served_queues()).await?;
        let control = ControlListener::bind(&settings.control_socket)?;
        let sqs = match &settings.sqs {
            Some(options) => {
                allow_open_files();
                Some(SqsListener::bind(options).await?)
            }
            None => None,
        };
        Ok(Self { settings, clock, queues, control, sqs, watch })
    }

    /// The queues, for tests that inspect them.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Where the SQS endpoint listens, when it is on.
    pub fn sqs_address(&self) -> Option<SocketAddr> {
        self.sqs.as_ref().map(SqsListener::address)
    }

    /// Runs until `stop`, then drains; `force` ends the drain's grace period early.
    ///
    /// # Errors
    /// A function cannot be built, or the store stopped.
    pub async fn work(self, stop: CancellationToken, force: CancellationToken) -> Result<(), Error> {
        let Self { settings, clock, queues, control, sqs, watch } = self;
        let end = CancellationToken::new();
        let signals = Drain::default();
        let breakers = Breakers::new(clock.clone());
        let functions = functions::make(&settings, &queues, &clock)?;
        let mut pools = JoinSet::new();
        for pool in make_pools(&settings, &queues, (&functions, &breakers), &signals)? {
            pools.spawn(pool.run());
        }
        let mut parts = JoinSet::new();
        let schedules = schedules(&settings);
        let mut liveness = Vec::new();
        for (options, queue) in schedules.clone() {
            let service = Service::new(queues.store().clone(), clock.clone(), options, queue);
            liveness.push(service.liveness());
            let stop = signals.stop.clone();
            parts.spawn(async move { service.run(stop).await.map_err(Error::from) });
        }
        let estimates = Estimates::default();
        spawn(&mut parts, Callbacks::new(&settings, &queues, &clock, &estimates)?.run(end.clone()));
        let outlook = Outlook::new(&settings, &queues, (&functions, &breakers), &estimates);
        spawn(&mut parts, outlook.run(end.clone()));
        spawn(&mut parts, retention::run(queues.clone(), folding(&settings), end.clone()));
        spawn(&mut parts, queues.clone().work_off(end.clone()));
        spawn(&mut parts, queues.clone().keep_shown(end.clone()));
        spawn(&mut parts, run::control::work_off(queues.clone(), functions::targets(&settings), end.clone()));
        spawn(&mut parts, space::run(watch, end.clone()));
        spawn(&mut parts, notify::watch(queues.clone(), liveness, clock.clone(), end.clone()));
        spawn(&mut parts, queues.clone().drive_all(signals.stop.clone()));
        let answers = Control::of_daemon(queues.clone(), schedules, breakers.clone(), end.clone());
        let answers =
            of_settings(answers, &settings).with_sqs(sqs.as_ref().map(SqsListener::url)).with_estimates(estimates);
        let control = server::serve(control, answers.with_functions(functions), end.clone());
        parts.spawn(async move { control.await.map_err(|error| broken("control socket", error)) });
        if let (Some(listener), Some(options)) = (sqs, &settings.sqs) {
            let service = sqs::Service::new(queues.clone(), options.clone()).await?;
            parts.spawn(answer_sqs(listener, service, signals.stop.clone(), end.clone()));
        }

        let status = status(&settings);
        spawn(&mut parts, progress::report(queues.clone(), breakers.clone(), status.clone(), signals.stop.clone()));
        tracing::info!(data_dir = %settings.data_dir.display(), "{status}");
        notify::send(&[NotifyState::Ready, NotifyState::Status(&status)]);

        let reason = tokio::select! {
            () = stop.cancelled() => Ok(()),
            reason = queues.store().stopped() => Err(Error::Store(reason)),
            Some(part) = parts.join_next() => Err(ended("a service", part)),
            Some(pool) = pools.join_next() => Err(ended("a pool", pool.map(|end| end.map_err(Error::from)))),
        };
        tell_stop(&reason, drain::longest(settings.daemon.drain));
        // Without a store no attempt can be recorded any more, so running attempts must not go on.
        match &reason {
            Ok(()) => drain::drain(&mut pools, &signals, settings.daemon.drain, &force).await,
            Err(_) => {
                signals.stop.cancel();
                signals.abort.cancel();
                pools.shutdown().await;
            }
        }
        end.cancel();
        while let Some(part) = parts.join_next().await {
            if let Ok(Err(error)) = part {
                tracing::error!("a service ended with: {error}");
            }
        }
        tracing::info!("stopped");
        reason
    }
}

/// What requests need of the settings.
fn of_settings(control: Control, settings: &Settings) -> Control {
    let control = control.with_message_id_rules(functions::message_ids(settings));
    let control = control.with_sending(functions::sending(settings));
    control.with_archive(settings.data_dir.join(archive::DIRECTORY)).with_targets(functions::targets(settings))
}

/// The pools of all functions, which are in the order of their settings. All are made before the first one runs: they
/// share breakers and quarantine.
fn make_pools(
    settings: &Settings,
    queues: &Queues,
    (functions, breakers): (&[Arc<dyn Function>], &Breakers),
    signals: &Drain,
) -> Result<Vec<Pool>, queue::Error> {
    let quarantine = Quarantine::new(suspects(settings, queues)?);
    let pool = |(made, function): (&Arc<dyn Function>, &FunctionSettings)| {
        let pool = Pool::new(queues.clone(), function.pool.clone(), made.clone(), signals.clone(), breakers);
        pool.with_quarantine(quarantine.clone())
    };
    Ok(functions.iter().zip(&settings.functions).map(pool).collect())
}

/// Says that the daemon stops, and why; asks systemd to wait as long as the drain may take, so that `TimeoutStopSec=`
/// does not kill it.
fn tell_stop(reason: &Result<(), Error>, longest: Duration) {
    let usec = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
    notify::send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status("draining")]);
    match reason {
        Err(error) => tracing::error!("stopping: {error}"),
        Ok(()) => tracing::info!("draining"),
    }
}

/// The next suspect of each queue that a function works on.
fn suspects(settings: &Settings, queues: &Queues) -> Result<BTreeMap<u32, (u32, u64)>, queue::Error> {
    let mut suspects = BTreeMap::new();
    for name in settings.served_queues() {
        let queue = catalog::look_up(&queues.store().snapshot()?, &name)?.id;
        suspects.extend(queues.next_suspect(queue)?.map(|next| (queue, next)));
    }
    if !suspects.is_empty() {
        tracing::warn!("messages were in work when the daemon ended without a drain; each is tried alone first");
    }
    Ok(suspects)
}

/// The schedules, each with the queue of the fan-out that it starts.
pub fn schedules(settings: &Settings) -> Vec<(schedule::Options, String)> {
    let queue_of = |name: &str| {
        let fan_out = settings.functions.iter().find(|function| function.pool.function == name);
        fan_out.map(|function| function.pool.queue.clone()).expect("config checks that a schedule's function exists")
    };
    settings.schedules.iter().map(|options| (options.clone(), queue_of(&options.function))).collect()
}

/// When runs are folded, and where their documents are.
fn folding(settings: &Settings) -> Option<fold::Options> {
    let archive = settings.data_dir.join(archive::DIRECTORY);
    settings.run_retention.map(|keep| fold::Options { keep, archive })
}

fn status(settings: &Settings) -> String {
    let concurrency: usize = settings
        .functions
        .iter()
        .filter(|function| matches!(function.kind, Kind::Statement(_)))
        .map(|function| function.pool.concurrency)
        .sum();
    format!(
        "ready: {}, {} ({} at once), {}",
        units::count(settings.queues.len(), "queue"),
        units::count(settings.functions.len(), "function"),
        units::count(concurrency, "statement"),
        units::count(settings.schedules.len(), "schedule")
    )
}

fn spawn<E>(parts: &mut JoinSet<Result<(), Error>>, part: impl Future<Output = Result<(), E>> + Send + 'static)
where
    Error: From<E>,
{
    parts.spawn(async move { part.await.map_err(Error::from) });
}

/// Answers SQS clients until the drain begins, and ends with the other services.
async fn answer_sqs(
    listener: SqsListener,
    service: sqs::Service,
    stop: CancellationToken,
    end: CancellationToken,
) -> Result<(), Error> {
    tracing::info!("SQS clients are answered on {}", listener.url());
    sqs::serve(listener, service, stop).await;
    end.cancelled().await;
    Ok(())
}

/// Raises the limit of open files to the most that this process may have: each client's connection is one, and the usual
/// limit of 1,024 is there for programs that use `select`.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays at {:?}: SQS clients beyond it wait", limit.current);
    }
}

/// Turns the unexpected end of a loop into a reason to stop.
fn ended(part: &'static str, end: Result<Result<(), Error>, JoinError>) -> Error {
    match end {
        Ok(Ok(())) => broken(part, "it stopped by itself"),
        Ok(Err(error)) => error,
        Err(error) => broken(part, error),
    }
}

fn broken(part: &'static str, reason: impl std::fmt::Display) -> Error {
    Error::Broken { part, reason: reason.to_string() }
}

/// Opens the store for a command while no daemon runs; does not wait for whoever holds it.
///
/// # Errors
/// The store does not open; another process holds it.
pub fn open_queues(options: &store::Options, clock: Arc<dyn Clock>) -> Result<Queues, store::Error> {
    Ok(Queues::new(Store::open(options)?, clock, Arc::new(Ledger)))
}
