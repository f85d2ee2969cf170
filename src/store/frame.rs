//! The bytes of a frame: a head, then the writes of one group. `docs/format.md` describes them.

use super::Error;
use super::table_id::TableId;

/// The length of a frame's head.
pub(super) const HEAD_BYTES: usize = 40;
/// The length of a value that stands for a removal.
const REMOVED: u32 = u32::MAX;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The store's number.
    pub(super) store: u64,
    /// The use of a segment that it belongs to.
    pub(super) generation: u64,
    /// Its place among all frames.
    pub(super) sequence: u64,
    /// The last sequence that was known to be on disk when it was written.
    pub(super) synced_through: u64,
    /// The length of its writes, in bytes.
    pub(super) length: usize,
}

impl Head {
    /// Fills in the head of a frame whose writes are complete.
    pub(super) fn write(self, frame: &mut [u8]) {
        let length = u32::try_from(self.length).expect("a frame fits into a segment");
        frame[..4].copy_from_slice(&length.to_le_bytes());
        let numbers = [self.store, self.generation, self.sequence, self.synced_through];
        for (field, number) in frame[8..HEAD_BYTES].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&frame[..HEAD_BYTES + self.length]);
        frame[4..8].copy_from_slice(&checksum);
    }

    /// Reads the frame at the start of `bytes`; `None` unless it is whole and belongs to this store.
    pub(super) fn read(bytes: &[u8], store: u64) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>().filter(|head| u64_at(*head, 8) == store)?;
        let length = u32::from_le_bytes(*head.first_chunk()?) as usize;
        // The length is not verified yet, so it may point past the end; the checksum decides.
        let frame = bytes.get(..HEAD_BYTES.checked_add(length)?)?;
        (checksum(frame) == head[4..8]).then(|| Self {
            store,
            generation: u64_at(head, 16),
            sequence: u64_at(head, 24),
            synced_through: u64_at(head, 32),
            length,
        })
    }
}

/// The CRC-32C of a frame without the checksum itself.
fn checksum(frame: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..]).to_le_bytes()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the field lies within a fixed head"))
}

/// A frame while its group runs: room for the head, and the writes so far.
#[derive(Debug)]
pub(super) struct Redo(Vec<u8>);

impl Default for Redo {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(HEAD_BYTES, 0);
        Self(bytes)
    }
}

impl Redo {
    /// Adds a written value; returns the stored bytes, which `fill` appends.
    pub(super) fn put(&mut self, table: TableId, key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let length_at = self.name(table, key);
        let begin = self.0.len();
        fill(&mut self.0);
        let length = u32::try_from(self.0.len() - begin).expect("a value is far shorter than 4 GiB");
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        &self.0[begin..]
    }

    /// Adds a removal.
    pub(super) fn remove(&mut self, table: TableId, key: &[u8]) {
        let length_at = self.name(table, key);
        self.0[length_at..length_at + 4].copy_from_slice(&REMOVED.to_le_bytes());
    }

    /// The length of the writes so far, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() - HEAD_BYTES
    }

    /// Forgets the writes behind the first `bytes`, an earlier [`Redo::bytes`].
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.0.truncate(HEAD_BYTES + bytes);
    }

    /// The writes so far, as [`writes`] reads them.
    pub(super) fn writes(&self) -> &[u8] {
        &self.0[HEAD_BYTES..]
    }

    /// The frame so far: room for its head, then the writes.
    pub(super) fn into_frame(self) -> Vec<u8> {
        self.0
    }

    /// Begins a write; returns where the value's length goes.
    fn name(&mut self, table: TableId, key: &[u8]) -> usize {
        self.0.push(table.number);
        self.0.extend_from_slice(&u16::try_from(key.len()).expect("a key is a short text").to_le_bytes());
        let length_at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(key);
        length_at
    }
}

/// One write of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write<'f> {
    pub(super) table: TableId,
    pub(super) key: &'f [u8],
    /// The value as it is stored; `None` removes the row.
    pub(super) value: Option<&'f [u8]>,
}

/// The writes of a frame, in order.
pub(super) fn writes(mut rest: &[u8]) -> impl Iterator<Item = Result<Write<'_>, Error>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((write, behind)) = next(rest) else {
            rest = &[];
            return Some(Err(Error::Record { table: "(log)", reason: "a write cannot be read".into() }));
        };
        rest = behind;
        Some(Ok(write))
    })
}

fn next(bytes: &[u8]) -> Option<(Write<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<7>()?;
    let [number, a, b, c, d, e, f] = *head;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b])))?;
    let (value, rest) = match u32::from_le_bytes([c, d, e, f]) {
        REMOVED => (None, rest),
        length => rest.split_at_checked(length as usize).map(|(value, rest)| (Some(value), rest))?,
    };
    Some((Write { table: TableId::numbered(number)?, key, value }, rest))
}

#[cfg(test)]
mod tests {
    use super::super::table_id::{TABLES, table};
    use super::*;

    const STATES: TableId = table("states");
    const READY: TableId = table("ready");

    #[test]
    fn writes_read_back_in_their_order() {
        let mut redo = Redo::default();
        assert_eq!(redo.put(STATES, b"k", |out| out.extend_from_slice(b"value")), b"value");
        redo.remove(READY, b"key");
        let before = redo.bytes();
        assert_eq!(redo.put(READY, b"", |_| ()), b"");
        let expected = [
            Write { table: STATES, key: b"k", value: Some(b"value") },
            Write { table: READY, key: b"key", value: None },
            Write { table: READY, key: b"", value: Some(b"") },
        ];
        let found: Result<Vec<_>, _> = writes(redo.writes()).collect();
        assert_eq!(found.unwrap(), expected);
        for end in before + 1..redo.bytes() {
            assert!(writes(&redo.writes()[before..end]).next().unwrap().is_err(), "{end} bytes");
        }
        redo.truncate(before);
        assert_eq!(writes(redo.writes()).count(), 2);
    }

    #[test]
    fn a_write_to_a_table_that_is_not_there_cannot_be_read() {
        let mut redo = Redo::default();
        redo.remove(READY, b"key");
        let mut frame = redo.into_frame();
        frame[HEAD_BYTES] = TABLES.len() as u8;
        assert!(writes(&frame[HEAD_BYTES..]).next().unwrap().is_err());
    }

    #[test]
    fn a_frame_with_any_bit_flipped_or_of_another_store_is_none() {
        let mut redo = Redo::default();
        redo.put(STATES, b"k", |out| out.extend_from_slice(b"value"));
        let length = redo.bytes();
        let mut frame = redo.into_frame();
        let head = Head { store: 7, generation: 2, sequence: 3, synced_through: 1, length };
        head.write(&mut frame);
        assert_eq!(Head::read(&frame, 7), Some(head));
        assert_eq!(Head::read(&frame, 8), None);
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&frame, 7), None, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
