//! Small stores as a kill or a clean close leaves them, with what is known of them.

use std::ops::Range;

use nightmail::store::fuzzing::{self, Frame};
use nightmail::store::{Error, Snapshot, Store};

use super::log::{self, START};
use super::memory::{Files, Machine};

/// Rows are written until a store has what is wanted of it, but never more than these.
const ROWS_MAX: u64 = 200;
/// The number of the table that holds the rows: numbers under texts.
pub(crate) const RUN_KEYS: u8 = 17;
/// An image is made again at most so often.
const IMAGES_MAX: u32 = 100;
/// Rows that are written after that.
const MORE: u64 = 4;

/// A frame that redb's file does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Which file it is in, and where.
    pub(crate) file: usize,
    pub(crate) bytes: Range<usize>,
    /// The row that it wrote.
    pub(crate) row: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) files: Files,
    /// The store's number.
    pub(crate) store: u64,
    /// Rows 1 to this one were written, each by a frame of its own.
    pub(crate) rows: u64,
    /// The newest frame's.
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    /// What only the log holds.
    pub(crate) places: Vec<Place>,
}

/// A store that was closed; one that was killed after a checkpoint; one whose checkpoint was not committed at the kill,
/// so that it needs both segments.
pub(crate) fn all() -> [Image; 3] {
    [closed(), after_a_checkpoint(), before_its_commit()]
}

fn closed() -> Image {
    let machine = Machine::of(Files::default());
    let store = open(&machine);
    let number = number(&store);
    let rows = write_until(&store, |rows| rows == MORE);
    drop(store);
    Image::of(machine.files(), number, rows, u64::MAX)
}

fn after_a_checkpoint() -> Image {
    for _ in 0..IMAGES_MAX {
        let machine = Machine::of(Files::default());
        let store = open(&machine);
        let rows = write_until(&store, |_| store.checkpoints() > 0);
        let (files, number) = (machine.files(), number(&store));
        let [first, second] = [1, 2].map(|file| newest(&files[file], number).map_or(0, |frame| frame.generation));
        // The checkpoint holds the first generation. By chance a third one has begun, in the first file again, and then
        // nothing is known of a checkpoint of the second.
        if first < second {
            return Image::of(files, number, rows, second);
        }
    }
    panic!("the rows after a checkpoint began a third generation {IMAGES_MAX} times");
}

fn before_its_commit() -> Image {
    let machine = Machine::of(Files::default());
    let store = open(&machine);
    let ([unchanged, ..], number) = (machine.files(), number(&store));
    let are_both_used = || machine.files()[1..].iter().all(|segment| newest(segment, number).is_some());
    let rows = write_until(&store, |_| are_both_used());
    let [_, first, second] = machine.files();
    assert!(store.checkpoints() <= 1, "the first segment was used again");
    Image::of([unchanged, first, second], number, rows, 0)
}

impl Image {
    /// The image of a store whose frames from that generation on are not in redb's file.
    fn of(files: Files, store: u64, rows: u64, generation_min: u64) -> Self {
        let newest = files[1..].iter().filter_map(|segment| newest(segment, store)).max_by_key(|frame| frame.sequence);
        let newest = newest.expect("rows were written");
        let mut places = Vec::new();
        for (file, segment) in files.iter().enumerate().skip(1) {
            let mut at = START;
            for frame in fuzzing::frames(segment.clone(), store).0 {
                let end = at + log::frame_bytes(frame.bytes.len());
                if frame.generation >= generation_min {
                    places.push(Place { file, bytes: at..end, row: row_of(&frame) });
                }
                at = end;
            }
        }
        Self { files, store, rows, generation: newest.generation, sequence: newest.sequence, places }
    }
}

/// The last frame of a segment.
fn newest(segment: &[u8], store: u64) -> Option<Frame> {
    fuzzing::frames(segment.to_vec(), store).0.pop()
}

/// The row that a frame writes; it is the only one whose key is a row's name.
fn row_of(frame: &Frame) -> u64 {
    let rows = frame.writes.iter().flatten().filter_map(|(table, _, value)| {
        let number = value.as_ref()?.first_chunk::<8>()?;
        (*table == RUN_KEYS).then(|| u64::from_be_bytes(*number))
    });
    rows.max().expect("a frame is one row")
}

fn number(store: &Store) -> u64 {
    store.snapshot().and_then(|snapshot| snapshot.store_number()).expect("the store is open")
}

fn open(machine: &Machine) -> Store {
    machine.open().expect("an empty machine takes a store")
}

/// Writes rows, each in a group of its own, until that is true, and some more; returns how many.
fn write_until(store: &Store, is_enough: impl Fn(u64) -> bool) -> u64 {
    let (mut rows, mut left) = (0, None);
    while left != Some(0) {
        rows += 1;
        assert!(rows <= ROWS_MAX, "{rows} rows were not enough");
        write(store, rows).expect("a sound store takes a row");
        left = left.map(|left: u64| left - 1).or_else(|| is_enough(rows).then_some(MORE));
    }
    rows
}

/// Writes one row and waits until it is durable.
pub(crate) fn write(store: &Store, row: u64) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O starts");
    runtime.block_on(store.write(move |tx| tx.run_keys()?.insert(&name(row), &row)))
}

/// The rows of a store, in their order.
pub(crate) fn rows(snapshot: &Snapshot) -> Result<Vec<(String, u64)>, Error> {
    snapshot.run_keys()?.first(String::new()..="~".to_owned(), usize::MAX)
}

/// The key of a row; keys sort as the rows do.
pub(crate) fn name(row: u64) -> String {
    format!("row {row:04}")
}
