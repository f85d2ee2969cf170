//! The mutable part of a message, in a fixed layout. It is small and stored apart from the body, because every step
//! rewrites it.

use crate::base::{LeaseTime, MessageId, Timestamp};

use super::layout::{Reader, unknown};
use super::{Digest, Record};

/// The phase of a message in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It can be received now.
    Ready,
    /// It becomes visible later: in its first delay, or waiting for its next attempt.
    Delayed,
    /// It was received; it becomes visible again unless it is deleted.
    InFlight,
}

/// Who holds a message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// A worker of this daemon; its lease ends when the daemon restarts.
    Worker,
    /// A client of the API.
    Client,
}

/// The message group of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The digest of the MessageGroupId.
    pub id: Digest,
    /// Whether the group belongs to a FIFO queue: its messages are received in order, and none while one is in flight.
    pub is_ordered: bool,
}

/// The unique key that a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueRef {
    /// The queue that the message was sent to: keys are unique there.
    pub queue: u32,
    /// The digest of the key.
    pub key: Digest,
}

/// The redrive that moved a message out of a dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedrivenBy {
    /// The redrive's number.
    pub redrive: u64,
    /// The queue that the letter had died from.
    pub source: u32,
    /// The letter as it was, for an undo; `None` when an earlier version redrove it.
    pub was: Option<LetterBefore>,
}

/// What a redrive changes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterBefore {
    /// Its place in the dead-letter queue.
    pub sequence: u64,
    /// Its id.
    pub message_id: MessageId,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it was first received.
    pub first_received_at: Timestamp,
    /// When it was last received.
    pub received_at: LeaseTime,
    /// SQS's receive count.
    pub receive_count: u32,
    /// Attempts charged in the dead-letter queue.
    pub attempts_charged: u32,
}

/// Whether a message may be what made the daemon crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suspicion {
    /// No crash points at it.
    #[default]
    None,
    /// It was in work when the daemon crashed: it is tried alone next, and stands in `suspects` instead of `ready`.
    Suspect,
    /// In flight as the only attempt in the process: a crash now is charged to it.
    Alone,
    /// In flight, and its attempt has committed progress, or was alone for as long as it may be: a crash now does not make
    /// it a suspect.
    Progressed,
}

/// The mutable part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// Set by each step; with `visible_at` it decides which index holds the message.
    pub phase: Phase,
    /// Set by receive; [`Owner::Nobody`] while the message is not in flight.
    pub owner: Owner,
    /// The body's key, the message's internal id. It stays the same through retries, dead-letter queue and redrive;
    /// only a newer message with the same unique key replaces it.
    pub body: u64,
    /// SQS's message id; a redrive sets a new one.
    pub message_id: MessageId,
    /// When it was sent; retention counts from here. A redrive sets it anew.
    pub sent_at: Timestamp,
    /// When it becomes visible; zero while it is ready.
    pub visible_at: LeaseTime,
    /// The first receive; zero before it.
    pub first_received_at: Timestamp,
    /// The latest receive, which is the start of the current attempt; zero before it.
    pub received_at: LeaseTime,
    /// The start of the current series of deferrals; zero when the last attempt was not deferred.
    pub deferred_since: LeaseTime,
    /// SQS's receive count; never falls.
    pub receive_count: u32,
    /// Attempts charged by its present queue: what is compared with `max_receive_count`. Death and redrive set it to zero.
    pub attempts_charged: u32,
    /// Attempts over the whole life of the message; numbers the history entries.
    pub attempts: u32,
    /// Identifies the latest receive in its receipt handle; set by receive, zero once a worker has settled it.
    pub lease: u64,
    /// When it entered its queue, as a number of the store's series: at first its sequence number, a greater number
    /// once it died. A redrive affects only messages that entered before it began.
    pub arrival_seq: u64,
    /// The message's size as SQS counts it: text, and names, types and values of attributes. Stored here so that counts
    /// need not read the body.
    pub size_bytes: u32,
    /// The queue it died from, while it is in a dead-letter queue; zero elsewhere.
    pub source: u32,
    /// Set by send.
    pub group: Option<Group>,
    /// Set by send: lower values are received first; zero before all.
    pub priority: u32,
    /// Set by send: not received from this moment on; zero for never.
    pub expires_at: Timestamp,
    /// Set by send.
    pub unique: Option<UniqueRef>,
    /// Set by a redrive; cleared when the message dies again.
    pub redriven_by: Option<RedrivenBy>,
    /// Set by the recovery after a crash, by the receive of a suspect and by progress; cleared when the attempt ends.
    pub suspicion: Suspicion,
}

/// Written when no letter stands behind the redrive.
const VERSION_2: u8 = 2;
const VERSION: u8 = 3;
/// What version 3 has behind the redrive of a letter.
const BEFORE_BYTES: usize = 8 + 16 + 3 * 8 + 2 * 4;
/// The fields that every state has.
const BYTES: usize = 4 + 8 + 16 + 5 * 8 + 3 * 4 + 2 * 8 + 2 * 4;
/// As version 1 had them: the same without the flags.
const BYTES_1: usize = BYTES - 1;

const HAS_GROUP: u8 = 1;
const IS_ORDERED: u8 = 1 << 1;
const HAS_PRIORITY: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const IS_UNIQUE: u8 = 1 << 4;
const WAS_REDRIVEN: u8 = 1 << 5;
/// A flag, and the bytes of the field that it announces, in the order of the layout.
const EXTRAS: [(u8, usize); 5] =
    [(HAS_GROUP, 16), (HAS_PRIORITY, 4), (EXPIRES, 8), (IS_UNIQUE, 4 + 16), (WAS_REDRIVEN, 8 + 4)];
/// The two bits of [`Suspicion`].
const SUSPICION_SHIFT: u8 = 6;

impl MessageState {
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.group.is_some(), HAS_GROUP)
            | flag(self.group.is_some_and(|group| group.is_ordered), IS_ORDERED)
            | flag(self.priority != 0, HAS_PRIORITY)
            | flag(self.expires_at != Timestamp::ZERO, EXPIRES)
            | flag(self.unique.is_some(), IS_UNIQUE)
            | flag(self.redriven_by.is_some(), WAS_REDRIVEN)
            | ((self.suspicion as u8) << SUSPICION_SHIFT)
    }

    /// The letter that an undo brings back.
    fn was(&self) -> Option<&LetterBefore> {
        self.redriven_by.as_ref().and_then(|redriven_by| redriven_by.was.as_ref())
    }

    fn encode_extras(&self, out: &mut Vec<u8>) {
        if let Some(group) = &self.group {
            out.extend(group.id);
        }
        if self.priority != 0 {
            out.extend(self.priority.to_be_bytes());
        }
        if self.expires_at != Timestamp::ZERO {
            out.extend(self.expires_at.as_millis().to_be_bytes());
        }
        if let Some(unique) = &self.unique {
            out.extend(unique.queue.to_be_bytes());
            out.extend(unique.key);
        }
        if let Some(redriven_by) = &self.redriven_by {
            out.extend(redriven_by.redrive.to_be_bytes());
            out.extend(redriven_by.source.to_be_bytes());
            if let Some(was) = &redriven_by.was {
                out.extend(was.sequence.to_be_bytes());
                out.extend(was.message_id.as_bytes());
                out.extend(was.sent_at.as_millis().to_be_bytes());
                out.extend(was.first_received_at.as_millis().to_be_bytes());
                out.extend(was.received_at.as_millis().to_be_bytes());
                out.extend(was.receive_count.to_be_bytes());
                out.extend(was.attempts_charged.to_be_bytes());
            }
        }
    }
}

impl Record for MessageState {
    fn encode(&self) -> Vec<u8> {
        let before = if self.was().is_some() { BEFORE_BYTES } else { 0 };
        let mut out = Vec::with_capacity(BYTES + extra_bytes(self.flags()) + before);
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let version = if self.was().is_some() { VERSION } else { VERSION_2 };
        out.extend([version, self.phase as u8, self.owner as u8, self.flags()]);
        out.extend(self.body.to_be_bytes());
        out.extend(self.message_id.as_bytes());
        for ms in [
            self.sent_at.as_millis(),
            self.visible_at.as_millis(),
            self.first_received_at.as_millis(),
            self.received_at.as_millis(),
            self.deferred_since.as_millis(),
        ] {
            out.extend(ms.to_be_bytes());
        }
        for count in [self.receive_count, self.attempts_charged, self.attempts] {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.lease.to_be_bytes());
        out.extend(self.arrival_seq.to_be_bytes());
        out.extend(self.size_bytes.to_be_bytes());
        out.extend(self.source.to_be_bytes());
        self.encode_extras(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let flags = match (bytes.first(), bytes.get(3)) {
            (Some(1), _) => 0,
            (Some(&(VERSION | VERSION_2)), Some(flags)) => *flags,
            (Some(&(VERSION | VERSION_2)), None) | (None, _) => {
                return Err(format!("expected {BYTES} bytes, found {}", bytes.len()));
            }
            (Some(&found), _) => return Err(unknown(found, VERSION)),
        };
        if flags & IS_ORDERED != 0 && flags & HAS_GROUP == 0 {
            return Err(format!("unknown flags {flags:#010b}"));
        }
        if bytes[0] == VERSION && flags & WAS_REDRIVEN == 0 {
            return Err(format!("version {VERSION} of a message that was not redriven"));
        }
        let length = match bytes[0] {
            VERSION => BYTES + extra_bytes(flags) + BEFORE_BYTES,
            VERSION_2 => BYTES + extra_bytes(flags),
            _ => BYTES_1,
        };
        let mut read = Reader::of(bytes, length)?;
        let (phase, owner) = (phase(read.u8())?, owner(read.u8())?);
        if bytes[0] != 1 {
            read.u8();
        }
        let has = |flag: u8| flags & flag != 0;
        Ok(Self {
            phase,
            owner,
            body: read.u64(),
            message_id: MessageId::from_bytes(read.array()),
            sent_at: read.timestamp(),
            visible_at: read.lease_time(),
            first_received_at: read.timestamp(),
            received_at: read.lease_time(),
            deferred_since: read.lease_time(),
            receive_count: read.u32(),
            attempts_charged: read.u32(),
            attempts: read.u32(),
            lease: read.u64(),
            arrival_seq: read.u64(),
            size_bytes: read.u32(),
            source: read.u32(),
            group: has(HAS_GROUP).then(|| Group { id: read.array(), is_ordered: has(IS_ORDERED) }),
            priority: if has(HAS_PRIORITY) { read.u32() } else { 0 },
            expires_at: if has(EXPIRES) { read.timestamp() } else { Timestamp::ZERO },
            unique: has(IS_UNIQUE).then(|| UniqueRef { queue: read.u32(), key: read.array() }),
            redriven_by: has(WAS_REDRIVEN).then(|| redriven_by(&mut read, bytes[0])),
            suspicion: suspicion(flags),
        })
    }
}

fn redriven_by(read: &mut Reader<'_>, version: u8) -> RedrivenBy {
    let (redrive, source) = (read.u64(), read.u32());
    let was = (version == VERSION).then(|| LetterBefore {
        sequence: read.u64(),
        message_id: MessageId::from_bytes(read.array()),
        sent_at: read.timestamp(),
        first_received_at: read.timestamp(),
        received_at: read.lease_time(),
        receive_count: read.u32(),
        attempts_charged: read.u32(),
    });
    RedrivenBy { redrive, source, was }
}

fn extra_bytes(flags: u8) -> usize {
    EXTRAS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, bytes)| bytes).sum()
}

fn phase(byte: u8) -> Result<Phase, String> {
    match byte {
        0 => Ok(Phase::Ready),
        1 => Ok(Phase::Delayed),
        2 => Ok(Phase::InFlight),
        other => Err(format!("unknown phase {other}")),
    }
}

fn suspicion(flags: u8) -> Suspicion {
    match flags >> SUSPICION_SHIFT {
        0 => Suspicion::None,
        1 => Suspicion::Suspect,
        2 => Suspicion::Alone,
        _ => Suspicion::Progressed,
    }
}

fn owner(byte: u8) -> Result<Owner, String> {
    match byte {
        0 => Ok(Owner::Nobody),
        1 => Ok(Owner::Worker),
        2 => Ok(Owner::Client),
        other => Err(format!("unknown owner {other}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain() -> MessageState {
        MessageState {
            phase: Phase::InFlight,
            owner: Owner::Worker,
            body: 1,
            message_id: MessageId::from_bytes([7; 16]),
            sent_at: Timestamp::from_millis(2),
            visible_at: LeaseTime::from_millis(3),
            first_received_at: Timestamp::from_millis(4),
            received_at: LeaseTime::from_millis(5),
            deferred_since: LeaseTime::from_millis(6),
            receive_count: 8,
            attempts_charged: 9,
            attempts: 10,
            lease: 11,
            arrival_seq: 14,
            size_bytes: 13,
            source: 12,
            group: None,
            priority: 0,
            expires_at: Timestamp::ZERO,
            unique: None,
            redriven_by: None,
            suspicion: Suspicion::None,
        }
    }

    /// A state with those of the five extras whose bit is set, and the suspicion of the top two bits.
    fn with(extras: u8) -> MessageState {
        let has = |bit: u8| extras & (1 << bit) != 0;
        MessageState {
            group: has(0).then_some(Group { id: [1; 16], is_ordered: has(5) }),
            priority: if has(1) { 5 } else { 0 },
            expires_at: Timestamp::from_millis(if has(2) { 77 } else { 0 }),
            unique: has(3).then_some(UniqueRef { queue: 3, key: [9; 16] }),
            redriven_by: has(4).then_some(RedrivenBy { redrive: 4, source: 6, was: None }),
            suspicion: suspicion(extras & 0b1100_0000),
            ..plain()
        }
    }

    #[test]
    fn a_state_reads_back_as_it_was_written_with_any_of_its_extras() {
        for extras in 0..=255 {
            let state = with(extras);
            assert_eq!(MessageState::decode(&state.encode()), Ok(state.clone()));
            let was = LetterBefore {
                sequence: 1,
                message_id: MessageId::from_bytes([2; 16]),
                sent_at: Timestamp::from_millis(3),
                first_received_at: Timestamp::from_millis(4),
                received_at: LeaseTime::from_millis(5),
                receive_count: 6,
                attempts_charged: 7,
            };
            let redriven_by = Some(RedrivenBy { redrive: 4, source: 6, was: Some(was) });
            let redriven = MessageState { redriven_by, ..state };
            assert_eq!(MessageState::decode(&redriven.encode()), Ok(redriven));
        }
    }

    #[test]
    fn a_state_of_version_1_is_read_and_a_later_one_refused_by_name() {
        let mut bytes = plain().encode();
        bytes.remove(3);
        bytes[0] = 1;
        assert_eq!(MessageState::decode(&bytes), Ok(plain()));
        bytes[0] = 9;
        assert_eq!(MessageState::decode(&bytes), Err("version 9, this build knows 3".into()));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MessageState::decode(&bytes);
        }

        #[test]
        fn a_changed_byte_is_refused_or_read_as_it_stands(at in 0_usize..104, to: u8) {
            let mut bytes = plain().encode();
            bytes[at] = to;
            if let Ok(state) = MessageState::decode(&bytes) {
                prop_assert_eq!(state.encode(), bytes);
            }
        }
    }
}
