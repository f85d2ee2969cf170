//! The recipients' ledger. Every change of a row updates the run's totals in the same commit, so the totals always
//! equal the rows.

use sha2::{Digest, Sha256};

use crate::base::Timestamp;
use crate::base::outcome::DeliveryProof;
use crate::queue::{Observer, Transition};
use crate::store::record::{Body, RecipientRecord, RecipientState, RunTotals};
use crate::store::{self, Tx};

/// Whether a recipient is new to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It has a row now; its message must be sent in the same commit.
    New,
    /// It already had one: the users API named it twice.
    Repeated,
}

/// Updates the ledger when messages of runs die, are redriven or are removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger;

impl Observer for Ledger {
    fn on_transition(
        &self,
        tx: &mut Tx<'_>,
        body: &Body,
        transition: Transition<'_>,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        match transition {
            Transition::Died(fingerprint) => {
                set_state(tx, (body.run, body.recipient), RecipientState::Dead(fingerprint), now)
            }
            Transition::Redriven => set_state(tx, (body.run, body.recipient), RecipientState::Open, now),
            Transition::Withdrawn(why) => {
                set_state(tx, (body.run, body.recipient), RecipientState::Withdrawn(why.into()), now)
            }
            Transition::Interrupted => interrupted(tx, body, now),
        }
    }
}

/// The row key of a user's account: a hash, so that it may be kept longer than the user's data. A user with two
/// accounts gets two statements.
pub fn user_key(user: &str, account: &str) -> [u8; 16] {
    hash(&["user", user, account])
}

/// The row key of a record without a valid user.
pub fn record_key(page: u32, index: usize) -> [u8; 16] {
    hash(&["record", &page.to_string(), &index.to_string()])
}

/// Adds a row for a recipient, unless it has one.
///
/// # Errors
/// A storage fault.
pub fn add(tx: &mut Tx<'_>, run: u64, key: [u8; 16], user: &str, now: Timestamp) -> Result<Added, store::Error> {
    if tx.recipients()?.get(&(run, key))?.is_some() {
        tx.totals_mut(run)?.repeated += 1;
        return Ok(Added::Repeated);
    }
    let row = RecipientRecord { user: user.into(), state: RecipientState::Open, updated_at: now, interrupted: 0 };
    tx.recipients()?.insert(&(run, key), &row)?;
    tx.totals_mut(run)?.fetched += 1;
    Ok(Added::New)
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
    tx.recipients()?.insert(&key, &RecipientRecord { state, updated_at: now, ..old })?;
    Ok(())
}

fn interrupted(tx: &mut Tx<'_>, body: &Body, now: Timestamp) -> Result<(), store::Error> {
    let key = (body.run, body.recipient);
    let Some(old) = tx.recipients()?.get(&key)? else { return Ok(()) };
    tx.totals_mut(body.run)?.interrupted += 1;
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
    }
}

fn hash(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let (head, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    *head
}
