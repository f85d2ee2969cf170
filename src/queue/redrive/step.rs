//! One bounded step of a redrive or of an undo. The cursor and the moves are one commit.

use std::ops::RangeInclusive;

use crate::base::{LeaseTime, Now, Timestamp};
use crate::store::record::{
    Canary, LetterBefore, MessageState, Phase, QueueRecord, RedriveRecord, RedriveState, RedriveTotals, RedrivenBy,
};
use crate::store::{self, Tx};

use super::super::room::Room;
use super::super::state::Key;
use super::super::{Error, Observer, Transition, ending, holder, messages, observer, redrive_outcomes, state};
use super::{SCAN_MAX, save, select};

/// Moves up to `budget` letters of a running redrive and returns its record. The cursor and the moves are one commit,
/// so a crash in the middle neither loses nor duplicates a letter. Letters for a full queue wait where they are: then
/// the record comes back as it was.
///
/// # Errors
/// A storage fault, or the redrive does not exist.
pub fn step(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    id: u64,
    budget: usize,
    now: Now,
) -> Result<RedriveRecord, Error> {
    let stored = tx.redrives()?.get(&id)?.ok_or(Error::RedriveNotFound(id))?;
    let mut record = stored.clone();
    if record.state != RedriveState::Running {
        return Ok(record);
    }
    if record.undoes.is_some() {
        undo(tx, observer, &mut record, budget, now.wall)?;
    } else {
        let totals = tx.redrive_totals()?.get(&id)?.unwrap_or_default();
        match check_canary(&record, totals) {
            CanaryVerdict::Wait => return Ok(record),
            CanaryVerdict::Stop(why) => record.state = RedriveState::Failed { at: now.wall, why },
            CanaryVerdict::GoOn(allowed) => {
                record.canary = record.canary.map(|canary| Canary { allowed, ..canary });
                // A step must not pass the canary's limit: the letters beyond it wait for the next verdict.
                let capacity = usize::try_from(allowed.saturating_sub(record.moved)).unwrap_or(usize::MAX);
                forward(tx, observer, &mut record, budget.min(capacity), now)?;
            }
        }
    }
    // A redrive that waits for room in a full queue changes nothing, so it costs no commit.
    if record != stored {
        save(tx, &record)?;
    }
    Ok(record)
}

enum CanaryVerdict {
    /// Some of the letters moved so far have no outcome yet.
    Wait,
    /// Up to this many letters may have been moved.
    GoOn(u64),
    /// Stop: too many died again.
    Stop(String),
}

/// Whether a canary redrive may continue. Once the first step has been judged, a failure share above the limit stops
/// the redrive at once.
fn check_canary(record: &RedriveRecord, totals: RedriveTotals) -> CanaryVerdict {
    let Some(canary) = record.canary else { return CanaryVerdict::GoOn(u64::MAX) };
    let is_through = record.moved >= canary.allowed;
    // A step is judged only when all of its letters have ended; otherwise slow failures would be missed.
    if is_through && totals.ended() < record.moved {
        return CanaryVerdict::Wait;
    }
    let first = (record.matching * u64::from(canary.first_permille)).div_ceil(1000).max(1);
    // Withdrawn and undone letters say nothing about the fault, so they are left out of the share.
    let judged = totals.succeeded + totals.failed;
    // `allowed` grows only after a step passed. Within the first step a single early failure would be a share of 100 %.
    let is_judged = is_through || canary.allowed > first;
    if is_judged && totals.failed * 1000 > judged * u64::from(canary.failed_permille_max) {
        let (failed, share) = (totals.failed, f64::from(canary.failed_permille_max) / 10.0);
        let left = record.matching.saturating_sub(record.moved);
        return CanaryVerdict::Stop(format!(
            "{failed} of {judged} letters died again, more than {share} % (the other {left} stay where they are)"
        ));
    }
    CanaryVerdict::GoOn(if is_through { canary.allowed.saturating_mul(10) } else { canary.allowed })
}

/// Moves letters to their source queues, or to the redrive's destination.
fn forward(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    record: &mut RedriveRecord,
    budget: usize,
    now: Now,
) -> Result<(), Error> {
    // The cursor is a sequence number, so letters that are removed meanwhile do not disturb it.
    let from = record.done + 1;
    let letters = first(tx, record.from, from..=record.last.max(from))?;
    // Counted before the loop: fewer than a full scan means that no letter of the range is left behind it.
    let seen_all = letters.len() < SCAN_MAX;
    let mut left = budget;
    for (key, state) in letters {
        if key.1 > record.last {
            break;
        }
        // `done` stays at the last letter handled, so the next step starts with this one.
        if left == 0 {
            return Ok(());
        }
        // Sequence numbers alone cannot tell: a message sent early keeps its low number when it dies after the start.
        // `arrival_seq` says when it entered this queue.
        // As in SQS, what a consumer holds stays with it.
        let is_held = state.phase == Phase::InFlight && state.visible_at > now.lease;
        if !is_held && state.arrival_seq <= record.as_of && select::matches(tx, &record.selection, &state)? {
            let to = record.to.unwrap_or(state.source);
            let Some(queue) = tx.queue(to)?.filter(|queue| queue.deleted_at.is_none()) else {
                record.state = no_destination(&state, to, now.wall);
                return Ok(());
            };
            let room = match Room::for_redriven(tx, &queue, state.size_bytes) {
                Ok(room) => room,
                Err(Error::Store(error)) => return Err(error.into()),
                // The letter stays where it is, and the next step begins with it.
                Err(Error::Full { .. }) => return Ok(()),
                Err(why) => {
                    let why = format!("letter {}: {why}", state.message_id);
                    record.state = RedriveState::Failed { at: now.wall, why };
                    return Ok(());
                }
            };
            move_back(tx, observer, key, &state, (record.id, queue.rows), room, now.wall)?;
            record.moved += 1;
            left -= 1;
        }
        record.done = key.1;
    }
    if seen_all {
        record.state = RedriveState::Completed { at: now.wall };
    }
    Ok(())
}

fn move_back(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    (redrive, to_rows): (u64, u32),
    room: Room,
    now: Timestamp,
) -> Result<(), store::Error> {
    let sequence = tx.fresh_id()?;
    // The attempt number continues, because it is part of the history's key; the charged attempts start at zero.
    let fresh = state::fresh(sequence, state.body, state.size_bytes, now);
    let was = LetterBefore {
        sequence: key.1,
        message_id: state.message_id,
        sent_at: state.sent_at,
        first_received_at: state.first_received_at,
        received_at: state.received_at,
        receive_count: state.receive_count,
        attempts_charged: state.attempts_charged,
    };
    let back = MessageState {
        attempts: state.attempts,
        group: state.group,
        priority: state.priority,
        // It was driven back to be processed: an expiry that has passed meanwhile would drop it.
        expires_at: if state.expires_at <= now { Timestamp::ZERO } else { state.expires_at },
        unique: state.unique,
        redriven_by: Some(RedrivenBy { redrive, source: state.source, was: Some(was) }),
        ..fresh
    };
    messages::remove(tx, key, state)?;
    messages::insert(tx, (to_rows, sequence), &back, room)?;
    holder::moved(tx, state, key, (to_rows, sequence))?;
    observer::notify(tx, observer, state, Transition::Redriven, now)
}

/// Scans all queues, one after the other, for letters of the redrive that were not received yet, and moves them back to
/// the dead-letter queue.
fn undo(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    record: &mut RedriveRecord,
    budget: usize,
    now: Timestamp,
) -> Result<(), Error> {
    let undone = record.undoes.unwrap_or_default();
    let Some(from) = tx.queue(record.from)?.filter(|queue| queue.deleted_at.is_none()) else {
        let why = format!("queue number {} is gone", record.from);
        record.state = RedriveState::QueueGone { at: now, why };
        return Ok(());
    };
    let messages = first(tx, record.at_queue, record.done + 1..=record.last.max(record.done + 1))?;
    let seen_all = messages.len() < SCAN_MAX;
    let mut left = budget;
    for (key, state) in messages {
        if left == 0 {
            return Ok(());
        }
        // Only messages that were never received: anything else may already have had its effect.
        let is_untouched = state.receive_count == 0 && state.phase != Phase::InFlight;
        if let Some(redriven_by) = state.redriven_by.filter(|redriven_by| redriven_by.redrive == undone && is_untouched)
        {
            take_back(tx, observer, key, &state, (redriven_by, &from), now)?;
            record.moved += 1;
            left -= 1;
        }
        record.done = key.1;
    }
    if seen_all {
        match tx.queues()?.first(record.at_queue + 1..=u32::MAX, 1)?.first() {
            // Redriven letters got sequence numbers above the redrive's own id, so each queue's scan starts there.
            Some((next, _)) => (record.at_queue, record.done) = (*next, undone),
            None => record.state = RedriveState::Completed { at: now },
        }
    }
    Ok(())
}

/// The first messages of a queue with those sequence numbers; none when it is deleted.
fn first(tx: &mut Tx<'_>, queue: u32, range: RangeInclusive<u64>) -> Result<Vec<(Key, MessageState)>, store::Error> {
    let Some(queue) = tx.queue(queue)?.filter(|queue| queue.deleted_at.is_none()) else { return Ok(Vec::new()) };
    let (first, last) = range.into_inner();
    tx.states()?.first((queue.rows, first)..=(queue.rows, last), SCAN_MAX)
}

fn take_back(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    key: Key,
    state: &MessageState,
    (redriven_by, to): (RedrivenBy, &QueueRecord),
    now: Timestamp,
) -> Result<(), store::Error> {
    // While `redriven_by` is still set: the letter below clears it.
    redrive_outcomes::undone(tx, state)?;
    messages::remove(tx, key, state)?;
    let back = MessageState {
        source: redriven_by.source,
        arrival_seq: tx.fresh_id()?,
        redriven_by: None,
        ..state::unleased(state, Phase::Ready, LeaseTime::ZERO)
    };
    // No other message has had its sequence number meanwhile: they are unique across the store.
    let (sequence, letter) = match redriven_by.was {
        Some(was) => {
            let LetterBefore { message_id, sent_at, first_received_at, received_at, .. } = was;
            let (receive_count, attempts_charged) = (was.receive_count, was.attempts_charged);
            let times = MessageState { message_id, sent_at, first_received_at, received_at, ..back };
            (was.sequence, MessageState { receive_count, attempts_charged, ..times })
        }
        None => (key.1, back),
    };
    messages::insert(tx, (to.rows, sequence), &letter, Room::for_letter())?;
    holder::moved(tx, state, key, (to.rows, sequence))?;
    ending::notify_death(tx, observer, &letter, &to.name, now)
}

/// How a redrive ends at a letter that has nowhere to go.
fn no_destination(state: &MessageState, to: u32, at: Timestamp) -> RedriveState {
    let id = state.message_id;
    if to == 0 {
        let why = format!("letter {id} has no source queue: it was sent here directly (name a destination with --to)");
        return RedriveState::Failed { at, why };
    }
    RedriveState::QueueGone {
        at,
        why: format!("letter {id}: queue number {to} is gone (name a destination with --to)"),
    }
}
