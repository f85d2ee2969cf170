//! The fan-out: reads the users page by page and sends one message per user. A page's messages, its recipients' rows
//! and the cursor are one commit, so that a crash in the middle neither loses nor repeats a user.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::base::{Contact, Destination, Effect, Failure, Now, Outcome, Report};
use crate::function::statement::{Page, PageAddress, Record, User, Users};
use crate::function::upstream::Fault;
use crate::function::{Function, Invocation};
use crate::queue::send::Send;
use crate::queue::settle::{self, Ended};
use crate::queue::{self, Queues, ReceiptHandle, catalog, send};
use crate::run::identity;
use crate::run::ledger::{self, Added};
use crate::store::record::{QueueRecord, RunRecord};
use crate::store::{self, Tx};

use super::FanOutOptions;

/// The built-in function `fan-out`.
#[derive(Debug)]
pub struct FanOut {
    options: FanOutOptions,
    users: Users,
    queues: Queues,
}

/// The dead letter of a record that is too large for a message keeps this much of the record's text.
const RAW_CHARS_MAX: usize = 4096;

/// A message of the fan-out's own queue: a run to fan out, or one malformed record to check again.
#[derive(Debug, Serialize, Deserialize)]
struct FanOutMessage {
    run: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Malformed>,
}

/// A record that is no valid user.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Malformed {
    page: u32,
    index: usize,
    raw: String,
    /// Where its page is, so that it can be fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<PageAddress>,
}

/// The body of the message for one user.
#[derive(Debug, Serialize)]
struct UserMessage<'a> {
    run: u64,
    /// Identifies the run independently of its number: see [`crate::run::identity`].
    identity: &'a str,
    user: &'a User,
    params: &'a BTreeMap<String, String>,
}

/// Why a fan-out stopped before its end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("another worker carried the fan-out on")]
    Overtaken,
}

impl FanOut {
    /// A fan-out that reads from `users`.
    pub fn new(options: FanOutOptions, users: Users, queues: Queues) -> Self {
        Self { options, users, queues }
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
        match work.record {
            None => match invocation.receipt_handle.parse() {
                Ok(handle) => self.fan_out(handle, run, contacts).await,
                Err(error) => retry(&Error::Queue(error)),
            },
            Some(record) => self.recheck_record(run, record, contacts).await,
        }
    }

    fn run(&self, id: u64) -> Result<Option<RunRecord>, Error> {
        Ok(self.queues.store().snapshot()?.runs()?.get(&id)?)
    }

    /// Reads and commits pages from the durable cursor to the last page.
    async fn fan_out(&self, handle: ReceiptHandle, mut run: RunRecord, contacts: &mut Vec<Contact>) -> Outcome {
        // `finished_at` and not the cursor ends the loop: before the first page the cursor is empty as well.
        while run.fan_out.finished_at.is_none() {
            let address = match address(&run) {
                Ok(address) => address,
                Err(why) => return Outcome::Dead { why },
            };
            if run.fan_out.pages >= self.options.users.pages_max {
                return Outcome::Dead { why: self.too_many_pages() };
            }
            // Before the fetch: while the disk is full, every retry would call the users API in vain.
            if let Err(full) = self.queues.space().admit(&self.options.target) {
                return deferred(&full);
            }
            let page = match self.users.page(&address, &run.params, contacts).await {
                Ok(page) => page,
                Err(fault) => return fault.into_outcome(),
            };
            run = match self.commit(handle, run, page).await {
                Ok(run) => run,
                // The attempt that moved the cursor goes on from there, so this one has nothing left to do.
                Err(Error::Overtaken) => return Outcome::done(),
                Err(error) => return retry(&error),
            };
        }
        tracing::info!(run = run.id, pages = run.fan_out.pages, "all users are fetched");
        Outcome::done()
    }

    async fn commit(&self, handle: ReceiptHandle, run: RunRecord, page: Page) -> Result<RunRecord, Error> {
        let (options, now) = (self.options.clone(), self.queues.now());
        let step = move |tx: &mut Tx<'_>| {
            let (run, repeated) = commit_page(tx, &options, run, page, now)?;
            // A fan-out over many pages may span several restarts. Each page proves progress, so the attempts lost
            // before it are no longer charged, and restarts alone cannot send it to the dead-letter queue.
            settle::progress(tx, handle)?;
            Ok::<_, Error>((run, repeated))
        };
        let (run, repeated) = self.queues.store().write(step).await?;
        if repeated > 0 {
            let page = run.fan_out.pages;
            tracing::warn!(run = run.id, page, repeated, "the users API named users again; their first records count");
        }
        Ok(run)
    }

    /// Checks a malformed record again after its redrive. If it is valid now, its user gets a message.
    async fn recheck_record(&self, run: RunRecord, record: Malformed, contacts: &mut Vec<Contact>) -> Outcome {
        if let Err(full) = self.queues.space().admit(&self.options.target) {
            return deferred(&full);
        }
        let user = match self.user_by_now(&run, &record, contacts).await {
            Ok(user) => user,
            Err(end) => return end,
        };
        let (target, now) = (self.options.target.clone(), self.queues.now());
        let step = move |tx: &mut Tx<'_>| {
            let target = catalog::find(tx, &target)?;
            let message = user_message(&run, &user);
            send::check(&target, &message)?;
            // The user's row replaces the record's row in the same commit, so the run counts this recipient once.
            // `send_once` sends nothing if the user has a message already.
            ledger::replace(tx, run.id, ledger::record_key(record.page, record.index))?;
            send_once(tx, &target, &run, &user, message, now).map(drop)
        };
        match self.queues.store().write::<_, Error, _>(step).await {
            Ok(()) => Outcome::done(),
            Err(error) => retry(&error),
        }
    }

    /// The user of a formerly malformed record: the stored text if it passes the check now, else the record that the
    /// users API returns today, found by its id or, without an id, by its position.
    async fn user_by_now(
        &self,
        run: &RunRecord,
        record: &Malformed,
        contacts: &mut Vec<Contact>,
    ) -> Result<User, Outcome> {
        let dead = |why| Outcome::Dead { why };
        let why = match User::check(&record.raw) {
            Ok(user) => return Ok(user),
            Err(why) => why,
        };
        // The fault was corrected either in this program, and the stored text passes, or at the source, and the page
        // must be fetched again.
        let Some(address) = &record.address else { return Err(dead(why)) };
        let page = self.users.page(address, &run.params, contacts).await;
        let mut records = page.map_err(Fault::into_outcome)?.records;
        let id = kept_id(&record.raw);
        let is_it = |found: &Record| matches!((found, &id), (Record::User(user), Some(id)) if user.id == *id);
        let place = records.iter().position(is_it).unwrap_or(record.index);
        let found = (place < records.len()).then(|| records.swap_remove(place));
        match found {
            Some(Record::Malformed { why, .. }) => Err(dead(why)),
            Some(Record::User(user)) if id.as_ref().is_none_or(|id| user.id == *id) => {
                // Without an id only the position identifies the record, and the page may have shifted since. A user
                // who has a row already is another user, who moved to this position.
                match self.is_recipient(run.id, &user) {
                    Ok(true) if id.is_none() => Err(dead(gone(record))),
                    Ok(_) => Ok(user),
                    Err(error) => Err(retry(&error)),
                }
            }
            _ => Err(dead(gone(record))),
        }
    }

    fn is_recipient(&self, run: u64, user: &User) -> Result<bool, Error> {
        let row =
            self.queues.store().snapshot()?.recipients()?.get(&(run, ledger::user_key(&user.id, user.account())))?;
        Ok(row.is_some())
    }

    fn too_many_pages(&self) -> Failure {
        let max = self.options.users.pages_max;
        let text = format!(
            "the users API has more than {max} pages (raise functions.{}.users.pages_max if that is right)",
            self.options.name
        );
        Failure::new("data", "users", "too-many-pages", text)
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
}

fn commit_page(
    tx: &mut Tx<'_>,
    options: &FanOutOptions,
    run: RunRecord,
    page: Page,
    now: Now,
) -> Result<(RunRecord, u64), Error> {
    let target = catalog::find(tx, &options.target)?;
    let own = catalog::find(tx, &options.queue)?;
    // Compare and set: the page was fetched outside the transaction. If the cursor has moved since, another worker has
    // committed this page, for example after this message's visibility timeout.
    let stored = tx.runs()?.get(&run.id)?;
    if stored.as_ref().map(|stored| &stored.fan_out) != Some(&run.fan_out) {
        return Err(Error::Overtaken);
    }
    // All messages are built and checked before the first write, so that a refused message leaves nothing half written.
    let address = address(&run).ok();
    let prepare = |(index, record)| prepare(index, record, (&target, &own), &run, address.as_ref());
    let prepared: Vec<Prepared> = page.records.into_iter().enumerate().map(prepare).collect();
    for record in &prepared {
        if let Prepared::Malformed(_, letter, _) = record {
            send::check(&own, letter)?;
        }
    }
    let mut repeated = 0;
    for record in prepared {
        match record {
            Prepared::User(user, message) => match send_once(tx, &target, &run, &user, message, now)? {
                Added::New => {}
                // Pages shift while they are read, so a user may appear on two of them. One message per user and run.
                Added::Repeated => repeated += 1,
            },
            Prepared::Malformed(record, letter, why) => {
                let ended = Ended { function: options.name.clone(), why, at: now };
                dead_letter_record(tx, &own, &run, &record, letter, &ended)?;
            }
        }
    }
    let mut run = run;
    run.fan_out.pages += 1;
    run.fan_out.finished_at = page.next.is_none().then_some(now.wall);
    run.fan_out.next = page.next.map(|next| serde_json::to_string(&next).expect("an address always serialises"));
    tx.runs()?.insert(&run.id, &run)?;
    Ok((run, repeated))
}

/// A record of a page, ready to be written.
enum Prepared {
    /// A user with its message.
    User(Box<User>, Send),
    /// A malformed record, with its dead letter and the reason.
    Malformed(Malformed, Send, Failure),
}

fn prepare(
    index: usize,
    record: Record,
    (target, own): (&QueueRecord, &QueueRecord),
    run: &RunRecord,
    address: Option<&PageAddress>,
) -> Prepared {
    let malformed = |raw, why| {
        let record = Malformed { page: run.fan_out.pages, index, raw, address: address.cloned() };
        let (record, letter) = letter(own, run, record);
        Prepared::Malformed(record, letter, why)
    };
    match record {
        Record::Malformed { raw, why, .. } => malformed(raw, why),
        Record::User(user) => {
            let message = user_message(run, &user);
            match send::check(target, &message) {
                Ok(()) => Prepared::User(Box::new(user), message),
                // The user is valid but its message breaks a limit of the queue. That is this record's fault alone: the
                // page must not fail because of it.
                Err(error) => {
                    let raw = serde_json::to_string(&user).expect("text always serialises");
                    let why = Failure::new("data", "users", "message-refused", error);
                    malformed(raw.chars().take(RAW_CHARS_MAX).collect(), why)
                }
            }
        }
    }
}

fn user_message(run: &RunRecord, user: &User) -> Send {
    let identity = identity(&run.schedule, &run.params, run.scheduled_for);
    let message = UserMessage { run: run.id, identity: &identity, user, params: &run.params };
    let body = serde_json::to_vec(&message).expect("text and numbers always serialise");
    Send { run: run.id, recipient: ledger::user_key(&user.id, user.account()), ..Send::text(body) }
}

/// Builds the dead letter of a malformed record. It always fits its queue: characters that SQS does not allow are
/// replaced, and a text that is too long is truncated.
fn letter(own: &QueueRecord, run: &RunRecord, mut record: Malformed) -> (Malformed, Send) {
    record.raw = record.raw.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
    // Halves the text until the body fits. The size of the body is known only after JSON has escaped the text.
    loop {
        let work = FanOutMessage { run: run.id, record: Some(record.clone()) };
        let body = serde_json::to_vec(&work).expect("text and numbers always serialise");
        let recipient = ledger::record_key(record.page, record.index);
        let letter = Send { run: run.id, recipient, ..Send::text(body) };
        if record.raw.is_empty() || send::check(own, &letter).is_ok() {
            return (record, letter);
        }
        record.raw.truncate(record.raw.floor_char_boundary(record.raw.len() / 2));
    }
}

fn send_once(
    tx: &mut Tx<'_>,
    target: &QueueRecord,
    run: &RunRecord,
    user: &User,
    message: Send,
    now: Now,
) -> Result<Added, Error> {
    let added = ledger::add(tx, run.id, message.recipient, &user.id, now.wall)?;
    if added == Added::New {
        send::send(tx, target, message, now)?;
    }
    Ok(added)
}

/// Writes a malformed record to the fan-out's own dead-letter queue and adds its row to the ledger.
fn dead_letter_record(
    tx: &mut Tx<'_>,
    own: &QueueRecord,
    run: &RunRecord,
    record: &Malformed,
    letter: Send,
    ended: &Ended,
) -> Result<(), Error> {
    let name = format!("page {} record {}", record.page + 1, record.index + 1);
    ledger::add(tx, run.id, letter.recipient, &name, ended.at.wall)?;
    send::send_dead(tx, &ledger::Ledger, own, letter, ended)?;
    Ok(())
}

/// The id of a malformed record, if it can be read.
fn kept_id(raw: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(raw).ok()?.get("id")? {
        serde_json::Value::String(id) => Some(id.clone()),
        serde_json::Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// The page no longer has the record, or another user is at its position.
fn gone(record: &Malformed) -> Failure {
    let (page, index) = (record.page + 1, record.index + 1);
    let text = format!("record {index} of page {page} is not there any more (fetch the users anew in another run)");
    Failure::new("data", "users", "record-gone", text)
}

fn address(run: &RunRecord) -> Result<PageAddress, Failure> {
    match &run.fan_out.next {
        None => Ok(PageAddress::First),
        Some(next) => serde_json::from_str(next).map_err(|error| {
            Failure::new("data", "fan-out", "cursor", format!("the stored cursor does not read: {error}"))
        }),
    }
}

/// The disk is too full for more messages: the fan-out is deferred and continues from its cursor. No attempt is
/// charged.
fn deferred(full: &queue::Error) -> Outcome {
    Outcome::Deferred { why: Failure::new("store", "fan-out", "disk-full", full), after: None }
}

/// The store or a queue failed: the message is retried, and the fan-out continues from its cursor.
fn retry(error: &Error) -> Outcome {
    Outcome::Retry { why: Failure::new("store", "fan-out", "failed", error), after: None, effect: Effect::None }
}
