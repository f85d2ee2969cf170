//! Sends the messages of open recipients that have none, a few at a time. A recipient whose row names a message is passed
//! over, so this may begin anew after a restart.

use std::ops::ControlFlow;

use crate::base::Now;
use crate::queue::{self, Queues};
use crate::store::record::{RecipientRecord, RecipientState, RunControl, RunHold};
use crate::store::{Snapshot, Tx};

use super::super::{Error, resend};
use super::REST;
use super::decide::{save, unchanged};

/// One step sends at most this many messages; each has about six rows.
const STEP_MAX: usize = 80;

/// What a look through the recipients came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Every open recipient has a message, or something else was decided meanwhile.
    All,
    /// The queue has no room now; why.
    Blocked(String),
}

/// Sends the messages of the run's open recipients, unless something else is decided meanwhile.
///
/// # Errors
/// A user record is damaged, the queue is not there, or the store failed.
pub(super) async fn send(queues: &Queues, run: u64, control: &RunControl, target: &str) -> Result<Sent, Error> {
    let (mut from, mut sent) = (Some([0; 16]), 0_u64);
    let decision = control.decision;
    while let Some(start) = from {
        let find = move |snapshot: &Snapshot| unsent(snapshot, run, start);
        let (keys, next) = queues.store().read::<_, Error, _>(find).await?;
        let full = match queues.space().admit(target) {
            Ok(()) => {
                let (target, now) = (target.to_owned(), queues.now());
                let step = move |tx: &mut Tx<'_>| some(tx, (run, decision), &keys, &target, now);
                match queues.store().write(step).await {
                    Ok(Some(count)) => {
                        (sent, from) = (sent + count, next);
                        None
                    }
                    Ok(None) => return Ok(Sent::All),
                    Err(Error::Queue(full @ queue::Error::Full { .. })) => Some(full),
                    Err(error) => return Err(error),
                }
            }
            Err(full) => Some(full),
        };
        if let Some(full) = full {
            return Ok(Sent::Blocked(full.to_string()));
        }
        tokio::time::sleep(REST).await;
    }
    tracing::info!(run, messages = sent, "the run goes on: the messages of its open recipients are queued");
    let step = move |tx: &mut Tx<'_>| match unchanged(tx, run, decision)? {
        Some(control) => Ok(save(tx, run, &RunControl { has_unsent: false, ..control })?),
        None => Ok(()),
    };
    queues.store().write::<_, Error, _>(step).await?;
    Ok(Sent::All)
}

/// Sends the messages of those recipients; `None` when something else was decided meanwhile.
fn some(
    tx: &mut Tx<'_>,
    (run, decision): (u64, u64),
    keys: &[[u8; 16]],
    target: &str,
    now: Now,
) -> Result<Option<u64>, Error> {
    if unchanged(tx, run, decision)?.is_none_or(|control| control.hold != RunHold::None) {
        return Ok(None);
    }
    resend::send(tx, run, (keys, is_unsent), target, now, |row| row.updated_at = now.wall).map(Some)
}

type Found = (Vec<[u8; 16]>, Option<[u8; 16]>);

/// The recipients from `start` on that are open and have no message, and where to look on.
fn unsent(snapshot: &Snapshot, run: u64, start: [u8; 16]) -> Result<Found, Error> {
    let records = snapshot.user_records()?;
    let (mut keys, mut next, mut failed) = (Vec::new(), None, None);
    snapshot.recipients()?.scan((run, start)..=(run, [0xff; 16]), |(_, key), row| {
        if keys.len() == STEP_MAX {
            next = Some(key);
            return ControlFlow::Break(());
        }
        if is_unsent(&row) {
            match records.has(&(run, key)) {
                Ok(true) => keys.push(key),
                // An earlier version wrote the row: its message is not known, but it is there.
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok((keys, next)), |error| Err(error.into()))
}

fn is_unsent(row: &RecipientRecord) -> bool {
    row.state == RecipientState::Open && row.body == 0
}
