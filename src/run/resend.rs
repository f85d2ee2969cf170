//! Makes the messages of recipients again, from the user records that the ledger keeps.

use serde_json::value::RawValue;

use crate::base::Now;
use crate::queue::{self, catalog, send as queue_send};
use crate::store::record::{RecipientRecord, RunRecord, UserText};
use crate::store::{self, Tx};

use super::{Error, fold, ledger, message};

/// Some recipients of a run: those of these row keys whose rows it is about.
pub(super) type Chosen<'a> = (&'a [[u8; 16]], &'a dyn Fn(&RecipientRecord) -> bool);

/// What a step sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// How many messages.
    pub(super) messages: u64,
    /// Why not more: the queue is full.
    pub(super) full: Option<queue::Error>,
    /// The recipients whose messages the queue takes at no time, each with the reason; they are passed over.
    pub(super) refused: Vec<([u8; 16], queue::Error)>,
}

/// Sends a message to each of those recipients whose row `is_wanted`, as far as the queue has room, and changes the row. A
/// message that is too large for the queue is passed over.
///
/// # Errors
/// The queue is not there; a user record is not there; a storage fault.
pub(super) fn send(
    tx: &mut Tx<'_>,
    run: u64,
    (keys, is_wanted): Chosen<'_>,
    target: &str,
    now: Now,
    edit: impl Fn(&mut RecipientRecord),
) -> Result<Sent, Error> {
    let record = fold::unfolded(tx.runs()?.get(&run)?, run)?;
    let queue = catalog::find(tx, target)?;
    let mut admission = queue::Admission::to(tx, &queue)?;
    let (mut admitted, mut full, mut refused) = (Vec::new(), None, Vec::new());
    for key in keys {
        let Some(row) = tx.recipients()?.get(&(run, *key))?.filter(is_wanted) else { continue };
        let user = user(tx, &record, *key, &row.user)?;
        match admission.admit(tx, message::message(&record, *key, &user), now) {
            Ok(message) => admitted.push((key, message)),
            Err(error @ queue::Error::Full { .. }) => {
                full = Some(error);
                break;
            }
            // It is this message's fault alone: those behind it must not wait for it.
            Err(error @ queue::Error::TooLarge { .. }) => refused.push((*key, error)),
            Err(error) => return Err(error.into()),
        }
    }
    // From here on everything is written.
    let messages = admitted.len() as u64;
    for (key, message) in admitted {
        let body = queue_send::send(tx, message, now)?.sequence;
        ledger::change(tx, (run, *key), |row| {
            row.body = body;
            edit(row);
        })?;
    }
    Ok(Sent { messages, full, refused })
}

/// The recipient's user record.
///
/// # Errors
/// [`Error::NoUserRecord`]; a storage fault.
pub(super) fn user(tx: &mut Tx<'_>, run: &RunRecord, key: [u8; 16], user: &str) -> Result<Box<RawValue>, Error> {
    let gone = || Error::NoUserRecord { run: run.id, user: user.into() };
    let UserText(text) = tx.user_records()?.get(&(run.id, key))?.ok_or_else(gone)?;
    RawValue::from_string(text).map_err(|error| Error::Store(damage(tx, &error)))
}

fn damage(tx: &Tx<'_>, error: &serde_json::Error) -> store::Error {
    tx.damaged("user_records", format!("it is no JSON: {error}"))
}
