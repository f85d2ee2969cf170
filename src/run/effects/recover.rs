//! What a dead process left: each intent names an effect that may have happened. An earlier version wrote no intents, so
//! at the first start after an upgrade each message in work does.

use std::collections::BTreeMap;

use crate::base::Timestamp;
use crate::queue::{self, Queues, ReceiptHandle, catalog, settle};
use crate::store::record::{Owner, Phase};
use crate::store::{self, Snapshot, Tx};

use super::entry::EffectKey;
use super::{Left, OnUnknown, doubt, handle_of};

/// One step settles at most this many intents; each touches a handful of rows.
const STEP_MAX: usize = 100;

/// Settles the intents of attempts that were in work when an earlier process died; returns how many. `policies` are those
/// of the queues that functions work on; messages of others are held. Call it once at start, before the leases of that
/// process are ended: they name the messages.
///
/// # Errors
/// The store failed.
pub async fn recover(queues: &Queues, policies: &BTreeMap<String, OnUnknown>) -> Result<u64, queue::Error> {
    let known = queues.store().read(catalog::list).await?;
    let policies: BTreeMap<u32, OnUnknown> =
        known.iter().filter_map(|queue| Some((queue.id, *policies.get(&queue.name)?))).collect();
    let mut recovered = before_the_ledger(queues, &policies).await?;
    loop {
        let (policies, now) = (policies.clone(), queues.now().wall);
        let step = move |tx: &mut Tx<'_>| settle_some(tx, &policies, now);
        let settled = queues.store().write::<_, queue::Error, _>(step).await?;
        recovered += settled as u64;
        if settled < STEP_MAX {
            return Ok(recovered);
        }
    }
}

/// The row of `meta` that says that attempts write intents in this store.
const WITH_INTENTS: &str = "intents";

/// Settles the attempts that were in work when a version without a ledger of effects died; returns how many.
async fn before_the_ledger(queues: &Queues, policies: &BTreeMap<u32, OnUnknown>) -> Result<u64, queue::Error> {
    let store = queues.store();
    let has_intents =
        |snapshot: &Snapshot| Ok::<_, store::Error>(snapshot.meta()?.get(&WITH_INTENTS.into())?.is_some());
    if store.read(has_intents).await? {
        return Ok(0);
    }
    let mut settled = 0;
    for queue in store.read(catalog::list).await? {
        let (mut from, policy) = (Some((0, 0)), policies.get(&queue.id).copied().unwrap_or_default());
        while let Some(start) = from {
            let now = queues.now().wall;
            let step = move |tx: &mut Tx<'_>| settle_in_work(tx, (queue.rows, policy), start, now);
            let (some, next) = store.write::<_, queue::Error, _>(step).await?;
            settled += some;
            from = next;
        }
    }
    let mark = |tx: &mut Tx<'_>| tx.meta()?.insert(&WITH_INTENTS.into(), &1);
    store.write::<_, store::Error, _>(mark).await?;
    Ok(settled)
}

/// Settles some attempts of workers on messages under that row number; returns how many, and where to go on.
fn settle_in_work(
    tx: &mut Tx<'_>,
    (rows, policy): (u32, OnUnknown),
    from: (u64, u64),
    now: Timestamp,
) -> Result<(u64, Option<(u64, u64)>), queue::Error> {
    let timed = tx.timed()?.first((rows, from.0, from.1)..=(rows, u64::MAX, u64::MAX), STEP_MAX)?;
    let mut settled = 0;
    for ((_, _, sequence), ()) in &timed {
        let Some(state) = tx.states()?.get(&(rows, *sequence))? else { continue };
        let Some(head) = tx.bodies()?.head(&state.body)? else { continue };
        let is_in_work = state.phase == Phase::InFlight && state.owner == Owner::Worker;
        if !is_in_work || tx.recipients()?.get(&(head.run, head.recipient))?.is_none() {
            continue;
        }
        let handle = ReceiptHandle { queue: rows, sequence: *sequence, lease: state.lease };
        let why = "an earlier version died while it worked on the message";
        if doubt(tx, &EffectKey::main(head.run, head.recipient), (handle, policy), (None, why), now)? == Left::Held {
            settle::hold(tx, handle)?;
        }
        settled += 1;
    }
    let more = timed.len() == STEP_MAX;
    Ok((settled, timed.last().filter(|_| more).map(|((_, at, sequence), ())| (*at, sequence + 1))))
}

fn settle_some(tx: &mut Tx<'_>, policies: &BTreeMap<u32, OnUnknown>, now: Timestamp) -> Result<usize, queue::Error> {
    let intents = tx.intents()?.first((0, [0; 16])..=(u64::MAX, [0xff; 16]), STEP_MAX)?;
    for (row, intent) in &intents {
        let (handle, queue) = (handle_of(intent), tx.queue_of_rows(intent.queue)?);
        let on_unknown = policies.get(&queue).copied().unwrap_or_default();
        let why = "the process died while the mail was being handed over";
        if doubt(tx, &EffectKey::of_row(*row, intent), (handle, on_unknown), (None, why), now)? == Left::Held {
            settle::hold(tx, handle)?;
        }
        tx.intents()?.remove(row)?;
    }
    Ok(intents.len())
}
