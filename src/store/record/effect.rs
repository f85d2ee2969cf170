//! The records of effects: intents in a fixed layout, because each mail writes one; what became of an effect in postcard.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

use super::layout::{Reader, unknown};
use super::postcard::postcard_records;
use super::{RecipientState, Record};

/// An effect that an attempt is about to have. The row is on disk before the effect may happen, and goes with the commit
/// that settles the attempt: after a crash, each row that is there names an effect that may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntentRecord {
    /// The message's queue.
    pub queue: u32,
    /// The message's sequence number.
    pub sequence: u64,
    /// The receive whose attempt it is.
    pub lease: u64,
    /// The message's inner id.
    pub body: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The recipient: the second part of the key in `recipients`.
    pub recipient: [u8; 16],
    /// The purpose; empty for the run's own mail.
    pub purpose: String,
}

const INTENT_VERSION: u8 = 1;
/// The fields in front of the purpose.
const INTENT_BYTES: usize = 1 + 4 + 4 * 8 + 16;

impl Record for IntentRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(INTENT_BYTES + self.purpose.len());
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(INTENT_VERSION);
        out.extend(self.queue.to_be_bytes());
        for number in [self.sequence, self.lease, self.body, self.at.as_millis()] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.recipient);
        out.extend(self.purpose.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let head = &bytes[..bytes.len().min(INTENT_BYTES)];
        let mut read = Reader::new(head, INTENT_VERSION, INTENT_BYTES)?;
        Ok(Self {
            queue: read.u32(),
            sequence: read.u64(),
            lease: read.u64(),
            body: read.u64(),
            at: read.timestamp(),
            recipient: read.array(),
            purpose: text(&bytes[INTENT_BYTES..])?,
        })
    }
}

/// An effect beyond the first of its recipient: a resend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectRecord {
    /// Its purpose, e.g. `resend-1`.
    pub purpose: String,
    /// What became of it.
    pub state: RecipientState,
    /// When that changed last.
    pub updated_at: Timestamp,
    /// The inner id of its message; zero when it has none.
    pub body: u64,
    /// Attempts that may have had the effect.
    pub interrupted: u32,
}

/// An address that is not mailed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionRecord {
    /// The address as it was given, with its domain in ASCII.
    pub address: String,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

postcard_records!(1: EffectRecord, SuppressionRecord);

/// A recipient's user record as JSON, as the run's messages carry it. Written once; removed when the recipient is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserText(pub String);

const USER_VERSION: u8 = 1;

impl Record for UserText {
    fn encode(&self) -> Vec<u8> {
        [&[USER_VERSION], self.0.as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&USER_VERSION, rest)) => text(rest).map(Self),
            Some((&found, _)) => Err(unknown(found, USER_VERSION)),
            None => Err("no bytes".into()),
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_record_reads_back_as_it_was_written() {
        let at = Timestamp::from_millis(5);
        let intent =
            IntentRecord { queue: 1, sequence: 2, lease: 3, body: 4, at, recipient: [6; 16], purpose: "p".into() };
        assert_eq!(IntentRecord::decode(&intent.encode()), Ok(intent));
        let user = UserText("{\"id\":\"ü\"}".into());
        assert_eq!(UserText::decode(&user.encode()), Ok(user));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = IntentRecord::decode(&bytes);
            let _ = EffectRecord::decode(&bytes);
            let _ = UserText::decode(&bytes);
            let _ = SuppressionRecord::decode(&bytes);
        }
    }
}
