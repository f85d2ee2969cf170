//! The log's bytes as `docs/format.md` describes them, written without the store's code.

use nightmail::store::fuzzing::Write;

/// Frames begin at multiples of this.
pub(crate) const SECTOR_BYTES: usize = 512;
/// The offset of the first frame.
pub(crate) const START: usize = 4096;
const HEAD_BYTES: usize = 40;

/// The writes of a frame.
pub(crate) fn writes(writes: &[Write]) -> Vec<u8> {
    let mut out = Vec::new();
    for (table, key, value) in writes {
        out.push(*table);
        out.extend((key.len() as u16).to_le_bytes());
        out.extend(value.as_ref().map_or(u32::MAX, |value| value.len() as u32).to_le_bytes());
        out.extend(key);
        out.extend(value.iter().flatten());
    }
    out
}

/// A frame of that store with its generation, sequence and synced through.
pub(crate) fn frame(store: u64, numbers: [u64; 3], writes: &[u8]) -> Vec<u8> {
    let length = (writes.len() as u32).to_le_bytes();
    let [generation, sequence, synced_through] = numbers;
    let mut behind = Vec::new();
    for number in [store, generation, sequence, synced_through] {
        behind.extend(number.to_le_bytes());
    }
    behind.extend(writes);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &behind).to_le_bytes();
    [&length[..], &checksum, &behind].concat()
}

/// What a frame with writes of that length takes on disk.
pub(crate) fn frame_bytes(writes_bytes: usize) -> usize {
    (HEAD_BYTES + writes_bytes).next_multiple_of(SECTOR_BYTES)
}
