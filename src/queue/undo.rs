//! Undoes a receive whose caller went away before it had the answer: nobody has seen the messages, so nothing of the
//! receive stays. Fenced by the lease: what was received again or has ended since is left alone.

use crate::base::{LeaseTime, Timestamp};
use crate::store::record::{MessageState, Owner, Phase};
use crate::store::{self, Tx};

use super::state::Key;
use super::{group, messages};

/// A message as it was before a receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    key: Key,
    /// The lease of the receive.
    lease: u64,
    before: Before,
    /// The turn of its FIFO queue's group.
    turn: u64,
}

/// What a receive changes, beside phase and visibility.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    owner: Owner,
    first_received_at: Timestamp,
    received_at: LeaseTime,
    receive_count: u32,
    attempts_charged: u32,
    attempts: u32,
    lease: u64,
}

impl Undo {
    /// How to undo the receive that took the message from the state `old` under `lease`, when its group had that turn.
    pub(super) fn of(key: Key, old: &MessageState, lease: u64, turn: u64) -> Self {
        let before = Before {
            owner: old.owner,
            first_received_at: old.first_received_at,
            received_at: old.received_at,
            receive_count: old.receive_count,
            attempts_charged: old.attempts_charged,
            attempts: old.attempts,
            lease: old.lease,
        };
        Self { key, lease, before, turn }
    }
}

/// Undoes one receive, the last message first.
///
/// # Errors
/// A storage fault.
pub(super) fn undo(tx: &mut Tx<'_>, receives: &[Undo]) -> Result<(), store::Error> {
    for Undo { key, lease, before, turn } in receives.iter().rev() {
        let Some(state) = tx.states()?.get(key)?.filter(|state| state.lease == *lease) else { continue };
        let back = MessageState {
            phase: Phase::Ready,
            owner: before.owner,
            visible_at: LeaseTime::ZERO,
            first_received_at: before.first_received_at,
            received_at: before.received_at,
            receive_count: before.receive_count,
            attempts_charged: before.attempts_charged,
            attempts: before.attempts,
            lease: before.lease,
            ..state.clone()
        };
        messages::update(tx, *key, &state, &back)?;
        if let Some(group) = state.group {
            group::restore_turn(tx, (key.0, group), *lease, *turn)?;
        }
    }
    Ok(())
}
