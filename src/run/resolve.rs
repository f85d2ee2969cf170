//! Resolves doubts by hand: an operator who has looked at the relay's log says that the mails arrived, or has them sent
//! again.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::outcome::DeliveryProof;
use crate::base::{Now, Timestamp};
use crate::queue::{self, Admission, Queues, catalog, send as queue_send};
use crate::store::record::{Digest, EffectRecord, RecipientRecord, RecipientState};
use crate::store::{Snapshot, Tx};

use super::named::{self, Named};
use super::resend::Sent;
use super::{Error, control, fold, ledger, message, resend};

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
    /// Of users with several accounts in doubt, those that are meant.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// The mails in doubt that a resolution is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// The row keys of recipients whose mail of the run is unknown: 16 bytes for each, so that a million take 16 MB.
    own: Vec<[u8; 16]>,
    /// The mails beside the run's own that are unknown, by recipient and purpose.
    resends: Vec<([u8; 16], Digest)>,
}

impl Doubts {
    /// How many mails.
    pub const fn len(&self) -> u64 {
        (self.own.len() + self.resends.len()) as u64
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The mails of a run that are unknown, those that were sent again among them; of these users alone, unless there are none.
///
/// # Errors
/// There is no such run; one of the users is no recipient of it or has no mail in doubt; several of its accounts have, and
/// none is named; a storage fault.
pub fn unknown(snapshot: &Snapshot, what: &Resolve) -> Result<Doubts, Error> {
    let Resolve { run, users, accounts, .. } = what;
    let run = *run;
    fold::unfolded(snapshot.runs()?.get(&run)?, run)?;
    let mut doubts = Doubts::default();
    snapshot.effects()?.scan(
        (run, [0; 16], [0; 16])..=(run, [0xff; 16], [0xff; 16]),
        |(_, key, purpose), effect| {
            if is_unknown(&effect.state) {
                doubts.resends.push((key, purpose));
            }
            ControlFlow::Continue(())
        },
    )?;
    if users.is_empty() {
        snapshot.recipients()?.scan((run, [0; 16])..=(run, [0xff; 16]), |(_, key), row| {
            doubts.own.extend(is_unknown(&row.state).then_some(key));
            ControlFlow::Continue(())
        })?;
        return Ok(doubts);
    }
    let again: BTreeSet<[u8; 16]> = doubts.resends.iter().map(|(key, _)| *key).collect();
    let is_in_doubt = |(key, row): &named::Recipient| is_unknown(&row.state) || again.contains(key);
    let found = Named { run, users, accounts }.find(snapshot, is_in_doubt)?;
    if let Some((_, row)) = found.iter().find(|recipient| !is_in_doubt(recipient)) {
        return Err(Error::NotUnknown { run, user: row.user.clone(), state: row.state.name() });
    }
    doubts.resends.retain(|(key, _)| found.iter().any(|(found, _)| found == key));
    doubts.own = found.into_iter().filter(|(_, row)| is_unknown(&row.state)).map(|(key, _)| key).collect();
    Ok(doubts)
}

const fn is_unknown(state: &RecipientState) -> bool {
    matches!(state, RecipientState::Unknown(_))
}

/// Resolves those mails; `target` is the queue of the run's messages. Returns how many; fewer than asked for when somebody
/// else resolved some meanwhile.
///
/// # Errors
/// As [`unknown`]; a queue is full, or the store failed: those resolved before stay so. [`Error::Partly`] when some messages
/// are too large for the queue.
pub async fn resolve(queues: &Queues, what: &Resolve, target: &str) -> Result<u64, Error> {
    let (run, order) = (what.run, what.clone());
    let doubts = queues.store().read::<_, Error, _>(move |snapshot| unknown(snapshot, &order)).await?;
    let (all, mut resolved, mut refused) = (doubts.len(), 0, None);
    let own = doubts.own.chunks(STEP_MAX).map(|keys| Part::Own(keys.to_vec()));
    let resends = doubts.resends.chunks(STEP_MAX).map(|mails| Part::Resends(mails.to_vec()));
    for part in own.chain(resends) {
        if what.resolution == Resolution::Resend {
            queues.space().admit(target)?;
        }
        let (resolution, target, now) = (what.resolution, target.to_owned(), queues.now());
        let step = move |tx: &mut Tx<'_>| match (resolution, part) {
            (Resolution::Sent, Part::Own(keys)) => own_as_sent(tx, run, &keys, now.wall),
            (Resolution::Sent, Part::Resends(mails)) => resends_as_sent(tx, run, &mails, now.wall),
            (Resolution::Resend, Part::Own(keys)) => send_own(tx, run, &keys, &target, now),
            (Resolution::Resend, Part::Resends(mails)) => send_resends(tx, run, &mails, &target, now),
        };
        let step = queues.store().write(step).await?;
        resolved += step.messages;
        if let Some(full) = step.full {
            return Err(full.into());
        }
        refused = refused.or_else(|| step.refused.into_iter().next());
    }
    match refused {
        Some((_, why)) => Err(Error::Partly {
            done: usize::try_from(resolved).unwrap_or(usize::MAX),
            all: usize::try_from(all).unwrap_or(usize::MAX),
            why: Box::new(why.into()),
        }),
        None => Ok(resolved),
    }
}

/// What one step resolves.
enum Part {
    /// Mails of the run itself.
    Own(Vec<[u8; 16]>),
    /// Mails that were sent again.
    Resends(Vec<([u8; 16], Digest)>),
}

fn own_as_sent(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], now: Timestamp) -> Result<Sent, Error> {
    let mut messages = 0;
    for key in keys {
        ledger::change(tx, (run, *key), |row| {
            if let RecipientState::Unknown(message_id) = &row.state {
                row.state = sent_by_hand(message_id);
                row.reason = "resolved by hand as sent".into();
                (row.interrupted, row.updated_at) = (0, now);
                messages += 1;
            }
        })?;
    }
    Ok(Sent { messages, ..Sent::default() })
}

fn resends_as_sent(tx: &mut Tx<'_>, run: u64, mails: &[([u8; 16], Digest)], now: Timestamp) -> Result<Sent, Error> {
    let mut messages = 0;
    for (key, purpose) in mails {
        let Some(effect) = tx.effects()?.get(&(run, *key, *purpose))? else { continue };
        if let RecipientState::Unknown(message_id) = &effect.state {
            let state = sent_by_hand(message_id);
            let effect = EffectRecord { state, interrupted: 0, updated_at: now, ..effect };
            ledger::write_effect(tx, (run, *key, *purpose), &effect)?;
            messages += 1;
        }
    }
    Ok(Sent { messages, ..Sent::default() })
}

fn sent_by_hand(message_id: &Option<String>) -> RecipientState {
    RecipientState::Sent(DeliveryProof { message_id: message_id.clone(), ..DeliveryProof::default() })
}

/// Sends the run's own messages of those recipients again.
fn send_own(tx: &mut Tx<'_>, run: u64, keys: &[[u8; 16]], target: &str, now: Now) -> Result<Sent, Error> {
    not_held(tx, run)?;
    let is_wanted = |row: &RecipientRecord| is_unknown(&row.state);
    resend::send(tx, run, (keys, &is_wanted), target, now, |row| {
        (row.state, row.updated_at) = (RecipientState::Open, now.wall);
        row.reason = "resolved by hand: sent again".into();
    })
}

/// Sends those mails beside the run's own again, each with its purpose and so with its Message-ID.
fn send_resends(
    tx: &mut Tx<'_>,
    run: u64,
    mails: &[([u8; 16], Digest)],
    target: &str,
    now: Now,
) -> Result<Sent, Error> {
    not_held(tx, run)?;
    let record = fold::unfolded(tx.runs()?.get(&run)?, run)?;
    let queue = catalog::find(tx, target)?;
    let (mut admission, mut admitted, mut sent) = (Admission::to(tx, &queue)?, Vec::new(), Sent::default());
    for (key, purpose) in mails {
        let mail = (run, *key, *purpose);
        let Some(effect) = tx.effects()?.get(&mail)?.filter(|effect| is_unknown(&effect.state)) else { continue };
        let Some(row) = tx.recipients()?.get(&(run, *key))? else { continue };
        let user = resend::user(tx, &record, *key, &row.user)?;
        let message = message::with_purpose(&record, *key, &user, Some(&effect.purpose));
        match admission.admit(tx, message, now) {
            Ok(message) => admitted.push((mail, effect, message)),
            Err(error @ queue::Error::Full { .. }) => {
                sent.full = Some(error);
                break;
            }
            Err(error @ queue::Error::TooLarge { .. }) => sent.refused.push((*key, error)),
            Err(error) => return Err(error.into()),
        }
    }
    // From here on everything is written.
    sent.messages = admitted.len() as u64;
    for (mail, effect, message) in admitted {
        let body = queue_send::send(tx, message, now)?.sequence;
        let effect = EffectRecord { state: RecipientState::Open, updated_at: now.wall, body, ..effect };
        ledger::write_effect(tx, mail, &effect)?;
    }
    Ok(sent)
}

fn not_held(tx: &mut Tx<'_>, run: u64) -> Result<(), Error> {
    match control::held(tx, run)? {
        Some(state) => Err(Error::Held { run, state: state.name(), remedy: state.remedy(run) }),
        None => Ok(()),
    }
}
