//! Whether a selection includes a dead letter.

use crate::base::Attempt;
use crate::store::record::{AttributeValue, Body, MessageState, Selection};
use crate::store::{self, Snapshot, Tx};

/// Reads a letter's last attempt and body: from a snapshot for a preview, from the transaction for a step.
pub(super) trait Source {
    /// The letter's last attempt.
    fn last_attempt(&mut self, letter: &MessageState) -> Result<Option<Attempt>, store::Error>;
    /// The letter's body.
    fn body(&mut self, letter: &MessageState) -> Result<Option<Body>, store::Error>;
}

impl Source for &Snapshot {
    fn last_attempt(&mut self, letter: &MessageState) -> Result<Option<Attempt>, store::Error> {
        let last = self.history()?.last((letter.body, 0)..=(letter.body, u32::MAX))?;
        Ok(last.map(|(_, attempt)| attempt))
    }

    fn body(&mut self, letter: &MessageState) -> Result<Option<Body>, store::Error> {
        self.bodies()?.get(&letter.body)
    }
}

impl Source for Tx<'_> {
    fn last_attempt(&mut self, letter: &MessageState) -> Result<Option<Attempt>, store::Error> {
        let last = self.history()?.last((letter.body, 0)..=(letter.body, u32::MAX))?;
        Ok(last.map(|(_, attempt)| attempt))
    }

    fn body(&mut self, letter: &MessageState) -> Result<Option<Body>, store::Error> {
        self.bodies()?.get(&letter.body)
    }
}

/// Whether the selection, whose ids are sorted, includes the letter. Reads the history and the body only when the
/// selection has a condition on them.
pub(super) fn matches(
    source: &mut impl Source,
    selection: &Selection,
    letter: &MessageState,
) -> Result<bool, store::Error> {
    if !selection.ids.is_empty() && selection.ids.binary_search(&letter.message_id).is_err() {
        return Ok(false);
    }
    Ok(died_so(source, selection, letter)? && holds(source, selection, letter)?)
}

/// Whether the letter's last failure fits the selection. A message that was sent to the queue directly is of no class of
/// failure, whatever attempts it had there, and its sent time counts as the time of death.
fn died_so(source: &mut impl Source, selection: &Selection, letter: &MessageState) -> Result<bool, store::Error> {
    let Selection { fingerprint, died_from, died_before, error_contains, .. } = selection;
    if fingerprint.is_none() && died_from.is_none() && died_before.is_none() && error_contains.is_none() {
        return Ok(true);
    }
    let last = if letter.source == 0 { None } else { source.last_attempt(letter)? };
    let died_at = last.as_ref().map_or(letter.sent_at, |attempt| attempt.ended_at);
    let text = last.as_ref().and_then(|attempt| attempt.failure.as_ref()).map(|failure| failure.text.as_str());
    Ok(fingerprint.is_none_or(|wanted| last.as_ref().and_then(Attempt::fingerprint) == Some(wanted))
        && died_from.is_none_or(|from| died_at >= from)
        && died_before.is_none_or(|before| died_at < before)
        && error_contains.as_ref().is_none_or(|part| text.is_some_and(|text| text.contains(part))))
}

/// Whether the letter's run and attributes fit the selection.
fn holds(source: &mut impl Source, selection: &Selection, letter: &MessageState) -> Result<bool, store::Error> {
    if selection.run.is_none() && selection.attribute.is_none() {
        return Ok(true);
    }
    let Some(body) = source.body(letter)? else { return Ok(false) };
    let has = |(name, value): &(String, String)| match body.envelope.attributes.get(name).map(|found| &found.value) {
        Some(AttributeValue::Text(text)) => text == value,
        _ => false,
    };
    Ok(selection.run.is_none_or(|run| body.run == run) && selection.attribute.as_ref().is_none_or(has))
}
