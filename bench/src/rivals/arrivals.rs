//! Checks for a comparison that every message arrived exactly once.

use std::ops::Range;

use anyhow::{Context, ensure};

/// Which numbers came, each at most once.
pub(crate) struct Arrivals {
    first: u64,
    seen: Vec<bool>,
    left: u64,
}

impl Arrivals {
    pub(crate) fn expect(numbers: Range<u64>) -> anyhow::Result<Self> {
        let left = numbers.end - numbers.start;
        Ok(Self { first: numbers.start, seen: vec![false; usize::try_from(left)?], left })
    }

    /// Records an arrival; returns whether all have arrived.
    pub(crate) fn came(&mut self, number: u64) -> anyhow::Result<bool> {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let seen = at.and_then(|at| self.seen.get_mut(at));
        let seen = seen.with_context(|| format!("message {number} is not one of these"))?;
        ensure!(!*seen, "message {number} came twice");
        *seen = true;
        self.left -= 1;
        Ok(self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_twice_or_from_nowhere_is_an_error() -> anyhow::Result<()> {
        let mut arrivals = Arrivals::expect(5..7)?;
        assert!(!arrivals.came(6)?);
        assert!(arrivals.came(6).is_err());
        assert!(arrivals.came(7).is_err());
        assert!(arrivals.came(4).is_err());
        assert!(arrivals.came(5)?);
        Ok(())
    }
}
