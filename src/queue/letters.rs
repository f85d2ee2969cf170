//! The index of dead letters: each stands under the class of its last failure and the moment of its death, and each class
//! has counters that move with its letters, so that groups and previews cost what they show.
//!
//! A letter is a message that died from another queue. What was sent to a dead-letter queue directly is in no index.

use crate::base::Attempt;
use crate::store::record::{LetterClass, MessageState};
use crate::store::{self, Tx};

use super::state::{self, Key};

/// Adds a letter that came into a dead-letter queue; its history is written already. Other messages need nothing.
pub(super) fn insert(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    if state.source == 0 {
        return Ok(());
    }
    let last = state::last_attempt(tx, state)?;
    add(tx, key, state, last.as_ref())
}

/// Removes a letter that leaves its queue; its history is still there.
pub(super) fn remove(tx: &mut Tx<'_>, key: Key, state: &MessageState) -> Result<(), store::Error> {
    if state.source == 0 {
        return Ok(());
    }
    let last = state::last_attempt(tx, state)?;
    let class = LetterClass::of(last.as_ref());
    let group = (key.0, class.0, state.source);
    let left = tx.letter_groups()?.get(&group)?.and_then(|count| count.checked_sub(1));
    let was_there = tx.letters()?.remove(&(key.0, class.0, died_at(state, last.as_ref()), key.1))?;
    match left {
        Some(0) => drop(tx.letter_groups()?.remove(&group)?),
        Some(left) => tx.letter_groups()?.insert(&group, &left)?,
        None => {}
    }
    if was_there && left.is_some() {
        return Ok(());
    }
    Err(tx.damaged("letters", format!("letter {} of queue {} does not stand in its index", key.1, key.0)))
}

/// Moves a letter in the index: `attempt`, which is about to be written, becomes its last one.
pub(super) fn attempted(
    tx: &mut Tx<'_>,
    key: Key,
    state: &MessageState,
    attempt: &Attempt,
) -> Result<(), store::Error> {
    if state.source == 0 {
        return Ok(());
    }
    remove(tx, key, state)?;
    add(tx, key, state, Some(attempt))
}

fn add(tx: &mut Tx<'_>, key: Key, state: &MessageState, last: Option<&Attempt>) -> Result<(), store::Error> {
    let class = LetterClass::of(last);
    let group = (key.0, class.0, state.source);
    let count = tx.letter_groups()?.get(&group)?.unwrap_or(0);
    tx.letter_groups()?.insert(&group, &(count + 1))?;
    tx.letters()?.insert(&(key.0, class.0, died_at(state, last), key.1), &())
}

/// The moment of a letter's death in ms; of one without an attempt the moment at which it was sent.
fn died_at(state: &MessageState, last: Option<&Attempt>) -> u64 {
    last.map_or(state.sent_at, |last| last.ended_at).as_millis()
}
