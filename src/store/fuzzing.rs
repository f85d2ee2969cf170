//! Entries for fuzzing alone (`fuzz/`): the readers of bytes that come from a disk, without a store around them.

use super::frame;
use super::layers::Bytes;
use super::segment::Content;
use super::table_id::{TABLES, TableId};
use super::tx;

/// How many tables there are; they are numbered from 0.
pub const TABLE_COUNT: u8 = TABLES.len() as u8;

/// Decodes a row as a check of the store does, but for its checksum: any last four bytes of the value stand for it.
///
/// # Errors
/// The key as text, and what is wrong with the row.
///
/// # Panics
/// When no table has that number.
pub fn row(table: u8, key: &[u8], value: &[u8]) -> Result<(), (String, String)> {
    let table = TableId::numbered(table).expect("the number is below TABLE_COUNT");
    tx::read_row(table, key, &Bytes::Memory(value))
}

/// The number of a table, a key, and the value as it is stored; no value is a removal.
pub type Write = (u8, Vec<u8>, Option<Vec<u8>>);

/// A frame as recovery reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The use of a segment that it belongs to.
    pub generation: u64,
    /// Its place among all frames.
    pub sequence: u64,
    /// The last sequence that was known to be on disk when it was written.
    pub synced_through: u64,
    /// Its writes as bytes.
    pub bytes: Vec<u8>,
    /// Its writes; `None` when one of them cannot be read.
    pub writes: Option<Vec<Write>>,
}

/// The frames at the beginning of a segment's content that belong together, and how many are whole behind them.
pub fn frames(content: Vec<u8>, store: u64) -> (Vec<Frame>, usize) {
    let content = Content::of(content, store);
    let read = |(head, place): &(frame::Head, std::ops::Range<usize>)| {
        let bytes = &content.bytes[place.clone()];
        let owned = |write: frame::Write<'_>| (write.table.number, write.key.to_vec(), write.value.map(<[u8]>::to_vec));
        Frame {
            generation: head.generation,
            sequence: head.sequence,
            synced_through: head.synced_through,
            bytes: bytes.to_vec(),
            writes: frame::writes(bytes).map(|write| write.ok().map(owned)).collect(),
        }
    };
    (content.run.iter().map(read).collect(), content.later.len())
}
