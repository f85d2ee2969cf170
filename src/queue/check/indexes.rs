//! Checks groups, expiries, unique keys and deduplication entries, row by row.

use crate::store::check::Findings;
use crate::store::record::{Digest, GroupRecord, MessageState, Phase};
use crate::store::{Error, Snapshot};

use super::super::{group, state};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    check_states(snapshot, findings)?;
    check_groups(snapshot, findings)?;
    check_grouped(snapshot, findings)?;
    check_expiries(snapshot, findings)?;
    check_uniques(snapshot, findings)?;
    check_recent(snapshot, findings)
}

/// Every message is in the indexes that its group, its expiry and its unique key require.
fn check_states(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (grouped, groups, expiries) = (snapshot.grouped()?, snapshot.groups()?, snapshot.expiries()?);
    snapshot.states()?.each_sound(|key, state| {
        // `check_groups` recounts the rows that are there.
        let mut counted = GroupRecord::default();
        recount(&mut counted, key, &state);
        if let Some(group) = state.group
            && !counted.is_empty()
            && !groups.has(&(key.0, group.id))?
        {
            findings.add("states", key, "its group has no row in groups");
        }
        if let Some(at) = group::waits_at(key, &state)
            && !grouped.has(&at)?
        {
            findings.add("states", key, "does not stand in grouped, the index of its group");
        }
        let expiry = (key.0, state.expires_at.as_millis(), key.1);
        if state::expires_while_waiting(&state) && !expiries.has(&expiry)? {
            findings.add("states", key, "does not stand in expiries");
        }
        findings.go_on()
    })
}

/// Every group's row equals a recount of its messages. All states of the group's queue are read once for each part of
/// the groups.
fn check_groups(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (groups, states) = (snapshot.groups()?, snapshot.states()?);
    let mut start = (0, [0; 16]);
    loop {
        let part = groups.keys(&start, GROUPS_AT_ONCE)?;
        let Some(last) = part.last().copied() else { return Ok(()) };
        let mut recounts = vec![GroupRecord::default(); part.len()];
        states.each_sound(|key, state| {
            if let Some(at) = state.group.and_then(|group| part.binary_search(&(key.0, group.id)).ok()) {
                recount(&mut recounts[at], key, &state);
            }
            findings.go_on()
        })?;
        for (at, recount) in part.iter().zip(recounts) {
            let Some(row) = groups.sound(at)? else { continue };
            let is_known = row.held_known.len() as u64 != row.held || row.held_known == recount.held_known;
            let counts = |row: &GroupRecord| (row.in_flight, row.held, row.waiting);
            if counts(&row) != counts(&recount) || !is_known {
                findings.add("groups", at, format_args!("says {row:?}, a recount {recount:?}"));
            }
        }
        let Some(next) = after(last) else { return Ok(()) };
        start = next;
    }
}

/// Groups are recounted in parts of this many: 20 MB of memory, one pass over the states each.
const GROUPS_AT_ONCE: usize = 1 << 18;

fn recount(row: &mut GroupRecord, key: state::Key, state: &MessageState) {
    row.in_flight += u64::from(state.phase == Phase::InFlight);
    if group::is_held(state) {
        row.held += 1;
        // States are read in the order of their sequence numbers.
        row.held_known.push(key.1);
    }
    row.waiting += u64::from(group::waits_at(key, state).is_some());
}

/// The next key; `None` after the last one.
fn after((queue, digest): (u32, Digest)) -> Option<(u32, Digest)> {
    match u128::from_be_bytes(digest).checked_add(1) {
        Some(next) => Some((queue, next.to_be_bytes())),
        None => Some((queue.checked_add(1)?, [0; 16])),
    }
}

fn check_grouped(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.grouped()?.each_sound(|row, ()| {
        let key = (row.0, row.3);
        match states.sound(&key)? {
            Some(state) if group::waits_at(key, &state) != Some(row) => {
                findings.add("grouped", row, "its message does not wait there");
            }
            None if !states.has(&key)? => findings.add("grouped", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

fn check_expiries(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.expiries()?.each_sound(|row, ()| {
        let key = (row.0, row.2);
        match states.sound(&key)? {
            Some(state) if !state::expires_while_waiting(&state) || state.expires_at.as_millis() != row.1 => {
                findings.add("expiries", row, "its message does not expire then");
            }
            None if !states.has(&key)? => findings.add("expiries", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

fn check_uniques(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let states = snapshot.states()?;
    snapshot.uniques()?.each_sound(|at, row| {
        let holder = states.sound(&(row.queue, row.sequence))?.and_then(|state| state.unique);
        if holder.map(|unique| (unique.queue, unique.key)) != Some(at) {
            findings.add(
                "uniques",
                at,
                format_args!("message {} of queue {} does not hold it", row.sequence, row.queue),
            );
        }
        findings.go_on()
    })
}

fn check_recent(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (dedup, times) = (snapshot.dedup()?, snapshot.dedup_times()?);
    dedup.each_sound(|at, record| {
        if !times.has(&(at.0, record.until.as_millis(), at.1))? {
            findings.add("recent", at, "does not stand in recent_times");
        }
        findings.go_on()
    })?;
    times.each_sound(|row, ()| {
        if dedup.sound(&(row.0, row.2))?.is_none_or(|record| record.until.as_millis() != row.1) {
            findings.add("recent_times", row, "nothing is forgotten then");
        }
        findings.go_on()
    })
}
