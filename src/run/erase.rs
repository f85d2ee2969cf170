//! Erases a person from the books: name, address, account, messages and documents, in one run or in all. The rows stay
//! under their keys, which are hashes, with what became of their mail, so that the books balance, a refetch mails nobody
//! again, and nothing says any more who it was.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::function::statement::archive::{self, Folder};
use crate::queue::Queues;
use crate::queue::erase::Recipients;
use crate::store::record::{EffectRecord, RecipientRecord, RecipientState};
use crate::store::{Snapshot, Tx};

use super::{Error, fold, ledger};

/// What stands in the row of an erased recipient for the user's id.
pub const ERASED: &str = "(erased)";
/// One step erases at most this many rows; each has a user record and the effects of its resends.
const STEP_MAX: usize = 20;
/// A recipient has at most this many mails beside the run's own.
const EFFECTS_MAX: usize = 100;

/// Whom to erase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erase {
    /// The user's id.
    pub user: String,
    /// The only run to erase it from; all when `None`.
    pub run: Option<u64>,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The runs whose rows named the user; each has one row for each of the user's accounts.
    pub runs: Vec<u64>,
    /// Rows.
    pub recipients: u64,
    /// Open messages and dead letters that were withdrawn.
    pub messages: u64,
    /// Documents that were removed from the archive.
    pub documents: u64,
}

/// Erases the person. Nothing was withdrawn when it is refused because of a row; other messages may have been when a mail is
/// in work. Either way, and when a call broke off, it is repeated.
///
/// # Errors
/// No row names the user; a mail is in doubt or in work; the archive cannot be written, or the store failed.
pub async fn erase(queues: &Queues, what: &Erase, archive: &Path) -> Result<Erased, Error> {
    let wanted = what.clone();
    let found = queues.store().read::<_, Error, _>(move |snapshot| find(snapshot, &wanted)).await?;
    let withdrawn = queues.withdraw(&found).await?;
    if withdrawn.in_work > 0 {
        let why = "one of the person's mails is being sent at this moment; repeat it in a minute".into();
        return Err(Error::NotErased { user: what.user.clone(), why });
    }
    let mut erased = Erased { messages: withdrawn.removed, ..Erased::default() };
    erased.runs = found.iter().map(|(run, _)| *run).collect();
    erased.runs.dedup();
    // Before the rows, which lead here again when this breaks off.
    erased.documents = documents(what, archive).await?;
    if found.is_empty() && erased.documents == 0 {
        return Err(Error::NoPerson { user: what.user.clone() });
    }
    let rows: Vec<(u64, [u8; 16])> = found.into_iter().collect();
    for rows in rows.chunks(STEP_MAX) {
        let (rows, user, now) = (rows.to_vec(), what.user.clone(), queues.now().wall);
        erased.recipients += queues.store().write(move |tx: &mut Tx<'_>| some(tx, &rows, &user, now)).await?;
    }
    Ok(erased)
}

/// The rows that name the user, when all of them may be erased.
fn find(snapshot: &Snapshot, what: &Erase) -> Result<Recipients, Error> {
    let runs = match what.run {
        Some(run) => fold::unfolded(snapshot.runs()?.get(&run)?, run).map(|_| run..=run)?,
        None => 0..=u64::MAX,
    };
    let (first, last) = runs.into_inner();
    let (mut found, mut refused, mut failed) = (Recipients::new(), None, None);
    let (intents, effects) = (snapshot.intents()?, snapshot.effects()?);
    snapshot.recipients()?.scan((first, [0; 16])..=(last, [0xff; 16]), |key, row| {
        if row.user != what.user {
            return ControlFlow::Continue(());
        }
        found.insert(key);
        refused = refused.take().or_else(|| refusal(key.0, &row.user, &row.state));
        match effects.first((key.0, key.1, [0; 16])..=(key.0, key.1, [0xff; 16]), EFFECTS_MAX) {
            Ok(beside) => {
                let doubt = || beside.iter().find_map(|(_, effect)| refusal(key.0, &row.user, &effect.state));
                refused = refused.take().or_else(doubt);
            }
            Err(error) => failed = Some(error),
        }
        match intents.get(&key) {
            Ok(None) => {}
            Ok(Some(_)) => refused = Some(format!("its mail of run {} is being sent at this moment", key.0)),
            Err(error) => failed = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    match (failed, refused) {
        (Some(error), _) => Err(error.into()),
        (None, Some(why)) => Err(Error::NotErased { user: what.user.clone(), why }),
        (None, None) => Ok(found),
    }
}

/// Why a mail in that state keeps the row from being erased.
fn refusal(run: u64, user: &str, state: &RecipientState) -> Option<String> {
    matches!(state, RecipientState::Unknown(_))
        .then(|| format!("its mail of run {run} is unknown: `nightmail run resolve {run} --recipient {user}` first"))
}

/// Removes the person's documents; those of mails outside of runs, or of copies that came after a run was folded or the person
/// erased, are in no book.
async fn documents(what: &Erase, archive: &Path) -> Result<u64, Error> {
    let (what, archive) = (what.clone(), archive.to_owned());
    let remove = move || {
        let folders = match what.run {
            Some(run) => vec![Folder::of(&archive, run, &what.user)],
            None => archive::folders(&archive, &what.user)?,
        };
        folders.iter().try_fold(0, |removed, folder| Ok(removed + folder.remove()?))
    };
    let removed = tokio::task::spawn_blocking(remove).await;
    let removed = removed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    removed.map_err(|error: std::io::Error| Error::Archive(error.to_string()))
}

/// Erases those rows, unless they are another user's by now; returns how many.
fn some(tx: &mut Tx<'_>, rows: &[(u64, [u8; 16])], user: &str, now: Timestamp) -> Result<u64, Error> {
    let mut erased = 0;
    for key in rows {
        let Some(row) = tx.recipients()?.get(key)?.filter(|row| row.user == user) else { continue };
        let beside = tx.effects()?.first((key.0, key.1, [0; 16])..=(key.0, key.1, [0xff; 16]), EFFECTS_MAX)?;
        let states = beside.iter().map(|(_, effect)| &effect.state).chain([&row.state]);
        if let Some(why) = states.into_iter().find_map(|state| refusal(key.0, user, state)) {
            return Err(Error::NotErased { user: user.into(), why });
        }
        let sent = beside.iter().map(|(_, effect)| (&effect.state, effect.body)).chain([(&row.state, row.body)]);
        for (state, body) in sent {
            // A resumption, a resend or a redrive came in between.
            if !ledger::is_settled(state) && tx.bodies()?.head(&body)?.is_some() {
                let why = format!("a message of it in run {} came meanwhile; repeat it", key.0);
                return Err(Error::NotErased { user: user.into(), why });
            }
        }
        tx.user_records()?.remove(key)?;
        for (of, effect) in beside {
            let state = without_words(effect.state.clone());
            ledger::write_effect(tx, of, &EffectRecord { state, ..effect })?;
        }
        ledger::change(tx, *key, |row| {
            *row = RecipientRecord {
                user: ERASED.into(),
                state: without_words(row.state.clone()),
                updated_at: now,
                address: String::new(),
                account: None,
                reason: String::new(),
                ..row.clone()
            };
        })?;
        erased += 1;
    }
    Ok(erased)
}

/// The state without what others have said, since that may name the person. Nothing can end any more that has not.
fn without_words(state: RecipientState) -> RecipientState {
    match state {
        RecipientState::Sent(mut proof) => {
            proof.reply = None;
            RecipientState::Sent(proof)
        }
        RecipientState::Open | RecipientState::Dead(_) => RecipientState::Withdrawn("erased".into()),
        RecipientState::Suppressed(_) => RecipientState::Suppressed("erased".into()),
        // Otherwise a later refetch would add the person again.
        RecipientState::Withdrawn(why) if why == ledger::REFETCH_ABANDONED => {
            RecipientState::Withdrawn("erased".into())
        }
        RecipientState::Skipped(_) | RecipientState::Withdrawn(_) | RecipientState::Unknown(_) => state,
    }
}
