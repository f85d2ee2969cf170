//! Receipt handles as clients have them: opaque, and sealed with a key of the store, so that nobody can make one up.

use ring::hmac;

use crate::queue::ReceiptHandle;

use super::text;

/// Queue, sequence number, lease.
const BODY_BYTES: usize = 4 + 8 + 8;

/// Seals handles and reads them back.
#[derive(Clone, Debug)]
pub(super) struct Receipts(hmac::Key);

impl Receipts {
    /// With the store's key, so that handles stay valid over a restart.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The handle as text.
    pub(super) fn seal(&self, handle: ReceiptHandle) -> String {
        let body = body(handle);
        let seal = hmac::sign(&self.0, &body);
        text::token(&[&body, seal.as_ref()].concat())
    }

    /// The handle of that text, unless it was not sealed with this key.
    pub(super) fn open(&self, text: &str) -> Option<ReceiptHandle> {
        let bytes = text::from_token(text)?;
        let (body, seal) = bytes.split_at_checked(BODY_BYTES)?;
        // In constant time: a difference found early would tell a guesser how far the guess was right.
        hmac::verify(&self.0, body, seal).ok()?;
        let (queue, rest) = body.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        Some(ReceiptHandle {
            queue: u32::from_be_bytes(*queue),
            sequence: u64::from_be_bytes(*sequence),
            lease: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

fn body(handle: ReceiptHandle) -> [u8; BODY_BYTES] {
    let mut body = [0; BODY_BYTES];
    body[..4].copy_from_slice(&handle.queue.to_be_bytes());
    body[4..12].copy_from_slice(&handle.sequence.to_be_bytes());
    body[12..].copy_from_slice(&handle.lease.to_be_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_opens_with_its_key_and_with_no_character_changed() {
        let (receipts, handle) = (Receipts::new(&[1; 32]), ReceiptHandle { queue: 3, sequence: u64::MAX, lease: 17 });
        let sealed = receipts.seal(handle);
        assert_eq!(receipts.open(&sealed), Some(handle));
        assert_eq!(Receipts::new(&[2; 32]).open(&sealed), None, "another store's key");
        for at in 0..sealed.len() {
            let other = if &sealed[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]);
            assert_eq!(receipts.open(&changed), None, "character {at}");
        }
        for odd in ["", "x", "é", &sealed[1..], &format!("{sealed}AA"), &handle.to_string()] {
            assert_eq!(receipts.open(odd), None, "{odd:?}");
        }
    }
}
