//! The scheduler: apalis-cron wakes it, the durable ticks decide.
//!
//! apalis-cron keeps its schedule in memory and loses ticks over a restart, a stall or a jump of the clock, so it is
//! fed only moments still to come, at most a minute ahead, and is built anew when it ends.

use std::sync::Arc;
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

/// Runs one schedule.
#[derive(Debug)]
pub struct Service {
    store: Store,
    clock: Arc<dyn Clock>,
    options: Options,
    /// The queue of the fan-out function that the schedule starts.
    fan_out_queue: String,
}

impl Service {
    /// A scheduler that is not running yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>, options: Options, fan_out_queue: String) -> Self {
        Self { store, clock, options, fan_out_queue }
    }

    /// Decides ticks as they come due, those missed while nothing ran included, until `shutdown`.
    ///
    /// # Errors
    /// The store failed, or the fan-out's queue is not there.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), run::Error> {
        loop {
            self.catch_up().await?;
            let wakes = Wakes { options: self.options.clone(), clock: self.clock.clone() };
            let cron = CronScheduler::new(wakes).with_timezone(self.options.rule.zone().clone());
            let mut ticks = Box::pin(cron.into_stream());
            loop {
                let woken = tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
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
    async fn catch_up(&self) -> Result<(), run::Error> {
        loop {
            let (options, queue, now) = (self.options.clone(), self.fan_out_queue.clone(), self.clock.now());
            let step = move |tx: &mut Tx<'_>| tick::look(tx, &options, &queue, now);
            let look = self.store.write(step).await?;
            for decided in &look.decided {
                self.tell(decided.scheduled_for, &decided.verdict);
            }
            if !look.more {
                return Ok(());
            }
        }
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
