//! The unchanging part of a message: written once, never rewritten.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::layout::{Reader, unknown};
use super::{Headed, Record};

/// A message attribute, as in SQS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, with an optional `.custom` label.
    pub data_type: String,
    /// The value.
    pub value: AttributeValue,
}

/// The value of a message attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttributeValue {
    /// Of the types `String` and `Number`.
    Text(String),
    /// Of the type `Binary`.
    Binary(Vec<u8>),
}

impl AttributeValue {
    /// The value's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// The sender's metadata of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The message attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
    /// The system attribute AWSTraceHeader.
    pub trace_header: Option<String>,
    /// The system attribute SenderId.
    pub sender: Option<String>,
    /// MessageGroupId.
    pub group: Option<String>,
    /// MessageDeduplicationId; on a queue that deduplicates by content, the SHA-256 of the text.
    pub deduplication_id: Option<String>,
    /// The unique key.
    pub unique_key: Option<String>,
}

/// The unchanging part of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The run that owns the message; zero when none does.
    pub run: u64,
    /// The key of the recipient's row in that run; zeros when there is none.
    pub recipient: [u8; 16],
    /// The sender's metadata.
    pub envelope: Envelope,
    /// The message's text.
    pub bytes: Bytes,
}

/// Whose message a body is: all that settling and the observer need. Reading it decodes no envelope and copies no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHead {
    /// The run that owns the message; zero when none does.
    pub run: u64,
    /// The key of the recipient's row in that run; zeros when there is none.
    pub recipient: [u8; 16],
}

impl Headed for Body {
    type Head = BodyHead;

    fn decode_head(bytes: &[u8]) -> Result<BodyHead, String> {
        let (head, _) = split_head(bytes)?;
        let mut read = Reader::of(head, head.len())?;
        Ok(BodyHead { run: read.u64(), recipient: read.array() })
    }
}

/// The fixed fields, version first, and what stands behind them.
fn split_head(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let head_bytes = match bytes.first() {
        Some(1) => HEAD_BYTES_1,
        Some(&VERSION) => HEAD_BYTES,
        Some(&found) => return Err(unknown(found, VERSION)),
        None => return Err("body of 0 bytes".into()),
    };
    bytes.split_at_checked(head_bytes).ok_or_else(|| format!("body of {} bytes", bytes.len()))
}

const VERSION: u8 = 2;
/// Version, run, recipient, and the length of the envelope.
const HEAD_BYTES: usize = 1 + 8 + 16 + 4;
/// Version 1 had no envelope.
const HEAD_BYTES_1: usize = HEAD_BYTES - 4;

impl Record for Body {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.bytes.len());
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let envelope = if self.envelope == Envelope::default() {
            Vec::new()
        } else {
            postcard::to_stdvec(&self.envelope).expect("an envelope holds nothing that postcard cannot write")
        };
        let length = u32::try_from(envelope.len()).expect("an envelope is smaller than a message may be");
        out.push(VERSION);
        out.extend(self.run.to_be_bytes());
        out.extend(self.recipient);
        out.extend(length.to_be_bytes());
        out.extend(envelope);
        out.extend_from_slice(&self.bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (head, rest) = split_head(bytes)?;
        let mut read = Reader::of(head, head.len())?;
        let (run, recipient) = (read.u64(), read.array());
        let length = if head.len() == HEAD_BYTES { read.u32() as usize } else { 0 };
        let (envelope, text) =
            rest.split_at_checked(length).ok_or_else(|| format!("envelope of {length} bytes in {}", rest.len()))?;
        let envelope = if envelope.is_empty() {
            Envelope::default()
        } else {
            postcard::from_bytes(envelope).map_err(|error| error.to_string())?
        };
        Ok(Self { run, recipient, envelope, bytes: Bytes::copy_from_slice(text) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_reads_back_as_it_was_written_with_and_without_an_envelope() {
        let plain = Body { run: 5, recipient: [3; 16], bytes: Bytes::from_static(b"hello"), ..Body::default() };
        assert_eq!(Body::decode(&plain.encode()), Ok(plain.clone()));
        let attribute = Attribute { data_type: "Binary.png".into(), value: AttributeValue::Binary(vec![1, 2]) };
        let envelope = Envelope {
            attributes: BTreeMap::from([("dump".into(), attribute)]),
            group: Some("customer-7".into()),
            ..Envelope::default()
        };
        let whole = Body { envelope, ..plain };
        assert_eq!(Body::decode(&whole.encode()), Ok(whole));
    }

    #[test]
    fn a_body_of_version_1_is_read() {
        let mut bytes = vec![1];
        bytes.extend(5_u64.to_be_bytes());
        bytes.extend([3; 16]);
        bytes.extend(b"hello");
        let body = Body { run: 5, recipient: [3; 16], bytes: Bytes::from_static(b"hello"), ..Body::default() };
        assert_eq!(Body::decode(&bytes), Ok(body));
        assert_eq!(Body::decode_head(&bytes), Ok(BodyHead { run: 5, recipient: [3; 16] }));
    }

    #[test]
    fn the_head_of_a_body_is_read_whatever_stands_behind_it() {
        let body = Body { run: 5, recipient: [3; 16], bytes: Bytes::from_static(b"hello"), ..Body::default() };
        let mut bytes = body.encode();
        // An envelope that does not decode: only a reader that skips it succeeds.
        bytes[25..29].copy_from_slice(&4_u32.to_be_bytes());
        assert!(Body::decode(&bytes).is_err());
        assert_eq!(Body::decode_head(&bytes), Ok(BodyHead { run: 5, recipient: [3; 16] }));
        assert!(Body::decode_head(&bytes[..28]).is_err() && Body::decode_head(&[9; 40]).is_err());
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Body::decode(&bytes);
            let _ = Body::decode_head(&bytes);
        }
    }
}
