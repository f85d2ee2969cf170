//! The log: frames in two segments that are used in turn.

use std::io;

use super::frame::{HEAD_BYTES, Head};
use super::segment::{SECTOR_BYTES, Segment, Space};

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    segments: [Segment; 2],
    /// The segment in use.
    current: usize,
    /// The use of it.
    generation: u64,
    space: Space,
    /// The last sequence that was written.
    written: u64,
    /// The last sequence that is known to be on disk.
    synced: u64,
    /// Whether a mark stands behind the last frame, or none is needed.
    is_marked: bool,
}

impl Log {
    /// A log in which everything up to that sequence, and all up to that generation, is not needed any more. Both
    /// segments have the same length.
    pub(super) fn after(segments: [Segment; 2], generation: u64, sequence: u64) -> Self {
        let space = Space::empty(segments[0].bytes());
        Self {
            segments,
            current: 0,
            generation: generation + 1,
            space,
            written: sequence,
            synced: sequence,
            is_marked: true,
        }
    }

    /// The free space of the segment in use.
    pub(super) fn space(&self) -> Space {
        self.space
    }

    /// The generation of the next frame.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a written frame is not known to be on disk.
    pub(super) fn is_behind(&self) -> bool {
        self.synced != self.written
    }

    /// Writes a frame, which has room for its head. With the next generation it goes to the other segment, and all
    /// frames before it are synced first. It is durable after [`Log::sync`].
    ///
    /// # Errors
    /// The disk fails.
    ///
    /// # Panics
    /// When it does not fit: the caller checks with [`Space`] first.
    pub(super) fn append(&mut self, generation: u64, sequence: u64, mut frame: Vec<u8>) -> io::Result<()> {
        assert_eq!(sequence, self.written + 1, "frames are numbered without a gap");
        if generation != self.generation {
            self.sync()?;
            self.current = 1 - self.current;
            self.generation = generation;
            self.space.restart();
        }
        let at = self.space.take(frame.len()).expect("the writer asked whether the frame fits");
        self.head(sequence, frame.len() - HEAD_BYTES).write(&mut frame);
        // Whole sectors are written, so that the disk does not have to read one first.
        frame.resize(usize::try_from(self.space.at() - at).expect("a frame fits into memory"), 0);
        self.disk().write(at, &frame)?;
        (self.written, self.is_marked) = (sequence, false);
        Ok(())
    }

    /// Returns once all frames are durable.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.is_behind() {
            self.disk().sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Leaves a sequence without a frame: a checkpoint has made its writes durable.
    pub(super) fn skip(&mut self, sequence: u64) {
        (self.written, self.synced) = (sequence, sequence);
    }

    /// Writes a mark behind the last frame that says that it is on disk, so that its loss is noticed, unless there is one.
    /// The mark needs no sync of its own; the next frame overwrites it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn mark(&mut self) -> io::Result<()> {
        if self.is_marked {
            return Ok(());
        }
        let mut mark = vec![0; usize::try_from(SECTOR_BYTES).expect("a sector is small")];
        self.head(self.written, 0).write(&mut mark);
        self.disk().write(self.space.at(), &mark)?;
        self.is_marked = true;
        Ok(())
    }

    fn head(&self, sequence: u64, length: usize) -> Head {
        let store = self.segments[self.current].store();
        Head { store, generation: self.generation, sequence, synced_through: self.synced, length }
    }

    fn disk(&self) -> &dyn super::Disk {
        &*self.segments[self.current].disk
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::disk::{Disk, FileDisk};
    use super::super::segment::Content;
    use super::*;

    #[test]
    fn the_loss_of_the_last_frame_shows_up_to_the_end_of_a_segment() {
        let disks: [Arc<dyn Disk>; 2] = [(); 2].map(|()| Arc::new(FileDisk(tempfile::tempfile().unwrap())) as _);
        let segments = disks.clone().map(|disk| Segment::make(disk, "log".into(), 7, 16 << 10).unwrap());
        let mut log = Log::after(segments.clone(), 0, 0);
        let content = || Content::of(segments[0].read().unwrap(), 7);
        let mut sequence = 0;
        while log.space().take(HEAD_BYTES).is_some() {
            sequence += 1;
            let at = log.space.at();
            log.append(1, sequence, vec![0; HEAD_BYTES]).unwrap();
            log.sync().unwrap();
            log.mark().unwrap();
            let found = content();
            assert_eq!(found.run.last().map(|(head, _)| head.sequence), Some(sequence));
            disks[0].write(at, &[7]).unwrap();
            let found = content();
            assert_eq!(found.run.len() as u64, sequence - 1);
            assert_eq!(found.later.iter().map(|mark| mark.synced_through).max(), Some(sequence));
            disks[0].write(at, &[0]).unwrap();
        }
        assert_eq!(log.space.at() + SECTOR_BYTES, segments[0].bytes(), "the segment is full");
    }

    /// A segment's disk that tells its writes and syncs.
    #[derive(Debug)]
    struct Telling {
        file: FileDisk,
        segment: usize,
        told: Arc<Mutex<Vec<(usize, &'static str)>>>,
    }

    impl Telling {
        fn tell(&self, what: &'static str) {
            self.told.lock().unwrap().push((self.segment, what));
        }
    }

    impl Disk for Telling {
        fn bytes(&self) -> io::Result<u64> {
            self.file.bytes()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_bytes(&self, bytes: u64) -> io::Result<()> {
            self.file.set_bytes(bytes)
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.tell("write");
            self.file.write(offset, data)
        }

        fn sync(&self) -> io::Result<()> {
            self.tell("sync");
            self.file.sync()
        }
    }

    #[test]
    fn the_first_frame_of_a_generation_waits_for_the_sync_of_the_last_one_before() {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let segments = [0, 1].map(|segment| {
            let disk = Telling { file: FileDisk(tempfile::tempfile().unwrap()), segment, told: told.clone() };
            Segment::make(Arc::new(disk), "log".into(), 7, 16 << 10).unwrap()
        });
        let mut log = Log::after(segments, 0, 0);
        told.lock().unwrap().clear();
        for (generation, sequence) in [(1, 1), (1, 2), (2, 3), (3, 4)] {
            log.append(generation, sequence, vec![0; HEAD_BYTES]).unwrap();
        }
        let expected = [(0, "write"), (0, "write"), (0, "sync"), (1, "write"), (1, "sync"), (0, "write")];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
