//! Recovery: a small store whose segments were damaged or have frames that nobody wrote. It is refused unchanged, or it
//! opens, has what was acknowledged, and takes and keeps more.

use std::sync::OnceLock;

use nightmail::store::check::{Findings, records};
use nightmail::store::fuzzing::Write;
use nightmail::store::{Error, Store};

use super::image::{self, Image, RUN_KEYS};
use super::input::Input;
use super::log::{self, SECTOR_BYTES, START};
use super::memory::{Files, Machine};

/// At most so many edits, of so many kinds; the first kinds are what a disk can do.
const EDITS_MAX: u8 = 8;
const KINDS: u8 = 8;
const KINDS_OF_DAMAGE: u8 = 3;
/// CRC-32C detects this many flipped bits, wherever they are.
const FLIPS_MAX: u32 = 3;
/// The row that is written after a recovery.
const AFTER: u64 = 9_000;

/// How far an image was taken from what a disk can do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Flipped bits, lost sectors, a lost end.
    Damaged,
    /// Also whole frames and headers that were never written, and bytes of any kind. What a row says is still a row.
    MadeUp,
    /// Also frames whose writes are no rows.
    Wild,
}

/// An image and what was done to it.
struct Edited {
    files: Files,
    kind: Kind,
    flips: u32,
    /// For each byte of each file whether it may be another one; only kept for damage.
    touched: [Vec<bool>; 3],
}

/// Edits one of the images as the bytes say, and opens it; returns whether it opens.
pub(crate) fn check(data: &[u8]) -> bool {
    static IMAGES: OnceLock<[Image; 3]> = OnceLock::new();
    let images = IMAGES.get_or_init(image::all);
    let mut input = Input::of(data);
    let image = &images[usize::from(input.byte()) % images.len()];
    let edited = edit(image, &mut input);
    let machine = Machine::of(edited.files.clone());
    let result = machine.open();
    let is_open = result.is_ok();
    match result {
        Ok(store) => opened(image, &edited, &machine, store),
        Err(error) => refused(image, &edited, &machine, &error),
    }
    is_open
}

/// The segments are as they were, and with the sound ones the store opens and has every row.
fn refused(image: &Image, edited: &Edited, machine: &Machine, error: &Error) {
    assert!(matches!(error, Error::Damaged { .. }), "a store is refused for its log with {error:?}");
    let [store, first, second] = machine.files();
    assert!([&first, &second] == [&edited.files[1], &edited.files[2]], "a refused log was changed: {error}");
    let [_, first, second] = image.files.clone();
    let store = Machine::of([store, first, second]).open().expect("a refused store opens with its own log");
    let rows = rows(&store);
    assert_eq!(rows.len() as u64, image.rows, "a refused store lost rows: {error}");
}

fn opened(image: &Image, edited: &Edited, machine: &Machine, store: Store) {
    let mut findings = Findings::default();
    let snapshot = store.snapshot().expect("an open store has a snapshot");
    let checked = records(&snapshot, &mut findings);
    drop(snapshot);
    if edited.kind == Kind::Wild {
        return;
    }
    checked.expect("a sound store is checked to its end");
    assert_eq!(findings.total, 0, "{:?}", findings.shown);
    let before = rows(&store);
    if edited.kind == Kind::Damaged {
        has_what_was_acknowledged(image, edited, &before);
    }
    image::write(&store, AFTER).expect("a store takes rows after its recovery");
    let killed = Machine::of(machine.files());
    drop(store);
    let after = rows(&killed.open().expect("a store opens again after its recovery and a kill"));
    assert!(after.iter().eq(before.iter().chain([&row(AFTER)])), "{after:?} after a kill with {before:?} and one more");
}

/// Rows are missing only at the end, and only those whose frames were lost with everything behind them.
fn has_what_was_acknowledged(image: &Image, edited: &Edited, found: &[(String, u64)]) {
    let expected: Vec<_> = (1..=found.len() as u64).map(row).collect();
    assert_eq!(found, expected, "rows of a damaged store");
    let is_touched = |place: &&image::Place| edited.touched[place.file][place.bytes.clone()].contains(&true);
    let missing = image.rows - found.len() as u64;
    let lost = image.places.iter().filter(|place| place.row > found.len() as u64);
    assert_eq!(lost.filter(is_touched).count() as u64, missing, "{missing} rows are missing");
}

fn rows(store: &Store) -> Vec<(String, u64)> {
    let rows = store.snapshot().and_then(|snapshot| image::rows(&snapshot));
    rows.expect("the rows of an open store can be read")
}

fn row(number: u64) -> (String, u64) {
    (image::name(number), number)
}

fn edit(image: &Image, input: &mut Input<'_>) -> Edited {
    let files = image.files.clone();
    let touched = files.clone().map(|file| vec![false; file.len()]);
    let mut edited = Edited { files, kind: Kind::Damaged, flips: 0, touched };
    let choice = input.byte();
    let kinds = if choice >= 128 { KINDS } else { KINDS_OF_DAMAGE };
    for _ in 0..=choice % EDITS_MAX {
        let (choice, file) = (input.byte(), 1 + usize::from(input.byte() % 2));
        let bytes = edited.files[file].len();
        match choice % kinds {
            0 => edited.flip(file, input.below(bytes), input.byte() % 8),
            1 => edited.lose(file, input.below(bytes / SECTOR_BYTES), usize::from(input.byte() % 8)),
            // A lost end decides what comes of the store, whatever else happens to it.
            2 if !input.byte().is_multiple_of(8) => edited.lose(file, place(input, bytes) / SECTOR_BYTES, 0),
            2 => edited.truncate(file, input.below(bytes)),
            3 => {
                let (at, length) = (input.below(bytes), usize::from(input.byte()));
                edited.put(Kind::MadeUp, file, at, input.take(length));
            }
            4 => {
                let frame = log::frame(image.store, numbers(image, input), &log::writes(&writes(input)));
                edited.put(Kind::MadeUp, file, place(input, bytes), &frame);
            }
            5 => {
                let writes = input.take(600);
                let frame = log::frame(image.store, numbers(image, input), writes);
                edited.put(Kind::Wild, file, place(input, bytes), &frame);
            }
            6 => edited.copy(file, input),
            _ => {
                let store = if input.byte().is_multiple_of(4) { 1 } else { image.store };
                let length = if input.byte().is_multiple_of(4) { u64::MAX } else { input.below(1 << 16) as u64 };
                edited.put(Kind::MadeUp, file, 0, &header(store, length));
            }
        }
    }
    edited
}

impl Edited {
    fn flip(&mut self, file: usize, at: usize, bit: u8) {
        let Some(byte) = self.files[file].get_mut(at) else { return };
        *byte ^= 1 << bit;
        self.touched[file][at] = true;
        self.flips += 1;
        if self.flips > FLIPS_MAX {
            self.raise(Kind::MadeUp);
        }
    }

    /// A write of whole sectors that never reached the disk.
    fn lose(&mut self, file: usize, sector: usize, more: usize) {
        let begin = (sector * SECTOR_BYTES).min(self.files[file].len());
        let end = (begin + (1 + more) * SECTOR_BYTES).min(self.files[file].len());
        self.files[file][begin..end].fill(0);
        self.touched[file][begin..end].fill(true);
    }

    fn truncate(&mut self, file: usize, bytes: usize) {
        self.touched[file][bytes..].fill(true);
        self.files[file].truncate(bytes);
    }

    fn put(&mut self, kind: Kind, file: usize, at: usize, bytes: &[u8]) {
        let room = &mut self.files[file][at..];
        let bytes = &bytes[..bytes.len().min(room.len())];
        room[..bytes.len()].copy_from_slice(bytes);
        self.raise(kind);
    }

    /// Sectors to another place, of either segment.
    fn copy(&mut self, from: usize, input: &mut Input<'_>) {
        let to = 1 + usize::from(input.byte() % 2);
        let sectors = |file: &Vec<u8>| file.len() / SECTOR_BYTES;
        let begin = input.below(sectors(&self.files[from])) * SECTOR_BYTES;
        let end = (begin + (1 + usize::from(input.byte() % 8)) * SECTOR_BYTES).min(self.files[from].len());
        let copied = self.files[from][begin..end].to_vec();
        let at = input.below(sectors(&self.files[to])) * SECTOR_BYTES;
        self.put(Kind::MadeUp, to, at, &copied);
    }

    fn raise(&mut self, kind: Kind) {
        self.kind = self.kind.max(kind);
    }
}

/// Generation, sequence and synced through, near those of the newest frame.
fn numbers(image: &Image, input: &mut Input<'_>) -> [u64; 3] {
    let mut near = |number: u64| number.saturating_add(4).saturating_sub(u64::from(input.byte() % 8));
    [near(image.generation), near(image.sequence), near(image.sequence)]
}

/// Where a frame goes: mostly where one could be.
fn place(input: &mut Input<'_>, bytes: usize) -> usize {
    let choice = input.byte();
    let sectors = if choice < 128 { 4 } else { 32 };
    let at = START + input.below(sectors) * SECTOR_BYTES;
    if choice.is_multiple_of(16) { input.below(bytes) } else { at.min(bytes) }
}

/// Rows as a store could have written them.
fn writes(input: &mut Input<'_>) -> Vec<Write> {
    let count = input.byte() % 4;
    (0..count).map(|_| made_up(u64::from(input.byte()), input.byte())).collect()
}

fn made_up(number: u64, choice: u8) -> Write {
    let key = image::name(number).into_bytes();
    let value = (!choice.is_multiple_of(4)).then(|| seal(RUN_KEYS, &key, &number.to_be_bytes()));
    (RUN_KEYS, key, value)
}

/// A value with its checksum.
fn seal(table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let place = [&[table][..], &(key.len() as u32).to_be_bytes(), key, value].concat();
    [value, &crc32c::crc32c(&place).to_be_bytes()].concat()
}

/// A segment's header.
fn header(store: u64, bytes: u64) -> Vec<u8> {
    let fields = [&b"nm-log\0\x02"[..], &store.to_le_bytes(), &bytes.to_le_bytes()].concat();
    let checksum = crc32c::crc32c(&fields).to_le_bytes();
    [&fields[..], &checksum].concat()
}
