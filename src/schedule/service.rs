//! The scheduler: apalis-cron wakes it, the durable ticks decide.
//!
//! apalis-cron keeps its schedule in memory and loses ticks over a restart, a stall or a jump of the clock, so it is
//! fed only moments still to come, at most a minute ahead, and is built anew when it ends.

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

/// The clock is looked at this often at least, so that a clock that was set does not matter for long.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A scheduler that has not looked for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(180);
/// After apalis-cron reports a moment that is past already, it is built anew after this pause.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// The schedule that apalis-cron is fed from: the next due moment, or a look within a minute.
#[derive(Debug)]
struct Wakes {
    options: Options,
    clock: Arc<dyn Clock>,
}

impl apalis_cron::Schedule<TimeZone> for Wakes {
    fn next_tick(&mut self, _: &TimeZone) -> Option<Tick<TimeZone>> {
        let now = self.clock.now();
        let look = now.after(LOOK_EVERY);
        let next = self.options.rule.next_after(now).map_or(look, |next| next.min(look));
        // Whole seconds, rounded up: apalis-cron refuses a moment that is past when it is asked to wait for it.
        Some(Tick::new(next.as_millis().div_ceil(1000).max(now.as_secs() + 1)))
    }
}

/// When a scheduler last looked whether something is due.
#[derive(Clone, Debug)]
pub struct Pulse {
    schedule: String,
    /// Milliseconds of the monotonic clock; set after each look.
    looked_at: Arc<AtomicU64>,
}

impl Pulse {
    /// The schedule.
    pub fn schedule(&self) -> &str {
        &self.schedule
    }

    /// Whether the scheduler has missed several looks in a row, at this moment of the monotonic clock.
    pub fn is_stuck(&self, monotonic: Duration) -> bool {
        monotonic.saturating_sub(Duration::from_millis(self.looked_at.load(Ordering::Relaxed))) > STUCK_AFTER
    }

    fn beat(&self, monotonic: Duration) {
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
    pulse: Pulse,
    /// The decided tick ahead of the clock that was warned of.
    warned_of: Option<Timestamp>,
}

impl Service {
    /// A scheduler that is not running yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>, options: Options, fan_out_queue: String) -> Self {
        let pulse = Pulse { schedule: options.name.clone(), looked_at: Arc::default() };
        pulse.beat(clock.monotonic());
        Self { store, clock, options, fan_out_queue, pulse, warned_of: None }
    }

    /// Tells whether the scheduler still looks.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Decides ticks as they come due, those missed while nothing ran included, until `shutdown`.
    ///
    /// # Errors
    /// The store failed, or the fan-out's queue is not there.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), run::Error> {
        loop {
            self.catch_up().await?;
            let wakes = Wakes { options: self.options.clone(), clock: self.clock.clone() };
            let cron = CronScheduler::new(wakes).with_timezone(self.options.rule.zone().clone());
            let mut ticks = Box::pin(cron.into_stream());
            loop {
                let woken = tokio::select! {
                    () = shutdown.cancelled() => {
                        // Who has stopped is not stuck, however long the drain takes.
                        self.pulse.beat(Duration::MAX);
                        return Ok(());
                    }
                    woken = ticks.next() => woken,
                };
                if !matches!(woken, Some(Ok(_))) {
                    break;
                }
                self.catch_up().await?;
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Decides everything that is due now.
    async fn catch_up(&mut self) -> Result<(), run::Error> {
        loop {
            let (options, queue, now) = (self.options.clone(), self.fan_out_queue.clone(), self.clock.now());
            let step = move |tx: &mut Tx<'_>| tick::look(tx, &options, &queue, now);
            let look = self.store.write(step).await?;
            for decided in &look.decided {
                self.tell(decided.scheduled_for, &decided.verdict);
            }
            self.pulse.beat(self.clock.monotonic());
            if !look.more {
                self.warn_of(look.ahead);
                return Ok(());
            }
        }
    }

    /// The clock was ahead once, and set back since.
    fn warn_of(&mut self, ahead: Option<Timestamp>) {
        if let Some(until) = ahead.filter(|ahead| self.warned_of != Some(*ahead)) {
            let schedule = &self.options.name;
            tracing::warn!(%schedule, "ticks up to {until} are decided already: the clock was ahead; no tick fires before");
        }
        self.warned_of = ahead;
    }

    fn tell(&self, scheduled_for: Timestamp, verdict: &TickVerdict) {
        let schedule = &self.options.name;
        match verdict {
            TickVerdict::Fired { run } => tracing::info!(%schedule, %scheduled_for, run, "the tick started a run"),
            TickVerdict::Skipped { why } => tracing::warn!(%schedule, %scheduled_for, "the tick was skipped: {why}"),
            TickVerdict::Known => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_stuck_after_several_missed_looks_and_not_once_it_has_stopped() {
        let pulse = Pulse { schedule: "monthly".into(), looked_at: Arc::default() };
        let minutes = |count| LOOK_EVERY * count;
        pulse.beat(minutes(10));
        assert!(!pulse.is_stuck(minutes(10)) && !pulse.is_stuck(minutes(13)));
        assert!(pulse.is_stuck(minutes(13) + Duration::from_millis(1)));
        pulse.beat(Duration::MAX);
        assert!(!pulse.is_stuck(minutes(1000)));
    }
}
