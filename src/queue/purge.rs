//! PurgeQueue, and what a deleted queue leaves.
//!
//! One commit gives the queue a fresh number for its rows: from then on nothing that was in it is received, counted,
//! moved or deduplicated against. What stands under the old number is removed by [`step`], a few rows at a time, and
//! over restarts too. An attempt at one of its messages may still end as done until its row is removed.

use std::time::Duration;

use crate::base::Now;
use crate::store::record::{Digest, MessageState, Purge, QueueRecord};
use crate::store::tx::u32_record::U32;
use crate::store::{Snapshot, Tx};

use super::ending::{self, Withdrawal};
use super::settle::HISTORY_MAX;
use super::state::Key;
use super::{Error, Observer, catalog, dedup, holder, leaving};

/// A queue can be purged once in this time, as in SQS.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// One step removes about this many rows.
const ROWS_MAX: usize = 500;
/// One step examines at most this many messages; one without a history has five rows.
const MESSAGES_MAX: usize = ROWS_MAX / 5;
/// One step looks at this many unique keys, or removes as many deduplication entries, which have two rows each.
pub(super) const ENTRIES_MAX: usize = ROWS_MAX / 2;

/// Purges a queue: all messages that are in it now, those in flight included. Returns how many there were.
///
/// # Errors
/// The queue does not exist; [`Error::PurgeInProgress`] within [`INTERVAL`] of the latest purge.
pub fn purge(tx: &mut Tx<'_>, name: &str, now: Now) -> Result<u64, Error> {
    let queue = catalog::find(tx, name)?;
    if queue.purged.is_some_and(|last| now.lease < last.at.after(INTERVAL)) {
        return Err(Error::PurgeInProgress(name.to_owned()));
    }
    let purged = Some(Purge { before: tx.fresh_id()?, at: now.lease });
    let rows = tx.fresh_queue()?;
    tx.queues()?.insert(&queue.id, &QueueRecord { rows, purged, ..(*queue).clone() })?;
    tx.row_numbers()?.insert(&rows, &U32(queue.id))?;
    // Long polls may wait for room in flight.
    tx.signal(u64::from(queue.id));
    Ok(leaving::leave(tx, &queue)?)
}

/// How far the removal of what stands under a row number has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Messages up to this sequence number are left.
    Messages(u64),
    /// Followers from this unique key on are left: their holders are in other queues.
    Followers(Digest),
    /// Deduplication entries are left.
    Entries,
}

impl Rest {
    /// Nothing is removed yet.
    pub const ALL: Self = Self::Messages(u64::MAX);
}

/// The row numbers whose rows are to be removed, the oldest first.
///
/// # Errors
/// A storage fault.
pub fn left(snapshot: &Snapshot) -> Result<Vec<u32>, Error> {
    let queues = snapshot.queues()?;
    let mut left = Vec::new();
    for (rows, U32(id)) in snapshot.row_numbers()?.first(0..=u32::MAX, usize::MAX)? {
        if queues.get(&id)?.is_none_or(|queue| queue.deleted_at.is_some() || queue.rows != rows) {
            left.push(rows);
        }
    }
    Ok(left)
}

/// Removes some of what stands under a row number that no queue uses any more. Returns how many messages, and what is
/// left.
///
/// # Errors
/// A storage fault.
pub fn step(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    rows: u32,
    rest: Rest,
    now: Now,
) -> Result<(u64, Option<Rest>), Error> {
    let queue = tx.queue_of_rows(rows)?;
    match rest {
        Rest::Messages(upto) => {
            let (removed, next) = remove_messages(tx, observer, (rows, upto), now)?;
            Ok((removed, Some(next.map_or(Rest::Followers([0; 16]), Rest::Messages))))
        }
        Rest::Followers(from) => {
            let next = holder::drop_purged_followers(tx, queue, from, ENTRIES_MAX)?;
            Ok((0, Some(next.map_or(Rest::Entries, Rest::Followers))))
        }
        Rest::Entries => {
            if dedup::remove_all(tx, rows, ENTRIES_MAX)? == ENTRIES_MAX {
                return Ok((0, Some(Rest::Entries)));
            }
            tx.forget_counts(rows)?;
            tx.row_numbers()?.remove(&rows)?;
            Ok((0, None))
        }
    }
}

/// Removes the newest messages of those up to `upto`. Returns how many, and the greatest sequence number that is left.
fn remove_messages(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    (rows, upto): Key,
    now: Now,
) -> Result<(u64, Option<u64>), Error> {
    // The newest first: what a message group shows in the ready index stays the same then until its last message.
    let found = tx.states()?.newest((rows, 0)..=(rows, upto), MESSAGES_MAX)?;
    let is_all = found.len() < MESSAGES_MAX;
    let (mut removed, mut touched, mut next) = (0, 0, None);
    for (key, state) in found {
        if touched >= ROWS_MAX {
            return Ok((removed, Some(key.1)));
        }
        ending::withdraw(tx, observer, key, &state, Withdrawal::Purged, now.wall)?;
        removed += 1;
        touched += rows_of(&state);
        next = key.1.checked_sub(1);
    }
    Ok((removed, next.filter(|_| !is_all)))
}

/// About how many rows a message has: state, body, index, ledger row, count of its group or redrive, and its history.
fn rows_of(state: &MessageState) -> usize {
    ROWS_MAX / MESSAGES_MAX + state.attempts.min(HISTORY_MAX) as usize
}
