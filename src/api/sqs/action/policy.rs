//! The Policy of a queue, as AddPermission and RemovePermission change it.

use serde_json::Value;

use super::super::call::Call;
use super::super::error::{Code, Error};

const POLICY: &str = "Policy";

/// Changes the queue's Policy; one without statements is removed. Two changes at once cannot lose one of them: the
/// policy is compared when it is written.
pub(super) async fn change(
    call: &Call<'_>,
    queue: &str,
    change: impl FnOnce(Option<Value>) -> Result<Value, Error>,
) -> Result<(), Error> {
    let id = call.queues().queue(queue)?.id;
    let before = call.queues().kept_attributes(id)?.remove(POLICY);
    let policy = before.as_deref().map(|text| serde_json::from_str(text).map_err(|_| unreadable())).transpose()?;
    let mut policy = change(policy)?;
    let is_empty = statements(&mut policy)?.is_empty();
    let after = if is_empty { String::new() } else { policy.to_string() };
    call.queues().exchange_kept(queue, POLICY, before, after).await?;
    Ok(())
}

/// The statements of a policy.
pub(super) fn statements(policy: &mut Value) -> Result<&mut Vec<Value>, Error> {
    let policy = policy.as_object_mut().ok_or_else(unreadable)?;
    let statements = policy.entry("Statement").or_insert_with(|| Value::Array(Vec::new()));
    statements.as_array_mut().ok_or_else(unreadable)
}

/// Whether the statement has that name.
pub(super) fn is_named(statement: &Value, label: &str) -> bool {
    statement.get("Sid").and_then(Value::as_str) == Some(label)
}

fn unreadable() -> Error {
    Error::new(Code::InvalidAttributeValue, "Invalid value for the parameter Policy. Reason: It is not a policy.")
}
