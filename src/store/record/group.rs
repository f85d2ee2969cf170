//! What a queue keeps beside its messages: message groups, what it saw a moment ago, unique keys.

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp};

use super::Record;
use super::layout::Reader;
use super::postcard::postcard_records;

/// A message group of a queue, while it has messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its messages in flight.
    pub in_flight: u64,
    /// Its messages that were received before and are not ready: on a FIFO queue they lock the group.
    pub held: u64,
    /// Its messages that are ready, and on a FIFO queue those not yet received that wait out their delay.
    pub waiting: u64,
    /// The one message of the group that stands in the ready index, by priority and sequence number; zeros when none
    /// does.
    pub shown: (u32, u64),
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
        out.extend(self.shown.0.to_be_bytes());
        out.extend(self.shown.1.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, VERSION, BYTES)?;
        Ok(Self { in_flight: read.u64(), held: read.u64(), waiting: read.u64(), shown: (read.u32(), read.u64()) })
    }
}

/// Something that a queue remembers for a while: SQS's five minutes, or a throttled key's span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentRecord {
    /// When it is forgotten.
    pub until: Timestamp,
    /// What it is.
    pub what: Recent,
}

/// What a queue remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recent {
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

/// A unique key, while a message holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueRecord {
    /// The queue that the holder is in now.
    pub queue: u32,
    /// The holder's sequence number.
    pub sequence: u64,
    /// The newest message that came while the holder was in work; it is sent when the holder ends.
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
    /// When it is not worth sending any more; zero for never.
    pub expires_at: Timestamp,
}

postcard_records!(1: RecentRecord, UniqueRecord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_back_as_it_was_written() {
        let group = GroupRecord { in_flight: 1, held: 2, waiting: 3, shown: (4, 5) };
        assert_eq!(GroupRecord::decode(&group.encode()), Ok(group));
    }
}
