//! Admission: whether a queue has room for a message, decided before the step writes anything.
//!
//! The only module that makes an [`Admitted`], which a send takes, and a `Room`, which an insert takes: nothing gets
//! into a queue unless its limits were checked, or are named here as not applying.

use std::collections::HashSet;
use std::time::Duration;

use crate::base::Now;
use crate::store::record::{DedupEntry, Digest, Follower, QueueRecord};
use crate::store::{self, Tx};

use super::unique::{self, Verdict};
use super::{Error, Send, catalog, dedup, send, valid};

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
        if self.left.is_limited() {
            let need = self.need(tx, &message, now)?;
            self.left.take(need)?;
        }
        Ok(Admitted { queue: self.queue, message, room: Room(()) })
    }

    /// What the message takes up; never less than what its send adds.
    fn need(&mut self, tx: &mut Tx<'_>, message: &Send, now: Now) -> Result<Need, Error> {
        let whole = Need { messages: 1, bytes: send::size(message) as u64 };
        if let Some(digest) = send::deduplication(self.queue, message) {
            let is_known = matches!(dedup::get(tx, self.queue.id, digest, now.lease)?, Some(DedupEntry::Sent { .. }));
            return Ok(if is_known || !self.keys.insert(digest) { Need::default() } else { whole });
        }
        let Some(unique) = &message.unique else { return Ok(whole) };
        let is_first = self.keys.insert(unique::digest(unique));
        let growth = |old: u32| Need { messages: 0, bytes: whole.bytes.saturating_sub(u64::from(old)) };
        Ok(match unique::judge(tx, self.queue, unique, now)? {
            Verdict::Duplicate(_) => Need::default(),
            // An earlier message of this step may have changed the key's holder by the time this one is sent.
            _ if !is_first => whole,
            Verdict::New => whole,
            Verdict::Replace(_, old) => growth(old.size_bytes),
            Verdict::Wait(row) => row.follower.map_or(whole, |follower| growth(follower.size_bytes)),
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
    dead_letter_queue: Option<QueueRecord>,
}

/// The right to send one message that dies as it is sent.
#[derive(Debug)]
pub struct AdmittedLetter<'q> {
    pub(super) admitted: Admitted<'q>,
    pub(super) dead_letter_queue: Option<QueueRecord>,
}

impl<'q> LetterAdmission<'q> {
    /// Admission to the dead-letter queue of `queue`; to the queue itself when it has none.
    ///
    /// # Errors
    /// A storage fault.
    pub fn to(tx: &mut Tx<'_>, queue: &'q QueueRecord) -> Result<Self, Error> {
        let dead_letter_queue = catalog::dead_letter_queue(tx, queue)?;
        let left = Left::of(tx, dead_letter_queue.as_ref().unwrap_or(queue))?;
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

/// The right to put one message into one queue, used up by the insert.
#[derive(Debug)]
pub(super) struct Room(());

impl Room {
    /// For a letter that a redrive moves to `queue`.
    ///
    /// # Errors
    /// [`Error::Full`], or [`Error::TooLarge`] when it would not even fit into the empty queue.
    pub(super) fn for_redriven(tx: &mut Tx<'_>, queue: &QueueRecord, size_bytes: u32) -> Result<Self, Error> {
        if queue.attributes.bytes_max.is_some_and(|max| u64::from(size_bytes) > max) {
            return Err(valid::too_large(queue, size_bytes as usize));
        }
        Left::of(tx, queue)?.take(Need { messages: 1, bytes: u64::from(size_bytes) })?;
        Ok(Self(()))
    }

    /// For a message that dies, or that an undo returns to its dead-letter queue. No limit applies: a message that
    /// failed must be somewhere.
    pub(super) const fn for_letter() -> Self {
        Self(())
    }

    /// Ends the right: a message was put in.
    pub(super) const fn take_up(self) {}

    /// For a follower that becomes a message: gives up what [`reserve`] took for it.
    pub(super) fn of_follower(tx: &mut Tx<'_>, queue: u32, follower: &Follower) -> Result<Self, store::Error> {
        give_up(tx, queue, follower)?;
        Ok(Self(()))
    }
}

/// Counts a follower towards its queue's limits, in the place of an earlier one.
pub(super) fn reserve(
    tx: &mut Tx<'_>,
    queue: u32,
    room: Room,
    follower: &Follower,
    old: Option<&Follower>,
) -> Result<(), store::Error> {
    room.take_up();
    if let Some(old) = old {
        give_up(tx, queue, old)?;
    }
    let counts = tx.counts_mut(queue)?;
    counts.followers += 1;
    counts.follower_bytes += u64::from(follower.size_bytes);
    Ok(())
}

/// Counts a follower no longer.
pub(super) fn give_up(tx: &mut Tx<'_>, queue: u32, follower: &Follower) -> Result<(), store::Error> {
    let counts = tx.counts_mut(queue)?;
    let left = counts.followers.checked_sub(1).zip(counts.follower_bytes.checked_sub(u64::from(follower.size_bytes)));
    (counts.followers, counts.follower_bytes) = left.unwrap_or_default();
    match left {
        Some(_) => Ok(()),
        None => Err(tx.damaged("counts", format!("the counts of queue {queue} do not cover a follower"))),
    }
}

/// What is left of a queue's limits; `None` where there is none.
#[derive(Debug)]
struct Left {
    /// The queue's name.
    queue: String,
    messages: Option<Share>,
    bytes: Option<Share>,
}

/// A limit and what is left of it.
#[derive(Clone, Copy, Debug)]
struct Share {
    left: u64,
    max: u64,
}

/// What a message takes up.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    messages: u64,
    bytes: u64,
}

impl Left {
    fn of(tx: &mut Tx<'_>, queue: &QueueRecord) -> Result<Self, store::Error> {
        let (messages_max, bytes_max) = (queue.attributes.messages_max, queue.attributes.bytes_max);
        let mut left = Self { queue: queue.name.clone(), messages: None, bytes: None };
        if messages_max.is_some() || bytes_max.is_some() {
            let counts = tx.counts_of(queue.id)?;
            let share = |max: u64, taken| Share { left: max.saturating_sub(taken), max };
            left.messages = messages_max.map(|max| share(max, counts.total() + counts.followers));
            left.bytes = bytes_max.map(|max| share(max, counts.bytes + counts.follower_bytes));
        }
        Ok(left)
    }

    fn is_limited(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }

    fn take(&mut self, need: Need) -> Result<(), Error> {
        let full = |what, share: &Share| Error::Full { queue: self.queue.clone(), what, max: share.max };
        match (&self.messages, &self.bytes) {
            (Some(share), _) if share.left < need.messages => return Err(full("messages", share)),
            (_, Some(share)) if share.left < need.bytes => return Err(full("bytes", share)),
            _ => {}
        }
        let rest = |share: Option<Share>, need| share.map(|share| Share { left: share.left - need, ..share });
        (self.messages, self.bytes) = (rest(self.messages, need.messages), rest(self.bytes, need.bytes));
        Ok(())
    }
}
