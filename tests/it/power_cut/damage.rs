//! Damaged files: a clear refusal, never a panic, never an empty store and never different content.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nightmail::store::{self, Store, check};

use super::disk::{Bytes, DISKS, LOGS, Machine, STORE, open};
use super::faults::Begin;
use super::log;
use super::recording::Recording;
use super::workload::whole;
use crate::harness::{say, seed};
use crate::support::unsound;

/// The number of lengths at which a file is truncated.
const LENGTHS: usize = 100;
/// The number of steps before the damage.
const STEPS: usize = 200;

/// The distance between flipped bits, in bytes; odd, so that every bit position is tested.
fn stride(disk: usize) -> usize {
    if disk == STORE { 601 } else { 37 }
}

fn open_bytes(bytes: Bytes) -> Result<Store, store::Error> {
    open(&Machine::holding(bytes))
}

fn content(bytes: Bytes) -> String {
    whole(&open_bytes(bytes).unwrap().snapshot().unwrap())
}

/// A store's files after a kill, what they hold, and what they would hold without the last frame.
struct Killed {
    files: Bytes,
    right: String,
    before: String,
    /// The segment that holds the last frame, and where that stands.
    last: (usize, std::ops::Range<usize>),
}

impl Killed {
    fn after(recording: &Recording, calls: usize) -> Self {
        let files = recording.after(calls);
        let right = content(files.clone());
        let mut allowed = recording.states[recording.allowed(calls)].iter();
        assert!(allowed.any(|state| *state == right), "the undamaged files hold another state");
        let (disk, last) = log::last_frame(&files).unwrap();
        let mut without = files.clone();
        without[disk][last.at..].fill(0);
        let last = (disk, last.at..last.end());
        Self { before: content(without), files, right, last }
    }

    /// At the moment when the log holds most, with a mark behind its last frame.
    fn with_a_mark(recording: &Recording) -> Self {
        let marks = recording.calls.iter().enumerate().filter_map(|(at, call)| Some((at, log::mark_at(call)?)));
        let (at, _) = marks.max_by_key(|(_, mark)| *mark).unwrap();
        Self::after(recording, at + 1)
    }

    /// While a checkpoint is being made, so that both segments hold what redb lacks; with a mark behind the last frame.
    fn amid_a_checkpoint(recording: &Recording) -> Self {
        let calls = &recording.calls;
        let marked = Begin::all(calls).filter_map(|Begin { last_before, sync, .. }| {
            let mark = sync + calls[sync..].iter().position(|call| log::mark_at(call).is_some())?;
            let is_under_way = !calls[last_before..mark].iter().any(|call| call.is_sync_of(STORE));
            is_under_way.then_some(mark)
        });
        let mark = marked.last().expect("a generation begins while the checkpoint of the one before is being made");
        Self::after(recording, mark + 1)
    }

    /// At the moment when the log holds most, before the mark.
    fn without_a_mark(recording: &Recording) -> Self {
        let frames = recording.calls.iter().enumerate().filter_map(|(at, call)| Some((at, log::frame_at(call)?)));
        let (at, _) = frames.max_by_key(|(_, frame)| *frame).unwrap();
        Self::after(recording, at + 1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_off_is_refused_or_whole_and_never_an_empty_store() {
    let recording = Recording::make(seed(), STEPS).await;
    let Killed { files, right, .. } = Killed::with_a_mark(&recording);
    for disk in DISKS {
        let mut refused = 0;
        for nth in 0..=LENGTHS {
            let mut cut = files.clone();
            let length = files[disk].len() * nth / (LENGTHS + 1);
            cut[disk].truncate(length);
            match open_bytes(cut) {
                Err(error @ (store::Error::Damaged { .. } | store::Error::Open { .. })) => {
                    assert!(error.to_string().contains("(disk)"), "{length} bytes: {error}");
                    refused += 1;
                }
                Err(error) => panic!("{length} of {} bytes: {error:?}", files[disk].len()),
                Ok(store) => {
                    let found = whole(&store.snapshot().unwrap());
                    assert!(found == right, "{length} of {} bytes open as something else", files[disk].len());
                }
            }
        }
        // A segment is never shorter than it was.
        assert!(disk == STORE || refused == LENGTHS + 1, "disk {disk}: {refused} lengths are refused");
        say(format_args!("disk {disk}: {refused} of {} lengths are refused", LENGTHS + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_closed_needs_nothing_of_its_log() {
    let recording = Recording::make(seed(), STEPS / 4).await;
    let machine = Machine::holding(recording.after(recording.calls.len()));
    drop(open(&machine).unwrap());
    let (files, right) = (machine.content(), recording.states.last().unwrap());
    for disk in LOGS {
        for length in (0..=LENGTHS).map(|nth| files[disk].len() * nth / LENGTHS) {
            let mut cut = files.clone();
            cut[disk].truncate(length);
            assert!(content(cut) == *right, "disk {disk} with {length} bytes");
        }
        for at in (0..files[disk].len()).step_by(stride(disk)) {
            let mut flipped = files.clone();
            flipped[disk][at] ^= 1 << (at % 8);
            assert!(content(flipped) == *right, "disk {disk}, byte {at}");
        }
    }
}

/// The result of opening a file with one flipped bit.
#[derive(Debug)]
enum Became {
    Refused,
    Same,
    Told,
    /// The last frame looks torn.
    Torn,
    Other,
}

fn became(bytes: Bytes, killed: &Killed) -> Became {
    let machine = Machine::holding(bytes);
    // As `nightmail store check` does, before anything writes to the file.
    let pages = check::pages(&*machine.disk(STORE));
    let store = match open(&machine) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains("(disk)"), "{error}");
            return Became::Refused;
        }
    };
    let snapshot = store.snapshot().unwrap();
    if unsound(&snapshot) > 0 {
        return Became::Told;
    }
    let found = whole(&snapshot);
    if found == killed.right {
        return Became::Same;
    }
    // A damaged page may hide rows, which a check finds. It never shows others.
    let rows: BTreeSet<&str> = killed.right.lines().collect();
    match pages {
        Err(_) if found.lines().all(|row| rows.contains(row)) => Became::Told,
        Ok(()) if found == killed.before => Became::Torn,
        _ => Became::Other,
    }
}

/// Flips bits of one disk, and returns the places at which the last frame looked torn.
fn flip_bits(disk: usize, killed: &Killed) -> Vec<usize> {
    let (mut refused, mut same, mut told, mut torn) = (0, 0, 0, Vec::new());
    for at in (0..killed.files[disk].len()).step_by(stride(disk)) {
        let mut bytes = killed.files.clone();
        bytes[disk][at] ^= 1 << (at % 8);
        match catch_unwind(AssertUnwindSafe(|| became(bytes, killed))) {
            Ok(Became::Refused) => refused += 1,
            Ok(Became::Same) => same += 1,
            Ok(Became::Told) => told += 1,
            Ok(Became::Torn) => torn.push(at),
            Ok(Became::Other) => panic!("disk {disk}, byte {at}: other content"),
            Err(_) => panic!("disk {disk}, byte {at}: a panic"),
        }
    }
    assert!(refused + told + torn.len() > 0, "disk {disk}: no flipped bit was noticed");
    say(format_args!(
        "disk {disk}: of the flipped bits {refused} are refused, {told} told by a check, {same} harmless, {} look like a \
         torn end",
        torn.len()
    ));
    torn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_refused_told_by_a_check_or_harmless_and_never_other_content() {
    let recording = Recording::make(seed(), STEPS).await;
    let killed = Killed::with_a_mark(&recording);
    assert_eq!(check::pages(&*Machine::holding(killed.files.clone()).disk(STORE)), Ok(()));
    for disk in DISKS {
        assert_eq!(flip_bits(disk, &killed), [0; 0], "disk {disk}: a mark shows that the last frame was on disk");
    }
    let killed = Killed::amid_a_checkpoint(&recording);
    for disk in LOGS {
        assert_eq!(flip_bits(disk, &killed), [0; 0], "disk {disk}: a mark shows that the last frame was on disk");
    }
    let killed = Killed::without_a_mark(&recording);
    for disk in LOGS {
        let torn = flip_bits(disk, &killed);
        let (last_disk, last) = &killed.last;
        assert!(disk == *last_disk || torn.is_empty(), "disk {disk}: {torn:?}");
        assert!(torn.iter().all(|at| last.contains(at)), "disk {disk}: {torn:?} of {last:?}");
    }
}
