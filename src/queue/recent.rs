//! What a queue remembers for a while: deduplication ids and receive attempts for SQS's five minutes, throttled keys for
//! their span, names of deleted queues for a minute.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::base::Timestamp;
use crate::store::record::{Digest, Recent, RecentRecord};
use crate::store::{self, Tx};

/// How long deduplication ids and receive attempts are remembered, as in SQS.
pub const REMEMBERED: Duration = Duration::from_secs(300);
/// Each step that remembers something forgets up to this many that are due, so that the table keeps no more than what
/// its span holds.
const FORGOTTEN_PER_STEP: usize = 4;

/// The digest of parts, the first of which says what they are.
pub(super) fn digest(parts: &[&str]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut head = [0; 16];
    head.copy_from_slice(&hash.finalize()[..16]);
    head
}

/// What the queue remembers under that digest now.
pub(super) fn recall(
    tx: &mut Tx<'_>,
    queue: u32,
    digest: Digest,
    now: Timestamp,
) -> Result<Option<Recent>, store::Error> {
    let record = tx.recent()?.get(&(queue, digest))?;
    Ok(record.filter(|record| record.until > now).map(|record| record.what))
}

/// Remembers it until then, in place of what was there.
pub(super) fn remember(
    tx: &mut Tx<'_>,
    queue: u32,
    digest: Digest,
    record: &RecentRecord,
    now: Timestamp,
) -> Result<(), store::Error> {
    forget(tx, queue, now, FORGOTTEN_PER_STEP)?;
    if let Some(old) = tx.recent()?.get(&(queue, digest))? {
        tx.recent_times()?.remove(&(queue, old.until.as_millis(), digest))?;
    }
    tx.recent()?.insert(&(queue, digest), record)?;
    tx.recent_times()?.insert(&(queue, record.until.as_millis(), digest), &())?;
    Ok(())
}

/// Forgets up to `max` things that are due; answers how many.
pub(super) fn forget(tx: &mut Tx<'_>, queue: u32, now: Timestamp, max: usize) -> Result<usize, store::Error> {
    let due = tx.recent_times()?.first((queue, 0, [0; 16])..=(queue, now.as_millis(), [u8::MAX; 16]), max)?;
    for (key, ()) in &due {
        tx.recent_times()?.remove(key)?;
        tx.recent()?.remove(&(queue, key.2))?;
    }
    Ok(due.len())
}
