//! Unique keys: at most one message of a queue holds a key, from its send to its end, through retries and the
//! dead-letter queue. The sender chooses what a second send under the same key does, as in BullMQ.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::record::{Digest, QueueRecord, UniqueRef};

use super::dedup;

/// A unique key and what a second send under it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key: 1 to 256 bytes.
    pub key: String,
    /// See [`Mode`].
    pub mode: Mode,
}

/// What a second send under a key does while the first holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing: it returns the first message's id until that message has ended.
    Simple,
    /// Nothing within this span of the first send (1 s to 14 d), even when the first message has already ended; later
    /// sends succeed.
    Throttle(Duration),
    /// It replaces the first message and restarts the delay while that message is still delayed. A message that is or
    /// was receivable is left alone: the second one is sent and takes over the key.
    Debounce,
    /// It replaces the first message until that one is first received. From then on it waits, is replaced in turn by
    /// later sends, and is sent when the first message has ended.
    KeepLast,
}

/// The key reference stored in a message's state; `None` for a throttled key, which no message holds.
pub(super) fn reference(queue: &QueueRecord, unique: &Unique) -> Option<UniqueRef> {
    match unique.mode {
        Mode::Throttle(_) => None,
        Mode::Simple | Mode::Debounce | Mode::KeepLast => Some(UniqueRef { queue: queue.id, key: key(unique) }),
    }
}

/// What stands for the key among the keys of one step.
pub(super) fn digest(unique: &Unique) -> Digest {
    match unique.mode {
        Mode::Throttle(_) => throttled(&unique.key),
        Mode::Simple | Mode::Debounce | Mode::KeepLast => key(unique),
    }
}

/// The key of a row in `uniques`, within its queue.
pub(super) fn key(unique: &Unique) -> Digest {
    dedup::digest(&["unique", &unique.key])
}

/// The key of a throttle's deduplication entry.
pub(super) fn throttled(key: &str) -> Digest {
    dedup::digest(&["throttle", key])
}
