//! Frames of the log from arbitrary content of a segment.

#![no_main]

#[path = "../checks/frame.rs"]
mod frame;
#[path = "../checks/input.rs"]
mod input;
#[path = "../checks/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frame::check(data));
