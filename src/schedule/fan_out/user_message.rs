//! The message that a user of a run gets.

use serde_json::value::RawValue;

use crate::function::statement::User;
use crate::queue::Send;
use crate::run::{ledger, message};
use crate::store::record::RunRecord;

/// The user as JSON, for the message and for the ledger.
pub(super) fn user_record(user: &User) -> Box<RawValue> {
    serde_json::value::to_raw_value(user).expect("text always serialises")
}

/// The message for one user, whose record is `record`.
pub(super) fn user_message(run: &RunRecord, user: &User, record: &RawValue) -> Send {
    message::message(run, ledger::user_key(&user.id, user.account()), record)
}
