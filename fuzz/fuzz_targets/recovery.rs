//! Recovery over segments that were damaged or made up.

#![no_main]

#[path = "../checks/image.rs"]
mod image;
#[path = "../checks/input.rs"]
mod input;
#[path = "../checks/log.rs"]
mod log;
#[path = "../checks/memory.rs"]
mod memory;
#[path = "../checks/recovery.rs"]
mod recovery;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    recovery::check(data);
});
