//! Checks the index of dead letters, their counters, and the index of those who name a dead-letter queue, row by row.

use std::collections::BTreeMap;

use crate::store::check::Findings;
use crate::store::record::LetterClass;
use crate::store::{Error, Snapshot};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    check_letters(snapshot, findings)?;
    check_groups(snapshot, findings)?;
    check_sources(snapshot, findings)
}

/// Each letter stands under the class of its last failure, and nothing else does.
fn check_letters(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (letters, states, history) = (snapshot.letters()?, snapshot.states()?, snapshot.history()?);
    states.each_sound(|key, state| {
        findings.go_on()?;
        if state.source == 0 {
            return Ok(());
        }
        let Ok(last) = history.last((state.body, 0)..=(state.body, u32::MAX)) else { return Ok(()) };
        let last = last.map(|(_, attempt)| attempt);
        let class = LetterClass::of(last.as_ref());
        let died_at = last.map_or(state.sent_at, |last| last.ended_at).as_millis();
        if !letters.has(&(key.0, class.0, died_at, key.1))? {
            findings.add("states", key, "does not stand in letters, the index of its last failure");
        }
        Ok(())
    })?;
    letters.each_sound(|row, ()| {
        let key = (row.0, row.3);
        match states.sound(&key)? {
            Some(state) if state.source == 0 => findings.add("letters", row, "its message is no dead letter"),
            None if !states.has(&key)? => findings.add("letters", row, "belongs to no message"),
            _ => {}
        }
        findings.go_on()
    })
}

/// The counters equal a recount. There are as many as there are classes of faults in the queues, not letters.
fn check_groups(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (groups, states) = (snapshot.letter_groups()?, snapshot.states()?);
    let mut counted: BTreeMap<(u32, u64, u32), u64> = BTreeMap::new();
    snapshot.letters()?.each_sound(|(queue, class, _, sequence), ()| {
        if let Some(state) = states.sound(&(queue, sequence))? {
            *counted.entry((queue, class, state.source)).or_default() += 1;
        }
        findings.go_on()
    })?;
    groups.each_sound(|group, says| {
        let recount = counted.remove(&group).unwrap_or(0);
        if says != recount {
            findings.add("letter_groups", group, format_args!("says {says}, a recount {recount}"));
        }
        findings.go_on()
    })?;
    for (group, recount) in counted {
        if !groups.has(&group)? {
            findings.add("letter_groups", group, format_args!("has no row, a recount says {recount}"));
        }
    }
    Ok(())
}

fn check_sources(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (queues, sources) = (snapshot.queues()?, snapshot.dead_letter_sources()?);
    queues.each_sound(|id, queue| {
        if let (Some((target, _)), None) = (&queue.attributes.redrive, queue.deleted_at)
            && !sources.has(&(target.clone(), u64::from(id)))?
        {
            findings.add("queues", id, "does not stand in dead_letter_sources");
        }
        findings.go_on()
    })?;
    sources.each_sound(|row, ()| {
        let queue = queues.sound(&u32::try_from(row.1).unwrap_or_default())?;
        let target = queue.filter(|queue| queue.deleted_at.is_none()).and_then(|queue| queue.attributes.redrive);
        if target.is_none_or(|(target, _)| target != row.0) {
            findings.add("dead_letter_sources", &row, "that queue does not name it");
        }
        findings.go_on()
    })
}
