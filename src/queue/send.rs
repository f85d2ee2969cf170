//! SendMessage: one message into one queue. Takes messages that [`super::admission`] has admitted.

use crate::base::{AttemptEnd, LeaseTime, Now, Timestamp};
use crate::store::record::{DedupEntry, DedupRecord, MessageState, Phase, QueueRecord};
use crate::store::{self, Tx};

use super::admission::{Admission, Admitted, AdmittedLetter};
use super::new_message::{self, Send, Sent};
use super::settle::{self, Ended};
use super::verdict::{self, Verdict};
use super::{Error, Observer, dedup, ending, holder, messages, state, unique, valid};

/// Sends a message that was admitted, in the step in which it was.
///
/// # Errors
/// A storage fault.
pub fn send(tx: &mut Tx<'_>, admitted: Admitted<'_>, now: Now) -> Result<Sent, store::Error> {
    let (queue, message, room) = admitted.into_parts();
    let deduplication = new_message::deduplication(queue, &message);
    if let Some(digest) = deduplication
        && let Some(DedupEntry::Sent { message_id, sequence }) = dedup::get(tx, queue.rows, digest, now.lease)?
    {
        return Ok(Sent { message_id, sequence, is_duplicate: true });
    }
    let verdict = match &message.unique {
        Some(unique) => verdict::judge(tx, queue, unique, now)?,
        None => Verdict::New,
    };
    match verdict {
        Verdict::Duplicate(sent) => return Ok(sent),
        Verdict::Replace(at, old) => return holder::replace(tx, queue, (at, old), message, room, now),
        Verdict::Wait(row) => return holder::follow(tx, queue, row, message, room, now),
        Verdict::New => {}
    }
    let sequence = tx.fresh_id()?;
    let state = state(queue, &message, sequence, now);
    let sent = Sent { message_id: state.message_id, sequence, is_duplicate: false };
    if let Some(unique) = &message.unique {
        holder::hold(tx, queue, unique, sent, now)?;
    }
    if let Some(digest) = deduplication {
        let what = DedupEntry::Sent { message_id: sent.message_id, sequence };
        dedup::insert(
            tx,
            queue.rows,
            digest,
            &DedupRecord { until: now.lease.after(dedup::REMEMBERED), what },
            now.lease,
        )?;
    }
    tx.bodies()?.insert(&sequence, &new_message::body(new_message::with_deduplication_id(queue, message)))?;
    messages::insert(tx, (queue.rows, sequence), &state, room)?;
    Ok(sent)
}

/// Sends all messages or, when one of them is refused, none: one slice of what [`super::Queues::send_all`] sends.
///
/// # Errors
/// One of them is not admitted; see [`Admission::admit`].
pub fn send_all(tx: &mut Tx<'_>, queue: &QueueRecord, messages: Vec<Send>, now: Now) -> Result<Vec<Sent>, Error> {
    let mut admission = Admission::to(tx, queue)?;
    let admitted: Result<Vec<_>, _> = messages.into_iter().map(|message| admission.admit(tx, message, now)).collect();
    admitted?.into_iter().map(|admitted| Ok(send(tx, admitted, now)?)).collect()
}

/// Checks a message against its queue's limits without sending it.
///
/// # Errors
/// As [`valid::check`].
pub fn check(queue: &QueueRecord, message: &Send) -> Result<(), Error> {
    valid::check(queue, message)
}

fn state(queue: &QueueRecord, message: &Send, sequence: u64, now: Now) -> MessageState {
    let fresh = state::fresh(sequence, sequence, new_message::size_bytes(message), now.wall);
    let delay = new_message::delay(queue, message);
    let is_ordered = queue.attributes.fifo.is_some();
    MessageState {
        phase: if delay.is_zero() { Phase::Ready } else { Phase::Delayed },
        visible_at: if delay.is_zero() { LeaseTime::ZERO } else { now.lease.after(delay) },
        group: new_message::group(message.group.as_deref(), is_ordered),
        priority: message.priority,
        expires_at: message.expires_at.unwrap_or(Timestamp::ZERO),
        unique: message.unique.as_ref().and_then(|unique| unique::reference(queue, unique)),
        ..fresh
    }
}

/// Sends a message that is known to fail: it goes straight to the dead-letter queue of its queue, with one attempt in
/// its history. Without a dead-letter queue it is sent as any other.
///
/// # Errors
/// A storage fault.
pub fn send_dead(
    tx: &mut Tx<'_>,
    observer: &dyn Observer,
    letter: AdmittedLetter<'_>,
    ended: &Ended,
) -> Result<Sent, store::Error> {
    let AdmittedLetter { admitted, dead_letter_queue } = letter;
    let queue = admitted.queue().rows;
    let sent = send(tx, admitted.without_delay(), ended.at)?;
    if let Some(dead_letter_queue) = dead_letter_queue.filter(|_| !sent.is_duplicate) {
        let key = (queue, sent.sequence);
        let mut state = state::get(tx, key)?;
        state.attempts = 1;
        settle::record_attempt(tx, key, &state, &settle::attempt(&state, ended, AttemptEnd::Dead))?;
        ending::move_to_dlq(tx, observer, key, &state, &dead_letter_queue, ended.at.wall)?;
    }
    Ok(sent)
}
