//! Dead letters grouped by the fingerprint of their last failure: read from counters that move with the letters.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{Failure, Fingerprint, MessageId, Timestamp};
use crate::store::Snapshot;
use crate::store::record::{LetterClass, MessageState, QueueRecord};

use super::Error;

/// At most this many groups are listed, the largest ones; letters of further ones count as `other`.
pub const GROUPS_MAX: usize = 1000;
/// At most this many counters are read; letters of further ones count as `other`.
const COUNTERS_MAX: usize = 20_000;
/// The messages that were sent to the queue directly have no index: so many are looked at from either end of the queue
/// for the first and the last of them.
const DIRECT_LOOKED_AT_MAX: usize = 200;

/// The letters that died of the same class of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The fault's fingerprint; `None` for letters without a history and for those beyond [`GROUPS_MAX`].
    pub fingerprint: Option<Fingerprint>,
    /// The fault in words: kind, place, code.
    pub class: String,
    /// How many letters.
    pub count: u64,
    /// When the first of them died.
    pub first_at: Timestamp,
    /// When the last of them died.
    pub last_at: Timestamp,
    /// The error text of one of them.
    pub sample: String,
    /// The id of that one.
    pub sample_id: MessageId,
}

/// How many letters of a queue, by class and by the queue that they died from. Messages that were sent to it directly
/// are those of no class and source 0.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) letters: BTreeMap<(LetterClass, u32), u64>,
    /// Letters of counters that were not read.
    pub(super) others: u64,
}

/// Reads the counters.
///
/// # Errors
/// A storage fault.
pub(super) fn counters(snapshot: &Snapshot, queue: &QueueRecord) -> Result<Counters, Error> {
    let all = snapshot.counts()?.get(&queue.rows)?.unwrap_or_default().total();
    let mut counters = Counters { letters: BTreeMap::new(), others: 0 };
    let (mut counted, mut is_more) = (0, false);
    let range = (queue.rows, 0, 0)..=(queue.rows, u64::MAX, u32::MAX);
    snapshot.letter_groups()?.scan(range, |(_, class, source), count| {
        if counters.letters.len() == COUNTERS_MAX {
            is_more = true;
            return ControlFlow::Break(());
        }
        counters.letters.insert((LetterClass(class), source), count);
        counted += count;
        ControlFlow::Continue(())
    })?;
    let rest = all.saturating_sub(counted);
    if is_more {
        counters.others = rest;
    } else if rest > 0 {
        counters.letters.insert((LetterClass::NONE, 0), rest);
    }
    Ok(counters)
}

/// Groups the letters of a dead-letter queue, the largest group first.
///
/// # Errors
/// A storage fault.
pub fn groups(snapshot: &Snapshot, queue: &QueueRecord) -> Result<Vec<Group>, Error> {
    let Counters { letters, mut others } = counters(snapshot, queue)?;
    let direct = letters.get(&(LetterClass::NONE, 0)).copied().unwrap_or(0);
    let mut classes: BTreeMap<LetterClass, u64> = BTreeMap::new();
    for ((class, _), count) in letters {
        *classes.entry(class).or_default() += count;
    }
    let mut classes: Vec<(LetterClass, u64)> = classes.into_iter().collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    others += classes.iter().skip(GROUPS_MAX).map(|(_, count)| count).sum::<u64>();
    let shown = classes.into_iter().take(GROUPS_MAX);
    let mut groups = Vec::new();
    for (class, count) in shown {
        let direct = if class == LetterClass::NONE { direct } else { 0 };
        groups.extend(group(snapshot, queue, (class, count), direct)?);
    }
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.class.cmp(&b.class)));
    if others > 0
        && let Some(((_, _), state)) = snapshot.states()?.first((queue.rows, 0)..=(queue.rows, u64::MAX), 1)?.pop()
    {
        groups.push(Group { count: others, class: "other".into(), ..of_one(&state, None, state.sent_at) });
    }
    Ok(groups)
}

/// One group; `direct` of its letters were sent to the queue directly.
fn group(
    snapshot: &Snapshot,
    queue: &QueueRecord,
    (class, count): (LetterClass, u64),
    direct: u64,
) -> Result<Option<Group>, Error> {
    let range = || (queue.rows, class.0, 0, 0)..=(queue.rows, class.0, u64::MAX, u64::MAX);
    let (states, letters) = (snapshot.states()?, snapshot.letters()?);
    let mut found = Vec::new();
    let ends = [letters.first(range(), 1)?.pop(), letters.last(range())?];
    for ((_, _, died_at, sequence), ()) in ends.into_iter().flatten() {
        found.extend(states.get(&(queue.rows, sequence))?.map(|state| (Timestamp::from_millis(died_at), state)));
    }
    if direct > 0 {
        let all = || (queue.rows, 0)..=(queue.rows, u64::MAX);
        let (front, back) = (states.first(all(), DIRECT_LOOKED_AT_MAX)?, states.newest(all(), DIRECT_LOOKED_AT_MAX)?);
        let is_direct = |(_, state): &(_, MessageState)| state.source == 0;
        let ends = [front.into_iter().find(is_direct), back.into_iter().find(is_direct)];
        found.extend(ends.into_iter().flatten().map(|(_, state)| (state.sent_at, state)));
    }
    found.sort_by_key(|(died_at, _)| *died_at);
    let (Some((first_at, state)), Some((last_at, _))) = (found.first(), found.last()) else { return Ok(None) };
    let last = snapshot.history()?.last((state.body, 0)..=(state.body, u32::MAX))?;
    let failure = last.and_then(|(_, attempt)| attempt.failure);
    let one = of_one(state, failure.as_ref(), *first_at);
    Ok(Some(Group { fingerprint: class.fingerprint(), count, last_at: *last_at, ..one }))
}

/// The group of a single letter.
fn of_one(state: &MessageState, failure: Option<&Failure>, died_at: Timestamp) -> Group {
    Group {
        fingerprint: None,
        class: failure.map_or_else(|| "no recorded failure".into(), Failure::class),
        count: 1,
        first_at: died_at,
        last_at: died_at,
        sample: failure.map(|failure| failure.text.clone()).unwrap_or_default(),
        sample_id: state.message_id,
    }
}
