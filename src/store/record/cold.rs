//! The records of runs, recipients and ticks, in postcard behind a version byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::outcome::DeliveryProof;
use crate::base::{Attempt, Fingerprint, MessageId, Timestamp};

use super::postcard::{decode, encode, postcard_records};
use super::{Digest, Record};

/// One execution of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its number, counted from 1.
    pub id: u64,
    /// The schedule that it belongs to.
    pub schedule: String,
    /// The fan-out function that fetches its users.
    pub function: String,
    /// The identifying parameters.
    pub params: BTreeMap<String, String>,
    /// The tick that started it, or the moment of a start by hand.
    pub scheduled_for: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// The progress of the fan-out.
    pub fan_out: FanOutProgress,
    /// How often its users were fetched again after it was complete.
    pub refetches: u32,
    /// Free text for people; most often empty.
    pub note: String,
    /// When it was folded: the rows of its recipients are gone, or are being removed.
    pub folded_at: Option<Timestamp>,
    /// The last check of its statements before they were mailed; `None` without a gate.
    pub check: Option<CheckRecord>,
}

/// A check of all statements of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// When it was.
    pub at: Timestamp,
    /// What it found, a clause each; none when all is well. Names nobody.
    pub findings: Vec<String>,
}

/// The fan-out's durable cursor, updated in the commit that writes a slice of a page: its messages and rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutProgress {
    /// Pages committed so far, all of their slices.
    pub pages: u32,
    /// The users source's token of the page in work; `None` for the first page.
    pub next: Option<String>,
    /// Set in the commit of the last page.
    pub finished_at: Option<Timestamp>,
    /// Records of the page in work that are committed.
    pub position: u32,
    /// Notices cursors that come back.
    pub cycle: CursorCycle,
    /// The message of the fan-out while it is dead; no user is fetched then.
    pub letter: Option<FanOutLetter>,
}

/// What Brent's algorithm keeps to find a cycle in the cursors of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorCycle {
    /// The digest of one earlier cursor; `None` before the first page.
    pub saved: Option<Digest>,
    /// After this many further cursors another one is saved.
    pub span: u32,
    /// Cursors since the saved one.
    pub since: u32,
}

/// The dead letter of a fan-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutLetter {
    /// Its id.
    pub message_id: MessageId,
    /// The name of the dead-letter queue; empty when it was removed from there.
    pub queue: String,
    /// The class of the last failure, e.g. `data users none`.
    pub class: String,
    /// The failure's text for people.
    pub text: String,
    /// When it died.
    pub died_at: Timestamp,
}

/// One recipient of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRecord {
    /// The user's id; for a malformed record the id that it names, else its page and index.
    pub user: String,
    /// The recipient's state.
    pub state: RecipientState,
    /// When the state last changed.
    pub updated_at: Timestamp,
    /// Attempts that may have sent their mail although that was never answered.
    pub interrupted: u32,
    /// The page that named it, counted from 1; zero when an earlier version wrote the row.
    pub page: u32,
    /// The mail address; empty for a malformed record, and when an earlier version wrote the row.
    pub address: String,
    /// The account, when it is not the user's id.
    pub account: Option<String>,
    /// Why it is dead or unknown, shortened: class and text; who settled a doubt by hand. Otherwise empty.
    pub reason: String,
    /// The inner id of its message; zero when it has none, and when an earlier version wrote the row.
    pub body: u64,
    /// Messages of this recipient that were deleted without a mail, because its mail was sent or is unknown already.
    pub copies: u32,
    /// The refetch that added it; zero for the first fetch.
    pub refetch: u32,
    /// The document that was made before the run's release, and that alone may be mailed; `None` without a gate.
    pub rendering: Option<RenderingRecord>,
}

/// A document that was made and not mailed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderingRecord {
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its size.
    pub bytes: u64,
    /// Its pages.
    pub pages: u32,
    /// Whether it has no transactions.
    pub is_empty: bool,
    /// Whether it is over a limit of the run's gate.
    pub is_over: bool,
}

/// The state of a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// The message is in a queue.
    Open,
    /// The relay accepted the mail.
    Sent(DeliveryProof),
    /// The message is in a dead-letter queue.
    Dead(Fingerprint),
    /// The message was purged, expired, deleted or abandoned without an outcome.
    Withdrawn(String),
    /// The relay may have accepted the mail; nobody mails the recipient unless told to. The Message-ID of that mail, when
    /// it is known.
    Unknown(Option<String>),
    /// A rule left the recipient out; why.
    Skipped(String),
    /// The address is on the suppression list; why.
    Suppressed(String),
}

impl RecipientState {
    /// The state in one word, as lists show it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sent(_) => "sent",
            Self::Dead(_) => "dead",
            Self::Withdrawn(_) => "withdrawn",
            Self::Unknown(_) => "unknown",
            Self::Skipped(_) => "skipped",
            Self::Suppressed(_) => "suppressed",
        }
    }
}

/// One due moment of a schedule, and what was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What was decided.
    pub verdict: TickVerdict,
}

/// What was decided about a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TickVerdict {
    /// It started this run.
    Fired {
        /// The run's number.
        run: u64,
    },
    /// The schedule was first seen, or its rule was edited, at this moment; ticks before it are not due.
    Known,
    /// It did not start a run.
    Skipped {
        /// The reason, for people.
        why: String,
    },
    /// It fires as soon as the fan-out's queue has room.
    Waiting,
}

postcard_records!(1: Attempt);

const RUN_VERSION: u8 = 5;
const RECIPIENT_VERSION: u8 = 5;
const TICK_VERSION: u8 = 2;

/// The run of version 4: nothing was checked before it was mailed.
#[derive(Deserialize)]
struct RunRecord4 {
    id: u64,
    schedule: String,
    function: String,
    params: BTreeMap<String, String>,
    scheduled_for: Timestamp,
    started_at: Timestamp,
    fan_out: FanOutProgress,
    refetches: u32,
    note: String,
    folded_at: Option<Timestamp>,
}

impl From<RunRecord4> for RunRecord {
    fn from(old: RunRecord4) -> Self {
        Self {
            id: old.id,
            schedule: old.schedule,
            function: old.function,
            params: old.params,
            scheduled_for: old.scheduled_for,
            started_at: old.started_at,
            fan_out: old.fan_out,
            refetches: old.refetches,
            note: old.note,
            folded_at: old.folded_at,
            check: None,
        }
    }
}

/// The run of version 3: it was kept whole for ever.
#[derive(Deserialize)]
struct RunRecord3 {
    id: u64,
    schedule: String,
    function: String,
    params: BTreeMap<String, String>,
    scheduled_for: Timestamp,
    started_at: Timestamp,
    fan_out: FanOutProgress,
    refetches: u32,
    note: String,
}

impl From<RunRecord3> for RunRecord {
    fn from(old: RunRecord3) -> Self {
        let RunRecord3 { id, schedule, function, params, scheduled_for, started_at, fan_out, refetches, note } = old;
        let folded_at = None;
        RunRecord4 { id, schedule, function, params, scheduled_for, started_at, fan_out, refetches, note, folded_at }
            .into()
    }
}

/// The run of version 2: its users were fetched once, and it had no note.
#[derive(Deserialize)]
struct RunRecord2 {
    id: u64,
    schedule: String,
    function: String,
    params: BTreeMap<String, String>,
    scheduled_for: Timestamp,
    started_at: Timestamp,
    fan_out: FanOutProgress,
}

impl From<RunRecord2> for RunRecord {
    fn from(old: RunRecord2) -> Self {
        let RunRecord2 { id, schedule, function, params, scheduled_for, started_at, fan_out } = old;
        let (refetches, note) = (0, String::new());
        RunRecord3 { id, schedule, function, params, scheduled_for, started_at, fan_out, refetches, note }.into()
    }
}

/// The run of version 1: its fan-out committed whole pages.
#[derive(Deserialize)]
struct RunRecord1 {
    id: u64,
    schedule: String,
    function: String,
    params: BTreeMap<String, String>,
    scheduled_for: Timestamp,
    started_at: Timestamp,
    pages: u32,
    next: Option<String>,
    finished_at: Option<Timestamp>,
}

impl From<RunRecord1> for RunRecord {
    fn from(old: RunRecord1) -> Self {
        Self {
            id: old.id,
            schedule: old.schedule,
            function: old.function,
            params: old.params,
            scheduled_for: old.scheduled_for,
            started_at: old.started_at,
            fan_out: FanOutProgress {
                pages: old.pages,
                next: old.next,
                finished_at: old.finished_at,
                ..FanOutProgress::default()
            },
            refetches: 0,
            note: String::new(),
            folded_at: None,
            check: None,
        }
    }
}

impl Record for RunRecord {
    fn encode(&self) -> Vec<u8> {
        encode(RUN_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<RunRecord1>(1, bytes).map(Self::from),
            Some(2) => decode::<RunRecord2>(2, bytes).map(Self::from),
            Some(3) => decode::<RunRecord3>(3, bytes).map(Self::from),
            Some(4) => decode::<RunRecord4>(4, bytes).map(Self::from),
            _ => decode(RUN_VERSION, bytes),
        }
    }
}

/// The recipient of version 4: its document was not made before its mail.
#[derive(Deserialize)]
struct RecipientRecord4 {
    user: String,
    state: RecipientState,
    updated_at: Timestamp,
    interrupted: u32,
    page: u32,
    address: String,
    account: Option<String>,
    reason: String,
    body: u64,
    copies: u32,
    refetch: u32,
}

impl From<RecipientRecord4> for RecipientRecord {
    fn from(old: RecipientRecord4) -> Self {
        Self {
            user: old.user,
            state: old.state,
            updated_at: old.updated_at,
            interrupted: old.interrupted,
            page: old.page,
            address: old.address,
            account: old.account,
            reason: old.reason,
            body: old.body,
            copies: old.copies,
            refetch: old.refetch,
            rendering: None,
        }
    }
}

/// The recipient of version 3: what a refetch added was not told from the others.
#[derive(Deserialize)]
struct RecipientRecord3 {
    user: String,
    state: RecipientState,
    updated_at: Timestamp,
    interrupted: u32,
    page: u32,
    address: String,
    account: Option<String>,
    reason: String,
    body: u64,
    copies: u32,
}

impl From<RecipientRecord3> for RecipientRecord {
    fn from(old: RecipientRecord3) -> Self {
        let RecipientRecord3 { user, state, updated_at, interrupted, page, address, account, reason, body, copies } =
            old;
        let refetch = 0;
        RecipientRecord4 { user, state, updated_at, interrupted, page, address, account, reason, body, copies, refetch }
            .into()
    }
}

/// The recipient of version 2: neither its message nor copies of it were known.
#[derive(Deserialize)]
struct RecipientRecord2 {
    user: String,
    state: RecipientState,
    updated_at: Timestamp,
    interrupted: u32,
    page: u32,
    address: String,
    account: Option<String>,
    reason: String,
}

impl From<RecipientRecord2> for RecipientRecord {
    fn from(old: RecipientRecord2) -> Self {
        let RecipientRecord2 { user, state, updated_at, interrupted, page, address, account, reason } = old;
        let (body, copies) = (0, 0);
        RecipientRecord3 { user, state, updated_at, interrupted, page, address, account, reason, body, copies }.into()
    }
}

/// The recipient of version 1: neither its page nor its address was known.
#[derive(Deserialize)]
struct RecipientRecord1 {
    user: String,
    state: RecipientState,
    updated_at: Timestamp,
    interrupted: u32,
}

impl Record for RecipientRecord {
    fn encode(&self) -> Vec<u8> {
        encode(RECIPIENT_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => {
                let RecipientRecord1 { user, state, updated_at, interrupted } = decode(1, bytes)?;
                let (page, address, account, reason) = (0, String::new(), None, String::new());
                Ok(RecipientRecord2 { user, state, updated_at, interrupted, page, address, account, reason }.into())
            }
            Some(2) => decode::<RecipientRecord2>(2, bytes).map(Self::from),
            Some(3) => decode::<RecipientRecord3>(3, bytes).map(Self::from),
            Some(4) => decode::<RecipientRecord4>(4, bytes).map(Self::from),
            _ => decode(RECIPIENT_VERSION, bytes),
        }
    }
}

impl Record for TickRecord {
    fn encode(&self) -> Vec<u8> {
        encode(TICK_VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            // Version 1 knew no tick that waits; its bytes are the same otherwise.
            Some(1) => decode(1, bytes),
            _ => decode(TICK_VERSION, bytes),
        }
    }
}
