//! The daemon on one screen: open, make, start, wait, drain.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::api::control::{Control, server};
use crate::base::{Clock, units};
use crate::config::{Kind, Settings};
use crate::queue::Door;
use crate::run::Ledger;
use crate::schedule::{self, Service};
use crate::store::{self, Store};
use crate::work::Pool;
use crate::work::pool::Drain;

use super::space::Watch;
use super::{Error, drain, functions, notify, progress, space, upkeep};

/// A daemon whose store is open and whose queues are there, but which does not work yet.
#[derive(Debug)]
pub struct Daemon {
    settings: Settings,
    clock: Arc<dyn Clock>,
    door: Door,
    control: UnixListener,
    watch: Watch,
}

/// Opens the daemon of these settings and works until `stop`; `hurry` cuts the drain short.
///
/// # Errors
/// It does not start, or the store stopped under it.
pub async fn run(
    settings: Settings,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    hurry: CancellationToken,
) -> Result<(), Error> {
    Daemon::open(settings, clock).await?.work(stop, hurry).await
}

impl Daemon {
    /// Opens the store, makes the queues, ends leases of an earlier life and binds the control socket.
    ///
    /// # Errors
    /// The store does not open, or the socket cannot be bound.
    pub async fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let mut watch = Watch::new(&settings);
        let store = Store::open(&settings.store)?;
        let door = Door::new(store, clock.clone(), Arc::new(Ledger)).with_space(watch.space());
        watch.look();
        for (name, options) in &settings.queues {
            door.ensure(name, options).await?;
        }
        door.finish_deletions().await?;
        door.end_worker_leases().await?;
        let control = server::bind(&settings.control_socket)?;
        Ok(Self { settings, clock, door, control, watch })
    }

    /// The queues, for tests that look inside.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Works until `stop`, then drains; `hurry` cuts the drain short.
    ///
    /// # Errors
    /// A function cannot be made, or the store stopped.
    pub async fn work(self, stop: CancellationToken, hurry: CancellationToken) -> Result<(), Error> {
        let Self { settings, clock, door, control, watch } = self;
        let end = CancellationToken::new();
        let signals = Drain::default();
        let mut pools = JoinSet::new();
        let made = functions::make(&settings, &door, &clock)?;
        for (function, made) in settings.functions.iter().zip(made) {
            pools.spawn(Pool::new(door.clone(), function.pool.clone(), made, signals.clone()).run());
        }
        let mut parts = JoinSet::new();
        let schedules = schedules(&settings);
        let mut pulses = Vec::new();
        for (options, queue) in schedules.clone() {
            let service = Service::new(door.store().clone(), clock.clone(), options, queue);
            pulses.push(service.pulse());
            let stop = signals.stop.clone();
            parts.spawn(async move { service.run(stop).await.map_err(Error::from) });
        }
        spawn(&mut parts, upkeep::run(door.clone(), end.clone()));
        spawn(&mut parts, space::run(watch, end.clone()));
        spawn(&mut parts, notify::watch(door.clone(), pulses, clock.clone(), end.clone()));
        let (driver, driver_stop) = (door.clone(), signals.stop.clone());
        parts.spawn(async move { driver.drive_all(driver_stop).await.map_err(Error::from) });
        let control = server::serve(control, Control::of_daemon(door.clone(), schedules, end.clone()), end.clone());
        parts.spawn(async move { control.await.map_err(|error| broken("control socket", error)) });

        let status = status(&settings);
        spawn(&mut parts, progress::tell(door.clone(), status.clone(), signals.stop.clone()));
        tracing::info!(data_dir = %settings.data_dir.display(), "{status}");
        notify::tell(&[NotifyState::Ready, NotifyState::Status(&status)]);

        let reason = tokio::select! {
            () = stop.cancelled() => Ok(()),
            reason = door.store().stopped() => Err(Error::Store(reason)),
            Some(part) = parts.join_next() => Err(ended("a service", part)),
            Some(pool) = pools.join_next() => Err(ended("a pool", pool.map(|end| end.map_err(Error::from)))),
        };
        let longest = drain::longest(settings.daemon.drain);
        let usec = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        // systemd waits as long as the drain may take, whatever TimeoutStopSec= says.
        notify::tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status("draining")]);
        if let Err(error) = &reason {
            tracing::error!("stopping: {error}");
        } else {
            tracing::info!("draining");
        }
        // Without a store nothing that an attempt does can be written down: it must not go on.
        match &reason {
            Ok(()) => drain::drain(&mut pools, &signals, settings.daemon.drain, &hurry).await,
            Err(_) => {
                signals.stop.cancel();
                signals.cut.cancel();
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

/// The schedules, each with the queue of the fan-out that it starts.
pub fn schedules(settings: &Settings) -> Vec<(schedule::Options, String)> {
    let queue_of = |name: &str| {
        let fan_out = settings.functions.iter().find(|function| function.pool.function == name);
        fan_out.map(|function| function.pool.queue.clone()).expect("config checks that a schedule's function exists")
    };
    settings.schedules.iter().map(|options| (options.clone(), queue_of(&options.function))).collect()
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

/// Turns the end of something that should not have ended into a reason to stop.
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

/// The store that a command opens for itself while no daemon runs.
///
/// # Errors
/// The store does not open; a running daemon holds it.
pub fn open_door(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Door, store::Error> {
    Ok(Door::new(Store::open(&settings.store)?, clock, Arc::new(Ledger)))
}
