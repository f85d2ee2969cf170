//! The pool of one function: an apalis worker over our queue, with a bounded number of attempts at once.

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
use crate::queue::{self, Door, catalog};

use super::Options;
use super::attempt::{Answer, Call, SettleLayer, panic_text};
use super::backend::QueueBackend;
use super::exchange::{Exchange, Finished};

/// After an unexpected end the worker is built anew after this pause.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Runs an attempt on its own, so that all cores work: apalis would run all attempts of a worker on one.
fn spawn(attempt: Answer<()>) -> JoinHandle<Result<(), BoxDynError>> {
    tokio::spawn(attempt)
}

/// How a pool is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// Cancelled first: no more messages are taken, those in hand go on.
    pub stop: CancellationToken,
    /// Cancelled when the grace is over: attempts in hand are given back uncharged.
    pub cut: CancellationToken,
}

/// The worker pool of one function.
#[derive(Debug)]
pub struct Pool {
    door: Door,
    options: Arc<Options>,
    function: Arc<dyn Function>,
    drain: Drain,
}

impl Pool {
    /// A pool that is not running yet.
    pub fn new(door: Door, options: Options, function: Arc<dyn Function>, drain: Drain) -> Self {
        Self { door, options: Arc::new(options), function, drain }
    }

    /// Works until it is told to stop and everything in hand is settled, or until the store stops.
    ///
    /// # Errors
    /// The queue is not there, or the store failed.
    pub async fn run(self) -> Result<(), queue::Error> {
        let queue = catalog::look_up(&self.door.store().snapshot()?, &self.options.queue)?.id;
        // The places outlive a worker that has to be built anew, so that the bound always holds.
        let places = Arc::new(Semaphore::new(self.options.concurrency));
        loop {
            let (backend, deliveries) = QueueBackend::new(self.options.concurrency);
            let (sender, finished) = mpsc::channel(self.options.concurrency);
            let exchange = Exchange {
                door: self.door.clone(),
                options: self.options.clone(),
                queue,
                places: places.clone(),
                time_limit: self.time_limit(),
                finished,
            };
            let stop = self.drain.stop.clone();
            let (exchanged, worked) = tokio::join!(exchange.run(deliveries, stop), self.work(backend, sender));
            exchanged?;
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
        let settle = SettleLayer {
            door: self.door.clone(),
            options: self.options.clone(),
            finished,
            cut: self.drain.cut.clone(),
        };
        let call = Call {
            function: self.function.clone(),
            queue: self.options.queue.as_str().into(),
            timeout: self.options.timeout,
        };
        let worker = WorkerBuilder::new(self.options.function.as_str())
            .backend(backend)
            .parallelize(spawn)
            .layer(settle)
            .layer(CatchPanicLayer::with_panic_handler(panic_text))
            .layer(TimeoutLayer::new(self.time_limit()))
            .build(call);
        Box::pin(worker.run()).await
    }

    /// An attempt is cut off after this time.
    fn time_limit(&self) -> Duration {
        self.options.timeout + self.function.overtime()
    }
}
