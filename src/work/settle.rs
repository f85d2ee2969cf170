//! From a function's outcome to one commit: the message, its history, its run's ledger and the totals change together.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{Effect, Failure, LeaseTime, Now, Outcome};
use crate::queue;
use crate::queue::settle::{self, Ended};
use crate::queue::{Queues, Received, Settled};
use crate::run::ledger;
use crate::store::Tx;

use super::Options;
use super::breakers::Gate;

/// A message whose destination is away becomes visible again after this, and up to the same at random.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The function returned, panicked, or exceeded its time limit.
    Outcome(Outcome),
    /// A drain cancelled it; the effect may have happened or not.
    Aborted(Effect),
}

impl End {
    /// Its name in the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.name(),
            Self::Aborted(_) => "aborted",
        }
    }
}

/// What the settling of one pool's attempts needs.
#[derive(Clone, Debug)]
pub(super) struct Settler {
    pub(super) queues: Queues,
    pub(super) options: Arc<Options>,
    pub(super) gate: Gate,
}

impl Settler {
    /// Settles an attempt that ended at `now`. `is_away`: the destination of the call that decided its outcome is away.
    ///
    /// # Errors
    /// The store failed; the daemon's next start then treats the attempt as lost.
    pub(super) async fn settle(
        &self,
        message: Received,
        end: End,
        is_away: bool,
        now: Now,
    ) -> Result<Settled, queue::Error> {
        match end {
            End::Outcome(outcome) => match spared(outcome, is_away) {
                Ok(why) => {
                    let wait = AWAY_PAUSE.mul_f64(1.0 + rand::random::<f64>());
                    self.wait(&message, why, wait, now).await
                }
                Err(outcome) => self.conclude(&message, outcome, now).await,
            },
            End::Aborted(effect) => self.give_back(&message, effect, now).await,
        }
    }

    /// Settles an attempt according to its outcome.
    async fn conclude(&self, message: &Received, outcome: Outcome, now: Now) -> Result<Settled, queue::Error> {
        let (observer, options) = (self.queues.observer(), &self.options);
        let (handle, back_off) = (message.handle, back_off(options, message.attempts_charged));
        match outcome {
            Outcome::Done(proof) => {
                let (run, recipient) = (message.run, message.recipient);
                let step = move |tx: &mut Tx<'_>| {
                    let deleted = settle::done(tx, handle)?.is_some();
                    // The effect happened, so the ledger records it even when the message was purged or received by
                    // another worker in the meantime.
                    ledger::sent(tx, run, recipient, proof, now.wall)?;
                    Ok(if deleted { Settled::Deleted } else { Settled::Fenced })
                };
                self.write(message, Doubt::None, now, step).await
            }
            Outcome::Retry { why, after, effect } => {
                let (ended, wait) = (self.ended(why, now), requested_wait(after).unwrap_or(back_off));
                let step = move |tx: &mut Tx<'_>| settle::retry(tx, &*observer, handle, &ended, wait);
                self.write(message, Doubt::of(effect), now, step).await
            }
            Outcome::Dead { why } => {
                let ended = self.ended(why, now);
                let step = move |tx: &mut Tx<'_>| settle::move_to_dlq(tx, &*observer, handle, &ended, back_off);
                self.write(message, Doubt::None, now, step).await
            }
            Outcome::Deferred { why, after } => {
                let (ended, wait) = (self.ended(why, now), requested_wait(after).unwrap_or(options.deferral_pause));
                let at_most = options.deferral_max + self.time_away(message);
                let step = move |tx: &mut Tx<'_>| settle::defer(tx, &*observer, handle, &ended, wait, at_most);
                self.write(message, Doubt::None, now, step).await
            }
            Outcome::Waiting { why, after } => {
                let wait = requested_wait(after).unwrap_or(options.deferral_pause);
                self.wait(message, why, wait, now).await
            }
        }
    }

    /// Runs the step that settles the message, and in the same commit records in the run's ledger whether the attempt
    /// leaves a doubt.
    async fn write<F>(&self, message: &Received, doubt: Doubt, now: Now, step: F) -> Result<Settled, queue::Error>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<Settled, queue::Error> + Send + 'static,
    {
        let (handle, run, recipient) = (message.handle, message.run, message.recipient);
        let observer = self.queues.observer();
        let with_doubt = move |tx: &mut Tx<'_>| {
            // Before settling, which ends the lease. An attempt that lost its message before is in doubt already,
            // whatever became of the message: run and recipient lead to the row without it.
            match (settle::is_held(tx, handle)?, doubt) {
                (true, Doubt::Left) => settle::report_interrupted(tx, &*observer, handle, now)?,
                (false, Doubt::None) => ledger::not_interrupted(tx, run, recipient)?,
                _ => {}
            }
            step(tx)
        };
        self.queues.store().write(with_doubt).await
    }

    /// Defers a message whose destination is away, or that waits for room in a queue. For a destination the wait is
    /// short: nothing is received for it until it answers a probe, and then the message is ready.
    async fn wait(&self, message: &Received, why: Failure, wait: Duration, now: Now) -> Result<Settled, queue::Error> {
        let (handle, ended) = (message.handle, self.ended(why, now));
        let step = move |tx: &mut Tx<'_>| settle::wait(tx, handle, &ended, wait);
        self.write(message, Doubt::None, now, step).await
    }

    /// Releases a message whose attempt a drain cancelled: no attempt is charged.
    async fn give_back(&self, message: &Received, effect: Effect, now: Now) -> Result<Settled, queue::Error> {
        let handle = message.handle;
        self.write(message, Doubt::of(effect), now, move |tx: &mut Tx<'_>| settle::release(tx, handle)).await
    }

    /// How much of the present series of deferrals a destination was away: it does not count towards its limit.
    fn time_away(&self, message: &Received) -> Duration {
        match message.deferred_since {
            LeaseTime::ZERO => Duration::ZERO,
            since => self.gate.away_since(since),
        }
    }

    fn ended(&self, why: Failure, at: Now) -> Ended {
        Ended { function: self.options.function.clone(), why, at }
    }
}

/// Whether an attempt leaves a doubt in the run's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Its effect happened or did not; that is known.
    None,
    /// Its effect may have happened.
    Left,
}

impl Doubt {
    const fn of(effect: Effect) -> Self {
        match effect {
            Effect::None => Self::None,
            Effect::Unknown => Self::Left,
        }
    }
}

/// The failure of an attempt that is not charged because the destination of its last call is away; otherwise the
/// outcome as it was. A doubt stays charged: probes would otherwise mail the same recipient without end.
fn spared(outcome: Outcome, is_away: bool) -> Result<Failure, Outcome> {
    match outcome {
        Outcome::Retry { why, effect: Effect::None, .. } | Outcome::Deferred { why, .. } if is_away => Ok(why),
        outcome => Err(outcome),
    }
}

/// Logs how an attempt ended. What fails because its destination is away is not worth a line of its own: the breaker
/// has told it.
pub(super) fn tell(end: &End, is_away: bool, took: Duration) {
    let End::Outcome(outcome) = end else { return };
    // A log writes 128 bits as text.
    let (name, took_ms) = (outcome.name(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match outcome {
        Outcome::Done(_) => tracing::debug!(outcome = name, took_ms, "done"),
        Outcome::Retry { why, effect: Effect::None, .. } | Outcome::Deferred { why, .. } if is_away => {
            tracing::debug!(outcome = "deferred", took_ms, fingerprint = %why.fingerprint(), "{why}");
        }
        Outcome::Retry { why, .. }
        | Outcome::Dead { why }
        | Outcome::Deferred { why, .. }
        | Outcome::Waiting { why, .. } => {
            tracing::warn!(outcome = name, took_ms, fingerprint = %why.fingerprint(), "{why}");
        }
    }
}

fn back_off(options: &Options, attempts_charged: u32) -> Duration {
    options.backoff.wait(attempts_charged, rand::random())
}

/// The wait that the destination asked for, at least one second: a service that throttles and says "now" must not be
/// called in a tight loop. Up to 10 % is added at random, so that throttled messages do not all come back at once.
fn requested_wait(after: Option<Duration>) -> Option<Duration> {
    after.map(|after| after.max(Duration::from_secs(1)).mul_f64(1.0 + 0.1 * rand::random::<f64>()))
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
