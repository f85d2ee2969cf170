//! The recipients' ledger. Every change of a row moves the run's totals in the same commit, so the books balance at
//! every moment.

use sha2::{Digest, Sha256};

use crate::base::Timestamp;
use crate::base::outcome::Receipt;
use crate::queue::{News, Witness};
use crate::store::record::{Body, RecipientRecord, RecipientState, RunTotals};
use crate::store::{self, Tx};

/// Whether a recipient is new to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It has a row now; its message must be sent in this commit.
    New,
    /// It had one: the users API named it twice.
    Repeated,
}

/// Keeps the ledger when messages of runs die, come back or are removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger;

impl Witness for Ledger {
    fn hear(&self, tx: &mut Tx<'_>, body: &Body, news: News<'_>, now: Timestamp) -> Result<(), store::Error> {
        match news {
            News::Died(fingerprint) => turn(tx, (body.run, body.recipient), RecipientState::Dead(fingerprint), now),
            News::Revived => turn(tx, (body.run, body.recipient), RecipientState::Open, now),
            News::Withdrawn(why) => turn(tx, (body.run, body.recipient), RecipientState::Withdrawn(why.into()), now),
            News::Interrupted => interrupted(tx, body, now),
        }
    }
}

/// The key of the row of a user's account: a hash, so that it may outlive the user's data. A user with two accounts gets
/// two statements.
pub fn user_key(user: &str, account: &str) -> [u8; 16] {
    hash(&["user", user, account])
}

/// The key of the row of a record that names no valid user.
pub fn record_key(page: u32, index: usize) -> [u8; 16] {
    hash(&["record", &page.to_string(), &index.to_string()])
}

/// Opens a row for a recipient, unless it has one.
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

/// Takes a row back: the malformed record that it stood for has become a user with a row of its own.
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

/// Writes down that the work of a recipient is done, with what proves it.
///
/// # Errors
/// A storage fault.
pub fn sent(
    tx: &mut Tx<'_>,
    run: u64,
    recipient: [u8; 16],
    receipt: Receipt,
    now: Timestamp,
) -> Result<(), store::Error> {
    turn(tx, (run, recipient), RecipientState::Sent(receipt), now)
}

/// Gives a row another state and moves the totals along. A message without a row, such as the one that sets a
/// fan-out going, changes nothing.
///
/// Who has got the mail has got it: whatever happens to another copy of the message later, the row stays `sent`.
fn turn(tx: &mut Tx<'_>, key: (u64, [u8; 16]), state: RecipientState, now: Timestamp) -> Result<(), store::Error> {
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
