//! Takes the messages of a run that may not go on out of all queues, a few at a time; withdraws the recipients of an
//! abandoned one.

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
    let mut in_work = take_out(queues, run).await?;
    if matches!(control.hold, RunHold::Abandoned { .. }) {
        in_work += withdraw(queues, run, Added::Ever).await?;
    }
    finish(queues, run, (in_work, control.decision), |control| control.has_queued = false).await
}

/// Ends an abandoned refetch: takes the messages of those whom it has added out of the queues, and withdraws them.
///
/// # Errors
/// The store failed.
pub(super) async fn end_refetch(queues: &Queues, run: u64, control: &RunControl) -> Result<Recalled, store::Error> {
    let mut in_work = take_out(queues, run).await?;
    if let Some(refetch) = control.refetch {
        in_work += withdraw(queues, run, Added::By(refetch.number)).await?;
    }
    finish(queues, run, (in_work, control.decision), |control| control.refetch = None).await
}

/// Writes down that nothing is left, unless something is, or something else was decided meanwhile.
async fn finish(
    queues: &Queues,
    run: u64,
    (in_work, decision): (u64, u64),
    edit: impl FnOnce(&mut RunControl) + Send + 'static,
) -> Result<Recalled, store::Error> {
    if in_work > 0 {
        return Ok(Recalled::SomeInWork);
    }
    let step = move |tx: &mut Tx<'_>| match unchanged(tx, run, decision)? {
        Some(mut control) => {
            edit(&mut control);
            save(tx, run, &control)
        }
        None => Ok(()),
    };
    queues.store().write::<_, store::Error, _>(step).await?;
    Ok(Recalled::All)
}

/// Removes those messages of the run that it does not want in queues; returns how many of its messages are in work.
pub(super) async fn take_out(queues: &Queues, run: u64) -> Result<u64, store::Error> {
    let (mut removed, mut left) = (0, 0);
    let known = queues.store().read(catalog::list).await;
    for queue in known.map_err(storage)? {
        let mut from = Some(0);
        while let Some(start) = from {
            let (now, seen) = (queues.now(), queue.clone());
            let find = move |snapshot: &Snapshot| recall::find(snapshot, &seen, start, |head| head.run == run, now);
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
    if removed > 0 {
        tracing::info!(run, messages = removed, "messages of the run were taken out of the queues");
    }
    Ok(left)
}

/// Which recipients to withdraw.
#[derive(Clone, Copy, Debug)]
enum Added {
    /// All.
    Ever,
    /// Those whom this refetch has added.
    By(u32),
}

impl Added {
    /// Whether to withdraw the recipient: it is open or dead.
    fn has(self, row: &RecipientRecord) -> bool {
        let is_added = match self {
            Self::Ever => true,
            Self::By(refetch) => row.refetch == refetch,
        };
        is_added && matches!(row.state, RecipientState::Open | RecipientState::Dead(_))
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Ever => queue::ABANDONED,
            Self::By(_) => ledger::REFETCH_ABANDONED,
        }
    }
}

/// Withdraws the recipients that are open or dead; returns how many still have a message, which is in work.
async fn withdraw(queues: &Queues, run: u64, added: Added) -> Result<u64, store::Error> {
    let (mut from, mut left) = (Some([0; 16]), 0);
    while let Some(start) = from {
        let find = move |snapshot: &Snapshot| unended(snapshot, (run, start), added);
        let (keys, next) = queues.store().read(find).await?;
        from = next;
        let now = queues.now().wall;
        let step = move |tx: &mut Tx<'_>| {
            let mut left = 0;
            for key in keys {
                let Some(row) = tx.recipients()?.get(&(run, key))?.filter(|row| added.has(row)) else { continue };
                if row.body != 0 && tx.bodies()?.head(&row.body)?.is_some() {
                    left += 1;
                    continue;
                }
                ledger::change(tx, (run, key), |row| {
                    row.state = RecipientState::Withdrawn(added.reason().into());
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
fn unended(snapshot: &Snapshot, (run, start): (u64, [u8; 16]), added: Added) -> Result<Found, store::Error> {
    let (mut keys, mut next) = (Vec::new(), None);
    snapshot.recipients()?.scan((run, start)..=(run, [0xff; 16]), |(_, key), row| {
        if keys.len() == STEP_MAX {
            next = Some(key);
            return ControlFlow::Break(());
        }
        keys.extend(added.has(&row).then_some(key));
        ControlFlow::Continue(())
    })?;
    Ok((keys, next))
}

/// Listing the queues fails only with the store.
fn storage(error: queue::Error) -> store::Error {
    match error {
        queue::Error::Store(error) => error,
        other => store::Error::Stopped(other.to_string()),
    }
}
