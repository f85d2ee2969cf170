//! The message that mails one recipient of a run: what the fan-out sends, and what sends it again.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::queue::Send;
use crate::store::record::RunRecord;

use super::identity;

/// The recipient of the message that starts a run's fan-out: none.
pub(super) const FAN_OUT: [u8; 16] = [0; 16];

#[derive(Debug, Serialize)]
struct Body<'a> {
    run: u64,
    /// Identifies the run independently of its number: see [`identity`].
    identity: &'a str,
    user: &'a RawValue,
    params: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'a str>,
}

/// The message for the recipient of that row, whose user record is `user`.
pub fn message(run: &RunRecord, recipient: [u8; 16], user: &RawValue) -> Send {
    with_purpose(run, recipient, user, None)
}

/// The same for another mail than the run's own.
pub(super) fn with_purpose(run: &RunRecord, recipient: [u8; 16], user: &RawValue, purpose: Option<&str>) -> Send {
    let identity = identity(&run.schedule, &run.params, run.scheduled_for);
    let body = Body { run: run.id, identity: &identity, user, params: &run.params, purpose };
    let body = serde_json::to_vec(&body).expect("text and numbers always serialise");
    Send { run: run.id, recipient, ..Send::text(body) }
}
