//! Whether the effect of an attempt may have happened, while the attempt can still be cut off.
//!
//! An effect that goes on without its caller, as a mail's dialogue does, holds an [`EffectInProgress`]. It marks the
//! moment from which the effect cannot be taken back; before that moment it stops when the attempt is aborted. So an
//! aborted attempt leaves a doubt only when that moment had come.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::base::Effect;

/// An effect that was told to stop answers within one poll; one that has not answered after this counts as unknown.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// One attempt's flag; clones share it. The function of the attempt sets it, and the pool reads it when it cuts the
/// attempt off.
#[derive(Clone, Debug, Default)]
pub struct EffectFlag(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    phase: Phase,
    /// Set once, when the pool has cut the attempt off.
    is_aborted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is none, or it ended without a doubt.
    #[default]
    None,
    /// Under way, and it can still be stopped.
    InProgress,
    /// It may have happened.
    Begun,
}

impl EffectFlag {
    /// Announces an effect that will go on without its caller. Call it before the first await that could be cut off.
    pub fn start(&self) -> EffectInProgress {
        self.set(Phase::InProgress);
        EffectInProgress { flag: self.clone() }
    }

    /// Stops an effect that is under way but has not begun, and answers whether one may have happened. Call it when the
    /// attempt was cut off and its future is gone.
    pub async fn abort(&self) -> Effect {
        self.0.send_modify(|state| state.is_aborted = true);
        let mut state = self.0.subscribe();
        let ended = timeout(STOPS_WITHIN, state.wait_for(|state| state.phase != Phase::InProgress)).await;
        match ended {
            Ok(Ok(state)) if state.phase == Phase::None => Effect::None,
            _ => Effect::Unknown,
        }
    }

    fn set(&self, phase: Phase) {
        self.0.send_modify(|state| state.phase = phase);
    }
}

/// An effect that is under way. Dropping it before [`EffectInProgress::begin`] means that there was none.
#[derive(Debug)]
pub struct EffectInProgress {
    flag: EffectFlag,
}

impl EffectInProgress {
    /// From now on the effect may have happened, and an abort does not stop it any more.
    pub fn begin(&self) {
        self.flag.set(Phase::Begun);
    }

    /// The other side has answered that it did not happen.
    pub fn refused(&self) {
        self.flag.set(Phase::InProgress);
    }

    /// Completes when the attempt was aborted before [`EffectInProgress::begin`]: the effect must stop now.
    pub async fn aborted(&self) {
        let mut state = self.flag.0.subscribe();
        // The sender is `self.flag`, so the wait cannot fail.
        let _ = state.wait_for(|state| state.is_aborted && state.phase != Phase::Begun).await;
    }
}

impl Drop for EffectInProgress {
    fn drop(&mut self) {
        self.flag.0.send_if_modified(|state| {
            let is_open = state.phase == Phase::InProgress;
            state.phase = if is_open { Phase::None } else { state.phase };
            is_open
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_aborted_attempt_is_in_doubt_only_once_its_effect_has_begun() {
        assert_eq!(EffectFlag::default().abort().await, Effect::None, "it had no effect under way");
        let flag = EffectFlag::default();
        drop(flag.start());
        assert_eq!(flag.abort().await, Effect::None, "it was dropped before it began");
        let flag = EffectFlag::default();
        let effect = flag.start();
        effect.begin();
        assert_eq!(flag.abort().await, Effect::Unknown);
        drop(effect);
        assert_eq!(flag.abort().await, Effect::Unknown, "its end tells nothing");
        let flag = EffectFlag::default();
        let effect = flag.start();
        effect.begin();
        effect.refused();
        drop(effect);
        assert_eq!(flag.abort().await, Effect::None);
    }

    #[tokio::test]
    async fn an_effect_under_way_stops_at_the_abort_and_the_abort_waits_for_it() {
        let flag = EffectFlag::default();
        let effect = flag.start();
        let stopped = tokio::spawn(async move { effect.aborted().await });
        assert_eq!(flag.abort().await, Effect::None);
        stopped.await.unwrap();

        let flag = EffectFlag::default();
        let late = flag.start();
        let answers = async {
            tokio::task::yield_now().await;
            late.begin();
        };
        assert_eq!(tokio::join!(flag.abort(), answers).0, Effect::Unknown, "it began before it heard of the abort");
    }

    #[tokio::test]
    async fn an_effect_that_does_not_answer_is_in_doubt() {
        let flag = EffectFlag::default();
        let _deaf = flag.start();
        assert_eq!(flag.abort().await, Effect::Unknown);
    }
}
