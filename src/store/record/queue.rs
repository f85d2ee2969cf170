//! The record of a queue: its name, attributes and age.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{LeaseTime, Timestamp};

use super::Record;
use super::postcard::{decode, encode, postcard_records};

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The number that keys carry; never used twice.
    pub id: u32,
    /// The name that users see.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its attributes were last changed.
    pub modified_at: Timestamp,
    /// See [`QueueAttributes`].
    pub attributes: QueueAttributes,
    /// The tags that users put on it.
    pub tags: BTreeMap<String, String>,
    /// Set while the queue is paused.
    pub paused: Option<Pause>,
    /// Set when the queue was deleted: its messages are removed in steps, then this record.
    pub deleted_at: Option<Timestamp>,
    /// The number that the keys of its messages and of their indexes carry: its own until the first purge, which gives
    /// it a fresh one. What stands under an earlier number is purged and is removed in steps.
    pub rows: u32,
    /// The latest purge.
    pub purged: Option<Purge>,
    /// Set while a new delay of a FIFO queue has not reached all messages: those from this sequence number on have the
    /// old one.
    pub delays_from: Option<u64>,
}

/// A purge of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// The number of the store's series at which it was: followers with an earlier body are purged.
    pub before: u64,
    /// When it was.
    pub at: LeaseTime,
}

/// A pause of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who paused it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// The attributes of a queue in stored units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueAttributes {
    /// Milliseconds.
    pub visibility_timeout_ms: u64,
    /// Milliseconds.
    pub delay_ms: u64,
    /// Milliseconds; `None` keeps messages for ever.
    pub retention_ms: Option<u64>,
    /// Milliseconds.
    pub receive_wait_ms: u64,
    /// Bytes.
    pub message_bytes_max: u32,
    /// The dead-letter queue's name and the receive count at which a message goes there.
    pub redrive: Option<(String, u32)>,
    /// Which queues may name this one as their dead-letter queue.
    pub redrive_allow: RedriveAllow,
    /// Set on FIFO queues.
    pub fifo: Option<Fifo>,
    /// The most messages that the queue holds.
    pub messages_max: Option<u64>,
    /// The most bytes that the queue holds.
    pub bytes_max: Option<u64>,
}

/// SQS's RedriveAllowPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedriveAllow {
    /// Any queue may.
    #[default]
    All,
    /// None may.
    Nobody,
    /// Only those of these names, at most ten.
    Only(Vec<String>),
}

/// The attributes of FIFO queues alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fifo {
    /// A message without a deduplication id takes the SHA-256 of its text.
    pub content_based_deduplication: bool,
    /// The scope in which deduplication ids are compared.
    pub deduplication_scope: Scope,
    /// The scope of SQS's throughput quota. It is stored and returned, but nothing is throttled here.
    pub throughput_limit: Scope,
}

/// The whole queue or one message group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The whole queue.
    #[default]
    Queue,
    /// One message group.
    Group,
}

/// Attributes of a queue that clients set and read and that mean nothing here, by SQS's names: Policy and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAttributes(pub BTreeMap<String, String>);

postcard_records!(1: KeptAttributes);

const VERSION: u8 = 3;

/// The record of version 2.
#[derive(Deserialize)]
struct QueueRecord2 {
    id: u32,
    name: String,
    created_at: Timestamp,
    modified_at: Timestamp,
    attributes: QueueAttributes,
    tags: BTreeMap<String, String>,
    paused: Option<Pause>,
    deleted_at: Option<Timestamp>,
}

impl From<QueueRecord2> for QueueRecord {
    fn from(old: QueueRecord2) -> Self {
        let QueueRecord2 { id, name, created_at, modified_at, attributes, tags, paused, deleted_at } = old;
        Self {
            id,
            name,
            created_at,
            modified_at,
            attributes,
            tags,
            paused,
            deleted_at,
            rows: id,
            purged: None,
            delays_from: None,
        }
    }
}

/// The record of version 1.
#[derive(Deserialize)]
struct QueueRecord1 {
    id: u32,
    name: String,
    created_at: Timestamp,
    attributes: QueueAttributes1,
}

#[derive(Deserialize)]
struct QueueAttributes1 {
    visibility_timeout_ms: u64,
    delay_ms: u64,
    retention_ms: Option<u64>,
    receive_wait_ms: u64,
    message_bytes_max: u32,
    redrive: Option<(String, u32)>,
}

impl From<QueueRecord1> for QueueRecord {
    fn from(old: QueueRecord1) -> Self {
        let attributes = QueueAttributes {
            visibility_timeout_ms: old.attributes.visibility_timeout_ms,
            delay_ms: old.attributes.delay_ms,
            retention_ms: old.attributes.retention_ms,
            receive_wait_ms: old.attributes.receive_wait_ms,
            message_bytes_max: old.attributes.message_bytes_max,
            redrive: old.attributes.redrive,
            redrive_allow: RedriveAllow::All,
            fifo: None,
            messages_max: None,
            bytes_max: None,
        };
        Self {
            id: old.id,
            name: old.name,
            created_at: old.created_at,
            modified_at: old.created_at,
            attributes,
            tags: BTreeMap::new(),
            paused: None,
            deleted_at: None,
            rows: old.id,
            purged: None,
            delays_from: None,
        }
    }
}

impl Record for QueueRecord {
    fn encode(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<QueueRecord1>(1, bytes).map(Self::from),
            Some(2) => decode::<QueueRecord2>(2, bytes).map(Self::from),
            _ => decode(VERSION, bytes),
        }
    }
}
