//! Mails recipients of a run again, by hand: each such mail has a purpose and a Message-ID of its own, so that it is no
//! copy of the run's mail. A recipient whose message was withdrawn gets the run's own mail after all.

use serde::{Deserialize, Serialize};

use crate::base::Now;
use crate::queue::{self, Admission, Queues, catalog, send};
use crate::store::record::{EffectRecord, RecipientRecord, RecipientState};
use crate::store::{Snapshot, Tx};

use super::named::Named;
use super::{Error, control, fold, ledger, message, resend};

/// One step sends at most this many mails; each has about eight rows, and its recipient's earlier ones are read.
const STEP_MAX: usize = 10;
/// A recipient is mailed again at most this many times.
const RESENDS_MAX: usize = 20;
/// One request names at most this many users.
pub const USERS_MAX: usize = 1000;
/// What the purpose of such a mail begins with; its number follows.
const PURPOSE: &str = "resend-";

/// Which recipients of a run to mail again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The run.
    pub run: u64,
    /// The user ids, at most [`USERS_MAX`].
    pub users: Vec<String>,
    /// Of users with several accounts, those that are meant.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// A mail that is sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// The user's id.
    pub user: String,
    /// `resend-1` and so on; `None` for the run's own mail.
    pub purpose: Option<String>,
}

/// Sends the messages of those recipients again; `target` is the queue of the run's messages.
///
/// # Errors
/// There is no such run; nothing of it is sent now; one of the users is no recipient of it, has several accounts there of
/// which none is named, is not in a state for it, or has no user record; a queue is full, or the store failed. [`Error::Partly`] tells how many are queued all the same; a
/// repeated request does not queue them again while their mail is to come.
pub async fn resend(queues: &Queues, what: &Again, target: &str) -> Result<Vec<Resent>, Error> {
    let wanted = what.clone();
    let keys = queues.store().read::<_, Error, _>(move |snapshot| find(snapshot, &wanted)).await?;
    let (all, mut resent) = (keys.len(), Vec::with_capacity(keys.len()));
    for keys in keys.chunks(STEP_MAX) {
        if let Err(why) = queues.space().admit(target) {
            let (done, why) = (resent.len(), Error::from(why));
            return Err(if done == 0 { why } else { Error::Partly { done, all, why: Box::new(why) } });
        }
        let (run, keys, target, now) = (what.run, keys.to_vec(), target.to_owned(), queues.now());
        match queues.store().write(move |tx: &mut Tx<'_>| some(tx, run, &keys, &target, now)).await {
            Ok(queued) => resent.extend(queued),
            Err(why) if resent.is_empty() => return Err(why),
            Err(why) => return Err(Error::Partly { done: resent.len(), all, why: Box::new(why) }),
        }
    }
    Ok(resent)
}

/// The row keys of those recipients.
fn find(snapshot: &Snapshot, what: &Again) -> Result<Vec<[u8; 16]>, Error> {
    let Again { run, users, accounts } = what;
    fold::unfolded(snapshot.runs()?.get(run)?, *run)?;
    let found = Named { run: *run, users, accounts }.find(snapshot, |_| true)?;
    match found.iter().find_map(|(_, row)| refusal(*run, row)) {
        Some(refused) => Err(refused),
        None => Ok(found.into_iter().map(|(key, _)| key).collect()),
    }
}

/// Why the recipient cannot be mailed again.
fn refusal(run: u64, row: &RecipientRecord) -> Option<Error> {
    let remedy = match row.state {
        RecipientState::Open => "its mail is still to come".to_owned(),
        RecipientState::Dead(_) => format!("redrive its letter: `nightmail redrive … --where run={run}`"),
        RecipientState::Unknown(_) => {
            format!("settle that first: `nightmail run resolve {run} --recipient {}`", row.user)
        }
        RecipientState::Sent(_)
        | RecipientState::Withdrawn(_)
        | RecipientState::Skipped(_)
        | RecipientState::Suppressed(_) => return None,
    };
    Some(Error::NotAgain { run, user: row.user.clone(), state: row.state.name(), remedy })
}

/// Sends to those recipients, all or none.
fn some(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], target: &str, now: Now) -> Result<Vec<Resent>, Error> {
    if let Some(state) = control::held(tx, run)? {
        return Err(Error::Held { run, state: state.name(), remedy: state.remedy(run) });
    }
    let record = fold::unfolded(tx.runs()?.get(&run)?, run)?;
    let queue = catalog::find(tx, target)?;
    let (mut admission, mut admitted, mut queued) = (Admission::to(tx, &queue)?, Vec::new(), Vec::new());
    for key in keys {
        let Some(row) = tx.recipients()?.get(&(run, *key))? else { continue };
        if let Some(refused) = refusal(run, &row) {
            return Err(refused);
        }
        let user = resend::user(tx, &record, *key, &row.user)?;
        let is_own = matches!(row.state, RecipientState::Withdrawn(_));
        let earlier = tx.effects()?.first((run, *key, [0; 16])..=(run, *key, [0xff; 16]), RESENDS_MAX)?;
        // One that is still to come is what was asked for: a request that broke off can be repeated.
        if let Some((_, open)) = earlier.iter().find(|(_, effect)| effect.state == RecipientState::Open) {
            queued.push(Resent { user: row.user, purpose: Some(open.purpose.clone()) });
            continue;
        }
        let purpose = if is_own { None } else { Some(next_purpose(&earlier, run, &row.user)?) };
        let message = message::with_purpose(&record, *key, &user, purpose.as_deref());
        admitted.push((*key, Resent { user: row.user, purpose }, admission.admit(tx, message, now)?));
    }
    // From here on everything is written.
    for (key, resent, message) in admitted {
        queued.push(write(tx, (run, key), resent, message, now)?);
    }
    Ok(queued)
}

fn write(
    tx: &mut Tx<'_>,
    whose: (u64, [u8; 16]),
    resent: Resent,
    message: queue::Admitted<'_>,
    now: Now,
) -> Result<Resent, Error> {
    let body = send::send(tx, message, now)?.sequence;
    match &resent.purpose {
        Some(purpose) => {
            let key = (whose.0, whose.1, super::effects::purpose_digest(purpose));
            let (state, updated_at) = (RecipientState::Open, now.wall);
            let effect = EffectRecord { purpose: purpose.clone(), state, updated_at, body, interrupted: 0 };
            ledger::write_effect(tx, key, &effect)?;
        }
        None => {
            ledger::change(tx, whose, |row| {
                (row.state, row.body, row.updated_at) = (RecipientState::Open, body, now.wall);
                row.reason = "sent after all, by hand".into();
            })?;
        }
    }
    Ok(resent)
}

/// The purpose of the recipient's next mail.
fn next_purpose<K>(earlier: &[(K, EffectRecord)], run: u64, user: &str) -> Result<String, Error> {
    if earlier.len() == RESENDS_MAX {
        return Err(Error::TooOften { run, user: user.into(), max: RESENDS_MAX });
    }
    let number = |(_, effect): &(K, EffectRecord)| effect.purpose.strip_prefix(PURPOSE)?.parse::<u64>().ok();
    let last = earlier.iter().filter_map(number).max().unwrap_or(0);
    Ok(format!("{PURPOSE}{}", last + 1))
}
