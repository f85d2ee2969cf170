//! Builds what the disks may hold after a power cut, and checks what the store makes of it.

use std::sync::Arc;

use nightmail::store;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::disk::{Bytes, Call, Change, LOG, Machine, STORE, apply, open};
use super::workload::{Recording, whole};

/// A disk writes this many bytes atomically.
const SECTOR_BYTES: usize = 512;
/// The disks' bytes are saved after every so many calls, so that an image starts from the nearest copy.
const KEPT_EVERY: usize = 64;

/// A faulty recovery, simulated by changing the image that the correct recovery reads.
pub(super) type Meddle = fn(&mut Bytes);

/// The moments at which the power may be cut.
pub(super) struct Cuts {
    /// What is durable on each disk after some of the calls: their number, and the bytes.
    safe: Vec<(usize, Bytes)>,
    /// How a faulty recovery is simulated: a change of the image before it is read.
    meddle: Option<Meddle>,
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
        let mut waiting: [Vec<&Call>; 2] = Default::default();
        let mut safe = vec![(0, bytes.clone())];
        for (at, call) in recording.calls.iter().enumerate() {
            waiting[call.disk].push(call);
            if matches!(call.change, Change::Sync) {
                waiting[call.disk].drain(..).for_each(|call| apply(&mut bytes, call));
            }
            // Complete only while nothing is unsynced: unsynced writes may still be lost.
            if waiting.iter().all(Vec::is_empty) && at + 1 >= safe.last().unwrap().0 + KEPT_EVERY {
                safe.push((at + 1, bytes.clone()));
            }
        }
        Self { safe, meddle: None }
    }

    /// The same cuts, with a faulty recovery.
    pub(super) fn meddled(recording: &Recording, meddle: Meddle) -> Self {
        Self { meddle: Some(meddle), ..Self::of(recording) }
    }

    /// Cuts the power after `cut` calls, opens what the disks may hold then, and compares.
    pub(super) fn try_one(&self, recording: &Recording, cut: usize, rng: &mut StdRng) -> Result<Found, String> {
        let nearest = self.safe.partition_point(|(at, _)| *at <= cut) - 1;
        let (from, bytes) = &self.safe[nearest];
        let (mut image, how) = lose(bytes.clone(), &recording.calls[*from..cut], rng);
        if let Some(meddle) = self.meddle {
            meddle(&mut image);
        }

        let acknowledged = recording.acknowledged(cut);
        let allowed = &recording.states[acknowledged..recording.states.len().min(acknowledged + 2)];
        let phase = format!("cut after call {cut} of {}, step {acknowledged}, {how}", recording.calls.len());
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
        let (image, how) = lose(image, &recovery[..again], rng);
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
fn lose(mut bytes: Bytes, calls: &[Call], rng: &mut StdRng) -> (Bytes, String) {
    let mut hows = Vec::new();
    for disk in [STORE, LOG] {
        let synced = calls.iter().rposition(|call| call.is_sync_of(disk)).map_or(0, |at| at + 1);
        let (safe, unsynced) = calls.split_at(synced);
        safe.iter().filter(|call| call.disk == disk).for_each(|call| apply(&mut bytes, call));
        let unsynced = unsynced.iter().filter(|call| call.disk == disk).cloned().collect();
        let (kept, how) = survive(unsynced, rng);
        kept.iter().for_each(|call| apply(&mut bytes, call));
        hows.push(how);
    }
    (bytes, hows.join("; of the log "))
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
