//! Applies each operation to the store and to the model, and compares the two.

use std::collections::VecDeque;
use std::time::Duration;

use nightmail::base::{Fingerprint, Timestamp};
use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::settle::{self, Settled};
use nightmail::queue::{Error, Options, ReceiptHandle, Receive, Send};
use nightmail::store::Snapshot;
use nightmail::store::record::{MessageState, Owner, Phase, RedriveState, Selection};
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::letters::Drive;
use super::operation::{End, Operation, draw};
use super::state::{DEAD, DEFERRAL_MAX_S, FREE, MAX_RECEIVE_COUNT, Model, ORDERS, PURGED, QUEUES, RETENTION_S, Where};
use crate::support::{World, dying_after, forever, texts};

/// A failure shows this many of the latest operations.
const TRACE_MAX: usize = 40;

/// The store, the model, and the operations so far.
pub(super) struct Driver {
    seed: u64,
    world: World,
    model: Model,
    handles: Vec<ReceiptHandle>,
    /// The running redrive.
    drive: Option<Drive>,
    /// The latest one that ended.
    ended: Option<u64>,
    sent: usize,
    trace: VecDeque<Operation>,
}

impl Driver {
    pub(super) async fn new(seed: u64) -> Self {
        let world = World::new();
        for queue in [DEAD, FREE, ORDERS] {
            let kept = Options { retention: RETENTION_S[queue].map(Duration::from_secs), ..forever() };
            let redrive = dying_after(MAX_RECEIVE_COUNT).redrive.filter(|_| queue == ORDERS);
            world.queues().ensure(QUEUES[queue], &Options { redrive, ..kept }).await.unwrap();
        }
        let (model, trace) = (Model::default(), VecDeque::new());
        Self { seed, world, model, handles: Vec::new(), drive: None, ended: None, sent: 0, trace }
    }

    pub(super) async fn step(&mut self, rng: &mut StdRng) {
        let operation = draw(rng, self.model.messages.len(), self.handles.len());
        self.trace.push_back(operation.clone());
        if self.trace.len() > TRACE_MAX {
            self.trace.pop_front();
        }
        self.run(operation).await;
        self.compare();
    }

    async fn run(&mut self, operation: Operation) {
        let now = self.world.now().wall;
        match operation {
            Operation::Send { queue, count, delay } => self.send(queue, count, delay).await,
            Operation::Receive { queue, max, visibility, owner } => self.receive(queue, max, visibility, owner).await,
            Operation::Delete { handle } => {
                let held = self.model.held(handle).filter(|index| self.model.messages[*index].queue != PURGED);
                let deleted = self.world.queues().delete(self.handles[handle]).await;
                self.same(deleted, Ok(held.is_some()));
                self.model.withdraw(held.into_iter().collect(), "deleted");
            }
            Operation::Change { handle, timeout } => self.change(handle, timeout).await,
            Operation::Settle { handle, end, code, wait } => self.settle(handle, end, code, wait).await,
            Operation::StartRedrive { code, to } => self.start_redrive(code, to).await,
            Operation::StepRedrive { budget } => self.step_redrive(budget).await,
            Operation::CancelRedrive => {
                if let Some(drive) = self.drive.take() {
                    self.world.queues().cancel_redrive(drive.id).await.unwrap();
                    self.ended = Some(drive.id);
                }
            }
            Operation::Undo => self.undo().await,
            Operation::Purge { queue } => {
                let purged = self.world.queues().purge(QUEUES[queue]).await;
                let expected = self.model.purge(queue, now);
                self.same(purged, expected.ok_or_else(|| Error::PurgeInProgress(QUEUES[queue].into())));
            }
            Operation::RemovePurged => {
                let removed = self.world.queues().remove_purged().await;
                let purged = self.model.of(PURGED);
                self.same(removed, Ok(purged.len() as u64));
                self.model.withdraw(purged, "purged");
            }
            Operation::Expire => {
                self.world.queues().expire().await.unwrap();
                self.model.expire(now);
            }
            Operation::Pass { seconds } => self.world.pass(seconds),
            Operation::Reopen => {
                self.world.reopen().await;
                self.model.restart();
            }
        }
    }

    async fn send(&mut self, queue: usize, count: usize, delay: u64) {
        let mut messages = Vec::new();
        for _ in 0..count {
            self.sent += 1;
            let text = format!("m{}", self.sent);
            self.model.send(queue, text.clone(), delay, self.world.now().wall);
            messages.push(Send { delay: Some(Duration::from_secs(delay)), run: 1, ..Send::text(text) });
        }
        self.world.queues().send_all(QUEUES[queue], messages).await.unwrap();
    }

    async fn receive(&mut self, queue: usize, max: usize, visibility: u64, owner: Owner) {
        let (visibility, now) = (Duration::from_secs(visibility), self.world.now().wall);
        let what = Receive { max, visibility: Some(visibility), owner };
        let received = self.world.receive(QUEUES[queue], what).await.unwrap().messages;
        let until = now.after(visibility);
        let expected = self.model.receive(queue, max, (owner, until), self.handles.len(), now);
        self.same(texts(&received), expected);
        self.handles.extend(received.iter().map(|message| message.handle));
    }

    async fn change(&mut self, handle: usize, timeout: u64) {
        let (now, span) = (self.world.now().wall, Duration::from_secs(timeout));
        let gone = Error::NotThere(self.handles[handle].to_string());
        let expected = match self.model.of_handle(handle) {
            None => Err(gone),
            Some(message) => {
                let is_latest = message.handle == Some(handle);
                let elapsed = now.since(message.received_at).as_secs();
                let owner = match message.phase {
                    Where::InFlight(_, owner) => Some(owner),
                    Where::RanOut => Some(Owner::Client),
                    _ => None,
                };
                match owner.filter(|owner| is_latest || *owner == Owner::Client) {
                    None => Err(Error::NotInFlight),
                    Some(_) if elapsed + timeout > 43_200 && timeout > 43_200_u64.saturating_sub(elapsed) => {
                        let max = 43_200_u64.saturating_sub(elapsed);
                        Err(Error::OutOfRange { what: "VisibilityTimeout", min: 0, max, got: timeout })
                    }
                    Some(owner) => {
                        let held = Where::InFlight(now.after(span), owner);
                        message.phase = if timeout == 0 { Where::Ready } else { held };
                        Ok(())
                    }
                }
            }
        };
        let changed = self.world.queues().change_visibility(self.handles[handle], span).await;
        self.same(changed, expected);
    }

    async fn settle(&mut self, number: usize, end: End, code: &'static str, wait: u64) {
        let (handle, observer, ended) = (self.handles[number], self.world.observer.clone(), self.world.ended(code));
        let (wait_for, at_most) = (Duration::from_secs(wait), Duration::from_secs(DEFERRAL_MAX_S));
        let settled = self.world.step(move |tx| match end {
            End::Done => Ok(settle::done(tx, handle)?.map_or(Settled::Fenced, |_| Settled::Deleted)),
            End::Retry => settle::retry(tx, &*observer, handle, &ended, wait_for),
            End::MoveToDlq => settle::move_to_dlq(tx, &*observer, handle, &ended, wait_for),
            End::Defer => settle::defer(tx, &*observer, handle, &ended, wait_for, at_most),
            End::Release => settle::release(tx, handle),
        });
        let was_held = settled.await.unwrap() != Settled::Fenced;
        let expected = self.model.settle(number, end, code, wait, self.world.now().wall);
        self.same(was_held, expected);
    }

    async fn start_redrive(&mut self, code: Option<&'static str>, to: Option<usize>) {
        let what = Redrive {
            from: QUEUES[DEAD].into(),
            to: to.map(|queue| QUEUES[queue].to_owned()),
            selection: Selection {
                fingerprint: code.map(|code| Fingerprint::of("http", "account", code)),
                ..Selection::default()
            },
            ..Redrive::default()
        };
        let plan = redrive::plan(&self.world.snapshot(), &what, self.world.now().wall);
        let matching = plan.map_or(0, |plan| plan.preview.matching);
        match (self.world.queues().start_redrive(what).await, &self.drive) {
            (Ok(id), None) => {
                let drive = Drive { id, started: self.model.next(), code, to, done: 0 };
                self.same(matching, self.model.waiting(&drive).len() as u64);
                self.drive = Some(drive);
            }
            (Err(Error::UnknownFingerprint { .. }), _) if code.is_some() => {
                let drive = Drive { id: 0, started: self.model.next(), code, to, done: 0 };
                self.same(0, self.model.waiting(&drive).len());
            }
            (Err(Error::RedriveRunning { id, .. }), Some(drive)) => self.same(id, drive.id),
            (answer, running) => panic!("{answer:?} while {running:?}{}", self.context()),
        }
    }

    async fn step_redrive(&mut self, budget: usize) {
        let Some(drive) = self.drive.clone() else { return };
        let at = self.world.now();
        let (observer, now) = (self.world.observer.clone(), self.world.now().wall);
        let before = redrive::list(&self.world.snapshot()).unwrap().remove(0).moved;
        let record = self.world.step(move |tx| redrive::step(tx, &*observer, drive.id, budget, at)).await.unwrap();
        let mut drive = self.drive.clone().expect("it runs");
        let moved = self.model.drive(&mut drive, budget, now);
        self.drive = Some(drive.clone());
        self.same(record.moved - before, moved);
        if record.state != RedriveState::Running {
            let mut left = self.model.waiting(&drive);
            left.retain(|letter| !self.model.is_held(*letter, now));
            let is_stuck = left.first().is_some_and(|letter| self.model.messages[*letter].source.is_none());
            self.same(matches!(record.state, RedriveState::Failed { .. }), is_stuck && drive.to.is_none());
            self.same(left.is_empty() || is_stuck, true);
            self.drive = None;
            self.ended = Some(record.id);
        }
    }

    async fn undo(&mut self) {
        let Some(undone) = self.ended else { return };
        match (self.world.queues().undo_redrive(undone).await, &self.drive) {
            (Ok(id), None) => {
                self.world.queues().drive(id, &CancellationToken::new()).await.unwrap();
                let record = self.world.snapshot().redrives().unwrap().get(&id).unwrap().expect("it has ended");
                let taken_back = self.model.undo(undone);
                self.same(record.moved, taken_back);
            }
            (Err(Error::RedriveRunning { id, .. }), Some(drive)) => self.same(id, drive.id),
            (answer, running) => panic!("{answer:?} while {running:?}{}", self.context()),
        }
    }

    fn compare(&mut self) {
        self.world.check();
        let snapshot = self.world.snapshot();
        for queue in [DEAD, FREE, ORDERS] {
            let expected: Vec<String> = self.model.of(queue).into_iter().map(|index| self.line(index)).collect();
            self.same(stored(&snapshot, &self.world, queue), expected);
        }
        let (mut observed, mut expected) = (self.world.observer.take(), std::mem::take(&mut self.model.observed));
        observed.sort();
        expected.sort();
        self.same(observed, expected);
    }

    /// A message of the model, as [`stored`] writes one.
    fn line(&self, index: usize) -> String {
        let message = &self.model.messages[index];
        let (phase, owner) = match message.phase {
            Where::Ready => (Phase::Ready, Owner::Nobody),
            Where::RanOut => (Phase::Ready, Owner::Client),
            Where::Delayed(_) => (Phase::Delayed, Owner::Nobody),
            Where::InFlight(_, owner) => (Phase::InFlight, owner),
        };
        let until = message.phase.until().unwrap_or(Timestamp::ZERO);
        let counts = (message.receive_count, message.attempts_charged, message.attempts);
        let source = message.source.map_or("", |queue| QUEUES[queue]);
        let since = message.deferred_since.unwrap_or(Timestamp::ZERO);
        let history = message.history.iter().map(|(number, end, code)| format!(" #{number} {end} {code}"));
        format!(
            "{} {phase:?} {owner:?} until {until} sent {} counts {counts:?} from {source:?} deferred {since}{}",
            message.text,
            message.sent_at,
            history.collect::<String>()
        )
    }

    #[track_caller]
    fn same<T: PartialEq + std::fmt::Debug>(&self, stored: T, expected: T) {
        assert_eq!(stored, expected, "the store (left) and the model differ{}", self.context());
    }

    fn context(&self) -> String {
        let trace: String = self.trace.iter().map(|operation| format!("  {operation:?}\n")).collect();
        format!("; NIGHTMAIL_MODEL_SEED={}, the latest operations:\n{trace}", self.seed)
    }
}

/// The messages of a queue as the store holds them, one line each.
fn stored(snapshot: &Snapshot, world: &World, queue: usize) -> Vec<String> {
    let rows = world.queue(QUEUES[queue]).rows;
    let states = snapshot.states().unwrap().first((rows, 0)..=(rows, u64::MAX), usize::MAX).unwrap();
    states.iter().map(|(_, state)| line(snapshot, world, state)).collect()
}

fn line(snapshot: &Snapshot, world: &World, state: &MessageState) -> String {
    let body = snapshot.bodies().unwrap().get(&state.body).unwrap().expect("every message has a body");
    let attempts = snapshot.history().unwrap().first((state.body, 0)..=(state.body, u32::MAX), usize::MAX).unwrap();
    let history = attempts.iter().map(|(_, attempt)| {
        let code = attempt.failure.as_ref().map_or("", |failure| failure.code.as_str());
        format!(" #{} {:?} {code}", attempt.number, attempt.end)
    });
    let counts = (state.receive_count, state.attempts_charged, state.attempts);
    let source = QUEUES.iter().find(|name| world.queue(name).id == state.source).copied().unwrap_or_default();
    format!(
        "{} {:?} {:?} until {} sent {} counts {counts:?} from {source:?} deferred {}{}",
        String::from_utf8_lossy(&body.bytes),
        state.phase,
        state.owner,
        Timestamp::from_millis(state.visible_at.as_millis()),
        state.sent_at,
        Timestamp::from_millis(state.deferred_since.as_millis()),
        history.collect::<String>()
    )
}
