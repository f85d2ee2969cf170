//! Brings an overlay's rows to its table in redb, in the order of their keys.
//!
//! Row by row, redb descends its tree for each. What a queue writes lies side by side as a rule: new messages behind the
//! last one, removals in the order of sending. Such runs go in one sweep, for which redb descends once.

use std::ops::Bound;

use redb::CursorError;

use super::Error;
use super::memtable::{Entry, Overlay};

/// Runs shorter than this go row by row.
const RUN_MIN: usize = 8;
/// A sweep of removals reads every row in its range. It is made only when at most this many keys are possible there for
/// each row that goes.
const KEYS_PER_REMOVAL: u64 = 2;

type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// How a row is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Probably a row that was not there: it may still replace one.
    New,
    /// A row that replaces another.
    Changed,
    Removed,
}

/// Writes and removes the rows.
///
/// # Errors
/// A storage fault.
pub(super) fn apply(table: &mut Table<'_>, rows: &Overlay) -> Result<(), Error> {
    let in_order: Vec<(&[u8], &Entry)> = rows.iter().map(|(key, entry)| (&**key, entry)).collect();
    for run in in_order.chunk_by(|one, next| kind(one.1) == kind(next.1)) {
        match kind(run[0].1) {
            Kind::Changed => insert_each(table, &written(run))?,
            Kind::New => insert_runs(table, &written(run))?,
            Kind::Removed if run.len() >= RUN_MIN && is_dense(run[0].0, run[run.len() - 1].0, run.len()) => {
                table.retain_in(run[0].0..=run[run.len() - 1].0, |key, _| !is_removed(rows, key))?;
            }
            Kind::Removed => run.iter().try_for_each(|(key, _)| table.remove(*key).map(drop))?,
        }
    }
    Ok(())
}

fn kind(entry: &Entry) -> Kind {
    match (&entry.value, entry.is_above_row) {
        (None, _) => Kind::Removed,
        (Some(_), true) => Kind::Changed,
        (Some(_), false) => Kind::New,
    }
}

fn written<'r>(run: &[(&'r [u8], &'r Entry)]) -> Vec<(&'r [u8], &'r [u8])> {
    run.iter().filter_map(|(key, entry)| Some((*key, entry.value.as_deref()?))).collect()
}

fn is_removed(rows: &Overlay, key: &[u8]) -> bool {
    rows.get(key).is_some_and(|entry| entry.value.is_none())
}

/// Whether few keys are possible between two that differ in their last number only, as those of a queue do.
fn is_dense(first: &[u8], last: &[u8], rows: usize) -> bool {
    let numbers = first.split_last_chunk::<8>().zip(last.split_last_chunk::<8>());
    numbers.is_some_and(|((head, first), (other_head, last))| {
        let between = u64::from_be_bytes(*last).saturating_sub(u64::from_be_bytes(*first));
        head == other_head && between / KEYS_PER_REMOVAL <= rows as u64
    })
}

fn insert_each(table: &mut Table<'_>, rows: &[(&[u8], &[u8])]) -> Result<(), Error> {
    rows.iter().try_for_each(|(key, value)| table.insert(key, value).map(drop))?;
    Ok(())
}

fn insert_runs(table: &mut Table<'_>, mut rows: &[(&[u8], &[u8])]) -> Result<(), Error> {
    while rows.len() >= RUN_MIN {
        let inserted = insert_run(table, rows)?;
        // Then some one by one, so that rows that lie among others do not begin a sweep each.
        let (one_by_one, rest) = rows[inserted..].split_at(RUN_MIN.min(rows.len() - inserted));
        insert_each(table, one_by_one)?;
        rows = rest;
    }
    insert_each(table, rows)
}

/// Inserts rows up to the first that redb has already, or that lies behind the next one that it has; returns how many.
fn insert_run(table: &mut Table<'_>, rows: &[(&[u8], &[u8])]) -> Result<usize, Error> {
    let mut cursor = table.lower_bound_mut(Bound::Included(rows[0].0))?;
    let mut inserted = 0;
    for (key, value) in rows {
        match cursor.insert_before(*key, *value) {
            Ok(()) => inserted += 1,
            Err(CursorError::UnorderedKey) => break,
            Err(CursorError::Storage(error)) => return Err(error.into()),
            Err(other) => return Err(Error::Storage(other.to_string())),
        }
    }
    cursor.close()?;
    Ok(inserted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableTable};

    use super::super::key::{Key, KeyBytes};
    use super::super::table_id::table;
    use super::*;

    type Model = BTreeMap<KeyBytes, Vec<u8>>;

    /// Applies the overlays in turn; returns what the table holds after each.
    fn applied(overlays: &[Overlay]) -> Vec<Model> {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let apply_one = |rows: &Overlay| {
            let transaction = db.begin_write().unwrap();
            let mut open = transaction.open_table(table("bodies").definition()).unwrap();
            apply(&mut open, rows).unwrap();
            let all = open.iter().unwrap().map(|row| {
                let (key, value) = row.unwrap();
                (KeyBytes::of(&[key.value()]), value.value().to_vec())
            });
            let found = all.collect();
            drop(open);
            transaction.commit().unwrap();
            found
        };
        overlays.iter().map(apply_one).collect()
    }

    fn entry(value: Option<Vec<u8>>, is_above_row: bool) -> Entry {
        Entry { value: value.map(|value| value[..].into()), is_above_row }
    }

    /// Runs of rows side by side, written or removed, over a table that may hold some of them.
    fn overlay(rng: &mut StdRng, model: &mut Model) -> Overlay {
        let mut rows = Overlay::default();
        for _ in 0..rng.random_range(1..8) {
            let (first, step) = (rng.random_range(0..600_u64), rng.random_range(1..8_u64));
            let removes = rng.random_bool(0.5);
            for nth in 0..rng.random_range(1..60_u64) {
                let key = (rng.random_range(1..20) / 19 + 1_u32, first + nth * step).to_bytes();
                let value = (!removes).then(|| vec![nth as u8; rng.random_range(0..1_500)]);
                let known = model.contains_key(&key) == rng.random_bool(0.8);
                rows.insert(key, entry(value, known));
            }
        }
        for (key, row) in &rows {
            match &row.value {
                Some(value) => drop(model.insert(key.clone(), value.to_vec())),
                None => drop(model.remove(key)),
            }
        }
        rows
    }

    #[test]
    fn a_table_holds_what_its_overlays_say_whatever_lies_side_by_side() {
        for seed in 0..60 {
            let (mut rng, mut model) = (StdRng::seed_from_u64(seed), Model::new());
            let (mut overlays, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..8 {
                overlays.push(overlay(&mut rng, &mut model));
                expected.push(model.clone());
            }
            assert!(applied(&overlays) == expected, "seed {seed}");
        }
    }

    #[test]
    fn a_sweep_of_removals_leaves_the_rows_between_and_those_of_other_queues() {
        let key = |queue: u32, number: u64| (queue, number).to_bytes();
        let all: Overlay = (0..40).flat_map(|n| [1, 2].map(|q| (key(q, n), entry(Some(vec![7]), false)))).collect();
        let odd: Overlay = (0..40).filter(|n| n % 2 == 1).map(|n| (key(1, n), entry(None, true))).collect();
        let left: Vec<KeyBytes> = applied(&[all, odd]).remove(1).into_keys().collect();
        let even = (0..40).filter(|n| n % 2 == 0).map(|n| key(1, n));
        assert_eq!(left, even.chain((0..40).map(|n| key(2, n))).collect::<Vec<_>>());
    }

    #[test]
    fn a_sweep_is_made_only_over_a_range_that_cannot_hold_many_other_rows() {
        let dense = |first: (u32, u64), last: (u32, u64)| is_dense(&first.to_bytes(), &last.to_bytes(), 100);
        assert!(dense((1, 1_000), (1, 1_000 + 100 * KEYS_PER_REMOVAL)));
        assert!(!dense((1, 1_000), (1, 1_000 + 102 * KEYS_PER_REMOVAL)));
        assert!(!dense((1, 1_000), (2, 1_100)), "another queue's rows lie between");
        assert!(!is_dense(b"a", b"b", 100));
    }
}
