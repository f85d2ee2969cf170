//! Reads messages without receiving them.

use serde::{Deserialize, Serialize};

use crate::base::{Attempt, MessageId, Now, Timestamp};
use crate::store::Snapshot;
use crate::store::record::{MessageState, Phase, QueueRecord};

use super::Error;

/// A message as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peeked {
    /// Its id.
    pub message_id: MessageId,
    /// Its position in the order of sending.
    pub sequence: u64,
    /// `ready`, `delayed` or `in flight`.
    pub phase: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// When it becomes visible; `None` when it already is.
    pub visible_at: Option<Timestamp>,
    /// SQS's receive count.
    pub receive_count: u32,
    /// Attempts charged.
    pub attempts_charged: u32,
    /// The run that it belongs to.
    pub run: Option<u64>,
    /// The first bytes of its text.
    pub body: String,
    /// The length of the whole text in bytes.
    pub body_bytes: u32,
    /// Its attempts so far, oldest first.
    pub history: Vec<Attempt>,
}

/// The first `max` messages of a queue in the order of sending, with at most `body_bytes_max` bytes of each body.
///
/// # Errors
/// A storage fault.
pub fn peek(
    snapshot: &Snapshot,
    queue: &QueueRecord,
    max: usize,
    body_bytes_max: usize,
    now: Now,
) -> Result<Vec<Peeked>, Error> {
    let states = snapshot.states()?.first((queue.rows, 0)..=(queue.rows, u64::MAX), max)?;
    states.into_iter().map(|((_, sequence), state)| look(snapshot, sequence, &state, body_bytes_max, now)).collect()
}

fn look(
    snapshot: &Snapshot,
    sequence: u64,
    state: &MessageState,
    body_bytes_max: usize,
    now: Now,
) -> Result<Peeked, Error> {
    let body = snapshot.bodies()?.get(&state.body)?;
    let history = snapshot.history()?.first((state.body, 0)..=(state.body, u32::MAX), usize::MAX)?;
    let is_hidden = state.phase != Phase::Ready && state.visible_at > now.lease;
    let phase = match state.phase {
        Phase::InFlight if is_hidden => "in flight",
        Phase::Delayed if is_hidden => "delayed",
        _ => "ready",
    };
    let text = body.as_ref().map(|body| &body.bytes[..body.bytes.len().min(body_bytes_max)]).unwrap_or_default();
    Ok(Peeked {
        message_id: state.message_id,
        sequence,
        phase: phase.into(),
        sent_at: state.sent_at,
        visible_at: is_hidden.then(|| now.wall_of(state.visible_at)),
        receive_count: state.receive_count,
        attempts_charged: state.attempts_charged,
        run: body.as_ref().map(|body| body.run).filter(|run| *run != 0),
        body: String::from_utf8_lossy(text).into_owned(),
        body_bytes: body.as_ref().map_or(0, |body| u32::try_from(body.bytes.len()).unwrap_or(u32::MAX)),
        history: history.into_iter().map(|(_, attempt)| attempt).collect(),
    })
}
