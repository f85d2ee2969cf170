//! Accepts the documents of recipients whose statement changed after the run's gate had seen it: what was made then is
//! forgotten, so that their letters, once driven back, mail what is made now.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{Fingerprint, Timestamp};
use crate::function::statement::CHANGED;
use crate::queue::Queues;
use crate::store::record::{RecipientRecord, RecipientState};
use crate::store::{self, Snapshot, Tx};

use super::named::Named;
use super::{Error, fold, ledger};

/// One step accepts at most this many; each has two rows.
const STEP_MAX: usize = 100;

/// Whose changed documents to accept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The run.
    pub run: u64,
    /// The user ids, at most [`super::again::USERS_MAX`]; none for all whose statement changed.
    pub users: Vec<String>,
    /// Of users with several accounts, those that are meant.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// Accepts whatever is made for those recipients from now on; returns for how many. One that is driven back meanwhile is left out.
///
/// # Errors
/// There is no such run; one of the users is no recipient of it, or is not dead because its statement changed; several of its
/// accounts are, and none is named; a storage fault.
pub async fn accept(queues: &Queues, what: &Accept) -> Result<u64, Error> {
    let (run, order) = (what.run, what.clone());
    let keys = queues.store().read::<_, Error, _>(move |snapshot| find(snapshot, &order)).await?;
    let (now, mut accepted) = (queues.now().wall, 0);
    for keys in keys.chunks(STEP_MAX) {
        let keys = keys.to_vec();
        accepted += queues.store().write(move |tx: &mut Tx<'_>| some(tx, run, &keys, now)).await?;
    }
    Ok(accepted)
}

/// The row keys of those recipients.
fn find(snapshot: &Snapshot, what: &Accept) -> Result<Vec<[u8; 16]>, Error> {
    let Accept { run, users, accounts } = what;
    fold::unfolded(snapshot.runs()?.get(run)?, *run)?;
    if users.is_empty() {
        return Ok(all(snapshot, *run)?);
    }
    let found = Named { run: *run, users, accounts }.find(snapshot, |(_, row)| is_changed(row))?;
    match found.iter().find(|(_, row)| !is_changed(row)) {
        Some((_, row)) => Err(Error::NotChanged { run: *run, user: row.user.clone(), state: row.state.name() }),
        None => Ok(found.into_iter().map(|(key, _)| key).collect()),
    }
}

/// The row keys of all recipients whose statement changed.
fn all(snapshot: &Snapshot, run: u64) -> Result<Vec<[u8; 16]>, store::Error> {
    let mut keys = Vec::new();
    snapshot.recipients()?.scan((run, [0; 16])..=(run, [0xff; 16]), |(_, key), row| {
        keys.extend(is_changed(&row).then_some(key));
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

fn some(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], now: Timestamp) -> Result<u64, store::Error> {
    let mut accepted = 0;
    for key in keys {
        ledger::change(tx, (run, *key), |row| {
            if is_changed(row) {
                (row.rendering, row.updated_at) = (None, now);
                accepted += 1;
            }
        })?;
    }
    Ok(accepted)
}

fn is_changed(row: &RecipientRecord) -> bool {
    let (kind, place, code) = CHANGED;
    row.rendering.is_some() && row.state == RecipientState::Dead(Fingerprint::of(kind, place, code))
}
