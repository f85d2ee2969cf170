//! Reading and writing fixed layouts of big-endian fields.

use crate::base::{LeaseTime, Timestamp};

/// A version byte and numbers of eight bytes each.
pub(super) fn encode_numbers(version: u8, numbers: &[u64]) -> Vec<u8> {
    let mut out = vec![version];
    out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    out
}

/// Reads the fields of a fixed layout whose length was checked at the start.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A record of one known version and length.
    pub(super) fn new(bytes: &'a [u8], version: u8, length: usize) -> Result<Self, String> {
        match bytes.first() {
            Some(&found) if found != version => Err(unknown(found, version)),
            Some(_) => Self::of(bytes, length),
            None => Err(format!("expected {length} bytes, found 0")),
        }
    }

    /// A record whose version was already checked.
    pub(super) fn of(bytes: &'a [u8], length: usize) -> Result<Self, String> {
        if bytes.len() == length && length > 0 {
            Ok(Self { rest: &bytes[1..] })
        } else {
            Err(format!("expected {length} bytes, found {}", bytes.len()))
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.rest.split_first_chunk().expect("the layout's length was checked when reading began");
        self.rest = rest;
        *head
    }

    pub(super) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub(super) fn lease_time(&mut self) -> LeaseTime {
        LeaseTime::from_millis(self.u64())
    }

    pub(super) fn timestamp(&mut self) -> Timestamp {
        Timestamp::from_millis(self.u64())
    }
}

/// The reason for a record of a later version.
pub(super) fn unknown(found: u8, known: u8) -> String {
    format!("version {found}, this build knows {known}")
}
