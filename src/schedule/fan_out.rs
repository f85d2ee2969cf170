//! The fan-out: reads the users page by page and sends one message per user. A page goes in slices; each slice's
//! messages, its recipients' rows and the cursor are one commit, so that a crash in the middle neither loses nor repeats
//! a user.
//!
//! This file is the function: the loop over pages and what each end of it means. `fetch` reads a page, one ahead of the
//! commits, `page` makes the messages, `slice` is the commit, `cycle` notices cursors that come back, `malformed` looks
//! after records that are no users.

mod cycle;
mod fetch;
mod malformed;
pub mod page;
pub mod slice;
mod user_message;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::base::{Contact, Destination, Effect, Failure, LeaseTime, Outcome, Report};
use crate::function::statement::{PageAddress, Users};
use crate::function::{Function, Invocation};
use crate::queue::{self, Queues, ReceiptHandle, settle};
use crate::run::control;
use crate::store::record::{FanOutProgress, RunRecord};
use crate::store::{self, Tx};

use super::FanOutOptions;
use malformed::FanOutMessage;
use page::PreparedPage;
use slice::{Slice, SliceEnd};

/// The built-in function `fan-out`.
#[derive(Clone, Debug)]
pub struct FanOut {
    options: Arc<FanOutOptions>,
    users: Arc<Users>,
    queues: Queues,
}

/// How often a fan-out looks whether a full queue has room again.
const ROOM_LOOK_EVERY: Duration = Duration::from_millis(100);
/// After this long without room the fan-out is deferred, and fetches its page again later. Long enough that a queue
/// which workers drain is refilled without that.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a fan-out stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A queue refused a message, e.g. because it is full.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The run was stopped or abandoned.
    #[error("run {run} is {state}")]
    Held {
        /// The run.
        run: u64,
        /// Its state.
        state: &'static str,
    },
    /// The run's cursor is elsewhere.
    #[error("another worker carried the fan-out on")]
    Overtaken,
}

/// The attempt at hand.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// The receive of its message.
    handle: ReceiptHandle,
    /// When its time limit ends.
    deadline: LeaseTime,
}

impl FanOut {
    /// A fan-out that reads from `users`.
    pub fn new(options: FanOutOptions, users: Users, queues: Queues) -> Self {
        Self { options: Arc::new(options), users: Arc::new(users), queues }
    }

    async fn work(&self, invocation: Invocation, contacts: &mut Vec<Contact>) -> Outcome {
        let work: FanOutMessage = match serde_json::from_slice(&invocation.body) {
            Ok(work) => work,
            Err(error) => {
                let text = format!("the message is not a fan-out's ({error}); send {{\"run\": <number>}}");
                return Outcome::Dead { why: Failure::new("data", "fan-out", "malformed-message", text) };
            }
        };
        let run = match self.run(work.run) {
            Ok(Some(run)) => run,
            Ok(None) => {
                let text = format!("run {} is not in this store", work.run);
                return Outcome::Dead { why: Failure::new("data", "fan-out", "unknown-run", text) };
            }
            Err(error) => return retry(&error),
        };
        if run.folded_at.is_some() {
            let text = format!("run {} was folded: its recipients are not on record any more", run.id);
            return Outcome::Dead { why: Failure::new("data", "fan-out", "folded-run", text) };
        }
        match work.record {
            None => match invocation.receipt_handle.parse() {
                Ok(handle) => {
                    let attempt = Attempt { handle, deadline: invocation.deadline };
                    self.fan_out(attempt, run, contacts).await
                }
                Err(error) => retry(&Error::Queue(error)),
            },
            Some(record) => self.recheck_record(run, record, contacts).await,
        }
    }

    fn run(&self, id: u64) -> Result<Option<RunRecord>, Error> {
        Ok(self.queues.store().snapshot()?.runs()?.get(&id)?)
    }

    /// Reads and commits pages from the durable cursor to the last page. Every await is a point where the pool may drop
    /// it in a drain: a commit is whole or not at all, and a page that was fetched is fetched again.
    async fn fan_out(&self, attempt: Attempt, mut run: RunRecord, contacts: &mut Vec<Contact>) -> Outcome {
        let mut ahead = None;
        // `finished_at` and not the cursor ends the loop: before the first page the cursor is empty as well.
        while run.fan_out.finished_at.is_none() {
            let page = match ahead.take() {
                Some(ahead) => self.fetched(ahead, contacts).await,
                None => self.fetch(&run, contacts).await,
            };
            let committed = match page {
                Ok(page) => {
                    ahead = self.fetch_ahead(&run, &page);
                    self.commit(attempt, run, Arc::new(page)).await
                }
                Err(end) => Err(end),
            };
            run = match committed {
                Ok(run) => run,
                Err(end) => return end,
            };
        }
        tracing::info!(run = run.id, pages = run.fan_out.pages, "all users are fetched");
        Outcome::done()
    }

    /// Commits a page slice by slice; returns the run with its new cursor, or the end of the attempt.
    async fn commit(
        &self,
        attempt: Attempt,
        mut run: RunRecord,
        page: Arc<PreparedPage>,
    ) -> Result<RunRecord, Outcome> {
        let (mut from, mut waited) = (0, Duration::ZERO);
        loop {
            let slice = match self.commit_slice(attempt.handle, &run, &page, from).await {
                Ok(slice) => slice,
                // The attempt that moved the cursor goes on from there, so this one has nothing left to do.
                Err(Error::Overtaken) => return Err(Outcome::done()),
                Err(Error::Queue(full @ queue::Error::Full { .. })) => {
                    let is_late = self.queues.now().lease.after(ROOM_WAIT_MAX) >= attempt.deadline;
                    if waited >= ROOM_WAIT_MAX || is_late {
                        return Err(queue_full(&full));
                    }
                    tokio::time::sleep(ROOM_LOOK_EVERY).await;
                    waited += ROOM_LOOK_EVERY;
                    continue;
                }
                Err(error) => return Err(retry(&error)),
            };
            if slice.repeated > 0 {
                let (page, repeated) = (page.number, slice.repeated);
                tracing::warn!(
                    run = run.id,
                    page,
                    repeated,
                    "the users API named users again; their first records count"
                );
            }
            (run, waited) = (slice.run, Duration::ZERO);
            match slice.end {
                SliceEnd::Record(next) => from = next,
                SliceEnd::Page => return Ok(run),
                SliceEnd::CursorCameBack => return Err(Outcome::Dead { why: cursor_came_back(&page) }),
                SliceEnd::NoUsers => return Err(Outcome::Dead { why: no_users() }),
            }
        }
    }

    async fn commit_slice(
        &self,
        handle: ReceiptHandle,
        run: &RunRecord,
        page: &Arc<PreparedPage>,
        from: usize,
    ) -> Result<Slice, Error> {
        let (options, run, page, now) = (self.options.clone(), run.clone(), page.clone(), self.queues.now());
        let step = move |tx: &mut Tx<'_>| {
            let slice = slice::commit(tx, &options, &run, &page, from, now)?;
            // A fan-out over many pages may span several restarts. Each slice proves progress, so the attempts lost
            // before it are no longer charged, and restarts alone cannot send it to the dead-letter queue.
            if matches!(slice.end, SliceEnd::Record(_) | SliceEnd::Page) {
                settle::progress(tx, handle)?;
            }
            Ok::<_, Error>(slice)
        };
        self.queues.store().write(step).await
    }
}

impl Function for FanOut {
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let report = async move {
            let mut contacts = Vec::new();
            let outcome = self.work(invocation, &mut contacts).await;
            Report { outcome, contacts }
        };
        report.boxed()
    }

    fn destinations(&self) -> Vec<Destination> {
        vec![self.users.destination().clone()]
    }

    fn silences(&self) -> Vec<(Destination, Duration)> {
        self.users.longest_silence().map(|silence| (self.users.destination().clone(), silence)).into_iter().collect()
    }

    fn ends_with_drain(&self) -> bool {
        true
    }
}

/// Checks that the run was neither stopped nor abandoned; while its statements are made, records are checked again.
fn may_go_on(tx: &mut Tx<'_>, run: u64) -> Result<(), Error> {
    match control::fetch_held(tx, run)? {
        Some(state) => Err(Error::Held { run, state: state.name() }),
        None => Ok(()),
    }
}

/// The address of the page in work, as the run stores it.
fn cursor(progress: &FanOutProgress) -> String {
    let first = || serde_json::to_string(&PageAddress::First).expect("an address always serialises");
    progress.next.clone().unwrap_or_else(first)
}

fn cursor_came_back(page: &PreparedPage) -> Failure {
    let next: String = page.next.iter().flat_map(|next| next.chars()).take(200).collect();
    let text = format!(
        "page {} names as its next page one that was read before, {next}: the pages form a ring (mend the users API, or \
         check next and cursor_param; then redrive this letter)",
        page.number
    );
    Failure::new("data", "users", "cursor-came-back", text)
}

fn no_users() -> Failure {
    let text = "the users API answered no users at all (check its address and token and what it selects; then redrive \
                this letter)";
    Failure::new("data", "users", "none", text)
}

/// The disk is too full for more messages: the fan-out is deferred and continues from its cursor. No attempt is
/// charged.
fn disk_full(full: &queue::Error) -> Outcome {
    Outcome::Deferred { why: Failure::new("store", "fan-out", "disk-full", full), after: None }
}

/// A queue has no room: as [`disk_full`], and for as long as it takes.
fn queue_full(full: &queue::Error) -> Outcome {
    Outcome::Waiting { why: Failure::new("store", "fan-out", "queue-full", full), after: None }
}

/// The run may not go on: the message waits in its queue, and the fan-out continues from its cursor when it is resumed.
fn held(error: &Error) -> Outcome {
    Outcome::Waiting { why: Failure::new("run", "fan-out", "held", error), after: Some(Duration::from_secs(1)) }
}

/// The store or a queue failed: the message is retried, and the fan-out continues from its cursor.
fn retry(error: &Error) -> Outcome {
    match error {
        Error::Queue(full @ queue::Error::Full { .. }) => queue_full(full),
        Error::Held { .. } => held(error),
        _ => {
            Outcome::Retry { why: Failure::new("store", "fan-out", "failed", error), after: None, effect: Effect::None }
        }
    }
}
