//! Room: what is left of a queue's limits, and the right to put a message in.
//!
//! The only module that makes a [`Room`], which an insert takes up: nothing gets into a queue unless its limits were
//! checked, or are named here as not applying.

use crate::store::record::{Follower, QueueRecord};
use crate::store::{self, Tx};

use super::{Error, valid};

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
        Left::of(tx, queue)?.take(Need { messages: 1, bytes: u64::from(size_bytes) })
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

/// What is left of a queue's limits; `None` where there is none.
#[derive(Debug)]
pub(super) struct Left {
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
pub(super) struct Need {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Left {
    /// What is left of `queue`.
    ///
    /// # Errors
    /// A storage fault.
    pub(super) fn of(tx: &mut Tx<'_>, queue: &QueueRecord) -> Result<Self, store::Error> {
        let (messages_max, bytes_max) = (queue.attributes.messages_max, queue.attributes.bytes_max);
        let mut left = Self { queue: queue.name.clone(), messages: None, bytes: None };
        if messages_max.is_some() || bytes_max.is_some() {
            let counts = tx.counts_of(queue.rows)?;
            let share = |max: u64, taken| Share { left: max.saturating_sub(taken), max };
            left.messages = messages_max.map(|max| share(max, counts.total() + counts.followers));
            left.bytes = bytes_max.map(|max| share(max, counts.bytes + counts.follower_bytes));
        }
        Ok(left)
    }

    /// Whether there is a limit at all.
    pub(super) fn is_limited(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }

    /// Takes a message's share.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(super) fn take(&mut self, need: Need) -> Result<Room, Error> {
        let full = |what, share: &Share| Error::Full { queue: self.queue.clone(), what, max: share.max };
        match (&self.messages, &self.bytes) {
            (Some(share), _) if share.left < need.messages => return Err(full("messages", share)),
            (_, Some(share)) if share.left < need.bytes => return Err(full("bytes", share)),
            _ => {}
        }
        let rest = |share: Option<Share>, need| share.map(|share| Share { left: share.left - need, ..share });
        (self.messages, self.bytes) = (rest(self.messages, need.messages), rest(self.bytes, need.bytes));
        Ok(Room(()))
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
