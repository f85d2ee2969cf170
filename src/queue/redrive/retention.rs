//! How many redrives stay on record after their end.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::record::RedriveState;
use crate::store::{self, Snapshot, Tx};

use super::super::{Error, catalog};

/// The records of this many ended redrives stay for each dead-letter queue.
pub const ENDED_KEPT_MAX: usize = 100;
/// One step removes at most this many; each has two rows.
pub const STEP_MAX: usize = 250;

/// The ended redrives that are to go, oldest first: all but the newest [`ENDED_KEPT_MAX`] of each dead-letter queue,
/// and those of queues that are gone.
///
/// # Errors
/// A storage fault.
pub fn outdated(snapshot: &Snapshot) -> Result<Vec<u64>, Error> {
    let queues: BTreeSet<u32> = catalog::list(snapshot)?.into_iter().map(|queue| queue.id).collect();
    let mut ended: BTreeMap<u32, usize> = BTreeMap::new();
    let mut outdated = Vec::new();
    for (id, redrive) in snapshot.redrives()?.first(0..=u64::MAX, usize::MAX)?.into_iter().rev() {
        if redrive.state == RedriveState::Running {
            continue;
        }
        let newer = ended.entry(redrive.from).or_default();
        *newer += 1;
        if *newer > ENDED_KEPT_MAX || !queues.contains(&redrive.from) {
            outdated.push(id);
        }
    }
    outdated.reverse();
    Ok(outdated)
}

/// Removes these redrives with the outcomes of their letters; at most [`STEP_MAX`] in one step.
///
/// # Errors
/// A storage fault.
pub fn remove(tx: &mut Tx<'_>, ids: &[u64]) -> Result<(), store::Error> {
    for id in ids {
        tx.redrives()?.remove(id)?;
        tx.redrive_totals()?.remove(id)?;
    }
    Ok(())
}
