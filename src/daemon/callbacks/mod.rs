//! Tells others about runs: a message into a queue of ours, a POST, a command; and heartbeats.
//!
//! What is owed is a row (`run::notifications`), so that it outlives the process. Deliveries are at least once, bounded in time and
//! number, and never in the way of a run.

mod command;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, Timestamp};
use crate::config::Settings;
use crate::queue::Queues;
use crate::run::Estimates;
use crate::run::notifications::{self, RunChange, RunWatch, Subscription, Subscriptions, Told};
use crate::schedule::tick;
use crate::store::record::{NotificationKind, NotificationRecord, TickVerdict};
use crate::store::{self, Snapshot, Tx};

use super::Error;
use target::{Heartbeat, Targets};

/// How often the runs and the ticks are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At most this many notifications are delivered at once.
const AT_ONCE_MAX: usize = 8;

/// Tells others about the runs of all schedules.
pub(super) struct Callbacks {
    queues: Queues,
    /// By schedule.
    targets: BTreeMap<String, Arc<Targets>>,
    heartbeats: BTreeMap<String, Arc<Heartbeat>>,
    /// The newest tick of each schedule with a heartbeat at the last look.
    ticks: BTreeMap<String, Timestamp>,
    /// When the runs under way will probably have ended.
    estimates: Estimates,
}

impl Callbacks {
    /// Builds the clients.
    ///
    /// # Errors
    /// An address or a token cannot be used.
    pub(super) fn new(
        settings: &Settings,
        queues: &Queues,
        clock: &Arc<dyn Clock>,
        estimates: &Estimates,
    ) -> Result<Self, Error> {
        let (mut targets, mut heartbeats) = (BTreeMap::new(), BTreeMap::new());
        for (schedule, options) in &settings.callbacks {
            let fault = |reason| Error::Callback { schedule: schedule.clone(), reason };
            targets.insert(schedule.clone(), Arc::new(Targets::new(options, clock).map_err(fault)?));
            if let Some(heartbeat) = Heartbeat::new(options, clock).map_err(fault)? {
                heartbeats.insert(schedule.clone(), Arc::new(heartbeat));
            }
        }
        Ok(Self { queues: queues.clone(), targets, heartbeats, ticks: BTreeMap::new(), estimates: estimates.clone() })
    }

    /// Runs until `shutdown`. A try that is cut off then is made again by the next daemon.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), crate::run::Error> {
        self.queues.store().write(notifications::begin).await?;
        self.ticks = self.newest_ticks().await?;
        let subscriptions = Arc::new(self.subscriptions());
        let mut watch = RunWatch::default();
        loop {
            let changes = {
                let snapshot = self
                    .queues
                    .store()
                    .read(move |snapshot| Ok::<_, crate::run::Error>((watch.changes(snapshot)?, watch)));
                let (mut changes, kept) = snapshot.await?;
                watch = kept;
                changes.iter_mut().for_each(|change| change.run.eta = self.estimates.of(change.run.id));
                changes
            };
            self.announce(&changes, &subscriptions).await?;
            self.beat(&changes).await?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                delivered = self.deliver_all() => delivered?,
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn subscriptions(&self) -> Subscriptions {
        let of = |targets: &Arc<Targets>| Subscription { kinds: targets.kinds.clone(), targets: targets.names() };
        self.targets.iter().map(|(schedule, targets)| (schedule.clone(), of(targets))).collect()
    }

    async fn announce(&self, changes: &[RunChange], subscriptions: &Arc<Subscriptions>) -> Result<(), store::Error> {
        for one in changes {
            let one = one.clone();
            let (subscriptions, now) = (subscriptions.clone(), self.queues.now().wall);
            let step = move |tx: &mut Tx<'_>| notifications::announce(tx, &one, &subscriptions, now);
            self.queues.store().write(step).await?;
        }
        Ok(())
    }

    /// Delivers what is due, some at once.
    async fn deliver_all(&self) -> Result<(), store::Error> {
        let now = self.queues.now().wall;
        let due = self.queues.store().read(move |snapshot| notifications::due(snapshot, now, AT_ONCE_MAX)).await?;
        let tries = due.into_iter().flat_map(|(key, notification)| {
            let notification = Arc::new(notification);
            let owed: Vec<String> =
                notification.owed.iter().filter(|owed| owed.next_at <= now).map(|owed| owed.target.clone()).collect();
            owed.into_iter().map(move |target| (key, notification.clone(), target))
        });
        let tries = tries.map(|(key, notification, target)| self.deliver(key, notification, target));
        join_all(tries).await.into_iter().collect()
    }

    async fn deliver(
        &self,
        key: u64,
        notification: Arc<NotificationRecord>,
        target: String,
    ) -> Result<(), store::Error> {
        let targets = self.targets.get(&notification.schedule).filter(|targets| targets.names().contains(&target));
        let (told, why) = match targets {
            None => (Told::Nobody, String::new()),
            // In one commit with the end of its debt: this target gets each notification once.
            Some(targets) if target == target::QUEUE => return targets.send(&self.queues, key, &notification).await,
            Some(targets) => match targets.tell(&target, &notification).await {
                Ok(()) => (Told::Yes, String::new()),
                Err(why) => (Told::No { attempts_max: targets.attempts_max }, why),
            },
        };
        record_try(&self.queues, key, (&notification, &target), (told, &why)).await
    }

    /// Calls the heartbeats of schedules with a new tick or a run that ended, beside everything else.
    async fn beat(&mut self, changes: &[RunChange]) -> Result<(), store::Error> {
        if self.heartbeats.is_empty() {
            return Ok(());
        }
        let ticks = self.newest_ticks().await?;
        for (schedule, heartbeat) in &self.heartbeats {
            let has_ended =
                |change: &RunChange| change.run.schedule == *schedule && change.kinds.contains(&NotificationKind::End);
            if ticks.get(schedule) != self.ticks.get(schedule) || changes.iter().any(has_ended) {
                heartbeat.clone().beat(schedule.clone());
            }
        }
        self.ticks = ticks;
        Ok(())
    }

    /// The newest tick of each schedule that started a run.
    async fn newest_ticks(&self) -> Result<BTreeMap<String, Timestamp>, store::Error> {
        let (schedules, now) = (self.heartbeats.keys().cloned().collect::<Vec<_>>(), self.queues.now().wall);
        let read = move |snapshot: &Snapshot| {
            let newest = |schedule: String| {
                let tick = tick::newest(snapshot, &schedule, now, 1)?.pop();
                let fired = tick.filter(|(_, tick)| matches!(tick.verdict, TickVerdict::Fired { .. }));
                Ok::<_, store::Error>(fired.map(|(at, _)| (schedule, at)))
            };
            schedules.into_iter().filter_map(|schedule| newest(schedule).transpose()).collect()
        };
        self.queues.store().read(read).await
    }
}

/// Records how a try ended, and says so when it failed.
async fn record_try(
    queues: &Queues,
    key: u64,
    (notification, target): (&NotificationRecord, &str),
    (told, why): (Told, &str),
) -> Result<(), store::Error> {
    let (name, now) = (target.to_owned(), queues.now().wall);
    let is_given_up =
        queues.store().write(move |tx: &mut Tx<'_>| notifications::record_try(tx, key, &name, told, now)).await?;
    let (run, kind, id) = (notification.run, notifications::name(notification.kind), notification.id);
    match told {
        Told::No { .. } if is_given_up => {
            tracing::error!(run, notification = kind, %id, target, "the {target} was not told, and is not tried again: {why}");
        }
        Told::No { .. } => tracing::warn!(run, notification = kind, %id, target, "the {target} was not told: {why}"),
        Told::Nobody => {
            tracing::warn!(run, notification = kind, %id, target, "nobody is told: it is not configured any more")
        }
        Told::Yes => tracing::info!(run, notification = kind, %id, target, "the {target} was told"),
    }
    Ok(())
}
