//! How many letters a selection includes: from the counters where they tell, else by looking at the letters, up to a
//! limit.

use std::collections::BTreeMap;

use crate::base::MessageId;
use crate::store::Snapshot;
use crate::store::record::{LetterClass, MessageState, QueueRecord, Selection};

use super::super::{Error, dead};
use super::{SCAN_MAX, select};

/// A preview lists this many of its letters.
pub const SAMPLE_MAX: usize = 10;
/// Where the counters do not tell, a preview looks at this many letters.
pub const LOOKED_AT_MAX: u64 = 50_000;

/// The letters that a selection includes.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Letters in the queue.
    pub(super) letters: u64,
    pub(super) matching: u64,
    /// By the number of the queue that they died from; 0 for those that were sent to the queue directly.
    pub(super) sources: BTreeMap<u32, u64>,
    /// The first few of them.
    pub(super) sample: Vec<MessageId>,
    /// Set when there were more than [`LOOKED_AT_MAX`] letters to look at: there may be more that match.
    pub(super) is_more: bool,
}

impl Counted {
    fn add(&mut self, source: u32, count: u64) {
        self.matching += count;
        *self.sources.entry(source).or_default() += count;
    }
}

/// Counts the letters that were in the queue at the number `as_of` of the store's series; `None` for those of now.
///
/// # Errors
/// A storage fault.
pub(super) fn count(
    snapshot: &Snapshot,
    from: &QueueRecord,
    selection: &Selection,
    as_of: Option<u64>,
) -> Result<Counted, Error> {
    let by_class = Selection { fingerprint: selection.fingerprint, ..Selection::default() };
    if as_of.is_none() && *selection == by_class {
        return from_counters(snapshot, from, selection.fingerprint.map(LetterClass::from));
    }
    let letters = snapshot.counts()?.get(&from.rows)?.unwrap_or_default().total();
    let mut counted = Counted { letters, ..Counted::default() };
    let (mut next, mut seen) = (0, 0);
    loop {
        let found = snapshot.states()?.first((from.rows, next)..=(from.rows, u64::MAX), SCAN_MAX)?;
        let Some(((_, last), _)) = found.last() else { return Ok(counted) };
        if seen >= LOOKED_AT_MAX {
            counted.is_more = true;
            return Ok(counted);
        }
        next = last + 1;
        seen += found.len() as u64;
        for (_, state) in &found {
            let was_there = as_of.is_none_or(|as_of| state.arrival_seq <= as_of);
            if was_there && select::matches(&mut &*snapshot, selection, state)? {
                counted.add(state.source, 1);
                if counted.sample.len() < SAMPLE_MAX {
                    counted.sample.push(state.message_id);
                }
            }
        }
    }
}

/// Counts all letters, or those of one class.
fn from_counters(snapshot: &Snapshot, from: &QueueRecord, class: Option<LetterClass>) -> Result<Counted, Error> {
    let dead::Counters { letters, others } = dead::counters(snapshot, from)?;
    let mut counted = Counted { letters: letters.values().sum::<u64>() + others, ..Counted::default() };
    let wanted = letters.into_iter().filter(|((of, _), _)| class.is_none_or(|class| class == *of));
    for ((_, source), count) in wanted {
        counted.add(source, count);
    }
    counted.is_more = others > 0;
    let states = snapshot.states()?;
    let first: Vec<MessageState> = match class {
        None => {
            let first = states.first((from.rows, 0)..=(from.rows, u64::MAX), SAMPLE_MAX)?;
            first.into_iter().map(|(_, state)| state).collect()
        }
        Some(LetterClass(class)) => {
            let range = (from.rows, class, 0, 0)..=(from.rows, class, u64::MAX, u64::MAX);
            let first = snapshot.letters()?.first(range, SAMPLE_MAX)?;
            let states = first.into_iter().map(|((_, _, _, sequence), ())| states.get(&(from.rows, sequence)));
            states.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
        }
    };
    counted.sample = first.iter().map(|state| state.message_id).collect();
    Ok(counted)
}
