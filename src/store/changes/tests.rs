//! The layers against a plain ordered map, with checkpoints at any moment, and the gaps that removals leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redb::Database;
use redb::backends::InMemoryBackend;

use super::super::checkpoint::{self, Covers};
use super::super::frame::{self, HEAD_BYTES};
use super::super::layers::Base;
use super::super::log::Position;
use super::super::table_id::table;
use super::super::{checksum, format};
use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const READY: TableId = table("ready");

/// A store without its threads.
struct World {
    db: Database,
    layers: Layers,
    hints: Hints,
    /// What the table holds.
    model: Model,
    /// What the frames make of an empty table.
    replayed: Model,
}

impl World {
    fn new() -> Self {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        format::make_tables(&db).unwrap();
        let layers = Layers::of(Base::open(&db).unwrap());
        Self { db, layers, hints: Hints::default(), model: Model::new(), replayed: Model::new() }
    }

    fn group(&mut self, run: impl FnOnce(&mut Changes<'_>, &mut Model)) {
        let mut changes = Changes::new(&mut self.layers, &mut self.hints);
        run(&mut changes, &mut self.model);
        let (frame, _) = changes.finish();
        for write in frame::writes(&frame[HEAD_BYTES..]) {
            let write = write.unwrap();
            match write.value {
                Some(stored) => {
                    let value = checksum::open(READY, write.key, stored).unwrap();
                    self.replayed.insert(write.key.to_vec(), value.to_vec())
                }
                None => self.replayed.remove(write.key),
            };
        }
        assert_eq!(self.replayed, self.model);
    }

    fn freeze(&mut self) {
        assert!(self.layers.frozen.is_none());
        self.layers.frozen = Some(Arc::new(std::mem::take(&mut self.layers.active)));
    }

    fn apply(&mut self) {
        let rows = self.layers.frozen.take().unwrap();
        checkpoint::apply(
            &self.db,
            &rows,
            Covers { through: Position { generation: 0, sequence: 0 }, is_log_open: true },
        )
        .unwrap();
        self.layers.base = Arc::new(Base::open(&self.db).unwrap());
        self.hints.base_was_replaced();
    }
}

fn all(layers: &Layers) -> Model {
    let (mut rows, mut found) = (layers.all(READY).unwrap(), Model::new());
    while let Some((key, value)) = rows.next().unwrap() {
        let value = value.open(READY, key.stored()).unwrap().to_vec();
        assert!(found.last_key_value().is_none_or(|(last, _)| **last < *key.stored()), "out of order");
        found.insert(key.stored().to_vec(), value);
    }
    found
}

fn key(queue: u32, number: u32) -> KeyBytes {
    KeyBytes::of(&[&queue.to_be_bytes(), &number.to_be_bytes()])
}

/// The keys of a scan, at most `max`.
fn scanned(changes: &Changes<'_>, low: &[u8], high: &[u8], max: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let scan = changes.scan(READY, low, high, |key, _| {
        found.push(key.stored().to_vec());
        Ok(if found.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    scan.unwrap();
    found
}

/// A change, or a read that is compared with the model. Most removals are those of a queue: the first key goes.
fn act(rng: &mut StdRng, changes: &mut Changes<'_>, model: &mut Model) {
    let (queue, number) = (rng.random_range(1..4), rng.random_range(0..200));
    let at = key(queue, number);
    match rng.random_range(0..10) {
        0..3 => {
            let value = vec![b'v'; rng.random_range(0..60)];
            changes.insert(READY, at.clone(), |out| out.extend_from_slice(&value));
            model.insert(at.to_vec(), value);
        }
        3 => assert_eq!(changes.remove(READY, &at).unwrap(), model.remove(&*at).is_some()),
        4..7 => {
            let (low, high) = (key(queue, 0), key(queue, u32::MAX));
            let first = scanned(changes, &low, &high, 1);
            let expected = model.range(low.to_vec()..=high.to_vec()).map(|(key, _)| key.clone()).next();
            assert_eq!(first.first(), expected.as_ref());
            if let Some(first) = expected {
                assert!(changes.remove(READY, &KeyBytes::of(&[&first])).unwrap());
                model.remove(&first);
            }
        }
        7 => {
            let found = changes.get(READY, &at).unwrap();
            let found = found.map(|value| value.open(READY, &at).unwrap().to_vec());
            assert_eq!(found.as_ref(), model.get(&*at));
        }
        8 => {
            let (low, high) = (key(queue, number), key(rng.random_range(queue..4), u32::MAX));
            let expected: Vec<_> = model.range(low.to_vec()..=high.to_vec()).map(|(key, _)| key.clone()).collect();
            assert_eq!(scanned(changes, &low, &high, usize::MAX), expected);
        }
        _ => {
            let (low, high) = (key(queue, 0), key(queue, number));
            let mut rows = changes.layers().rows(READY, &low, &high, Order::Descending).unwrap();
            let last = rows.next().unwrap().map(|(key, _)| key.stored().to_vec());
            let expected = model.range(low.to_vec()..=high.to_vec()).map(|(key, _)| key.clone()).next_back();
            assert_eq!(last, expected);
        }
    }
}

#[test]
fn the_layers_hold_what_an_ordered_map_holds_whenever_a_checkpoint_comes() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let mut kept = (world.layers.clone(), world.model.clone());
        for _ in 0..120 {
            let rng = &mut rng;
            world.group(|changes, model| {
                for _ in 0..rng.random_range(1..12) {
                    let (mark, before) = (changes.mark(), model.clone());
                    for _ in 0..rng.random_range(1..6) {
                        act(rng, changes, model);
                    }
                    if rng.random_bool(0.05) {
                        changes.roll_back(mark).unwrap();
                        *model = before;
                    }
                }
            });
            assert_eq!(all(&world.layers), world.model, "seed {seed}");
            match (rng.random_range(0..6), world.layers.frozen.is_some()) {
                (0..2, false) => world.freeze(),
                (0..2, true) => world.apply(),
                // A view that was taken earlier does not change.
                (2, _) => {
                    assert_eq!(all(&kept.0), kept.1, "seed {seed}");
                    kept = (world.layers.clone(), world.model.clone());
                }
                _ => continue,
            }
            assert_eq!(all(&world.layers), world.model, "seed {seed}: a checkpoint changes no scan");
        }
    }
}

#[test]
fn what_is_written_and_removed_between_two_checkpoints_leaves_nothing() {
    let mut world = World::new();
    world.group(|changes, model| {
        for number in 0..100 {
            changes.insert(READY, key(1, number), |_| ());
            model.insert(key(1, number).to_vec(), Vec::new());
        }
    });
    world.freeze();
    world.apply();
    world.group(|changes, model| {
        for number in 100..200 {
            changes.insert(READY, key(1, number), |_| ());
            assert!(changes.remove(READY, &key(1, number)).unwrap());
        }
        assert!(changes.remove(READY, &key(1, 50)).unwrap());
        model.remove(&*key(1, 50));
    });
    let left: Vec<_> = world.layers.active.table(READY).iter().collect();
    assert_eq!(left.len(), 1, "only the removal of a row that lies below is kept: {left:?}");
}

#[test]
fn a_scan_does_not_pass_over_the_same_removals_again() {
    let mut world = World::new();
    let fill = |world: &mut World| {
        world.group(|changes, model| {
            for number in 0..1000 {
                changes.insert(READY, key(1, number), |_| ());
                model.insert(key(1, number).to_vec(), Vec::new());
            }
        });
    };
    fill(&mut world);
    world.freeze();
    world.apply();
    let (low, high) = (key(1, 0), key(1, u32::MAX));
    world.group(|changes, model| {
        for number in 0..900 {
            let first = scanned(changes, &low, &high, 1);
            assert_eq!(first, [key(1, number).to_vec()]);
            changes.remove(READY, &key(1, number)).unwrap();
            model.remove(&*key(1, number));
        }
        let (mut rows, start) = {
            let start = changes.hints.borrow().skip(READY, &low).cloned().unwrap();
            (changes.rows(READY, &start, &high).unwrap(), start)
        };
        rows.next().unwrap();
        assert!(rows.hidden <= HIDDEN_AT_MOST, "{} removals are passed over from {start:?}", rows.hidden);
    });
    // A row that comes into the gap is found.
    world.group(|changes, model| {
        changes.insert(READY, key(1, 7), |_| ());
        model.insert(key(1, 7).to_vec(), Vec::new());
        assert_eq!(scanned(changes, &low, &high, 1), [key(1, 7).to_vec()]);
    });
    world.group(|changes, _| assert_eq!(scanned(changes, &low, &high, 2).len(), 2));
}

/// The removals that a scan may pass over before a gap is made longer.
const HIDDEN_AT_MOST: u64 = 8;
