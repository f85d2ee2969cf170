//! A workload as the disks see it: every call to them, and what the store must hold after a power cut behind any of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::disk::{Bytes, Call, Machine, apply, open};
use super::log;
use super::watch::{Sight, Viewer};
use super::workload::{Length, Workload, any_length, short_length, whole};
use crate::harness::until;

/// The last frame of a group gets its mark within this time, however busy the machine is.
const MARK_MAX: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    /// The disks before the first step.
    pub(super) start: Bytes,
    pub(super) calls: Vec<Call>,
    /// The store's whole content: before the first step, and after each.
    pub(super) states: Vec<String>,
    /// The number of calls made when each step began: from then on the disks may hold it.
    pub(super) begun: Vec<usize>,
    /// The number of calls made when each step was answered: from then on the disks must hold it.
    pub(super) answered: Vec<usize>,
    /// The states that somebody saw.
    pub(super) seen: Vec<Seen>,
}

/// From that number of calls on, the disks must hold that state or a later one, because it was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) calls: usize,
    pub(super) state: usize,
    pub(super) by: Viewer,
}

impl Recording {
    /// Runs a workload of at least that many steps, each in one frame, and of as many as make that many generations: some
    /// faults are those of a checkpoint.
    pub(super) async fn make_with_generations(seed: u64, steps: usize, generations: usize) -> Self {
        for steps in (steps..20 * steps).step_by(steps) {
            let made = Self::record(seed, steps, short_length).await;
            if made.generations() >= generations {
                return made;
            }
        }
        panic!("the log never fills")
    }

    /// Runs a workload of that many steps.
    pub(super) async fn make(seed: u64, steps: usize) -> Self {
        Self::record(seed, steps, any_length).await
    }

    async fn record(seed: u64, steps: usize, length: Length) -> Self {
        let machine = Machine::holding(Bytes::default());
        let store = open(&machine).unwrap();
        let mut workload = Workload::around(&machine, store, seed, length).await;
        let start = machine.begin();
        let mut states = vec![whole(&workload.world.snapshot())];
        let (mut begun, mut answered) = (Vec::new(), Vec::new());
        for _ in 0..steps {
            begun.push(machine.calls());
            workload.run_step().await;
            answered.push(machine.calls());
            states.push(whole(&workload.world.snapshot()));
            // Otherwise the loss of the last frame could not be noticed.
            let marked = until("a mark behind the last frame", async || machine.is_marked().then_some(()));
            tokio::time::timeout(MARK_MAX, marked).await.expect("the last frame gets its mark at once");
        }
        let sights = workload.end();
        workload.world.check();
        let calls = machine.take_calls();
        let mut recording = Self { start, calls, states, begun, answered, seen: Vec::new() };
        recording.seen = sights.iter().map(|sight| recording.seen(sight)).collect();
        recording
    }

    /// The state that was seen: that of the last step answered before, or of one that ran then.
    fn seen(&self, sight: &Sight) -> Seen {
        let answered = self.acknowledged(sight.calls);
        let near = answered..self.states.len().min(answered + 3);
        let state = near.into_iter().find(|state| self.states[*state].contains(&sight.content));
        let Some(state) = state else {
            panic!("{:?} shows what no step left, after step {answered}:\n{}", sight.by, sight.content)
        };
        Seen { calls: sight.calls, state, by: sight.by }
    }

    /// The disks after that many calls, none of which is lost.
    pub(super) fn after(&self, calls: usize) -> Bytes {
        let mut bytes = self.start.clone();
        self.calls[..calls].iter().for_each(|call| apply(&mut bytes, call));
        bytes
    }

    /// How often the log went on in another segment.
    pub(super) fn generations(&self) -> usize {
        self.calls.iter().filter(|call| log::is_first_frame(call)).count()
    }

    /// How many steps wrote and have no frame, because they fit into no segment.
    pub(super) fn larger_than_a_segment(&self) -> usize {
        let has_frame = |step: &usize| self.calls[self.begun[*step]..self.answered[*step]].iter().any(log::is_frame);
        (0..self.begun.len()).filter(|step| self.states[*step] != self.states[step + 1] && !has_frame(step)).count()
    }

    /// How many steps were answered within the first calls.
    pub(super) fn acknowledged(&self, calls: usize) -> usize {
        self.answered.partition_point(|answered| *answered <= calls)
    }

    /// The states that the disks may hold after that many calls.
    pub(super) fn allowed(&self, calls: usize) -> RangeInclusive<usize> {
        let shown = self.seen.iter().filter(|seen| seen.calls <= calls).map(|seen| seen.state).max();
        let least = self.acknowledged(calls).max(shown.unwrap_or(0));
        let most = self.begun.partition_point(|begun| *begun < calls);
        least..=most.max(least)
    }
}
