//! Verifies a run from its rows alone: what each recipient's row says is compared with the messages, the intents and the
//! user records that must or must not be there, and the totals with a recount.

use crate::store::check::Findings;
use crate::store::record::{RecipientRecord, RecipientState};
use crate::store::{Error, Snapshot};

use super::{Error as RunError, control, fold, report};

/// Adds a finding, under the user's id, for each row that does not add up, and one for totals that no recount gives.
/// Memory does not grow with the number of recipients.
///
/// # Errors
/// [`RunError::NotFound`]; [`RunError::Folded`]; a storage fault, or the check is to stop.
pub fn verify(snapshot: &Snapshot, run: u64, findings: &mut Findings) -> Result<(), RunError> {
    fold::unfolded(snapshot.runs()?.get(&run)?, run)?;
    snapshot.recipients()?.each_sound_in((run, [0; 16])..=(run, [0xff; 16]), |key, row| {
        findings.rows += 1;
        recipient(snapshot, key, &row, findings)?;
        findings.go_on()
    })?;
    Ok(totals(snapshot, run, findings)?)
}

/// Compares the totals with a recount.
///
/// # Errors
/// A storage fault.
pub(super) fn totals(snapshot: &Snapshot, run: u64, findings: &mut Findings) -> Result<(), Error> {
    let totals = snapshot.totals()?;
    match (totals.sound(&run)?, report::recount(snapshot, run)) {
        (Some(kept), Ok(counted)) if kept != counted => {
            findings.add("totals", run, format_args!("says {kept:?}, a recount {counted:?}"));
        }
        (None, _) if !totals.has(&run)? => findings.add("totals", run, "the run has no totals"),
        // A recipient that does not decode was already reported, and the recount means nothing without it.
        (_, Ok(_) | Err(Error::Record { .. })) => {}
        (_, Err(fault)) => return Err(fault),
    }
    Ok(())
}

/// Compares one row with what stands elsewhere about its recipient.
///
/// # Errors
/// A storage fault.
pub(super) fn recipient(
    snapshot: &Snapshot,
    key: (u64, [u8; 16]),
    row: &RecipientRecord,
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut found = |what: &str| findings.add("recipients", &row.user, format_args!("is {}, {what}", row.state.name()));
    // Rows of earlier versions name neither message nor user record.
    let has_message = row.body != 0;
    let waits = matches!(row.state, RecipientState::Open | RecipientState::Dead(_));
    if waits && has_message {
        match snapshot.bodies()?.sound(&row.body)? {
            Some(body) if (body.run, body.recipient) == key => {}
            Some(_) => found("but its message is another recipient's"),
            None if snapshot.bodies()?.has(&row.body)? => {}
            None => found("but its message is not there"),
        }
    }
    if has_message && !row.address.is_empty() && !snapshot.user_records()?.has(&key)? {
        found("and its user record is not there");
    }
    if row.state == RecipientState::Open
        && !has_message
        && snapshot.user_records()?.has(&key)?
        && control::is_going_on(snapshot, key.0, row)?
    {
        found("but it has no message");
    }
    let has_ended_for_good = super::ledger::is_settled(&row.state);
    if has_ended_for_good && snapshot.intents()?.has(&key)? {
        found("although it is still being mailed");
    }
    if matches!(row.state, RecipientState::Unknown(_)) && row.interrupted == 0 {
        found("but no attempt is in doubt");
    }
    Ok(())
}
