//! One bounded step of a redrive or of an undo: cursor and moves in one commit.

use crate::base::{Fingerprint, Timestamp};
use crate::store::record::{Canary, MessageState, Place, RedriveRecord, RedriveState, RedriveTotals, Returned};
use crate::store::{self, Tx};

use super::super::{Error, News, Witness, place, tally, unique};
use super::{LOOK_MAX, TOPIC, select};

/// Moves up to `budget` letters of a running redrive. Answers how the redrive stands; the cursor and the moves are
/// one commit, so that a crash in the middle neither loses nor doubles a letter.
///
/// # Errors
/// A storage fault, or the redrive is not there.
pub fn step(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    id: u64,
    budget: usize,
    now: Timestamp,
) -> Result<RedriveRecord, Error> {
    let mut record = tx.redrives()?.get(&id)?.ok_or(Error::RedriveNotFound(id))?;
    if record.state != RedriveState::Running {
        return Ok(record);
    }
    if record.undoes.is_some() {
        undo(tx, witness, &mut record, budget, now)?;
    } else {
        let totals = tx.redrive_totals()?.get(&id)?.unwrap_or_default();
        match judge(&record, totals) {
            Judgement::Wait => return Ok(record),
            Judgement::Stop(why) => record.state = RedriveState::Failed { at: now, why },
            Judgement::GoOn(allowed) => {
                record.canary = record.canary.map(|canary| Canary { allowed, ..canary });
                let room = usize::try_from(allowed.saturating_sub(record.moved)).unwrap_or(usize::MAX);
                forward(tx, witness, &mut record, budget.min(room), now)?;
            }
        }
    }
    if record.state != RedriveState::Running {
        tx.signal(TOPIC);
    }
    tx.redrives()?.insert(&id, &record)?;
    Ok(record)
}

enum Judgement {
    /// The letters that were moved so far are not all at their end.
    Wait,
    /// Up to this many letters may have been moved.
    GoOn(u64),
    /// Too many died again.
    Stop(String),
}

/// Whether a redrive in steps may go on: a failure share above the limit stops it as soon as the first step is judged.
fn judge(record: &RedriveRecord, totals: RedriveTotals) -> Judgement {
    let Some(canary) = record.canary else { return Judgement::GoOn(u64::MAX) };
    let is_through = record.moved >= canary.allowed;
    if is_through && totals.ended() < record.moved {
        return Judgement::Wait;
    }
    let first = (record.matching * u64::from(canary.first_permille)).div_ceil(1000).max(1);
    let judged = totals.succeeded + totals.failed;
    let is_judged = is_through || canary.allowed > first;
    if is_judged && totals.failed * 1000 > judged * u64::from(canary.failed_permille_max) {
        let (failed, share) = (totals.failed, f64::from(canary.failed_permille_max) / 10.0);
        let left = record.matching.saturating_sub(record.moved);
        return Judgement::Stop(format!(
            "{failed} of {judged} letters died again, more than {share} % (the other {left} stay where they are)"
        ));
    }
    Judgement::GoOn(if is_through { canary.allowed.saturating_mul(10) } else { canary.allowed })
}

/// Moves letters to where they died, or where the redrive says.
fn forward(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    record: &mut RedriveRecord,
    budget: usize,
    now: Timestamp,
) -> Result<(), Error> {
    let from = record.done + 1;
    let letters = tx.states()?.first((record.from, from)..=(record.from, record.last.max(from)), LOOK_MAX)?;
    let seen_all = letters.len() < LOOK_MAX;
    let mut left = budget;
    for (key, state) in letters {
        if key.1 > record.last {
            break;
        }
        if left == 0 {
            return Ok(());
        }
        // A letter that died after the moment may be older than `last`: it keeps its place in the order of sending.
        if state.entered <= record.as_of && select::matches(tx, &record.selection, &state)? {
            let to = record.to.unwrap_or(state.source);
            if tx.queues()?.get(&to)?.is_none_or(|queue| queue.deleted_at.is_some()) {
                record.state = RedriveState::Failed { at: now, why: no_destination(&state, to) };
                return Ok(());
            }
            revive(tx, witness, key, &state, (record.id, to), now)?;
            record.moved += 1;
            left -= 1;
        }
        record.done = key.1;
    }
    if seen_all {
        record.state = RedriveState::Completed { at: now };
    }
    Ok(())
}

fn revive(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: place::Key,
    state: &MessageState,
    (redrive, to): (u64, u32),
    now: Timestamp,
) -> Result<(), store::Error> {
    let sequence = tx.fresh_id()?;
    let fresh = place::fresh(sequence, state.body, state.size_bytes, now);
    let back = MessageState {
        attempts: state.attempts,
        group: state.group,
        priority: state.priority,
        expires_at: state.expires_at,
        unique: state.unique,
        returned: Some(Returned { redrive, source: state.source }),
        ..fresh
    };
    place::take(tx, key, state)?;
    place::put(tx, (to, sequence), &back)?;
    unique::moved(tx, state, key, (to, sequence))?;
    place::tell(tx, witness, state, News::Revived, now)
}

/// Looks through the queues, one after the other, for letters of the redrive that nobody has received, and buries them
/// again.
fn undo(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    record: &mut RedriveRecord,
    budget: usize,
    now: Timestamp,
) -> Result<(), Error> {
    let undone = record.undoes.unwrap_or_default();
    if tx.queues()?.get(&record.from)?.is_none() {
        let why = format!("queue number {} is gone", record.from);
        record.state = RedriveState::Failed { at: now, why };
        return Ok(());
    }
    let range = (record.at_queue, record.done + 1)..=(record.at_queue, record.last.max(record.done + 1));
    let messages = tx.states()?.first(range, LOOK_MAX)?;
    let seen_all = messages.len() < LOOK_MAX;
    let mut left = budget;
    for (key, state) in messages {
        if left == 0 {
            return Ok(());
        }
        let is_untouched = state.receive_count == 0 && state.place != Place::InFlight;
        if let Some(returned) = state.returned.filter(|returned| returned.redrive == undone && is_untouched) {
            take_back(tx, witness, key, &state, (returned, record.from), now)?;
            record.moved += 1;
            left -= 1;
        }
        record.done = key.1;
    }
    if seen_all {
        match tx.queues()?.first(record.at_queue + 1..=u32::MAX, 1)?.first() {
            Some((next, _)) => (record.at_queue, record.done) = (*next, undone),
            None => record.state = RedriveState::Completed { at: now },
        }
    }
    Ok(())
}

fn take_back(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: place::Key,
    state: &MessageState,
    (returned, to): (Returned, u32),
    now: Timestamp,
) -> Result<(), store::Error> {
    let fingerprint = place::last_fingerprint(tx, state)?.unwrap_or_else(|| Fingerprint::of("crash", "worker", "lost"));
    tally::undone(tx, state)?;
    place::take(tx, key, state)?;
    let letter = MessageState {
        source: returned.source,
        entered: tx.fresh_id()?,
        returned: None,
        ..place::settled(state, Place::Ready, Timestamp::ZERO)
    };
    place::put(tx, (to, key.1), &letter)?;
    unique::moved(tx, state, key, (to, key.1))?;
    place::tell(tx, witness, state, News::Died(fingerprint), now)
}

fn no_destination(state: &MessageState, to: u32) -> String {
    let id = state.message_id;
    match to {
        0 => format!("letter {id} has no source queue: it was sent here directly (name a destination with --to)"),
        _ => format!("letter {id}: queue number {to} is gone (name a destination with --to)"),
    }
}
