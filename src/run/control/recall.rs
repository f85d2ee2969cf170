//! Takes the messages of a run that may not go on out of all queues, a few at a time; withdraws the recipients of an
//! abandoned one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::queue::{self, Queues, catalog, recall};
use crate::store::record::{RecipientRecord, RecipientState, RunControl, RunHold};
use crate::store::{self, Snapshot, Tx};

use super::super::ledger;
use super::REST;
use super::row::{save, unchanged};

/// One step withdraws at most this many recipients.
const STEP_MAX: usize = 250;

/// What a look through the queues came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    /// No message of the run is left.
    All,
    /// Some are in work: they are looked at again.
    SomeInWork,
}

/// Takes the run's messages out of the queues, unless something else is decided meanwhile.
///
/// # Errors
/// The store failed.
pub(super) async fn recall(queues: &Queues, run: u64, control: &RunControl) -> Result<Recalled, store::Error> {
    let (mut removed, mut left) = (0, 0);
    let known = queues.store().read(catalog::list).await;
    for queue in known.map_err(storage)? {
        let mut from = Some(0);
        while let Some(start) = from {
            let (now, seen) = (queues.now(), queue.clone());
            let find = move |snapshot: &Snapshot| recall::find(snapshot, &seen, start, &BTreeSet::from([run]), now);
            let found = queues.store().read(find).await?;
            (left, from) = (left + found.in_work, found.next);
            if !found.messages.is_empty() {
                let (observer, queue) = (queues.observer(), queue.clone());
                let step = move |tx: &mut Tx<'_>| recall::step(tx, &*observer, &queue, &found.messages, now);
                removed += queues.store().write::<_, store::Error, _>(step).await?;
                tokio::time::sleep(REST).await;
            }
        }
    }
    if matches!(control.hold, RunHold::Abandoned { .. }) {
        left += withdraw(queues, run).await?;
    }
    if removed > 0 {
        tracing::info!(run, messages = removed, "messages of the run were taken out of the queues");
    }
    if left > 0 {
        return Ok(Recalled::SomeInWork);
    }
    let decision = control.decision;
    let step = move |tx: &mut Tx<'_>| match unchanged(tx, run, decision)? {
        Some(control) => save(tx, run, &RunControl { has_queued: false, ..control }),
        None => Ok(()),
    };
    queues.store().write::<_, store::Error, _>(step).await?;
    Ok(Recalled::All)
}

/// Withdraws the recipients that are open or dead; returns how many still have a message, which is in work.
async fn withdraw(queues: &Queues, run: u64) -> Result<u64, store::Error> {
    let (mut from, mut left) = (Some([0; 16]), 0);
    while let Some(start) = from {
        let find = move |snapshot: &Snapshot| unended(snapshot, run, start);
        let (keys, next) = queues.store().read(find).await?;
        from = next;
        let now = queues.now().wall;
        let step = move |tx: &mut Tx<'_>| {
            let mut left = 0;
            for key in keys {
                let Some(row) = tx.recipients()?.get(&(run, key))?.filter(is_unended) else { continue };
                if row.body != 0 && tx.bodies()?.head(&row.body)?.is_some() {
                    left += 1;
                    continue;
                }
                ledger::change(tx, (run, key), |row| {
                    row.state = RecipientState::Withdrawn("abandoned".into());
                    (row.reason, row.updated_at) = (String::new(), now);
                })?;
            }
            Ok::<_, store::Error>(left)
        };
        left += queues.store().write(step).await?;
        tokio::time::sleep(REST).await;
    }
    Ok(left)
}

type Found = (Vec<[u8; 16]>, Option<[u8; 16]>);

/// The recipients from `start` on that have not ended, and where to look on.
fn unended(snapshot: &Snapshot, run: u64, start: [u8; 16]) -> Result<Found, store::Error> {
    let (mut keys, mut next) = (Vec::new(), None);
    snapshot.recipients()?.scan((run, start)..=(run, [0xff; 16]), |(_, key), row| {
        if keys.len() == STEP_MAX {
            next = Some(key);
            return ControlFlow::Break(());
        }
        keys.extend(is_unended(&row).then_some(key));
        ControlFlow::Continue(())
    })?;
    Ok((keys, next))
}

fn is_unended(row: &RecipientRecord) -> bool {
    matches!(row.state, RecipientState::Open | RecipientState::Dead(_))
}

/// Listing the queues fails only with the store.
fn storage(error: queue::Error) -> store::Error {
    match error {
        queue::Error::Store(error) => error,
        other => store::Error::Stopped(other.to_string()),
    }
}
