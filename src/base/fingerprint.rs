//! A short stable id of an error's class, so that the same fault groups however often it happens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Eight hex digits made from an error's kind, place and code, never from ids, numbers or addresses in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Makes the fingerprint of one class of error, e.g. `("http", "account", "404")`.
    pub fn of(kind: &str, place: &str, code: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [kind, place, code] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        Self([digest[0], digest[1], digest[2], digest[3]])
    }

    /// The fingerprint from its four bytes.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The fingerprint's four bytes.
    pub const fn as_bytes(self) -> [u8; 4] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(text, 16) {
            Ok(value) if well_formed => Ok(Self(value.to_be_bytes())),
            _ => Err(InvalidFingerprint(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not a fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("fingerprint {0:?} is not 8 hex digits (see `nightmail dead <queue>` for those in use)")]
pub struct InvalidFingerprint(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_class_has_the_same_fingerprint_and_it_reads_back() {
        let print = Fingerprint::of("http", "account", "404");
        assert_eq!(print, Fingerprint::of("http", "account", "404"));
        assert_ne!(print, Fingerprint::of("http", "account4", "04"));
        assert_eq!(print.to_string().parse(), Ok(print));
        assert!("xyz".parse::<Fingerprint>().is_err());
        assert!("+1234567".parse::<Fingerprint>().is_err());
    }
}
