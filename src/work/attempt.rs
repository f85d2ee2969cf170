//! One attempt as a tower service, read from the outside in: settle → panic caught → time limit → call.

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

use crate::base::{Effect, Failure, Outcome, units};
use crate::function::{Function, Invocation};
use crate::queue::{Door, Received};

use super::Options;
use super::exchange::{Delivery, Finished};
use super::settle::End;

/// The future of an attempt.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxDynError>> + Send>>;

/// The innermost service: calls the function.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: Arc<dyn Function>,
    pub(super) queue: Arc<str>,
    /// The function's time limit.
    pub(super) timeout: Duration,
}

impl Service<Task<Delivery>> for Call {
    type Response = Outcome;
    type Error = BoxDynError;
    type Future = Answer<Outcome>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Delivery>) -> Self::Future {
        let (function, message) = (self.function.clone(), task.args.message);
        let invocation = Invocation {
            message_id: message.message_id,
            queue: self.queue.to_string(),
            body: message.body,
            run: Some(message.run).filter(|run| *run != 0),
            receive_count: message.receive_count,
            received_at: message.received_at,
            deadline: message.received_at.after(self.timeout),
            receipt_handle: message.handle.to_string(),
        };
        Box::pin(async move { Ok(function.call(invocation).await) })
    }
}

/// The outermost layer: hands whatever the attempt came to over to be settled.
#[derive(Clone, Debug)]
pub(super) struct SettleLayer {
    pub(super) door: Door,
    pub(super) options: Arc<Options>,
    /// To the exchange. Bounded by the places.
    pub(super) finished: mpsc::Sender<Finished>,
    /// Cancelled when the grace of a drain is over: attempts in hand are given back.
    pub(super) cut: CancellationToken,
}

impl<S> Layer<S> for SettleLayer {
    type Service = Settle<S>;

    fn layer(&self, inner: S) -> Settle<S> {
        Settle { inner, layer: self.clone() }
    }
}

/// See [`SettleLayer`].
#[derive(Clone, Debug)]
pub(super) struct Settle<S> {
    inner: S,
    layer: SettleLayer,
}

impl<S> Service<Task<Delivery>> for Settle<S>
where
    S: Service<Task<Delivery>, Response = Outcome>,
    S::Error: Into<BoxDynError> + Send,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = Answer<()>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Delivery>) -> Self::Future {
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
        let seen = span.clone();
        let attempt = async move {
            let end = tokio::select! {
                // An attempt that has ended is settled, also when the cut comes at the same moment.
                biased;
                answer = call => End::Outcome(layer.outcome(&delivery.message, answer.map_err(Into::into))),
                () = layer.cut.cancelled() => {
                    tracing::info!("given back: the drain's grace is over");
                    End::Cut
                }
            };
            let finished = Finished { delivery, end, at: layer.door.now(), span };
            if layer.finished.send(finished).await.is_err() {
                tracing::error!("the attempt could not be settled: its pool has stopped");
            }
            Ok(())
        };
        Box::pin(attempt.instrument(seen))
    }
}

impl SettleLayer {
    fn outcome(&self, message: &Received, answer: Result<Outcome, BoxDynError>) -> Outcome {
        let outcome = answer.unwrap_or_else(|error| self.broken(&error));
        let took = self.door.now().since(message.received_at);
        let name = outcome.name();
        if let Some(why) = outcome.failure() {
            tracing::warn!(outcome = name, took_ms = took.as_millis(), fingerprint = %why.fingerprint(), "{why}");
        } else {
            tracing::debug!(outcome = name, took_ms = took.as_millis(), "done");
        }
        outcome
    }

    /// A function that panicked or ran out of time. Both are tried again: the next machine state may be better, and
    /// `max_receive_count` ends it.
    fn broken(&self, error: &BoxDynError) -> Outcome {
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
        Outcome::Retry { why, after: None, effect: Effect::Unknown }
    }
}

/// The text of a panic, for the outcome.
pub(super) fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> PanicError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    PanicError(text.unwrap_or_else(|| "no text".into()))
}
