//! The queues that there are: made, changed, found by name.

use std::time::Duration;

use crate::base::{Timestamp, limit};
use crate::store::record::{QueueAttributes, QueueRecord};
use crate::store::tx::u32_record::U32;
use crate::store::{Snapshot, Tx};

use super::{Error, Options, RedrivePolicy};

/// A key after every queue name.
const LAST_NAME: &str = "\u{10FFFF}";

/// Makes the queue, or gives the one of that name these attributes. Answers its number.
///
/// # Errors
/// [`Error::Name`] when the name does not fit SQS's grammar.
pub fn ensure(tx: &mut Tx<'_>, name: &str, options: &Options, now: Timestamp) -> Result<u32, Error> {
    check_name(name)?;
    let known = tx.queue_names()?.get(&name.to_owned())?;
    let (id, created_at) = match known {
        Some(U32(id)) => (id, tx.queues()?.get(&id)?.map_or(now, |queue| queue.created_at)),
        None => (tx.fresh_queue()?, now),
    };
    let record = QueueRecord { id, name: name.to_owned(), created_at, attributes: attributes(options) };
    if tx.queues()?.get(&id)?.as_ref() != Some(&record) {
        tx.queues()?.insert(&id, &record)?;
        tx.queue_names()?.insert(&name.to_owned(), &U32(id))?;
    }
    Ok(id)
}

/// The queue of that name.
///
/// # Errors
/// [`Error::NotFound`] names those that there are.
pub fn find(tx: &mut Tx<'_>, name: &str) -> Result<QueueRecord, Error> {
    if let Some(U32(id)) = tx.queue_names()?.get(&name.to_owned())? {
        return by_id(tx, id);
    }
    let known = tx.queue_names()?.first(String::new()..=LAST_NAME.to_owned(), KNOWN_SHOWN_MAX)?;
    Err(not_found(name, &known))
}

/// The queue of that number.
///
/// # Errors
/// [`Error::Gone`] when it was deleted.
pub fn by_id(tx: &mut Tx<'_>, id: u32) -> Result<QueueRecord, Error> {
    tx.queues()?.get(&id)?.ok_or(Error::Gone(id))
}

/// The dead-letter queue that `queue` names, if there is one.
///
/// # Errors
/// A storage fault.
pub fn dead_letter_queue(tx: &mut Tx<'_>, queue: &QueueRecord) -> Result<Option<QueueRecord>, Error> {
    let Some((name, _)) = &queue.attributes.redrive else { return Ok(None) };
    match tx.queue_names()?.get(name)? {
        Some(U32(id)) => Ok(tx.queues()?.get(&id)?),
        None => Ok(None),
    }
}

/// The queue of that name, as the snapshot shows it.
///
/// # Errors
/// [`Error::NotFound`] names those that there are.
pub fn look_up(snapshot: &Snapshot, name: &str) -> Result<QueueRecord, Error> {
    let names = snapshot.queue_names()?;
    match names.get(&name.to_owned())? {
        Some(U32(id)) => snapshot.queues()?.get(&id)?.ok_or(Error::Gone(id)),
        None => Err(not_found(name, &names.first(String::new()..=LAST_NAME.to_owned(), KNOWN_SHOWN_MAX)?)),
    }
}

/// All queues by name.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot) -> Result<Vec<QueueRecord>, Error> {
    let mut queues: Vec<_> =
        snapshot.queues()?.first(0..=u32::MAX, usize::MAX)?.into_iter().map(|(_, queue)| queue).collect();
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queues)
}

/// The names of the queues whose dead letters go to `dead_letter_queue`.
pub fn sources(queues: &[QueueRecord], dead_letter_queue: &str) -> Vec<String> {
    let names_it =
        |queue: &&QueueRecord| queue.attributes.redrive.as_ref().is_some_and(|(dlq, _)| dlq == dead_letter_queue);
    queues.iter().filter(names_it).map(|queue| queue.name.clone()).collect()
}

/// Checks a name against SQS's grammar.
///
/// # Errors
/// [`Error::Name`] with the name and the grammar.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=limit::QUEUE_NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(100).collect()))
    }
}

/// An error names at most this many queues.
const KNOWN_SHOWN_MAX: usize = 20;

fn not_found(name: &str, known: &[(String, U32)]) -> Error {
    let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
    Error::NotFound { name: name.chars().take(100).collect(), known }
}

fn attributes(options: &Options) -> QueueAttributes {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    QueueAttributes {
        visibility_timeout_ms: ms(options.visibility_timeout),
        delay_ms: ms(options.delay),
        retention_ms: options.retention.map(ms),
        receive_wait_ms: ms(options.receive_wait),
        message_bytes_max: options.message_bytes_max,
        redrive: options.redrive.as_ref().map(|RedrivePolicy { dead_letter_queue, max_receive_count }| {
            (dead_letter_queue.clone(), *max_receive_count)
        }),
    }
}
