//! The log in two files, its segments, which are used in turn: one for each generation.

use super::frame::{HEAD_BYTES, Head};
use super::log::{Log, Position, Space, WriteError};
use super::segment::{SECTOR_BYTES, START, Segment};

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct FileLog {
    segments: [Segment; 2],
    /// The generation of the frames in each segment.
    held: [u64; 2],
    /// The segment in use.
    current: usize,
    /// The free space of the segment in use.
    space: Space,
    /// The generation of the claim; frames are of later ones.
    claimed: u64,
    /// Frames up to this generation are not needed any more.
    trimmed: u64,
    /// The last frame.
    end: Position,
    /// The last sequence that is known to be on disk.
    synced: u64,
    /// Whether a mark stands behind the last frame, or none is needed.
    is_marked: bool,
    /// The length that segments are given once they are free.
    segment_bytes: u64,
}

impl FileLog {
    /// A log whose next frame goes after `claim` and belongs to a later generation. What the segments hold is needed
    /// until it is trimmed; then they get that length.
    pub(super) fn claimed(segments: [Segment; 2], claim: Position, segment_bytes: u64) -> Self {
        Self {
            segments,
            // No frame of them is of a later generation.
            held: [claim.generation; 2],
            // The first frame begins a generation, and so changes the segment.
            current: 1,
            space: space(segment_bytes),
            claimed: claim.generation,
            trimmed: 0,
            end: claim,
            synced: claim.sequence,
            is_marked: true,
            segment_bytes,
        }
    }

    /// Goes over to the other segment, which no checkpoint may still need.
    fn begin(&mut self, generation: u64) -> Result<(), WriteError> {
        self.sync()?;
        let next = 1 - self.current;
        if self.held[next] > self.trimmed {
            return Err(WriteError::Full { sequence: self.end.sequence });
        }
        (self.current, self.held[next], self.space) = (next, generation, self.space.emptied());
        Ok(())
    }

    fn head(&self, sequence: u64, length: usize) -> Head {
        let (store, generation) = (self.segments[self.current].store(), self.held[self.current]);
        Head { store, generation, sequence, synced_through: self.synced, length }
    }

    fn disk(&self) -> &dyn super::Disk {
        &*self.segments[self.current].disk
    }
}

impl Log for FileLog {
    fn end(&self) -> Position {
        self.end
    }

    fn durable_through(&self) -> u64 {
        self.synced
    }

    fn space(&self) -> Space {
        self.space.emptied()
    }

    fn append(&mut self, at: Position, mut frame: Vec<u8>) -> Result<(), WriteError> {
        assert_eq!(at.sequence, self.end.sequence + 1, "frames are numbered without a gap");
        if at.generation <= self.claimed {
            return Err(WriteError::Fenced { generation: at.generation });
        }
        if at.generation != self.end.generation {
            self.begin(at.generation)?;
        }
        let Some(offset) = self.space.take(frame.len()) else {
            let fits = self.space.emptied().take(frame.len()).is_some();
            let too_large = WriteError::TooLarge { bytes: frame.len() };
            return Err(if fits { WriteError::Full { sequence: self.end.sequence } } else { too_large });
        };
        self.head(at.sequence, frame.len() - HEAD_BYTES).write(&mut frame);
        // Whole sectors are written, so that the disk does not have to read one first.
        frame.resize(usize::try_from(self.space.used() - offset).expect("a frame fits into memory"), 0);
        self.disk().write(START + offset, &frame)?;
        (self.end, self.is_marked) = (at, false);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        if self.synced != self.end.sequence {
            self.disk().sync()?;
            self.synced = self.end.sequence;
        }
        Ok(())
    }

    /// Writes a mark behind the last frame that says that it is on disk, so that its loss is noticed. The mark needs no
    /// sync of its own; the next frame overwrites it.
    fn rest(&mut self) -> Result<(), WriteError> {
        if self.is_marked {
            return Ok(());
        }
        let mut mark = vec![0; usize::try_from(SECTOR_BYTES).expect("a sector is small")];
        self.head(self.end.sequence, 0).write(&mut mark);
        self.disk().write(START + self.space.used(), &mark)?;
        self.is_marked = true;
        Ok(())
    }

    fn trim(&mut self, through: Position) -> Result<(), WriteError> {
        self.trimmed = self.trimmed.max(through.generation);
        if through.sequence > self.end.sequence {
            (self.end, self.synced) = (through, through.sequence);
        }
        if self.held.iter().all(|generation| *generation <= self.trimmed) {
            for segment in &mut self.segments {
                segment.resize(self.segment_bytes)?;
            }
        }
        Ok(())
    }
}

/// The space for frames in a segment of that length; behind the last one there is always room for its mark.
fn space(segment_bytes: u64) -> Space {
    Space::empty(segment_bytes - START - SECTOR_BYTES, SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::disk::testing::{Call, Calls, RecordingDisk};
    use super::super::disk::{Disk, FileDisk};
    use super::super::segment::Content;
    use super::*;

    const BYTES: u64 = 16 << 10;

    fn at(generation: u64, sequence: u64) -> Position {
        Position { generation, sequence }
    }

    fn log_on(disks: [Arc<dyn Disk>; 2]) -> (FileLog, [Segment; 2]) {
        let segments = disks.map(|disk| Segment::make(disk, "log".into(), 7, BYTES).unwrap());
        let mut log = FileLog::claimed(segments.clone(), at(0, 0), BYTES);
        log.trim(at(0, 0)).unwrap();
        (log, segments)
    }

    fn file() -> Arc<dyn Disk> {
        Arc::new(FileDisk(tempfile::tempfile().unwrap()))
    }

    fn frame() -> Vec<u8> {
        vec![0; HEAD_BYTES]
    }

    #[test]
    fn the_loss_of_the_last_frame_shows_up_to_the_end_of_a_segment() {
        let (mut log, segments) = log_on([file(), file()]);
        let content = || Content::of(segments[0].read().unwrap(), 7);
        let mut space = log.space();
        let mut sequence = 0;
        while let Some(offset) = space.take(HEAD_BYTES) {
            sequence += 1;
            log.append(at(1, sequence), frame()).unwrap();
            log.sync().unwrap();
            log.rest().unwrap();
            let found = content();
            assert_eq!(found.run.last().map(|(head, _)| head.sequence), Some(sequence));
            segments[0].disk.write(START + offset, &[7]).unwrap();
            let found = content();
            assert_eq!(found.run.len() as u64, sequence - 1);
            assert_eq!(found.later.iter().map(|mark| mark.synced_through).max(), Some(sequence));
            segments[0].disk.write(START + offset, &[0]).unwrap();
        }
        assert_eq!(START + space.used() + SECTOR_BYTES, segments[0].bytes(), "the segment is full");
        assert!(matches!(log.append(at(1, sequence + 1), frame()), Err(WriteError::Full { .. })));
    }

    #[test]
    fn a_segment_is_used_again_only_after_a_checkpoint_of_its_frames() {
        let (mut log, segments) = log_on([file(), file()]);
        for generation in [1, 2] {
            log.append(at(generation, generation), frame()).unwrap();
        }
        assert!(matches!(log.append(at(3, 3), frame()), Err(WriteError::Full { sequence: 2 })));
        log.trim(at(1, 1)).unwrap();
        log.append(at(3, 3), frame()).unwrap();
        let held = segments.map(|segment| Content::of(segment.read().unwrap(), 7).run[0].0.generation);
        assert_eq!(held, [3, 2]);
    }

    #[test]
    fn a_frame_goes_behind_what_a_checkpoint_covers_and_into_a_generation_after_the_claim() {
        let (mut log, _) = log_on([file(), file()]);
        assert!(matches!(log.append(at(0, 1), frame()), Err(WriteError::Fenced { generation: 0 })));
        log.append(at(1, 1), frame()).unwrap();
        log.trim(at(1, 5)).unwrap();
        assert_eq!((log.end(), log.durable_through()), (at(1, 5), 5));
        log.append(at(2, 6), frame()).unwrap();
        let large = vec![0; usize::try_from(BYTES).unwrap()];
        assert!(matches!(log.append(at(2, 7), large), Err(WriteError::TooLarge { .. })));
    }

    #[test]
    fn the_first_frame_of_a_generation_waits_for_the_sync_of_the_last_one_before() {
        let calls = Calls::default();
        let (mut log, _) = log_on([0, 1].map(|nth| Arc::new(RecordingDisk::new(nth, &calls)) as _));
        calls.take();
        for (generation, sequence) in [(1, 1), (1, 2), (2, 3), (3, 4)] {
            log.trim(at(generation - 1, sequence - 1)).unwrap();
            log.append(at(generation, sequence), frame()).unwrap();
        }
        let write = |nth, at| (nth, Call::Write { at, bytes: SECTOR_BYTES });
        let frames = [START, START + SECTOR_BYTES];
        let expected = [
            write(0, frames[0]),
            write(0, frames[1]),
            (0, Call::Sync),
            write(1, frames[0]),
            (1, Call::Sync),
            write(0, frames[0]),
        ];
        assert_eq!(calls.take(), expected);
    }
}
