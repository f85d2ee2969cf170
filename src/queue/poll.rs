//! Long polls, and receives whose caller may go away before it has the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::base::LeaseTime;
use crate::store::Tx;

use super::line::{Turn, Watch};
use super::receive::{self, Receiving};
use super::undo::{self, Undo};
use super::{Error, Queues, Receive, Received, catalog};

/// Messages that were received for a caller who does not have them yet. Dropped before [`Unanswered::begin`], they are
/// back in the queue as if nobody had received them: the one exception to the rule that a receive count never falls.
#[must_use = "dropping it undoes the receive"]
#[derive(Debug)]
pub struct Unanswered {
    found: Receiving,
    /// Told when the answer begins; its end without that undoes the receive.
    begun: oneshot::Sender<()>,
}

impl Unanswered {
    /// The messages, for an answer that begins now: from here on the receive counts, whatever becomes of the answer.
    pub fn begin(self) -> Vec<Received> {
        self.begin_all().messages
    }

    fn begin_all(self) -> Receiving {
        // Fails only when the runtime is being shut down; what was received then counts, as after a crash.
        let _ = self.begun.send(());
        self.found
    }
}

impl Queues {
    /// Receives, waiting up to `wait` for the first message (a long poll). A send ends the wait of one poll at once. At
    /// SQS's limit of messages in flight a long poll waits; a FIFO queue gives no message and no error.
    ///
    /// # Errors
    /// As [`Queues::receive_now`]; SQS's limit of messages in flight is reached on a standard queue, and `wait` is zero.
    pub async fn receive(&self, queue: &str, what: Receive, wait: Duration) -> Result<Vec<Received>, Error> {
        Ok(self.poll(queue, what, wait).await?.begin())
    }

    /// As [`Queues::receive`], for a caller that may go away before its answer has begun. A poll that is dropped, at
    /// whatever point, holds no message and counts no receive.
    ///
    /// # Errors
    /// As [`Queues::receive`].
    pub async fn poll(&self, queue: &str, what: Receive, wait: Duration) -> Result<Unanswered, Error> {
        self.poll_as(queue, what, None, wait).await
    }

    /// As [`Queues::poll`], on a FIFO queue with a ReceiveRequestAttemptId. What it received stays received when the
    /// caller goes away: the retry finds the same messages.
    ///
    /// # Errors
    /// As [`Queues::receive_attempt`].
    pub async fn poll_attempt(
        &self,
        queue: &str,
        what: Receive,
        attempt: &str,
        wait: Duration,
    ) -> Result<Unanswered, Error> {
        self.poll_as(queue, what, Some(attempt.into()), wait).await
    }

    async fn poll_as(
        &self,
        queue: &str,
        what: Receive,
        attempt: Option<Arc<str>>,
        wait: Duration,
    ) -> Result<Unanswered, Error> {
        let name = queue;
        let (queue, is_standard) = {
            let found = catalog::look_up(&self.store().snapshot()?, name)?;
            (found.id, found.attributes.fifo.is_none())
        };
        let line = self.lines().of(self.store(), queue);
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        let (mut turn, mut watch): (Option<Turn>, Option<Watch>) = (None, None);
        loop {
            // In the line before the receive: a send that commits between the two is then seen, and no turn is lost.
            // Dropped without being waited for, a turn that came meanwhile goes to the next one.
            let woken = line.turns.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let unanswered = self.receive_unanswered(queue, what, attempt.clone()).await?;
            let found = &unanswered.found;
            if found.is_over_limit && is_standard && wait.is_zero() {
                return Err(Error::OverLimit { queue: name.to_owned(), max: receive::IN_FLIGHT_MAX });
            }
            if let Some(turn) = turn.take_if(|_| !found.has_more) {
                turn.use_up();
            }
            if !found.messages.is_empty() || wait.is_zero() {
                return Ok(unanswered);
            }
            // A poll that found nothing although something is left looks again by itself; see `next_visible_at`.
            turn = None;
            watch = found.next_visible_at.and_then(|next| match watch.take() {
                Some(watch) if watch.until <= next && next > self.now().lease => Some(watch),
                _ => line.watch(next),
            });
            tokio::select! {
                () = &mut deadline => return Ok(unanswered),
                () = woken => turn = Some(line.turn()),
                () = self.until(watch.as_ref().map(|watch| watch.until)) => {}
            }
        }
    }

    /// Receives what is available now. The step runs on a task of its own, which undoes it when the caller goes away
    /// before the answer has begun.
    async fn receive_unanswered(
        &self,
        queue: u32,
        what: Receive,
        attempt: Option<Arc<str>>,
    ) -> Result<Unanswered, Error> {
        let gone = CancellationToken::new();
        let _caller = gone.clone().drop_guard();
        let (answer, answered) = oneshot::channel();
        let queues = self.clone();
        tokio::spawn(async move {
            let (now, observer) = (queues.now(), queues.observer());
            let step = move |tx: &mut Tx<'_>| {
                if gone.is_cancelled() {
                    return Ok(Receiving::default());
                }
                let queue = catalog::by_id(tx, queue)?;
                match attempt {
                    None => receive::receive(tx, &*observer, &queue, what, now),
                    Some(attempt) => {
                        let found = receive::receive_attempt(tx, &*observer, &queue, what, &attempt, now)?;
                        Ok(Receiving { undo: Vec::new(), ..found })
                    }
                }
            };
            let found = queues.store().write::<_, Error, _>(step).await;
            let undo = found.as_ref().map(|found| found.undo.clone()).unwrap_or_default();
            let (begun, has_begun) = oneshot::channel();
            // Fails when the caller is gone; the answer is dropped then, which is seen below.
            let _ = answer.send(found.map(|found| Unanswered { found, begun }));
            // A poll that found nothing may wait long: this task does not wait with it.
            if !undo.is_empty() && has_begun.await.is_err() {
                queues.undo_receive(undo).await;
            }
        });
        answered.await.unwrap_or(Err(Error::Gone(queue)))
    }

    async fn undo_receive(&self, receives: Vec<Undo>) {
        let step = move |tx: &mut Tx<'_>| Ok::<_, Error>(undo::undo(tx, &receives)?);
        if let Err(error) = self.store().write(step).await {
            tracing::warn!(%error, "a receive whose caller went away was not undone: its messages wait for their timeout");
        }
    }

    /// Sleeps until that moment by [`Queues::now`], for ever when there is none. One sleep lasts a minute at most, so
    /// that a clock change has no long effect; callers check the queue again after each.
    pub async fn until(&self, moment: Option<LeaseTime>) {
        match moment {
            Some(moment) => {
                let span = moment.since(self.now().lease).clamp(Duration::from_millis(1), Duration::from_secs(60));
                tokio::time::sleep(span).await;
            }
            None => std::future::pending().await,
        }
    }
}
