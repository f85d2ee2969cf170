//! Checks the invariants between the tables of queues and messages (`docs/format.md`, "What holds between the tables")
//! row by row. Memory does not grow with the number of messages.

mod indexes;
mod letters;

use std::collections::BTreeMap;

use crate::store::check::Findings;
use crate::store::record::{Counts, MessageState, Phase, Suspicion};
use crate::store::tx::u32_record::U32;
use crate::store::{Error, Snapshot};

use super::{new_message, state};

/// Bodies are compared with all states in parts of this many: 9 MB of memory, one pass over the states each.
const BODIES_AT_ONCE: usize = 1 << 20;

/// Adds a finding for each contradiction between queues and names, states and indexes, bodies, counts and history.
/// Skips rows that do not decode: [`crate::store::check::records`] reports them.
///
/// # Errors
/// A storage fault, or the check is to stop.
pub fn check(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    check_names(snapshot, findings)?;
    let counted = check_states(snapshot, findings)?;
    check_counts(snapshot, findings, counted)?;
    check_ready(snapshot, findings)?;
    check_suspects(snapshot, findings)?;
    check_timed(snapshot, findings)?;
    indexes::check(snapshot, findings)?;
    letters::check(snapshot, findings)?;
    check_bodies(snapshot, findings)?;
    check_history(snapshot, findings)
}

fn check_names(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (queues, names) = (snapshot.queues()?, snapshot.queue_names()?);
    queues.each_sound(|id, queue| {
        if queue.id != id {
            findings.add("queues", id, format_args!("calls itself number {}", queue.id));
        }
        if queue.deleted_at.is_none() && names.sound(&queue.name)? != Some(U32(id)) {
            findings.add("queues", id, format_args!("its name {:?} does not lead to it", queue.name));
        }
        if owner(snapshot, queue.rows)? != id {
            findings.add("queues", id, format_args!("its row number {} does not lead to it", queue.rows));
        }
        findings.go_on()
    })?;
    let row_numbers = snapshot.row_numbers()?;
    row_numbers.each_sound(|rows, U32(id)| {
        if !queues.has(&id)? {
            findings.add("row_numbers", rows, format_args!("queue {id} is not there"));
        }
        findings.go_on()
    })?;
    names.each_sound(|name, U32(id)| {
        if !queues.has(&id)? {
            findings.add("queue_names", name, format_args!("queue {id} is not there"));
        }
        findings.go_on()
    })
}

/// Checks every message and counts them by queue.
fn check_states(snapshot: &Snapshot, findings: &mut Findings) -> Result<BTreeMap<u32, Counts>, Error> {
    let (queues, bodies) = (snapshot.queues()?, snapshot.bodies()?);
    let (ready, timed, suspects) = (snapshot.ready()?, snapshot.timed()?, snapshot.suspects()?);
    let last_id = snapshot.meta()?.sound(&"last-id".to_owned())?.unwrap_or(0);
    let mut counted: BTreeMap<u32, Counts> = BTreeMap::new();
    snapshot.states()?.each_sound(|key, state| {
        findings.go_on()?;
        let counts = counted.entry(key.0).or_default();
        *state::slot(counts, state.phase) += 1;
        counts.bytes += u64::from(state.size_bytes);
        if !queues.has(&owner(snapshot, key.0)?)? {
            findings.add("states", key, format_args!("queue {} is not there", key.0));
        }
        let (index, is_indexed) = match state.phase {
            Phase::Ready if state.suspicion == Suspicion::Suspect => {
                ("suspects", suspects.has(&state::suspect_key(key, &state))?)
            }
            Phase::Ready if state.group.is_some() => ("grouped", true),
            Phase::Ready => ("ready", ready.has(&state::ready_key(key, &state))?),
            Phase::Delayed | Phase::InFlight => ("timed", timed.has(&state::timed_key(key, &state))?),
        };
        if !is_indexed {
            findings.add("states", key, format_args!("does not stand in {index}, the index of its phase"));
        }
        match bodies.sound(&state.body)? {
            Some(body) if new_message::stored_size(&body) != state.size_bytes as usize => {
                let (says, has) = (state.size_bytes, new_message::stored_size(&body));
                findings.add("states", key, format_args!("says {says} bytes, its body {} has {has}", state.body));
            }
            None if !bodies.has(&state.body)? => {
                findings.add("states", key, format_args!("its body {} is not there", state.body));
            }
            _ => {}
        }
        check_numbers(key, &state, last_id, findings);
        Ok(())
    })?;
    snapshot.uniques()?.each_sound(|(queue, _), row| {
        let queue = queues.sound(&queue)?.filter(|queue| queue.deleted_at.is_none());
        if let (Some(follower), Some(queue)) = (row.follower, queue)
            && queue.purged.is_none_or(|purge| follower.body >= purge.before)
        {
            let counts = counted.entry(queue.rows).or_default();
            counts.followers += 1;
            counts.follower_bytes += u64::from(follower.size_bytes);
        }
        findings.go_on()
    })?;
    Ok(counted)
}

/// The number of the queue whose messages have keys with the number `rows`.
fn owner(snapshot: &Snapshot, rows: u32) -> Result<u32, Error> {
    Ok(snapshot.row_numbers()?.sound(&rows)?.map_or(rows, |number| number.0))
}

/// No number of a message is greater than the last one that the store gave out.
fn check_numbers(key: state::Key, state: &MessageState, last_id: u64, findings: &mut Findings) {
    let greatest = key.1.max(state.body).max(state.lease).max(state.arrival_seq);
    if greatest > last_id {
        findings.add("states", key, format_args!("holds number {greatest}, but the last one given out is {last_id}"));
    }
}

fn check_counts(snapshot: &Snapshot, findings: &mut Findings, counted: BTreeMap<u32, Counts>) -> Result<(), Error> {
    let counts = snapshot.counts()?;
    let mut counted = counted;
    counts.each_sound(|queue, kept| {
        let recounted = counted.remove(&queue).unwrap_or_default();
        if kept != recounted {
            findings.add("counts", queue, format_args!("says {}, a recount {}", show(kept), show(recounted)));
        }
        findings.go_on()
    })?;
    for (queue, recounted) in counted {
        if !counts.has(&queue)? {
            findings.add("counts", queue, format_args!("has no row, a recount says {}", show(recounted)));
        }
    }
    Ok(())
}

fn show(counts: Counts) -> String {
    let Counts { ready, delayed, in_flight, bytes, followers, follower_bytes } = counts;
    let messages = format!("{ready} ready, {delayed} delayed, {in_flight} in flight, {bytes} bytes");
    match followers {
        0 => messages,
        followers => format!("{messages}, {followers} followers of {follower_bytes} bytes"),
    }
}

fn check_ready(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.ready()?.each_sound(|row, shown| {
        let key = (row.0, shown.0.unwrap_or(row.2));
        match states.sound(&key)? {
            Some(state) if state.phase != Phase::Ready => findings.add("ready", row, "its message is not ready"),
            Some(state) if state.priority != row.1 => {
                findings.add("ready", row, format_args!("its message has priority {}", state.priority));
            }
            None if !states.has(&key)? => findings.add("ready", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

fn check_suspects(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.suspects()?.each_sound(|row, ()| {
        let key = (row.0, row.2);
        match states.sound(&key)? {
            Some(state) if state.phase != Phase::Ready || state.suspicion != Suspicion::Suspect => {
                findings.add("suspects", row, "its message is no suspect");
            }
            Some(state) if state.attempts_charged != row.1 => {
                findings.add("suspects", row, format_args!("its message is charged {}", state.attempts_charged));
            }
            None if !states.has(&key)? => findings.add("suspects", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

fn check_timed(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.timed()?.each_sound(|row, ()| {
        let key = (row.0, row.2);
        match states.sound(&key)? {
            Some(state) if state.phase == Phase::Ready => findings.add("timed", row, "its message is ready"),
            Some(state) if state::timed_key(key, &state) != row => {
                findings.add(
                    "timed",
                    row,
                    format_args!("its message becomes visible at {}", state.visible_at.as_millis()),
                );
            }
            None if !states.has(&key)? => findings.add("timed", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

/// Every body belongs to one message. There is no index from bodies to messages, so all states are read once for each
/// part of the bodies.
fn check_bodies(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (bodies, states) = (snapshot.bodies()?, snapshot.states()?);
    let mut start = 0;
    loop {
        let part = bodies.keys(&start, BODIES_AT_ONCE)?;
        let Some(last) = part.last() else { return Ok(()) };
        let mut owners = vec![0_u8; part.len()];
        states.each_sound(|_, state| {
            if let Ok(at) = part.binary_search(&state.body) {
                owners[at] = owners[at].saturating_add(1);
            }
            findings.go_on()
        })?;
        snapshot.uniques()?.each_sound(|_, row| {
            if let Some(at) = row.follower.and_then(|follower| part.binary_search(&follower.body).ok()) {
                owners[at] = owners[at].saturating_add(1);
            }
            findings.go_on()
        })?;
        for (body, owners) in part.iter().zip(owners) {
            match owners {
                0 => findings.add("bodies", body, "belongs to no message"),
                1 => {}
                owners => findings.add("bodies", body, format_args!("belongs to {owners} messages")),
            }
        }
        let Some(next) = last.checked_add(1) else { return Ok(()) };
        start = next;
    }
}

fn check_history(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let bodies = snapshot.bodies()?;
    snapshot.history()?.each_sound(|key, attempt| {
        if !bodies.has(&key.0)? {
            findings.add("history", key, format_args!("message {} is not there", key.0));
        }
        if attempt.number != key.1 {
            findings.add("history", key, format_args!("calls itself attempt {}", attempt.number));
        }
        findings.go_on()
    })
}
