//! Keeps what redb writes to its file until redb syncs it, and then writes it in the order of its offsets.
//!
//! redb writes each page by itself, in no order: some thousands for a checkpoint. In order they make few large writes.
//! These are synced piece by piece, because a sync of the log waits until the disk has written what it was given of
//! other files too: with small pieces that wait is short.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

const BLOCK_BYTES: usize = 4096;
/// What is written at once, and synced before the next piece.
const PIECE_BLOCKS: usize = 256;
/// When more than this is kept, it is written although nobody has asked for a sync, so that memory is bounded.
const KEPT_BLOCKS_MAX: usize = 4096;

/// Memory is taken for so many blocks at once: one allocation each would leave holes between others that stay.
const PART_BLOCKS: usize = 256;

/// Blocks by their number, which is their offset divided by their length.
#[derive(Debug, Default)]
struct Blocks {
    /// The places of their contents in `parts`.
    places: BTreeMap<u64, usize>,
    parts: Vec<Vec<u8>>,
}

impl Blocks {
    fn put(&mut self, number: u64, content: &[u8]) {
        let next = self.places.len();
        let place = *self.places.entry(number).or_insert(next);
        if place / PART_BLOCKS == self.parts.len() {
            self.parts.push(vec![0; PART_BLOCKS * BLOCK_BYTES]);
        }
        self.parts[place / PART_BLOCKS][within_part(place)].copy_from_slice(content);
    }

    fn in_range(&self, numbers: Range<u64>) -> impl Iterator<Item = (u64, &[u8])> {
        let content = |place: usize| &self.parts[place / PART_BLOCKS][within_part(place)];
        self.places.range(numbers).map(move |(number, place)| (*number, content(*place)))
    }

    fn all(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.in_range(0..u64::MAX)
    }
}

fn within_part(place: usize) -> Range<usize> {
    let at = place % PART_BLOCKS * BLOCK_BYTES;
    at..at + BLOCK_BYTES
}

/// A file for redb, on top of another.
#[derive(Debug)]
pub(super) struct WriteBack<B> {
    file: B,
    kept: Mutex<Kept>,
    /// Held while blocks are written, so that an older block never comes after a newer one.
    writing: Mutex<()>,
}

/// Written by redb and not to the file. A block that stands in both was written twice; `next` has the newer content.
#[derive(Debug, Default)]
struct Kept {
    next: Blocks,
    /// Being written, or left by a write that failed.
    current: Arc<Blocks>,
}

impl Kept {
    /// Keeps what a write that broke off has left.
    fn take_back(&mut self) {
        let left = std::mem::take(&mut self.current);
        for (number, block) in left.all() {
            if !self.next.places.contains_key(&number) {
                self.next.put(number, block);
            }
        }
    }
}

impl<B: StorageBackend> WriteBack<B> {
    pub(super) fn new(file: B) -> Self {
        Self { file, kept: Mutex::default(), writing: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that is kept, and syncs it but for the last piece; readers find it there meanwhile. After a failure it
    /// is still kept.
    fn write_out(&self) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = {
            let mut kept = self.kept();
            kept.take_back();
            kept.current = Arc::new(std::mem::take(&mut kept.next));
            kept.current.clone()
        };
        self.write_blocks(&blocks)?;
        self.kept().current = Arc::default();
        Ok(())
    }

    fn write_blocks(&self, blocks: &Blocks) -> io::Result<()> {
        let (mut run, mut at, mut in_piece) = (Vec::new(), 0, 0);
        for (number, block) in blocks.all() {
            let offset = number * BLOCK_BYTES as u64;
            if at + run.len() as u64 != offset || in_piece == PIECE_BLOCKS {
                self.write_run(at, &mut run)?;
                at = offset;
            }
            if in_piece == PIECE_BLOCKS {
                self.file.sync_data()?;
                in_piece = 0;
            }
            run.extend_from_slice(block);
            in_piece += 1;
        }
        self.write_run(at, &mut run)
    }

    fn write_run(&self, at: u64, run: &mut Vec<u8>) -> io::Result<()> {
        if !run.is_empty() {
            self.file.write(at, run)?;
            run.clear();
        }
        Ok(())
    }

    /// Copies of the kept blocks in a range, the newest content last.
    fn kept_in(&self, offset: u64, bytes: usize) -> Vec<(u64, Vec<u8>)> {
        let block = BLOCK_BYTES as u64;
        let numbers = offset / block..(offset + bytes as u64).div_ceil(block);
        let kept = self.kept();
        let found = kept.current.in_range(numbers.clone()).chain(kept.next.in_range(numbers));
        found.map(|(number, block)| (number, block.to_vec())).collect()
    }
}

impl<B: StorageBackend> StorageBackend for WriteBack<B> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Before the file is read: a block that is gone from memory by then is in the file.
        let kept = self.kept_in(offset, out.len());
        self.file.read(offset, out)?;
        for (number, block) in kept {
            let at = number * BLOCK_BYTES as u64;
            let (from, to) = (at.max(offset), (at + BLOCK_BYTES as u64).min(offset + out.len() as u64));
            let place = |position: u64, start: u64| usize::try_from(position - start).expect("it lies within the read");
            out[place(from, offset)..place(to, offset)].copy_from_slice(&block[place(from, at)..place(to, at)]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_out()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_out()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let block = BLOCK_BYTES as u64;
        // The head of the file alone is not whole blocks. What is kept is written first.
        if !offset.is_multiple_of(block) || !data.len().is_multiple_of(BLOCK_BYTES) {
            self.write_out()?;
            return self.file.write(offset, data);
        }
        let mut kept = self.kept();
        (offset / block..)
            .zip(data.chunks_exact(BLOCK_BYTES))
            .for_each(|(number, content)| kept.next.put(number, content));
        let is_full = kept.next.places.len() > KEPT_BLOCKS_MAX;
        drop(kept);
        if is_full { self.write_out() } else { Ok(()) }
    }

    /// Writes nothing: what redb has committed is synced, and what is kept after a failure belongs to no commit.
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use redb::backends::InMemoryBackend;

    use super::*;

    /// What reached the file below.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Call {
        Write { block: u64, blocks: usize },
        Sync,
    }

    type During = Box<dyn FnMut(u64) + Send>;

    /// A file in memory that records its calls, and fails when told to.
    #[derive(Default)]
    struct Recorder {
        file: InMemoryBackend,
        calls: Mutex<Vec<Call>>,
        fails: Mutex<bool>,
        /// Called in each write, with its first block.
        during: Mutex<Option<During>>,
    }

    impl Debug for Recorder {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Recorder").finish_non_exhaustive()
        }
    }

    impl Recorder {
        fn calls(&self) -> Vec<Call> {
            std::mem::take(&mut self.calls.lock().unwrap())
        }
    }

    impl StorageBackend for Recorder {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.calls.lock().unwrap().push(Call::Sync);
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let block = offset / BLOCK_BYTES as u64;
            if let Some(during) = &mut *self.during.lock().unwrap() {
                during(block);
            }
            if *self.fails.lock().unwrap() {
                return Err(io::Error::other("no"));
            }
            self.calls.lock().unwrap().push(Call::Write { block, blocks: data.len().div_ceil(BLOCK_BYTES) });
            self.file.write(offset, data)
        }
    }

    fn of_blocks(blocks: u64) -> WriteBack<Recorder> {
        let file = WriteBack::new(Recorder::default());
        file.set_len(blocks * BLOCK_BYTES as u64).unwrap();
        file
    }

    fn put(file: &WriteBack<Recorder>, block: u64, content: u8) {
        file.write(block * BLOCK_BYTES as u64, &[content; BLOCK_BYTES]).unwrap();
    }

    #[test]
    fn what_was_written_in_no_order_is_written_in_order_when_it_is_synced() {
        let file = of_blocks(10);
        for block in [7, 2, 1, 8, 3, 2] {
            put(&file, block, 1);
        }
        assert_eq!(file.file.calls(), []);
        file.sync_data().unwrap();
        let [three, two] = [(1, 3), (7, 2)].map(|(block, blocks)| Call::Write { block, blocks });
        assert_eq!(file.file.calls(), [three, two, Call::Sync]);
        file.sync_data().unwrap();
        assert_eq!(file.file.calls(), [Call::Sync]);
    }

    #[test]
    fn a_large_amount_is_synced_in_pieces_and_the_last_with_the_rest() {
        let file = of_blocks(1_000);
        (0..2 * PIECE_BLOCKS as u64 + 1).rev().for_each(|block| put(&file, block, 1));
        file.sync_data().unwrap();
        let write = |nth: usize, blocks| Call::Write { block: (nth * PIECE_BLOCKS) as u64, blocks };
        let whole = [write(0, PIECE_BLOCKS), Call::Sync, write(1, PIECE_BLOCKS), Call::Sync];
        assert_eq!(file.file.calls(), [&whole[..], &[write(2, 1), Call::Sync]].concat());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let file = of_blocks(KEPT_BLOCKS_MAX as u64 + 1);
        (0..KEPT_BLOCKS_MAX as u64).for_each(|block| put(&file, block, 1));
        assert_eq!(file.file.calls(), []);
        put(&file, KEPT_BLOCKS_MAX as u64, 1);
        assert!(!file.file.calls().is_empty());
        assert_eq!(file.kept_in(0, BLOCK_BYTES * (KEPT_BLOCKS_MAX + 1)).len(), 0);
    }

    #[test]
    fn reads_see_every_write_before_and_after_a_sync_also_at_odd_places() {
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            let file = of_blocks(8);
            let mut model = vec![0_u8; 8 * BLOCK_BYTES];
            for content in 1..200_u8 {
                let at = rng.random_range(0..7_usize) * BLOCK_BYTES;
                match rng.random_range(0..8) {
                    0 => file.sync_data().unwrap(),
                    1 => {
                        file.write(at as u64, &[content; 320]).unwrap();
                        model[at..at + 320].fill(content);
                    }
                    _ => {
                        let bytes = BLOCK_BYTES * rng.random_range(1..=2);
                        file.write(at as u64, &vec![content; bytes]).unwrap();
                        model[at..at + bytes].fill(content);
                    }
                }
                let (from, to) = (rng.random_range(0..model.len()), rng.random_range(0..=model.len()));
                let (from, to) = (from.min(to), from.max(to));
                let mut found = vec![0; to - from];
                file.read(from as u64, &mut found).unwrap();
                assert!(found == model[from..to], "seed {seed}, write {content}");
            }
            file.sync_data().unwrap();
            let mut found = vec![0; model.len()];
            file.file.read(0, &mut found).unwrap();
            assert!(found == model, "seed {seed}");
        }
    }

    #[test]
    fn a_failed_write_loses_nothing_that_was_kept_and_brings_back_nothing_older() {
        let file = Arc::new(of_blocks(4));
        put(&file, 1, 7);
        put(&file, 2, 7);
        *file.file.fails.lock().unwrap() = true;
        let again = file.clone();
        *file.file.during.lock().unwrap() = Some(Box::new(move |_| put(&again, 2, 8)));
        assert!(file.sync_data().is_err());
        (*file.file.fails.lock().unwrap(), *file.file.during.lock().unwrap()) = (false, None);
        let holds = |file: &dyn StorageBackend| {
            let mut found = [0; 2 * BLOCK_BYTES];
            file.read(BLOCK_BYTES as u64, &mut found).unwrap();
            assert_eq!([found[0], found[BLOCK_BYTES]], [7, 8]);
        };
        holds(&*file);
        file.sync_data().unwrap();
        holds(&file.file);
    }

    #[test]
    fn what_is_being_written_is_read_from_memory() {
        let file = Arc::new(of_blocks(4));
        put(&file, 1, 7);
        let (reader, seen) = (file.clone(), Arc::new(Mutex::new(0)));
        let sees = seen.clone();
        *file.file.during.lock().unwrap() = Some(Box::new(move |block| {
            let mut found = [0; BLOCK_BYTES];
            reader.read(block * BLOCK_BYTES as u64, &mut found).unwrap();
            *sees.lock().unwrap() = found[0];
        }));
        file.sync_data().unwrap();
        assert_eq!(*seen.lock().unwrap(), 7);
        *file.file.during.lock().unwrap() = None;
    }

    #[test]
    fn a_close_writes_nothing_that_was_not_synced() {
        let file = of_blocks(4);
        put(&file, 1, 7);
        file.close().unwrap();
        assert_eq!(file.file.calls(), []);
    }
}
