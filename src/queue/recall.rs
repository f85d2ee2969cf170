//! Messages of runs that may not go on: a receive hands none of them out, and [`step`] removes those that stand in queues.
//!
//! Which runs these are, the observer says; this module knows only what to do with their messages.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::base::Now;
use crate::store::record::{BodyHead, MessageState, Phase, QueueRecord};
use crate::store::{self, Snapshot, Tx};

use super::ending::{self, Withdrawal};
use super::state::{self, Key};
use super::{Observer, RunMessage, Standing, messages, observer};

/// A message that has to wait is looked at again after this.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One step removes at most this many messages; one without a history has six rows.
pub const STEP_MAX: usize = 80;

/// Keeps a message that could be received now from being received, when its run may not go on; returns whether it did.
pub(super) fn hold_back(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    (key, state): (Key, &MessageState),
    message: Option<RunMessage>,
    now: Now,
) -> Result<bool, store::Error> {
    let Some(message) = message else { return Ok(false) };
    let standing = observer.standing(tx, message)?;
    if standing == Standing::Waits {
        let waiting = state::unleased(state, Phase::Delayed, now.lease.after(LOOK_EVERY));
        messages::update(tx, key, state, &waiting)?;
        return Ok(true);
    }
    remove(tx, observer, (key, state), standing, now)
}

/// Removes a message whose run does not want it in its queue; returns whether it did.
fn remove(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    (key, state): (Key, &MessageState),
    standing: Standing,
    now: Now,
) -> Result<bool, store::Error> {
    match standing {
        Standing::Free | Standing::Waits => return Ok(false),
        Standing::TakenBack => ending::take_back(tx, observer, key, state, now.wall)?,
        Standing::Abandoned => ending::withdraw(tx, observer, key, state, Withdrawal::Abandoned, now.wall)?,
    }
    Ok(true)
}

/// Messages of some recipients in one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Their sequence numbers, at most [`STEP_MAX`]; those in work are left out.
    pub messages: Vec<u64>,
    /// How many of them are in work.
    pub in_work: u64,
    /// The sequence number from which to look on; `None` at the end of the queue.
    pub next: Option<u64>,
}

/// Looks for the messages of recipients that are wanted in a queue, dead letters included, from the sequence number `from` on.
///
/// # Errors
/// A storage fault.
pub fn find(
    snapshot: &Snapshot,
    queue: &QueueRecord,
    from: u64,
    is_wanted: impl Fn(&BodyHead) -> bool,
    now: Now,
) -> Result<Found, store::Error> {
    let (mut found, mut failed) = (Found::default(), None);
    let bodies = snapshot.bodies()?;
    snapshot.states()?.scan((queue.rows, from)..=(queue.rows, u64::MAX), |(_, sequence), state| {
        match bodies.head(&state.body) {
            Ok(head) if !head.as_ref().is_some_and(&is_wanted) => {}
            Ok(_) if is_in_work(&state, now) => found.in_work += 1,
            Ok(_) if found.messages.len() == STEP_MAX => {
                found.next = Some(sequence);
                return ControlFlow::Break(());
            }
            Ok(_) => found.messages.push(sequence),
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(found), Err)
}

/// Those of the runs of which a queue has messages, dead letters included.
///
/// # Errors
/// A storage fault.
pub fn runs_in(snapshot: &Snapshot, queue: &QueueRecord, runs: &BTreeSet<u64>) -> Result<BTreeSet<u64>, store::Error> {
    let (mut found, mut failed) = (BTreeSet::new(), None);
    let bodies = snapshot.bodies()?;
    snapshot.states()?.scan((queue.rows, 0)..=(queue.rows, u64::MAX), |_, state| {
        match bodies.head(&state.body) {
            Ok(head) => found.extend(head.map(|head| head.run).filter(|run| runs.contains(run))),
            Err(error) => failed = Some(error),
        }
        if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    failed.map_or(Ok(found), Err)
}

/// Removes those of the messages that [`find`] found whose runs do not want them there; returns how many.
///
/// # Errors
/// A storage fault.
pub fn step(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    queue: &QueueRecord,
    messages: &[u64],
    now: Now,
) -> Result<u64, store::Error> {
    let mut removed = 0;
    for sequence in messages {
        let key = (queue.rows, *sequence);
        let Some(state) = tx.states()?.get(&key)?.filter(|state| !is_in_work(state, now)) else { continue };
        if let Some(message) = observer::message(tx, &state)? {
            let standing = observer.standing(tx, message)?;
            removed += u64::from(remove(tx, observer, (key, &state), standing, now)?);
        }
    }
    Ok(removed)
}

pub(super) fn is_in_work(state: &MessageState, now: Now) -> bool {
    state.phase == Phase::InFlight && state.visible_at > now.lease
}
