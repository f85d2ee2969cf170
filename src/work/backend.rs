//! Our queue as an apalis [`Backend`]: hands the messages that the dispatcher received to the worker, one by one.

use std::convert::Infallible;
use std::task::{Context, Poll};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::layers::Identity;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::mpsc;

use super::dispatcher::Delivery;

/// The queue as apalis sees it.
#[derive(Debug)]
pub(super) struct QueueBackend {
    deliveries: mpsc::Receiver<Delivery>,
}

impl QueueBackend {
    /// Returns a backend and the sender through which the dispatcher feeds it. The channel holds one message per
    /// permit.
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
                // The end of the stream alone does not stop an apalis worker.
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
