//! The records of message groups, deduplication entries and unique keys.

use serde::{Deserialize, Serialize};

use crate::base::{LeaseTime, MessageId, Timestamp};

use super::Record;
use super::layout::Reader;
use super::postcard::postcard_records;

/// A message group of a queue; the row exists while the group has messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its messages in flight.
    pub in_flight: u64,
    /// Its messages that were received before and are not ready: on a FIFO queue they lock the group.
    pub held: u64,
    /// Its messages that wait: ready ones, and on a FIFO queue those in their first delay.
    pub waiting: u64,
    /// The group's message in the ready index, by priority and sequence number; zeros when there is none.
    pub head: (u32, u64),
}

const VERSION: u8 = 1;
const BYTES: usize = 1 + 3 * 8 + 4 + 8;

impl Record for GroupRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.push(VERSION);
        for count in [self.in_flight, self.held, self.waiting] {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.head.0.to_be_bytes());
        out.extend(self.head.1.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, VERSION, BYTES)?;
        Ok(Self { in_flight: read.u64(), held: read.u64(), waiting: read.u64(), head: (read.u32(), read.u64()) })
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
    /// A receive with this attempt id took these messages.
    Received {
        /// Sequence number and lease of each.
        leases: Vec<(u64, u64)>,
    },
    /// A queue of this name was deleted.
    Deleted,
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
}

postcard_records!(1: DedupRecord, UniqueRecord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_back_as_it_was_written() {
        let group = GroupRecord { in_flight: 1, held: 2, waiting: 3, head: (4, 5) };
        assert_eq!(GroupRecord::decode(&group.encode()), Ok(group));
    }
}
