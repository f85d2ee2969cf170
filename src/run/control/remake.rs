//! Forgets the statements of a run that were made and not sent, a few at a time, and has them all made again. What is
//! forgotten is passed over, so this may begin anew after a restart.

use std::ops::ControlFlow;

use crate::queue::Queues;
use crate::store::record::{RecipientRecord, RecipientState, RunControl};
use crate::store::{self, Snapshot, Tx};

use super::super::ledger;
use super::recall::{self, Recalled};
use super::row::unchanged;
use super::state::{Allowed, may_mail};
use super::{REST, gate};

/// One step forgets at most this many statements.
const STEP_MAX: usize = 80;

/// Forgets them, unless something else is decided meanwhile. An attempt that is in work may have been begun with the data of
/// before, so it ends first; nothing begins meanwhile.
///
/// # Errors
/// The store failed.
pub(super) async fn remake(queues: &Queues, run: u64, control: &RunControl) -> Result<Recalled, store::Error> {
    if recall::take_out(queues, run).await? > 0 {
        return Ok(Recalled::SomeInWork);
    }
    let (mut from, decision) = (Some([0; 16]), control.decision);
    while let Some(start) = from {
        let decided = control.clone();
        let find = move |snapshot: &Snapshot| made(snapshot, (run, start), &decided);
        let (keys, next) = queues.store().read(find).await?;
        from = next;
        let now = queues.now().wall;
        let step = move |tx: &mut Tx<'_>| {
            let Some(control) = unchanged(tx, run, decision)? else { return Ok(false) };
            for key in keys {
                ledger::change(tx, (run, key), |row| {
                    if is_made(&control, row) {
                        (row.rendering, row.updated_at) = (None, now);
                        // What a limit of the gate found belongs to the statement.
                        if row.state == RecipientState::Open {
                            row.reason.clear();
                        }
                    }
                })?;
            }
            Ok::<_, store::Error>(true)
        };
        if !queues.store().write(step).await? {
            return Ok(Recalled::All);
        }
        tokio::time::sleep(REST).await;
    }
    let now = queues.now().wall;
    let step = move |tx: &mut Tx<'_>| match unchanged(tx, run, decision)? {
        Some(control) => gate::begin(tx, run, control, now),
        None => Ok(()),
    };
    queues.store().write::<_, store::Error, _>(step).await?;
    tracing::info!(run, "the statements of the run are made again");
    Ok(Recalled::All)
}

type Found = (Vec<[u8; 16]>, Option<[u8; 16]>);

/// The recipients from `start` on whose statement is made and not sent, and where to look on.
fn made(snapshot: &Snapshot, (run, start): (u64, [u8; 16]), control: &RunControl) -> Result<Found, store::Error> {
    let (mut keys, mut next) = (Vec::new(), None);
    snapshot.recipients()?.scan((run, start)..=(run, [0xff; 16]), |(_, key), row| {
        if keys.len() == STEP_MAX {
            next = Some(key);
            return ControlFlow::Break(());
        }
        keys.extend(is_made(control, &row).then_some(key));
        ControlFlow::Continue(())
    })?;
    Ok((keys, next))
}

/// Whether the statement is made and waits for the release. Those of a fetch that was let go are compared at sending.
fn is_made(control: &RunControl, row: &RecipientRecord) -> bool {
    let is_left = matches!(row.state, RecipientState::Open | RecipientState::Dead(_));
    is_left && row.rendering.is_some() && may_mail(control, Some(row)) == Allowed::NotNow
}
