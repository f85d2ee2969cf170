//! What a redrive would move: counted for a preview, and pinned for the start.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp, units};
use crate::store::Snapshot;
use crate::store::record::{QueueRecord, Selection};

use super::super::{Error, catalog, dead};
use super::token::{self, Token};
use super::{LOOKED_AT_MAX, Redrive, counting};

/// An error that names what is known lists this many.
const KNOWN_MAX: usize = 10;
/// At most this many runs are told apart to name those that are known.
const RUNS_MAX: usize = 1000;

/// What a redrive would move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Letters in the dead-letter queue.
    pub letters: u64,
    /// Letters that would move.
    pub matching: u64,
    /// Destinations: queue name and number of letters. Letters without a source are counted under `""`.
    pub destinations: BTreeMap<String, u64>,
    /// The preview's token: a redrive of the same queue and selection with this `as_of` moves exactly these letters,
    /// even if others die meanwhile.
    #[serde(default)]
    pub as_of: String,
    /// The first few of the letters.
    #[serde(default)]
    pub sample: Vec<MessageId>,
    /// Set when not all letters were looked at, at most [`super::LOOKED_AT_MAX`]: more may match.
    #[serde(default)]
    pub is_more: bool,
}

/// A redrive that was counted and can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it would move.
    pub preview: Preview,
    /// Its selection, with ages as moments and sorted ids.
    pub(super) selection: Selection,
    /// The preview's moment in the id series, when the redrive has a preview's token.
    pub(super) as_of: Option<u64>,
}

/// Counts what the redrive would move; moves nothing. `now` is what ages count from, unless a token says otherwise.
///
/// # Errors
/// A queue does not exist or is not a dead-letter queue, the token does not belong to this redrive, or something is
/// selected and matches no letter.
pub fn plan(snapshot: &Snapshot, redrive: &Redrive, now: Timestamp) -> Result<Plan, Error> {
    let from = catalog::look_up(snapshot, &redrive.from)?;
    let to = redrive.to.as_deref().map(|name| catalog::look_up(snapshot, name)).transpose()?;
    super::check(redrive)?;
    if snapshot.dead_letter_sources()?.first(catalog::sources_of(&redrive.from), 1)?.is_empty() {
        return Err(Error::NotDeadLetterQueue(redrive.from.clone()));
    }
    let store = snapshot.store_number()?;
    let pinned = redrive.as_of.as_deref().map(|text| token::check(text, store, redrive, from.id)).transpose()?;
    let at = pinned.map_or(now, |token| token.at);
    let selection = resolve(redrive, at);
    let counted = counting::count(snapshot, &from, &selection, pinned.map(|token| token.as_of))?;
    let is_selective = pinned.is_some() || selection != Selection::default();
    if counted.matching == 0 && is_selective && !counted.is_more {
        return Err(nothing_matches(snapshot, &from, &selection, counted.letters)?);
    }
    let token = match pinned {
        Some(token) => token,
        None => {
            let (as_of, digest) = (snapshot.last_id()?, token::selection_digest(redrive));
            Token { queue: from.id, as_of, at, matching: counted.matching, selection: digest }
        }
    };
    let mut destinations = BTreeMap::new();
    for (source, count) in &counted.sources {
        let name = match &to {
            Some(to) => to.name.clone(),
            None => snapshot.queues()?.get(source)?.map(|queue| queue.name).unwrap_or_default(),
        };
        *destinations.entry(name).or_default() += count;
    }
    let preview = Preview {
        letters: counted.letters,
        // Where not all were looked at, the preview that gave the token may have seen more.
        matching: if counted.is_more { counted.matching.max(token.matching) } else { counted.matching },
        destinations,
        as_of: token.to_text(store),
        sample: counted.sample,
        is_more: counted.is_more,
    };
    Ok(Plan { preview, selection, as_of: pinned.map(|token| token.as_of) })
}

/// The selection with ages as moments before `at`, and with sorted, unique ids.
fn resolve(redrive: &Redrive, at: Timestamp) -> Selection {
    let before = |age: std::time::Duration| {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(at.as_millis().saturating_sub(age_ms))
    };
    let mut selection = super::sorted(&redrive.selection);
    if let Some(older) = redrive.older.map(before) {
        selection.died_before = Some(selection.died_before.map_or(older, |other| other.min(older)));
    }
    if let Some(newer) = redrive.newer.map(before) {
        selection.died_from = Some(selection.died_from.map_or(newer, |other| other.max(newer)));
    }
    selection
}

/// Why no letter matches: an unknown fingerprint or run, or simply none.
fn nothing_matches(
    snapshot: &Snapshot,
    from: &QueueRecord,
    selection: &Selection,
    letters: u64,
) -> Result<Error, Error> {
    let queue = from.name.clone();
    if let Some(got) = selection.fingerprint {
        let groups = dead::groups(snapshot, from)?;
        if groups.iter().all(|group| group.fingerprint != Some(got)) {
            let known = groups.iter().filter_map(|group| Some((group.fingerprint?, group)));
            let known = known.map(|(print, group)| format!("{print} {}, {}", group.class, letters_text(group.count)));
            return Ok(Error::UnknownFingerprint { queue, got, known: known_text(known.collect()) });
        }
    }
    if let Some(got) = selection.run {
        let runs = runs(snapshot, from)?;
        if !runs.contains_key(&got) {
            let known = runs.iter().rev().map(|(run, count)| format!("{run}, {}", letters_text(*count)));
            return Ok(Error::UnknownRun { queue, got, known: known_text(known.collect()) });
        }
    }
    Ok(Error::NothingMatches { queue, letters })
}

/// The runs that letters of the queue belong to, with the number of letters; of the first [`LOOKED_AT_MAX`] letters.
fn runs(snapshot: &Snapshot, from: &QueueRecord) -> Result<BTreeMap<u64, u64>, Error> {
    let bodies = snapshot.bodies()?;
    let mut runs = BTreeMap::new();
    let mut fault = None;
    let mut seen = 0;
    snapshot.states()?.scan((from.rows, 0)..=(from.rows, u64::MAX), |_, state| match bodies.get(&state.body) {
        Ok(_) if seen == LOOKED_AT_MAX => ControlFlow::Break(()),
        Ok(body) => {
            seen += 1;
            let run = body.map_or(0, |body| body.run);
            if run != 0 && (runs.len() < RUNS_MAX || runs.contains_key(&run)) {
                *runs.entry(run).or_default() += 1;
            }
            ControlFlow::Continue(())
        }
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    })?;
    fault.map_or(Ok(runs), |fault| Err(fault.into()))
}

fn letters_text(count: u64) -> String {
    units::count(count, "letter")
}

/// The first few of what is known.
fn known_text(mut known: Vec<String>) -> String {
    let more = known.len().saturating_sub(KNOWN_MAX);
    known.truncate(KNOWN_MAX);
    match (known.is_empty(), more) {
        (true, _) => "none".into(),
        (_, 0) => known.join("; "),
        (_, more) => format!("{}; and {more} more", known.join("; ")),
    }
}
