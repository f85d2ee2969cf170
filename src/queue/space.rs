//! Whether the disk has room for another message. Sends stop before the disk is full, so that operations that free
//! space or end messages (receive, delete, dead-lettering, redrive) can still write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::units;

use super::Error;

/// The last measured free space of the store's file system, and the reserve.
#[derive(Debug)]
pub struct Space {
    /// In bytes; written by the loop that measures it, unlimited until then.
    free_bytes: AtomicU64,
    /// Sends stop when less than this is free; zero keeps nothing.
    reserve_bytes: u64,
    /// Queues that functions work on: their sends stop only at half the reserve, so that other queues cannot use up
    /// their space.
    served: BTreeSet<String>,
}

impl Space {
    /// No limit: for stores whose disk is not measured.
    pub fn unlimited() -> Self {
        Self::new(0, BTreeSet::new())
    }

    /// Reserves `reserve_bytes`, half of them for the queues in `served` alone.
    pub fn new(reserve_bytes: u64, served: BTreeSet<String>) -> Self {
        Self { free_bytes: AtomicU64::new(u64::MAX), reserve_bytes, served }
    }

    /// Records how many bytes are free now.
    pub fn saw(&self, free_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
    }

    /// The bytes that are kept free; zero keeps nothing.
    pub const fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// The least free space, in bytes, at which `queue` takes messages.
    pub fn least(&self, queue: &str) -> u64 {
        if self.served.contains(queue) { self.reserve_bytes / 2 } else { self.reserve_bytes }
    }

    /// Checks that `queue` may take another message.
    ///
    /// # Errors
    /// [`Error::DiskFull`] names the queue, the free space, the limit and the remedy.
    pub fn admit(&self, queue: &str) -> Result<(), Error> {
        let (free, least) = (self.free_bytes.load(Ordering::Relaxed), self.least(queue));
        if free >= least {
            return Ok(());
        }
        let (free, least) = (units::show_size(free), units::show_size(least));
        Err(Error::DiskFull { queue: queue.chars().take(100).collect(), free, least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ordinary_queues_stop_at_the_reserve_and_those_of_functions_at_half_of_it() {
        let space = Space::new(256 * MIB, BTreeSet::from(["statements".to_owned()]));
        let taken = |free| {
            space.saw(free);
            (space.admit("notes").is_ok(), space.admit("statements").is_ok())
        };
        assert_eq!(taken(256 * MIB), (true, true));
        assert_eq!(taken(256 * MIB - 1), (false, true));
        assert_eq!(taken(128 * MIB), (false, true));
        assert_eq!(taken(128 * MIB - 1), (false, false));
        assert_eq!(taken(0), (false, false));
        assert_eq!(taken(300 * MIB), (true, true), "it goes on as soon as there is room");
    }

    #[test]
    fn a_refusal_names_the_queue_the_space_the_limit_and_the_remedy() {
        let space = Space::new(256 * MIB, BTreeSet::new());
        assert_eq!(space.admit("notes"), Ok(()), "nobody has looked at the disk yet");
        space.saw(12 * MIB);
        insta::assert_snapshot!(space.admit("notes").unwrap_err(), @r#"queue "notes" takes no message now: 12.0 MiB are free on the disk of the store, less than the 256.0 MiB that are kept (free some space there; `nightmail compact` gives back what deleted messages took; or lower store.reserve)"#);
    }

    #[test]
    fn a_disk_that_nobody_watches_is_never_full() {
        let space = Space::unlimited();
        space.saw(0);
        assert_eq!(space.admit("notes"), Ok(()));
    }
}
