//! What a send under a unique key comes to: decided here, carried out by [`super::send`] and [`super::holder`].

use crate::base::Now;
use crate::store::record::{DedupEntry, MessageState, Phase, QueueRecord, UniqueRecord};
use crate::store::{self, Tx};

use super::new_message::Sent;
use super::state::Key;
use super::unique::{self, Mode, Unique};
use super::{catalog, dedup, holder as holders};

/// What to do with a send under a key.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send it.
    New,
    /// Do not send it; return this earlier message.
    Duplicate(Sent),
    /// Replace this message with it.
    Replace(Key, MessageState),
    /// Keep it until the holder in this row has ended.
    Wait(UniqueRecord),
}

/// Decides what a send does; writes nothing.
pub(super) fn judge(tx: &mut Tx<'_>, queue: &QueueRecord, unique: &Unique, now: Now) -> Result<Verdict, store::Error> {
    // A throttle outlives its message, so it is a deduplication entry with a time limit, not a row in `uniques`.
    if let Mode::Throttle(_) = unique.mode {
        let known = dedup::get(tx, queue.rows, unique::throttled(&unique.key), now.lease)?;
        return Ok(match known {
            Some(DedupEntry::Sent { message_id, sequence }) => {
                Verdict::Duplicate(Sent { message_id, sequence, is_duplicate: true })
            }
            _ => Verdict::New,
        });
    }
    let Some(row) = tx.uniques()?.get(&(queue.id, unique::key(unique)))? else { return Ok(Verdict::New) };
    let holder = (row.queue, row.sequence);
    if catalog::holding(tx, row.queue)?.is_none() {
        // The holder was purged, so it has ended. Its follower is the message to keep, if it was not purged too.
        let waits = match &row.follower {
            Some(follower) => unique.mode == Mode::KeepLast && !holders::is_purged(tx, queue.id, follower)?,
            None => false,
        };
        return Ok(if waits { Verdict::Wait(row) } else { Verdict::New });
    }
    let Some(state) = tx.states()?.get(&holder)? else {
        let reason = format!("message {} of queue {} holds a key and is not there", holder.1, holder.0);
        return Err(tx.damaged("uniques", reason));
    };
    // Only a message without attempts may be replaced: history is keyed by the body's id, so a redriven letter's
    // history would be lost with its body.
    let is_new = state.attempts == 0 && state.receive_count == 0 && row.queue == queue.rows;
    Ok(match unique.mode {
        Mode::Debounce if is_new && state.phase == Phase::Delayed && state.visible_at > now.lease => {
            Verdict::Replace(holder, state)
        }
        Mode::Debounce => Verdict::New,
        Mode::KeepLast if is_new => Verdict::Replace(holder, state),
        Mode::KeepLast => Verdict::Wait(row),
        Mode::Simple | Mode::Throttle(_) => {
            Verdict::Duplicate(Sent { message_id: state.message_id, sequence: holder.1, is_duplicate: true })
        }
    })
}
