//! Power cuts: the engine runs on disks that record every call, and then the power is cut after any of these calls.
//! Unsynced writes are lost, torn or re-ordered, on each disk by itself. Whatever the disks then hold, the store opens
//! with the state after the last acknowledged step, or after the whole step in flight; and with no earlier state than
//! anybody was shown.
//!
//! `NIGHTMAIL_CRASH_IMAGES` is the number of images (6,000 by default, 1,000,000 on a patient machine);
//! `NIGHTMAIL_SEED` replays them.

mod damage;
mod disk;
mod failing;
mod faults;
mod image;
mod lives;
pub(crate) mod log;
mod recording;
mod recovery;
mod watch;
mod workload;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{say, seed, size};
use image::Cuts;
use recording::Recording;
use recovery::Meddle;
use watch::Viewer;

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
    let (steps, calls, generations) = (recording.states.len() - 1, recording.calls.len(), recording.generations());
    let large = recording.larger_than_a_segment();
    assert!(generations >= 50 && large > 0, "{generations} generations and {large} large groups are too few");
    let seen = |by| recording.seen.iter().filter(|seen| seen.by == by).count();
    let (snapshots, readers) = (seen(Viewer::Snapshot), seen(Viewer::ReadingStep));
    assert!(snapshots >= 100 && readers >= 10, "{snapshots} snapshots and {readers} reading steps are too few");
    say(format_args!(
        "{images} images of {steps} steps, {large} of them larger than a segment, {calls} storage calls and {generations} \
         generations, {nested} of them cut again in recovery; {snapshots} snapshots and {readers} reading steps during \
         syncs"
    ));
}

/// What is faulty: the calls to the disks or the moment of an answer, or the recovery.
enum Fault {
    Of(fn(&mut Recording)),
    OfRecovery(Meddle),
}

/// The test above must detect each of these faults: a test that detects nothing proves nothing. [`lives`] has one more.
const FAULTS: [(&str, Fault); 17] = {
    use Fault::{Of, OfRecovery};
    [
        ("the log's disks only say that they have synced", Of(faults::forget_syncs)),
        ("every second sync is skipped", Of(faults::skip_syncs)),
        ("the answer comes before the commit", Of(faults::answer_early)),
        ("the answer comes after the write and before the sync", Of(faults::answer_unsynced)),
        ("a group that only read is answered before the group that it saw", Of(faults::answer_readers_early)),
        ("a snapshot shows a group that is not synced", Of(faults::show_early)),
        ("a step is two groups", Of(faults::split_steps)),
        ("redb's commits are not durable", Of(faults::forget_checkpoints)),
        ("a segment is used again before redb's commit", Of(faults::reuse_early)),
        ("a generation begins before the last sync of the one before", Of(faults::begin_early)),
        ("recovery leaves the last frame out", OfRecovery(recovery::forget_last)),
        ("recovery looks at no checksum", OfRecovery(recovery::believe_torn)),
        ("a group is two frames", OfRecovery(recovery::take_half)),
        ("the frames lack the counts", OfRecovery(recovery::lack_counts)),
        ("the frames lack the last id", OfRecovery(recovery::lack_last_id)),
        ("a checkpoint covers one frame more than it holds", OfRecovery(recovery::cover_one_more)),
        ("a checkpoint covers one frame less than it holds", OfRecovery(recovery::cover_one_less)),
    ]
};

#[tokio::test(flavor = "multi_thread")]
async fn the_harness_finds_each_of_seventeen_faults() {
    let seed = seed();
    let recording = Recording::make_with_generations(seed, 120, 10).await;
    for (name, fault) in FAULTS {
        let mut faulty = recording.clone();
        let cuts = match fault {
            Fault::Of(fault) => {
                fault(&mut faulty);
                Cuts::of(&faulty)
            }
            Fault::OfRecovery(meddle) => Cuts::meddled(&faulty, meddle),
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let found = (1..=10_000).find_map(|image| {
            let cut = rng.random_range(0..=faulty.calls.len());
            // redb panics on some files that no power cut can make.
            let tried = std::panic::catch_unwind(AssertUnwindSafe(|| cuts.try_one(&faulty, cut, &mut rng)));
            let found = tried.unwrap_or_else(|_| Err("a panic".into())).err()?;
            Some((image, found))
        });
        let (image, why) = found.unwrap_or_else(|| panic!("{name}: not found"));
        let why = why.lines().next().unwrap_or_default();
        say(format_args!("{name}: found by image {image}: {why}"));
    }
    let cuts = Cuts::of(&recording);
    let mut rng = StdRng::seed_from_u64(seed);
    for cut in 0..=recording.calls.len() {
        cuts.try_one(&recording, cut, &mut rng).unwrap_or_else(|why| panic!("without a fault: {why}"));
    }
}
