//! Admission: whether a queue has room for a message, decided before the step writes anything.
//!
//! The only module that makes an [`Admitted`], which a send takes: nothing is sent unless it is valid and its queue's
//! limits were checked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Now;
use crate::store::record::{DedupEntry, Digest, QueueRecord};
use crate::store::{self, Tx};

use super::new_message::{self, Send};
use super::room::{Left, Need, Room};
use super::verdict::{self, Verdict};
use super::{Error, catalog, dedup, holder, unique, valid};

/// What one queue still takes in one step. Admits message after message; each takes its share of the room. A step makes
/// one of these for a queue, and sends what was admitted before it ends.
#[derive(Debug)]
pub struct Admission<'q> {
    /// The queue whose messages they are.
    queue: &'q QueueRecord,
    left: Left,
    /// Deduplication ids and unique keys of the messages admitted so far; empty for a queue without limits.
    keys: HashSet<Digest>,
}

/// The right to send one message: it is valid, and there is room for it.
#[derive(Debug)]
pub struct Admitted<'q> {
    queue: &'q QueueRecord,
    message: Send,
    room: Room,
}

impl<'q> Admission<'q> {
    /// Admission to `queue`.
    ///
    /// # Errors
    /// A storage fault.
    pub fn to(tx: &mut Tx<'_>, queue: &'q QueueRecord) -> Result<Self, store::Error> {
        Ok(Self { queue, left: Left::of(tx, queue)?, keys: HashSet::new() })
    }

    /// Admits a message. A duplicate of a message that was taken needs no room.
    ///
    /// # Errors
    /// The message breaks a rule, or [`Error::Full`]; another, smaller one may still be admitted.
    pub fn admit(&mut self, tx: &mut Tx<'_>, message: Send, now: Now) -> Result<Admitted<'q>, Error> {
        valid::check(self.queue, &message)?;
        let need = if self.left.is_limited() { self.need(tx, &message, now)? } else { Need::default() };
        let room = self.left.take(need)?;
        Ok(Admitted { queue: self.queue, message, room })
    }

    /// What the message takes up; never less than what its send adds.
    fn need(&mut self, tx: &mut Tx<'_>, message: &Send, now: Now) -> Result<Need, Error> {
        let whole = Need { messages: 1, bytes: new_message::size(message) as u64 };
        if let Some(digest) = new_message::deduplication(self.queue, message) {
            let is_known = matches!(dedup::get(tx, self.queue.rows, digest, now.lease)?, Some(DedupEntry::Sent { .. }));
            return Ok(if is_known || !self.keys.insert(digest) { Need::default() } else { whole });
        }
        let Some(unique) = &message.unique else { return Ok(whole) };
        let is_first = self.keys.insert(unique::digest(unique));
        let growth = |old: u32| Need { messages: 0, bytes: whole.bytes.saturating_sub(u64::from(old)) };
        Ok(match verdict::judge(tx, self.queue, unique, now)? {
            Verdict::Duplicate(_) => Need::default(),
            // An earlier message of this step may have changed the key's holder by the time this one is sent.
            _ if !is_first => whole,
            Verdict::New => whole,
            Verdict::Replace(_, old) => growth(old.size_bytes),
            Verdict::Wait(row) => match row.follower {
                Some(old) if !holder::is_purged(tx, self.queue.id, &old)? => growth(old.size_bytes),
                _ => whole,
            },
        })
    }
}

impl<'q> Admitted<'q> {
    /// Its queue.
    pub(super) fn queue(&self) -> &'q QueueRecord {
        self.queue
    }

    /// The same message, visible at once.
    pub(super) fn without_delay(mut self) -> Self {
        self.message.delay = Some(Duration::ZERO);
        self
    }

    /// The message and what its send needs.
    pub(super) fn into_parts(self) -> (&'q QueueRecord, Send, Room) {
        (self.queue, self.message, self.room)
    }
}

/// Admits one message to `queue`.
///
/// # Errors
/// As [`Admission::admit`].
pub fn admit<'q>(tx: &mut Tx<'_>, queue: &'q QueueRecord, message: Send, now: Now) -> Result<Admitted<'q>, Error> {
    Admission::to(tx, queue)?.admit(tx, message, now)
}

/// As [`Admission`], for messages that die as they are sent: the limits are those of the dead-letter queue, in which
/// they end.
#[derive(Debug)]
pub struct LetterAdmission<'q> {
    admission: Admission<'q>,
    dead_letter_queue: Option<Arc<QueueRecord>>,
}

/// The right to send one message that dies as it is sent.
#[derive(Debug)]
pub struct AdmittedLetter<'q> {
    pub(super) admitted: Admitted<'q>,
    pub(super) dead_letter_queue: Option<Arc<QueueRecord>>,
}

impl<'q> LetterAdmission<'q> {
    /// Admission to the dead-letter queue of `queue`; to the queue itself when it has none.
    ///
    /// # Errors
    /// A storage fault.
    pub fn to(tx: &mut Tx<'_>, queue: &'q QueueRecord) -> Result<Self, Error> {
        let dead_letter_queue = catalog::dead_letter_queue(tx, queue)?;
        let left = Left::of(tx, dead_letter_queue.as_deref().unwrap_or(queue))?;
        Ok(Self { admission: Admission { queue, left, keys: HashSet::new() }, dead_letter_queue })
    }

    /// Admits a message.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub fn admit(&mut self, tx: &mut Tx<'_>, message: Send, now: Now) -> Result<AdmittedLetter<'q>, Error> {
        let admitted = self.admission.admit(tx, message, now)?;
        Ok(AdmittedLetter { admitted, dead_letter_queue: self.dead_letter_queue.clone() })
    }
}
