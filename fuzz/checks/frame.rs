//! The content of a segment: the frames that are found are those that were written, whatever stands behind them.

use nightmail::store::fuzzing::{self, TABLE_COUNT, Write};

use super::input::Input;
use super::log::{self, START};

const STORE: u64 = 7;
const SEGMENT_BYTES: usize = 64 << 10;
/// CRC-32C detects this many flipped bits in a frame of any length.
const FLIPS_MAX: usize = 3;

/// A frame that was written.
#[derive(Debug)]
struct Written {
    /// Generation, sequence, synced through.
    numbers: [u64; 3],
    bytes: Vec<u8>,
    /// Whether the bytes are writes.
    are_writes: bool,
}

/// Reads the bytes as a segment, then as choices of frames that are written into one.
pub(crate) fn check(data: &[u8]) {
    let _ = fuzzing::frames(data.to_vec(), STORE);
    let _ = fuzzing::frames([&[0; START][..], data].concat(), u64::from(data.first().copied().unwrap_or(0)));

    let mut input = Input::of(data);
    let flips = input.below(FLIPS_MAX + 1);
    let places: Vec<(usize, u8)> = (0..flips).map(|_| (input.below(SEGMENT_BYTES), input.byte() % 8)).collect();
    let (mut content, written) = segment(&mut input);
    for (at, bit) in places {
        content[at] ^= 1 << bit;
    }
    let run = run_of(&written);
    let (found, later) = fuzzing::frames(content, STORE);
    assert!(found.len() <= run.len(), "{} frames are found and {} were written", found.len(), run.len());
    assert!(flips > 0 || (found.len(), later) >= (run.len(), written.len() - run.len()), "a frame is not found");
    for (found, written) in found.iter().zip(run) {
        assert_eq!([found.generation, found.sequence, found.synced_through], written.numbers);
        assert_eq!(found.bytes, written.bytes);
        assert!(found.writes.is_some() || !written.are_writes, "writes cannot be read");
        let again = found.writes.as_ref().map(|writes| log::writes(writes));
        assert!(again.is_none_or(|again| again == written.bytes), "writes read as others");
    }
}

/// A segment with frames, most of which follow each other.
fn segment(input: &mut Input<'_>) -> (Vec<u8>, Vec<Written>) {
    let (mut content, mut written) = (vec![0; SEGMENT_BYTES], Vec::new());
    let (mut at, mut numbers) = (START, [1, 0, 0]);
    for _ in 0..input.byte() {
        let choice = input.byte();
        let [generation, sequence, synced_through] = &mut numbers;
        *generation += u64::from(choice.is_multiple_of(16));
        *sequence = sequence.wrapping_add(if choice % 16 == 1 { u64::from(input.byte()) } else { 1 });
        *synced_through = sequence.saturating_sub(u64::from(choice >> 6));
        let are_writes = choice & 32 == 0;
        let bytes = if are_writes { log::writes(&rows(input)) } else { raw(input) };
        if at + log::frame_bytes(bytes.len()) > SEGMENT_BYTES {
            break;
        }
        let frame = log::frame(STORE, numbers, &bytes);
        content[at..at + frame.len()].copy_from_slice(&frame);
        at += log::frame_bytes(bytes.len());
        written.push(Written { numbers, bytes, are_writes });
    }
    (content, written)
}

fn rows(input: &mut Input<'_>) -> Vec<Write> {
    let count = 1 + usize::from(input.byte() % 4);
    let row = |_| {
        let (table, key, value) = (input.byte() % TABLE_COUNT, usize::from(input.byte()), input.byte());
        let value = (value % 4 > 0).then(|| input.take(usize::from(value)).to_vec());
        (table, input.take(key).to_vec(), value)
    };
    (0..count).map(row).collect()
}

fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let bytes = input.below(2_000);
    input.take(bytes).to_vec()
}

/// The frames from the first one on that belong together.
fn run_of(written: &[Written]) -> &[Written] {
    let follows = |pair: &&[Written]| {
        let [[generation, sequence, _], [next_generation, next, _]] = [pair[0].numbers, pair[1].numbers];
        generation == next_generation && sequence.checked_add(1) == Some(next)
    };
    let run = written.windows(2).take_while(follows).count() + 1;
    &written[..run.min(written.len())]
}
