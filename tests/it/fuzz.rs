//! The fuzz targets of `fuzz/` over seeded random inputs: so they are compiled and run with the tests, and find without
//! a fuzzer what random bytes find. `NIGHTMAIL_FUZZ=100000` is a large size; `NIGHTMAIL_SEED` replays the inputs.

#[path = "../../fuzz/checks/frame.rs"]
mod frame;
#[path = "../../fuzz/checks/image.rs"]
mod image;
#[path = "../../fuzz/checks/input.rs"]
mod input;
#[path = "../../fuzz/checks/log.rs"]
mod log;
#[path = "../../fuzz/checks/memory.rs"]
mod memory;
#[path = "../../fuzz/checks/record.rs"]
mod record;
#[path = "../../fuzz/checks/recovery.rs"]
mod recovery;

use std::cell::Cell;

use crate::harness::{Rng, say, size};

/// Calls a target with random bytes of random lengths, half of them with small numbers, as choices and lengths are.
fn run(inputs: u32, bytes_max: u64, target: impl Fn(&[u8])) {
    let mut rng = Rng::new();
    for _ in 0..inputs {
        let (bytes, small) = (rng.below(bytes_max), rng.below(2) == 0);
        let data: Vec<u8> = (0..bytes).map(|_| rng.below(if small { 32 } else { 256 }) as u8).collect();
        target(&data);
    }
}

#[test]
fn bytes_that_are_no_row_are_refused_and_rows_keep_their_meaning() {
    run(size("NIGHTMAIL_FUZZ", 20_000), 400, record::check);
}

#[test]
fn the_frames_of_a_segment_are_those_that_were_written() {
    run(size("NIGHTMAIL_FUZZ", 2_000), 1_500, frame::check);
}

#[test]
fn a_store_with_a_damaged_log_is_refused_unchanged_or_has_what_was_acknowledged() {
    let (inputs, opened) = (size("NIGHTMAIL_FUZZ", 1_000), Cell::new(0));
    run(inputs, 100, |data| opened.set(opened.get() + u32::from(recovery::check(data))));
    let refused = inputs - opened.get();
    say(format_args!("{} opened, {refused} refused", opened.get()));
    assert!(opened.get().min(refused) > inputs / 10, "the inputs reach only one of both");
}
