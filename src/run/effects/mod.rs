//! The ledger of effects: a mail's intent is on disk before DATA, and what became of it is committed with the message's
//! end.
//!
//! `entry` is where an effect's state is kept, `batch` writes intents that come together, `recover` settles what a dead
//! process left. Knows attempts by their receipt handles only; which queue has which policy is the caller's.

mod batch;
mod entry;
pub mod quota;
mod recover;

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::outcome::{self, DeliveryProof};
use crate::base::{Failure, RenderedDocument, Timestamp};
use crate::function::{Effects, Intent, Permission, Stage};
use crate::queue::{ReceiptHandle, Received, settle};
use crate::store::record::{IntentRecord, RecipientState, RenderingRecord, SuppressionRecord, UserText};
use crate::store::{self, Snapshot, Tx};

use super::control::{self, Allowed};
use super::ledger::{self, REASON_BYTES_MAX};
use super::{phases, suppression};

use batch::Asked;
pub use batch::{Intents, PendingIntents};
use entry::EffectKey;
pub(super) use entry::purpose_digest;
pub use recover::recover;

/// What happens to a message when nobody knows whether its effect happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is deleted, and its recipient is listed as unknown until an operator resolves that.
    #[default]
    Hold,
    /// It is tried again, with the same Message-ID.
    Resend,
}

/// How an attempt's effect ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It happened.
    Done(DeliveryProof),
    /// It did not happen, and another attempt may have it.
    None,
    /// Nobody knows; why.
    Unknown(String),
    /// It was not permitted: another message of the recipient had it, or may have had it.
    Duplicate,
    /// The recipient is to have none: skipped or suppressed, with the reason.
    LeftOut(RecipientState),
    /// None was to be had: its document is made.
    Rendered(RenderedDocument),
}

/// What becomes of the message of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// What the attempt's outcome says.
    ToItsOutcome,
    /// It is to be deleted: the ledger keeps the doubt.
    Held,
    /// It is to be worked on again at once.
    Again,
}

/// The ledger of effects for one attempt. Clones share it.
#[derive(Clone, Debug)]
pub struct AttemptEffects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    intents: Intents,
    /// The receive whose attempt it is.
    handle: ReceiptHandle,
    /// The run and recipient of the message itself, for functions that write no intent.
    whose: (u64, [u8; 16]),
    on_unknown: OnUnknown,
    /// Set when the function names its effect; a second time it is the same.
    key: OnceLock<EffectKey>,
    /// The Message-ID; set when the function asks for permission.
    message_id: OnceLock<String>,
    /// An address without a mailbox, and why; set when the relay says so.
    no_mailbox: OnceLock<(String, String)>,
}

impl AttemptEffects {
    /// The ledger for the attempt that begins with this receive.
    pub fn new(intents: &Intents, message: &Received, on_unknown: OnUnknown) -> Self {
        Self(Arc::new(Inner {
            intents: intents.clone(),
            handle: message.handle,
            whose: (message.run, message.recipient),
            on_unknown,
            key: OnceLock::new(),
            message_id: OnceLock::new(),
            no_mailbox: OnceLock::new(),
        }))
    }

    /// Records how the attempt's effect ended, in the step that settles its message, and before the message is settled:
    /// that ends the lease.
    ///
    /// # Errors
    /// A storage fault.
    pub fn end(&self, tx: &mut Tx<'_>, ending: Ending, now: Timestamp) -> Result<Left, store::Error> {
        if let Some((address, reason)) = self.0.no_mailbox.get() {
            let row = SuppressionRecord { address: address.clone(), reason: reason.clone(), since: now };
            suppression::insert(tx, &row)?;
        }
        let Some(key) = self.0.key.get() else {
            if let Ending::Done(proof) = ending {
                ledger::sent(tx, self.0.whose, proof, now)?;
            }
            return Ok(Left::ToItsOutcome);
        };
        match ending {
            // Recorded even when the message was purged or received again meanwhile: the effect happened.
            Ending::Done(proof) => {
                take_intent(tx, key, self.0.handle)?;
                count_end(tx, key, &RecipientState::Sent(DeliveryProof::default()))?;
                key.change(tx, now, |entry| entry.happened(proof))?;
            }
            Ending::Duplicate => {
                key.count_copy(tx)?;
                phases::copied(tx, key.row())?;
            }
            Ending::LeftOut(state) => {
                count_end(tx, key, &state)?;
                key.change(tx, now, |entry| {
                    if !ledger::is_settled(&entry.state) {
                        (entry.state, entry.reason) = (state, String::new());
                    }
                })?;
            }
            Ending::None => drop(take_intent(tx, key, self.0.handle)?),
            Ending::Rendered(made) => return rendered(tx, key, self.0.handle, made, now),
            Ending::Unknown(why) => {
                if take_intent(tx, key, self.0.handle)? {
                    let attempt = (self.0.handle, self.0.on_unknown);
                    let left = doubt(tx, key, attempt, (self.0.message_id.get().cloned(), &why), now)?;
                    if left == Left::Held {
                        count_failure(tx, key)?;
                    }
                    return Ok(left);
                }
            }
        }
        Ok(Left::ToItsOutcome)
    }
}

impl AttemptEffects {
    /// Counts that the attempt failed and is made again, in the step that settles its message.
    ///
    /// # Errors
    /// A storage fault.
    pub fn count_retry(&self, tx: &mut Tx<'_>, why: &Failure) -> Result<(), store::Error> {
        match self.0.key.get() {
            Some(key) if !key.is_main() => Ok(()),
            Some(key) => phases::retried(tx, key.row(), why),
            None => phases::retried(tx, self.0.whose, why),
        }
    }
}

/// Counts the end of the run's own mail; others are in no phase.
fn count_end(tx: &mut Tx<'_>, key: &EffectKey, state: &RecipientState) -> Result<(), store::Error> {
    if key.is_main() { phases::ended(tx, key.row(), state) } else { Ok(()) }
}

impl Effects for AttemptEffects {
    fn intend(&self, intent: Intent) -> BoxFuture<'_, Result<Permission, Failure>> {
        let ask = async move {
            if intent.run == 0 && intent.quota.is_none() {
                return Ok(Permission::Granted);
            }
            let key = (intent.run != 0).then(|| EffectKey::of(&intent));
            if let Some(key) = &key {
                // Before the write: when this future is dropped in it, the row may be there.
                let _ = self.0.key.set(key.clone());
                let _ = self.0.message_id.set(intent.message_id);
            }
            let attempt = (self.0.handle, self.0.on_unknown);
            let permitted = self
                .0
                .intents
                .permit(Asked { key, address: intent.address, quota: intent.quota, document: intent.document, attempt })
                .await;
            permitted.map_err(|error| Failure::new("store", "ledger", "failed", error))
        };
        ask.boxed()
    }

    fn suppressed(&self, intent: &Intent) -> Result<Option<String>, Failure> {
        if intent.run != 0 {
            let _ = self.0.key.set(EffectKey::of(intent));
        }
        let read = || suppression::reason(&self.0.intents.queues().store().snapshot()?, &intent.address);
        read().map_err(|error| Failure::new("store", "suppressions", "failed", error))
    }

    fn stage(&self, intent: &Intent) -> Result<Stage, Failure> {
        // A mail that is sent again is made of the data of now.
        if intent.run == 0 || !intent.purpose.is_empty() {
            return Ok(Stage::Mail { sha256: None });
        }
        let key = EffectKey::of(intent);
        let _ = self.0.key.set(key.clone());
        let read = || stage(&self.0.intents.queues().store().snapshot()?, &key);
        read().map_err(|error| Failure::new("store", "recipients", "failed", error))
    }

    fn has_no_mailbox(&self, address: &str, why: &Failure) {
        let _ = self.0.no_mailbox.set((address.to_owned(), outcome::shorten(&why.to_string(), REASON_BYTES_MAX)));
    }
}

/// What the run wants of the recipient now. What is held in another way than by its gate, the intent is refused for.
fn stage(snapshot: &Snapshot, key: &EffectKey) -> Result<Stage, store::Error> {
    let row = snapshot.recipients()?.get(&key.row())?;
    let control = snapshot.run_controls()?.get(&key.run)?.unwrap_or_default();
    // Whoever has been mailed is nobody's to compare: the intent finds that it is a copy.
    if row.as_ref().is_some_and(|row| ledger::is_settled(&row.state)) {
        return Ok(Stage::Mail { sha256: None });
    }
    let rendering = row.as_ref().and_then(|row| row.rendering);
    Ok(match control::stage(&control, row.as_ref()) {
        control::Stage::Render if row.is_some() => Stage::Render,
        control::Stage::Wait if rendering.is_some() => Stage::Wait,
        _ => Stage::Mail { sha256: rendering.map(|made| made.sha256) },
    })
}

/// Keeps the hash of the document that an attempt has made. One that lost its message keeps none.
fn rendered(
    tx: &mut Tx<'_>,
    key: &EffectKey,
    handle: ReceiptHandle,
    made: RenderedDocument,
    now: Timestamp,
) -> Result<Left, store::Error> {
    let Some(body) = settle::held_body(tx, handle)? else { return Ok(Left::ToItsOutcome) };
    let RenderedDocument { sha256, bytes, pages, is_empty } = made;
    let made = RenderingRecord { sha256, bytes, pages, is_empty, is_over: false };
    Ok(match ledger::rendered(tx, key.row(), body, made, now)? {
        ledger::Rendered::Kept => Left::ToItsOutcome,
        ledger::Rendered::ToBeMailed => Left::Again,
    })
}

/// Writes the intent down, unless the effect must not happen.
fn permit(
    tx: &mut Tx<'_>,
    key: &EffectKey,
    document: Option<[u8; 32]>,
    (handle, on_unknown): (ReceiptHandle, OnUnknown),
    now: Timestamp,
) -> Result<Permission, store::Error> {
    let Some(body) = settle::held_body(tx, handle)? else { return Ok(Permission::Lost) };
    let entry = key.entry(tx)?;
    if entry.as_ref().is_some_and(|entry| ledger::is_settled(&entry.state)) {
        return Ok(Permission::Duplicate);
    }
    // A run with somebody open is not folded, so most mails need no look at it.
    let is_open = entry.as_ref().is_some_and(|entry| entry.state == RecipientState::Open);
    if !is_open && tx.runs()?.get(&key.run)?.is_some_and(|run| run.folded_at.is_some()) {
        return Ok(Permission::Folded);
    }
    // Nobody of the run's recipients: outside its books.
    if entry.is_none() {
        return Ok(Permission::Granted);
    }
    // An attempt may have begun before its document was made and checked by another one: the next one compares.
    let made = entry.as_ref().and_then(|entry| entry.rendering);
    if made.is_some() && document.is_some() && made != document {
        return Ok(Permission::OtherDocument);
    }
    if let Some(decided) = control::decided(tx, key.run)? {
        let row = tx.recipients()?.get(&key.row())?;
        match control::may_mail(&decided, row.as_ref()) {
            Allowed::Yes => {}
            // The run's own messages are removed by the abandonment.
            Allowed::Never if tx.bodies()?.head(&body)?.is_some_and(|head| head.run != key.run) => {
                return Ok(Permission::Abandoned);
            }
            Allowed::NotNow | Allowed::Never => return Ok(Permission::Held),
        }
    }
    if let Some(other) = tx.intents()?.get(&key.intent())?.filter(|other| other.lease != handle.lease) {
        let theirs = handle_of(&other);
        if settle::held_body(tx, theirs)?.is_some() {
            return Ok(Permission::InWork);
        }
        // That attempt outlived its lease by far, or its message was removed; it may still report, and then what it
        // says counts. Until then its effect is unknown.
        let why = "its attempt lost its message and has not ended";
        if doubt(tx, key, (theirs, on_unknown), (None, why), now)? == Left::Held {
            tx.intents()?.remove(&key.intent())?;
            return Ok(Permission::Duplicate);
        }
    }
    let ReceiptHandle { queue, sequence, lease } = handle;
    let (recipient, purpose) = (key.recipient, key.purpose.clone());
    tx.intents()?.insert(&key.intent(), &IntentRecord { queue, sequence, lease, body, at: now, recipient, purpose })?;
    Ok(Permission::Granted)
}

/// Removes the intent of that receive; false when there is none.
fn take_intent(tx: &mut Tx<'_>, key: &EffectKey, handle: ReceiptHandle) -> Result<bool, store::Error> {
    let is_ours = tx.intents()?.get(&key.intent())?.is_some_and(|intent| handle_of(&intent) == handle);
    if is_ours {
        tx.intents()?.remove(&key.intent())?;
    }
    Ok(is_ours)
}

/// Records that nobody knows whether the effect of that receive's attempt happened. Only a message that is still there
/// can be tried again.
fn doubt(
    tx: &mut Tx<'_>,
    key: &EffectKey,
    (handle, on_unknown): (ReceiptHandle, OnUnknown),
    (message_id, why): (Option<String>, &str),
    now: Timestamp,
) -> Result<Left, store::Error> {
    let body = settle::held_body(tx, handle)?;
    let is_retried = on_unknown == OnUnknown::Resend && body.is_some();
    if let Some(body) = body.filter(|_| !is_retried && key.is_main()) {
        keep_user_record(tx, key.row(), body)?;
    }
    let mut is_new = false;
    key.change(tx, now, |entry| {
        entry.interrupted += 1;
        if !is_retried && !ledger::is_settled(&entry.state) {
            entry.state = RecipientState::Unknown(message_id);
            entry.reason = outcome::shorten(why, REASON_BYTES_MAX);
            is_new = true;
        }
    })?;
    if is_new {
        count_end(tx, key, &RecipientState::Unknown(None))?;
    }
    Ok(if is_retried { Left::ToItsOutcome } else { Left::Held })
}

/// Tells the brake of a mail that the relay left in doubt. What a crash leaves in doubt is no fault of the run.
fn count_failure(tx: &mut Tx<'_>, key: &EffectKey) -> Result<(), store::Error> {
    let row = tx.recipients()?.get(&key.row())?.filter(|row| matches!(row.state, RecipientState::Unknown(_)));
    match row.filter(|_| key.is_main()) {
        Some(row) => control::failed(tx, key.run, &row),
        None => Ok(()),
    }
}

/// Rows of earlier versions came without the user record, which a resolution needs. The message has it, and is about to go.
fn keep_user_record(tx: &mut Tx<'_>, row: (u64, [u8; 16]), body: u64) -> Result<(), store::Error> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        user: &'a RawValue,
    }
    if tx.user_records()?.get(&row)?.is_some() {
        return Ok(());
    }
    let Some(body) = tx.bodies()?.get(&body)? else { return Ok(()) };
    if let Ok(message) = serde_json::from_slice::<Message<'_>>(&body.bytes) {
        tx.user_records()?.insert(&row, &UserText(message.user.get().to_owned()))?;
    }
    Ok(())
}

fn handle_of(intent: &IntentRecord) -> ReceiptHandle {
    ReceiptHandle { queue: intent.queue, sequence: intent.sequence, lease: intent.lease }
}
