//! The log as it is found at a start: two segments, of which a crash may have left anything.

use std::path::{Path, PathBuf};

use super::Error;
use super::file_log::FileLog;
use super::frame::Head;
use super::log::{Log, Position, ReadError, UnclaimedLog};
use super::segment::{self, Content, Segment};

/// A greater generation cannot be counted on from.
const GENERATION_MAX: u64 = u64::MAX - 2;

/// The segments beside a store, and what the store's file says of them.
pub(super) struct FoundLog<'f> {
    /// The path of the store's file.
    pub(super) path: &'f Path,
    /// The store's number.
    pub(super) store: u64,
    /// What the store's file holds.
    pub(super) covered: Position,
    /// Whether the log may hold more than that: the store was not closed cleanly.
    pub(super) is_needed: bool,
    /// `None` where there is no file, or it is no segment.
    pub(super) segments: [Option<Segment>; 2],
    /// The length of segments.
    pub(super) segment_bytes: u64,
    /// Makes the first or second segment, empty.
    pub(super) make: &'f dyn Fn(usize) -> Result<Segment, ReadError>,
    /// Makes the names of made segments durable.
    pub(super) sync_dir: &'f dyn Fn() -> Result<(), ReadError>,
}

impl UnclaimedLog for FoundLog<'_> {
    fn replay(&self, apply: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<Position, ReadError> {
        self.check()?;
        let mut found = self.contents()?;
        let all: Vec<Head> = found.iter().flat_map(|(_, content)| heads(content)).collect();
        let generation = all.iter().map(|head| head.generation).fold(self.covered.generation, u64::max);
        if generation > GENERATION_MAX {
            let reason = format!("it or its log names generation {generation}, which no store reaches");
            return Err(corrupt(self.path, reason));
        }
        let newer: Vec<Head> = all.into_iter().filter(|head| head.generation > self.covered.generation).collect();
        let ends: Vec<End> = found.iter().map(|(path, content)| End::of(path, content)).collect();
        found.retain(|(_, content)| first(content).is_some_and(|head| head.generation > self.covered.generation));
        found.sort_by_key(|(_, content)| first(content).map(|head| head.generation));

        let Replayed { through, place } = self.replay_runs(&found, apply)?;
        let is_older = !self.is_needed && !newer.is_empty();
        let lacks_first = through == self.covered.sequence && newer.iter().any(|head| head.synced_through > through);
        if is_older || lacks_first {
            let last = newer.iter().map(|head| head.sequence).max().unwrap_or(0);
            return Err(ReadError::Trimmed { covered: self.covered.sequence, last });
        }
        // A torn end is normal after a crash. But a frame that was on disk must not be lost: what was written after it
        // says that it was.
        if newer.iter().any(|head| head.synced_through > through) {
            let end = ends.into_iter().find(|end| end.is_before(through + 1, self.covered.generation));
            let place = end.map_or(place, |end| end.place);
            let reason = format!("frame {} was on disk and cannot be read: {place}", through + 1);
            return Err(corrupt(self.path, reason));
        }
        Ok(Position { generation, sequence: through })
    }

    fn claim(self, end: Position) -> Result<Box<dyn Log>, ReadError> {
        let store = self.store;
        let is_usable = |segment: &Segment| {
            let is_whole = segment.disk.bytes().is_ok_and(|found| found >= segment.bytes());
            segment.store() == store && is_whole
        };
        let take = |nth: usize, found: Option<Segment>| found.filter(is_usable).map_or_else(|| (self.make)(nth), Ok);
        let [first, second] = self.segments;
        let segments = [take(0, first)?, take(1, second)?];
        (self.sync_dir)()?;
        let claim = Position { generation: end.generation + 1, sequence: end.sequence };
        Ok(Box::new(FileLog::claimed(segments, claim, self.segment_bytes)))
    }
}

/// How far the frames go that belong together.
struct Replayed {
    /// The last sequence.
    through: u64,
    /// Where the next frame would be, in words.
    place: String,
}

impl FoundLog<'_> {
    /// Whether the segments belong to the store. Missing ones, and those of another store, do no harm after a clean
    /// close.
    fn check(&self) -> Result<(), ReadError> {
        let check = |(nth, found): (usize, &Option<Segment>)| {
            let damaged = |reason: &str| Err(corrupt(&segment::path(self.path, nth), reason.to_owned()));
            match found {
                None => damaged(
                    "it is missing or no log, and the store was not closed cleanly: it held the latest messages",
                ),
                Some(segment) if segment.store() != self.store => damaged("it is the log of another store"),
                Some(_) => Ok(()),
            }
        };
        if self.is_needed { self.segments.iter().enumerate().try_for_each(check) } else { Ok(()) }
    }

    fn contents(&self) -> Result<Vec<(PathBuf, Content)>, ReadError> {
        let mut found = Vec::new();
        for segment in self.segments.iter().flatten().filter(|segment| segment.store() == self.store) {
            match segment.read() {
                Ok(bytes) => found.push((segment.path.clone(), Content::of(bytes, self.store))),
                // Nothing of it is needed, and it is made anew.
                Err(ReadError::Corrupt { .. }) if !self.is_needed => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Passes on the frames that follow each other without a gap, oldest generation first.
    fn replay_runs(
        &self,
        found: &[(PathBuf, Content)],
        apply: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Replayed, ReadError> {
        let mut through = self.covered.sequence;
        let mut place = format!("{} at byte {}", segment::path(self.path, 0).display(), segment::START);
        for ((path, content), expected) in found.iter().zip(self.covered.generation + 1..) {
            let follows = |head: &Head| head.generation == expected && head.sequence == through + 1;
            if !first(content).is_some_and(|head| follows(&head)) {
                break;
            }
            for (head, writes) in &content.run {
                apply(&content.bytes[writes.clone()]).map_err(|error| corrupt(path, error.to_string()))?;
                through = head.sequence;
            }
            place = format!("{} at byte {}", path.display(), content.end);
        }
        Ok(Replayed { through, place })
    }
}

fn first(content: &Content) -> Option<Head> {
    content.run.first().map(|(head, _)| *head)
}

fn heads(content: &Content) -> impl Iterator<Item = Head> {
    content.run.iter().map(|(head, _)| *head).chain(content.later.iter().copied())
}

fn corrupt(path: &Path, reason: String) -> ReadError {
    ReadError::Corrupt { place: path.display().to_string(), reason }
}

/// Where the frames of a segment end, and what is whole behind that place.
struct End {
    place: String,
    /// The last sequence before it; `None` when it is the segment's beginning.
    last: Option<u64>,
    behind: Vec<Head>,
}

impl End {
    fn of(path: &Path, content: &Content) -> Self {
        let place = format!("{} at byte {}", path.display(), content.end);
        Self { place, last: content.run.last().map(|(head, _)| head.sequence), behind: content.later.clone() }
    }

    /// Whether the frame of that sequence stood here: it comes next, and what was written behind it is there.
    fn is_before(&self, sequence: u64, covered_generation: u64) -> bool {
        let is_later = |head: &Head| head.generation > covered_generation && head.sequence >= sequence;
        self.last.is_none_or(|last| last + 1 == sequence) && self.behind.iter().any(is_later)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::FileDisk;
    use super::super::frame::{self, HEAD_BYTES};
    use super::*;

    const BYTES: u64 = 16 << 10;

    /// The segments of store 7 after frames with these writes, each in its generation and each synced.
    fn segments_after(frames: &[(u64, &[u8])]) -> [Segment; 2] {
        let segments = [0, 1].map(|nth| {
            let disk = Arc::new(FileDisk(tempfile::tempfile().unwrap()));
            Segment::make(disk, segment::path(Path::new("nightmail.redb"), nth), 7, BYTES).unwrap()
        });
        let mut log = FileLog::claimed(segments.clone(), Position { generation: 0, sequence: 0 }, BYTES);
        for ((generation, writes), sequence) in frames.iter().zip(1..) {
            let frame = [&[0; HEAD_BYTES], *writes].concat();
            log.append(Position { generation: *generation, sequence }, frame).unwrap();
            log.sync().unwrap();
        }
        log.rest().unwrap();
        segments
    }

    fn refusal(segments: [Segment; 2]) -> (String, String) {
        let found = FoundLog {
            path: Path::new("nightmail.redb"),
            store: 7,
            covered: Position { generation: 0, sequence: 0 },
            is_needed: true,
            segments: segments.map(Some),
            segment_bytes: BYTES,
            make: &|_| unreachable!("both are there"),
            sync_dir: &|| Ok(()),
        };
        let mut read = |writes: &[u8]| frame::writes(writes).try_for_each(|write| write.map(drop));
        match found.replay(&mut read).unwrap_err() {
            ReadError::Corrupt { place, reason } => (place, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_refusal_of_a_lost_frame_names_the_bytes_that_are_damaged() {
        let places = [(0, 512, 2), (0, 1024, 3), (1, 0, 4), (1, 512, 5)];
        for (segment, offset, lost) in places {
            let removal = &[0, 1, 0, 255, 255, 255, 255, b'x'][..];
            let segments = segments_after(&[1, 1, 1, 2, 2].map(|generation| (generation, removal)));
            segments[segment].disk.write(segment::START + offset, &[7; 8]).unwrap();
            let (_, reason) = refusal(segments);
            let place = format!("nightmail.log{segment} at byte {}", segment::START + offset);
            assert!(reason.contains(&format!("frame {lost} was on disk")) && reason.ends_with(&place), "{reason}");
        }
    }

    #[test]
    fn the_refusal_of_writes_that_cannot_be_read_names_their_segment() {
        let (place, reason) = refusal(segments_after(&[(1, &[]), (2, &[255, 1])]));
        assert_eq!(place, "nightmail.log1", "{reason}");
    }
}
