//! Resolves doubts by hand: an operator who has looked at the relay's log says that the mails arrived, or has them sent
//! again.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::outcome::DeliveryProof;
use crate::base::{Now, Timestamp};
use crate::queue::Queues;
use crate::store::record::{RecipientRecord, RecipientState};
use crate::store::{Snapshot, Tx};

use super::resend::Sent;
use super::{Error, control, ledger, resend};

/// One step resolves at most this many recipients.
const STEP_MAX: usize = 60;

/// What became of the mails in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// They arrived.
    Sent,
    /// They did not, or nobody can tell: they are sent again, with the same Message-ID.
    Resend,
}

/// Which recipients of a run to resolve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The run.
    pub run: u64,
    /// The user ids; all that are unknown when empty.
    pub users: Vec<String>,
    /// What became of their mails.
    pub resolution: Resolution,
}

/// The row keys of those recipients of the run that are unknown, among `users` unless that is empty. 16 bytes for each,
/// so that a run of a million doubts takes 16 MB.
///
/// # Errors
/// There is no such run; one of the users is no recipient of it or is not unknown; a storage fault.
pub fn unknown(snapshot: &Snapshot, run: u64, users: &[String]) -> Result<Vec<[u8; 16]>, Error> {
    snapshot.runs()?.get(&run)?.ok_or(Error::NotFound(run))?;
    let mut found = Vec::new();
    let mut other: Vec<(&String, Option<&'static str>)> = users.iter().map(|user| (user, None)).collect();
    snapshot.recipients()?.scan((run, [0; 16])..=(run, [0xff; 16]), |(_, key), row| {
        let is_unknown = matches!(row.state, RecipientState::Unknown(_));
        let named = other.iter().position(|(user, _)| **user == row.user);
        match (named, is_unknown) {
            (Some(named), true) => {
                found.push(key);
                other[named].1 = Some("unknown");
            }
            (Some(named), false) => {
                other[named].1.get_or_insert(row.state.name());
            }
            (None, true) if users.is_empty() => found.push(key),
            (None, _) => {}
        }
        ControlFlow::Continue(())
    })?;
    match other.into_iter().find(|(_, state)| *state != Some("unknown")) {
        Some((user, Some(state))) => Err(Error::NotUnknown { run, user: user.clone(), state }),
        Some((user, None)) => Err(Error::NoRecipient { run, user: user.clone() }),
        None => Ok(found),
    }
}

/// Resolves those recipients; `target` is the queue of the run's messages. Returns how many; fewer than asked for when
/// somebody else resolved some meanwhile.
///
/// # Errors
/// As [`unknown`]; a queue is full, or the store failed: those resolved before stay so.
pub async fn resolve(queues: &Queues, what: &Resolve, target: &str) -> Result<u64, Error> {
    let (run, users) = (what.run, what.users.clone());
    let keys = queues.store().read::<_, Error, _>(move |snapshot| unknown(snapshot, run, &users)).await?;
    let mut resolved = 0;
    for keys in keys.chunks(STEP_MAX) {
        if what.resolution == Resolution::Resend {
            queues.space().admit(target)?;
        }
        let (keys, resolution, target, now) = (keys.to_vec(), what.resolution, target.to_owned(), queues.now());
        let step = move |tx: &mut Tx<'_>| match resolution {
            Resolution::Sent => resolve_as_sent(tx, run, &keys, now.wall).map(|messages| Sent { messages, full: None }),
            Resolution::Resend => resend(tx, run, &keys, &target, now),
        };
        let step = queues.store().write(step).await?;
        resolved += step.messages;
        if let Some(full) = step.full {
            return Err(full.into());
        }
    }
    Ok(resolved)
}

fn resolve_as_sent(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], now: Timestamp) -> Result<u64, Error> {
    let mut resolved = 0;
    for key in keys {
        ledger::change(tx, (run, *key), |row| {
            if let RecipientState::Unknown(message_id) = &row.state {
                let message_id = message_id.clone();
                row.state = RecipientState::Sent(DeliveryProof { message_id, ..DeliveryProof::default() });
                row.reason = "resolved by hand as sent".into();
                (row.interrupted, row.updated_at) = (0, now);
                resolved += 1;
            }
        })?;
    }
    Ok(resolved)
}

/// Sends the messages of those recipients again.
fn resend(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], target: &str, now: Now) -> Result<Sent, Error> {
    if let Some(state) = control::held(tx, run)? {
        return Err(Error::Held { run, state: state.name(), remedy: state.remedy(run) });
    }
    let is_unknown = |row: &RecipientRecord| matches!(row.state, RecipientState::Unknown(_));
    resend::send(tx, run, (keys, &is_unknown), target, now, |row| {
        (row.state, row.updated_at) = (RecipientState::Open, now.wall);
        row.reason = "resolved by hand: sent again".into();
    })
}
