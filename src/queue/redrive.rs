//! Redrive: letters go back from a dead-letter queue to where they died, in bounded steps that survive a crash.
//!
//! A redrive takes the letters that are in the queue when it starts; later ones stay. As in SQS a letter gets a new
//! message id and a new sent time, and its attempts start anew; the body, the history and the run's books stay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Fingerprint, MessageId, Timestamp};
use crate::store::record::{MessageState, QueueRecord, RedriveRecord, RedriveState};
use crate::store::{self, Snapshot, Tx};

use super::{Error, News, Witness, catalog, place, purge};

/// The topic that is signalled when a redrive starts or ends.
pub const TOPIC: u64 = 0;
/// One step looks at this many letters.
pub const LOOK_MAX: usize = 500;
/// One redrive may name this many messages.
pub const IDS_MAX: usize = 10_000;
/// The store remembers this many redrives that ended; the oldest are forgotten when a new one starts.
pub const ENDED_KEPT_MAX: usize = 100;
/// The fastest rate that can be asked for, in letters per second.
pub const RATE_MAX: u32 = 100_000;

/// Which letters go back, where to, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redrive {
    /// The dead-letter queue.
    pub from: String,
    /// Where they go; each letter's own source when `None`.
    pub to: Option<String>,
    /// Only letters whose last failure has this fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Only these messages; all when empty. At most [`IDS_MAX`].
    pub ids: Vec<MessageId>,
    /// At most this many letters per second, 1 to [`RATE_MAX`].
    pub per_second: Option<u32>,
}

/// What a redrive would move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Letters in the dead-letter queue.
    pub letters: u64,
    /// Letters that would move.
    pub matching: u64,
    /// Where they would go: the name of the queue and how many. Letters without a source stand under `""`.
    pub destinations: BTreeMap<String, u64>,
}

/// Says what the redrive would move now, and moves nothing.
///
/// # Errors
/// A queue is not there.
pub fn preview(snapshot: &Snapshot, redrive: &Redrive) -> Result<Preview, Error> {
    let from = catalog::look_up(snapshot, &redrive.from)?;
    let to = redrive.to.as_deref().map(|name| catalog::look_up(snapshot, name)).transpose()?;
    check(redrive)?;
    let queues = catalog::list(snapshot)?;
    check_source(redrive, &queues)?;
    let names: BTreeMap<u32, String> = queues.into_iter().map(|queue| (queue.id, queue.name)).collect();
    let ids = sorted(&redrive.ids);
    let mut preview = Preview::default();
    let history = snapshot.history()?;
    let mut next = 0;
    loop {
        let letters = snapshot.states()?.first((from.id, next)..=(from.id, u64::MAX), LOOK_MAX)?;
        let Some(((_, last), _)) = letters.last() else { return Ok(preview) };
        next = last + 1;
        for (_, state) in &letters {
            preview.letters += 1;
            let fingerprint = match redrive.fingerprint {
                None => None,
                Some(_) => history
                    .last((state.body, 0)..=(state.body, u32::MAX))?
                    .and_then(|(_, attempt)| attempt.fingerprint()),
            };
            if matches(redrive.fingerprint, &ids, state, fingerprint) {
                preview.matching += 1;
                let destination = to.as_ref().map(|queue| queue.name.clone());
                let destination = destination.or_else(|| names.get(&state.source).cloned()).unwrap_or_default();
                *preview.destinations.entry(destination).or_default() += 1;
            }
        }
    }
}

/// Starts a redrive; [`step`] carries it on. Answers its number.
///
/// # Errors
/// A queue is not there, the source is not a dead-letter queue or the destination too, or one is running from it
/// already.
pub fn start(tx: &mut Tx<'_>, redrive: &Redrive, now: Timestamp) -> Result<u64, Error> {
    check(redrive)?;
    let from = catalog::find(tx, &redrive.from)?;
    let to = redrive.to.as_deref().map(|name| catalog::find(tx, name)).transpose()?;
    let queues: Vec<QueueRecord> = tx.queues()?.first(0..=u32::MAX, usize::MAX)?.into_iter().map(|(_, q)| q).collect();
    check_source(redrive, &queues)?;
    let (running, ended): (Vec<_>, Vec<_>) = tx
        .redrives()?
        .first(0..=u64::MAX, usize::MAX)?
        .into_iter()
        .partition(|(_, record)| record.state == RedriveState::Running);
    if let Some((id, _)) = running.into_iter().find(|(_, record)| record.from == from.id) {
        return Err(Error::RedriveRunning { id, queue: from.name });
    }
    // One starts now and will end too.
    let forgotten = (ended.len() + 1).saturating_sub(ENDED_KEPT_MAX);
    for (id, _) in ended.into_iter().take(forgotten) {
        tx.redrives()?.remove(&id)?;
    }
    let last = purge::newest(tx, from.id)?;
    let id = tx.fresh_id()?;
    let record = RedriveRecord {
        id,
        from: from.id,
        to: to.map(|queue| queue.id),
        fingerprint: redrive.fingerprint,
        ids: sorted(&redrive.ids),
        per_second: redrive.per_second,
        last,
        done: 0,
        moved: 0,
        started_at: now,
        state: RedriveState::Running,
    };
    tx.redrives()?.insert(&id, &record)?;
    tx.signal(TOPIC);
    Ok(id)
}

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
    let from = record.done + 1;
    let letters = tx.states()?.first((record.from, from)..=(record.from, record.last.max(from)), LOOK_MAX)?;
    let seen_all = letters.len() < LOOK_MAX;
    let mut left = budget;
    let mut is_stopped = false;
    for (key, state) in letters {
        if key.1 > record.last {
            break;
        }
        if left == 0 {
            is_stopped = true;
            break;
        }
        let fingerprint = match record.fingerprint {
            Some(_) => place::last_fingerprint(tx, &state)?,
            None => None,
        };
        // A letter that died after the start may be older than `last`: it keeps its place in the order of sending.
        let was_there = state.entered < record.id;
        if was_there && matches(record.fingerprint, &record.ids, &state, fingerprint) {
            let to = record.to.unwrap_or(state.source);
            if tx.queues()?.get(&to)?.is_none() {
                record.state = RedriveState::Failed { at: now, why: no_destination(&state, to) };
                break;
            }
            revive(tx, witness, key, &state, to, now)?;
            record.moved += 1;
            left -= 1;
        }
        record.done = key.1;
    }
    if record.state == RedriveState::Running && seen_all && !is_stopped {
        record.state = RedriveState::Completed { at: now };
    }
    if record.state != RedriveState::Running {
        tx.signal(TOPIC);
    }
    tx.redrives()?.insert(&id, &record)?;
    Ok(record)
}

/// Stops a running redrive; what was moved stays moved. Answers how many were.
///
/// # Errors
/// [`Error::RedriveNotFound`] when it is not running.
pub fn cancel(tx: &mut Tx<'_>, id: u64, now: Timestamp) -> Result<u64, Error> {
    let record = tx.redrives()?.get(&id)?.filter(|record| record.state == RedriveState::Running);
    let mut record = record.ok_or(Error::RedriveNotFound(id))?;
    record.state = RedriveState::Cancelled { at: now };
    tx.redrives()?.insert(&id, &record)?;
    tx.signal(TOPIC);
    Ok(record.moved)
}

/// The redrives that run and those that the store remembers, the newest first.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot) -> Result<Vec<RedriveRecord>, Error> {
    let redrives = snapshot.redrives()?.first(0..=u64::MAX, usize::MAX)?;
    Ok(redrives.into_iter().rev().map(|(_, redrive)| redrive).collect())
}

fn revive(
    tx: &mut Tx<'_>,
    witness: &dyn Witness,
    key: place::Key,
    state: &MessageState,
    to: u32,
    now: Timestamp,
) -> Result<(), store::Error> {
    let sequence = tx.fresh_id()?;
    let fresh = place::fresh(sequence, state.body, state.body_bytes, now);
    let back = MessageState { attempts: state.attempts, ..fresh };
    place::take(tx, key, state)?;
    place::put(tx, (to, sequence), &back)?;
    place::tell(tx, witness, state, News::Revived, now)
}

/// Ids in the order that [`matches`] searches.
fn sorted(ids: &[MessageId]) -> Vec<MessageId> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// `ids` are sorted.
fn matches(
    wanted: Option<Fingerprint>,
    ids: &[MessageId],
    state: &MessageState,
    fingerprint: Option<Fingerprint>,
) -> bool {
    (wanted.is_none() || wanted == fingerprint) && (ids.is_empty() || ids.binary_search(&state.message_id).is_ok())
}

fn check(redrive: &Redrive) -> Result<(), Error> {
    let range = |what, max, got| Error::OutOfRange { what, min: 1, max, got };
    match redrive.per_second {
        Some(rate) if rate == 0 || rate > RATE_MAX => {
            return Err(range("rate", u64::from(RATE_MAX), u64::from(rate)));
        }
        _ => {}
    }
    if redrive.to.as_ref() == Some(&redrive.from) {
        return Err(Error::RedriveToItself(redrive.from.clone()));
    }
    if redrive.ids.len() > IDS_MAX {
        return Err(range("ids", IDS_MAX as u64, redrive.ids.len() as u64));
    }
    Ok(())
}

fn check_source(redrive: &Redrive, queues: &[QueueRecord]) -> Result<(), Error> {
    if catalog::sources(queues, &redrive.from).is_empty() {
        return Err(Error::NotDeadLetterQueue(redrive.from.clone()));
    }
    Ok(())
}

fn no_destination(state: &MessageState, to: u32) -> String {
    let id = state.message_id;
    match to {
        0 => format!("letter {id} has no source queue: it was sent here directly (name a destination with --to)"),
        _ => format!("letter {id}: queue number {to} is gone (name a destination with --to)"),
    }
}
