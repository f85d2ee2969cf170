//! Dead letters grouped by the fingerprint of their last failure.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::{Attempt, Fingerprint, MessageId, Timestamp};
use crate::store::Snapshot;
use crate::store::record::{MessageState, QueueRecord};

use super::Error;

/// At most this many groups are listed; letters of further ones count as `other`.
pub const GROUPS_MAX: usize = 1000;

/// The letters that died of the same class of fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The fault's fingerprint; `None` for letters without a history and for those beyond [`GROUPS_MAX`].
    pub fingerprint: Option<Fingerprint>,
    /// The fault in words: kind, place, code.
    pub class: String,
    /// How many letters.
    pub count: u64,
    /// When the first of them died.
    pub first_at: Timestamp,
    /// When the last of them died.
    pub last_at: Timestamp,
    /// The error text of one of them.
    pub sample: String,
    /// The id of that one.
    pub sample_id: MessageId,
}

/// Groups the letters of a dead-letter queue, the largest group first.
///
/// # Errors
/// A storage fault.
pub fn groups(snapshot: &Snapshot, queue: &QueueRecord) -> Result<Vec<Group>, Error> {
    let mut groups: BTreeMap<Option<Fingerprint>, Group> = BTreeMap::new();
    let history = snapshot.history()?;
    let mut failed = None;
    snapshot.states()?.scan((queue.id, 0)..=(queue.id, u64::MAX), |_, state| {
        match history.last((state.body, 0)..=(state.body, u32::MAX)) {
            Ok(last) => add(&mut groups, &state, last.map(|(_, attempt)| attempt)),
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.class.cmp(&b.class)));
    Ok(groups)
}

fn add(groups: &mut BTreeMap<Option<Fingerprint>, Group>, state: &MessageState, last: Option<Attempt>) {
    let died_at = last.as_ref().map_or(state.sent_at, |attempt| attempt.ended_at);
    let failure = last.and_then(|attempt| attempt.failure);
    let mut fingerprint = failure.as_ref().map(crate::base::Failure::fingerprint);
    let mut class = failure.as_ref().map_or_else(|| "no recorded failure".into(), crate::base::Failure::class);
    if groups.len() >= GROUPS_MAX && !groups.contains_key(&fingerprint) {
        (fingerprint, class) = (None, "other".into());
    }
    let group = groups.entry(fingerprint).or_insert_with(|| Group {
        fingerprint,
        class,
        count: 0,
        first_at: died_at,
        last_at: died_at,
        sample: failure.map(|failure| failure.text).unwrap_or_default(),
        sample_id: state.message_id,
    });
    group.count += 1;
    group.first_at = group.first_at.min(died_at);
    group.last_at = group.last_at.max(died_at);
}
