//! Where the state of an effect is kept: the run's own mail in its recipient's row, every other in a row of `effects`.

use sha2::{Digest as _, Sha256};

use crate::base::Timestamp;
use crate::base::outcome::DeliveryProof;
use crate::function::Intent;
use crate::store::record::{Digest, EffectRecord, IntentRecord, RecipientState};
use crate::store::{self, Tx};

use super::super::ledger;

/// The key of an effect. It is made of hashes and numbers, so that it may be kept longer than the user's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EffectKey {
    pub(super) run: u64,
    pub(super) recipient: [u8; 16],
    /// Empty for the run's own mail.
    pub(super) purpose: String,
}

/// What is known about an effect.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: RecipientState,
    /// Attempts that may have had it.
    pub(super) interrupted: u32,
    /// Why it is unknown.
    pub(super) reason: String,
    /// The SHA-256 of the document that was made for it before the run's release.
    pub(super) rendering: Option<[u8; 32]>,
}

impl Entry {
    /// It happened, which nothing takes back.
    pub(super) fn happened(&mut self, proof: DeliveryProof) {
        (self.state, self.reason) = (RecipientState::Sent(proof), String::new());
    }
}

impl EffectKey {
    pub(super) fn of(intent: &Intent) -> Self {
        let recipient = ledger::user_key(&intent.user, &intent.account);
        Self { run: intent.run, recipient, purpose: intent.purpose.clone() }
    }

    /// The run's own mail to a recipient.
    pub(super) const fn main(run: u64, recipient: [u8; 16]) -> Self {
        Self { run, recipient, purpose: String::new() }
    }

    /// The key of a row of `intents`.
    pub(super) fn of_row((run, _): (u64, [u8; 16]), intent: &IntentRecord) -> Self {
        Self { run, recipient: intent.recipient, purpose: intent.purpose.clone() }
    }

    /// The key of its intent.
    pub(super) fn intent(&self) -> (u64, [u8; 16]) {
        let own = if self.is_main() {
            self.recipient
        } else {
            digest(&[b"effect", &self.recipient, self.purpose.as_bytes()])
        };
        (self.run, own)
    }

    /// What is known; `None` when the run has no such recipient.
    pub(super) fn entry(&self, tx: &mut Tx<'_>) -> Result<Option<Entry>, store::Error> {
        let Some(row) = tx.recipients()?.get(&self.row())? else { return Ok(None) };
        if self.is_main() {
            let rendering = row.rendering.map(|made| made.sha256);
            return Ok(Some(Entry { state: row.state, interrupted: row.interrupted, reason: row.reason, rendering }));
        }
        let found = tx.effects()?.get(&self.effect())?;
        let (state, interrupted) = found.map_or((RecipientState::Open, 0), |effect| (effect.state, effect.interrupted));
        Ok(Some(Entry { state, interrupted, reason: String::new(), rendering: None }))
    }

    /// Changes what is known. Does nothing when the run has no such recipient.
    pub(super) fn change(
        &self,
        tx: &mut Tx<'_>,
        now: Timestamp,
        edit: impl FnOnce(&mut Entry),
    ) -> Result<(), store::Error> {
        let Some(mut entry) = self.entry(tx)? else { return Ok(()) };
        edit(&mut entry);
        let Entry { state, interrupted, reason, .. } = entry;
        if self.is_main() {
            return ledger::change(tx, self.row(), |row| {
                (row.state, row.interrupted, row.reason, row.updated_at) = (state, interrupted, reason, now);
            })
            .map(drop);
        }
        let body = tx.effects()?.get(&self.effect())?.map_or(0, |old| old.body);
        let effect = EffectRecord { purpose: self.purpose.clone(), state, updated_at: now, body, interrupted };
        ledger::write_effect(tx, self.effect(), &effect)
    }

    /// Counts a message that was deleted without its effect.
    pub(super) fn count_copy(&self, tx: &mut Tx<'_>) -> Result<(), store::Error> {
        ledger::change(tx, self.row(), |row| row.copies += 1).map(drop)
    }

    pub(super) fn is_main(&self) -> bool {
        self.purpose.is_empty()
    }

    pub(super) fn row(&self) -> (u64, [u8; 16]) {
        (self.run, self.recipient)
    }

    fn effect(&self) -> (u64, [u8; 16], Digest) {
        (self.run, self.recipient, purpose_digest(&self.purpose))
    }
}

/// The last part of the key of a row of `effects`.
pub(in crate::run) fn purpose_digest(purpose: &str) -> Digest {
    digest(&[b"purpose", purpose.as_bytes()])
}

/// The digest of the parts, each behind its length; the first one names the kind, which keeps the key spaces apart.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let (head, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    *head
}
