//! The asynchronous API of the queues for the modules above. Each call runs as one step in the store's next group
//! commit and returns once it is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, LeaseTime, Now};
use crate::store::record::{Owner, QueueRecord, RedriveRecord, RedriveState, Suspicion};
use crate::store::{self, Store, Tx};

use super::import::{self, Imported};
use super::line::Lines;
use super::receive::{Position, Receiving};
use super::recover::Served;
use super::redrive::{self, Redrive};
use super::{
    Error, Given, Observer, Options, ReceiptHandle, Receive, Received, Send, Sent, Space, admission, attributes,
    catalog, delete, expire, new_message, receive, recover, send, valid, visibility,
};

/// The queues of one store. Clones share it.
#[derive(Clone, Debug)]
pub struct Queues {
    store: Store,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    /// The free disk space that sends check; shared with the loop that measures it.
    space: Arc<Space>,
    /// Where long polls wait.
    lines: Arc<Lines>,
}

impl Queues {
    /// The queues of `store`. `observer` is notified of the transitions of messages that belong to runs.
    pub fn new(store: Store, clock: Arc<dyn Clock>, observer: Arc<dyn Observer>) -> Self {
        Self { store, clock, observer, space: Arc::new(Space::unlimited()), lines: Arc::default() }
    }

    /// The same queues; sends are refused when `space` has no room for them.
    #[must_use]
    pub fn with_space(self, space: Arc<Space>) -> Self {
        Self { space, ..self }
    }

    /// The space check, for callers whose own steps send messages.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The underlying store, for callers that combine queue operations and their own writes in one step.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The observer, for callers whose own steps change messages.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.observer.clone()
    }

    /// Where long polls wait.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The present on both clocks: what the steps of this module take.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Creates the queue or updates its attributes; returns its number.
    ///
    /// # Errors
    /// The name is invalid, or the store failed.
    pub async fn ensure(&self, name: &str, options: &Options) -> Result<u32, Error> {
        let (name, options, now) = (name.to_owned(), options.clone(), self.now());
        self.store.write(move |tx| catalog::ensure(tx, &name, &options, now)).await
    }

    /// As [`Queues::ensure`] for several queues: a dead-letter queue is made before its sources.
    ///
    /// # Errors
    /// As [`Queues::ensure`].
    pub async fn ensure_all(&self, queues: &BTreeMap<String, Options>) -> Result<(), Error> {
        for name in catalog::by_depth(queues) {
            self.ensure(name, &queues[name]).await?;
        }
        Ok(())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The queue does not exist, the message exceeds a limit, the disk is nearly full, or the store failed.
    pub async fn send(&self, queue: &str, message: Send) -> Result<Sent, Error> {
        self.space.admit(queue)?;
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            let admitted = admission::admit(tx, &queue, message, now)?;
            Ok(send::send(tx, admitted, now)?)
        };
        self.store.write(step).await
    }

    /// Sends many messages, in slices of [`SLICE_MAX`] so that others go on meanwhile. Each slice is sent as a whole or,
    /// when one of its messages is refused, not at all; a refusal is the end, and what was sent before it stays.
    ///
    /// # Errors
    /// As [`Queues::send`].
    pub async fn send_all(&self, queue: &str, messages: Vec<Send>) -> Result<Vec<Sent>, Error> {
        self.space.admit(queue)?;
        let mut sent = Vec::with_capacity(messages.len());
        let mut left = messages.into_iter();
        loop {
            let slice: Vec<Send> = left.by_ref().take(SLICE_MAX).collect();
            if slice.is_empty() && !sent.is_empty() {
                return Ok(sent);
            }
            let is_last = slice.len() < SLICE_MAX;
            let (queue, now) = (queue.to_owned(), self.now());
            let step = move |tx: &mut Tx<'_>| {
                let queue = catalog::find(tx, &queue)?;
                send::send_all(tx, &queue, slice, now)
            };
            sent.extend(self.store.write(step).await?);
            if is_last {
                return Ok(sent);
            }
        }
    }

    /// Sends a batch as SQS does: each message succeeds or fails on its own. Results are in the order given.
    ///
    /// # Errors
    /// The queue does not exist, the batch has more than ten messages or more than 1 MiB in total, the disk is nearly
    /// full, or the store failed.
    pub async fn send_batch(&self, queue: &str, messages: Vec<Send>) -> Result<Vec<Result<Sent, Error>>, Error> {
        check_batch(messages.len())?;
        self.space.admit(queue)?;
        let bytes = messages.iter().map(new_message::size).sum();
        if bytes > valid::BATCH_BYTES_MAX {
            return Err(Error::BatchTooLong { bytes, max: valid::BATCH_BYTES_MAX });
        }
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            let one = |message| {
                let admitted = admission::admit(tx, &queue, message, now)?;
                Ok(send::send(tx, admitted, now)?)
            };
            Ok(messages.into_iter().map(one).collect())
        };
        self.store.write(step).await
    }

    /// Sends messages of another endpoint that were not imported from that source before, each on its own: see
    /// [`import::import`]. Results are in the order given.
    ///
    /// # Errors
    /// The queue does not exist, there are more than ten, the disk is nearly full, or the store failed.
    pub async fn import(
        &self,
        queue: &str,
        source: &str,
        messages: Vec<Imported>,
    ) -> Result<Vec<Result<Sent, Error>>, Error> {
        check_batch(messages.len())?;
        self.space.admit(queue)?;
        let (queue, source, now) = (queue.to_owned(), source.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            Ok(messages.into_iter().map(|message| import::import(tx, &queue, &source, message, now)).collect())
        };
        self.store.write(step).await
    }

    /// Deletes a batch of messages, each on its own. Results are in the order given.
    ///
    /// # Errors
    /// There are more than ten, or the store failed.
    pub async fn delete_batch(&self, handles: Vec<ReceiptHandle>) -> Result<Vec<Result<bool, Error>>, Error> {
        check_batch(handles.len())?;
        let (now, observer) = (self.now(), self.observer.clone());
        let step = move |tx: &mut Tx<'_>| {
            Ok(handles.into_iter().map(|handle| delete::delete(tx, &*observer, handle, now)).collect())
        };
        self.store.write(step).await
    }

    /// Changes the visibility of a batch of messages, each on its own. Results are in the order given.
    ///
    /// # Errors
    /// There are more than ten, or the store failed.
    pub async fn change_visibility_batch(
        &self,
        changes: Vec<(ReceiptHandle, Duration)>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        check_batch(changes.len())?;
        let now = self.now();
        let step = move |tx: &mut Tx<'_>| {
            let change = |(handle, timeout)| visibility::change(tx, handle, timeout, now);
            Ok(changes.into_iter().map(change).collect())
        };
        self.store.write(step).await
    }

    /// Creates a queue as SQS's CreateQueue does; returns its number.
    ///
    /// # Errors
    /// See [`catalog::create`].
    pub async fn create(&self, name: &str, options: &Options, tags: BTreeMap<String, String>) -> Result<u32, Error> {
        let (name, options, now) = (name.to_owned(), options.clone(), self.now());
        self.store.write(move |tx| catalog::create(tx, &name, &options, &tags, now)).await
    }

    /// Creates a queue, or returns the number of an existing one whose attributes are as given.
    ///
    /// # Errors
    /// See [`attributes::create`].
    pub async fn create_given(&self, name: &str, given: Given, tags: BTreeMap<String, String>) -> Result<u32, Error> {
        let (name, now) = (name.to_owned(), self.now());
        self.store.write(move |tx| attributes::create(tx, &name, &given, &tags, now)).await
    }

    /// Sets the given attributes of a queue.
    ///
    /// # Errors
    /// See [`attributes::set_attributes`].
    pub async fn set_attributes(&self, name: &str, given: Given) -> Result<(), Error> {
        let (name, now) = (name.to_owned(), self.now());
        self.store.write(move |tx| attributes::set_attributes(tx, &name, &given, now)).await
    }

    /// The queue of that name.
    ///
    /// # Errors
    /// [`Error::NotFound`] lists the existing queues.
    pub fn queue(&self, name: &str) -> Result<QueueRecord, Error> {
        catalog::look_up(&self.store.snapshot()?, name)
    }

    /// The queue of that number, if there is one; also a deleted one, as long as a dead letter names it as its source.
    ///
    /// # Errors
    /// The store failed.
    pub fn queue_numbered(&self, number: u32) -> Result<Option<QueueRecord>, Error> {
        Ok(self.store.snapshot()?.queues()?.get(&number)?)
    }

    /// Whether the handle is of a message of that queue. One of a message that was purged is of any queue: which one it
    /// was is not kept, and it finds nothing.
    ///
    /// # Errors
    /// The store failed.
    pub fn is_of(&self, handle: ReceiptHandle, queue: u32) -> Result<bool, Error> {
        let snapshot = self.store.snapshot()?;
        let owner = snapshot.row_numbers()?.get(&handle.queue)?.map_or(handle.queue, |number| number.0);
        Ok(owner == queue || snapshot.queues()?.get(&owner)?.is_none())
    }

    /// The kept attributes of a queue; see [`Given::kept`].
    ///
    /// # Errors
    /// The store failed.
    pub fn kept_attributes(&self, queue: u32) -> Result<BTreeMap<String, String>, Error> {
        Ok(self.store.snapshot()?.kept_attributes()?.get(&queue)?.unwrap_or_default().0)
    }

    /// Replaces a kept attribute of a queue, unless it is not `before` any more.
    ///
    /// # Errors
    /// See [`attributes::exchange_kept`].
    pub async fn exchange_kept(
        &self,
        queue: &str,
        attribute: &'static str,
        before: Option<String>,
        after: String,
    ) -> Result<(), Error> {
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| attributes::exchange_kept(tx, &queue, attribute, before.as_ref(), after, now);
        self.store.write(step).await
    }

    /// The key that seals what clients are given, such as receipt handles: 32 random bytes, made once for each store.
    ///
    /// # Errors
    /// The store failed.
    pub async fn sealing_key(&self) -> Result<[u8; 32], Error> {
        self.store.write(sealing_key).await
    }

    /// Adds tags to a queue.
    ///
    /// # Errors
    /// See [`catalog::tag`].
    pub async fn tag(&self, queue: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::tag(tx, &queue, tags)).await
    }

    /// Removes tags from a queue.
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn untag(&self, queue: &str, keys: Vec<String>) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::untag(tx, &queue, &keys)).await
    }

    /// Stops receives from the queue until [`Queues::resume`], also across restarts; sends continue. `by` says who
    /// paused it.
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn pause(&self, queue: &str, by: &str) -> Result<(), Error> {
        let (queue, by, now) = (queue.to_owned(), by.to_owned(), self.now());
        self.store.write(move |tx| catalog::pause(tx, &queue, &by, now)).await
    }

    /// Allows receives from the queue again.
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn resume(&self, queue: &str) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::resume(tx, &queue)).await
    }

    /// Receives what is available now, without waiting.
    ///
    /// # Errors
    /// The queue does not exist, a limit is exceeded, or the store failed.
    pub async fn receive_now(&self, queue: u32, what: Receive) -> Result<Receiving, Error> {
        let (now, observer) = (self.now(), self.observer.clone());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive(tx, &*observer, &queue, what, now)
        };
        self.store.write(step).await
    }

    /// Receives what is available now, the messages behind that position first; see [`receive::receive_after`].
    ///
    /// # Errors
    /// As [`Queues::receive_now`].
    pub async fn receive_after(&self, queue: u32, what: Receive, after: Position) -> Result<Receiving, Error> {
        let (now, observer) = (self.now(), self.observer.clone());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive_after(tx, &*observer, &queue, what, after, now)
        };
        self.store.write(step).await
    }

    /// Receives from a FIFO queue, without waiting, with a ReceiveRequestAttemptId; see [`receive::receive_attempt`].
    ///
    /// # Errors
    /// As [`Queues::receive_now`]; the queue is not a FIFO queue.
    pub async fn receive_attempt(&self, queue: u32, what: Receive, attempt: &str) -> Result<Receiving, Error> {
        let (now, observer, attempt) = (self.now(), self.observer.clone(), attempt.to_owned());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive_attempt(tx, &*observer, &queue, what, &attempt, now)
        };
        self.store.write(step).await
    }

    /// Deletes the message of that receive; false when the handle is stale.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete(&self, handle: ReceiptHandle) -> Result<bool, Error> {
        let (now, observer) = (self.now(), self.observer.clone());
        self.store.write(move |tx| delete::delete(tx, &*observer, handle, now)).await
    }

    /// Makes the message of that receive visible again `timeout` from now.
    ///
    /// # Errors
    /// The message is not in flight, or the total would exceed 12 hours.
    pub async fn change_visibility(&self, handle: ReceiptHandle, timeout: Duration) -> Result<(), Error> {
        let now = self.now();
        self.store.write(move |tx| visibility::change(tx, handle, timeout, now)).await
    }

    /// Ends the leases that workers of an earlier process hold; `served` are the queues that functions work on now. Call
    /// it once, before the first worker starts.
    ///
    /// # Errors
    /// The store failed.
    pub async fn end_worker_leases(&self, served: &BTreeSet<String>) -> Result<(), Error> {
        for queue in self.store.read(catalog::list).await? {
            let by = if served.contains(&queue.name) { Served::ByAFunction } else { Served::ByNobody };
            let mut from = Some((0, 0));
            while let Some(start) = from {
                let now = self.now();
                let step = move |tx: &mut Tx<'_>| recover::end_worker_leases(tx, (queue.rows, by), start, now);
                from = self.store.write::<_, Error, _>(move |tx| Ok(step(tx)?)).await?;
            }
            let clear = move |tx: &mut Tx<'_>| Ok::<_, Error>(recover::clear_suspects(tx, queue.rows)?);
            while by == Served::ByNobody && self.store.write(clear).await? {}
        }
        Ok(())
    }

    /// The queue's next suspect: attempts charged and sequence number.
    ///
    /// # Errors
    /// The store failed.
    pub fn next_suspect(&self, queue: u32) -> Result<Option<(u32, u64)>, Error> {
        let snapshot = self.store.snapshot()?;
        let rows = snapshot.queues()?.get(&queue)?.ok_or(Error::Gone(queue))?.rows;
        let next = snapshot.suspects()?.first((rows, 0, 0)..=(rows, u32::MAX, u64::MAX), 1)?;
        Ok(next.first().map(|((_, charged, sequence), ())| (*charged, *sequence)))
    }

    /// Receives the queue's next suspect, marked with `suspicion`; see [`receive::receive_suspect`].
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn receive_suspect(
        &self,
        queue: u32,
        visibility: Duration,
        suspicion: Suspicion,
    ) -> Result<Option<Received>, Error> {
        let (now, observer) = (self.now(), self.observer.clone());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive_suspect(tx, &*observer, &queue, (visibility, suspicion), now)
        };
        self.store.write(step).await
    }

    /// Deletes messages whose retention or expiry has passed; returns how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn expire(&self) -> Result<u64, Error> {
        let mut removed = 0;
        let forget = |queue: u32| {
            let now = self.now().lease;
            self.store.write(move |tx: &mut Tx<'_>| Ok::<_, Error>(expire::forget(tx, queue, now)?))
        };
        while forget(catalog::NO_QUEUE).await? {}
        for queue in self.store.read(catalog::list).await? {
            while forget(queue.rows).await? {}
            let mut from = Some(0);
            while let Some(start) = from {
                let (now, observer, queue) = (self.now(), self.observer.clone(), queue.clone());
                let step = move |tx: &mut Tx<'_>| expire::expire(tx, &*observer, &queue, start, now);
                let swept = self.store.write(step).await?;
                removed += swept.removed as u64;
                from = swept.next;
            }
        }
        Ok(removed)
    }

    /// Removes the records of ended redrives that are not kept any more; returns how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget_redrives(&self) -> Result<u64, Error> {
        let outdated = self.store.read(redrive::retention::outdated).await?;
        for ids in outdated.chunks(redrive::retention::STEP_MAX) {
            let ids = ids.to_vec();
            let step = move |tx: &mut Tx<'_>| redrive::retention::remove(tx, &ids);
            self.store.write::<_, store::Error, _>(step).await?;
        }
        Ok(outdated.len() as u64)
    }

    /// Starts a redrive and returns its number; [`Queues::drive`] does the moving.
    ///
    /// # Errors
    /// See [`redrive::start`].
    pub async fn start_redrive(&self, redrive: Redrive) -> Result<u64, Error> {
        let now = self.now().wall;
        let counted = redrive.clone();
        let plan = self.store.read(move |snapshot| redrive::plan(snapshot, &counted, now)).await?;
        self.store.write(move |tx| redrive::start(tx, &redrive, &plan, now)).await
    }

    /// Starts an undo of a redrive and returns the undo's number: letters that were not received yet return to the
    /// dead-letter queue. [`Queues::drive`] does the moving.
    ///
    /// # Errors
    /// See [`redrive::undo`].
    pub async fn undo_redrive(&self, id: u64) -> Result<u64, Error> {
        let now = self.now();
        self.store.write(move |tx| redrive::undo(tx, id, now.wall)).await
    }

    /// Stops a running redrive; returns how many letters it has moved.
    ///
    /// # Errors
    /// It is not running.
    pub async fn cancel_redrive(&self, id: u64) -> Result<u64, Error> {
        let now = self.now();
        self.store.write(move |tx| redrive::cancel(tx, id, now.wall)).await
    }

    /// Runs one redrive at its rate until it ends or `shutdown` is cancelled.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drive(&self, id: u64, shutdown: &CancellationToken) -> Result<(), Error> {
        // The rate is known only from the record, so the first step moves a single letter.
        let mut budget = 1;
        let (mut before, mut is_blocked, mut due): (Option<RedriveRecord>, _, _) = (None, false, None);
        // Since when the rate counts, and how many letters had moved by then.
        let mut pace: Option<(LeaseTime, u64)> = None;
        while !shutdown.is_cancelled() {
            let (now, observer) = (self.now(), self.observer.clone());
            let step = move |tx: &mut Tx<'_>| redrive::step(tx, &*observer, id, budget, now);
            let record = match self.store.write(step).await {
                // It was cancelled and its record was pruned while this loop slept.
                Err(Error::RedriveNotFound(_)) => return Ok(()),
                record => record?,
            };
            if record.state != RedriveState::Running {
                return Ok(());
            }
            // The canary's step is complete; only outcomes of its letters can raise the limit.
            let is_judging = record.canary.is_some_and(|canary| record.moved >= canary.allowed);
            // A step that changed nothing waits for room in the destination of its next letter.
            let was_blocked = std::mem::replace(&mut is_blocked, !is_judging && before.as_ref() == Some(&record));
            if is_blocked && !was_blocked {
                tracing::warn!(redrive = id, "the redrive waits: the queue that its next letter goes to is full");
            }
            budget = redrive::MOVED_MAX;
            if let Some(rate) = record.per_second {
                // Ten steps a second, or as many more as the rate needs. What a step only passed over costs no time.
                budget = ((rate / 10).max(1) as usize).min(redrive::MOVED_MAX);
                let now = self.now().lease;
                let (since, base) = pace.unwrap_or((now, before.as_ref().map_or(0, |before| before.moved)));
                let at = |moved: u64| since.after(Duration::from_millis(moved.saturating_mul(1000) / u64::from(rate)));
                let next = at(record.moved - base);
                // A driver that is late catches up for at most a second.
                let earliest = LeaseTime::from_millis(now.as_millis().saturating_sub(CAUGHT_UP_MAX_MS));
                pace = Some(if next < earliest { (earliest, record.moved) } else { (since, base) });
                due = Some(next);
            }
            let mut pause = due.map_or(Duration::ZERO, |due| due.since(self.now().lease));
            if is_judging || is_blocked {
                pause = pause.max(LOOK_EVERY);
            }
            if !pause.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => {}
                }
            }
            before = Some(record);
        }
        Ok(())
    }

    /// Runs all redrives, those of an earlier process included, until `shutdown` is cancelled.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drive_all(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut changed = self.store.subscribe(redrive::TOPIC);
        let mut driven = BTreeSet::new();
        let mut driving = FuturesUnordered::new();
        loop {
            for redrive in self.store.read(redrive::list).await? {
                // `driven` remembers ids for good: ids are never reused, and a second loop would double the rate.
                if redrive.state == RedriveState::Running && driven.insert(redrive.id) {
                    driving.push(self.drive(redrive.id, &shutdown));
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = changed.changed() => {}
                Some(end) = driving.next() => end?,
            }
        }
    }
}

/// Receives for clients of the API.
impl Receive {
    /// One to ten messages for a client, with the queue's visibility timeout.
    pub fn for_client(max: usize) -> Self {
        Self { max, visibility: None, owner: Owner::Client }
    }
}

/// So many messages of [`Queues::send_all`] go in one step; each has about five rows.
pub const SLICE_MAX: usize = 100;
/// A redrive that is behind its rate catches up on no more than this.
const CAUGHT_UP_MAX_MS: u64 = 1000;
/// How often a redrive that waits looks again: a canary for the outcomes of its last step, any for room in a full queue.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The most entries of a batch, as in SQS.
const BATCH_MAX: u64 = 10;

fn sealing_key(tx: &mut Tx<'_>) -> Result<[u8; 32], Error> {
    let mut key = [0; 32];
    for (part, bytes) in key.chunks_exact_mut(8).enumerate() {
        // A row of `meta` holds a number, so the key stands in four.
        let row = format!("sealing-key {part}");
        let number = match tx.meta()?.get(&row)? {
            Some(number) => number,
            None => {
                let number = rand::random();
                tx.meta()?.insert(&row, &number)?;
                number
            }
        };
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    Ok(key)
}

fn check_batch(entries: usize) -> Result<(), Error> {
    match entries as u64 {
        1..=BATCH_MAX => Ok(()),
        got => Err(Error::OutOfRange { what: "entries of a batch", min: 1, max: BATCH_MAX, got }),
    }
}
