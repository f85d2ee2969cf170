//! Intents that a dead process left: each names an effect that may have happened.

use std::collections::BTreeMap;

use crate::base::Timestamp;
use crate::queue::{self, Queues, catalog, settle};
use crate::store::Tx;

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
    let mut recovered = 0;
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
