//! PurgeQueue: deletes all messages that are in the queue when it begins, those in flight included.

use crate::base::Timestamp;
use crate::store::Tx;

use super::ending::{self, Withdrawal};
use super::{Error, Observer, holder};

/// One step examines at most this many messages.
pub const STEP_MAX: usize = 100;

/// The rest of a purge's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Sequence numbers below this one are done.
    from: u64,
    /// Messages with a later sequence number were sent after the purge began and stay.
    newest: u64,
    /// Letters that entered the queue from this number of the store's series on died after the purge began and stay.
    arrived_before: u64,
}

/// Begins a purge of the messages that are in the queue now.
///
/// # Errors
/// A storage fault.
pub fn begin(tx: &mut Tx<'_>, queue: u32) -> Result<Extent, Error> {
    Ok(Extent { from: 0, newest: newest(tx, queue)?, arrived_before: tx.fresh_id()? })
}

/// The sequence number of the newest message of the queue; zero when it is empty.
///
/// # Errors
/// A storage fault.
pub fn newest(tx: &mut Tx<'_>, queue: u32) -> Result<u64, Error> {
    let last = tx.states()?.last((queue, 0)..=(queue, u64::MAX))?;
    Ok(last.map_or(0, |((_, sequence), _)| sequence))
}

/// Deletes up to [`STEP_MAX`] messages of the extent. Returns how many, and what is left.
///
/// # Errors
/// A storage fault.
pub fn purge(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
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
    for (key, state) in found.into_iter().filter(|(_, state)| state.arrival_seq < extent.arrived_before) {
        holder::drop_follower(tx, key, &state)?;
        ending::withdraw(tx, observer, key, &state, Withdrawal::Purged, now)?;
        removed += 1;
    }
    Ok((removed, rest))
}
