//! Reads and writes the log's bytes as `docs/format.md` describes them.

use super::disk::{Bytes, Call, LOGS};

const SECTOR_BYTES: usize = 512;
/// The offset of a segment's first frame.
pub(super) const START: usize = 4096;
pub(super) const HEAD_BYTES: usize = 40;
/// In place of a value's length: the row is removed.
const REMOVED: u32 = u32::MAX;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn length(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// The head of a frame or mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) at: usize,
    pub(crate) store: u64,
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) synced_through: u64,
    /// The length of the writes.
    pub(crate) length: usize,
    pub(crate) is_whole: bool,
}

impl Head {
    /// What stands at that place of a segment, if that can be a frame of that store.
    pub(crate) fn read(segment: &[u8], at: usize) -> Option<Self> {
        let head = segment.get(at..at + HEAD_BYTES)?;
        let [store, generation, sequence, synced_through] = [8, 16, 24, 32].map(|field| number(head, field));
        let length = length(head) as usize;
        let frame = segment.get(at..at + HEAD_BYTES + length)?;
        let is_whole = checksum(frame) == frame[4..8];
        (generation > 0).then_some(Self { at, store, generation, sequence, synced_through, length, is_whole })
    }

    pub(crate) fn is_mark(&self) -> bool {
        self.sequence == self.synced_through
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> usize {
        (self.at + HEAD_BYTES + self.length).next_multiple_of(SECTOR_BYTES)
    }

    pub(crate) fn writes<'s>(&self, segment: &'s [u8]) -> &'s [u8] {
        &segment[self.at + HEAD_BYTES..][..self.length]
    }

    /// Writes the head, with a checksum that fits what stands behind it.
    pub(super) fn forge(&self, segment: &mut [u8]) {
        let frame = &mut segment[self.at..self.at + HEAD_BYTES + self.length];
        frame[..4].copy_from_slice(&u32::try_from(self.length).unwrap().to_le_bytes());
        let numbers = [self.store, self.generation, self.sequence, self.synced_through];
        for (field, number) in frame[8..HEAD_BYTES].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(frame);
        frame[4..8].copy_from_slice(&checksum);
    }
}

fn checksum(frame: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[8..]).to_le_bytes()
}

/// The frames of a segment from its beginning on, as recovery takes them, and the offset behind the last one.
pub(crate) fn run(segment: &[u8]) -> (Vec<Head>, usize) {
    let (mut found, mut at) = (Vec::<Head>::new(), START);
    while let Some(head) = Head::read(segment, at).filter(|head| head.is_whole && !head.is_mark()) {
        let follows = |last: &Head| (last.generation, last.sequence + 1) == (head.generation, head.sequence);
        if !found.last().is_none_or(follows) {
            break;
        }
        at = head.end();
        found.push(head);
    }
    (found, at)
}

/// The disk whose segment holds the last frame of all, and that frame.
pub(super) fn last_frame(bytes: &Bytes) -> Option<(usize, Head)> {
    let last = LOGS.into_iter().filter_map(|disk| Some((disk, *run(&bytes[disk]).0.last()?)));
    last.max_by_key(|(_, head)| head.sequence)
}

/// One write of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) table: u8,
    pub(crate) key: Vec<u8>,
    /// As it is stored, with its checksum; `None` when the row is removed.
    pub(crate) stored: Option<Vec<u8>>,
}

impl Write {
    /// Whether the value is the one that was written.
    pub(super) fn is_sound(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| {
            let value = stored.split_last_chunk::<4>().map(|(value, _)| value);
            value.is_some_and(|value| crate::support::sealed_in(self.table, &self.key, value) == *stored)
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.table];
        out.extend(u16::try_from(self.key.len()).unwrap().to_le_bytes());
        let stored = self.stored.as_deref();
        let length = stored.map_or(REMOVED, |stored| u32::try_from(stored.len()).unwrap());
        out.extend(length.to_le_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(stored.unwrap_or_default());
        out
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<7>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[1], head[2]])))?;
        let value = |length| rest.split_at_checked(length as usize).map(|(value, rest)| (Some(value), rest));
        let (stored, rest) = match length(&head[3..]) {
            REMOVED => (None, rest),
            length => value(length)?,
        };
        Some((Self { table: head[0], key: key.to_vec(), stored: stored.map(<[u8]>::to_vec) }, rest))
    }

    /// The writes of a frame, up to the first that is none.
    pub(crate) fn all(mut writes: &[u8]) -> Vec<Self> {
        let mut found = Vec::new();
        while let Some((write, rest)) = Self::decode(writes) {
            found.push(write);
            writes = rest;
        }
        found
    }
}

/// The frame or mark that the call writes, and its place.
fn written(call: &Call) -> Option<(usize, Head)> {
    let (offset, data) = call.log_write().filter(|(offset, _)| *offset >= START)?;
    Head::read(data, 0).filter(|head| head.is_whole).map(|head| (offset, head))
}

/// Where the frame stands that the call writes.
pub(super) fn frame_at(call: &Call) -> Option<usize> {
    written(call).filter(|(_, head)| !head.is_mark()).map(|(offset, _)| offset)
}

/// Whether the call writes a frame.
pub(super) fn is_frame(call: &Call) -> bool {
    frame_at(call).is_some()
}

/// Whether the call writes the first frame of a generation.
pub(super) fn is_first_frame(call: &Call) -> bool {
    frame_at(call) == Some(START)
}

/// Where the mark stands that the call writes.
pub(super) fn mark_at(call: &Call) -> Option<usize> {
    written(call).filter(|(_, head)| head.is_mark()).map(|(offset, _)| offset)
}
