//! Rows of every table from arbitrary bytes.

#![no_main]

#[path = "../checks/input.rs"]
mod input;
#[path = "../checks/record.rs"]
mod record;

libfuzzer_sys::fuzz_target!(|data: &[u8]| record::check(data));
