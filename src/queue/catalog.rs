//! The queues: create, update, delete, find by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{LeaseTime, Now, limit};
use crate::store::record::{DedupEntry, DedupRecord, Digest, Pause, QueueAttributes, QueueRecord, RedriveAllow};
use crate::store::tx::u32_record::U32;
use crate::store::{self, Snapshot, Tx};

use super::{Error, Options, RedrivePolicy, dedup, delay, leaving, options};

/// Sorts after every queue name.
const LAST_NAME: &str = "\u{10FFFF}";

/// Creates the queue, or updates the attributes of the existing one. Returns its number.
///
/// # Errors
/// [`Error::Name`] when the name does not fit SQS's grammar, [`Error::Exists`] when the queue is of the other kind
/// (FIFO or standard), [`Error::DeadLetterQueue`], [`Error::Kinds`] and [`Error::NotAllowed`] when its dead-letter queue
/// cannot take its letters, [`Error::OutOfRange`] and [`Error::Throughput`] for the attributes.
pub fn ensure(tx: &mut Tx<'_>, name: &str, options: &Options, now: Now) -> Result<u32, Error> {
    check_name(name, options)?;
    options::check(options)?;
    let known = match tx.queue_id(name)? {
        Some(id) => tx.queue(id)?,
        None => None,
    };
    if known.as_ref().is_some_and(|queue| queue.attributes.fifo.is_some() != options.fifo.is_some()) {
        return Err(Error::Exists { name: name.to_owned(), what: "kind".into() });
    }
    check_dead_letter_queue(tx, name, options)?;
    match known {
        Some(queue) => change(tx, &queue, options, now),
        None => make(tx, name, options, &BTreeMap::new(), now),
    }
}

/// The names of the queues, each dead-letter queue before its sources.
pub(super) fn by_depth(queues: &BTreeMap<String, Options>) -> Vec<&String> {
    let next = |name: &String| queues.get(name)?.redrive.as_ref().map(|to| &to.dead_letter_queue);
    let depth = |name: &String| std::iter::successors(next(name), |at| next(at)).take(queues.len()).count();
    let mut names: Vec<&String> = queues.keys().collect();
    names.sort_by_cached_key(|name| depth(name));
    names
}

/// Creates a queue as SQS's CreateQueue does: returns the existing one when its attributes are the same.
///
/// # Errors
/// As [`ensure`]; [`Error::Exists`] when it has other attributes, [`Error::DeletedRecently`] within 60 seconds of its
/// deletion.
pub fn create(
    tx: &mut Tx<'_>,
    name: &str,
    options: &Options,
    tags: &BTreeMap<String, String>,
    now: Now,
) -> Result<u32, Error> {
    check_name(name, options)?;
    options::check(options)?;
    if let Some(id) = tx.queue_id(name)? {
        let queue = by_id(tx, id)?;
        return match difference(&queue.attributes, &attributes(options)) {
            None => Ok(id),
            Some(what) => Err(Error::Exists { name: name.to_owned(), what: what.into() }),
        };
    }
    check_dead_letter_queue(tx, name, options)?;
    check_tags(tags)?;
    if dedup::get(tx, NO_QUEUE, deleted(name), now.lease)?.is_some() {
        return Err(Error::DeletedRecently(name.to_owned()));
    }
    make(tx, name, options, tags, now)
}

fn make(
    tx: &mut Tx<'_>,
    name: &str,
    options: &Options,
    tags: &BTreeMap<String, String>,
    now: Now,
) -> Result<u32, Error> {
    check_sources(tx, name, options)?;
    let id = tx.fresh_queue()?;
    let record = QueueRecord {
        id,
        name: name.to_owned(),
        created_at: now.wall,
        modified_at: now.wall,
        attributes: attributes(options),
        tags: tags.clone(),
        paused: None,
        deleted_at: None,
        rows: id,
        purged: None,
        delays_from: None,
    };
    tx.queues()?.insert(&id, &record)?;
    tx.queue_names()?.insert(&name.to_owned(), &U32(id))?;
    name_source(tx, id, None, &record.attributes)?;
    Ok(id)
}

fn change(tx: &mut Tx<'_>, queue: &QueueRecord, options: &Options, now: Now) -> Result<u32, Error> {
    let attributes = attributes(options);
    if queue.attributes != attributes {
        name_source(tx, queue.id, Some(&queue.attributes), &attributes)?;
        let is_new_delay = queue.attributes.fifo.is_some() && queue.attributes.delay_ms != attributes.delay_ms;
        let changed = QueueRecord { attributes, modified_at: now.wall, ..queue.clone() };
        tx.queues()?.insert(&queue.id, &changed)?;
        if is_new_delay {
            delay::begin(tx, &changed, now)?;
        }
    }
    Ok(queue.id)
}

/// Keeps the index of those that name a dead-letter queue.
fn name_source(
    tx: &mut Tx<'_>,
    id: u32,
    old: Option<&QueueAttributes>,
    new: &QueueAttributes,
) -> Result<(), store::Error> {
    let target = |attributes: &QueueAttributes| attributes.redrive.as_ref().map(|(name, _)| name.clone());
    if let Some(name) = old.and_then(target) {
        tx.dead_letter_sources()?.remove(&(name, u64::from(id)))?;
    }
    match target(new) {
        Some(name) => tx.dead_letter_sources()?.insert(&(name, u64::from(id)), &()),
        None => Ok(()),
    }
}

/// The names of the queues whose dead letters go to `dead_letter_queue`.
///
/// # Errors
/// A storage fault.
pub fn sources(snapshot: &Snapshot, dead_letter_queue: &str) -> Result<Vec<String>, Error> {
    let queues = snapshot.queues()?;
    let mut names = Vec::new();
    for ((_, id), ()) in snapshot.dead_letter_sources()?.first(sources_of(dead_letter_queue), usize::MAX)? {
        names.extend(queues.get(&u32::try_from(id).unwrap_or_default())?.map(|queue| queue.name));
    }
    names.sort();
    Ok(names)
}

/// The range of those that name a dead-letter queue, in their index.
pub(super) fn sources_of(dead_letter_queue: &str) -> RangeInclusive<(String, u64)> {
    (dead_letter_queue.to_owned(), 0)..=(dead_letter_queue.to_owned(), u64::MAX)
}

/// Checks the dead-letter queue: it exists, is another queue of the same kind that allows this source, and no letter
/// comes back by way of further ones.
fn check_dead_letter_queue(tx: &mut Tx<'_>, name: &str, options: &Options) -> Result<(), Error> {
    let Some(redrive) = &options.redrive else { return Ok(()) };
    let to = &redrive.dead_letter_queue;
    let refused = |why| Err(Error::DeadLetterQueue { from: name.to_owned(), to: to.clone(), why });
    if to == name {
        return refused("it is the same queue (name another one)");
    }
    let Some(id) = tx.queue_id(to)? else { return refused("there is no such queue (make it first)") };
    let target = by_id(tx, id)?;
    if target.attributes.fifo.is_some() != options.fifo.is_some() {
        return Err(Error::Kinds { from: name.to_owned(), to: to.clone() });
    }
    if !allows(&target.attributes.redrive_allow, name) {
        return Err(Error::NotAllowed { from: name.to_owned(), to: to.clone() });
    }
    let mut at = target;
    for _ in 0..CHAIN_MAX {
        let Some((next, _)) = &at.attributes.redrive else { return Ok(()) };
        if next == name {
            return refused("letters would come back in a circle (break it)");
        }
        match dead_letter_queue(tx, &at)? {
            Some(next) => at = next,
            None => return Ok(()),
        }
    }
    refused("the chain of dead-letter queues behind it is too long")
}

/// Checks a queue that is to be made against those that name it as their dead-letter queue already: theirs was deleted.
fn check_sources(tx: &mut Tx<'_>, name: &str, options: &Options) -> Result<(), Error> {
    for ((_, id), ()) in tx.dead_letter_sources()?.first(sources_of(name), SOURCES_CHECKED_MAX)? {
        let Some(source) = tx.queue(u32::try_from(id).unwrap_or_default())? else { continue };
        if source.attributes.fifo.is_some() != options.fifo.is_some() {
            return Err(Error::Kinds { from: source.name.clone(), to: name.to_owned() });
        }
        if !allows(&options.redrive_allow, &source.name) {
            return Err(Error::NotAllowed { from: source.name.clone(), to: name.to_owned() });
        }
    }
    Ok(())
}

/// A queue that is made is checked against this many of those that name it as their dead-letter queue.
const SOURCES_CHECKED_MAX: usize = 500;
/// The longest chain of dead-letter queues.
const CHAIN_MAX: usize = 100;

fn allows(allow: &RedriveAllow, source: &str) -> bool {
    match allow {
        RedriveAllow::All => true,
        RedriveAllow::Nobody => false,
        RedriveAllow::Only(sources) => sources.iter().any(|allowed| allowed == source),
    }
}

/// Stops receives from the queue until [`resume`]; sends continue. A second pause keeps the first one's name and
/// moment.
///
/// # Errors
/// The queue does not exist.
pub fn pause(tx: &mut Tx<'_>, name: &str, by: &str, now: Now) -> Result<(), Error> {
    let queue = find(tx, name)?;
    if queue.paused.is_none() {
        let by = by.chars().take(PAUSED_BY_CHARS_MAX).collect();
        let paused = Some(Pause { by, since: now.wall });
        tx.queues()?.insert(&queue.id, &QueueRecord { paused, ..(*queue).clone() })?;
    }
    Ok(())
}

/// Allows receives again.
///
/// # Errors
/// The queue does not exist.
pub fn resume(tx: &mut Tx<'_>, name: &str) -> Result<(), Error> {
    let queue = find(tx, name)?;
    tx.queues()?.insert(&queue.id, &QueueRecord { paused: None, ..(*queue).clone() })?;
    tx.signal(u64::from(queue.id));
    Ok(())
}

/// Adds tags to a queue and replaces those with the same keys.
///
/// # Errors
/// The queue does not exist or would have more than 50 tags, or a tag exceeds SQS's limits.
pub fn tag(tx: &mut Tx<'_>, name: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
    let mut queue = (*find(tx, name)?).clone();
    queue.tags.extend(tags);
    check_tags(&queue.tags)?;
    tx.queues()?.insert(&queue.id, &queue)?;
    Ok(())
}

/// Removes tags from a queue; ignores keys that it does not have.
///
/// # Errors
/// The queue does not exist.
pub fn untag(tx: &mut Tx<'_>, name: &str, keys: &[String]) -> Result<(), Error> {
    let mut queue = (*find(tx, name)?).clone();
    queue.tags.retain(|key, _| !keys.contains(key));
    tx.queues()?.insert(&queue.id, &queue)?;
    Ok(())
}

/// Deletes a queue and returns how many messages it had. The name is gone at once; messages and record are removed in
/// steps, by [`super::purge`].
///
/// # Errors
/// The queue does not exist.
pub fn delete(tx: &mut Tx<'_>, name: &str, now: Now) -> Result<u64, Error> {
    let queue = find(tx, name)?;
    tx.queue_names()?.remove(&queue.name)?;
    if let Some((name, _)) = &queue.attributes.redrive {
        tx.dead_letter_sources()?.remove(&(name.clone(), u64::from(queue.id)))?;
    }
    tx.queues()?.insert(&queue.id, &QueueRecord { deleted_at: Some(now.wall), ..(*queue).clone() })?;
    let record = DedupRecord { until: now.lease.after(NAME_KEPT), what: DedupEntry::Deleted };
    dedup::insert(tx, NO_QUEUE, deleted(name), &record, now.lease)?;
    tx.signal(u64::from(queue.id));
    Ok(leaving::leave(tx, &queue)?)
}

/// The deleted queues of which nothing is left, no letter in another queue either: letters know their source by its record.
///
/// # Errors
/// A storage fault.
pub(super) fn forgettable(snapshot: &Snapshot) -> Result<Vec<u32>, Error> {
    let mut deleted = all(snapshot)?;
    deleted.retain(|queue| queue.deleted_at.is_some());
    let mut kept = BTreeSet::new();
    if !deleted.is_empty() {
        kept.extend(snapshot.row_numbers()?.first(0..=u32::MAX, usize::MAX)?.into_iter().map(|(_, U32(id))| id));
        snapshot.letter_groups()?.scan((0, 0, 0)..=(u32::MAX, u64::MAX, u32::MAX), |(_, _, source), _| {
            kept.insert(source);
            ControlFlow::Continue(())
        })?;
    }
    Ok(deleted.into_iter().map(|queue| queue.id).filter(|id| !kept.contains(id)).collect())
}

/// Removes the records of deleted queues.
pub(super) fn forget(tx: &mut Tx<'_>, ids: &[u32]) -> Result<(), store::Error> {
    for id in ids {
        tx.kept_attributes()?.remove(id)?;
        tx.queues()?.remove(id)?;
    }
    Ok(())
}

/// The queue that holds messages under that row number; `None` when they were purged, or their queue was deleted.
pub(super) fn holding(tx: &mut Tx<'_>, rows: u32) -> Result<Option<Arc<QueueRecord>>, store::Error> {
    let id = tx.queue_of_rows(rows)?;
    Ok(tx.queue(id)?.filter(|queue| queue.deleted_at.is_none() && queue.rows == rows))
}

/// A deleted queue's name cannot be reused for this long, as in SQS.
const NAME_KEPT: Duration = Duration::from_secs(60);
/// No queue has this number; entries that belong to no queue are stored under it.
pub(super) const NO_QUEUE: u32 = 0;
const PAUSED_BY_CHARS_MAX: usize = 200;
/// SQS's limits for tags.
const TAGS_MAX: usize = 50;
const TAG_KEY_CHARS: RangeInclusive<usize> = 1..=128;
const TAG_VALUE_CHARS_MAX: usize = 256;

fn deleted(name: &str) -> Digest {
    dedup::digest(&["deleted", name])
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), Error> {
    let range = |what, min, max: usize, got: usize| Error::OutOfRange { what, min, max: max as u64, got: got as u64 };
    if tags.len() > TAGS_MAX {
        return Err(range("tags", 0, TAGS_MAX, tags.len()));
    }
    tags.iter().try_for_each(|(key, value)| match (key.chars().count(), value.chars().count()) {
        (key, _) if !TAG_KEY_CHARS.contains(&key) => Err(range("characters of a tag's key", 1, 128, key)),
        (_, value) if value > TAG_VALUE_CHARS_MAX => {
            Err(range("characters of a tag's value", 0, TAG_VALUE_CHARS_MAX, value))
        }
        _ => Ok(()),
    })
}

/// The first attribute that differs, by its name in the configuration.
fn difference(a: &QueueAttributes, b: &QueueAttributes) -> Option<&'static str> {
    let checks = [
        (a.fifo == b.fifo, "kind or deduplication"),
        (a.visibility_timeout_ms == b.visibility_timeout_ms, "visibility_timeout"),
        (a.delay_ms == b.delay_ms, "delay"),
        (a.retention_ms == b.retention_ms, "retention"),
        (a.receive_wait_ms == b.receive_wait_ms, "receive_wait"),
        (a.message_bytes_max == b.message_bytes_max, "message_max"),
        (a.redrive == b.redrive, "dead_letter_queue"),
        (a.redrive_allow == b.redrive_allow, "redrive_allow"),
        (a.messages_max == b.messages_max, "max_messages"),
        (a.bytes_max == b.bytes_max, "max_bytes"),
    ];
    checks.into_iter().find(|(is_same, _)| !is_same).map(|(_, what)| what)
}

/// The queue of that name.
///
/// # Errors
/// [`Error::NotFound`] lists the existing queues.
pub fn find(tx: &mut Tx<'_>, name: &str) -> Result<Arc<QueueRecord>, Error> {
    if let Some(id) = tx.queue_id(name)? {
        return by_id(tx, id);
    }
    let known = tx.queue_names()?.first(String::new()..=LAST_NAME.to_owned(), KNOWN_SHOWN_MAX)?;
    Err(not_found(name, &known))
}

/// The queue of that number.
///
/// # Errors
/// [`Error::Gone`] when it was deleted.
pub fn by_id(tx: &mut Tx<'_>, id: u32) -> Result<Arc<QueueRecord>, Error> {
    tx.queue(id)?.ok_or(Error::Gone(id))
}

/// The dead-letter queue that `queue` names, if there is one.
///
/// # Errors
/// A storage fault.
pub fn dead_letter_queue(tx: &mut Tx<'_>, queue: &QueueRecord) -> Result<Option<Arc<QueueRecord>>, Error> {
    let Some((name, _)) = &queue.attributes.redrive else { return Ok(None) };
    match tx.queue_id(name)? {
        Some(id) => Ok(tx.queue(id)?),
        None => Ok(None),
    }
}

/// The queue of that name, as the snapshot shows it.
///
/// # Errors
/// [`Error::NotFound`] lists the existing queues.
pub fn look_up(snapshot: &Snapshot, name: &str) -> Result<QueueRecord, Error> {
    let names = snapshot.queue_names()?;
    match names.get(&name.to_owned())? {
        Some(U32(id)) => snapshot.queues()?.get(&id)?.ok_or(Error::Gone(id)),
        None => Err(not_found(name, &names.first(String::new()..=LAST_NAME.to_owned(), KNOWN_SHOWN_MAX)?)),
    }
}

/// All queues by name, without those being deleted.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot) -> Result<Vec<QueueRecord>, Error> {
    let mut queues = all(snapshot)?;
    queues.retain(|queue| queue.deleted_at.is_none());
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queues)
}

/// The numbers of the queues that hold messages whose delay or lease has run out and that count under their old phase.
///
/// # Errors
/// A storage fault.
pub(super) fn with_due(snapshot: &Snapshot, now: LeaseTime) -> Result<Vec<u32>, Error> {
    let timed = snapshot.timed()?;
    let mut found = Vec::new();
    for queue in list(snapshot)? {
        let due = (queue.rows, 0, 0)..=(queue.rows, now.as_millis(), u64::MAX);
        if !timed.first(due, 1)?.is_empty() {
            found.push(queue.id);
        }
    }
    Ok(found)
}

/// All queues by number, those being deleted included.
///
/// # Errors
/// A storage fault.
pub fn all(snapshot: &Snapshot) -> Result<Vec<QueueRecord>, Error> {
    Ok(snapshot.queues()?.first(0..=u32::MAX, usize::MAX)?.into_iter().map(|(_, queue)| queue).collect())
}

/// Checks a name against SQS's grammar: FIFO queues, and they alone, end in `.fifo`.
///
/// # Errors
/// [`Error::Name`] with the name and the grammar.
pub fn check_name(name: &str, options: &Options) -> Result<(), Error> {
    let stem = match name.strip_suffix(FIFO_SUFFIX) {
        Some(stem) if options.fifo.is_some() => stem,
        None if options.fifo.is_none() => name,
        _ => "",
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !stem.is_empty() && name.len() <= limit::QUEUE_NAME_CHARS_MAX && stem.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(100).collect()))
    }
}

/// The suffix of a FIFO queue's name; it counts towards the name's length.
pub const FIFO_SUFFIX: &str = ".fifo";

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
        redrive_allow: options.redrive_allow.clone(),
        fifo: options.fifo,
        messages_max: options.messages_max,
        bytes_max: options.bytes_max,
    }
}
