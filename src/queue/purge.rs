//! PurgeQueue: all messages that are in the queue when it begins, those in flight too.

use crate::base::Timestamp;
use crate::store::Tx;

use super::place::Withdrawal;
use super::{Error, Witness, place, unique};

/// One step looks at this many messages.
pub const STEP_MAX: usize = 1000;

/// What a purge still has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sequence numbers below this one were looked at.
    from: u64,
    /// Messages with a later sequence number were sent after the purge began and stay.
    newest: u64,
    /// Letters that entered the queue from this number on died after the purge began and stay.
    entered_before: u64,
}

/// Begins a purge of what the queue holds now.
///
/// # Errors
/// A storage fault.
pub fn begin(tx: &mut Tx<'_>, queue: u32) -> Result<Extent, Error> {
    Ok(Extent { from: 0, newest: newest(tx, queue)?, entered_before: tx.fresh_id()? })
}

/// The sequence number of the newest message of the queue; zero when it is empty.
///
/// # Errors
/// A storage fault.
pub fn newest(tx: &mut Tx<'_>, queue: u32) -> Result<u64, Error> {
    let last = tx.states()?.last((queue, 0)..=(queue, u64::MAX))?;
    Ok(last.map_or(0, |((_, sequence), _)| sequence))
}

/// Deletes the messages among the next [`STEP_MAX`] of the extent. Answers how many, and what is left.
///
/// # Errors
/// A storage fault.
pub fn purge(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: u32,
    extent: Extent,
    now: Timestamp,
) -> Result<(u64, Option<Extent>), Error> {
    if extent.from > extent.newest {
        return Ok((0, None));
    }
    let found = tx.states()?.first((queue, extent.from)..=(queue, extent.newest), STEP_MAX)?;
    let more = found.len() == STEP_MAX;
    let rest = found.last().filter(|_| more).map(|(key, _)| Extent { from: key.1 + 1, ..extent });
    let mut removed = 0;
    for (key, state) in found.into_iter().filter(|(_, state)| state.entered < extent.entered_before) {
        unique::drop_follower(tx, key, &state)?;
        place::withdraw(tx, witness, key, &state, Withdrawal::Purged, now)?;
        removed += 1;
    }
    Ok((removed, rest))
}
