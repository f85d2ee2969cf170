//! Damaged files: a clear refusal, never a panic, never an empty store and never different content.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nightmail::store::{self, Store, check};

use super::disk::{Bytes, LOG, Machine, STORE, open};
use super::workload::{Recording, whole};
use crate::harness::{say, seed};
use crate::support::unsound;

/// The number of lengths at which a file is truncated.
const LENGTHS: usize = 100;
/// The distance between flipped bits, in bytes; odd, so that every bit position is tested.
const STRIDE: usize = 601;

fn open_bytes(bytes: Bytes) -> Result<Store, store::Error> {
    open(&Machine::holding(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_off_is_refused_or_whole_and_never_an_empty_store() {
    let recording = Recording::make(seed(), 200).await;
    let (files, right) = (recording.end(), recording.states.last().unwrap());
    for disk in [STORE, LOG] {
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
                    assert!(found == *right, "{length} of {} bytes open as something else", files[disk].len());
                }
            }
        }
        say(format_args!("disk {disk}: {refused} of {} lengths are refused", LENGTHS + 1));
    }
}

/// The result of opening a file with one flipped bit.
#[derive(Debug)]
enum Became {
    Refused,
    Same,
    Told,
    Other,
}

fn became(bytes: Bytes, right: &str) -> Became {
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
    match unsound(&snapshot) {
        0 if whole(&snapshot) == right => Became::Same,
        0 if pages.is_ok() => Became::Other,
        _ => Became::Told,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_refused_told_by_a_check_or_harmless_and_never_other_content() {
    let recording = Recording::make(seed(), 200).await;
    let (files, right) = recording.with_the_fullest_log();
    assert_eq!(check::pages(&*Machine::holding(files.clone()).disk(STORE)), Ok(()));
    for disk in [STORE, LOG] {
        let (mut refused, mut same, mut told) = (0, 0, 0);
        for at in (0..files[disk].len()).step_by(STRIDE) {
            let mut bytes = files.clone();
            bytes[disk][at] ^= 1 << (at % 8);
            match catch_unwind(AssertUnwindSafe(|| became(bytes, right))) {
                Ok(Became::Refused) => refused += 1,
                Ok(Became::Same) => same += 1,
                Ok(Became::Told) => told += 1,
                Ok(Became::Other) => panic!("disk {disk}, byte {at}: other content"),
                Err(_) => panic!("disk {disk}, byte {at}: a panic"),
            }
        }
        assert!(refused + told > 0, "disk {disk}: no flipped bit was noticed");
        say(format_args!(
            "disk {disk}: of the flipped bits {refused} are refused, {told} told by a check, {same} harmless"
        ));
    }
}
