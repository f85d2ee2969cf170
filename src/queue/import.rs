//! Messages of another SQS endpoint, which are sent here once although they may be handed in several times: an import
//! that breaks off is simply started again.

use std::time::Duration;

use crate::base::{Now, Timestamp};
use crate::store::Tx;
use crate::store::record::{DedupEntry, DedupRecord, QueueRecord};

use super::new_message::{Send, Sent};
use super::{Error, admission, dedup, send, state};

/// How long an imported message is remembered: the longest that SQS keeps one, so that it is gone there by then.
pub const REMEMBERED: Duration = Duration::from_secs(14 * 86_400);

/// A message of another endpoint.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Its id there.
    pub message_id: String,
    /// The message.
    pub send: Send,
    /// When it was sent there; retention counts from then.
    pub sent_at: Timestamp,
    /// Its first receive there; zero for none that counts.
    pub first_received_at: Timestamp,
    /// How often it was received there.
    pub receive_count: u32,
}

/// Sends the message, unless it was imported from that source before: then the answer is what it became.
///
/// # Errors
/// [`Error::Outlived`], or what [`admission::admit`] refuses; nothing was written.
pub fn import(tx: &mut Tx<'_>, queue: &QueueRecord, source: &str, message: Imported, now: Now) -> Result<Sent, Error> {
    let digest = dedup::digest(&["import", source, &message.message_id]);
    if let Some(DedupEntry::Sent { message_id, sequence }) = dedup::get(tx, queue.rows, digest, now.lease)? {
        return Ok(Sent { message_id, sequence, is_duplicate: true });
    }
    let Imported { message_id, mut send, sent_at, first_received_at, receive_count } = message;
    if queue.attributes.fifo.is_some() {
        // What the sender gave is worth five minutes, which are over, or would make two of these messages one.
        send.deduplication_id = Some(message_id.clone());
    }
    let retention = queue.attributes.retention_ms.map(Duration::from_millis);
    if let Some(retention) = retention.filter(|retention| sent_at.after(*retention) <= now.wall) {
        return Err(Error::Outlived { message_id, queue: queue.name.clone(), retention });
    }
    let admitted = admission::admit(tx, queue, send, now)?;
    let sent = send::send(tx, admitted, now)?;
    if !sent.is_duplicate {
        let key = (queue.rows, sent.sequence);
        let mut state = state::get(tx, key)?;
        // A clock there that is ahead must not make the message younger than it is.
        (state.sent_at, state.first_received_at) = (sent_at.min(now.wall), first_received_at.min(now.wall));
        state.receive_count = receive_count;
        tx.states()?.insert(&key, &state)?;
    }
    let what = DedupEntry::Sent { message_id: sent.message_id, sequence: sent.sequence };
    dedup::insert(tx, queue.rows, digest, &DedupRecord { until: now.lease.after(REMEMBERED), what }, now.lease)?;
    Ok(sent)
}
