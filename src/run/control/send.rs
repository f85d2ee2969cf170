//! Sends the messages of open recipients that have none, a few at a time. A recipient whose row names a message is passed
//! over, so this may begin anew after a restart.

use std::ops::ControlFlow;

use crate::base::{Now, outcome};
use crate::queue::{self, Queues};
use crate::store::record::{RecipientRecord, RecipientState, RunControl};
use crate::store::{self, Snapshot, Tx};

use super::super::{Error, ledger, resend};
use super::row::{save, unchanged};
use super::{REST, brake, stage};

/// One step sends at most this many messages; each has about six rows.
const STEP_MAX: usize = 80;

/// How far the messages of one run are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The decision that it belongs to: another one may have taken messages back.
    decision: u64,
    /// Recipients before this one have their messages.
    from: [u8; 16],
    /// Messages sent so far.
    pub(super) sent: u64,
}

impl Cursor {
    pub(super) const fn new(control: &RunControl) -> Self {
        Self { decision: control.decision, from: [0; 16], sent: 0 }
    }

    pub(super) const fn belongs_to(&self, control: &RunControl) -> bool {
        self.decision == control.decision
    }
}

/// What a look through the recipients came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Every open recipient has a message, or something else was decided meanwhile.
    All,
    /// The queue has no room now; why.
    Blocked(String),
}

/// Sends the messages of the run's open recipients from the cursor on, unless something else is decided meanwhile.
///
/// # Errors
/// A user record is damaged, the queue is not there, or the store failed.
pub(super) async fn send(queues: &Queues, run: u64, cursor: &mut Cursor, target: &str) -> Result<Sent, Error> {
    let decision = cursor.decision;
    loop {
        let start = cursor.from;
        let find = move |snapshot: &Snapshot| unsent(snapshot, run, start);
        let (keys, next) = queues.store().read::<_, Error, _>(find).await?;
        if let Err(full) = queues.space().admit(target) {
            return Ok(Sent::Blocked(full.to_string()));
        }
        let (target, now) = (target.to_owned(), queues.now());
        let step = move |tx: &mut Tx<'_>| some(tx, (run, decision), &keys, &target, now);
        let Some(step) = queues.store().write(step).await? else { return Ok(Sent::All) };
        cursor.sent += step.messages;
        if let Some(full) = step.full {
            return Ok(Sent::Blocked(full.to_string()));
        }
        let Some(next) = next else { break };
        cursor.from = next;
        tokio::time::sleep(REST).await;
    }
    tracing::info!(run, messages = cursor.sent, "the messages of the run's open recipients are queued");
    let step = move |tx: &mut Tx<'_>| match unchanged(tx, run, decision)? {
        Some(control) => Ok(save(tx, run, &RunControl { has_unsent: false, ..control })?),
        None => Ok(()),
    };
    queues.store().write::<_, Error, _>(step).await?;
    Ok(Sent::All)
}

/// Sends the messages of those recipients, as far as there is room; `None` when something else was decided meanwhile.
fn some(
    tx: &mut Tx<'_>,
    (run, decision): (u64, u64),
    keys: &[[u8; 16]],
    target: &str,
    now: Now,
) -> Result<Option<resend::Sent>, Error> {
    let Some(control) = unchanged(tx, run, decision)?.filter(|control| stage(control, None).is_going_on()) else {
        return Ok(None);
    };
    let is_wanted = |row: &RecipientRecord| is_unsent(&control, row);
    let sent = resend::send(tx, run, (keys, &is_wanted), target, now, |row| row.updated_at = now.wall)?;
    for (key, why) in &sent.refused {
        withdraw_refused(tx, (run, *key), why, now)?;
    }
    Ok(Some(sent))
}

/// Withdraws a recipient whose message is too large for the queue, so that the others go on. It counts as a failure: with a
/// brake, a limit that was lowered by mistake does not withdraw everybody.
fn withdraw_refused(tx: &mut Tx<'_>, whose: (u64, [u8; 16]), why: &queue::Error, now: Now) -> Result<(), store::Error> {
    let reason = outcome::shorten(&format!("refused: {why}"), ledger::REASON_BYTES_MAX);
    tracing::error!(run = whose.0, "the message of a recipient is not sent: {why}");
    let changed = ledger::change(tx, whose, |row| {
        (row.state, row.updated_at) = (RecipientState::Withdrawn(reason), now.wall);
    })?;
    match changed {
        Some(row) => brake::failed(tx, whose.0, &row),
        None => Ok(()),
    }
}

type Found = (Vec<[u8; 16]>, Option<[u8; 16]>);

/// The recipients from `start` on that are open and have no message, and where to look on.
fn unsent(snapshot: &Snapshot, run: u64, start: [u8; 16]) -> Result<Found, Error> {
    let records = snapshot.user_records()?;
    let control = snapshot.run_controls()?.get(&run)?.unwrap_or_default();
    let (mut keys, mut next, mut failed) = (Vec::new(), None, None);
    snapshot.recipients()?.scan((run, start)..=(run, [0xff; 16]), |(_, key), row| {
        if keys.len() == STEP_MAX {
            next = Some(key);
            return ControlFlow::Break(());
        }
        if is_unsent(&control, &row) {
            match records.has(&(run, key)) {
                Ok(true) => keys.push(key),
                // An earlier version wrote the row: its message is not known, but it is there.
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok((keys, next)), |error| Err(error.into()))
}

fn is_unsent(control: &RunControl, row: &RecipientRecord) -> bool {
    row.state == RecipientState::Open && row.body == 0 && stage(control, Some(row)).is_going_on()
}
