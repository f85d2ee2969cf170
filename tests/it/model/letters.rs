//! How the model ends attempts and redrives letters.

use std::time::Duration;

use nightmail::base::Timestamp;

use super::operation::End;
use super::state::{DEAD, DEFERRAL_MAX_S, Letter, MAX_RECEIVE_COUNT, Model, ORDERS, PURGED, Where};

/// A redrive in the model.
#[derive(Clone, Debug)]
pub(super) struct Drive {
    /// The redrive's number in the store.
    pub(super) id: u64,
    /// The model's counter at its start.
    pub(super) started: u64,
    /// The failure code of the letters to move; `None` for all.
    pub(super) code: Option<&'static str>,
    /// The target queue; `None` for each letter's source.
    pub(super) to: Option<usize>,
    /// The cursor: letters up to this sequence number are not looked at again, whatever happens to them.
    pub(super) done: u64,
}

impl Model {
    /// Ends the attempt of that handle; false when the handle was fenced.
    pub(super) fn settle(&mut self, handle: usize, end: End, code: &'static str, wait: u64, now: Timestamp) -> bool {
        let Some(index) = self.held(handle) else { return false };
        let again = Where::Delayed(now.after(Duration::from_secs(wait)));
        let message = &self.messages[index];
        let since = message.deferred_since.unwrap_or(message.received_at);
        let is_used_up = message.queue == ORDERS && message.attempts_charged >= MAX_RECEIVE_COUNT;
        let is_put_off_too_long = now.since(since).as_secs() >= DEFERRAL_MAX_S;
        match end {
            End::Done => {
                self.messages.remove(index);
                return true;
            }
            End::Retry | End::MoveToDlq if message.queue == PURGED => return self.end_purged(index),
            End::Defer if message.queue == PURGED && is_put_off_too_long => return self.end_purged(index),
            End::Retry if is_used_up => return self.die(index, code, again),
            End::MoveToDlq => return self.die(index, code, again),
            End::Defer if is_put_off_too_long => return self.die(index, code, again),
            _ => {}
        }
        let message = &mut self.messages[index];
        message.handle = None;
        message.phase = again;
        match end {
            End::Retry => {
                message.history.push((message.attempts, "Retry", code));
                message.deferred_since = None;
            }
            End::Defer => {
                message.history.push((message.attempts, "Deferred", code));
                message.deferred_since = Some(since);
                message.attempts_charged -= message.attempts_charged.min(1);
            }
            _ => {
                message.phase = Where::Ready;
                message.attempts_charged -= message.attempts_charged.min(1);
                message.attempts -= message.attempts.min(1);
            }
        }
        true
    }

    /// A purged message that would be tried again or die is gone.
    fn end_purged(&mut self, index: usize) -> bool {
        self.record(index, "withdrawn: purged");
        self.messages.remove(index);
        true
    }

    fn die(&mut self, index: usize, code: &'static str, again: Where) -> bool {
        let message = &mut self.messages[index];
        message.deferred_since = None;
        if message.queue == ORDERS {
            message.history.push((message.attempts, "Dead", code));
            self.move_to_dlq(index);
        } else {
            message.history.push((message.attempts, "Retry", code));
            message.phase = again;
            message.handle = None;
        }
        true
    }

    /// The letters that a redrive still has to move, in their order.
    pub(super) fn waiting(&self, drive: &Drive) -> Vec<usize> {
        let is_meant = |index: &usize| {
            let letter = &self.messages[*index];
            // What was sent there directly is of no class.
            let last = letter.source.and(letter.history.last()).map(|(_, _, code)| *code);
            letter.sequence > drive.done
                && letter.arrival_seq <= drive.started
                && drive.code.is_none_or(|code| last == Some(code))
        };
        self.of(DEAD).into_iter().filter(is_meant).collect()
    }

    /// Moves up to `budget` letters and returns how many; stops before a letter without a source.
    pub(super) fn drive(&mut self, drive: &mut Drive, budget: usize, now: Timestamp) -> u64 {
        let mut moved = 0;
        let meant = self.waiting(drive);
        for index in self.of(DEAD) {
            let sequence = self.messages[index].sequence;
            if sequence <= drive.done {
                continue;
            }
            if moved == budget {
                break;
            }
            if meant.contains(&index) && !self.is_held(index, now) {
                let Some(to) = drive.to.or(self.messages[index].source) else { break };
                self.revive(index, to, drive.id, now);
                moved += 1;
            }
            drive.done = sequence;
        }
        moved as u64
    }

    /// Takes back the letters of a redrive that nobody has received; returns how many.
    pub(super) fn undo(&mut self, drive: u64) -> u64 {
        let mut taken_back = 0;
        for index in 0..self.messages.len() {
            let message = &self.messages[index];
            let is_untouched = message.receive_count == 0 && !matches!(message.phase, Where::InFlight(..));
            let Some((_, letter)) = message.redriven.filter(|(by, _)| *by == drive && is_untouched) else { continue };
            if message.queue == PURGED {
                continue;
            }
            taken_back += 1;
            self.record(index, "died");
            let arrival_seq = self.next();
            let message = &mut self.messages[index];
            message.queue = DEAD;
            message.phase = Where::Ready;
            message.redriven = None;
            message.arrival_seq = arrival_seq;
            message.sequence = letter.sequence;
            message.source = letter.source;
            message.sent_at = letter.sent_at;
            message.received_at = letter.received_at;
            message.receive_count = letter.receive_count;
            message.attempts_charged = letter.attempts_charged;
        }
        taken_back
    }

    /// Whether a consumer holds the letter: a redrive leaves it.
    pub(super) fn is_held(&self, index: usize, now: Timestamp) -> bool {
        matches!(self.messages[index].phase, Where::InFlight(at, _) if at > now)
    }

    fn revive(&mut self, index: usize, to: usize, drive: u64, now: Timestamp) {
        self.record(index, "redriven");
        let sequence = self.next();
        let message = &mut self.messages[index];
        let letter = Letter {
            sequence: message.sequence,
            source: message.source,
            sent_at: message.sent_at,
            received_at: message.received_at,
            receive_count: message.receive_count,
            attempts_charged: message.attempts_charged,
        };
        message.redriven = Some((drive, letter));
        message.queue = to;
        message.sequence = sequence;
        message.arrival_seq = sequence;
        message.phase = Where::Ready;
        message.sent_at = now;
        message.received_at = Timestamp::ZERO;
        message.deferred_since = None;
        message.receive_count = 0;
        message.attempts_charged = 0;
        message.handle = None;
        message.source = None;
    }
}
