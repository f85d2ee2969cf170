//! Intents of attempts that run at the same time are written in one step: a commit costs about as much processor time as
//! half a statement.
//!
//! Attempts ask through [`Intents`]; whoever drives them writes what waits, through [`PendingIntents`], together with
//! whatever else it commits.

use tokio::sync::{mpsc, oneshot};

use crate::base::Timestamp;
use crate::function::{Permission, Quota};
use crate::queue::{Queues, ReceiptHandle};
use crate::store::{self, Tx};

use super::super::suppression;
use super::entry::EffectKey;
use super::quota::Quotas;
use super::{OnUnknown, permit};

/// One step writes at most this many intents.
const STEP_MAX: usize = 256;

/// Where the attempts of one pool ask for their intents to be written. Clones share it.
#[derive(Clone, Debug)]
pub struct Intents {
    queues: Queues,
    waiting: mpsc::UnboundedSender<PendingIntent>,
}

/// The intents that wait to be written. Without it none is written, and those who wait or ask get an error.
#[derive(Debug)]
pub struct PendingIntents {
    queues: Queues,
    /// Unbounded, but an attempt waits for one intent at a time.
    arriving: mpsc::UnboundedReceiver<PendingIntent>,
    /// In the order in which they came.
    waiting: Vec<PendingIntent>,
}

#[derive(Debug)]
struct PendingIntent {
    asked: Asked,
    answer: oneshot::Sender<Result<Permission, store::Error>>,
}

/// An effect that an attempt asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its entry in the ledger; `None` outside of runs.
    pub(super) key: Option<EffectKey>,
    /// The address that is mailed.
    pub(super) address: String,
    /// What the mail is charged to.
    pub(super) quota: Option<Quota>,
    /// The SHA-256 of what is mailed, where that is known.
    pub(super) document: Option<[u8; 32]>,
    pub(super) attempt: (ReceiptHandle, OnUnknown),
}

impl Intents {
    /// Both ends; nothing is written yet.
    pub fn new(queues: &Queues) -> (Self, PendingIntents) {
        let (waiting, arriving) = mpsc::unbounded_channel();
        let intents = Self { queues: queues.clone(), waiting };
        (intents, PendingIntents { queues: queues.clone(), arriving, waiting: Vec::new() })
    }

    /// What they are written through.
    pub(super) fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Waits until the intent is on disk, unless the effect must not happen. One whose caller has gone before its turn is
    /// not written.
    pub(super) async fn permit(&self, asked: Asked) -> Result<Permission, store::Error> {
        let (answer, answered) = oneshot::channel();
        let pending = PendingIntent { asked, answer };
        let ended = || store::Error::Stopped("the pool that writes intents ended".into());
        self.waiting.send(pending).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl PendingIntents {
    /// How many wait by now.
    pub fn count(&mut self) -> usize {
        while self.waiting.len() < STEP_MAX
            && let Ok(intent) = self.arriving.try_recv()
        {
            self.waiting.push(intent);
        }
        self.waiting.len()
    }

    /// Returns when one more has come; `None` when none can come any more. Dropping the future loses none.
    pub async fn next(&mut self) -> Option<()> {
        let intent = self.arriving.recv().await?;
        self.waiting.push(intent);
        Some(())
    }

    /// Writes those that wait, in one step. This call creates the step; the returned future sends it to the writer.
    pub fn write(&mut self) -> impl Future<Output = ()> + use<> {
        self.count();
        let some = std::mem::take(&mut self.waiting);
        let queues = self.queues.clone();
        async move {
            if !some.is_empty() {
                write(&queues, some).await;
            }
        }
    }
}

async fn write(queues: &Queues, some: Vec<PendingIntent>) {
    let waiting = some.into_iter().filter(|one| !one.answer.is_closed());
    let (answers, asked): (Vec<_>, Vec<_>) = waiting.map(|one| (one.answer, one.asked)).unzip();
    let now = queues.now().wall;
    let permitted = queues.store().write(move |tx| permit_all(tx, &asked, now)).await;
    for (at, answer) in answers.into_iter().enumerate() {
        // It fails when the caller has gone; whoever settles its attempt takes the intent away.
        let _ = answer.send(permitted.as_ref().map(|permitted| permitted[at]).map_err(Clone::clone));
    }
}

fn permit_all(tx: &mut Tx<'_>, asked: &[Asked], now: Timestamp) -> Result<Vec<Permission>, store::Error> {
    let mut quotas = Quotas::default();
    let permitted = asked.iter().map(|asked| permit_one(tx, asked, &mut quotas, now)).collect::<Result<Vec<_>, _>>()?;
    quotas.finish(tx, now)?;
    Ok(permitted)
}

fn permit_one(
    tx: &mut Tx<'_>,
    Asked { key, address, quota, document, attempt }: &Asked,
    quotas: &mut Quotas,
    now: Timestamp,
) -> Result<Permission, store::Error> {
    // Before the intent, which must not be written for a mail that does not go.
    let wait = quota.as_ref().map(|quota| quotas.wait(tx, quota, now)).transpose()?.flatten();
    let permission = match key {
        Some(_) if suppression::has(tx, address)? => Permission::Suppressed,
        _ if wait.is_some() => Permission::OverQuota(wait.unwrap_or_default()),
        Some(key) => permit(tx, key, *document, *attempt, now)?,
        None => Permission::Granted,
    };
    if let (Permission::Granted, Some(quota)) = (permission, quota) {
        quotas.count(quota);
    }
    Ok(permission)
}
