//! The recipients' ledger. Every change of a row updates the run's totals in the same commit, so the totals always
//! equal the rows.

use sha2::{Digest, Sha256};

use crate::base::outcome::{self, DeliveryProof};
use crate::base::{Failure, Timestamp};
use crate::queue::{Death, Observer, RunMessage, Transition};
use crate::store::record::{FanOutLetter, RecipientRecord, RecipientState, RunTotals};
use crate::store::{self, Tx};

/// A row keeps this much of the reason of a death, and its remedy.
const REASON_BYTES_MAX: usize = 300;

/// Updates the ledger when messages of runs die, are redriven or are removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger;

impl Observer for Ledger {
    fn on_transition(
        &self,
        tx: &mut Tx<'_>,
        message: RunMessage,
        transition: Transition<'_>,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        if message.recipient == FAN_OUT {
            return fan_out(tx, message, transition, now);
        }
        let key = (message.run, message.recipient);
        match transition {
            Transition::Died(death) => {
                set_state(tx, key, RecipientState::Dead(death.fingerprint), now)?;
                set_reason(tx, key, death.failure)
            }
            Transition::Redriven => set_state(tx, key, RecipientState::Open, now),
            Transition::Withdrawn(why) => set_state(tx, key, RecipientState::Withdrawn(why.into()), now),
            Transition::Interrupted => interrupted(tx, key, now),
        }
    }
}

/// The recipient of the message that starts a run's fan-out: none.
const FAN_OUT: [u8; 16] = [0; 16];

/// Records in the run whether its fan-out is dead.
fn fan_out(
    tx: &mut Tx<'_>,
    message: RunMessage,
    transition: Transition<'_>,
    now: Timestamp,
) -> Result<(), store::Error> {
    let Some(mut run) = tx.runs()?.get(&message.run)? else { return Ok(()) };
    let letter = |queue: &str, class, text| FanOutLetter {
        message_id: message.message_id,
        queue: queue.into(),
        class,
        text,
        died_at: now,
    };
    run.fan_out.letter = match transition {
        Transition::Died(Death { failure: Some(failure), queue, .. }) => {
            Some(letter(queue, failure.class(), failure.text.clone()))
        }
        Transition::Died(Death { failure: None, queue, .. }) => {
            Some(letter(queue, "crash worker lost".into(), "the process died during its attempts".into()))
        }
        Transition::Withdrawn(why) => Some(letter("", format!("withdrawn {why}"), format!("its message was {why}"))),
        Transition::Redriven => None,
        Transition::Interrupted => return Ok(()),
    };
    tx.runs()?.insert(&message.run, &run)?;
    Ok(())
}

/// The row key of a user's account: a hash, so that it may be kept longer than the user's data. A user with two
/// accounts gets two statements.
pub fn user_key(user: &str, account: &str) -> [u8; 16] {
    hash(&[b"user", user.as_bytes(), account.as_bytes()])
}

/// The row key of a record without a valid user, by the SHA-256 of its text, so that it stays when pages shift. Records
/// that name no id are told apart by `place` too: their page, and how many of the same text stand before them on it.
pub fn record_key(content: &[u8; 32], place: Option<(u32, u32)>) -> [u8; 16] {
    match place {
        None => hash(&[b"content", content]),
        Some((page, nth)) => hash(&[b"content", content, &page.to_be_bytes(), &nth.to_be_bytes()]),
    }
}

/// The row key that earlier versions gave to a record without a valid user, by its place.
pub fn record_key_by_place(page: u32, index: usize) -> [u8; 16] {
    hash(&[b"record", page.to_string().as_bytes(), index.to_string().as_bytes()])
}

/// A recipient that a page named.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Its row key.
    pub key: [u8; 16],
    /// The user's id; for a malformed record the id that it names, else its place.
    pub user: &'a str,
    /// The mail address; empty for a malformed record.
    pub address: &'a str,
    /// The account, when it is not the user's id.
    pub account: Option<&'a str>,
    /// The page, counted from 1.
    pub page: u32,
}

/// Adds a row for a recipient; false when it has one.
///
/// # Errors
/// A storage fault.
pub fn add(tx: &mut Tx<'_>, run: u64, recipient: Recipient<'_>, now: Timestamp) -> Result<bool, store::Error> {
    let Recipient { key, user, address, account, page } = recipient;
    if tx.recipients()?.get(&(run, key))?.is_some() {
        return Ok(false);
    }
    let row = RecipientRecord {
        user: user.into(),
        state: RecipientState::Open,
        updated_at: now,
        interrupted: 0,
        page,
        address: address.into(),
        account: account.map(str::to_owned),
        reason: String::new(),
        body: 0,
        copies: 0,
    };
    tx.recipients()?.insert(&(run, key), &row)?;
    tx.totals_mut(run)?.fetched += 1;
    Ok(true)
}

/// Counts records that named recipients again.
///
/// # Errors
/// A storage fault.
pub fn count_repeated(tx: &mut Tx<'_>, run: u64, repeated: u64) -> Result<(), store::Error> {
    if repeated > 0 {
        tx.totals_mut(run)?.repeated += repeated;
    }
    Ok(())
}

/// Removes the row of a malformed record whose user now has a row of its own.
///
/// # Errors
/// A storage fault.
pub fn replace(tx: &mut Tx<'_>, run: u64, key: [u8; 16]) -> Result<(), store::Error> {
    let Some(row) = tx.recipients()?.get(&(run, key))? else { return Ok(()) };
    tx.recipients()?.remove(&(run, key))?;
    let totals = tx.totals_mut(run)?;
    totals.fetched -= 1;
    if let Some(slot) = slot(totals, &row.state) {
        *slot -= 1;
    }
    Ok(())
}

/// Records that a recipient's mail was sent, with the proof.
///
/// # Errors
/// A storage fault.
pub fn sent(
    tx: &mut Tx<'_>,
    run: u64,
    recipient: [u8; 16],
    proof: DeliveryProof,
    now: Timestamp,
) -> Result<(), store::Error> {
    set_state(tx, (run, recipient), RecipientState::Sent(proof), now)
}

/// Changes a row's state and the totals with it. Does nothing for a message without a row, such as the one that starts
/// a fan-out.
///
/// `sent` is final: a mail cannot be taken back, whatever happens to another copy of the message later.
fn set_state(tx: &mut Tx<'_>, key: (u64, [u8; 16]), state: RecipientState, now: Timestamp) -> Result<(), store::Error> {
    let Some(old) = tx.recipients()?.get(&key)? else { return Ok(()) };
    if matches!(old.state, RecipientState::Sent(_)) {
        return Ok(());
    }
    let totals = tx.totals_mut(key.0)?;
    if let Some(slot) = slot(totals, &old.state) {
        *slot -= 1;
    }
    if let Some(slot) = slot(totals, &state) {
        *slot += 1;
    }
    tx.recipients()?.insert(&key, &RecipientRecord { state, updated_at: now, reason: String::new(), ..old })?;
    Ok(())
}

/// Keeps why a recipient's message died, so that lists name it after the letter is gone, too.
fn set_reason(tx: &mut Tx<'_>, key: (u64, [u8; 16]), failure: Option<&Failure>) -> Result<(), store::Error> {
    let Some(row) = tx.recipients()?.get(&key)?.filter(|row| matches!(row.state, RecipientState::Dead(_))) else {
        return Ok(());
    };
    let text = failure.map_or_else(|| "the process died during its attempts".into(), ToString::to_string);
    tx.recipients()?.insert(&key, &RecipientRecord { reason: outcome::shorten(&text, REASON_BYTES_MAX), ..row })?;
    Ok(())
}

fn interrupted(tx: &mut Tx<'_>, key: (u64, [u8; 16]), now: Timestamp) -> Result<(), store::Error> {
    let Some(old) = tx.recipients()?.get(&key)? else { return Ok(()) };
    tx.totals_mut(key.0)?.interrupted += 1;
    let row = RecipientRecord { interrupted: old.interrupted + 1, updated_at: now, ..old };
    tx.recipients()?.insert(&key, &row)?;
    Ok(())
}

/// Takes back that an attempt was interrupted: its message had been taken from it, but it ended after all, and its effect
/// is known.
///
/// # Errors
/// A storage fault.
pub fn not_interrupted(tx: &mut Tx<'_>, run: u64, recipient: [u8; 16]) -> Result<(), store::Error> {
    let key = (run, recipient);
    let Some(old) = tx.recipients()?.get(&key)?.filter(|row| row.interrupted > 0) else { return Ok(()) };
    tx.totals_mut(run)?.interrupted -= 1;
    tx.recipients()?.insert(&key, &RecipientRecord { interrupted: old.interrupted - 1, ..old })?;
    Ok(())
}

fn slot<'a>(totals: &'a mut RunTotals, state: &RecipientState) -> Option<&'a mut u64> {
    match state {
        RecipientState::Open => None,
        RecipientState::Sent(_) => Some(&mut totals.sent),
        RecipientState::Dead(_) => Some(&mut totals.dead),
        RecipientState::Withdrawn(_) => Some(&mut totals.withdrawn),
        RecipientState::Unknown(_) => Some(&mut totals.unknown),
        RecipientState::Skipped(_) => Some(&mut totals.skipped),
        RecipientState::Suppressed(_) => Some(&mut totals.suppressed),
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    let (head, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    *head
}
