//! SendMessage: one message into one queue. Takes messages that [`super::admission`] has admitted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::base::{AttemptEnd, LeaseTime, MessageId, Now, Timestamp};
use crate::store::record::{
    Attribute, Body, DedupEntry, DedupRecord, Digest, Envelope, Group, MessageState, Phase, QueueRecord, Scope,
};
use crate::store::{self, Tx};

use super::admission::{Admission, Admitted, AdmittedLetter};
use super::settle::{self, Ended};
use super::unique::{self, Unique, Verdict};
use super::{Error, Observer, dedup, messages, receive, valid};

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
    /// Its place in the order of sending: SQS's SequenceNumber.
    pub sequence: u64,
    /// Whether an earlier message with the same deduplication id or unique key was returned, and this one was not sent
    /// as a message of its own.
    pub is_duplicate: bool,
}

/// Sends a message that was admitted, in the step in which it was.
///
/// # Errors
/// A storage fault.
pub fn send(tx: &mut Tx<'_>, admitted: Admitted<'_>, now: Now) -> Result<Sent, store::Error> {
    let (queue, message, room) = admitted.into_parts();
    let deduplication = deduplication(queue, &message);
    if let Some(digest) = deduplication
        && let Some(DedupEntry::Sent { message_id, sequence }) = dedup::get(tx, queue.id, digest, now.lease)?
    {
        return Ok(Sent { message_id, sequence, is_duplicate: true });
    }
    let verdict = match &message.unique {
        Some(unique) => unique::judge(tx, queue, unique, now)?,
        None => Verdict::New,
    };
    match verdict {
        Verdict::Duplicate(sent) => return Ok(sent),
        Verdict::Replace(at, old) => return unique::replace(tx, queue, (at, old), message, room, now),
        Verdict::Wait(row) => return unique::follow(tx, queue, row, message, room, now),
        Verdict::New => {}
    }
    let sequence = tx.fresh_id()?;
    let state = state(queue, &message, sequence, now);
    let sent = Sent { message_id: state.message_id, sequence, is_duplicate: false };
    if let Some(unique) = &message.unique {
        unique::hold(tx, queue, unique, sent, now)?;
    }
    if let Some(digest) = deduplication {
        let what = DedupEntry::Sent { message_id: sent.message_id, sequence };
        dedup::insert(
            tx,
            queue.id,
            digest,
            &DedupRecord { until: now.lease.after(dedup::REMEMBERED), what },
            now.lease,
        )?;
    }
    tx.bodies()?.insert(&sequence, &body(with_deduplication_id(queue, message)))?;
    messages::insert(tx, (queue.id, sequence), &state, room)?;
    Ok(sent)
}

/// Sends all messages or, when one of them is refused, none.
///
/// # Errors
/// One of them is not admitted; see [`Admission::admit`].
pub fn send_all(tx: &mut Tx<'_>, queue: &QueueRecord, messages: Vec<Send>, now: Now) -> Result<Vec<Sent>, Error> {
    let mut admission = Admission::to(tx, queue)?;
    let admitted: Result<Vec<_>, _> = messages.into_iter().map(|message| admission.admit(tx, message, now)).collect();
    admitted?.into_iter().map(|admitted| Ok(send(tx, admitted, now)?)).collect()
}

/// Checks a message against its queue's limits without sending it.
///
/// # Errors
/// As [`valid::check`].
pub fn check(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    valid::check(queue, message)
}

/// A FIFO queue's message with its deduplication id filled in.
fn with_deduplication_id(queue: &QueueRecord, mut message: Send) -> Send {
    if queue.attributes.fifo.is_some() && message.deduplication_id.is_none() {
        message.deduplication_id = Some(content_id(&message));
    }
    message
}

/// The deduplication id of a message without one.
fn content_id(message: &Send) -> String {
    Sha256::digest(&message.body).iter().map(|byte| format!("{byte:02x}")).collect()
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

fn state(queue: &QueueRecord, message: &Send, sequence: u64, now: Now) -> MessageState {
    let fresh = messages::fresh(sequence, sequence, size_bytes(message), now.wall);
    let delay = delay(queue, message);
    let is_ordered = queue.attributes.fifo.is_some();
    MessageState {
        phase: if delay.is_zero() { Phase::Ready } else { Phase::Delayed },
        visible_at: if delay.is_zero() { LeaseTime::ZERO } else { now.lease.after(delay) },
        group: group(message.group.as_deref(), is_ordered),
        priority: message.priority,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
        unique: message.unique.as_ref().and_then(|unique| unique::reference(queue, unique)),
        ..fresh
    }
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

/// Sends a message that is known to fail: it goes straight to the dead-letter queue of its queue, with one attempt in
/// its history. Without a dead-letter queue it is sent as any other.
///
/// # Errors
/// A storage fault.
pub fn send_dead(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    letter: AdmittedLetter<'_>,
    ended: &Ended,
) -> Result<Sent, store::Error> {
    let AdmittedLetter { admitted, dead_letter_queue } = letter;
    let queue = admitted.queue().id;
    let sent = send(tx, admitted.without_delay(), ended.at)?;
    if let Some(dead_letter_queue) = dead_letter_queue.filter(|_| !sent.is_duplicate) {
        let key = (queue, sent.sequence);
        let mut state = receive::state_of(tx, key)?;
        state.attempts = 1;
        settle::record_attempt(tx, &state, &settle::attempt(&state, ended, AttemptEnd::Dead))?;
        messages::move_to_dlq(tx, observer, key, &state, &dead_letter_queue, ended.at.wall)?;
    }
    Ok(sent)
}
