//! A segment of the log: a file of fixed length with a header, then frames. `docs/format.md` describes the bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Disk;
use super::frame::{HEAD_BYTES, Head, u64_at};
use super::log::ReadError;

/// Frames begin at multiples of this, so that a torn write cannot damage a sector of an earlier frame.
pub(super) const SECTOR_BYTES: u64 = 512;
/// The offset of the first frame.
pub(super) const START: u64 = 4096;
/// A segment has at least this many bytes.
const BYTES_MIN: u64 = 16 << 10;
const HEADER_BYTES: usize = 28;
const MAGIC: &[u8; 8] = b"nm-log\0\x02";
/// Zeros are written in pieces of this many bytes.
const ZEROS_BYTES: u64 = 1 << 20;

/// A frame's length on disk.
fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR_BYTES)
}

/// The length of a segment, given that of both together.
pub(super) fn bytes_of(log_bytes: u64) -> u64 {
    (log_bytes / 2).max(BYTES_MIN).next_multiple_of(SECTOR_BYTES)
}

/// A segment as it was found.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    header: Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    store: u64,
    bytes: u64,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.store.to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..24]).to_le_bytes();
        out[24..].copy_from_slice(&checksum);
        out
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let is_header = bytes.starts_with(MAGIC) && crc32c::crc32c(&bytes[..24]).to_le_bytes() == bytes[24..];
        is_header.then(|| Self { store: u64_at(bytes, 8), bytes: u64_at(bytes, 16) })
    }
}

impl Segment {
    /// Writes an empty segment over whatever the disk holds, with every block allocated.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn make(disk: Arc<dyn Disk>, path: PathBuf, store: u64, bytes: u64) -> io::Result<Self> {
        disk.set_bytes(0)?;
        fill(&*disk, 0, bytes)?;
        let header = Header { store, bytes };
        disk.write(0, &header.encode())?;
        disk.sync()?;
        Ok(Self { disk, path, header })
    }

    /// Reads the header; `None` when the file is no segment.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn look(disk: Arc<dyn Disk>, path: PathBuf) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        if disk.bytes()? < HEADER_BYTES as u64 {
            return Ok(None);
        }
        disk.read(0, &mut bytes)?;
        Ok(Header::decode(&bytes).map(|header| Self { disk, path, header }))
    }

    /// The store that it belongs to.
    pub(super) fn store(&self) -> u64 {
        self.header.store
    }

    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        self.header.bytes
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// It is shorter than its header says, or the disk fails.
    pub(super) fn read(&self) -> Result<Vec<u8>, ReadError> {
        let place = || self.path.display().to_string();
        let unreadable = |error: io::Error| ReadError::Unavailable { place: place(), error };
        let (found, bytes) = (self.disk.bytes().map_err(unreadable)?, self.header.bytes);
        if found < bytes {
            let reason = format!("it has {found} bytes and had {bytes}");
            return Err(ReadError::Corrupt { place: place(), reason });
        }
        let mut content = vec![0; usize::try_from(bytes).expect("a segment fits into memory")];
        self.disk.read(0, &mut content).map_err(unreadable)?;
        Ok(content)
    }

    /// Gives it another length. No frame of it may be needed.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        let old = self.header.bytes;
        if bytes == old {
            return Ok(());
        }
        // Longer before the header says so, shorter after it: the file is never shorter than its header says.
        if bytes > old {
            fill(&*self.disk, old, bytes)?;
        }
        self.header.bytes = bytes;
        self.disk.write(0, &self.header.encode())?;
        self.disk.sync()?;
        if bytes < old { self.disk.set_bytes(bytes) } else { Ok(()) }
    }
}

/// Writes zeros, so that later writes of frames change no file metadata and a sync writes the data alone.
fn fill(disk: &dyn Disk, from: u64, to: u64) -> io::Result<()> {
    disk.set_bytes(to)?;
    let zeros = vec![0; usize::try_from(ZEROS_BYTES.min(to - from)).expect("a piece is small")];
    let mut at = from;
    while at < to {
        let piece = &zeros[..usize::try_from((to - at).min(ZEROS_BYTES)).expect("a piece is small")];
        disk.write(at, piece)?;
        at += piece.len() as u64;
    }
    disk.sync()
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Content {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// The frames from its beginning on that belong together: each head, and where its writes are.
    pub(super) run: Vec<(Head, std::ops::Range<usize>)>,
    /// Where the frame after them would be.
    pub(super) end: usize,
    /// The heads of whatever is whole behind them.
    pub(super) later: Vec<Head>,
}

impl Content {
    /// Reads the frames of a store.
    pub(super) fn of(bytes: Vec<u8>, store: u64) -> Self {
        let start = usize::try_from(START).expect("a header is small");
        let (mut run, mut end): (Vec<(Head, _)>, _) = (Vec::new(), start);
        while let Some(head) = bytes.get(end..).and_then(|frame| Head::read(frame, store)) {
            let follows = |(last, _): &(Head, _)| {
                last.generation == head.generation && last.sequence.checked_add(1) == Some(head.sequence)
            };
            if !run.last().is_none_or(follows) {
                break;
            }
            let begin = end + HEAD_BYTES;
            run.push((head, begin..begin + head.length));
            end += usize::try_from(padded(HEAD_BYTES + head.length)).expect("a frame fits into memory");
        }
        let step = usize::try_from(SECTOR_BYTES).expect("a sector is small");
        let places = (end..bytes.len()).step_by(step);
        let later = places.filter_map(|at| Head::read(&bytes[at..], store)).collect();
        Self { bytes, run, end, later }
    }
}

/// The path of a segment beside the store's file.
pub(super) fn path(store: &Path, nth: usize) -> PathBuf {
    store.with_extension(format!("log{nth}"))
}

#[cfg(test)]
mod tests {
    use super::super::disk::testing::{Call, Calls, RecordingDisk};
    use super::*;

    /// A segment whose header is ahead of its blocks could not take the frames that a sync of data alone must make
    /// durable.
    #[test]
    fn a_segment_that_grows_is_filled_and_synced_before_its_header_says_so() {
        let calls = Calls::default();
        let disk = Arc::new(RecordingDisk::new(0, &calls));
        let (short, long) = (BYTES_MIN, 3 * ZEROS_BYTES);
        let mut segment = Segment::make(disk, "log".into(), 7, short).unwrap();
        calls.take();
        segment.resize(long).unwrap();
        let piece = |at, bytes| (0, Call::Write { at, bytes });
        let expected = [
            (0, Call::SetBytes(long)),
            piece(short, ZEROS_BYTES),
            piece(short + ZEROS_BYTES, ZEROS_BYTES),
            piece(short + 2 * ZEROS_BYTES, long - short - 2 * ZEROS_BYTES),
            (0, Call::Sync),
            piece(0, HEADER_BYTES as u64),
            (0, Call::Sync),
        ];
        assert_eq!(calls.take(), expected);
    }

    #[test]
    fn a_segment_that_shrinks_says_so_before_it_is_cut_off() {
        let calls = Calls::default();
        let disk = Arc::new(RecordingDisk::new(0, &calls));
        let mut segment = Segment::make(disk, "log".into(), 7, 2 * BYTES_MIN).unwrap();
        calls.take();
        segment.resize(BYTES_MIN).unwrap();
        let header = Call::Write { at: 0, bytes: HEADER_BYTES as u64 };
        assert_eq!(calls.take(), [(0, header), (0, Call::Sync), (0, Call::SetBytes(BYTES_MIN))]);
    }
}
