//! From a function's outcome to one commit: the message, its history, its run's ledger and the totals change together.

use std::sync::Arc;
use std::time::Duration;

use crate::base::{Effect, Failure, LeaseTime, LeftOutBy, Now, Outcome};
use crate::queue;
use crate::queue::settle::{self, Ended};
use crate::queue::{Queues, ReceiptHandle, Received, Settled};
use crate::run::effects::{AttemptEffects, Ending, Intents, Left};
use crate::store::Tx;
use crate::store::record::RecipientState;

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
    /// Writes the intents of the pool's attempts.
    pub(super) intents: Intents,
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
        effects: &AttemptEffects,
        end: End,
        is_away: bool,
        now: Now,
    ) -> Result<Settled, queue::Error> {
        let attempt = Attempt { message: &message, effects };
        match end {
            End::Outcome(outcome) => match spared(outcome, is_away) {
                Ok(why) => {
                    let wait = AWAY_PAUSE.mul_f64(1.0 + rand::random::<f64>());
                    self.wait(attempt, why, wait, now).await
                }
                Err(outcome) => self.conclude(attempt, outcome, now).await,
            },
            End::Aborted(effect) => self.give_back(attempt, effect, now).await,
        }
    }

    /// Settles an attempt according to its outcome.
    async fn conclude(&self, attempt: Attempt<'_>, outcome: Outcome, now: Now) -> Result<Settled, queue::Error> {
        let (observer, options) = (self.queues.observer(), &self.options);
        let (handle, back_off) = (attempt.message.handle, back_off(options, attempt.message.attempts_charged));
        match outcome {
            Outcome::Done(proof) => self.write(attempt, Ending::Done(proof), now, move |tx| delete(tx, handle)).await,
            Outcome::Duplicate { .. } => {
                self.write(attempt, Ending::Duplicate, now, move |tx| delete(tx, handle)).await
            }
            Outcome::Rendered(made) => {
                self.write(attempt, Ending::Rendered(made), now, move |tx| delete(tx, handle)).await
            }
            Outcome::LeftOut { by, why } => {
                let state = match by {
                    LeftOutBy::Rule => RecipientState::Skipped(why),
                    LeftOutBy::Suppression => RecipientState::Suppressed(why),
                };
                self.write(attempt, Ending::LeftOut(state), now, move |tx| delete(tx, handle)).await
            }
            Outcome::Retry { why, after, effect } => {
                let ending = ending(effect, &why);
                let (ended, wait) = (self.ended(why, now), requested_wait(after).unwrap_or(back_off));
                let effects = attempt.effects.clone();
                let step = move |tx: &mut Tx<'_>| {
                    let settled = settle::retry(tx, &*observer, handle, &ended, wait)?;
                    if matches!(settled, Settled::Waits { .. }) {
                        effects.count_retry(tx, &ended.why)?;
                    }
                    Ok(settled)
                };
                self.write(attempt, ending, now, step).await
            }
            Outcome::Dead { why } => {
                let ended = self.ended(why, now);
                let step = move |tx: &mut Tx<'_>| settle::move_to_dlq(tx, &*observer, handle, &ended, back_off);
                self.write(attempt, Ending::None, now, step).await
            }
            Outcome::Deferred { why, after } => {
                let (ended, wait) = (self.ended(why, now), requested_wait(after).unwrap_or(options.deferral_pause));
                let at_most = options.deferral_max + self.time_away(attempt.message);
                let step = move |tx: &mut Tx<'_>| settle::defer(tx, &*observer, handle, &ended, wait, at_most);
                self.write(attempt, Ending::None, now, step).await
            }
            Outcome::Waiting { why, after } => {
                let wait = requested_wait(after).unwrap_or(options.deferral_pause);
                self.wait(attempt, why, wait, now).await
            }
            Outcome::Paced { after, .. } => {
                let until = now.lease.after(requested_wait(after).unwrap_or(options.deferral_pause));
                let step = move |tx: &mut Tx<'_>| settle::put_back(tx, handle, until);
                self.write(attempt, Ending::None, now, step).await
            }
        }
    }

    /// Records how the attempt's effect ended and, in the same commit, runs the step that settles the message; a message
    /// whose effect is unknown may be held instead.
    async fn write<F>(&self, attempt: Attempt<'_>, ending: Ending, now: Now, step: F) -> Result<Settled, queue::Error>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<Settled, queue::Error> + Send + 'static,
    {
        let (handle, effects) = (attempt.message.handle, attempt.effects.clone());
        let with_effect = move |tx: &mut Tx<'_>| match effects.end(tx, ending, now.wall)? {
            Left::ToItsOutcome => step(tx),
            Left::Held => settle::hold(tx, handle),
            Left::Again => settle::release(tx, handle),
        };
        self.queues.store().write(with_effect).await
    }

    /// Defers a message whose destination is away, or that waits for room in a queue. For a destination the wait is
    /// short: nothing is received for it until it answers a probe, and then the message is ready.
    async fn wait(
        &self,
        attempt: Attempt<'_>,
        why: Failure,
        wait: Duration,
        now: Now,
    ) -> Result<Settled, queue::Error> {
        let (handle, ended) = (attempt.message.handle, self.ended(why, now));
        let step = move |tx: &mut Tx<'_>| settle::wait(tx, handle, &ended, wait);
        self.write(attempt, Ending::None, now, step).await
    }

    /// Releases a message whose attempt a drain cancelled: no attempt is charged.
    async fn give_back(&self, attempt: Attempt<'_>, effect: Effect, now: Now) -> Result<Settled, queue::Error> {
        let handle = attempt.message.handle;
        let ending = match effect {
            Effect::None => Ending::None,
            Effect::Unknown => Ending::Unknown("the daemon stopped while the mail was being handed over".into()),
        };
        self.write(attempt, ending, now, move |tx: &mut Tx<'_>| settle::release(tx, handle)).await
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

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
struct Attempt<'a> {
    message: &'a Received,
    effects: &'a AttemptEffects,
}

/// Deletes the message of an attempt that has nothing left to do.
fn delete(tx: &mut Tx<'_>, handle: ReceiptHandle) -> Result<Settled, queue::Error> {
    Ok(if settle::done(tx, handle)?.is_some() { Settled::Deleted } else { Settled::Fenced })
}

fn ending(effect: Effect, why: &Failure) -> Ending {
    match effect {
        Effect::None => Ending::None,
        Effect::Unknown => Ending::Unknown(why.to_string()),
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
        Outcome::Done(_) | Outcome::Rendered(_) => tracing::debug!(outcome = name, took_ms, "done"),
        Outcome::LeftOut { why, .. } => tracing::debug!(outcome = name, took_ms, "{why}"),
        Outcome::Paced { why, .. } => tracing::debug!(outcome = name, took_ms, "{why}"),
        Outcome::Duplicate { why } => tracing::info!(outcome = name, took_ms, "{why}"),
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
