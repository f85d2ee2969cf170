//! The clock as a value that is passed in, so that tests move time by hand.
//!
//! Only this module reads the wall clock; every module above takes a [`Timestamp`] or a [`Clock`] as an argument.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of wall-clock time in whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every moment that the store can hold.
    pub const MAX: Self = Self(u64::MAX);

    /// Makes a moment from milliseconds since the Unix epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Makes a moment from whole seconds since the Unix epoch.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment plus a span; stops at [`Timestamp::MAX`].
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same moment for calendar arithmetic; `None` beyond the year 9999.
    pub fn to_jiff(self) -> Option<jiff::Timestamp> {
        i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
    }

    /// Converts from jiff; moments before 1970 become [`Timestamp::ZERO`].
    pub fn from_jiff(moment: jiff::Timestamp) -> Self {
        Self(u64::try_from(moment.as_millisecond()).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_jiff() {
            Some(moment) => write!(f, "{moment:.3}"),
            None => f.write_str("never"),
        }
    }
}

/// A moment of lease time in whole milliseconds: it starts at the wall clock's time when the process starts and runs
/// steadily from then on, whatever happens to the wall clock. Leases, delays, back-off, deduplication windows and
/// deadlines of attempts run on it.
///
/// Both times are milliseconds since 1970, and differ after the wall clock was set: hence two types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseTime(u64);

impl LeaseTime {
    /// Before every moment of a process's life.
    pub const ZERO: Self = Self(0);

    /// Makes a moment from milliseconds, as a record stores it.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds, as a record stores them.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment plus a span; stops at the greatest moment.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The span from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For calendars, records that people read, retention and expiry.
    pub wall: Timestamp,
    /// For leases, delays and deadlines of attempts.
    pub lease: LeaseTime,
}

impl Now {
    /// The wall time of a moment of lease time, by the clocks as they stand now.
    pub fn wall_of(self, moment: LeaseTime) -> Timestamp {
        let wall = self.wall.as_millis().saturating_sub(self.lease.since(moment).as_millis() as u64);
        Timestamp::from_millis(wall).after(moment.since(self.lease))
    }
}

/// Tells the time. Everything below the daemon is given one of these or a moment.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall-clock time. It may jump when an operator sets the clock.
    fn wall(&self) -> Timestamp;

    /// Time since some fixed moment of this process's life; never goes back.
    fn monotonic(&self) -> Duration;

    /// Lease time; see [`LeaseTime`].
    fn lease(&self) -> LeaseTime;

    /// Both times at one moment.
    fn now(&self) -> Now {
        Now { wall: self.wall(), lease: self.lease() }
    }
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    /// Set when the clock is made; [`Clock::monotonic`] counts from it.
    started: std::time::Instant,
    /// The wall time at that moment; lease time counts from it.
    started_at: Timestamp,
}

impl SystemClock {
    /// Starts counting monotonic time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn new() -> Self {
        Self { started: std::time::Instant::now(), started_at: system_wall_time() }
    }

    /// The same, ready to be shared.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        system_wall_time()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn lease(&self) -> LeaseTime {
        LeaseTime(self.started_at.as_millis()).after(self.started.elapsed())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn system_wall_time() -> Timestamp {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::ZERO.after(since_epoch)
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    /// Wall time in ms; moved by [`ManualClock::advance`] and [`ManualClock::set`].
    wall_ms: AtomicU64,
    /// Monotonic time in ms; moved by [`ManualClock::advance`] alone.
    monotonic_ms: AtomicU64,
    /// Lease time in ms; moved by [`ManualClock::advance`] and [`ManualClock::restart`].
    lease_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Arc<Self> {
        let ms = || AtomicU64::new(now.as_millis());
        Arc::new(Self { wall_ms: ms(), monotonic_ms: AtomicU64::new(0), lease_ms: ms() })
    }

    /// Lets `span` pass on all clocks.
    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        for clock in [&self.wall_ms, &self.monotonic_ms, &self.lease_ms] {
            clock.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Sets the wall clock, as an operator does; the others do not move.
    pub fn set(&self, now: Timestamp) {
        self.wall_ms.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Begins another life of the process: lease time starts at the wall clock's time.
    pub fn restart(&self) {
        self.lease_ms.store(self.wall_ms.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn lease(&self) -> LeaseTime {
        LeaseTime(self.lease_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_moves_no_lease() {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        clock.advance(Duration::from_secs(5));
        clock.set(Timestamp::from_secs(400));
        let now = clock.now();
        assert_eq!((now.wall, now.lease.as_millis()), (Timestamp::from_secs(400), 1_005_000));
        assert_eq!(now.wall_of(now.lease.after(Duration::from_secs(7))), Timestamp::from_secs(407));
        assert_eq!(now.wall_of(LeaseTime::from_millis(1_000_000)), Timestamp::from_secs(395));
        clock.restart();
        assert_eq!(clock.lease(), LeaseTime::from_millis(400_000));
    }
}
