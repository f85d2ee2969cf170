//! From a function's outcome to one commit: the message, its history, its run's ledger and the totals move together.

use std::time::Duration;

use crate::base::{Effect, Outcome, Timestamp};
use crate::queue;
use crate::queue::settle::{self, Ended};
use crate::queue::{Door, Received, Settled};
use crate::run::ledger;
use crate::store::Tx;

use super::Options;

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum End {
    /// The function answered, panicked, or ran out of time.
    Outcome(Outcome),
    /// A drain cut it short.
    Cut,
}

impl End {
    /// Its name in the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.name(),
            Self::Cut => "cut",
        }
    }
}

/// Settles an attempt that ended at `now`.
///
/// # Errors
/// The store failed; the attempt then counts as lost when the daemon starts anew.
pub(super) async fn settle(
    door: &Door,
    options: &Options,
    message: Received,
    end: End,
    now: Timestamp,
) -> Result<Settled, queue::Error> {
    match end {
        End::Outcome(outcome) => conclude(door, options, &message, outcome, now).await,
        End::Cut => give_back(door, &message, now).await,
    }
}

/// Ends an attempt as its outcome says.
async fn conclude(
    door: &Door,
    options: &Options,
    message: &Received,
    outcome: Outcome,
    now: Timestamp,
) -> Result<Settled, queue::Error> {
    let (handle, witness) = (message.handle, door.witness());
    let (at_most, back_off) = (options.deferral_max, back_off(options, message.charged));
    let pause = options.deferral_pause;
    let ended = |why| Ended { function: options.function.clone(), why, at: now };
    match outcome {
        Outcome::Done(receipt) => {
            let (run, recipient) = (message.run, message.recipient);
            let step = move |tx: &mut Tx<'_>| {
                let deleted = settle::done(tx, handle)?.is_some();
                // What was done was done, also when the message was purged or taken over meanwhile.
                ledger::sent(tx, run, recipient, receipt, now)?;
                Ok(if deleted { Settled::Deleted } else { Settled::Fenced })
            };
            door.store().write(step).await
        }
        Outcome::Retry { why, after, effect } => {
            let (ended, wait) = (ended(why), named(after).unwrap_or(back_off));
            let step = move |tx: &mut Tx<'_>| {
                if effect == Effect::Unknown {
                    settle::doubt(tx, &*witness, handle, now)?;
                }
                settle::retry(tx, &*witness, handle, &ended, wait)
            };
            door.store().write(step).await
        }
        Outcome::Dead { why } => {
            let ended = ended(why);
            door.store().write(move |tx| settle::bury(tx, &*witness, handle, &ended, back_off)).await
        }
        Outcome::Deferred { why, after } => {
            let (ended, wait) = (ended(why), named(after).unwrap_or(pause));
            door.store().write(move |tx| settle::defer(tx, &*witness, handle, &ended, wait, at_most)).await
        }
    }
}

/// Gives back a message whose attempt a drain cut short: nothing is charged, and the run's books say that the effect
/// is in doubt.
async fn give_back(door: &Door, message: &Received, now: Timestamp) -> Result<Settled, queue::Error> {
    let (handle, witness) = (message.handle, door.witness());
    let step = move |tx: &mut Tx<'_>| {
        settle::doubt(tx, &*witness, handle, now)?;
        settle::release(tx, handle)
    };
    door.store().write(step).await
}

fn back_off(options: &Options, charged: u32) -> Duration {
    options.backoff.wait(charged, rand::random())
}

/// The wait that the other side named. At least a second: a service that says "now" while it throttles is not to be
/// asked in a loop.
fn named(after: Option<Duration>) -> Option<Duration> {
    after.map(|after| after.max(Duration::from_secs(1)).mul_f64(1.0 + 0.1 * rand::random::<f64>()))
}
