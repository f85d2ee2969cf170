//! Power cuts: the engine works on a disk that keeps every call, and then every moment of that work is a place where the
//! power goes. What was not synced by then is lost, torn, or there in another order. Whatever the disk then holds, the
//! store opens and is what it was after the last acknowledged step, or after the one in flight, whole.
//!
//! `NIGHTMAIL_CRASH_IMAGES` is the number of images (6,000 by default, 1,000,000 on a patient machine);
//! `NIGHTMAIL_SEED` replays them.

mod damage;
mod disk;
mod failing;
mod image;
mod workload;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::stage::{say, seed, size};
use image::Cuts;
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
    let (steps, calls) = (recording.states.len() - 1, recording.calls.len());
    say(format_args!(
        "{images} images of {steps} steps and {calls} storage calls, {nested} of them cut again in recovery"
    ));
}

/// Each of these is a fault that the test above must see: a harness that sees nothing proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_harness_finds_a_skipped_sync_an_early_answer_and_a_move_in_two_commits() {
    let seed = seed();
    let recording = Recording::make(seed, 60).await;
    type Fault = fn(&mut Recording);
    let faults: [(&str, Fault); 4] = [
        ("a disk that only says that it has synced", Recording::forget_syncs),
        ("every second sync is skipped", Recording::skip_syncs),
        ("the answer comes before the commit", Recording::answer_early),
        ("a step is two commits", Recording::split_steps),
    ];
    for (name, fault) in faults {
        let mut faulty = recording.clone();
        fault(&mut faulty);
        let cuts = Cuts::of(&faulty);
        let mut rng = StdRng::seed_from_u64(seed);
        let is_found = (0..4000).any(|_| {
            let cut = rng.random_range(0..=faulty.calls.len());
            // redb panics on some files that no power cut can make.
            let tried = std::panic::catch_unwind(AssertUnwindSafe(|| cuts.try_one(&faulty, cut, &mut rng)));
            !matches!(tried, Ok(Ok(_)))
        });
        assert!(is_found, "{name}: not found");
    }
    let cuts = Cuts::of(&recording);
    let mut rng = StdRng::seed_from_u64(seed);
    for cut in 0..=recording.calls.len() {
        cuts.try_one(&recording, cut, &mut rng).unwrap_or_else(|why| panic!("without a fault: {why}"));
    }
}
