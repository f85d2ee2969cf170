//! SendMessage: one message into one queue.

use std::time::Duration;

use bytes::Bytes;

use crate::base::{AttemptEnd, MessageId, Timestamp};
use crate::store::Tx;
use crate::store::record::{Body, Place, QueueRecord};

use super::settle::{self, Ended};
use super::{Error, Witness, catalog, place, receive};

/// The longest delay of a message, as in SQS.
pub const DELAY_MAX: Duration = Duration::from_secs(900);

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct Send {
    /// The text, in UTF-8.
    pub body: Bytes,
    /// How long it stays invisible, 0 s to 15 min; the queue's delay when `None`.
    pub delay: Option<Duration>,
    /// The run that it belongs to; zero when none.
    pub run: u64,
    /// The key of its recipient's row; zeros when none.
    pub recipient: [u8; 16],
}

impl Send {
    /// A message of no run, with the queue's delay.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }
}

/// A message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub message_id: MessageId,
    /// Its place in the order of sending.
    pub sequence: u64,
}

/// Sends one message.
///
/// # Errors
/// The body or the delay is out of its limits.
pub fn send(tx: &mut Tx<'_>, queue: &QueueRecord, message: Send, now: Timestamp) -> Result<Sent, Error> {
    check(queue, &message)?;
    let delay = message.delay.unwrap_or(Duration::from_millis(queue.attributes.delay_ms));
    let sequence = tx.fresh_id()?;
    let body_bytes = u32::try_from(message.body.len()).expect("the size was checked against a 32-bit limit");
    let mut state = place::fresh(sequence, sequence, body_bytes, now);
    if !delay.is_zero() {
        (state.place, state.visible_at) = (Place::Delayed, now.after(delay));
    }
    let body = Body { run: message.run, recipient: message.recipient, bytes: message.body };
    tx.bodies()?.insert(&sequence, &body)?;
    place::put(tx, (queue.id, sequence), &state)?;
    Ok(Sent { message_id: state.message_id, sequence })
}

/// Checks a message against its queue's limits without sending it.
///
/// # Errors
/// The body or the delay is out of its limits.
pub fn check(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    let bytes = message.body.len();
    if bytes == 0 {
        return Err(Error::BodyEmpty);
    }
    if bytes > queue.attributes.message_bytes_max as usize {
        return Err(Error::BodyTooLarge { queue: queue.name.clone(), bytes, max: queue.attributes.message_bytes_max });
    }
    check_characters(&message.body)?;
    match message.delay {
        Some(delay) if delay > DELAY_MAX => {
            Err(Error::OutOfRange { what: "DelaySeconds", min: 0, max: DELAY_MAX.as_secs(), got: delay.as_secs() })
        }
        _ => Ok(()),
    }
}

/// SQS takes #x9 #xA #xD #x20–#xD7FF #xE000–#xFFFD #x10000–#x10FFFF.
fn check_characters(body: &[u8]) -> Result<(), Error> {
    let text = std::str::from_utf8(body).map_err(|error| Error::BodyCharacters { at: error.valid_up_to() })?;
    let is_refused =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    match text.find(is_refused) {
        Some(at) => Err(Error::BodyCharacters { at }),
        None => Ok(()),
    }
}

/// Sends a message that is known to be hopeless: it goes straight to the dead-letter queue of `queue`, with one
/// attempt in its history. Without a dead-letter queue it is sent as any other.
///
/// # Errors
/// As [`send`].
pub fn send_dead(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    queue: &QueueRecord,
    message: Send,
    ended: &Ended,
) -> Result<Sent, Error> {
    let dead_letter_queue = catalog::dead_letter_queue(tx, queue)?;
    let sent = send(tx, queue, Send { delay: Some(Duration::ZERO), ..message }, ended.at)?;
    if let Some(dead_letter_queue) = dead_letter_queue {
        let key = (queue.id, sent.sequence);
        let mut state = receive::state_of(tx, key)?;
        state.attempts = 1;
        settle::remember(tx, &state, &settle::attempt(&state, ended, AttemptEnd::Dead))?;
        place::bury(tx, witness, key, &state, &dead_letter_queue, ended.at)?;
    }
    Ok(sent)
}
