//! The records of message groups, deduplication entries and unique keys.

use serde::{Deserialize, Serialize};

use crate::base::{LeaseTime, MessageId, Timestamp};

use super::Record;
use super::layout::Reader;
use super::postcard::{decode, encode, postcard_records};

/// A message group of a queue; the row exists while the group has messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its messages in flight.
    pub in_flight: u64,
    /// On a FIFO queue, its messages that were received before and are not ready: those behind the first of them wait.
    pub held: u64,
    /// The sequence numbers of the held ones, ascending; without those that a store of format 3 counted.
    pub held_known: Vec<u64>,
    /// Its messages that wait: ready ones, and on a FIFO queue those in their first delay.
    pub waiting: u64,
    /// The group's message in the ready index, by priority and sequence number; zeros when there is none.
    pub head: (u32, u64),
    /// On a FIFO queue, the lease of the latest receive of one of its messages: the group goes behind those that were
    /// handed out or sent before it.
    pub turn: u64,
}

impl GroupRecord {
    /// Whether nothing is counted: such a group has no row.
    pub const fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.held == 0 && self.waiting == 0
    }
}

const VERSION: u8 = 2;
/// Without the sequence numbers of the held messages, and their number.
const BYTES: usize = 1 + 3 * 8 + 4 + 8 + 8 + 2;
/// Version 1 ended with the head.
const BYTES_1: usize = 1 + 3 * 8 + 4 + 8;

impl Record for GroupRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES + 8 * self.held_known.len());
        out.push(VERSION);
        for count in [self.in_flight, self.held, self.waiting] {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.head.0.to_be_bytes());
        out.extend(self.head.1.to_be_bytes());
        out.extend(self.turn.to_be_bytes());
        let held =
            u16::try_from(self.held_known.len()).expect("a group has no more in flight than one receive gives out");
        out.extend(held.to_be_bytes());
        out.extend(self.held_known.iter().flat_map(|sequence| sequence.to_be_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let is_1 = bytes.first() == Some(&1);
        let held =
            bytes.get(BYTES - 2..BYTES).and_then(|held| held.first_chunk()).map_or(0, |held| u16::from_be_bytes(*held));
        let mut read = match is_1 {
            true => Reader::of(bytes, BYTES_1)?,
            false => Reader::new(bytes, VERSION, BYTES + 8 * usize::from(held))?,
        };
        let mut group = Self {
            in_flight: read.u64(),
            held: read.u64(),
            waiting: read.u64(),
            head: (read.u32(), read.u64()),
            ..Self::default()
        };
        if !is_1 {
            group.turn = read.u64();
            let _: [u8; 2] = read.array();
            group.held_known = (0..held).map(|_| read.u64()).collect();
        }
        Ok(group)
    }
}

/// A deduplication entry of a queue, kept for SQS's five minutes or a throttled key's span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupRecord {
    /// When it expires.
    pub until: LeaseTime,
    /// The entry.
    pub what: DedupEntry,
}

/// What a deduplication entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DedupEntry {
    /// A message was sent under this deduplication id or throttled key.
    Sent {
        /// Its id.
        message_id: MessageId,
        /// Its sequence number.
        sequence: u64,
    },
    /// A receive with this attempt id took these messages; as a store of format 3 had it, and void.
    Received {
        /// Sequence number and lease of each.
        leases: Vec<(u64, u64)>,
    },
    /// A queue of this name was deleted.
    Deleted,
    /// A receive with this attempt id took these messages.
    Attempt {
        /// Sequence number and lease of each.
        leases: Vec<(u64, u64)>,
        /// When they become visible again: void as soon as this does not hold for one of them.
        visible_at: LeaseTime,
    },
}

/// A unique key; the row exists while a message holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueRecord {
    /// The queue that the holder is in now.
    pub queue: u32,
    /// The holder's sequence number.
    pub sequence: u64,
    /// The newest message that was sent after the holder was received; it is sent when the holder has ended.
    pub follower: Option<Follower>,
}

/// A message that waits for the holder of its unique key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// Its body.
    pub body: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Its size.
    pub size_bytes: u32,
    /// Its priority.
    pub priority: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Its expiry; zero for never.
    pub expires_at: Timestamp,
    /// When its delay ends; zero without one.
    pub visible_at: LeaseTime,
}

postcard_records!(1: DedupRecord);

const UNIQUE_VERSION: u8 = 2;

/// The record of version 1, whose follower had no delay.
#[derive(Deserialize)]
struct UniqueRecord1 {
    queue: u32,
    sequence: u64,
    follower: Option<Follower1>,
}

#[derive(Deserialize)]
struct Follower1 {
    body: u64,
    message_id: MessageId,
    size_bytes: u32,
    priority: u32,
    sent_at: Timestamp,
    expires_at: Timestamp,
}

impl From<UniqueRecord1> for UniqueRecord {
    fn from(old: UniqueRecord1) -> Self {
        let follower = old.follower.map(|old| Follower {
            body: old.body,
            message_id: old.message_id,
            size_bytes: old.size_bytes,
            priority: old.priority,
            sent_at: old.sent_at,
            expires_at: old.expires_at,
            visible_at: LeaseTime::ZERO,
        });
        Self { queue: old.queue, sequence: old.sequence, follower }
    }
}

impl Record for UniqueRecord {
    fn encode(&self) -> Vec<u8> {
        encode(UNIQUE_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<UniqueRecord1>(1, bytes).map(Self::from),
            _ => decode(UNIQUE_VERSION, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_back_as_it_was_written() {
        let group = GroupRecord { in_flight: 1, held: 2, held_known: vec![7, 8], waiting: 3, head: (4, 5), turn: 6 };
        assert_eq!(GroupRecord::decode(&group.encode()), Ok(group.clone()));
        assert!(GroupRecord::decode(&group.encode()[..60]).is_err(), "the number of the held ones tells the length");
    }
}
