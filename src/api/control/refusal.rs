//! Refusals of the modules as the control interface words them: an operator knows flags, not the fields of SQS's API.

use std::time::Duration;

use crate::base::units;
use crate::queue;

/// The text of a refusal.
pub(super) fn text(error: &queue::Error) -> String {
    use queue::Error as E;
    match error {
        E::GroupMissing(queue) => format!("queue {queue:?} is a FIFO queue and wants a message group (give --group)"),
        E::DeduplicationMissing(queue) => format!(
            "queue {queue:?} is a FIFO queue and wants a deduplication id (give --deduplication-id, or set \
             content_based_deduplication on the queue)"
        ),
        E::Identifier { what, got } => E::Identifier { what: flag(what), got: got.clone() }.to_string(),
        E::OutOfRange { what: "DelaySeconds", min, max, got } => {
            let [min, max, got] = [min, max, got].map(|seconds| units::show_duration(Duration::from_secs(*seconds)));
            format!("--delay: must be {min} to {max} (got {got})")
        }
        E::OutOfRange { what, min, max, got } => {
            E::OutOfRange { what: flag(what), min: *min, max: *max, got: *got }.to_string()
        }
        E::NotOnFifo { queue, what, why } => {
            E::NotOnFifo { queue: queue.clone(), what: flag(what), why: flag(why) }.to_string()
        }
        E::OnlyOnFifo { queue, what } => E::OnlyOnFifo { queue: queue.clone(), what: flag(what) }.to_string(),
        E::Attribute { name, why } => format!("--attribute {name}: {why}"),
        E::Token(_) | E::TokenOfAnother => format!("--{error}"),
        E::UnknownFingerprint { .. } | E::UnknownRun { .. } => format!("--where {error}"),
        E::RedriveToItself(queue) => format!(
            "queue {queue:?} cannot be driven back to itself (name another queue with --to, or none for each letter's \
             source)"
        ),
        E::RedriveRunning { id, queue } => {
            format!("redrive {id} of queue {queue:?} is still running (`nightmail redrive --cancel {id}` stops it)")
        }
        other => other.to_string(),
    }
}

/// The flag of `nightmail send` for a field of SQS's API, and for a remedy that names one.
fn flag(field: &'static str) -> &'static str {
    match field {
        "MessageGroupId" => "--group",
        "MessageDeduplicationId" => "--deduplication-id",
        "DelaySeconds" => "--delay",
        "priority" => "--priority",
        "a unique key" => "--unique",
        "bytes of a unique key" => "bytes of --unique",
        "seconds of a throttled key" => "seconds of --unique-mode throttle",
        "use MessageDeduplicationId" => "use --deduplication-id",
        other => other,
    }
}
