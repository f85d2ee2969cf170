//! The whole queue as text: for tests, the CLI and bug reports alike.

use std::fmt::Write;

use crate::base::Now;
use crate::store::Snapshot;

use super::{Error, catalog, peek, stats};

/// A dump shows at most this many messages.
const MESSAGES_MAX: usize = 1000;
/// And this many bytes of each body.
const BODY_BYTES_MAX: usize = 60;

/// Prints one queue: its counts, then a line per message in the order of sending, each with its attempts.
///
/// # Errors
/// The queue does not exist, or a storage fault.
pub fn dump(snapshot: &Snapshot, name: &str, now: Now) -> Result<String, Error> {
    let queue = catalog::look_up(snapshot, name)?;
    let stats = stats::stats(snapshot, &queue, now)?;
    let mut out = format!("{name}: {} ready, {} delayed, {} in flight\n", stats.ready, stats.delayed, stats.in_flight);
    for message in peek::peek(snapshot, &queue, MESSAGES_MAX, BODY_BYTES_MAX, now)? {
        let until = message.visible_at.map(|at| format!(" {}s", at.since(now.wall).as_secs())).unwrap_or_default();
        let (phase, body) = (message.phase, message.body);
        let counts = format!("received {} charged {}", message.receive_count, message.attempts_charged);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {phase}{until} | {counts} | {body}");
        for attempt in message.history {
            let why = attempt.failure.map(|failure| failure.class()).unwrap_or_default();
            let _ = writeln!(out, "    #{} {:?} {why}", attempt.number, attempt.end);
        }
    }
    Ok(out)
}
