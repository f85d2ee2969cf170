//! One attempt as a tower service, from the outermost layer to the innermost: settle → catch panic → time limit → call.
//!
//! Settle is the outermost, so a panic or a timeout becomes an outcome like any other. Owns the step from a function's
//! end to an [`Outcome`]; must not write to the store, which is the dispatcher's part.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis::layers::catch_panic::PanicError;
use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::timeout::error::Elapsed;
use tower::{Layer, Service};
use tracing::Instrument;

use crate::base::{Contact, Effect, Failure, Outcome, Report, units};
use crate::function::{EffectFlag, Function, Invocation};
use crate::queue::Queues;

use super::Options;
use super::breaker::Voter;
use super::breakers::Gate;
use super::dispatcher::{Delivery, Finished};
use super::settle::End;

/// The future of an attempt.
pub(super) type AttemptFuture<T> = Pin<Box<dyn Future<Output = Result<T, BoxDynError>> + Send>>;

/// The innermost service: calls the function.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: Arc<dyn Function>,
    pub(super) queue: Arc<str>,
    /// The function's time limit.
    pub(super) timeout: Duration,
}

impl Service<Task<Delivery>> for Call {
    type Response = Report;
    type Error = BoxDynError;
    type Future = AttemptFuture<Report>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        // No back-pressure here: a message is received only when there is a permit for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Delivery>) -> Self::Future {
        let Delivery { message, effect, effects, .. } = task.args;
        let function = self.function.clone();
        let invocation = Invocation {
            message_id: message.message_id,
            queue: self.queue.to_string(),
            body: message.body,
            // The store writes 0 for a message that belongs to no run.
            run: Some(message.run).filter(|run| *run != 0),
            receive_count: message.receive_count,
            received_at: message.received_at,
            // Without the function's overtime: that is for finishing an effect, and none may begin in it.
            deadline: message.received_at.after(self.timeout),
            receipt_handle: message.handle.to_string(),
            effect,
            effects: Arc::new(effects),
        };
        Box::pin(async move { Ok(function.call(invocation).await) })
    }
}

/// The outermost layer: hands the finished attempt to the dispatcher, which settles it.
#[derive(Clone, Debug)]
pub(super) struct FinishLayer {
    pub(super) queues: Queues,
    pub(super) options: Arc<Options>,
    /// Takes in what attempts learn about their destinations.
    pub(super) gate: Gate,
    /// To the dispatcher. Its capacity is the pool's concurrency, so a send does not wait.
    pub(super) finished: mpsc::Sender<Finished>,
    /// Cancelled when a drain no longer waits for running attempts: they are dropped and their messages released.
    pub(super) abort: CancellationToken,
}

impl<S> Layer<S> for FinishLayer {
    type Service = Finish<S>;

    fn layer(&self, inner: S) -> Finish<S> {
        Finish { inner, layer: self.clone() }
    }
}

/// See [`FinishLayer`].
#[derive(Clone, Debug)]
pub(super) struct Finish<S> {
    inner: S,
    layer: FinishLayer,
}

impl<S> Service<Task<Delivery>> for Finish<S>
where
    S: Service<Task<Delivery>, Response = Report>,
    S::Error: Into<BoxDynError> + Send,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = AttemptFuture<()>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Delivery>) -> Self::Future {
        // Kept outside the call: it is needed after a panic or a timeout has destroyed the inner future, and its permit
        // must stay taken until then.
        let delivery = task.args.clone();
        let call = self.inner.call(task);
        let layer = self.layer.clone();
        let span = tracing::info_span!(
            "attempt",
            function = %layer.options.function,
            message = %delivery.message.message_id,
            run = delivery.message.run,
            receive_count = delivery.message.receive_count,
        );
        Box::pin(async move {
            let attempt = async {
                tokio::select! {
                    // When the function returns and the abort comes at the same moment, the outcome counts: its effect
                    // may have happened.
                    biased;
                    answer = call => layer.ended(answer.map_err(Into::into), &delivery.effect).await,
                    () = layer.abort.cancelled() => {
                        tracing::info!("given back: the daemon stops");
                        (End::Aborted(delivery.effect.abort().await), Vec::new())
                    }
                }
            };
            let (end, contacts) = attempt.instrument(span.clone()).await;
            // Before the batching, so that a breaker opens and closes without delay; outside the span, because what it
            // logs then is not about this message.
            layer.gate.record(&contacts, Voter::of(&delivery.message), delivery.probe.as_deref());
            let was_away = layer.gate.is_away(&contacts);
            // The time is taken here, not at the commit: batching must not change when an attempt ended.
            let finished = Finished { delivery, end, contacts, was_away, at: layer.queues.now(), span };
            if layer.finished.send(finished).await.is_err() {
                tracing::error!("the attempt could not be settled: its pool has stopped");
            }
            // Never an error: apalis must not retry or count anything itself. The store's transactions do that.
            Ok(())
        })
    }
}

impl FinishLayer {
    async fn ended(&self, answer: Result<Report, BoxDynError>, effect: &EffectFlag) -> (End, Vec<Contact>) {
        let Report { outcome, contacts } = match answer {
            Ok(report) => report,
            // A function that panicked or was cut off at its time limit has told nothing about its destinations.
            Err(error) => self.broken(&error, effect.abort().await).into(),
        };
        (End::Outcome(outcome), contacts)
    }

    /// The outcome of a function that panicked or exceeded its time limit. Both are retried, because the cause may
    /// pass; `max_receive_count` bounds the retries.
    fn broken(&self, error: &BoxDynError, effect: Effect) -> Outcome {
        let function = &self.options.function;
        let why = if error.is::<Elapsed>() {
            let limit = units::show_duration(self.options.timeout);
            let text = format!("the attempt took longer than functions.{function}.timeout ({limit})");
            Failure::new("timeout", function, "attempt", text)
        } else if let Some(panic) = error.downcast_ref::<PanicError>() {
            Failure::new("panic", function, "attempt", format!("the function panicked: {}", panic.0))
        } else {
            Failure::new("crash", function, "attempt", error)
        };
        Outcome::Retry { why, after: None, effect }
    }
}

/// The panic's message. A payload is a `&str` or a `String` unless someone called `panic_any`.
pub(super) fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> PanicError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    PanicError(text.unwrap_or_else(|| "no text".into()))
}
