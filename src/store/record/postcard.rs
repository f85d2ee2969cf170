//! Records in postcard behind a version byte.

use serde::{Deserialize, Serialize};

use super::layout::unknown;

/// The record's bytes, version first.
pub(super) fn encode<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![version]).expect("these records hold nothing that postcard cannot write")
}

/// The record behind the version byte, when it is this version.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(version: u8, bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => postcard::from_bytes(rest).map_err(|error| error.to_string()),
        Some((found, _)) => Err(unknown(*found, version)),
        None => Err("no bytes".into()),
    }
}

/// Makes types with `Serialize` and `Deserialize` records of that version.
macro_rules! postcard_records {
    ($version:literal: $($record:ty),+ $(,)?) => {$(
        impl crate::store::record::Record for $record {
            fn encode(&self) -> Vec<u8> {
                crate::store::record::postcard::encode($version, self)
            }
            fn decode(bytes: &[u8]) -> Result<Self, String> {
                crate::store::record::postcard::decode($version, bytes)
            }
        }
    )+};
}

pub(super) use postcard_records;
