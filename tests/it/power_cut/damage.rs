//! Files that something else has spoilt: a clear refusal, never a panic and never an empty store.

use std::sync::Arc;

use nightmail::store::{self, Store};

use super::disk::{RecordingDisk, open};
use super::workload::{Recording, whole};
use crate::stage::{say, seed};

/// At how many lengths the file is cut off.
const LENGTHS: usize = 100;

fn open_bytes(bytes: Vec<u8>) -> Result<Store, store::Error> {
    open(Arc::new(RecordingDisk::holding(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_off_is_refused_or_whole_and_never_an_empty_store() {
    let recording = Recording::make(seed(), 200).await;
    let (file, right) = (recording.end(), recording.states.last().unwrap());
    let mut refused = 0;
    for nth in 1..=LENGTHS {
        let length = file.len() * nth / (LENGTHS + 1);
        match open_bytes(file[..length].to_vec()) {
            Err(error @ (store::Error::Damaged { .. } | store::Error::Open { .. })) => {
                assert!(error.to_string().contains("(disk)"), "{length} bytes: {error}");
                refused += 1;
            }
            Err(error) => panic!("{length} of {} bytes: {error:?}", file.len()),
            Ok(store) => {
                let found = whole(&store.snapshot().unwrap());
                assert!(found == *right, "{length} of {} bytes open as something else", file.len());
            }
        }
    }
    say(format_args!("{refused} of {LENGTHS} lengths are refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_never_ends_the_start_in_a_panic() {
    let file = Recording::make(seed(), 200).await.end();
    let (mut refused, mut opened) = (0, 0);
    for at in (0..file.len()).step_by(701) {
        let mut bytes = file.clone();
        bytes[at] ^= 0x10;
        match open_bytes(bytes) {
            Err(error) => {
                assert!(error.to_string().contains("(disk)"), "byte {at}: {error}");
                refused += 1;
            }
            Ok(_) => opened += 1,
        }
    }
    assert!(refused > 0, "no flipped bit was noticed");
    say(format_args!("{refused} flipped bits are refused at the start, {opened} are not looked at there"));
}
