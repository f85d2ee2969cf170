//! A FIFO queue's delay is retroactive, as in SQS: a new one applies to the messages that are there, too. They follow in
//! small steps; SQS takes up to a minute for the same.

use crate::base::{LeaseTime, Now};
use crate::store::Tx;
use crate::store::record::{MessageState, Phase, QueueRecord};

use super::leaving::TOPIC;
use super::{Error, messages};

/// One step looks at this many messages; each has five rows.
const MESSAGES_MAX: usize = 100;

/// Begins to apply the queue's new delay, and tells who goes on.
pub(super) fn begin(tx: &mut Tx<'_>, queue: &QueueRecord, now: Now) -> Result<(), Error> {
    tx.queues()?.insert(&queue.id, &QueueRecord { delays_from: Some(0), ..queue.clone() })?;
    step(tx, queue.id, now)?;
    tx.signal(TOPIC);
    Ok(())
}

/// Applies the queue's delay to the next messages; returns whether there are more.
pub(super) fn step(tx: &mut Tx<'_>, queue: u32, now: Now) -> Result<bool, Error> {
    let Some(queue) = tx.queue(queue)? else { return Ok(false) };
    let Some(from) = queue.delays_from.filter(|_| queue.deleted_at.is_none()) else { return Ok(false) };
    let found = tx.states()?.first((queue.rows, from)..=(queue.rows, u64::MAX), MESSAGES_MAX)?;
    let next = found.last().filter(|_| found.len() == MESSAGES_MAX).map(|(key, _)| key.1 + 1);
    for (key, state) in found {
        // What was received once has no delay any more, only the wait for its next attempt.
        let is_new = state.receive_count == 0 && state.phase != Phase::InFlight;
        let delayed = delayed(&state, queue.attributes.delay_ms, now);
        if is_new && (delayed.phase, delayed.visible_at) != (state.phase, state.visible_at) {
            messages::update(tx, key, &state, &delayed)?;
        }
    }
    tx.queues()?.insert(&queue.id, &QueueRecord { delays_from: next, ..(*queue).clone() })?;
    Ok(next.is_some())
}

/// The message as it is when its delay counts from its send.
fn delayed(state: &MessageState, delay_ms: u64, now: Now) -> MessageState {
    let age_ms = u64::try_from(now.wall.since(state.sent_at).as_millis()).unwrap_or(u64::MAX);
    let due = LeaseTime::from_millis(now.lease.as_millis().saturating_add(delay_ms.saturating_sub(age_ms)));
    if due > now.lease {
        MessageState { phase: Phase::Delayed, visible_at: due, ..state.clone() }
    } else {
        MessageState { phase: Phase::Ready, visible_at: LeaseTime::ZERO, ..state.clone() }
    }
}
