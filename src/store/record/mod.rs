//! Records as bytes. Each begins with a one-byte version; hot ones have a fixed layout, the rest are postcard.
//!
//! The change ritual: describe the new bytes in `docs/format.md`, raise the version, keep decoding the old one, add a
//! store file written by the old version to `tests/data/stores/`, and open it in a test.

mod body;
mod cold;
mod counts;
mod effect;
mod group;
mod layout;
mod letter;
mod notification;
mod pace;
mod postcard;
mod queue;
mod redrive;
mod run_control;
mod state;

pub use body::{Attribute, AttributeValue, Body, BodyHead, Envelope};
pub use cold::{
    CheckRecord, CursorCycle, FanOutLetter, FanOutProgress, RecipientRecord, RecipientState, RenderingRecord,
    RunRecord, TickRecord, TickVerdict,
};
pub use counts::{Counts, PhaseCounts, PhaseTotals, RedriveTotals, RenderingTotals, RunTotals};
pub use effect::{EffectRecord, IntentRecord, SuppressionRecord, UserText};
pub use group::{DedupEntry, DedupRecord, Follower, GroupRecord, UniqueRecord};
pub use letter::LetterClass;
pub use notification::{Announced, NotificationKind, NotificationRecord, Owed};
pub use pace::{DeadlineState, Measured, MeasuredLimits, RunDeadline, RunPace};
pub use queue::{Fifo, KeptAttributes, Pause, Purge, QueueAttributes, QueueRecord, RedriveAllow, Scope};
pub use redrive::{Canary, RedriveRecord, RedriveState, Selection};
pub use run_control::{Brake, BrakeLimit, Gate, GateLimits, GateMode, Guard, Refetching, RunControl, RunHold};
pub use state::{Group, LetterBefore, MessageState, Owner, Phase, RedrivenBy, Suspicion, UniqueRef};

/// The first half of a SHA-256: of a message group's id, a deduplication id, a unique key.
pub type Digest = [u8; 16];

/// A value that the store can encode and decode.
pub trait Record: Sized {
    /// The record's bytes, version first.
    fn encode(&self) -> Vec<u8>;

    /// Appends the record's bytes. Hot records do without the copy.
    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encode());
    }

    /// The record from its bytes.
    ///
    /// # Errors
    /// The reason why they do not decode.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

/// A record whose first fields can be decoded without the rest.
pub trait Headed: Record {
    /// Those fields.
    type Head;

    /// The fields from the record's bytes.
    ///
    /// # Errors
    /// The reason why they do not decode.
    fn decode_head(bytes: &[u8]) -> Result<Self::Head, String>;
}

/// An index entry: the key holds everything.
impl Record for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() { Ok(()) } else { Err(format!("expected no bytes, found {}", bytes.len())) }
    }
}

/// The message that a row of the ready index stands for, when its sequence number is not in the row's key: the first
/// message of a FIFO queue's group that was handed out before. No bytes, or the sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown(pub Option<u64>);

impl Record for Shown {
    fn encode(&self) -> Vec<u8> {
        self.0.map(|sequence| sequence.to_be_bytes().to_vec()).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() { Ok(Self(None)) } else { u64::decode(bytes).map(|sequence| Self(Some(sequence))) }
    }
}

/// A number on its own, big-endian: ids behind names and counters of the store.
impl Record for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        bytes.try_into().map(Self::from_be_bytes).map_err(|_| format!("expected 8 bytes, found {}", bytes.len()))
    }
}
