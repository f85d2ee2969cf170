//! From a cut to what the disk may hold then, and whether the store is right about it.

use std::sync::Arc;

use nightmail::store;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::disk::{Call, RecordingDisk, apply, open};
use super::workload::{Recording, whole};

/// A disk writes this many bytes whole.
const SECTOR_BYTES: usize = 512;
/// The disk's bytes are kept at each n-th sync, so that an image is made from the nearest one.
const KEPT_EVERY: usize = 16;

/// Where the power may go.
pub(super) struct Cuts {
    /// What is safe after some of the syncs: the number of calls up to there, and the bytes.
    safe: Vec<(usize, Vec<u8>)>,
}

/// What became of one image.
#[derive(Debug)]
pub(super) struct Found {
    /// Whether the power went again while the store was recovering.
    pub(super) was_cut_again: bool,
}

impl Cuts {
    pub(super) fn of(recording: &Recording) -> Self {
        let mut bytes = recording.start.clone();
        let mut safe = vec![(0, bytes.clone())];
        let mut syncs = 0;
        for (at, call) in recording.calls.iter().enumerate() {
            apply(&mut bytes, call);
            if matches!(call, Call::Sync) {
                syncs += 1;
                if syncs % KEPT_EVERY == 0 {
                    safe.push((at + 1, bytes.clone()));
                }
            }
        }
        Self { safe }
    }

    /// Cuts the power after `cut` calls, opens what the disk may hold then, and compares.
    pub(super) fn try_one(&self, recording: &Recording, cut: usize, rng: &mut StdRng) -> Result<Found, String> {
        let before = &recording.calls[..cut];
        let synced = before.iter().rposition(|call| matches!(call, Call::Sync)).map_or(0, |at| at + 1);
        let nearest = self.safe.partition_point(|(at, _)| *at <= synced) - 1;
        let (from, bytes) = &self.safe[nearest];
        let mut bytes = bytes.clone();
        before[*from..synced].iter().for_each(|call| apply(&mut bytes, call));
        let (image, how) = lose(&bytes, &before[synced..], rng);

        let acknowledged = recording.acknowledged(cut);
        let allowed = &recording.states[acknowledged..recording.states.len().min(acknowledged + 2)];
        let place = format!("cut after call {cut} of {}, step {acknowledged}, {how}", recording.calls.len());
        let disk = Arc::new(RecordingDisk::holding(image.clone()));
        let found = content(&disk).map_err(|error| format!("{place}: does not open: {error}"))?;
        let Some(state) = allowed.iter().find(|state| **state == found) else {
            return Err(format!(
                "{place}: the store is in no state that it may be in:\n{found}\nallowed: {allowed:#?}"
            ));
        };

        let recovery = disk.take_calls();
        if recovery.is_empty() {
            return Ok(Found { was_cut_again: false });
        }
        let again = rng.random_range(0..=recovery.len());
        let synced = recovery[..again].iter().rposition(|call| matches!(call, Call::Sync)).map_or(0, |at| at + 1);
        let mut bytes = image;
        recovery[..synced].iter().for_each(|call| apply(&mut bytes, call));
        let (image, how) = lose(&bytes, &recovery[synced..again], rng);
        let place = format!("{place}, and again after call {again} of {} of the recovery, {how}", recovery.len());
        let found = content(&Arc::new(RecordingDisk::holding(image))).map_err(|error| format!("{place}: {error}"))?;
        if found == *state {
            Ok(Found { was_cut_again: true })
        } else {
            Err(format!("{place}: another state:\n{found}"))
        }
    }
}

/// Opens the store and writes down all that is in it.
fn content(disk: &Arc<RecordingDisk>) -> Result<String, store::Error> {
    let store = open(disk.clone())?;
    let found = whole(&store.snapshot()?);
    Ok(found)
}

/// What the disk may hold when the power goes while these calls are not synced.
fn lose(safe: &[u8], unsynced: &[Call], rng: &mut StdRng) -> (Vec<u8>, &'static str) {
    let mut bytes = safe.to_vec();
    let mut calls = unsynced.to_vec();
    let how = match rng.random_range(0..6) {
        0 => {
            calls.clear();
            "all of it lost"
        }
        1 => "none of it lost",
        2 => {
            calls.retain(|_| rng.random_bool(0.5));
            "some of it lost"
        }
        3 => {
            calls.shuffle(rng);
            calls.retain(|_| rng.random_bool(0.7));
            "some of it lost, the rest in another order"
        }
        4 => {
            tear(&mut calls, rng);
            "torn"
        }
        _ => {
            calls.retain(|_| rng.random_bool(0.7));
            tear(&mut calls, rng);
            "some of it lost, some torn"
        }
    };
    calls.iter().for_each(|call| apply(&mut bytes, call));
    (bytes, how)
}

/// Keeps only some sectors of one write.
fn tear(calls: &mut Vec<Call>, rng: &mut StdRng) {
    if calls.is_empty() {
        return;
    }
    let at = rng.random_range(0..calls.len());
    let Call::Write { offset, data } = calls[at].clone() else { return };
    let sectors = data.chunks(SECTOR_BYTES).enumerate().filter(|_| rng.random_bool(0.5));
    let kept =
        sectors.map(|(sector, data)| Call::Write { offset: offset + sector * SECTOR_BYTES, data: data.to_vec() });
    let kept: Vec<Call> = kept.collect();
    calls.splice(at..=at, kept);
}
