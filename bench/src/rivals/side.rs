//! What every side of the comparison does.

use std::ops::Range;
use std::time::Duration;

/// A started queue with its clients.
pub(crate) trait Side {
    /// The process that writes to the disk.
    fn pid(&self) -> u32;

    /// Sends the messages of these numbers by `producers` at once; each sends one, awaits its answer, sends the next.
    /// The time is without connecting.
    async fn produce(&mut self, producers: usize, numbers: Range<u64>) -> anyhow::Result<Duration>;

    /// Takes and acknowledges these messages, one at a time by each of `consumers`, and checks that each came once. The
    /// time is without connecting and ends with the last acknowledgement.
    async fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> anyhow::Result<Duration>;

    /// Ends the server, if there is one.
    async fn end(self) -> anyhow::Result<()>;
}

/// A started rival and what it is.
pub(crate) struct Started<S> {
    pub(crate) version: String,
    pub(crate) side: S,
}
