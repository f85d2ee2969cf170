//! Our queue as an apalis [`Backend`]: a loop receives as many messages as there are free places, the backend hands
//! them to the worker one by one.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::layers::Identity;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::queue::receive::Receiving;
use crate::queue::{self, Door, Receive, Received, settle};
use crate::store::record::Owner;

/// One receive takes at most this many messages.
const BATCH_MAX: usize = 256;
/// A lease outlives the function's time limit by this much, for the settling.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// A message on its way through the pool, and the place that it takes up.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// The message.
    pub(super) message: Received,
    /// Given back when the attempt is settled.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

/// The queue as apalis sees it.
#[derive(Debug)]
pub(super) struct QueueBackend {
    deliveries: mpsc::Receiver<Delivery>,
}

impl QueueBackend {
    /// A backend and the sender that [`Feed`] fills it by. The channel holds what the places hold.
    pub(super) fn new(concurrency: usize) -> (Self, mpsc::Sender<Delivery>) {
        let (sender, deliveries) = mpsc::channel(concurrency);
        (Self { deliveries }, sender)
    }
}

impl Backend for QueueBackend {
    type Task = Task<Delivery>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.deliveries.poll_recv(cx).map(|delivery| match delivery {
            Some(delivery) => {
                let id = TaskId::from_string(delivery.message.message_id.to_string());
                Some(Ok(TaskBuilder::new(delivery).task_id(id).build()))
            }
            None => {
                // The end of the stream does not stop an apalis worker by itself.
                let _ = worker.stop();
                None
            }
        })
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for QueueBackend {
    type Args = Delivery;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

/// Receives messages for one function as places become free.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) door: Door,
    pub(super) queue: u32,
    pub(super) places: Arc<Semaphore>,
    pub(super) timeout: Duration,
    pub(super) deliveries: mpsc::Sender<Delivery>,
}

impl Feed {
    /// Runs until `shutdown`, until the worker is gone, or until the store stops.
    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), queue::Error> {
        let mut changed = self.door.store().subscribe(u64::from(self.queue));
        while let Some(mut places) = self.free_places(&shutdown).await {
            changed.mark_unchanged();
            let found = self.receive(places.num_permits()).await?;
            for message in found.messages {
                let place = places.split(1).expect("no more messages were asked for than places were taken");
                let delivery = Delivery { message, place: Arc::new(place) };
                if let Err(unwanted) = self.deliveries.send(delivery).await {
                    self.give_back(unwanted.0.message).await?;
                }
            }
            let is_used_up = places.num_permits() == 0;
            drop(places);
            if self.deliveries.is_closed() {
                return Ok(());
            }
            if !is_used_up {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.deliveries.closed() => return Ok(()),
                    _ = changed.changed() => {}
                    () = self.door.until(found.next_visible_at) => {}
                }
            }
        }
        Ok(())
    }

    /// Takes all places that are free, waiting for the first; `None` at shutdown.
    async fn free_places(&self, shutdown: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        if shutdown.is_cancelled() {
            return None;
        }
        let first = tokio::select! {
            () = shutdown.cancelled() => return None,
            first = self.places.clone().acquire_owned() => first.ok()?,
        };
        let mut places = first;
        let more = self.places.available_permits().min(BATCH_MAX - 1);
        if let Ok(more) = self.places.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            places.merge(more);
        }
        Some(places)
    }

    async fn receive(&self, max: usize) -> Result<Receiving, queue::Error> {
        let visibility = (self.timeout + LEASE_MARGIN).min(queue::receive::VISIBILITY_MAX);
        let what = Receive { max, visibility: Some(visibility), owner: Owner::Worker };
        self.door.receive_now(self.queue, what).await
    }

    async fn give_back(&self, message: Received) -> Result<(), queue::Error> {
        self.door.store().write(move |tx| settle::release(tx, message.handle)).await.map(drop)
    }
}
