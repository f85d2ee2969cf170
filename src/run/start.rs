//! Starts a run: its row, its identity and the message that starts its fan-out are one commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Now, Timestamp};
use crate::queue::{Send, admission, catalog, send};
use crate::store::Tx;
use crate::store::record::{BrakeLimit, FanOutProgress, Gate, Guard, RunRecord, RunTotals};

use super::{Error, control, note};

/// The parameters of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The schedule.
    pub schedule: String,
    /// The fan-out function that fetches the users.
    pub function: String,
    /// That function's queue.
    pub queue: String,
    /// The identifying parameters.
    pub params: BTreeMap<String, String>,
    /// The tick, or the moment of a start by hand.
    pub scheduled_for: Timestamp,
    /// The bounds of its number of users; `None` to send messages while users are fetched, however many they are.
    pub guard: Option<Guard>,
    /// What stops its sending by itself.
    pub brake: Option<BrakeLimit>,
    /// What must be right before its first mail; with one, no message is sent while users are fetched, guard or not.
    pub gate: Option<Gate>,
    /// Its note; most often empty.
    pub note: String,
}

/// The message that starts a run's fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutMessage {
    /// The run's number.
    pub run: u64,
}

impl FanOutMessage {
    /// The message's text.
    pub(super) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a number always serialises")
    }
}

/// Starts a run and returns its number.
///
/// # Errors
/// [`Error::Exists`] names the earlier run of the same identity; [`Error::Note`]; the fan-out's queue does not exist or is
/// full.
pub fn start(tx: &mut Tx<'_>, what: &Start, now: Now) -> Result<u64, Error> {
    let identity = identity(&what.schedule, &what.params, what.scheduled_for);
    if let Some(id) = tx.run_keys()?.get(&identity)? {
        let earlier = tx.runs()?.get(&id)?.ok_or(Error::NotFound(id))?;
        let state = control::state(tx, &earlier)?;
        let remedy = match earlier.folded_at {
            Some(_) => "its recipients are not on record any more: take another parameter to mail them again".into(),
            None => control::remedy(&control::decided(tx, id)?.unwrap_or_default(), state, id),
        };
        return Err(Error::Exists { identity, id, state: state.name(), remedy });
    }
    note::check(&what.note)?;
    let queue = catalog::find(tx, &what.queue)?;
    let id = tx.runs()?.last(0..=u64::MAX)?.map_or(1, |(last, _)| last + 1);
    let message = admission::admit(tx, &queue, Send { run: id, ..Send::text(FanOutMessage { run: id }.body()) }, now)?;
    send::send(tx, message, now)?;
    let record = RunRecord {
        id,
        schedule: what.schedule.clone(),
        function: what.function.clone(),
        params: what.params.clone(),
        scheduled_for: what.scheduled_for,
        started_at: now.wall,
        fan_out: FanOutProgress::default(),
        refetches: 0,
        note: what.note.clone(),
        folded_at: None,
        check: None,
    };
    tx.runs()?.insert(&id, &record)?;
    tx.run_keys()?.insert(&identity, &id)?;
    *tx.totals_mut(id)? = RunTotals::default();
    if let Some(guard) = control::guard_of(what.guard, what.gate.as_ref()) {
        control::set_guard(tx, id, guard)?;
    }
    if let Some(gate) = what.gate {
        control::set_gate(tx, id, gate)?;
    }
    if let Some(limit) = what.brake {
        control::set_brake(tx, id, limit)?;
    }
    Ok(id)
}

/// Schedule and identifying parameters as one text; a run without parameters is identified by its scheduled moment. The
/// same identity in another store is the same run, so that its mails have the same Message-IDs.
pub fn identity(schedule: &str, params: &BTreeMap<String, String>, scheduled_for: Timestamp) -> String {
    if params.is_empty() {
        return format!("{schedule} {scheduled_for}");
    }
    let params: Vec<String> = params.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    format!("{schedule} {}", params.join(" "))
}
