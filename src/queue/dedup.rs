//! Deduplication entries: deduplication ids and receive attempts for SQS's five minutes, throttled keys for their span,
//! names of deleted queues for a minute.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::base::LeaseTime;
use crate::store::record::{DedupEntry, DedupRecord, Digest};
use crate::store::{self, Tx};

/// How long deduplication ids and receive attempts are remembered, as in SQS.
pub const REMEMBERED: Duration = Duration::from_secs(300);
/// Each step that adds an entry deletes up to this many expired ones, so that the table does not grow beyond the
/// entries of one span.
const EXPIRED_PER_STEP: usize = 4;

/// The digest of the parts. The first one names the kind, which keeps the key spaces apart.
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

/// The queue's entry under that digest, unless it has expired.
pub(super) fn get(
    tx: &mut Tx<'_>,
    queue: u32,
    digest: Digest,
    now: LeaseTime,
) -> Result<Option<DedupEntry>, store::Error> {
    Ok(get_record(tx, queue, digest, now)?.map(|record| record.what))
}

/// As [`get`], with the moment at which it expires.
pub(super) fn get_record(
    tx: &mut Tx<'_>,
    queue: u32,
    digest: Digest,
    now: LeaseTime,
) -> Result<Option<DedupRecord>, store::Error> {
    Ok(tx.dedup()?.get(&(queue, digest))?.filter(|record| record.until > now))
}

/// Writes the entry, and replaces an earlier one.
pub(super) fn insert(
    tx: &mut Tx<'_>,
    queue: u32,
    digest: Digest,
    record: &DedupRecord,
    now: LeaseTime,
) -> Result<(), store::Error> {
    remove_expired(tx, queue, now, EXPIRED_PER_STEP)?;
    if let Some(old) = tx.dedup()?.get(&(queue, digest))? {
        tx.dedup_times()?.remove(&(queue, old.until.as_millis(), digest))?;
    }
    tx.dedup()?.insert(&(queue, digest), record)?;
    tx.dedup_times()?.insert(&(queue, record.until.as_millis(), digest), &())?;
    Ok(())
}

/// Deletes up to `max` entries, expired or not; returns how many.
pub(super) fn remove_all(tx: &mut Tx<'_>, queue: u32, max: usize) -> Result<usize, store::Error> {
    remove_expired(tx, queue, LeaseTime::from_millis(u64::MAX), max)
}

/// Deletes up to `max` expired entries; returns how many.
pub(super) fn remove_expired(tx: &mut Tx<'_>, queue: u32, now: LeaseTime, max: usize) -> Result<usize, store::Error> {
    let due = tx.dedup_times()?.first((queue, 0, [0; 16])..=(queue, now.as_millis(), [u8::MAX; 16]), max)?;
    for (key, ()) in &due {
        tx.dedup_times()?.remove(key)?;
        tx.dedup()?.remove(&(queue, key.2))?;
    }
    Ok(due.len())
}
