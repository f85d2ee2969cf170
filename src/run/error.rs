//! Why a run cannot be started or shown.

use crate::{queue, store};

/// Why a run cannot be started or shown.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A run with these identifying parameters was started before.
    #[error(
        "{identity} was started before as run {id}, which is {state} (a run happens once for its identifying parameters: {remedy})"
    )]
    Exists {
        /// Schedule and parameters.
        identity: String,
        /// The earlier run.
        id: u64,
        /// Its state.
        state: &'static str,
        /// What can be done.
        remedy: String,
    },
    /// The run does not exist.
    #[error("run {0} not found (see `nightmail run list`)")]
    NotFound(u64),
    /// The run ended long ago: only its numbers are kept.
    #[error(
        "run {0} was folded: its numbers are kept (`nightmail run show {0}`), its recipients are not on record any more"
    )]
    Folded(u64),
    /// The run has no recipient with this user id.
    #[error("run {run} has no recipient {user:?} (see `nightmail run recipients {run}`)")]
    NoRecipient {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
    },
    /// No run has a recipient with this user id.
    #[error("no run has a recipient {user:?} (see `nightmail run recipients RUN --user ID`)")]
    NoPerson {
        /// The user id.
        user: String,
    },
    /// A person cannot be erased now.
    #[error("{user:?} is not erased: {why}")]
    NotErased {
        /// The user id.
        user: String,
        /// Why, and what can be done.
        why: String,
    },
    /// The archive of documents cannot be changed.
    #[error("the archive cannot be changed: {0} (look at `archive` in data_dir, and repeat it)")]
    Archive(String),
    /// The user has several accounts in the run, and each has its own mail.
    #[error("user {user:?} has several accounts in run {run} ({accounts}): say with --account which are meant")]
    SeveralAccounts {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// Its accounts.
        accounts: String,
    },
    /// None of the user's accounts is meant.
    #[error("user {user:?} has none of the named accounts in run {run} (it has {accounts})")]
    NoAccount {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// Its accounts.
        accounts: String,
    },
    /// There is no doubt about the recipient's mail.
    #[error(
        "recipient {user:?} of run {run} is {state}, not unknown (`nightmail run recipients {run} --state unknown` lists those that are)"
    )]
    NotUnknown {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// What it is.
        state: &'static str,
    },
    /// The recipient is in a state in which it is not mailed again.
    #[error("recipient {user:?} of run {run} is {state}, so it is not mailed again ({remedy})")]
    NotAgain {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// What it is.
        state: &'static str,
        /// What can be done.
        remedy: String,
    },
    /// The recipient is not dead because its statement changed.
    #[error(
        "recipient {user:?} of run {run} is {state}, and not dead with `data statement changed`, so there is nothing to accept \
         (`nightmail run recipients {run} --reason changed` lists those that are)"
    )]
    NotChanged {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// What it is.
        state: &'static str,
    },
    /// A note cannot be kept.
    #[error("the note {why}")]
    Note {
        /// What is wrong with it.
        why: String,
    },
    /// The recipient was mailed again too often.
    #[error(
        "recipient {user:?} of run {run} was mailed again {max} times (look at the relay's log: the mails were handed over)"
    )]
    TooOften {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
        /// The limit.
        max: usize,
    },
    /// Some mails were queued before the rest was refused.
    #[error(
        "the mails of {done} of {all} recipients are queued, those of the others not: {why} (repeat it soon: what is queued is not queued again before it is sent)"
    )]
    Partly {
        /// Those that are queued.
        done: usize,
        /// All that were asked for.
        all: usize,
        /// Why the others are not.
        why: Box<Self>,
    },
    /// There is nothing to send to the recipient.
    #[error(
        "the user record of recipient {user:?} of run {run} is not there, so there is nothing to send (resolve it as sent)"
    )]
    NoUserRecord {
        /// The run.
        run: u64,
        /// The user id.
        user: String,
    },
    /// No function of the configuration fetches the users of this run, so nobody knows where its messages go.
    #[error("function {function:?}, which fetched the users of run {run}, is not in the configuration (add it again)")]
    NoTarget {
        /// The run.
        run: u64,
        /// The fan-out function.
        function: String,
    },
    /// It is no mail address.
    #[error("{address:?} is no mail address: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The run's state does not allow what was asked for.
    #[error("run {run} is {state}, so it cannot be {decision} ({remedy})")]
    State {
        /// The run.
        run: u64,
        /// Its state.
        state: &'static str,
        /// What was asked for.
        decision: &'static str,
        /// What can be done.
        remedy: String,
    },
    /// The users of the run are not being fetched again.
    #[error(
        "run {0} is not being refetched, so there is no refetch to abandon (`nightmail run refetch {0}` begins one)"
    )]
    NoRefetch(u64),
    /// What an abandoned refetch had added is not withdrawn yet.
    #[error("the abandoned refetch of run {0} is being taken back (try again in a moment)")]
    RefetchEnding(u64),
    /// The statements that were made are not forgotten yet.
    #[error("the statements of run {0} are about to be made again (try again in a moment)")]
    Remaking(u64),
    /// Nothing of the run is sent now.
    #[error("run {run} is {state}, so nothing of it is sent ({remedy})")]
    Held {
        /// The run.
        run: u64,
        /// Its state.
        state: &'static str,
        /// What can be done.
        remedy: String,
    },
    /// A queue refused a call.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}
