//! Power cuts: the engine runs on disks that record every call, and then the power is cut after any of these calls.
//! Unsynced writes are lost, torn or re-ordered. Whatever the disks then hold, the store opens with the state after the
//! last acknowledged step, or after the whole step in flight.
//!
//! `NIGHTMAIL_CRASH_IMAGES` is the number of images (6,000 by default, 1,000,000 on a patient machine);
//! `NIGHTMAIL_SEED` replays them.

mod damage;
mod disk;
mod failing;
mod image;
mod log;
mod workload;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{say, seed, size};
use image::{Cuts, Meddle};
use workload::Recording;

/// The workload's steps.
const STEPS: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn no_power_cut_loses_what_was_acknowledged_or_brings_anything_back() {
    let (seed, images) = (seed(), size("NIGHTMAIL_CRASH_IMAGES", 6000));
    let recording = Recording::make(seed, STEPS).await;
    let cuts = Cuts::of(&recording);
    let (opened, nested) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|threads| {
        for thread in 0..2 {
            let (recording, cuts, opened, nested) = (&recording, &cuts, &opened, &nested);
            threads.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(thread));
                while opened.fetch_add(1, Ordering::Relaxed) < images {
                    let cut = rng.random_range(0..=recording.calls.len());
                    let found = cuts.try_one(recording, cut, &mut rng).unwrap_or_else(|why| panic!("{why}"));
                    nested.fetch_add(u32::from(found.was_cut_again), Ordering::Relaxed);
                }
            });
        }
    });
    let nested = nested.into_inner();
    assert!(nested > 0, "no power cut came while a store was recovering");
    let (steps, calls, checkpoints) = (recording.states.len() - 1, recording.calls.len(), recording.checkpoints());
    assert!(checkpoints >= 10, "{checkpoints} checkpoints are too few");
    say(format_args!(
        "{images} images of {steps} steps, {calls} storage calls and {checkpoints} checkpoints, {nested} of them cut again in recovery"
    ));
}

/// What is faulty: the calls to the disks or the moment of an answer, or the recovery.
enum Fault {
    Of(fn(&mut Recording)),
    OfRecovery(Meddle),
}

/// The test above must detect each of these faults: a test that detects nothing proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_harness_finds_each_of_twelve_faults() {
    use Fault::{Of, OfRecovery};
    let seed = seed();
    let recording = Recording::make_with_checkpoints(seed, 120, 2).await;
    let faults = [
        ("the log's disk only says that it has synced", Of(Recording::forget_syncs)),
        ("every second sync is skipped", Of(Recording::skip_syncs)),
        ("the answer comes before the commit", Of(Recording::answer_early)),
        ("the answer comes after the write and before the sync", Of(Recording::answer_unsynced)),
        ("a step is two records", Of(Recording::split_steps)),
        ("the log starts over before redb's commit is durable", Of(Recording::restart_before_durable)),
        ("the log's header is safe before the checkpoint", Of(Recording::header_first)),
        ("recovery leaves the last record out", OfRecovery(log::forget_last)),
        ("recovery takes a record of an earlier lap", OfRecovery(log::take_earlier_laps)),
        ("recovery looks at no checksum", OfRecovery(log::believe_torn)),
        ("the records lack the counts", OfRecovery(log::lack_counts)),
        ("redb's commits lack the record's number", OfRecovery(log::lack_numbers)),
    ];
    for (name, fault) in faults {
        let mut faulty = recording.clone();
        let cuts = match fault {
            Of(fault) => {
                fault(&mut faulty);
                Cuts::of(&faulty)
            }
            OfRecovery(meddle) => Cuts::meddled(&faulty, meddle),
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let found = (1..=10_000).find(|_| {
            let cut = rng.random_range(0..=faulty.calls.len());
            // redb panics on some files that no power cut can make.
            let tried = std::panic::catch_unwind(AssertUnwindSafe(|| cuts.try_one(&faulty, cut, &mut rng)));
            !matches!(tried, Ok(Ok(_)))
        });
        let images = found.unwrap_or_else(|| panic!("{name}: not found"));
        say(format_args!("{name}: found by image {images}"));
    }
    let cuts = Cuts::of(&recording);
    let mut rng = StdRng::seed_from_u64(seed);
    for cut in 0..=recording.calls.len() {
        cuts.try_one(&recording, cut, &mut rng).unwrap_or_else(|why| panic!("without a fault: {why}"));
    }
}
