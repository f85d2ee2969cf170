//! What every side of the comparison does.

use std::ops::Range;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

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

impl<S: Side + 'static> Started<S> {
    /// The same, whatever type of side it is.
    pub(crate) fn boxed(self) -> Started<Box<dyn AnySide>> {
        Started { version: self.version, side: Box::new(self.side) }
    }
}

/// A [`Side`] whose type is not known, so that all sides can take turns.
pub(crate) trait AnySide {
    /// As [`Side::pid`].
    fn pid(&self) -> u32;

    /// As [`Side::produce`].
    fn produce(&mut self, producers: usize, numbers: Range<u64>) -> LocalBoxFuture<'_, anyhow::Result<Duration>>;

    /// As [`Side::consume`].
    fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> LocalBoxFuture<'_, anyhow::Result<Duration>>;

    /// As [`Side::end`].
    fn end(self: Box<Self>) -> LocalBoxFuture<'static, anyhow::Result<()>>;
}

impl<S: Side + 'static> AnySide for S {
    fn pid(&self) -> u32 {
        Side::pid(self)
    }

    fn produce(&mut self, producers: usize, numbers: Range<u64>) -> LocalBoxFuture<'_, anyhow::Result<Duration>> {
        Side::produce(self, producers, numbers).boxed_local()
    }

    fn consume(&mut self, consumers: usize, numbers: Range<u64>) -> LocalBoxFuture<'_, anyhow::Result<Duration>> {
        Side::consume(self, consumers, numbers).boxed_local()
    }

    fn end(self: Box<Self>) -> LocalBoxFuture<'static, anyhow::Result<()>> {
        Side::end(*self).boxed_local()
    }
}
