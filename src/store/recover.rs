//! Recovery: checks that redb's file and the log belong together, and applies the frames that redb does not hold in one
//! commit, before the store accepts work.

use std::path::Path;

use redb::Database;

use super::frame::Head;
use super::layers::{Base, Layers};
use super::memtable::Memtable;
use super::meta::{GENERATION, LOG_OPEN, SEQUENCE, STORE};
use super::segment::{self, Content, Segment};
use super::{Error, Options, Snapshot, checkpoint};

/// What redb's file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The store's number.
    pub(super) store: u64,
    /// All of this generation is in the tables.
    pub(super) generation: u64,
    /// The last frame whose writes are in the tables.
    pub(super) sequence: u64,
    /// Whether the log may hold more.
    pub(super) is_log_open: bool,
}

impl Standing {
    /// Reads it.
    ///
    /// # Errors
    /// A row is missing or damaged.
    pub(super) fn read(base: &std::sync::Arc<Layers>, path: &Path) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let meta = Snapshot::new(base.clone()).meta()?;
        let row = |name: &str| {
            let row = meta.get(&name.to_owned()).map_err(|error| damaged(error.to_string()))?;
            row.ok_or_else(|| damaged(format!("its row {name} is missing")))
        };
        Ok(Self {
            store: row(STORE)?,
            generation: row(GENERATION)?,
            sequence: row(SEQUENCE)?,
            is_log_open: row(LOG_OPEN)? != 0,
        })
    }

    /// That of redb's last commit.
    ///
    /// # Errors
    /// As [`Standing::read`], or a storage fault.
    pub(super) fn of(db: &Database, path: &Path) -> Result<Self, Error> {
        Self::read(&std::sync::Arc::new(Layers::of(Base::open(db)?)), path)
    }
}

/// Whether a segment belongs to the store. Changes nothing, so that a refused store stays as it is.
///
/// # Errors
/// It is missing or foreign, and the log may hold what redb lacks.
pub(super) fn check_segment(standing: Standing, found: Option<&Segment>, path: &Path) -> Result<(), Error> {
    let damaged = |reason: &str| Err(Error::Damaged { path: path.to_owned(), reason: reason.to_owned() });
    match found {
        _ if !standing.is_log_open => Ok(()),
        None => damaged("it is missing or no log, and the store was not closed cleanly: it held the latest messages"),
        Some(segment) if segment.store() != standing.store => damaged("it is the log of another store"),
        Some(_) => Ok(()),
    }
}

/// The frames that redb lacks.
#[derive(Debug)]
pub(super) struct Missing {
    /// The writes of all of them; the last write of a row counts.
    pub(super) rows: Memtable,
    /// The last of them.
    pub(super) sequence: u64,
    /// A generation above all that were found.
    pub(super) generation: u64,
}

/// A greater generation cannot be counted on from.
const GENERATION_MAX: u64 = u64::MAX - 2;

/// Finds the frames that redb lacks. Changes nothing.
///
/// # Errors
/// A frame that was on disk cannot be read, or redb's file is older than the log.
pub(super) fn missing(standing: Standing, segments: &[Segment], options: &Options) -> Result<Missing, Error> {
    let mut found: Vec<(&Path, Content)> = Vec::new();
    for segment in segments.iter().filter(|segment| segment.store() == standing.store) {
        match segment.read() {
            Ok(bytes) => found.push((&segment.path, Content::of(bytes, standing.store))),
            // Nothing of it is needed, and it is made anew.
            Err(Error::Damaged { .. }) if !standing.is_log_open => {}
            Err(error) => return Err(error),
        }
    }
    let heads = |content: &Content| {
        let run = content.run.iter().map(|(head, _)| *head);
        run.chain(content.later.iter().copied()).collect::<Vec<Head>>()
    };
    let all: Vec<Head> = found.iter().flat_map(|(_, content)| heads(content)).collect();
    let last = all.iter().map(|head| head.generation).fold(standing.generation, u64::max);
    if last > GENERATION_MAX {
        let reason = format!("it or its log names generation {last}, which no store reaches");
        return Err(Error::Damaged { path: options.path.clone(), reason });
    }
    let generation = last + 1;
    let newer: Vec<Head> = all.into_iter().filter(|head| head.generation > standing.generation).collect();
    let ends: Vec<End> = found.iter().map(|(path, content)| End::of(path, content)).collect();
    let first = |content: &Content| content.run.first().map(|(head, _)| *head);
    found.retain(|(_, content)| first(content).is_some_and(|head| head.generation > standing.generation));
    found.sort_by_key(|(_, content)| first(content).map(|head| head.generation));

    let (mut rows, mut sequence) = (Memtable::default(), standing.sequence);
    let mut place = format!("{} at byte {}", segment::path(&options.path, 0).display(), segment::START);
    for ((path, content), expected) in found.iter().zip(standing.generation + 1..) {
        let Some(head) = first(content).filter(|head| head.generation == expected) else { break };
        if head.sequence != sequence + 1 {
            break;
        }
        for (head, writes) in &content.run {
            let replayed = rows.replay(&content.bytes[writes.clone()]);
            replayed.map_err(|error| Error::Damaged { path: path.to_path_buf(), reason: error.to_string() })?;
            sequence = head.sequence;
        }
        place = format!("{} at byte {}", path.display(), content.end);
    }
    let is_older = !standing.is_log_open && !newer.is_empty();
    if is_older || (rows.is_empty() && newer.iter().any(|head| head.synced_through > standing.sequence)) {
        let last = newer.iter().map(|head| head.sequence).max().unwrap_or(0);
        let reason = format!(
            "it is older than its log, or the first frames of the log cannot be read: it ends with frame {}, the log with \
             frame {last} or later",
            standing.sequence
        );
        return Err(Error::Damaged { path: options.path.clone(), reason });
    }
    // A torn end is normal after a crash. But a frame that was on disk must not be lost: what was written after it says
    // that it was.
    if newer.iter().any(|head| head.synced_through > sequence) {
        let place = ends.into_iter().find(|end| end.is_before(sequence + 1, standing)).map_or(place, |end| end.place);
        let reason = format!("frame {} was on disk and cannot be read: {place}", sequence + 1);
        return Err(Error::Damaged { path: options.path.clone(), reason });
    }
    Ok(Missing { rows, sequence, generation })
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
    fn is_before(&self, sequence: u64, standing: Standing) -> bool {
        let is_later = |head: &Head| head.generation > standing.generation && head.sequence >= sequence;
        self.last.is_none_or(|last| last + 1 == sequence) && self.behind.iter().any(is_later)
    }
}

/// Applies the missing frames in one durable commit, after which the log belongs to the store.
///
/// # Errors
/// A storage fault.
pub(super) fn apply(db: &Database, missing: &Missing) -> Result<(), Error> {
    let covers = checkpoint::Covers { generation: missing.generation, sequence: missing.sequence, is_log_open: true };
    checkpoint::apply(db, &missing.rows, covers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::FileDisk;
    use super::super::frame::HEAD_BYTES;
    use super::super::log::Log;
    use super::*;

    /// The segments of store 7 after frames with these writes, each in its generation and each synced.
    fn segments_after(frames: &[(u64, &[u8])]) -> [Segment; 2] {
        let segments = [0, 1].map(|nth| {
            let disk = Arc::new(FileDisk(tempfile::tempfile().unwrap()));
            Segment::make(disk, segment::path(Path::new("nightmail.redb"), nth), 7, 16 << 10).unwrap()
        });
        let mut log = Log::after(segments.clone(), 0, 0);
        for ((generation, writes), sequence) in frames.iter().zip(1..) {
            let frame = [&[0; HEAD_BYTES], *writes].concat();
            log.append(*generation, sequence, frame).unwrap();
            log.sync().unwrap();
        }
        log.mark().unwrap();
        segments
    }

    fn refusal(segments: &[Segment]) -> (String, String) {
        let standing = Standing { store: 7, generation: 0, sequence: 0, is_log_open: true };
        match missing(standing, segments, &Options::at("nightmail.redb")).unwrap_err() {
            Error::Damaged { path, reason } => (path.display().to_string(), reason),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_refusal_of_a_lost_frame_names_the_bytes_that_are_damaged() {
        let places = [(0, 512, 2), (0, 1024, 3), (1, 0, 4), (1, 512, 5)];
        for (segment, offset, lost) in places {
            let removal = &[0, 1, 0, 255, 255, 255, 255, b'x'][..];
            let segments = segments_after(&[1, 1, 1, 2, 2].map(|generation| (generation, removal)));
            segments[segment].disk.write(segment::START + offset, &[7; 8]).unwrap();
            let (_, reason) = refusal(&segments);
            let place = format!("nightmail.log{segment} at byte {}", segment::START + offset);
            assert!(reason.contains(&format!("frame {lost} was on disk")) && reason.ends_with(&place), "{reason}");
        }
    }

    #[test]
    fn the_refusal_of_writes_that_cannot_be_read_names_their_segment() {
        let (path, reason) = refusal(&segments_after(&[(1, &[]), (2, &[255, 1])]));
        assert_eq!(path, "nightmail.log1", "{reason}");
    }
}
