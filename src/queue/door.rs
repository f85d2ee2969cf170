//! The door: what the rooms above call. Each call is one step in the store's next group, and answers once it is on
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, Timestamp};
use crate::store::record::{Owner, RedriveState};
use crate::store::{Store, Tx};

use super::receive::Receiving;
use super::redrive::{self, Redrive};
use super::{
    Error, Options, ReceiptHandle, Receive, Received, Send, Sent, Space, Witness, catalog, delete, expire, purge,
    receive, recover, send, valid, visibility,
};

/// The queues of one store. Clones share it.
#[derive(Clone, Debug)]
pub struct Door {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Wall and monotonic time when the door was made; see [`Door::now`].
    opened: (Timestamp, Duration),
    witness: Arc<dyn Witness>,
    /// What sends may fill; whoever watches the disk holds it too.
    space: Arc<Space>,
}

impl Door {
    /// A door to the queues of `store`; `witness` keeps books on the messages of runs.
    pub fn new(store: Store, clock: Arc<dyn Clock>, witness: Arc<dyn Witness>) -> Self {
        let opened = (clock.now(), clock.monotonic());
        Self { store, clock, opened, witness, space: Arc::new(Space::unlimited()) }
    }

    /// The same door, whose sends are refused when `space` has no room for them.
    #[must_use]
    pub fn with_space(self, space: Arc<Space>) -> Self {
        Self { space, ..self }
    }

    /// What sends may fill, for steps that send for themselves.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The store behind the door, for steps that join queue work with their own.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who keeps books on messages, for such steps.
    pub fn witness(&self) -> Arc<dyn Witness> {
        self.witness.clone()
    }

    /// The time by which messages wait and leases run: wall time when the door was made, steady from then on. An
    /// operator who sets the clock, or a machine that was asleep, ends no lease of a worker that is still at work.
    pub fn now(&self) -> Timestamp {
        let (wall, monotonic) = self.opened;
        wall.after(self.clock.monotonic().saturating_sub(monotonic))
    }

    /// Makes the queue, or gives it these attributes; answers its number.
    ///
    /// # Errors
    /// The name does not fit, or the store failed.
    pub async fn ensure(&self, name: &str, options: &Options) -> Result<u32, Error> {
        let (name, options, now) = (name.to_owned(), options.clone(), self.now());
        self.store.write(move |tx| catalog::ensure(tx, &name, &options, now)).await
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The queue is not there, the message is out of its limits, the disk is nearly full, or the store failed.
    pub async fn send(&self, queue: &str, message: Send) -> Result<Sent, Error> {
        self.space.admit(queue)?;
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            send::send(tx, &queue, message, now)
        };
        self.store.write(step).await
    }

    /// Sends all messages or, when one of them is refused, none.
    ///
    /// # Errors
    /// As [`Door::send`].
    pub async fn send_all(&self, queue: &str, messages: Vec<Send>) -> Result<Vec<Sent>, Error> {
        self.space.admit(queue)?;
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            send::send_all(tx, &queue, messages, now)
        };
        self.store.write(step).await
    }

    /// Sends a batch as SQS does: each message is taken or refused on its own. Answers in the order given.
    ///
    /// # Errors
    /// The queue is not there, there are more than ten messages, together they are larger than 1 MiB, or the store failed.
    pub async fn send_batch(&self, queue: &str, messages: Vec<Send>) -> Result<Vec<Result<Sent, Error>>, Error> {
        check_batch(messages.len())?;
        self.space.admit(queue)?;
        let bytes = messages.iter().map(send::size).sum();
        if bytes > valid::BATCH_BYTES_MAX {
            return Err(Error::BatchTooLong { bytes, max: valid::BATCH_BYTES_MAX });
        }
        let (queue, now) = (queue.to_owned(), self.now());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::find(tx, &queue)?;
            Ok(messages.into_iter().map(|message| send::send(tx, &queue, message, now)).collect())
        };
        self.store.write(step).await
    }

    /// Deletes a batch of messages, each on its own. Answers in the order given.
    ///
    /// # Errors
    /// There are more than ten, or the store failed.
    pub async fn delete_batch(&self, handles: Vec<ReceiptHandle>) -> Result<Vec<Result<bool, Error>>, Error> {
        check_batch(handles.len())?;
        let (now, witness) = (self.now(), self.witness.clone());
        let step = move |tx: &mut Tx<'_>| {
            Ok(handles.into_iter().map(|handle| delete::delete(tx, &*witness, handle, now)).collect())
        };
        self.store.write(step).await
    }

    /// Changes the visibility of a batch of messages, each on its own. Answers in the order given.
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

    /// Makes a queue as SQS's CreateQueue does; answers its number.
    ///
    /// # Errors
    /// See [`catalog::create`].
    pub async fn create(&self, name: &str, options: &Options, tags: BTreeMap<String, String>) -> Result<u32, Error> {
        let (name, options, now) = (name.to_owned(), options.clone(), self.now());
        self.store.write(move |tx| catalog::create(tx, &name, &options, &tags, now)).await
    }

    /// Deletes a queue and all its messages; answers how many those were. Its name is gone at once; a crash in the middle
    /// is made good by [`Door::finish_deletions`].
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn delete_queue(&self, name: &str) -> Result<u64, Error> {
        let (name, now) = (name.to_owned(), self.now());
        let id = self.store.write(move |tx| catalog::delete(tx, &name, now)).await?;
        self.remove(id).await
    }

    /// Carries on the deletions of queues that an earlier life did not finish; to be called once, at start.
    ///
    /// # Errors
    /// The store failed.
    pub async fn finish_deletions(&self) -> Result<(), Error> {
        for queue in catalog::all(&self.store.snapshot()?)?.into_iter().filter(|queue| queue.deleted_at.is_some()) {
            self.remove(queue.id).await?;
        }
        Ok(())
    }

    async fn remove(&self, id: u32) -> Result<u64, Error> {
        let removed = self.purge_number(id).await?;
        while !self.store.write(move |tx| catalog::bury(tx, id)).await? {}
        Ok(removed)
    }

    /// Adds tags to a queue.
    ///
    /// # Errors
    /// See [`catalog::tag`].
    pub async fn tag(&self, queue: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::tag(tx, &queue, tags)).await
    }

    /// Takes tags off a queue.
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn untag(&self, queue: &str, keys: Vec<String>) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::untag(tx, &queue, &keys)).await
    }

    /// Stops receives from the queue, also over restarts, until [`Door::resume`]; sends go on. `by` says who did it.
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn pause(&self, queue: &str, by: &str) -> Result<(), Error> {
        let (queue, by, now) = (queue.to_owned(), by.to_owned(), self.now());
        self.store.write(move |tx| catalog::pause(tx, &queue, &by, now)).await
    }

    /// Lets receives from the queue go on.
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn resume(&self, queue: &str) -> Result<(), Error> {
        let queue = queue.to_owned();
        self.store.write(move |tx| catalog::resume(tx, &queue)).await
    }

    /// Receives what is there now.
    ///
    /// # Errors
    /// The queue is not there, a limit is passed, or the store failed.
    pub async fn receive_now(&self, queue: u32, what: Receive) -> Result<Receiving, Error> {
        let (now, witness) = (self.now(), self.witness.clone());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive(tx, &*witness, &queue, what, now)
        };
        self.store.write(step).await
    }

    /// Receives from a FIFO queue what is there now, as the attempt of that id; see [`receive::receive_attempt`].
    ///
    /// # Errors
    /// As [`Door::receive_now`]; the queue is not a FIFO queue.
    pub async fn receive_attempt(&self, queue: u32, what: Receive, attempt: &str) -> Result<Receiving, Error> {
        let (now, witness, attempt) = (self.now(), self.witness.clone(), attempt.to_owned());
        let step = move |tx: &mut Tx<'_>| {
            let queue = catalog::by_id(tx, queue)?;
            receive::receive_attempt(tx, &*witness, &queue, what, &attempt, now)
        };
        self.store.write(step).await
    }

    /// Receives, waiting up to `wait` for the first message (a long poll). A wait wakes at once on a send.
    ///
    /// # Errors
    /// As [`Door::receive_now`]; SQS's limit of messages in flight is reached.
    pub async fn receive(&self, queue: &str, what: Receive, wait: Duration) -> Result<Vec<Received>, Error> {
        let name = queue;
        let queue = catalog::look_up(&self.store.snapshot()?, queue)?.id;
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            let mut changed = self.store.subscribe(u64::from(queue));
            let found = self.receive_now(queue, what).await?;
            if found.is_over_limit {
                return Err(Error::OverLimit { queue: name.to_owned(), max: receive::IN_FLIGHT_MAX });
            }
            if !found.messages.is_empty() || wait.is_zero() {
                return Ok(found.messages);
            }
            tokio::select! {
                () = &mut deadline => return Ok(Vec::new()),
                _ = changed.changed() => {}
                () = self.until(found.next_visible_at) => {}
            }
        }
    }

    /// Sleeps until that moment by the door's clock, for ever when there is none; at most a minute at a time, so that
    /// a clock that was set does not matter for long.
    pub async fn until(&self, moment: Option<Timestamp>) {
        match moment {
            Some(moment) => {
                let span = moment.since(self.now()).clamp(Duration::from_millis(1), Duration::from_secs(60));
                tokio::time::sleep(span).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Deletes the message of that receive; false when the handle is an old one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete(&self, handle: ReceiptHandle) -> Result<bool, Error> {
        let (now, witness) = (self.now(), self.witness.clone());
        self.store.write(move |tx| delete::delete(tx, &*witness, handle, now)).await
    }

    /// Makes the message of that receive visible `timeout` from now.
    ///
    /// # Errors
    /// It is not in flight, or 12 hours are passed.
    pub async fn change_visibility(&self, handle: ReceiptHandle, timeout: Duration) -> Result<(), Error> {
        let now = self.now();
        self.store.write(move |tx| visibility::change(tx, handle, timeout, now)).await
    }

    /// Deletes all messages that are in the queue now; answers how many.
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn purge(&self, queue: &str) -> Result<u64, Error> {
        let id = catalog::look_up(&self.store.snapshot()?, queue)?.id;
        self.purge_number(id).await
    }

    async fn purge_number(&self, id: u32) -> Result<u64, Error> {
        let mut left = Some(self.store.write::<_, Error, _>(move |tx| purge::begin(tx, id)).await?);
        let mut removed = 0;
        while let Some(extent) = left {
            let (now, witness) = (self.now(), self.witness.clone());
            let step = move |tx: &mut Tx<'_>| purge::purge(tx, &*witness, id, extent, now);
            let (count, rest) = self.store.write::<_, Error, _>(step).await?;
            removed += count;
            left = rest;
        }
        Ok(removed)
    }

    /// Ends the leases that workers of an earlier life hold; to be called once, before the first worker starts.
    ///
    /// # Errors
    /// The store failed.
    pub async fn end_worker_leases(&self) -> Result<(), Error> {
        for queue in catalog::list(&self.store.snapshot()?)? {
            let mut from = Some((0, 0));
            while let Some(start) = from {
                let (now, witness) = (self.now(), self.witness.clone());
                let step = move |tx: &mut Tx<'_>| recover::end_worker_leases(tx, &*witness, queue.id, start, now);
                from = self.store.write::<_, Error, _>(move |tx| Ok(step(tx)?)).await?;
            }
        }
        Ok(())
    }

    /// Deletes what outlived its queue's retention; answers how many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn expire(&self) -> Result<u64, Error> {
        let mut removed = 0;
        for queue in catalog::list(&self.store.snapshot()?)? {
            loop {
                let (now, witness, queue) = (self.now(), self.witness.clone(), queue.clone());
                let step = move |tx: &mut Tx<'_>| expire::expire(tx, &*witness, &queue, now);
                match self.store.write(step).await? {
                    0 => break,
                    count => removed += count as u64,
                }
            }
        }
        Ok(removed)
    }

    /// Starts a redrive; [`Door::drive`] carries it on. Answers its number.
    ///
    /// # Errors
    /// See [`redrive::start`].
    pub async fn start_redrive(&self, redrive: Redrive) -> Result<u64, Error> {
        let now = self.now();
        let preview = redrive::preview(&self.store.snapshot()?, &redrive)?;
        self.store.write(move |tx| redrive::start(tx, &redrive, &preview, now)).await
    }

    /// Takes back the letters of a redrive that nobody has received since; [`Door::drive`] carries it on. Answers the
    /// number of the undo.
    ///
    /// # Errors
    /// See [`redrive::undo`].
    pub async fn undo_redrive(&self, id: u64) -> Result<u64, Error> {
        let now = self.now();
        self.store.write(move |tx| redrive::undo(tx, id, now)).await
    }

    /// Stops a running redrive; answers how many letters it had moved.
    ///
    /// # Errors
    /// It is not running.
    pub async fn cancel_redrive(&self, id: u64) -> Result<u64, Error> {
        let now = self.now();
        self.store.write(move |tx| redrive::cancel(tx, id, now)).await
    }

    /// Carries one redrive on until it ends or `shutdown` comes, at its rate.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drive(&self, id: u64, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut budget = 1;
        while !shutdown.is_cancelled() {
            let (now, witness) = (self.now(), self.witness.clone());
            let step = move |tx: &mut Tx<'_>| redrive::step(tx, &*witness, id, budget, now);
            let record = match self.store.write(step).await {
                // It was cancelled and forgotten while this loop slept.
                Err(Error::RedriveNotFound(_)) => return Ok(()),
                record => record?,
            };
            if record.state != RedriveState::Running {
                return Ok(());
            }
            let is_waiting = record.canary.is_some_and(|canary| record.moved >= canary.allowed);
            let Some(rate) = record.per_second.filter(|_| !is_waiting) else {
                budget = redrive::LOOK_MAX;
                if is_waiting {
                    tokio::select! {
                        () = tokio::time::sleep(JUDGED_EVERY) => {}
                        () = shutdown.cancelled() => {}
                    }
                }
                continue;
            };
            // Ten steps a second; a slower rate waits longer for its single letter.
            let per_step = (rate / 10).max(1);
            budget = per_step as usize;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1).mul_f64(f64::from(per_step) / f64::from(rate))) => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Carries on all redrives, those of an earlier life too, until `shutdown` comes.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drive_all(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut changed = self.store.subscribe(redrive::TOPIC);
        let mut driven = BTreeSet::new();
        let mut driving = FuturesUnordered::new();
        loop {
            for redrive in redrive::list(&self.store.snapshot()?)? {
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

/// What a client of the API receives.
impl Receive {
    /// One to ten messages for a client, with the queue's visibility timeout.
    pub fn for_client(max: usize) -> Self {
        Self { max, visibility: None, owner: Owner::Client }
    }
}

/// How often a redrive in steps looks whether the letters of its last step are at their end.
const JUDGED_EVERY: Duration = Duration::from_millis(500);
/// A batch holds at most this many, as in SQS.
const BATCH_MAX: u64 = 10;

fn check_batch(entries: usize) -> Result<(), Error> {
    match entries as u64 {
        1..=BATCH_MAX => Ok(()),
        got => Err(Error::OutOfRange { what: "entries of a batch", min: 1, max: BATCH_MAX, got }),
    }
}
