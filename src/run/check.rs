//! Checks the invariants between the tables of runs: each run has its identity, its totals equal a recount of its
//! recipients, every recipient belongs to a run and agrees with its message, and whatever else is kept belongs to a recipient.

use crate::store::check::Findings;
use crate::store::record::RecipientState;
use crate::store::{Error, Snapshot};

use super::{identity, suppression, verify};

/// Adds a finding for each contradiction. Skips rows that do not decode: [`crate::store::check::records`] reports them.
///
/// # Errors
/// A storage fault, or the check is to stop.
pub fn check(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let (runs, keys, totals) = (snapshot.runs()?, snapshot.run_keys()?, snapshot.totals()?);
    runs.each_sound(|id, run| {
        if keys.sound(&identity(&run.schedule, &run.params, run.scheduled_for))? != Some(id) {
            findings.add("runs", id, "its identity does not lead to it");
        }
        // Of a folded run the numbers stay, and its rows are going.
        if run.folded_at.is_none() {
            verify::totals(snapshot, id, findings)?;
        }
        findings.go_on()
    })?;
    keys.each_sound(|identity, id| {
        if !runs.has(&id)? {
            findings.add("run_keys", identity, format_args!("run {id} is not there"));
        }
        findings.go_on()
    })?;
    totals.each_sound(|id, _| {
        if !runs.has(&id)? {
            findings.add("totals", id, "its run is not there");
        }
        findings.go_on()
    })?;
    snapshot.run_controls()?.each_sound(|id, _| {
        if !runs.has(&id)? {
            findings.add("run_controls", id, "its run is not there");
        }
        findings.go_on()
    })?;
    snapshot.run_paces()?.each_sound(|id, _| {
        if !runs.has(&id)? {
            findings.add("run_paces", id, "its run is not there");
        }
        findings.go_on()
    })?;
    let mut known = None;
    snapshot.recipients()?.each_sound(|key, row| {
        if known != Some(key.0) {
            if runs.has(&key.0)? {
                known = Some(key.0);
            } else {
                findings.add("recipients", key, format_args!("run {} is not there", key.0));
            }
        }
        verify::recipient(snapshot, key, &row, findings)?;
        findings.go_on()
    })?;
    check_effects(snapshot, findings)?;
    suppression::check(snapshot, findings)
}

/// Intents, effects and user records belong to recipients.
fn check_effects(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), Error> {
    let recipients = snapshot.recipients()?;
    snapshot.intents()?.each_sound(|key, intent| {
        if !recipients.has(&(key.0, intent.recipient))? {
            findings.add("intents", key, "its recipient is not there");
        }
        findings.go_on()
    })?;
    snapshot.effects()?.each_sound(|key, effect| {
        if !recipients.has(&(key.0, key.1))? {
            findings.add("effects", key, "its recipient is not there");
        }
        if effect.state == RecipientState::Open && effect.body != 0 && !snapshot.bodies()?.has(&effect.body)? {
            findings.add("effects", key, "is open, but its message is not there");
        }
        findings.go_on()
    })?;
    snapshot.user_records()?.each_sound(|key, _| {
        if !recipients.has(&key)? {
            findings.add("user_records", key, "its recipient is not there");
        }
        findings.go_on()
    })
}
