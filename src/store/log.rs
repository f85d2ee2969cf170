//! The log file: two headers, then the records of the current lap. A record holds one group's writes and is on disk
//! before the group's callers are completed. When the log is full, redb commits everything durably (a checkpoint) and
//! the log starts over: a new lap.
//!
//! The layout is in `docs/format.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, Error};

/// Records begin at multiples of this, so that a torn write cannot damage the sector of an earlier record.
const SECTOR_BYTES: u64 = 512;
/// The offsets of the two headers. They are written in turn, so a torn write leaves the other one intact.
const HEADERS: [u64; 2] = [0, 4096];
const HEADER_BYTES: usize = 36;
/// The offset of the first record.
const START: u64 = 8192;
/// The head of a record; its writes follow.
pub(super) const HEAD_BYTES: usize = 48;
const HEADER_MAGIC: &[u8; 8] = b"nm-log\0\x01";
const RECORD_MAGIC: &[u8; 8] = b"nm-rec\0\x01";
/// Zeros are written in pieces of this many bytes.
const ZEROS_BYTES: u64 = 1 << 20;

/// The free space of the log. The writer and the log's thread each keep one and advance it by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    at: u64,
    bytes: u64,
}

impl Space {
    /// Reserves room for a record, its head included; false when it and the mark behind it do not fit.
    pub(super) fn take(&mut self, record_bytes: usize) -> bool {
        let end = self.at + padded(record_bytes);
        let fits = end + SECTOR_BYTES <= self.bytes;
        if fits {
            self.at = end;
        }
        fits
    }

    /// Frees all of it.
    pub(super) fn restart(&mut self) {
        self.at = START;
    }
}

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR_BYTES)
}

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    /// The number of the store that it belongs to.
    store: u64,
    /// The checkpoint that this lap follows: the last number that redb holds durably. Raised by each restart.
    lap: u64,
    /// Where the next record goes.
    space: Space,
    /// The last record that is known to be on disk.
    synced: u64,
    /// The last record that was written.
    written: u64,
    /// Which header is written next.
    slot: usize,
}

impl Log {
    /// Creates a log with every block allocated and the store's checkpoint in its header.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn make(disk: Arc<dyn Disk>, store: u64, checkpoint: u64, bytes: u64) -> std::io::Result<Self> {
        let bytes = size(bytes);
        fill(&*disk, 0, bytes)?;
        let space = Space { at: START, bytes };
        let mut log = Self { disk, store, lap: checkpoint, space, synced: checkpoint, written: checkpoint, slot: 0 };
        log.restart(checkpoint)?;
        Ok(log)
    }

    /// Opens a log that was found. It may be written from the next restart on.
    pub(super) fn take_over(disk: Arc<dyn Disk>, found: &Found) -> Self {
        let Header { store, checkpoint, bytes } = found.header;
        let space = Space { at: START, bytes };
        // The newest header stays until the other slot is written whole.
        Self { disk, store, lap: checkpoint, space, synced: checkpoint, written: checkpoint, slot: 1 - found.slot }
    }

    /// Starts over after a checkpoint, as [`Log::restart`] does, with another size.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn restart_with(&mut self, checkpoint: u64, bytes: u64) -> std::io::Result<()> {
        let (old, new) = (self.space.bytes, size(bytes));
        // Longer before the header, shorter after it: the file is never shorter than its newest header says.
        if new > old {
            fill(&*self.disk, old, new)?;
        }
        self.space.bytes = new;
        self.restart(checkpoint)?;
        // The new header is on disk, so nothing refers to the part that is cut off.
        if new < old { self.disk.set_bytes(new) } else { Ok(()) }
    }

    /// The space left for records.
    pub(super) fn space(&self) -> Space {
        self.space
    }

    /// Writes a record whose first [`HEAD_BYTES`] are reserved for its head. It is durable after [`Log::sync`].
    ///
    /// # Errors
    /// The disk fails.
    ///
    /// # Panics
    /// When it does not fit: the caller checks with [`Space`] first.
    pub(super) fn append(&mut self, number: u64, mut record: Vec<u8>) -> std::io::Result<()> {
        assert_eq!(number, self.written + 1, "records are numbered without a gap");
        self.put_head(number, &mut record);
        let at = self.space.at;
        assert!(self.space.take(record.len()), "the writer asked whether the record fits");
        // Whole sectors are written, so the disk does not have to read one first.
        record.resize(usize::try_from(self.space.at - at).expect("a record fits into memory"), 0);
        self.disk.write(at, &record)?;
        self.written = number;
        Ok(())
    }

    /// Returns once all records are durable.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        self.disk.sync()?;
        self.synced = self.written;
        Ok(())
    }

    /// Writes a mark after the last record that says that it is durable, so that recovery detects its loss. The mark
    /// needs no sync of its own; the next record overwrites it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn mark(&mut self) -> std::io::Result<()> {
        let mut mark = vec![0; HEAD_BYTES];
        // A head without writes, with the number of the record before it: recovery reads its `synced` field, never its
        // writes.
        self.put_head(self.written, &mut mark);
        mark.resize(usize::try_from(SECTOR_BYTES).expect("a sector is small"), 0);
        self.disk.write(self.space.at, &mark)
    }

    /// Starts over after a checkpoint that redb holds durably.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn restart(&mut self, checkpoint: u64) -> std::io::Result<()> {
        let header = Header { store: self.store, checkpoint, bytes: self.space.bytes };
        // The header must be on disk before the first record of the new lap overwrites one of the old lap. Until then a
        // crash finds the old lap, all of which redb holds.
        self.disk.write(HEADERS[self.slot], &header.encode())?;
        self.disk.sync()?;
        self.slot = 1 - self.slot;
        (self.lap, self.written, self.synced) = (checkpoint, checkpoint, checkpoint);
        self.space.restart();
        Ok(())
    }

    fn put_head(&self, number: u64, record: &mut [u8]) {
        let length = u32::try_from(record.len() - HEAD_BYTES).expect("a record fits into the log");
        let numbers = [self.store, self.lap, number, self.synced];
        record[..8].copy_from_slice(RECORD_MAGIC);
        for (field, number) in record[8..40].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_be_bytes());
        }
        record[40..44].copy_from_slice(&length.to_be_bytes());
        let checksum = record_checksum(record);
        record[44..HEAD_BYTES].copy_from_slice(&checksum);
    }
}

/// Rounds a log's size up: at least a header and some records, in whole sectors.
fn size(bytes: u64) -> u64 {
    bytes.max(4 * START).next_multiple_of(SECTOR_BYTES)
}

/// Writes zeros, so that later record writes change no file metadata and a sync writes the data alone.
fn fill(disk: &dyn Disk, from: u64, to: u64) -> std::io::Result<()> {
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

/// The log's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The number of the store that it belongs to.
    pub(super) store: u64,
    /// The last record number that redb held durably when this lap began.
    pub(super) checkpoint: u64,
    /// The log's length.
    bytes: u64,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(HEADER_MAGIC);
        for (field, number) in out[8..32].chunks_exact_mut(8).zip([self.store, self.checkpoint, self.bytes]) {
            field.copy_from_slice(&number.to_be_bytes());
        }
        let checksum = crc32fast::hash(&out[..32]).to_be_bytes();
        out[32..].copy_from_slice(&checksum);
        out
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let is_header = bytes.starts_with(HEADER_MAGIC) && crc32fast::hash(&bytes[..32]).to_be_bytes() == bytes[32..];
        is_header.then(|| Self { store: u64_at(bytes, 8), checkpoint: u64_at(bytes, 16), bytes: u64_at(bytes, 24) })
    }
}

/// A log that was found when the store opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) header: Header,
    slot: usize,
    path: PathBuf,
}

impl Found {
    /// Reads the headers; changes nothing.
    ///
    /// # Errors
    /// The file is not a log, or is shorter than its header says.
    pub(super) fn look(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let length = disk.bytes().map_err(|error| unreadable(path, &error))?;
        let mut newest: Option<(usize, Header)> = None;
        for (slot, at) in HEADERS.into_iter().enumerate() {
            let mut bytes = [0; HEADER_BYTES];
            if length < at + HEADER_BYTES as u64 {
                continue;
            }
            disk.read(at, &mut bytes).map_err(|error| unreadable(path, &error))?;
            let header = Header::decode(&bytes);
            // Each restart has a greater checkpoint than the one before, so the greatest one is the newest.
            newest = newest.into_iter().chain(header.map(|header| (slot, header))).max_by_key(|(_, h)| h.checkpoint);
        }
        let Some((slot, header)) = newest else {
            return Err(damaged(path, "neither of its headers can be read".into()));
        };
        if length < header.bytes {
            return Err(damaged(path, format!("it has {length} bytes and had {}", header.bytes)));
        }
        Ok(Self { header, slot, path: path.to_owned() })
    }

    /// The records of this lap that redb, which is at `applied`, does not hold: numbers and bytes, in order. A torn
    /// record at the end was never acknowledged and is left out.
    ///
    /// # Errors
    /// A durable record cannot be read.
    pub(super) fn records(&self, disk: &dyn Disk, applied: u64) -> Result<Records, Error> {
        let mut bytes = vec![0; usize::try_from(self.header.bytes).expect("a log fits into memory")];
        disk.read(0, &mut bytes).map_err(|error| unreadable(&self.path, &error))?;
        let Header { store, checkpoint: lap, .. } = self.header;
        let at_place = |at: u64| usize::try_from(at).ok().and_then(|at| Head::read(bytes.get(at..)?, store));
        let (mut at, mut next, mut found) = (START, lap + 1, Vec::new());
        // Records of an earlier lap are still in the file behind the end. `lap` and the gapless number tell them apart.
        while let Some(head) = at_place(at).filter(|head| head.lap == lap && head.number == next) {
            let begin = usize::try_from(at).expect("it was read from there") + HEAD_BYTES;
            if head.number > applied {
                found.push((head.number, begin..begin + head.length));
            }
            at += padded(HEAD_BYTES + head.length);
            next += 1;
        }
        // A torn end is normal after a crash, but lost durable records are not. Any later record or mark whose `synced`
        // includes the missing number proves such a loss; then opening must fail instead of dropping messages.
        let step = usize::try_from(SECTOR_BYTES).expect("a sector is small");
        let mut later = (at..self.header.bytes).step_by(step).filter_map(at_place);
        let is_lost = |head: &Head| match head.lap == lap {
            true => next > applied && head.synced >= next,
            // A lap's header is on disk before its first record is written, so a record of a later lap means that the
            // newest header was lost.
            false => head.lap > lap && head.number > applied,
        };
        match later.find(is_lost) {
            Some(_) => Err(damaged(&self.path, format!("record {next} at byte {at} was on disk and cannot be read"))),
            None => Ok(Records { bytes, found }),
        }
    }
}

/// The records that recovery replays.
#[derive(Debug)]
pub(super) struct Records {
    bytes: Vec<u8>,
    found: Vec<(u64, std::ops::Range<usize>)>,
}

impl Records {
    /// The number of the last one.
    pub(super) fn last(&self) -> Option<u64> {
        self.found.last().map(|(number, _)| *number)
    }

    /// The writes of each, in order.
    pub(super) fn writes(&self) -> impl Iterator<Item = &[u8]> {
        self.found.iter().map(|(_, place)| &self.bytes[place.clone()])
    }
}

/// A record's head.
struct Head {
    lap: u64,
    number: u64,
    synced: u64,
    length: usize,
}

impl Head {
    /// Reads the record at the start of `bytes`; `None` unless it is whole and belongs to this store.
    fn read(bytes: &[u8], store: u64) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>().filter(|head| head.starts_with(RECORD_MAGIC))?;
        let length = u32::from_be_bytes(*head[40..].first_chunk()?) as usize;
        // `length` is not verified yet, so it may point past the end; the checksum decides.
        let record = bytes.get(..HEAD_BYTES + length)?;
        let is_whole = u64_at(head, 8) == store && record_checksum(record) == head[44..];
        is_whole.then(|| Self { lap: u64_at(head, 16), number: u64_at(head, 24), synced: u64_at(head, 32), length })
    }
}

/// The CRC-32 of a record without the checksum field itself.
fn record_checksum(record: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..44]);
    hasher.update(&record[HEAD_BYTES..]);
    hasher.finalize().to_be_bytes()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*bytes[at..].first_chunk().expect("the field lies within a fixed head"))
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.to_owned(), reason }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Open { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::disk::FileDisk;
    use super::*;

    #[test]
    fn the_loss_of_the_last_record_is_noticed_up_to_the_end_of_the_log() {
        let disk: Arc<dyn Disk> = Arc::new(FileDisk(tempfile::tempfile().unwrap()));
        let mut log = Log::make(disk.clone(), 7, 0, 0).unwrap();
        let mut number = 0;
        while log.space().take(HEAD_BYTES) {
            number += 1;
            let at = log.space.at;
            log.append(number, vec![0; HEAD_BYTES]).unwrap();
            log.sync().unwrap();
            log.mark().unwrap();
            let records = || Found::look(&*disk, Path::new("log")).unwrap().records(&*disk, 0);
            assert_eq!(records().unwrap().last(), Some(number));
            disk.write(at, &[0]).unwrap();
            assert!(matches!(records(), Err(Error::Damaged { .. })), "record {number} is lost");
            disk.write(at, &RECORD_MAGIC[..1]).unwrap();
        }
        assert_eq!(log.space.at + SECTOR_BYTES, log.space.bytes, "the log is full");
    }
}
