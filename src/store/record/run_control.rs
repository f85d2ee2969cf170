//! The record of what is decided about a run.

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;

use super::Record;
use super::postcard::{decode, encode};

/// What is decided about a run, by operators, its guard and its brake. Read at each receive of the run's messages, so it is small
/// and stands beside the run's own row; most runs have none.
///
/// A change of its fields raises `VERSION`, describes the bytes in `docs/format.md` and keeps the old version readable; new
/// variants of [`RunHold`] come last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunControl {
    /// Why no mail of the run may begin.
    pub hold: RunHold,
    /// A number of the store's series, new at each decision. What goes on in the background ends with it.
    pub decision: u64,
    /// Whether messages of the run may still stand in queues although it is held. Set by a stop, a brake and an abandonment;
    /// removed once a look through all queues has found none.
    pub has_queued: bool,
    /// Whether open recipients may be without a message although the run is not held. Set by a resumption; removed once a
    /// look through all recipients has found none. Set, too, when all users of a guarded run are fetched.
    pub has_unsent: bool,
    /// The bounds within which the number of users must lie. Set when the run starts, gone once all users are fetched.
    pub guard: Option<Guard>,
    /// Set when the run starts.
    pub brake: Option<Brake>,
    /// The refetch that has not ended; `None` most of the time.
    pub refetch: Option<Refetching>,
    /// What must be right before the first mail. Set when the run starts, gone once it is let go.
    pub gate: Option<Gate>,
}

/// The gate of a run: all of its statements are made and checked before the first of them is mailed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Who lets the run go.
    pub mode: GateMode,
    /// What the checks find fault with.
    pub limits: GateLimits,
    /// When all statements were made and checked; `None` before.
    pub checked_at: Option<Timestamp>,
}

/// Who lets a run go whose statements are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateMode {
    /// An operator, whatever the checks find.
    #[default]
    Manual,
    /// The checks, when they find nothing; otherwise an operator.
    Auto,
}

/// What the checks of a gate find fault with. Shares are in hundredths of a percent, and `None` is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateLimits {
    /// The share of recipients that may be dead.
    pub failures: Option<u32>,
    /// The share of statements that may be without transactions.
    pub empty: Option<u32>,
    /// The pages that a statement may have.
    pub pages_max: u32,
    /// The bytes that a statement may have.
    pub bytes_max: u64,
    /// How far number, length and size of the statements may deviate from the previous run's, and by how many percentage
    /// points the shares above.
    pub deviation: Option<u32>,
}

/// A refetch whose users are being fetched, await their release, or are being withdrawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refetching {
    /// Its number; the rows of the recipients that it added have it.
    pub number: u32,
    /// When all users had been fetched before it.
    pub fetched_at: Timestamp,
    /// Set when an operator abandons it. It ends once the recipients that it added are withdrawn.
    pub abandoned_at: Option<Timestamp>,
    /// What the run's fetch phase had done before it: while it is no more, nobody new was named.
    pub users_before: u64,
}

/// What stops a run by itself, and the failures so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// When it does.
    pub limit: BrakeLimit,
    /// How many recipients had ended when the present window began.
    pub from: u64,
    /// How many failed in it; zero before the first one, and after a resumption.
    pub failures: u64,
}

impl Brake {
    /// The same without what it has counted.
    #[must_use]
    pub const fn anew(self) -> Self {
        Self { failures: 0, ..self }
    }
}

/// More failures than this brake a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeLimit {
    /// The share that may fail, in hundredths of a percent.
    pub share: u32,
    /// Of so many recipients that end one after the other.
    pub of: u64,
}

/// The bounds of a run's guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The least number of users.
    pub users_min: u64,
    /// By how much it may differ from the schedule's previous run, in hundredths of a percent of that; `None` for any.
    pub deviation: Option<u32>,
}

/// Why no mail of a run may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunHold {
    /// It may.
    #[default]
    None,
    /// An operator stopped the run; it can be resumed.
    Stopped {
        /// When.
        at: Timestamp,
    },
    /// An operator abandoned the run; for good.
    Abandoned {
        /// When.
        at: Timestamp,
    },
    /// Its guard decides once all users are fetched.
    Fetching,
    /// The number of its users is out of bounds; an operator decides.
    AwaitingRelease {
        /// Since when.
        at: Timestamp,
        /// Which bound, in words.
        reason: String,
    },
    /// Too many recipients failed one after the other; it can be resumed.
    Braked {
        /// Since when.
        at: Timestamp,
        /// How many, in words.
        reason: String,
    },
    /// Its statements are being made; its gate decides once all are.
    Rendering,
    /// The statements that were made are being forgotten, and are all made again then.
    Remaking,
}

const VERSION: u8 = 5;

/// The record of version 4: a refetch did not know how many users there were before it.
#[derive(Deserialize)]
struct RunControl4 {
    hold: RunHold,
    decision: u64,
    has_queued: bool,
    has_unsent: bool,
    guard: Option<Guard>,
    brake: Option<Brake>,
    refetch: Option<Refetching4>,
    gate: Option<Gate>,
}

#[derive(Deserialize)]
struct Refetching4 {
    number: u32,
    fetched_at: Timestamp,
    abandoned_at: Option<Timestamp>,
}

impl From<RunControl4> for RunControl {
    fn from(old: RunControl4) -> Self {
        let RunControl4 { hold, decision, has_queued, has_unsent, guard, brake, refetch, gate } = old;
        // A gate lets such a refetch go by itself only when nobody is dead.
        let refetch = refetch.map(|Refetching4 { number, fetched_at, abandoned_at }| Refetching {
            number,
            fetched_at,
            abandoned_at,
            users_before: 0,
        });
        Self { hold, decision, has_queued, has_unsent, guard, brake, refetch, gate }
    }
}

/// The record of version 3: there were no gates.
#[derive(Deserialize)]
struct RunControl3 {
    hold: RunHold,
    decision: u64,
    has_queued: bool,
    has_unsent: bool,
    guard: Option<Guard>,
    brake: Option<Brake>,
    refetch: Option<Refetching4>,
}

impl From<RunControl3> for RunControl {
    fn from(old: RunControl3) -> Self {
        let RunControl3 { hold, decision, has_queued, has_unsent, guard, brake, refetch } = old;
        RunControl4 { hold, decision, has_queued, has_unsent, guard, brake, refetch, gate: None }.into()
    }
}

/// The record of version 2: a refetch was not told from a first fetch.
#[derive(Deserialize)]
struct RunControl2 {
    hold: RunHold,
    decision: u64,
    has_queued: bool,
    has_unsent: bool,
    guard: Option<Guard>,
    brake: Option<Brake>,
}

impl From<RunControl2> for RunControl {
    fn from(old: RunControl2) -> Self {
        let RunControl2 { hold, decision, has_queued, has_unsent, guard, brake } = old;
        RunControl3 { hold, decision, has_queued, has_unsent, guard, brake, refetch: None }.into()
    }
}

/// The record of version 1: there were neither guards nor brakes.
#[derive(Deserialize)]
struct RunControl1 {
    hold: RunHold,
    decision: u64,
    has_queued: bool,
    has_unsent: bool,
}

impl From<RunControl1> for RunControl {
    fn from(old: RunControl1) -> Self {
        let RunControl1 { hold, decision, has_queued, has_unsent } = old;
        RunControl2 { hold, decision, has_queued, has_unsent, guard: None, brake: None }.into()
    }
}

impl Record for RunControl {
    fn encode(&self) -> Vec<u8> {
        encode(VERSION, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(1) => decode::<RunControl1>(1, bytes).map(Self::from),
            Some(2) => decode::<RunControl2>(2, bytes).map(Self::from),
            Some(3) => decode::<RunControl3>(3, bytes).map(Self::from),
            Some(4) => decode::<RunControl4>(4, bytes).map(Self::from),
            _ => decode(VERSION, bytes),
        }
    }
}
