//! The requests and responses of the control interface. Fields are added, never renamed: an older CLI may talk to a
//! newer daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{MessageId, Timestamp};
use crate::queue::dead::Group;
use crate::queue::peek::Peeked;
use crate::queue::redrive::{Preview, Redrive};
use crate::queue::stats::Stats;
use crate::queue::unique::Unique;
use crate::run::report::{Filter, Row};
use crate::run::{Accept, Again, Decision, Erase, Erased, Forecast, Report, Resent, Resolve, Suppression};
use crate::store::backup::{self, Backup};
use crate::work::BreakerView;

use super::import::{ImportEnd, Imported};
use super::overview::Overview;
use super::views::{Checked, ForgottenTicks, RedriveView, ScheduleView, Status};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Whether a daemon runs, and its version and process.
    Status,
    /// The state of everything at one moment.
    Overview,
    /// All queues with their counts.
    Queues,
    /// Messages of a queue, without receiving them.
    Peek {
        /// The queue.
        queue: String,
        /// At most this many, 1 to 1000.
        max: usize,
    },
    /// The letters of a dead-letter queue, grouped by fingerprint.
    Dead {
        /// The queue.
        queue: String,
    },
    /// What a redrive would move.
    PreviewRedrive(Redrive),
    /// Start a redrive.
    StartRedrive(Redrive),
    /// Stop a redrive.
    CancelRedrive {
        /// Its number.
        id: u64,
    },
    /// Take back the letters of a redrive that have not been received since.
    UndoRedrive {
        /// Its number.
        id: u64,
    },
    /// All redrives, the newest first.
    Redrives,
    /// Stop receives from a queue.
    Pause {
        /// The queue.
        queue: String,
        /// Who asks.
        by: String,
    },
    /// Let receives from a queue go on.
    Resume {
        /// The queue.
        queue: String,
    },
    /// Delete all messages of a queue.
    Purge {
        /// The queue.
        queue: String,
    },
    /// Send a message.
    Send {
        /// The queue.
        queue: String,
        /// The text.
        body: String,
        /// What goes with it.
        #[serde(default)]
        with: Box<With>,
    },
    /// Send messages of another SQS endpoint that were not imported from there before; at most ten.
    Import {
        /// The queue.
        queue: String,
        /// Where they come from: messages are told apart by this and their ids there.
        source: String,
        /// The messages.
        messages: Vec<Imported>,
    },
    /// Start a run by hand.
    StartRun {
        /// The schedule.
        schedule: String,
        /// Identifying parameters; those not given are evaluated as for a tick at this moment.
        params: BTreeMap<String, String>,
        /// A note; empty for none.
        #[serde(default)]
        note: String,
    },
    /// Stop, resume, release, remake or abandon a run, or abandon its refetch.
    DecideRun {
        /// Its number.
        id: u64,
        /// What to do with it.
        decision: Decision,
    },
    /// Fetch the users of a complete run again, for those who are new.
    RefetchRun {
        /// Its number.
        id: u64,
    },
    /// Mail recipients again.
    Resend(Again),
    /// Accept the statements of recipients that changed after the run's gate had seen them.
    Accept(Accept),
    /// Set the note of a run.
    NoteRun {
        /// Its number.
        id: u64,
        /// The text; empty for none.
        text: String,
    },
    /// The newest runs.
    Runs {
        /// At most this many.
        max: u64,
    },
    /// One run.
    Run {
        /// Its number.
        id: u64,
    },
    /// How the next run of a schedule will go.
    Forecast {
        /// The schedule.
        schedule: String,
        /// How many users it will have; as many as the last time when `None`.
        users: Option<u64>,
    },
    /// Put addresses on the suppression list, at most 500.
    Suppress {
        /// The addresses.
        what: Vec<Suppression>,
    },
    /// Take an address off the suppression list.
    Unsuppress {
        /// The address.
        address: String,
    },
    /// The suppression list in the order of the addresses, at most 1000.
    Suppressions {
        /// Those after this address.
        after: Option<String>,
    },
    /// The recipients of a run.
    Recipients {
        /// The run's number.
        id: u64,
        /// Which of them.
        #[serde(flatten)]
        filter: Filter,
        /// Only those after the row of this key: a response has at most 1,000 rows, and the next request continues
        /// after the last one.
        #[serde(default)]
        after: Option<String>,
    },
    /// Check a run against its recipients' rows.
    VerifyRun {
        /// Its number.
        id: u64,
    },
    /// How many recipients a resolution would concern.
    PreviewResolve(Resolve),
    /// Resolve doubts by hand.
    Resolve(Resolve),
    /// Erase a person from one run or from all.
    Erase(Erase),
    /// The schedules with their next ticks and the newest past ones.
    Schedules,
    /// The circuit breakers of all destinations. Without a daemon there are none.
    Breakers,
    /// Try a destination that is away with the next message at once.
    Probe {
        /// Its name as [`Request::Breakers`] shows it; all that are away when `None`.
        destination: Option<String>,
    },
    /// Remove decisions about ticks that lie in the future: a clock that was ahead made them. Those with a run stay.
    ForgetTicks {
        /// The schedule.
        schedule: String,
        /// The only tick to forget; all when `None`.
        tick: Option<Timestamp>,
    },
    /// Copy the store into a new file.
    Backup(backup::Order),
    /// Check every row of the store and the rules between them.
    CheckStore,
}

impl Request {
    /// Whether it changes nothing, so that it can be executed without the daemon.
    pub const fn is_read_only(&self) -> bool {
        match self {
            Self::Status
            | Self::Overview
            | Self::Queues
            | Self::Peek { .. }
            | Self::Dead { .. }
            | Self::PreviewRedrive(_)
            | Self::Redrives
            | Self::Runs { .. }
            | Self::Run { .. }
            | Self::Forecast { .. }
            | Self::Recipients { .. }
            | Self::Suppressions { .. }
            | Self::VerifyRun { .. }
            | Self::PreviewResolve(_)
            | Self::Schedules
            | Self::Breakers
            | Self::Backup(_)
            | Self::CheckStore => true,
            Self::StartRedrive(_)
            | Self::CancelRedrive { .. }
            | Self::UndoRedrive { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Purge { .. }
            | Self::Send { .. }
            | Self::Import { .. }
            | Self::StartRun { .. }
            | Self::DecideRun { .. }
            | Self::RefetchRun { .. }
            | Self::Resend(_)
            | Self::Accept(_)
            | Self::NoteRun { .. }
            | Self::Resolve(_)
            | Self::Erase(_)
            | Self::Suppress { .. }
            | Self::Unsuppress { .. }
            | Self::Probe { .. }
            | Self::ForgetTicks { .. } => false,
        }
    }

    /// Whether it reads or deletes whole tables, and so takes as long as it takes.
    pub const fn takes_long(&self) -> bool {
        matches!(
            self,
            Self::Backup(_)
                | Self::CheckStore
                | Self::Purge { .. }
                | Self::VerifyRun { .. }
                | Self::Resolve(_)
                | Self::Erase(_)
                | Self::Resend(_)
                | Self::Accept(_)
        )
    }

    /// The command that makes this request, as an operator types it after `nightmail`.
    pub const fn command(&self) -> &'static str {
        match self {
            Self::Status | Self::Overview => "status",
            Self::Queues => "queues",
            Self::Peek { .. } => "peek",
            Self::Dead { .. } => "dead",
            Self::PreviewRedrive(_) => "redrive --preview",
            Self::StartRedrive(_) => "redrive",
            Self::CancelRedrive { .. } => "redrive --cancel",
            Self::UndoRedrive { .. } => "redrive undo",
            Self::Redrives => "redrives",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Purge { .. } => "purge",
            Self::Send { .. } => "send",
            Self::Import { .. } => "import sqs",
            Self::StartRun { .. } => "run start",
            Self::DecideRun { decision: Decision::Stop, .. } => "run stop",
            Self::DecideRun { decision: Decision::Resume, .. } => "run resume",
            Self::DecideRun { decision: Decision::Release, .. } => "run release",
            Self::DecideRun { decision: Decision::Remake, .. } => "run remake",
            Self::DecideRun { decision: Decision::Abandon, .. } => "run abandon",
            Self::DecideRun { decision: Decision::AbandonRefetch, .. } => "run abandon --refetch",
            Self::RefetchRun { .. } => "run refetch",
            Self::Resend(_) => "run resend",
            Self::Accept(_) => "run accept",
            Self::NoteRun { .. } => "run note",
            Self::Runs { .. } => "run list",
            Self::Run { .. } => "run show",
            Self::Forecast { .. } => "run forecast",
            Self::Recipients { .. } => "run recipients",
            Self::VerifyRun { .. } => "run verify",
            Self::Suppress { .. } => "suppress add",
            Self::Unsuppress { .. } => "suppress remove",
            Self::Suppressions { .. } => "suppress list",
            Self::PreviewResolve(_) | Self::Resolve(_) => "run resolve",
            Self::Erase(_) => "run erase",
            Self::Schedules => "schedules",
            Self::ForgetTicks { .. } => "schedules forget",
            Self::Backup(_) => "backup",
            Self::Breakers => "status",
            Self::Probe { .. } => "probe",
            Self::CheckStore => "store check",
        }
    }
}

/// What goes with a message beside its text; see [`crate::queue::Send`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct With {
    /// How long it stays invisible.
    pub delay: Option<Duration>,
    /// Message attributes of the type `String`.
    pub attributes: BTreeMap<String, String>,
    /// The message group.
    pub group: Option<String>,
    /// The deduplication id.
    pub deduplication_id: Option<String>,
    /// The priority.
    pub priority: u32,
    /// The unique key.
    pub unique: Option<Unique>,
    /// When it expires: it is not received after this.
    pub expires_at: Option<Timestamp>,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way to or from the socket")]
pub enum Answer {
    /// See [`Request::Status`].
    Status(Status),
    /// See [`Request::Overview`].
    Overview(Box<Overview>),
    /// See [`Request::Queues`].
    Queues(Vec<Stats>),
    /// See [`Request::Peek`].
    Messages(Vec<Peeked>),
    /// See [`Request::Dead`].
    Dead(Vec<Group>),
    /// See [`Request::PreviewRedrive`].
    Preview(Preview),
    /// The number of the redrive or run that was started.
    Started(u64),
    /// How many messages or letters were deleted or moved.
    Count(u64),
    /// See [`Request::Redrives`].
    Redrives(Vec<RedriveView>),
    /// The id of the message that was sent, or of the earlier one that it duplicates.
    Sent(MessageId),
    /// See [`Request::Import`]; in the order of the messages.
    Imported(Vec<ImportEnd>),
    /// It is done.
    Done,
    /// See [`Request::Runs`].
    Runs(Vec<Report>),
    /// See [`Request::Run`], [`Request::DecideRun`], [`Request::RefetchRun`] and [`Request::NoteRun`].
    Run(Report),
    /// See [`Request::Forecast`].
    Forecast(Forecast),
    /// See [`Request::Resend`].
    Resent(Vec<Resent>),
    /// What was erased.
    Erased(Erased),
    /// See [`Request::Recipients`].
    Recipients(Vec<Row>),
    /// See [`Request::Suppressions`].
    Suppressions(Vec<Suppression>),
    /// See [`Request::Schedules`].
    Schedules(Vec<ScheduleView>),
    /// See [`Request::Breakers`].
    Breakers(Vec<BreakerView>),
    /// The destinations that are away and are tried at once.
    Probed(Vec<String>),
    /// See [`Request::ForgetTicks`].
    Forgotten(ForgottenTicks),
    /// See [`Request::Backup`].
    Backup(Backup),
    /// See [`Request::CheckStore`] and [`Request::VerifyRun`].
    Checked(Checked),
}

/// A refusal, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// The kind of refusal; decides the exit code of the CLI.
    pub kind: FailureKind,
    /// Names the thing, the value, the limit and the remedy.
    pub text: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request itself is wrong: an unknown name, a value out of range.
    Request,
    /// The store failed.
    Store,
    /// The daemon cannot be reached.
    Unreachable,
    /// This user may not use the control socket or the store.
    Denied,
}
