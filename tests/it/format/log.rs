//! The log's bytes, and the numbers of the tables in frames and checksums, as `docs/format.md` describes them.

use std::collections::BTreeSet;

use nightmail::base::{LeaseTime, Timestamp};
use nightmail::store;
use nightmail::store::record::{
    Body, DedupEntry, DedupRecord, GroupRecord, RedriveTotals, Shown, TickRecord, TickVerdict, UniqueRecord,
};
use redb::ReadableDatabase;

use super::{attempt, hex, queue, recipients, redrive, run, state, totals};
use crate::power_cut::log::{self, Head, Write};
use crate::support::{LOGS, TABLES, World, sealed, table};

/// The segment of the log with the last frame, and that frame.
fn last_frame(world: &World) -> (Vec<u8>, Head) {
    let segments = LOGS.map(|name| std::fs::read(world.dir.path().join(name)).unwrap());
    let last =
        segments.into_iter().filter_map(|segment| log::run(&segment).0.last().copied().map(|head| (segment, head)));
    last.max_by_key(|(_, head)| head.sequence).unwrap()
}

/// The newest segment, once the mark at this position is written: that is after the answer to the last write.
async fn marked(world: &World, at: usize) -> Vec<u8> {
    for _ in 0..1000 {
        let (segment, _) = last_frame(world);
        if segment[at..at + 40].iter().any(|byte| *byte != 0) {
            return segment;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("no mark is written")
}

#[tokio::test]
async fn segments_frames_and_marks_are_laid_out_as_the_format_says() {
    let world = World::new();
    let put = |number: u64| world.step(move |tx| Ok(tx.meta()?.insert(&"x".into(), &number)?));
    put(1).await.unwrap();
    put(2).await.unwrap();
    world.step(|tx| Ok(tx.meta()?.remove(&"x".into())?)).await.unwrap();
    let segment = marked(&world, 4096 + 3 * 512).await;
    let store = world.snapshot().store_number().unwrap();
    let header = [&b"nm-log\0\x02"[..], &store.to_le_bytes(), &(segment.len() as u64).to_le_bytes()].concat();
    let checksum = crc32c::crc32c(&header).to_le_bytes();
    assert_eq!(hex(&segment[..28]), hex(&header) + &hex(&checksum));

    let (generation, first) = (number_at(&segment, 4096 + 16), number_at(&segment, 4096 + 24));
    let head = &[0, 1, 0, 12, 0, 0, 0, b'x'][..];
    let written = |number: u64| [head, &sealed("meta", b"x", &number.to_be_bytes())].concat();
    let removed = [0, 1, 0, 0xff, 0xff, 0xff, 0xff, b'x'];
    for (nth, writes) in (0..).zip([&written(1)[..], &written(2), &removed, &[]]) {
        // The last one is a mark: the sequence of the frame before it, which was synced then.
        let (sequence, synced) = (first + nth.min(2), first + nth - 1);
        let numbers = [store, generation, sequence, synced].map(u64::to_le_bytes).concat();
        let (length, behind) = (u32::try_from(writes.len()).unwrap().to_le_bytes(), [&numbers, writes].concat());
        let checksum = crc32c::crc32c(&[&length[..], &behind].concat()).to_le_bytes();
        let frame = [&length[..], &checksum, &behind].concat();
        let at = 4096 + 512 * usize::try_from(nth).unwrap();
        assert_eq!(hex(&segment[at..at + frame.len()]), hex(&frame), "frame {nth}");
        assert!(segment[at + frame.len()..at + 512].iter().all(|byte| *byte == 0), "frame {nth}");
    }
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

#[tokio::test]
async fn tables_have_the_numbers_of_the_format_in_the_log_and_in_the_checksums_of_their_rows() {
    assert_eq!(TABLES.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>(), (0..23).collect());
    let mut world = World::new();
    world.step(one_row_each).await.unwrap();
    let (segment, frame) = last_frame(&world);
    let writes = Write::all(frame.writes(&segment));
    world.close();
    let db = redb::Database::open(world.options().path).unwrap();
    let transaction = db.begin_read().unwrap();
    for (number, name) in &*TABLES {
        let write = writes.iter().find(|write| write.table == *number).unwrap_or_else(|| panic!("no write to {name}"));
        let stored = write.stored.as_deref().unwrap();
        let row = transaction.open_table(table(name)).unwrap().get(&write.key[..]).unwrap();
        assert_eq!(row.unwrap_or_else(|| panic!("no row in {name}")).value(), stored, "{name}");
        assert_eq!(sealed(name, &write.key, &stored[..stored.len() - 4]), stored, "{name}");
    }
}

/// Writes a row of each table.
fn one_row_each(tx: &mut store::Tx<'_>) -> Result<(), nightmail::queue::Error> {
    let moment = Timestamp::from_millis(1);
    let dedup = DedupRecord { until: LeaseTime::from_millis(6), what: DedupEntry::Received { leases: vec![(1, 2)] } };
    tx.meta()?.insert(&"x".into(), &1)?;
    tx.queues()?.insert(&1, &queue())?;
    tx.queue_names()?.insert(&"q".into(), &store::tx::u32_record::U32(1))?;
    tx.counts_mut(1)?.ready = 1;
    tx.bodies()?.insert(&1, &Body::default())?;
    tx.states()?.insert(&(1, 2), &state())?;
    tx.ready()?.insert(&(1, 2, 3), &Shown(None))?;
    tx.timed()?.insert(&(1, 2, 3), &())?;
    tx.suspects()?.insert(&(1, 2, 3), &())?;
    tx.groups()?.insert(&(1, [2; 16]), &GroupRecord::default())?;
    tx.grouped()?.insert(&(1, [2; 16], 3, 4), &())?;
    tx.expiries()?.insert(&(1, 2, 3), &())?;
    tx.dedup()?.insert(&(1, [2; 16]), &dedup)?;
    tx.dedup_times()?.insert(&(1, 2, [3; 16]), &())?;
    tx.uniques()?.insert(&(1, [2; 16]), &UniqueRecord { queue: 1, sequence: 2, follower: None })?;
    tx.history()?.insert(&(1, 2), &attempt())?;
    tx.runs()?.insert(&7, &run())?;
    tx.run_keys()?.insert(&"k".into(), &7)?;
    *tx.totals_mut(7)? = totals();
    tx.recipients()?.insert(&(7, [1; 16]), &recipients().remove(0))?;
    tx.ticks()?.insert(&("s".into(), 1), &TickRecord { decided_at: moment, verdict: TickVerdict::Known })?;
    tx.redrives()?.insert(&1, &redrive())?;
    tx.redrive_totals()?.insert(&1, &RedriveTotals::default())?;
    Ok(())
}
