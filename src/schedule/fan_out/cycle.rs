//! Cursors that come back: a users API whose pages form a ring would be read for ever.
//!
//! Brent's algorithm: one earlier cursor is kept and compared with each new one; after 1, 2, 4, 8 … further cursors it
//! is replaced. A ring of `n` pages behind `m` others is found within 3·(m+n) pages, in constant memory.

use sha2::{Digest as _, Sha256};

use crate::store::record::{CursorCycle, Digest};

/// What to keep after the cursor `next`, which follows `current`; `None` when it came back.
pub(super) fn advance(cycle: CursorCycle, current: &str, next: &str) -> Option<CursorCycle> {
    let (saved, span) = match cycle.saved {
        Some(saved) => (saved, cycle.span),
        None => (digest(current), 1),
    };
    let (next, since) = (digest(next), cycle.since + 1);
    if next == saved {
        return None;
    }
    Some(match since >= span {
        true => CursorCycle { saved: Some(next), span: span.saturating_mul(2), since: 0 },
        false => CursorCycle { saved: Some(saved), span, since },
    })
}

fn digest(cursor: &str) -> Digest {
    let digest = Sha256::digest(cursor);
    let (head, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    *head
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many pages a walk notices that it is in a ring; `None` when it never does.
    fn found_after(lead: usize, ring: usize, pages: usize) -> Option<usize> {
        let name = |page: usize| if page < lead { page } else { lead + (page - lead) % ring }.to_string();
        let mut cycle = CursorCycle::default();
        for page in 0..pages {
            match advance(cycle, &name(page), &name(page + 1)) {
                Some(next) => cycle = next,
                None => return Some(page + 1),
            }
        }
        None
    }

    #[test]
    fn every_ring_is_found_within_three_times_its_pages() {
        for lead in 0..40 {
            for ring in 1..40 {
                let found = found_after(lead, ring, 1000).unwrap();
                assert!(found <= 3 * (lead + ring), "{lead} pages, then a ring of {ring}: found after {found}");
            }
        }
        assert_eq!(found_after(1, 2, 1000), Some(3), "first, b, a, and b again");
    }

    #[test]
    fn cursors_that_all_differ_are_no_ring() {
        assert_eq!(found_after(5000, 1, 4999), None);
    }
}
