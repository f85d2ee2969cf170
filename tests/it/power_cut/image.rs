//! Builds what the disks may hold after a power cut, and checks what the store makes of it.

use std::sync::Arc;

use nightmail::store;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::disk::{Bytes, Call, Change, DISKS, Machine, apply, open};
use super::recording::Recording;
use super::recovery::Meddle;
use super::workload::whole;

/// A disk writes this many bytes atomically.
const SECTOR_BYTES: usize = 512;
/// The disks' bytes are saved after every so many calls, so that an image starts from the nearest copy.
const KEPT_EVERY: usize = 512;

/// The moments at which the power may be cut.
pub(super) struct Cuts {
    kept: Vec<Kept>,
    /// How a faulty recovery is simulated: a change of the image before it is read.
    meddle: Option<Meddle>,
}

/// The disks after some of the calls.
struct Kept {
    calls: usize,
    /// What is durable.
    bytes: Bytes,
    /// The calls that are not, by their indices.
    unsynced: Vec<usize>,
}

/// The result of one image.
#[derive(Debug)]
pub(super) struct Found {
    /// Whether the power was cut again during recovery.
    pub(super) was_cut_again: bool,
}

impl Cuts {
    pub(super) fn of(recording: &Recording) -> Self {
        let mut bytes = recording.start.clone();
        let mut unsynced: Vec<usize> = Vec::new();
        let mut kept = vec![Kept { calls: 0, bytes: bytes.clone(), unsynced: Vec::new() }];
        for (at, call) in recording.calls.iter().enumerate() {
            unsynced.push(at);
            if matches!(call.change, Change::Sync) {
                let (own, others) = unsynced.into_iter().partition(|at| recording.calls[*at].disk == call.disk);
                unsynced = others;
                Vec::into_iter(own).for_each(|at| apply(&mut bytes, &recording.calls[at]));
            }
            if (at + 1).is_multiple_of(KEPT_EVERY) {
                kept.push(Kept { calls: at + 1, bytes: bytes.clone(), unsynced: unsynced.clone() });
            }
        }
        Self { kept, meddle: None }
    }

    /// The same cuts, with a faulty recovery.
    pub(super) fn meddled(recording: &Recording, meddle: Meddle) -> Self {
        Self { meddle: Some(meddle), ..Self::of(recording) }
    }

    /// Cuts the power after `cut` calls, opens what the disks may hold then, and compares.
    pub(super) fn try_one(&self, recording: &Recording, cut: usize, rng: &mut StdRng) -> Result<Found, String> {
        let Kept { calls, bytes, unsynced } = &self.kept[self.kept.partition_point(|kept| kept.calls <= cut) - 1];
        let waiting = unsynced.iter().map(|at| &recording.calls[*at]);
        let waiting: Vec<&Call> = waiting.chain(&recording.calls[*calls..cut]).collect();
        let (mut image, how) = lose(bytes.clone(), &waiting, rng);
        if let Some(meddle) = self.meddle {
            meddle(&mut image);
        }

        let allowed = recording.allowed(cut);
        let phase = format!("cut after call {cut} of {}, steps {allowed:?}, {how}", recording.calls.len());
        let allowed = &recording.states[allowed];
        let machine = Machine::holding(image.clone());
        let (found, recovery) = content(&machine).map_err(|error| format!("{phase}: does not open: {error}"))?;
        let Some(state) = allowed.iter().find(|state| **state == found) else {
            return Err(format!(
                "{phase}: the store is in no state that it may be in:\n{found}\nallowed: {allowed:#?}"
            ));
        };

        if recovery.is_empty() {
            return Ok(Found { was_cut_again: false });
        }
        let again = rng.random_range(0..=recovery.len());
        let (image, how) = lose(image, &recovery[..again].iter().collect::<Vec<_>>(), rng);
        let phase = format!("{phase}, and again after call {again} of {} of the recovery, {how}", recovery.len());
        let (found, _) = content(&Machine::holding(image)).map_err(|error| format!("{phase}: {error}"))?;
        if found == *state {
            Ok(Found { was_cut_again: true })
        } else {
            Err(format!("{phase}: another state:\n{found}"))
        }
    }
}

/// Opens the store and dumps its content; returns it and the calls of opening and closing.
fn content(machine: &Arc<Machine>) -> Result<(String, Vec<Call>), store::Error> {
    let store = open(machine)?;
    let found = whole(&store.snapshot()?);
    drop(store);
    Ok((found, machine.take_calls()))
}

/// What the disks may hold when the power is cut after these calls: on each disk all that was synced, and any part of
/// what was not.
pub(super) fn lose(mut bytes: Bytes, calls: &[&Call], rng: &mut StdRng) -> (Bytes, String) {
    let mut hows = Vec::new();
    for disk in DISKS {
        let own: Vec<&Call> = calls.iter().copied().filter(|call| call.disk == disk).collect();
        let synced = own.iter().rposition(|call| call.is_sync_of(disk)).map_or(0, |at| at + 1);
        let (safe, unsynced) = own.split_at(synced);
        safe.iter().for_each(|call| apply(&mut bytes, call));
        let (kept, how) = survive(unsynced.iter().copied().cloned().collect(), rng);
        kept.iter().for_each(|call| apply(&mut bytes, call));
        hows.push(format!("disk {disk}: {how}"));
    }
    (bytes, hows.join(", "))
}

/// Which of the unsynced calls reach the disk.
fn survive(mut calls: Vec<Call>, rng: &mut StdRng) -> (Vec<Call>, &'static str) {
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
    (calls, how)
}

/// Keeps only some sectors of a write.
fn tear(calls: &mut Vec<Call>, rng: &mut StdRng) {
    if calls.is_empty() {
        return;
    }
    let at = rng.random_range(0..calls.len());
    let Call { disk, change: Change::Write { offset, data } } = calls[at].clone() else { return };
    let sectors = data.chunks(SECTOR_BYTES).enumerate().filter(|_| rng.random_bool(0.5));
    let kept = sectors.map(|(sector, data)| {
        let change = Change::Write { offset: offset + sector * SECTOR_BYTES, data: data.to_vec() };
        Call { disk, change }
    });
    let kept: Vec<Call> = kept.collect();
    calls.splice(at..=at, kept);
}
