//! From a function's outcome to one commit: the message, its history, its run's ledger and the totals change together.

use std::time::Duration;

use crate::base::{Effect, Now, Outcome};
use crate::queue;
use crate::queue::settle::{self, Ended};
use crate::queue::{Queues, Received, Settled};
use crate::run::ledger;
use crate::store::Tx;

use super::Options;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum End {
    /// The function returned, panicked, or exceeded its time limit.
    Outcome(Outcome),
    /// A drain cancelled it.
    Aborted,
}

impl End {
    /// Its name in the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.name(),
            Self::Aborted => "aborted",
        }
    }
}

/// Settles an attempt that ended at `now`.
///
/// # Errors
/// The store failed; the daemon's next start then treats the attempt as lost.
pub(super) async fn settle(
    queues: &Queues,
    options: &Options,
    message: Received,
    end: End,
    now: Now,
) -> Result<Settled, queue::Error> {
    match end {
        End::Outcome(outcome) => conclude(queues, options, &message, outcome, now).await,
        End::Aborted => give_back(queues, &message, now).await,
    }
}

/// Settles an attempt according to its outcome.
async fn conclude(
    queues: &Queues,
    options: &Options,
    message: &Received,
    outcome: Outcome,
    now: Now,
) -> Result<Settled, queue::Error> {
    let (handle, observer) = (message.handle, queues.observer());
    let (at_most, back_off) = (options.deferral_max, back_off(options, message.attempts_charged));
    let pause = options.deferral_pause;
    let ended = |why| Ended { function: options.function.clone(), why, at: now };
    match outcome {
        Outcome::Done(proof) => {
            let (run, recipient) = (message.run, message.recipient);
            let step = move |tx: &mut Tx<'_>| {
                let deleted = settle::done(tx, handle)?.is_some();
                // The effect happened, so the ledger records it even when the message was purged or received by another
                // worker in the meantime.
                ledger::sent(tx, run, recipient, proof, now.wall)?;
                Ok(if deleted { Settled::Deleted } else { Settled::Fenced })
            };
            queues.store().write(step).await
        }
        Outcome::Retry { why, after, effect } => {
            let (ended, wait) = (ended(why), requested_wait(after).unwrap_or(back_off));
            let step = move |tx: &mut Tx<'_>| {
                if effect == Effect::Unknown {
                    settle::report_interrupted(tx, &*observer, handle, now)?;
                }
                settle::retry(tx, &*observer, handle, &ended, wait)
            };
            queues.store().write(step).await
        }
        Outcome::Dead { why } => {
            let ended = ended(why);
            queues.store().write(move |tx| settle::move_to_dlq(tx, &*observer, handle, &ended, back_off)).await
        }
        Outcome::Deferred { why, after } => {
            let (ended, wait) = (ended(why), requested_wait(after).unwrap_or(pause));
            queues.store().write(move |tx| settle::defer(tx, &*observer, handle, &ended, wait, at_most)).await
        }
    }
}

/// Releases a message whose attempt a drain cancelled: no attempt is charged, and the run's ledger records that the
/// effect is in doubt.
async fn give_back(queues: &Queues, message: &Received, now: Now) -> Result<Settled, queue::Error> {
    let (handle, observer) = (message.handle, queues.observer());
    let step = move |tx: &mut Tx<'_>| {
        settle::report_interrupted(tx, &*observer, handle, now)?;
        settle::release(tx, handle)
    };
    queues.store().write(step).await
}

fn back_off(options: &Options, attempts_charged: u32) -> Duration {
    options.backoff.wait(attempts_charged, rand::random())
}

/// The wait that the destination asked for, at least one second: a service that throttles and says "now" must not be
/// called in a tight loop. Up to 10 % is added at random, so that throttled messages do not all come back at once.
fn requested_wait(after: Option<Duration>) -> Option<Duration> {
    after.map(|after| after.max(Duration::from_secs(1)).mul_f64(1.0 + 0.1 * rand::random::<f64>()))
}
