//! The scheduler: apalis-cron only wakes it; the durable ticks decide what fires.
//!
//! apalis-cron keeps its schedule in memory and loses ticks on a restart, a stall or a jump of the clock. It is
//! therefore given only future moments, at most a minute ahead, and is rebuilt when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apalis_cron::{CronScheduler, Tick};
use futures_util::StreamExt;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, Timestamp};
use crate::run;
use crate::store::record::TickVerdict;
use crate::store::{Store, Tx};

use super::{Options, tick};

/// The schedule is checked at least this often, so that a jump of the clock is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A scheduler that has not checked its schedule for this long is stuck. Three times [`LOOK_EVERY`]: one slow commit is
/// no reason for systemd to restart the daemon.
const STUCK_AFTER: Duration = Duration::from_secs(180);
/// While a tick waits for room in the fan-out's queue, the schedule is checked this often.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(1);
/// apalis-cron is rebuilt after this pause when it ends, for example because it was given a moment that has passed.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// The schedule for apalis-cron: the next due moment, or a check within a minute.
#[derive(Debug)]
struct Wakes {
    options: Options,
    clock: Arc<dyn Clock>,
}

impl apalis_cron::Schedule<TimeZone> for Wakes {
    fn next_tick(&mut self, _: &TimeZone) -> Option<Tick<TimeZone>> {
        let now = self.clock.wall();
        let look = now.after(LOOK_EVERY);
        let next = self.options.rule.next_after(now).map_or(look, |next| next.min(look));
        // Whole seconds, rounded up: apalis-cron fails when it is told to wait for a moment that has passed. Waking
        // early would also find nothing due yet.
        Some(Tick::new(next.as_millis().div_ceil(1000).max(now.as_secs() + 1)))
    }
}

/// When a scheduler last checked its schedule. The systemd watchdog reads it.
#[derive(Clone, Debug)]
pub struct Liveness {
    schedule: String,
    /// Milliseconds of the monotonic clock; set after each check. Monotonic, so that a jump of the wall clock does not
    /// look like a stuck scheduler.
    looked_at: Arc<AtomicU64>,
}

impl Liveness {
    /// The schedule.
    pub fn schedule(&self) -> &str {
        &self.schedule
    }

    /// Whether the scheduler has missed several checks in a row, at this moment of the monotonic clock.
    pub fn is_stuck(&self, monotonic: Duration) -> bool {
        monotonic.saturating_sub(Duration::from_millis(self.looked_at.load(Ordering::Relaxed))) > STUCK_AFTER
    }

    fn record_check(&self, monotonic: Duration) {
        self.looked_at.store(u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Runs one schedule.
#[derive(Debug)]
pub struct Service {
    store: Store,
    clock: Arc<dyn Clock>,
    options: Options,
    /// The queue of the fan-out function that the schedule starts.
    fan_out_queue: String,
    liveness: Liveness,
    /// The decided tick in the future that was last warned of; one warning each, not one a minute.
    warned_of: Option<Timestamp>,
    /// Whether the last check found a tick that waits for room in the fan-out's queue.
    is_waiting: bool,
}

impl Service {
    /// A scheduler that is not running yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>, options: Options, fan_out_queue: String) -> Self {
        let liveness = Liveness { schedule: options.name.clone(), looked_at: Arc::default() };
        liveness.record_check(clock.monotonic());
        Self { store, clock, options, fan_out_queue, liveness, warned_of: None, is_waiting: false }
    }

    /// Shows whether the scheduler still runs.
    pub fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Decides ticks as they come due, including those missed while the daemon was down, until `shutdown`.
    ///
    /// # Errors
    /// The store failed, or the fan-out's queue does not exist.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), run::Error> {
        loop {
            // Before apalis-cron is asked: it knows future moments only, so missed ones are decided here.
            self.catch_up().await?;
            let wakes = Wakes { options: self.options.clone(), clock: self.clock.clone() };
            let cron = CronScheduler::new(wakes).with_timezone(self.options.rule.zone().clone());
            let mut ticks = Box::pin(cron.into_stream());
            loop {
                let woken = tokio::select! {
                    () = shutdown.cancelled() => {
                        // A stopped scheduler is not stuck, however long the drain takes: the watchdog must not fire.
                        self.liveness.record_check(Duration::MAX);
                        return Ok(());
                    }
                    woken = ticks.next() => woken.is_some_and(|woken| woken.is_ok()),
                    () = tokio::time::sleep(ROOM_LOOK_EVERY), if self.is_waiting => true,
                };
                // An error or the end of the stream loses no tick: the outer loop catches up and builds a new stream.
                if !woken {
                    break;
                }
                self.catch_up().await?;
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Decides everything that is due now, in bounded commits.
    async fn catch_up(&mut self) -> Result<(), run::Error> {
        loop {
            let (options, queue, now) = (self.options.clone(), self.fan_out_queue.clone(), self.clock.now());
            let step = move |tx: &mut Tx<'_>| tick::decide_due(tx, &options, &queue, now);
            let look = self.store.write(step).await?;
            for decided in &look.decided {
                self.log_decision(decided.scheduled_for, &decided.verdict);
            }
            self.liveness.record_check(self.clock.monotonic());
            if !look.more {
                self.warn_of(look.ahead);
                self.is_waiting = look.is_waiting;
                return Ok(());
            }
        }
    }

    /// Warns that the clock was ahead once and was set back: ticks in the future have rows.
    fn warn_of(&mut self, ahead: Option<Timestamp>) {
        if let Some(until) = ahead.filter(|ahead| self.warned_of != Some(*ahead)) {
            let schedule = &self.options.name;
            tracing::warn!(
                %schedule,
                "the clock was ahead: what it decided about ticks up to {until} does not count, but a tick that started \
                 a run does not fire again (see `nightmail schedules`)"
            );
        }
        self.warned_of = ahead;
    }

    fn log_decision(&self, scheduled_for: Timestamp, verdict: &TickVerdict) {
        let schedule = &self.options.name;
        match verdict {
            TickVerdict::Fired { run } => tracing::info!(%schedule, %scheduled_for, run, "the tick started a run"),
            TickVerdict::Skipped { why } => tracing::warn!(%schedule, %scheduled_for, "the tick was skipped: {why}"),
            TickVerdict::Waiting => {
                let queue = &self.fan_out_queue;
                tracing::warn!(%schedule, %scheduled_for, "the tick waits: queue {queue:?} is full");
            }
            TickVerdict::Known => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_stuck_after_several_missed_looks_and_not_once_it_has_stopped() {
        let liveness = Liveness { schedule: "monthly".into(), looked_at: Arc::default() };
        let minutes = |count| LOOK_EVERY * count;
        liveness.record_check(minutes(10));
        assert!(!liveness.is_stuck(minutes(10)) && !liveness.is_stuck(minutes(13)));
        assert!(liveness.is_stuck(minutes(13) + Duration::from_millis(1)));
        liveness.record_check(Duration::MAX);
        assert!(!liveness.is_stuck(minutes(1000)));
    }
}
