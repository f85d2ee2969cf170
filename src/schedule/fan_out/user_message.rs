//! The message that a user of a run gets.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::function::statement::User;
use crate::queue::Send;
use crate::run::{identity, ledger};
use crate::store::record::RunRecord;

/// The body of the message for one user.
#[derive(Debug, Serialize)]
struct UserMessage<'a> {
    run: u64,
    /// Identifies the run independently of its number: see [`crate::run::identity`].
    identity: &'a str,
    user: &'a User,
    params: &'a BTreeMap<String, String>,
}

/// The message for one user.
pub(super) fn user_message(run: &RunRecord, user: &User) -> Send {
    let identity = identity(&run.schedule, &run.params, run.scheduled_for);
    let message = UserMessage { run: run.id, identity: &identity, user, params: &run.params };
    let body = serde_json::to_vec(&message).expect("text and numbers always serialise");
    Send { run: run.id, recipient: ledger::user_key(&user.id, user.account()), ..Send::text(body) }
}
