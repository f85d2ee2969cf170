//! The pool of one function: an apalis worker over our queue, with a bounded number of concurrent attempts.
//!
//! Owns the permits and the rebuild of a worker that ended. Must not know how an attempt is settled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apalis::layers::catch_panic::CatchPanicLayer;
use apalis_core::error::BoxDynError;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_core::worker::ext::parallelize::ParallelizeExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::timeout::TimeoutLayer;

use crate::function::Function;
use crate::queue::{self, Queues, catalog};
use crate::run::effects::Intents;

use super::attempt::{AttemptFuture, Call, FinishLayer, panic_text};
use super::backend::QueueBackend;
use super::breakers::Gate;
use super::dispatcher::{Dispatcher, Finished};
use super::settle::Settler;
use super::{Breakers, Options, Quarantine};

/// A worker that ended unexpectedly is rebuilt after this pause.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Spawns an attempt as its own tokio task, so that all cores are used: apalis would poll all attempts of a worker in
/// one task, and so on one core at a time.
fn spawn(attempt: AttemptFuture<()>) -> JoinHandle<Result<(), BoxDynError>> {
    tokio::spawn(attempt)
}

/// How a pool is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// Cancelled first: no more messages are received, running attempts go on.
    pub stop: CancellationToken,
    /// Cancelled when the grace period is over: running attempts are cancelled and their messages released uncharged.
    pub abort: CancellationToken,
}

/// The worker pool of one function.
#[derive(Debug)]
pub struct Pool {
    queues: Queues,
    options: Arc<Options>,
    function: Arc<dyn Function>,
    drain: Drain,
    /// Decides between ordinary messages and suspects; shared by all pools.
    quarantine: Quarantine,
    /// The breakers of the function's destinations.
    gate: Gate,
}

impl Pool {
    /// A pool that is not running yet. All pools of a process are made before the first one runs: the thresholds of the
    /// breakers depend on all functions that share a destination.
    pub fn new(
        queues: Queues,
        options: Options,
        function: Arc<dyn Function>,
        drain: Drain,
        breakers: &Breakers,
    ) -> Self {
        let gate = breakers.gate(function.destinations(), options.concurrency);
        let quarantine = Quarantine::new(BTreeMap::new());
        Self { queues, options: Arc::new(options), function, drain, quarantine, gate }
    }

    /// The same pool with the quarantine that all pools of the process share; without one there are no suspects.
    #[must_use]
    pub fn with_quarantine(self, quarantine: Quarantine) -> Self {
        Self { quarantine, ..self }
    }

    /// Runs until it is told to stop and all running attempts are settled, or until the store stops.
    ///
    /// # Errors
    /// The queue does not exist, or the store failed.
    pub async fn run(self) -> Result<(), queue::Error> {
        let queue = catalog::look_up(&self.queues.store().snapshot()?, &self.options.queue)?.id;
        // Made once, outside the loop: attempts of a worker that ended may still run and must count against the limit.
        let permits = Arc::new(Semaphore::new(self.options.concurrency));
        loop {
            let (backend, deliveries) = QueueBackend::new(self.options.concurrency);
            let (sender, finished) = mpsc::channel(self.options.concurrency);
            let (asking, intents) = Intents::new(&self.queues);
            let dispatcher = Dispatcher {
                settler: Settler {
                    queues: self.queues.clone(),
                    intents: asking,
                    options: self.options.clone(),
                    gate: self.gate.clone(),
                },
                queue,
                quarantine: self.quarantine.clone(),
                is_paused: false,
                position: (0, 0),
                has_only_suspects: false,
                permits: permits.clone(),
                time_limit: self.time_limit(),
                finished,
                intents,
            };
            let stop = self.drain.stop.clone();
            // Both must end, in whatever order: the dispatcher settles attempts that outlive the worker.
            let (dispatched, worked) = tokio::join!(dispatcher.run(deliveries, stop), self.work(backend, sender));
            dispatched?;
            match worked {
                Ok(()) if self.drain.stop.is_cancelled() => return Ok(()),
                Ok(()) => {
                    tracing::error!(function = %self.options.function, "the worker ended by itself; starting anew")
                }
                Err(error) => {
                    tracing::error!(function = %self.options.function, "the worker failed: {error}; starting anew");
                }
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn work(
        &self,
        backend: QueueBackend,
        finished: mpsc::Sender<Finished>,
    ) -> Result<(), apalis_core::error::WorkerError> {
        let drain = &self.drain;
        let settle = FinishLayer {
            queues: self.queues.clone(),
            options: self.options.clone(),
            gate: self.gate.clone(),
            finished,
            abort: if self.function.ends_with_drain() { &drain.stop } else { &drain.abort }.clone(),
        };
        let call = Call {
            function: self.function.clone(),
            queue: self.options.queue.as_str().into(),
            timeout: self.options.timeout,
        };
        // The first layer is the outermost. Catching panics is outside the time limit and inside the settling, so a panic is
        // settled as an outcome and does not end the worker.
        let worker = WorkerBuilder::new(self.options.function.as_str())
            .backend(backend)
            .parallelize(spawn)
            .layer(settle)
            .layer(CatchPanicLayer::with_panic_handler(panic_text))
            .layer(TimeoutLayer::new(self.time_limit()))
            .build(call);
        Box::pin(worker.run()).await
    }

    /// An attempt is cancelled after this time. It includes the overtime in which a function may finish, but not begin,
    /// an effect.
    fn time_limit(&self) -> Duration {
        self.options.timeout + self.function.overtime()
    }
}
