//! Checks the invariants between the tables of runs: each run has its identity, its totals equal a recount of its
//! recipients, and every recipient belongs to a run.

use crate::store::check::Findings;
use crate::store::{Error, Snapshot};

use super::{identity, report};

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
        match (totals.sound(&id)?, report::recount(snapshot, id)) {
            (Some(kept), Ok(counted)) if kept != counted => {
                findings.add("totals", id, format_args!("says {kept:?}, a recount {counted:?}"));
            }
            (None, _) if !totals.has(&id)? => findings.add("totals", id, "the run has no totals"),
            // A recipient that does not decode was already reported, and the recount means nothing without it.
            (_, Ok(_) | Err(Error::Record { .. })) => {}
            (_, Err(fault)) => return Err(fault),
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
    let mut known = None;
    snapshot.recipients()?.each_sound(|key, _| {
        if known != Some(key.0) {
            if runs.has(&key.0)? {
                known = Some(key.0);
            } else {
                findings.add("recipients", key, format_args!("run {} is not there", key.0));
            }
        }
        findings.go_on()
    })
}
