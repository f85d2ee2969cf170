//! How dead letters stand in their index: by the class of their last failure and the moment of their death.

use crate::base::{Attempt, Fingerprint};

/// The class of a letter's last failure, as the keys of `letters` and `letter_groups` carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterClass(pub u64);

impl LetterClass {
    /// Of a letter without a recorded failure.
    pub const NONE: Self = Self(0);

    /// The class of the letter with this last attempt.
    pub fn of(last: Option<&Attempt>) -> Self {
        last.and_then(Attempt::fingerprint).map_or(Self::NONE, Self::from)
    }

    /// The class's fingerprint; `None` without a recorded failure.
    pub fn fingerprint(self) -> Option<Fingerprint> {
        let [0, 0, 0, 1, rest @ ..] = self.0.to_be_bytes() else { return None };
        Some(Fingerprint::from_bytes(rest))
    }
}

impl From<Fingerprint> for LetterClass {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(1 << 32 | u64::from(u32::from_be_bytes(fingerprint.as_bytes())))
    }
}
