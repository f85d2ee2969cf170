//! The door: what the rooms above call. Each call is one step in the store's next group, and answers once it is on
//! disk.

use std::collections::BTreeSet;
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
    receive, recover, send, visibility,
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
            messages.iter().try_for_each(|message| send::check(&queue, message))?;
            messages.into_iter().map(|message| send::send(tx, &queue, message, now)).collect()
        };
        self.store.write(step).await
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

    /// Receives, waiting up to `wait` for the first message (a long poll). A wait wakes at once on a send.
    ///
    /// # Errors
    /// As [`Door::receive_now`].
    pub async fn receive(&self, queue: &str, what: Receive, wait: Duration) -> Result<Vec<Received>, Error> {
        let queue = catalog::look_up(&self.store.snapshot()?, queue)?.id;
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            let mut changed = self.store.subscribe(u64::from(queue));
            let found = self.receive_now(queue, what).await?;
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
        self.store.write(move |tx| redrive::start(tx, &redrive, now)).await
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
            let Some(rate) = record.per_second else {
                budget = redrive::LOOK_MAX;
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
