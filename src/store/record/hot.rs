//! The records of the hot path, in fixed layouts of big-endian fields: state, body, counts, totals.

use bytes::Bytes;

use crate::base::{MessageId, Timestamp};

use super::Record;

/// Where a message is within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It can be received now.
    Ready,
    /// It was never received and becomes visible later, or waits for its next attempt.
    Delayed,
    /// Somebody received it; it becomes visible again unless it is deleted.
    InFlight,
}

/// Who holds a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// A worker of this daemon; its lease ends when the daemon starts anew.
    Worker,
    /// A client of the API.
    Client,
}

/// The changing part of a message: small, separate from the body, rewritten at each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// Set by each step; with `visible_at` it decides which index holds the message.
    pub place: Place,
    /// Set by receive; [`Owner::Nobody`] outside flight.
    pub owner: Owner,
    /// The body's key, our inner id: never changes, through retries, dead-letter queue and redrive.
    pub body: u64,
    /// SQS's message id; a redrive gives a new one.
    pub message_id: MessageId,
    /// When it was sent; retention counts from here. A redrive gives a new one.
    pub sent_at: Timestamp,
    /// When it becomes visible; zero while it is ready.
    pub visible_at: Timestamp,
    /// The first receive; zero before it.
    pub first_received_at: Timestamp,
    /// The latest receive, the start of the attempt in hand; zero before it.
    pub received_at: Timestamp,
    /// The first of the deferrals that go on now; zero when the last attempt was not deferred.
    pub deferred_since: Timestamp,
    /// SQS's receive count; never falls.
    pub receive_count: u32,
    /// Attempts charged: what is compared with `max_receive_count`. A redrive sets it to zero.
    pub charged: u32,
    /// Attempts over the whole life; numbers the history.
    pub attempts: u32,
    /// The latest receive, as its receipt handle names it; set by receive, zero once a worker has settled it.
    pub lease: u64,
    /// When it came into its queue, as a number of the store's one series: its sequence number, and a greater one once
    /// it died. A purge or redrive takes what came in before it began.
    pub entered: u64,
    /// The length of the body, so that counts need not read it.
    pub body_bytes: u32,
    /// The queue it died from, while it is in a dead-letter queue; zero elsewhere.
    pub source: u32,
}

const STATE_VERSION: u8 = 1;
const STATE_BYTES: usize = 3 + 8 + 16 + 5 * 8 + 3 * 4 + 2 * 8 + 2 * 4;

impl Record for MessageState {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(STATE_BYTES);
        out.push(STATE_VERSION);
        out.push(self.place as u8);
        out.push(self.owner as u8);
        out.extend(self.body.to_be_bytes());
        out.extend(self.message_id.as_bytes());
        for moment in [self.sent_at, self.visible_at, self.first_received_at, self.received_at, self.deferred_since] {
            out.extend(moment.as_millis().to_be_bytes());
        }
        for count in [self.receive_count, self.charged, self.attempts] {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.lease.to_be_bytes());
        out.extend(self.entered.to_be_bytes());
        out.extend(self.body_bytes.to_be_bytes());
        out.extend(self.source.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, STATE_VERSION, STATE_BYTES)?;
        Ok(Self {
            place: match read.u8() {
                0 => Place::Ready,
                1 => Place::Delayed,
                2 => Place::InFlight,
                other => return Err(format!("unknown place {other}")),
            },
            owner: match read.u8() {
                0 => Owner::Nobody,
                1 => Owner::Worker,
                2 => Owner::Client,
                other => return Err(format!("unknown owner {other}")),
            },
            body: read.u64(),
            message_id: MessageId::from_bytes(read.array()),
            sent_at: read.timestamp(),
            visible_at: read.timestamp(),
            first_received_at: read.timestamp(),
            received_at: read.timestamp(),
            deferred_since: read.timestamp(),
            receive_count: read.u32(),
            charged: read.u32(),
            attempts: read.u32(),
            lease: read.u64(),
            entered: read.u64(),
            body_bytes: read.u32(),
            source: read.u32(),
        })
    }
}

/// The unchanging part of a message: written once, never rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The run that owns the message; zero when none does.
    pub run: u64,
    /// The key of the recipient's row in that run; zeros when there is none.
    pub recipient: [u8; 16],
    /// What the sender sent.
    pub bytes: Bytes,
}

const BODY_VERSION: u8 = 1;
const BODY_HEAD_BYTES: usize = 1 + 8 + 16;

impl Record for Body {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BODY_HEAD_BYTES + self.bytes.len());
        out.push(BODY_VERSION);
        out.extend(self.run.to_be_bytes());
        out.extend(self.recipient);
        out.extend(&self.bytes);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (head, body) =
            bytes.split_at_checked(BODY_HEAD_BYTES).ok_or_else(|| format!("body of {} bytes", bytes.len()))?;
        let mut read = Reader::new(head, BODY_VERSION, BODY_HEAD_BYTES)?;
        Ok(Self { run: read.u64(), recipient: read.array(), bytes: Bytes::copy_from_slice(body) })
    }
}

/// How many messages a queue holds, exactly, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready messages.
    pub ready: u64,
    /// Delayed messages, those that are due but not yet looked at included.
    pub delayed: u64,
    /// Messages in flight, those whose lease ran out but were not yet looked at included.
    pub in_flight: u64,
    /// The bytes of all bodies.
    pub bytes: u64,
}

impl Counts {
    /// All messages of the queue.
    pub const fn total(&self) -> u64 {
        self.ready + self.delayed + self.in_flight
    }
}

const COUNTS_VERSION: u8 = 1;
const COUNTS_BYTES: usize = 1 + 4 * 8;

impl Record for Counts {
    fn encode(&self) -> Vec<u8> {
        encode_numbers(COUNTS_VERSION, &[self.ready, self.delayed, self.in_flight, self.bytes])
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, COUNTS_VERSION, COUNTS_BYTES)?;
        Ok(Self { ready: read.u64(), delayed: read.u64(), in_flight: read.u64(), bytes: read.u64() })
    }
}

/// How the recipients of a run ended, by state. What is not counted here is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Recipients that the users API named, malformed ones included, repeated ones not.
    pub fetched: u64,
    /// Recipients whose mail the relay took.
    pub sent: u64,
    /// Recipients whose message is in a dead-letter queue.
    pub dead: u64,
    /// Recipients whose message was purged, expired or deleted.
    pub withdrawn: u64,
    /// Records that named a recipient again; not in `fetched`.
    pub repeated: u64,
    /// Attempts that a dying process left unfinished: each may have mailed.
    pub interrupted: u64,
}

impl RunTotals {
    /// Recipients without an end so far.
    pub const fn open(&self) -> u64 {
        self.fetched.saturating_sub(self.sent + self.dead + self.withdrawn)
    }
}

const TOTALS_VERSION: u8 = 1;
const TOTALS_BYTES: usize = 1 + 6 * 8;

impl Record for RunTotals {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.fetched, self.sent, self.dead, self.withdrawn, self.repeated, self.interrupted];
        encode_numbers(TOTALS_VERSION, &numbers)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, TOTALS_VERSION, TOTALS_BYTES)?;
        Ok(Self {
            fetched: read.u64(),
            sent: read.u64(),
            dead: read.u64(),
            withdrawn: read.u64(),
            repeated: read.u64(),
            interrupted: read.u64(),
        })
    }
}

fn encode_numbers(version: u8, numbers: &[u64]) -> Vec<u8> {
    let mut out = vec![version];
    out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    out
}

/// Reads the fields of a fixed layout whose length was checked once, at the start.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], version: u8, length: usize) -> Result<Self, String> {
        match bytes.first() {
            Some(&found) if found != version => Err(format!("version {found}, this build knows {version}")),
            Some(_) if bytes.len() == length => Ok(Self { rest: &bytes[1..] }),
            _ => Err(format!("expected {length} bytes, found {}", bytes.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.rest.split_first_chunk().expect("the layout's length was checked when reading began");
        self.rest = rest;
        *head
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn timestamp(&mut self) -> Timestamp {
        Timestamp::from_millis(self.u64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> MessageState {
        MessageState {
            place: Place::InFlight,
            owner: Owner::Worker,
            body: 1,
            message_id: MessageId::from_bytes([7; 16]),
            sent_at: Timestamp::from_millis(2),
            visible_at: Timestamp::from_millis(3),
            first_received_at: Timestamp::from_millis(4),
            received_at: Timestamp::from_millis(5),
            deferred_since: Timestamp::from_millis(6),
            receive_count: 8,
            charged: 9,
            attempts: 10,
            lease: 11,
            entered: 14,
            body_bytes: 13,
            source: 12,
        }
    }

    #[test]
    fn every_hot_record_reads_back_as_it_was_written() {
        assert_eq!(MessageState::decode(&state().encode()), Ok(state()));
        let body = Body { run: 5, recipient: [3; 16], bytes: Bytes::from_static(b"hello") };
        assert_eq!(Body::decode(&body.encode()), Ok(body));
        let counts = Counts { ready: 1, delayed: 2, in_flight: 3, bytes: 4 };
        assert_eq!(Counts::decode(&counts.encode()), Ok(counts));
        let totals = RunTotals { fetched: 9, sent: 1, dead: 2, withdrawn: 3, repeated: 4, interrupted: 5 };
        assert_eq!(RunTotals::decode(&totals.encode()), Ok(totals));
        assert_eq!(totals.open(), 3);
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = state().encode();
        bytes[0] = 9;
        assert_eq!(MessageState::decode(&bytes), Err("version 9, this build knows 1".into()));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MessageState::decode(&bytes);
            let _ = Body::decode(&bytes);
            let _ = Counts::decode(&bytes);
            let _ = RunTotals::decode(&bytes);
        }
    }
}
