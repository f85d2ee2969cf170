//! What a step leaves for [`super::background`] to do.

use crate::store::record::QueueRecord;
use crate::store::tx::u32_record::U32;
use crate::store::{self, Tx};

/// The topic that is signalled when there is something to work off.
pub(super) const TOPIC: u64 = u64::MAX;

/// Leaves what stands under the queue's row number to [`super::purge::step`]; returns how many messages.
pub(super) fn leave(tx: &mut Tx<'_>, queue: &QueueRecord) -> Result<u64, store::Error> {
    let counts = tx.counts_mut(queue.rows)?;
    // Its followers are purged too. They stand under the queue's own number, so nothing counts them any more.
    (counts.followers, counts.follower_bytes) = (0, 0);
    let messages = counts.total();
    tx.row_numbers()?.insert(&queue.rows, &U32(queue.id))?;
    tx.signal(TOPIC);
    Ok(messages)
}
