//! Intents of attempts that run at the same time are written in one step: a commit costs about as much processor time as
//! half a statement.
//!
//! While nothing is under way an intent is written at once. Those that come while one is being written, and for a short
//! time after, go together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::function::Permission;
use crate::queue::{Queues, ReceiptHandle};
use crate::store::{self, Tx};

use super::super::suppression;
use super::entry::EffectKey;
use super::{OnUnknown, permit};

/// One step writes at most this many intents.
const STEP_MAX: usize = 200;
/// After a write, further intents are gathered for this long. Each holds a connection to the relay meanwhile, so longer would
/// slow a run down more than fewer commits speed it up.
const GATHER: Duration = Duration::from_millis(1);

/// Writes the intents of one pool's attempts. Clones share it.
#[derive(Clone, Debug)]
pub struct Intents(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queues: Queues,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came.
    waiting: Vec<PendingIntent>,
    /// Set by the first intent that waits, which starts the writer; cleared by the writer when none waits any more.
    has_writer: bool,
}

#[derive(Debug)]
struct PendingIntent {
    key: EffectKey,
    /// The address that is mailed.
    address: String,
    handle: ReceiptHandle,
    on_unknown: OnUnknown,
    answer: oneshot::Sender<Result<Permission, store::Error>>,
}

impl Intents {
    /// Nothing is written yet.
    pub fn new(queues: &Queues) -> Self {
        Self(Arc::new(Shared { queues: queues.clone(), state: Mutex::default() }))
    }

    /// What they are written through.
    pub(super) fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// Writes the intent down unless the effect must not happen. One whose caller has gone before its turn is not written.
    pub(super) async fn permit(
        &self,
        (key, address): (EffectKey, String),
        (handle, on_unknown): (ReceiptHandle, OnUnknown),
    ) -> Result<Permission, store::Error> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut state = self.state();
            state.waiting.push(PendingIntent { key, address, handle, on_unknown, answer });
            !std::mem::replace(&mut state.has_writer, true)
        };
        if is_first {
            tokio::spawn(write_all(self.clone()));
        }
        answered.await.unwrap_or_else(|_| Err(store::Error::Stopped("the intents' writer ended".into())))
    }

    /// The intents of the next step; `None` ends the writer, under the lock, so that the next intent starts another.
    fn next(&self) -> Option<Vec<PendingIntent>> {
        let mut state = self.state();
        let count = state.waiting.len().min(STEP_MAX);
        state.has_writer = count > 0;
        (count > 0).then(|| state.waiting.drain(..count).collect())
    }

    async fn write(&self, some: Vec<PendingIntent>) {
        let (mut answers, mut asked) = (Vec::with_capacity(some.len()), Vec::with_capacity(some.len()));
        for PendingIntent { key, address, handle, on_unknown, answer } in
            some.into_iter().filter(|one| !one.answer.is_closed())
        {
            answers.push(answer);
            asked.push(((key, address), (handle, on_unknown)));
        }
        let now = self.0.queues.now().wall;
        let step = move |tx: &mut Tx<'_>| {
            let permit = |((key, address), attempt): &((EffectKey, String), _)| match suppression::has(tx, address)? {
                true => Ok(Permission::Suppressed),
                false => permit(tx, key, *attempt, now),
            };
            asked.iter().map(permit).collect::<Result<Vec<_>, store::Error>>()
        };
        let permitted = self.0.queues.store().write(step).await;
        for (at, answer) in answers.into_iter().enumerate() {
            // It fails when the caller has gone; whoever settles its attempt takes the intent away.
            let _ = answer.send(permitted.as_ref().map(|permitted| permitted[at]).map_err(Clone::clone));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes intents until none waits. Between two writes it keeps nothing, so that whoever closes the store meanwhile does
/// not wait for it.
async fn write_all(mut intents: Intents) {
    while let Some(some) = intents.next() {
        intents.write(some).await;
        let shared = Arc::downgrade(&intents.0);
        drop(intents);
        tokio::time::sleep(GATHER).await;
        let Some(shared) = shared.upgrade() else { return };
        intents = Intents(shared);
    }
}
