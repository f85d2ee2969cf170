//! Faults of the calls to the disks and of the moments of answers, as changes of a recording.

use super::disk::{Call, Change, STORE};
use super::log;
use super::recording::Recording;
use super::watch::Viewer;

/// The log's disks claim to have synced, but have not.
pub(super) fn forget_syncs(recording: &mut Recording) {
    without_syncs(recording, Call::is_sync_of_log, |_| false);
}

/// Every second sync of the log is skipped.
pub(super) fn skip_syncs(recording: &mut Recording) {
    without_syncs(recording, Call::is_sync_of_log, |nth| nth % 2 == 0);
}

/// redb's commits are not durable when the segment that they hold is used again.
pub(super) fn forget_checkpoints(recording: &mut Recording) {
    without_syncs(recording, |call| call.is_sync_of(STORE), |_| false);
}

fn without_syncs(recording: &mut Recording, is_sync: impl Fn(&Call) -> bool, is_kept: impl Fn(usize) -> bool) {
    for (nth, call) in recording.calls.iter_mut().filter(|call| is_sync(call)).enumerate() {
        if !is_kept(nth) {
            // It changes nothing and makes nothing durable.
            call.change = Change::Write { offset: 0, data: Vec::new() };
        }
    }
}

/// A step is answered when it begins.
pub(super) fn answer_early(recording: &mut Recording) {
    recording.answered = recording.begun.iter().map(|begun| begun + 1).collect();
}

/// A step is answered when its frame is written but not yet synced.
pub(super) fn answer_unsynced(recording: &mut Recording) {
    let answered = recording.answered.iter().map(|answered| before_sync(recording, *answered));
    recording.answered = answered.collect();
}

/// A step that only read is answered before the sync of what it saw.
pub(super) fn answer_readers_early(recording: &mut Recording) {
    for nth in 0..recording.seen.len() {
        if recording.seen[nth].by == Viewer::ReadingStep {
            recording.seen[nth].calls = before_sync(recording, recording.seen[nth].calls);
        }
    }
}

/// The moment before the log's last sync within the first calls.
fn before_sync(recording: &Recording, calls: usize) -> usize {
    recording.calls[..calls].iter().rposition(Call::is_sync_of_log).unwrap_or(calls)
}

/// A snapshot shows the group whose frame is not synced yet.
pub(super) fn show_early(recording: &mut Recording) {
    let last = recording.states.len() - 1;
    for seen in recording.seen.iter_mut().filter(|seen| seen.by == Viewer::Snapshot) {
        seen.state = last.min(seen.state + 1);
    }
}

/// Each second step is two groups.
pub(super) fn split_steps(recording: &mut Recording) {
    let odd = |at: &usize| at % 2 == 1;
    recording.seen.clear();
    recording.begun = recording.begun.iter().copied().step_by(2).collect();
    recording.answered = recording.answered.iter().copied().skip(1).step_by(2).collect();
    recording.states =
        (0..recording.states.len()).filter(|at| !odd(at)).map(|at| recording.states[at].clone()).collect();
    recording.begun.truncate(recording.answered.len());
}

/// A segment is used again before the checkpoint of what it held is durable.
pub(super) fn reuse_early(recording: &mut Recording) {
    let calls = &recording.calls;
    let generations: Vec<Begin> = Begin::all(calls).collect();
    let (mut places, mut last) = (Vec::new(), 0);
    for (at, call) in calls.iter().enumerate() {
        if call.is_of_log() {
            places.push((at, false));
            continue;
        }
        // What redb is given between the last frames of two generations is the checkpoint of the first one, whose segment
        // the generation after the second uses.
        let next = generations.partition_point(|generation| generation.last_before < at);
        last = last.max(generations.get(next).map_or(at, |next| next.sync));
        places.push((last, true));
    }
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|at| places[*at]);
    recording.reorder(&order);
}

/// A generation's first frame is on disk before the last frame of the generation before it.
pub(super) fn begin_early(recording: &mut Recording) {
    let calls = &recording.calls;
    let (mut order, mut done) = ((0..calls.len()).collect::<Vec<usize>>(), 0);
    for Begin { first, sync, .. } in Begin::all(calls) {
        let of_other = |call: &Call| call.is_sync_of_log() && call.disk != calls[first].disk;
        let waited_for = calls[..first].iter().rposition(of_other).filter(|waited_for| *waited_for > done);
        let Some(waited_for) = waited_for else { continue };
        let rest = (waited_for..sync).filter(|at| *at != first);
        let moved: Vec<usize> = [first, sync].into_iter().chain(rest).collect();
        order.splice(waited_for..=sync, moved);
        done = sync;
    }
    recording.reorder(&order);
}

/// The calls with which a generation begins, by their indices.
pub(super) struct Begin {
    /// The last frame of the generation before.
    pub(super) last_before: usize,
    /// Its first frame.
    pub(super) first: usize,
    /// The sync of that.
    pub(super) sync: usize,
}

impl Begin {
    pub(super) fn all(calls: &[Call]) -> impl Iterator<Item = Self> {
        (0..calls.len()).filter(|at| log::is_first_frame(&calls[*at])).filter_map(|first| {
            let last_before = calls[..first].iter().rposition(log::is_frame)?;
            let after = calls[first..].iter().position(|call| call.is_sync_of(calls[first].disk))?;
            Some(Self { last_before, first, sync: first + after })
        })
    }
}

impl Recording {
    /// Puts the calls into another order, which keeps that of each disk. Answers stay behind the calls to the log that
    /// they came after, and steps begin before those that came after them.
    fn reorder(&mut self, order: &[usize]) {
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        let (mut after, mut before) = (vec![0], vec![order.len()]);
        for (call, place) in self.calls.iter().zip(&place) {
            let last = *after.last().expect("it begins with one");
            after.push(if call.is_of_log() { last.max(place + 1) } else { last });
        }
        for (call, place) in self.calls.iter().zip(&place).rev() {
            let last = *before.last().expect("it begins with one");
            before.push(if call.is_of_log() { last.min(*place) } else { last });
        }
        before.reverse();
        self.begun.iter_mut().for_each(|begun| *begun = before[*begun]);
        self.answered.iter_mut().for_each(|answered| *answered = after[*answered]);
        self.seen.iter_mut().for_each(|seen| seen.calls = after[seen.calls]);
        self.calls = order.iter().map(|at| self.calls[*at].clone()).collect();
    }
}
