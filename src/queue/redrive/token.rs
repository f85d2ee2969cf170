//! The token of a preview: queue, selection and moment as opaque text, sealed so that only a preview can give one.
//!
//! It names the selection by a digest, so that it stays short whatever was selected. The seal is no secret's: it guards
//! against a mistyped or invented token, not against whoever can read the store.

use sha2::{Digest, Sha256};

use crate::base::Timestamp;
use crate::store::record::Selection;

use super::{Error, Redrive};

/// The first byte of a token's bytes.
const VERSION: u8 = 2;
/// Version, queue, moment in the id series, moment, letters that matched, digest, seal.
const BYTES: usize = 1 + 4 + 8 + 8 + 8 + 8 + 8;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The dead-letter queue.
    pub(super) queue: u32,
    /// Letters that entered the queue after this number of the store's series are not of the preview.
    pub(super) as_of: u64,
    /// When the preview was made; ages in its selection count from here.
    pub(super) at: Timestamp,
    /// Letters that it found to match.
    pub(super) matching: u64,
    /// The digest of its selection, as [`selection_digest`] makes it.
    pub(super) selection: [u8; 8],
}

impl Token {
    /// The token as text. `store` is the store's number: a token of another store does not read.
    pub(super) fn to_text(self, store: u64) -> String {
        let body = self.body();
        let sealed = [body.as_slice(), &seal(&body, store)].concat();
        sealed.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The token from its text; `None` when no preview of this store gave it.
    pub(super) fn read(text: &str, store: u64) -> Option<Self> {
        let bytes = bytes(text)?;
        let (body, given) = bytes.split_at(BYTES - 8);
        let (version, rest) = body.split_first()?;
        if *version != VERSION || given != seal(body, store) {
            return None;
        }
        let (queue, rest) = rest.split_first_chunk::<4>()?;
        let (as_of, rest) = rest.split_first_chunk::<8>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (matching, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            queue: u32::from_be_bytes(*queue),
            as_of: u64::from_be_bytes(*as_of),
            at: Timestamp::from_millis(u64::from_be_bytes(*at)),
            matching: u64::from_be_bytes(*matching),
            selection: rest.try_into().ok()?,
        })
    }

    fn body(&self) -> Vec<u8> {
        let (queue, as_of) = (self.queue.to_be_bytes(), self.as_of.to_be_bytes());
        let (at, matching) = (self.at.as_millis().to_be_bytes(), self.matching.to_be_bytes());
        [&[VERSION][..], &queue, &as_of, &at, &matching, &self.selection].concat()
    }
}

/// The digest of what a redrive selects, before ages become moments.
pub(super) fn selection_digest(redrive: &Redrive) -> [u8; 8] {
    let Selection { fingerprint, ids, died_from, died_before, attribute, run, error_contains } =
        super::sorted(&redrive.selection);
    let selected = (fingerprint, ids, died_from, died_before, attribute, run, error_contains);
    let selected = (selected, redrive.older, redrive.newer);
    digest(&serde_json::to_vec(&selected).expect("a selection always serialises"))
}

fn seal(body: &[u8], store: u64) -> [u8; 8] {
    digest(&[b"redrive preview", &store.to_be_bytes()[..], body].concat())
}

fn digest(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    let (head, _) = digest.split_first_chunk::<8>().expect("a SHA-256 has 32 bytes");
    *head
}

/// The bytes behind hex digits.
fn bytes(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..BYTES).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// The token of that text, checked against the redrive that gives it.
pub(super) fn check(text: &str, store: u64, redrive: &Redrive, queue: u32) -> Result<Token, Error> {
    let token = Token::read(text, store).ok_or_else(|| Error::Token(text.chars().take(BYTES * 2 + 1).collect()))?;
    if token.queue != queue || token.selection != selection_digest(redrive) {
        return Err(Error::TokenOfAnother);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_in_its_own_store_and_with_no_digit_changed() {
        let token =
            Token { queue: 7, as_of: 1 << 40, at: Timestamp::from_secs(1_800_000_000), matching: 3, selection: [9; 8] };
        let text = token.to_text(5);
        assert_eq!(Token::read(&text, 5), Some(token));
        assert_eq!(Token::read(&text, 6), None, "another store");
        for at in 0..text.len() {
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(Token::read(&changed, 5), None, "digit {at}");
        }
        for odd in ["", "17", "é", &text[1..], &format!("{text}00"), &"+1".repeat(BYTES)] {
            assert_eq!(Token::read(odd, 5), None, "{odd:?}");
        }
    }
}
