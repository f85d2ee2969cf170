//! The fixed-layout records of sums: counts of a queue, totals of a run or redrive.

use super::Record;
use super::layout::{Reader, encode_numbers};

/// Exact numbers of messages in a queue, by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready messages.
    pub ready: u64,
    /// Delayed messages, including those that are due but not yet moved to the ready index.
    pub delayed: u64,
    /// Messages in flight, including those whose lease has run out but which no receive has returned yet.
    pub in_flight: u64,
    /// The bytes of all bodies.
    pub bytes: u64,
    /// Messages that wait for the end of the holder of their unique key. They are in no phase yet, but count towards
    /// the queue's limits.
    pub followers: u64,
    /// Their bytes, which are not in `bytes`.
    pub follower_bytes: u64,
}

impl Counts {
    /// All messages of the queue.
    pub const fn total(&self) -> u64 {
        self.ready + self.delayed + self.in_flight
    }
}

const COUNTS_VERSION: u8 = 2;
const COUNTS_BYTES: usize = 1 + 6 * 8;
/// Version 1 did not count followers.
const COUNTS_BYTES_1: usize = 1 + 4 * 8;

impl Record for Counts {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.ready, self.delayed, self.in_flight, self.bytes, self.followers, self.follower_bytes];
        encode_numbers(COUNTS_VERSION, &numbers)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let is_1 = bytes.first() == Some(&1);
        let mut read = match is_1 {
            true => Reader::of(bytes, COUNTS_BYTES_1)?,
            false => Reader::new(bytes, COUNTS_VERSION, COUNTS_BYTES)?,
        };
        let mut counts = Self {
            ready: read.u64(),
            delayed: read.u64(),
            in_flight: read.u64(),
            bytes: read.u64(),
            ..Self::default()
        };
        if !is_1 {
            (counts.followers, counts.follower_bytes) = (read.u64(), read.u64());
        }
        Ok(counts)
    }
}

/// The recipients of a run by final state. The rest are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Recipients that the users API named, malformed ones included, repeated ones not.
    pub fetched: u64,
    /// Recipients whose mail the relay accepted.
    pub sent: u64,
    /// Recipients whose message is in a dead-letter queue.
    pub dead: u64,
    /// Recipients whose message was purged, expired or deleted.
    pub withdrawn: u64,
    /// Records that named a recipient again; not in `fetched`.
    pub repeated: u64,
    /// Attempts that may have sent their mail although that was never answered.
    pub interrupted: u64,
    /// Recipients of whom it is unknown whether the relay took their mail; nobody mails them unless told to.
    pub unknown: u64,
    /// Recipients whom a rule left out.
    pub skipped: u64,
    /// Recipients on the suppression list.
    pub suppressed: u64,
    /// Messages that were deleted without a mail, because their recipient's mail was sent or is unknown already.
    pub copies: u64,
    /// Of those withdrawn, the recipients that an abandoned refetch had added.
    pub refetch_abandoned: u64,
    /// Mails beside the run's own that have not ended: resends on their way.
    pub resending: u64,
    /// Mails beside the run's own of which it is unknown whether the relay took them.
    pub resends_unknown: u64,
    /// The statements that were made before the run's release.
    pub renderings: RenderingTotals,
    /// What happened in each phase. No row tells it, so a recount takes it as it is.
    pub phases: PhaseTotals,
}

/// What happened in each phase of a run so far. What is done again, counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTotals {
    /// Reading the users.
    pub fetch: PhaseCounts,
    /// Fetching accounts and making statements.
    pub render: PhaseCounts,
    /// Checking statements before the first is mailed.
    pub check: PhaseCounts,
    /// Mailing.
    pub send: PhaseCounts,
}

/// What happened in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseCounts {
    /// Left out: records that named a user again, addresses on the suppression list.
    pub filtered: u64,
    /// Gone through.
    pub done: u64,
    /// Passed over: recipients of an earlier fetch, accounts that a rule leaves out, statements over a limit, copies.
    pub skipped: u64,
    /// Failed, and tried again.
    pub retried: u64,
    /// Failed for good, or in doubt.
    pub dead: u64,
}

impl PhaseCounts {
    const COUNT: usize = 5;

    /// All that the phase has looked at.
    pub const fn read(&self) -> u64 {
        self.filtered + self.done + self.skipped + self.retried + self.dead
    }

    const fn numbers(&self) -> [u64; Self::COUNT] {
        [self.filtered, self.done, self.skipped, self.retried, self.dead]
    }

    fn of(read: &mut Reader<'_>) -> Self {
        let (filtered, done, skipped) = (read.u64(), read.u64(), read.u64());
        Self { filtered, done, skipped, retried: read.u64(), dead: read.u64() }
    }
}

/// The recipients whose statement was made before it may be mailed, whatever became of them since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenderingTotals {
    /// How many.
    pub statements: u64,
    /// The pages of their statements.
    pub pages: u64,
    /// The bytes of their statements.
    pub bytes: u64,
    /// Statements without transactions.
    pub empty: u64,
    /// Statements over a limit of the gate.
    pub over: u64,
    /// Those of the recipients that are open.
    pub open: u64,
}

impl RenderingTotals {
    /// The sums with those of `other`.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            statements: self.statements + other.statements,
            pages: self.pages + other.pages,
            bytes: self.bytes + other.bytes,
            empty: self.empty + other.empty,
            over: self.over + other.over,
            open: self.open + other.open,
        }
    }

    /// The sums without those of `other`, which are part of them.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            statements: self.statements - other.statements,
            pages: self.pages - other.pages,
            bytes: self.bytes - other.bytes,
            empty: self.empty - other.empty,
            over: self.over - other.over,
            open: self.open - other.open,
        }
    }
}

impl RunTotals {
    /// Open recipients whose statement was not made yet.
    pub const fn unrendered(&self) -> u64 {
        self.open().saturating_sub(self.renderings.open)
    }

    /// Recipients whose message has not ended.
    pub const fn open(&self) -> u64 {
        let ended = self.sent + self.dead + self.withdrawn + self.unknown + self.skipped + self.suppressed;
        self.fetched.saturating_sub(ended)
    }
}

const TOTALS_VERSION: u8 = 4;
const TOTALS_BYTES: usize = 1 + (19 + 4 * PhaseCounts::COUNT) * 8;
/// Version 3 counted neither what was made before a release nor what happened in phases.
const TOTALS_BYTES_3: usize = 1 + 13 * 8;
/// Version 2 counted neither resends nor what an abandoned refetch had added.
const TOTALS_BYTES_2: usize = 1 + 10 * 8;
/// Version 1 knew neither doubts that are held, nor recipients that are left out, nor copies.
const TOTALS_BYTES_1: usize = 1 + 6 * 8;

impl Record for RunTotals {
    fn encode(&self) -> Vec<u8> {
        let ended = [self.fetched, self.sent, self.dead, self.withdrawn, self.repeated, self.interrupted];
        let others = [self.unknown, self.skipped, self.suppressed, self.copies];
        let again = [self.refetch_abandoned, self.resending, self.resends_unknown];
        let RenderingTotals { statements, pages, bytes, empty, over, open } = self.renderings;
        let renderings = [statements, pages, bytes, empty, over, open];
        let PhaseTotals { fetch, render, check, send } = self.phases;
        let phases = [fetch, render, check, send].map(|phase| phase.numbers());
        encode_numbers(TOTALS_VERSION, &[&ended[..], &others, &again, &renderings, &phases.concat()].concat())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let version = bytes.first().copied().unwrap_or_default();
        let mut read = match version {
            1 => Reader::of(bytes, TOTALS_BYTES_1)?,
            2 => Reader::of(bytes, TOTALS_BYTES_2)?,
            3 => Reader::of(bytes, TOTALS_BYTES_3)?,
            _ => Reader::new(bytes, TOTALS_VERSION, TOTALS_BYTES)?,
        };
        let mut totals = Self {
            fetched: read.u64(),
            sent: read.u64(),
            dead: read.u64(),
            withdrawn: read.u64(),
            repeated: read.u64(),
            interrupted: read.u64(),
            ..Self::default()
        };
        if version >= 2 {
            (totals.unknown, totals.skipped) = (read.u64(), read.u64());
            (totals.suppressed, totals.copies) = (read.u64(), read.u64());
        }
        if version >= 3 {
            (totals.refetch_abandoned, totals.resending) = (read.u64(), read.u64());
            totals.resends_unknown = read.u64();
        }
        if version >= 4 {
            totals.renderings = RenderingTotals {
                statements: read.u64(),
                pages: read.u64(),
                bytes: read.u64(),
                empty: read.u64(),
                over: read.u64(),
                open: read.u64(),
            };
            totals.phases = PhaseTotals {
                fetch: PhaseCounts::of(&mut read),
                render: PhaseCounts::of(&mut read),
                check: PhaseCounts::of(&mut read),
                send: PhaseCounts::of(&mut read),
            };
        }
        Ok(totals)
    }
}

/// The outcomes of one redrive's letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedriveTotals {
    /// They were processed.
    pub succeeded: u64,
    /// They died again.
    pub failed: u64,
    /// They were removed without an outcome: purged or expired.
    pub withdrawn: u64,
    /// An undo returned them to the dead-letter queue.
    pub undone: u64,
}

impl RedriveTotals {
    /// Letters that have ended in any way.
    pub const fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.withdrawn + self.undone
    }
}

const REDRIVE_TOTALS_VERSION: u8 = 1;
const REDRIVE_TOTALS_BYTES: usize = 1 + 4 * 8;

impl Record for RedriveTotals {
    fn encode(&self) -> Vec<u8> {
        encode_numbers(REDRIVE_TOTALS_VERSION, &[self.succeeded, self.failed, self.withdrawn, self.undone])
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut read = Reader::new(bytes, REDRIVE_TOTALS_VERSION, REDRIVE_TOTALS_BYTES)?;
        Ok(Self { succeeded: read.u64(), failed: read.u64(), withdrawn: read.u64(), undone: read.u64() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_sum_reads_back_as_it_was_written() {
        let counts = Counts { ready: 1, delayed: 2, in_flight: 3, bytes: 4, followers: 5, follower_bytes: 6 };
        assert_eq!(Counts::decode(&counts.encode()), Ok(counts));
        let totals = RunTotals { fetched: 19, sent: 1, dead: 2, withdrawn: 3, repeated: 4, interrupted: 5, ..rest() };
        assert_eq!(RunTotals::decode(&totals.encode()), Ok(totals));
        assert_eq!(totals.open(), 19 - (1 + 2 + 3 + 6 + 1 + 2));
        assert_eq!(totals.unrendered(), totals.open() - 1);
        let twice = totals.renderings.plus(totals.renderings);
        assert_eq!(twice.minus(totals.renderings), totals.renderings);
        let totals = RedriveTotals { succeeded: 1, failed: 2, withdrawn: 3, undone: 4 };
        assert_eq!(RedriveTotals::decode(&totals.encode()), Ok(totals));
        assert_eq!(totals.ended(), 10);
    }

    /// What version 1 of the totals did not have.
    fn rest() -> RunTotals {
        let (unknown, skipped, suppressed, copies) = (6, 1, 2, 8);
        let (refetch_abandoned, resending, resends_unknown) = (9, 10, 11);
        let rest = RunTotals { unknown, skipped, suppressed, copies, ..RunTotals::default() };
        let renderings = RenderingTotals { statements: 12, pages: 13, bytes: 14, empty: 15, over: 16, open: 1 };
        let phase = |n| PhaseCounts { filtered: n, done: n + 1, skipped: n + 2, retried: n + 3, dead: n + 4 };
        let phases = PhaseTotals { fetch: phase(20), render: phase(30), check: phase(40), send: phase(50) };
        assert_eq!(phases.fetch.read(), 20 + 21 + 22 + 23 + 24);
        RunTotals { refetch_abandoned, resending, resends_unknown, renderings, phases, ..rest }
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Counts::decode(&bytes);
            let _ = RunTotals::decode(&bytes);
            let _ = RedriveTotals::decode(&bytes);
        }
    }
}
