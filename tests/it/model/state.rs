//! The model: messages as plain values, and a second implementation of the queues' rules without any index.

use nightmail::base::Timestamp;
use nightmail::store::record::Owner;

/// The queues of the model, by their numbers in it.
pub(super) const QUEUES: [&str; 3] = ["dead", "free", "orders"];
pub(super) const DEAD: usize = 0;
pub(super) const FREE: usize = 1;
pub(super) const ORDERS: usize = 2;
/// Where purged messages are until their rows are removed.
pub(super) const PURGED: usize = usize::MAX;
/// A queue can be purged once in this many seconds.
const PURGE_INTERVAL_S: u64 = 60;
/// `orders` moves messages to its dead-letter queue at this count; `free` has no dead-letter queue.
pub(super) const MAX_RECEIVE_COUNT: u32 = 3;
/// How long each queue keeps a message, in seconds; `free` keeps it for ever.
pub(super) const RETENTION_S: [Option<u64>; 3] = [Some(4000), None, Some(2000)];
/// A message that was deferred for this many seconds dies.
pub(super) const DEFERRAL_MAX_S: u64 = 120;

/// The phase of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Ready,
    /// Ready since a client's timeout ran out: its handle may still change the visibility.
    RanOut,
    Delayed(Timestamp),
    InFlight(Timestamp, Owner),
}

impl Where {
    /// When it becomes visible; `None` when it is.
    pub(super) fn until(self) -> Option<Timestamp> {
        match self {
            Self::Ready | Self::RanOut => None,
            Self::Delayed(at) | Self::InFlight(at, _) => Some(at),
        }
    }
}

/// One message of the model. The fields mean what those of the stored state mean.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) queue: usize,
    /// The order of sending, by the model's own counter.
    pub(super) sequence: u64,
    /// The order of arrival in its queue, by the same counter.
    pub(super) arrival_seq: u64,
    pub(super) phase: Where,
    pub(super) sent_at: Timestamp,
    pub(super) received_at: Timestamp,
    pub(super) deferred_since: Option<Timestamp>,
    pub(super) receive_count: u32,
    pub(super) attempts_charged: u32,
    pub(super) attempts: u32,
    /// The handle that holds it, as an index into all handles ever given out.
    pub(super) handle: Option<usize>,
    pub(super) source: Option<usize>,
    /// The redrive that brought it back, and the letter as it was.
    pub(super) redriven: Option<(u64, Letter)>,
    /// Number and end of each attempt, and the code of its failure.
    pub(super) history: Vec<(u32, &'static str, &'static str)>,
}

/// A letter before its redrive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter {
    pub(super) sequence: u64,
    pub(super) source: Option<usize>,
    pub(super) sent_at: Timestamp,
    pub(super) received_at: Timestamp,
    pub(super) receive_count: u32,
    pub(super) attempts_charged: u32,
}

/// All messages, in no particular order, and the transitions that the observer must see.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) messages: Vec<Message>,
    pub(super) observed: Vec<String>,
    pub(super) counter: u64,
    /// Queue and sequence of the message that each handle is of.
    pub(super) given: Vec<(usize, u64)>,
    /// The latest purge of each queue.
    purged: [Option<Timestamp>; 3],
}

impl Model {
    pub(super) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn send(&mut self, queue: usize, text: String, delay: u64, now: Timestamp) {
        let sequence = self.next();
        let at = now.after(std::time::Duration::from_secs(delay));
        self.messages.push(Message {
            text,
            queue,
            sequence,
            arrival_seq: sequence,
            phase: if delay == 0 { Where::Ready } else { Where::Delayed(at) },
            sent_at: now,
            received_at: Timestamp::ZERO,
            deferred_since: None,
            receive_count: 0,
            attempts_charged: 0,
            attempts: 0,
            handle: None,
            source: None,
            redriven: None,
            history: Vec::new(),
        });
    }

    /// The indexes of a queue's messages in the order of sending.
    pub(super) fn of(&self, queue: usize) -> Vec<usize> {
        let mut found: Vec<usize> =
            (0..self.messages.len()).filter(|index| self.messages[*index].queue == queue).collect();
        found.sort_by_key(|index| self.messages[*index].sequence);
        found
    }

    /// Purges a queue; returns how many messages it had, or `None` when it was purged too recently.
    pub(super) fn purge(&mut self, queue: usize, now: Timestamp) -> Option<u64> {
        if self.purged[queue].is_some_and(|last| now.since(last).as_secs() < PURGE_INTERVAL_S) {
            return None;
        }
        self.purged[queue] = Some(now);
        let all = self.of(queue);
        for index in &all {
            self.messages[*index].queue = PURGED;
        }
        Some(all.len() as u64)
    }

    /// The message that the handle holds.
    pub(super) fn held(&mut self, handle: usize) -> Option<usize> {
        self.messages.iter().position(|message| message.handle == Some(handle))
    }

    /// The message that the handle is of, whoever holds it now.
    pub(super) fn of_handle(&mut self, handle: usize) -> Option<&mut Message> {
        let of = self.given[handle];
        self.messages.iter_mut().find(|message| (message.queue, message.sequence) == of)
    }

    pub(super) fn record(&mut self, index: usize, transition: &str) {
        self.observed.push(format!("{} {transition}", self.messages[index].text));
    }

    /// Removes messages without an outcome.
    pub(super) fn withdraw(&mut self, mut indexes: Vec<usize>, why: &str) {
        indexes.sort_unstable();
        for index in indexes.into_iter().rev() {
            self.record(index, &format!("withdrawn: {why}"));
            self.messages.remove(index);
        }
    }

    pub(super) fn is_expired(&self, index: usize, now: Timestamp) -> bool {
        let message = &self.messages[index];
        let retention = RETENTION_S.get(message.queue).copied().flatten();
        retention.is_some_and(|seconds| now.since(message.sent_at).as_secs() >= seconds)
    }

    /// The worker of the message is gone.
    pub(super) fn lose(&mut self, index: usize) {
        let message = &mut self.messages[index];
        message.history.push((message.attempts, "Lost", "lost"));
        message.phase = Where::Ready;
        message.handle = None;
        message.deferred_since = None;
    }

    pub(super) fn move_to_dlq(&mut self, index: usize) {
        self.record(index, "died");
        let arrival_seq = self.next();
        let message = &mut self.messages[index];
        message.source = Some(message.queue);
        message.redriven = None;
        message.attempts_charged = 0;
        message.queue = DEAD;
        message.arrival_seq = arrival_seq;
        message.phase = Where::Ready;
        message.handle = None;
    }

    /// Receives; returns the texts of the messages. `handle` is the first free number for a handle.
    pub(super) fn receive(
        &mut self,
        queue: usize,
        max: usize,
        (owner, until): (Owner, Timestamp),
        mut handle: usize,
        now: Timestamp,
    ) -> Vec<String> {
        for index in self.of(queue) {
            match self.messages[index].phase {
                Where::InFlight(at, Owner::Worker) if at <= now => self.lose(index),
                Where::InFlight(at, _) if at <= now => self.messages[index].phase = Where::RanOut,
                Where::Delayed(at) if at <= now => self.messages[index].phase = Where::Ready,
                _ => {}
            }
        }
        let (mut texts, mut expired) = (Vec::new(), Vec::new());
        for index in self.of(queue) {
            if texts.len() == max {
                break;
            }
            if !matches!(self.messages[index].phase, Where::Ready | Where::RanOut) {
                continue;
            }
            if self.is_expired(index, now) {
                expired.push(index);
            } else if queue == ORDERS && self.messages[index].attempts_charged >= MAX_RECEIVE_COUNT {
                let message = &mut self.messages[index];
                if message.history.last().is_none_or(|(number, ..)| *number < message.attempts) {
                    message.history.push((message.attempts, "Dead", "max-receive-count"));
                }
                self.move_to_dlq(index);
            } else {
                texts.push(self.hand_out(index, Where::InFlight(until, owner), handle, now));
                handle += 1;
            }
        }
        self.withdraw(expired, "expired");
        texts
    }

    fn hand_out(&mut self, index: usize, phase: Where, handle: usize, now: Timestamp) -> String {
        let message = &mut self.messages[index];
        self.given.push((message.queue, message.sequence));
        message.phase = phase;
        message.handle = Some(handle);
        message.received_at = now;
        message.receive_count += 1;
        message.attempts_charged += 1;
        message.attempts += 1;
        message.text.clone()
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let expired = (0..self.messages.len()).filter(|index| self.is_expired(*index, now)).collect();
        self.withdraw(expired, "expired");
    }

    /// The daemon restarts.
    pub(super) fn restart(&mut self) {
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            if message.queue != PURGED && matches!(message.phase, Where::InFlight(_, Owner::Worker)) {
                // Nobody knows that it was alone, so nobody is charged.
                self.messages[index].attempts_charged -= 1;
                self.lose(index);
            }
        }
    }
}
