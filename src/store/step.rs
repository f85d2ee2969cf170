//! A step that waits for the writer, and the signals that it gives.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot, watch};

use super::{Error, Tx};

/// A step in the queue, together with the caller that waits for its result.
pub(super) trait PendingStep: Send {
    /// The step's place in the source, for the log.
    fn name(&self) -> &'static str;
    /// Runs the step and keeps its result for [`PendingStep::complete`].
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Refused>;
    /// Completes the caller: with the step's result when the group was committed, else with the fault.
    fn complete(self: Box<Self>, commit: Result<(), Error>);
}

/// The step returned an error. It should have written nothing; what it wrote is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A step as a closure.
pub(super) struct Step<F, T, E> {
    /// Taken when the step runs.
    step: Option<F>,
    /// Set when the step has run.
    result: Option<Result<T, E>>,
    /// Receives the result once the commit is durable.
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Step<F, T, E> {
    pub(super) fn new(step: F, caller: oneshot::Sender<Result<T, E>>) -> Self {
        Self { step: Some(step), result: None, caller }
    }
}

impl<F, T, E> PendingStep for Step<F, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn name(&self) -> &'static str {
        std::any::type_name::<F>()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Refused> {
        let step = self.step.take().expect("a step runs once");
        // Nobody could learn of what it does, so it does nothing.
        if self.caller.is_closed() {
            return Ok(());
        }
        let result = step(tx);
        let outcome = result.as_ref().map(drop).map_err(|_| Refused);
        self.result = Some(result);
        outcome
    }

    fn complete(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (commit, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Stopped("the step never ran".into()).into()),
            (Err(error), _) => Err(error.into()),
        };
        // A caller that goes away after its step has run (a dropped future) does not undo the step.
        let _ = self.caller.send(result);
    }
}

/// A step that does nothing: it makes the writer look at what the other threads have left for it.
pub(super) struct Nudge;

impl PendingStep for Nudge {
    fn name(&self) -> &'static str {
        "nudge"
    }

    fn run(&mut self, _: &mut Tx<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn complete(self: Box<Self>, _: Result<(), Error>) {}
}

/// Wakes the subscribers of topics after commits.
#[derive(Debug, Default)]
pub(super) struct Signals {
    topics: Mutex<Topics>,
}

/// See [`Signals`].
#[derive(Debug, Default)]
struct Topics {
    /// The topics that have subscribers.
    known: HashMap<u64, Topic>,
    /// How many topics are kept before those without a subscriber go.
    sweep_at: usize,
}

/// One topic.
#[derive(Debug, Default)]
struct Topic {
    /// Moves with each commit that signals the topic, and wakes all subscribers.
    counter: watch::Sender<u64>,
    /// Of those that wait here, each such commit wakes the one that has waited longest.
    one: Arc<Notify>,
}

impl Topic {
    fn is_in_use(&self) -> bool {
        self.counter.receiver_count() > 0 || Arc::strong_count(&self.one) > 1
    }
}

/// At least this many topics are kept before those without a subscriber go, such as the topics of removed queues.
const TOPICS_KEPT_MIN: usize = 64;

impl Topics {
    fn of(&mut self, topic: u64) -> &Topic {
        if !self.known.contains_key(&topic) && self.known.len() >= self.sweep_at.max(TOPICS_KEPT_MIN) {
            // A later subscriber starts with a counter of its own and misses nothing.
            self.known.retain(|_, topic| topic.is_in_use());
            // Twice those in use: a sweep costs a constant for each new topic.
            self.sweep_at = 2 * self.known.len();
        }
        self.known.entry(topic).or_default()
    }
}

impl Signals {
    pub(super) fn subscribe(&self, topic: u64) -> watch::Receiver<u64> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).of(topic).counter.subscribe()
    }

    pub(super) fn subscribe_one(&self, topic: u64) -> Arc<Notify> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).of(topic).one.clone()
    }

    pub(super) fn send(&self, signals: &BTreeSet<u64>) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        // A topic without an entry never had a subscriber.
        for topic in signals.iter().filter_map(|topic| topics.known.get(topic)) {
            topic.counter.send_modify(|version| *version += 1);
            topic.one.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_queues_that_nobody_waits_on_any_more_are_given_up() {
        let signals = Signals::default();
        let kept: Vec<_> = (0..100).map(|topic| signals.subscribe(topic)).collect();
        for topic in 100..10_000 {
            drop(signals.subscribe(topic));
        }
        let count = signals.topics.lock().unwrap().known.len();
        assert!(count <= 2 * kept.len(), "{count} topics");
        signals.send(&(0..10_000).collect());
        assert!(kept.iter().all(|receiver| receiver.has_changed().unwrap()), "those in use are still told");
        assert!(!signals.subscribe(5000).has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_signal_wakes_one_of_those_that_wait_for_a_turn_the_first_one() {
        let signals = Signals::default();
        let line = signals.subscribe_one(7);
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(line.notified())).collect();
        waits.iter_mut().for_each(|wait| assert!(!wait.as_mut().enable()));
        signals.send(&BTreeSet::from([7]));
        let woken: Vec<bool> = waits.iter_mut().map(|wait| wait.as_mut().enable()).collect();
        assert_eq!(woken, [true, false, false]);
    }
}
