//! A message on its way into a queue, and what its parts come to: size, delay, group and deduplication id.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::base::{MessageId, Timestamp};
use crate::store::record::{Attribute, Body, Digest, Envelope, Group, QueueRecord, Scope};

use super::dedup;
use super::unique::Unique;

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct Send {
    /// The text, in UTF-8.
    pub body: Bytes,
    /// How long it stays invisible, 0 s to 15 min; the queue's delay when `None`. Not on FIFO queues.
    pub delay: Option<Duration>,
    /// The run that it belongs to; zero when none.
    pub run: u64,
    /// The key of its recipient's row; zeros when none.
    pub recipient: [u8; 16],
    /// At most ten message attributes.
    pub attributes: BTreeMap<String, Attribute>,
    /// The system attribute AWSTraceHeader.
    pub trace_header: Option<String>,
    /// The system attribute SenderId.
    pub sender: Option<String>,
    /// MessageGroupId: on FIFO queues messages of a group are received in order; on standard queues a group with too
    /// many messages in flight yields to the others.
    pub group: Option<String>,
    /// MessageDeduplicationId: on FIFO queues a second send with it within five minutes returns the first message.
    pub deduplication_id: Option<String>,
    /// 0 to 2^21; lower values are received first, and zero, the default, before all.
    pub priority: u32,
    /// At most one message of the queue holds this key.
    pub unique: Option<Unique>,
    /// Not received from this moment on.
    pub expires_at: Option<Timestamp>,
}

impl Send {
    /// A message of no run, with the queue's delay.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }
}

/// A message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id; the earlier message's when this one is a duplicate.
    pub message_id: MessageId,
    /// Its position in the order of sending: SQS's SequenceNumber.
    pub sequence: u64,
    /// Whether an earlier message with the same deduplication id or unique key was returned, and this one was not sent
    /// as a message of its own.
    pub is_duplicate: bool,
}

/// The digest of a FIFO queue's message's deduplication id, within its scope.
pub(super) fn deduplication(queue: &QueueRecord, message: &Send) -> Option<Digest> {
    let fifo = queue.attributes.fifo?;
    let id = message.deduplication_id.clone().unwrap_or_else(|| content_id(message));
    let group = match fifo.deduplication_scope {
        Scope::Queue => "",
        Scope::Group => message.group.as_deref().unwrap_or_default(),
    };
    Some(dedup::digest(&["deduplication", group, &id]))
}

/// A FIFO queue's message with its deduplication id filled in.
pub(super) fn with_deduplication_id(queue: &QueueRecord, mut message: Send) -> Send {
    if queue.attributes.fifo.is_some() && message.deduplication_id.is_none() {
        message.deduplication_id = Some(content_id(&message));
    }
    message
}

/// The deduplication id of a message without one.
fn content_id(message: &Send) -> String {
    Sha256::digest(&message.body).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The group as it is stored in a message's state.
pub(super) fn group(id: Option<&str>, is_ordered: bool) -> Option<Group> {
    id.map(|id| Group { id: dedup::digest(&["group", id]), is_ordered })
}

/// The message's delay. On a FIFO queue only the queue's own delay applies.
pub(super) fn delay(queue: &QueueRecord, message: &Send) -> Duration {
    let own = Duration::from_millis(queue.attributes.delay_ms);
    if queue.attributes.fifo.is_some() { own } else { message.delay.unwrap_or(own) }
}

/// The size of a message as SQS counts it: the text, and the attributes' names, types and values.
pub(super) fn size(message: &Send) -> usize {
    message.body.len() + message.attributes.iter().map(attribute_size).sum::<usize>()
}

/// As [`size`], for a message that was sent.
pub(super) fn stored_size(body: &Body) -> usize {
    let attributes = body.envelope.attributes.iter();
    body.bytes.len() + attributes.map(attribute_size).sum::<usize>()
}

fn attribute_size((name, attribute): (&String, &Attribute)) -> usize {
    name.len() + attribute.data_type.len() + attribute.value.as_bytes().len()
}

/// As [`size`], for a message that was checked, whose size therefore fits.
pub(super) fn size_bytes(message: &Send) -> u32 {
    u32::try_from(size(message)).expect("the size was checked against a 32-bit limit")
}

/// The part of a message that never changes.
pub(super) fn body(message: Send) -> Body {
    let envelope = Envelope {
        attributes: message.attributes,
        trace_header: message.trace_header,
        sender: message.sender,
        group: message.group,
        deduplication_id: message.deduplication_id,
        unique_key: message.unique.map(|unique| unique.key),
    };
    Body { run: message.run, recipient: message.recipient, envelope, bytes: message.body }
}
