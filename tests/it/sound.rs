//! `store check` and compaction: a consistent store has no findings, and each contradiction is named with its table and
//! key.

use std::path::Path;

use nightmail::base::{LeaseTime, Timestamp};
use nightmail::queue::{self, Send};
use nightmail::run;
use nightmail::store::check::{self, FINDINGS_MAX, Findings};
use nightmail::store::compact;
use nightmail::store::key::Key;
use nightmail::store::record::{
    Body, Counts, FanOutProgress, MessageState, Phase, QueueRecord, RecipientRecord, RecipientState, Record, RunRecord,
    RunTotals,
};
use nightmail::store::{Error, Store};
use redb::{Database, TableDefinition};
use tokio_util::sync::CancellationToken;

use crate::support::{World, sealed};

fn checked(store: &Store) -> Findings {
    let (snapshot, mut findings) = (store.snapshot().unwrap(), Findings::new(CancellationToken::new()));
    check::records(&snapshot, &mut findings).unwrap();
    queue::check::check(&snapshot, &mut findings).unwrap();
    run::check::check(&snapshot, &mut findings).unwrap();
    findings
}

fn lines(findings: &Findings) -> Vec<String> {
    findings.shown.iter().map(|found| format!("{} {}: {}", found.table, found.key, found.what)).collect()
}

/// A ready message, a delayed one, one in flight, and a letter with its history; a run with two recipients.
async fn world() -> World {
    let world = World::with_orders().await;
    world.send("orders", "dies").await;
    let handle = world.work("orders").await.handle;
    world.move_to_dlq(handle, "404").await;
    world.send("orders", "in flight").await;
    world.take_one("orders").await;
    world.send("orders", "ready").await;
    let delayed = Send { delay: Some(std::time::Duration::from_secs(60)), ..Send::text("delayed") };
    world.queues().send("orders", delayed).await.unwrap();
    let run = run_record();
    world
        .step(move |tx| {
            tx.runs()?.insert(&1, &run)?;
            tx.run_keys()?.insert(&run::identity(&run.schedule, &run.params, run.scheduled_for), &1)?;
            for (key, user) in [([1; 16], "ada"), ([2; 16], "bob")] {
                let (address, account, record, body) = ("", None, None, 0);
                let recipient =
                    run::ledger::Recipient { key, user, address, account, page: 1, record, body, refetch: 0 };
                run::ledger::add(tx, 1, recipient, Timestamp::from_secs(5))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    world
}

fn run_record() -> RunRecord {
    RunRecord {
        id: 1,
        schedule: "monthly".into(),
        function: "fan-out".into(),
        params: std::collections::BTreeMap::new(),
        scheduled_for: Timestamp::from_secs(5),
        started_at: Timestamp::from_secs(5),
        fan_out: FanOutProgress::default(),
        refetches: 0,
        note: String::new(),
        folded_at: None,
        check: None,
    }
}

/// The rows that the tests change.
struct Rows {
    orders: u32,
    dead: u32,
    letter_body: u64,
    flying: (u32, u64),
    flying_until: u64,
    ready: (u32, u64),
    state: MessageState,
    queue: QueueRecord,
}

impl Rows {
    fn of(world: &World) -> Self {
        let (orders, dead) = (world.queue("orders").id, world.queue("dead").id);
        let states = world.snapshot().states().unwrap().first((0, 0)..=(u32::MAX, u64::MAX), 10).unwrap();
        let find = |queue, phase| {
            let is_it = |row: &&((u32, u64), MessageState)| row.0.0 == queue && row.1.phase == phase;
            states.iter().find(is_it).unwrap().clone()
        };
        let (letter, flying, ready) =
            (find(dead, Phase::Ready), find(orders, Phase::InFlight), find(orders, Phase::Ready));
        Self {
            orders,
            dead,
            letter_body: letter.1.body,
            flying: flying.0,
            flying_until: flying.1.visible_at.as_millis(),
            ready: ready.0,
            state: ready.1,
            queue: world.queue("orders"),
        }
    }
}

/// Changes rows directly in redb, bypassing the store.
struct Hand<'t>(&'t redb::WriteTransaction);

impl Hand<'_> {
    fn put(&self, table: &str, key: &impl Key, record: &impl Record) {
        self.put_bytes(table, &key.to_bytes(), &record.encode());
    }

    fn put_bytes(&self, table: &str, key: &[u8], value: &[u8]) {
        self.0.open_table(definition(table)).unwrap().insert(key, sealed(table, key, value).as_slice()).unwrap();
    }

    fn remove(&self, table: &str, key: &impl Key) {
        let mut table = self.0.open_table(definition(table)).unwrap();
        assert!(table.remove(&*key.to_bytes()).unwrap().is_some(), "there is no such row");
    }
}

const fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn change(path: &Path, change: impl FnOnce(&Hand<'_>)) {
    let db = Database::open(path).unwrap();
    let transaction = db.begin_write().unwrap();
    change(&Hand(&transaction));
    transaction.commit().unwrap();
}

/// Applies a change to the store; returns the findings of a check.
async fn after(hand: impl FnOnce(&Hand<'_>, &Rows)) -> Vec<String> {
    let mut world = world().await;
    let rows = Rows::of(&world);
    world.close();
    change(&world.options().path, |tables| hand(tables, &rows));
    lines(&checked(&Store::open(&world.options()).unwrap()))
}

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let mut world = world().await;
    let findings = checked(world.queues().store());
    assert_eq!((lines(&findings), findings.total), (vec![], 0));
    assert!(findings.rows > 20, "{} rows", findings.rows);
    world.close();
    let mut pages = Findings::new(CancellationToken::new());
    check::integrity(&world.options(), &mut pages).unwrap();
    assert_eq!(pages.total, 0);
}

#[tokio::test]
async fn a_record_that_does_not_decode_is_named_and_the_check_goes_on() {
    let found = after(|tables, rows| {
        tables.put_bytes("states", &rows.ready.to_bytes(), b"\x09nonsense");
        tables.put_bytes("ready", b"short", b"");
    })
    .await;
    assert_eq!(found[0], "states (2, 6): does not decode: version 9, this build knows 3");
    assert!(found.iter().any(|line| line == "ready 0x73686f7274: 5 bytes that are no key of this table"), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("counts ")), "the rules are looked at all the same: {found:?}");
}

#[tokio::test]
async fn an_index_out_of_step_is_named_on_both_sides() {
    let found = after(|tables, rows| {
        tables.remove("ready", &(rows.ready.0, 0_u32, rows.ready.1));
        tables.put("timed", &(rows.orders, 77_u64, rows.ready.1), &());
        tables.put("ready", &(rows.flying.0, 0_u32, rows.flying.1), &());
        tables.put("ready", &(rows.orders, 0_u32, 999_u64), &());
        tables.remove("timed", &(rows.orders, rows.flying_until, rows.flying.1));
        tables.put("timed", &(rows.orders, 78_u64, rows.flying.1), &());
        tables.put("timed", &(rows.orders, 79_u64, 998_u64), &());
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r"
    states (2, 4): does not stand in timed, the index of its phase
    states (2, 6): does not stand in ready, the index of its phase
    ready (2, 0, 4): its message is not ready
    ready (2, 0, 999): belongs to no message
    timed (2, 77, 6): its message is ready
    timed (2, 78, 4): its message becomes visible at 1793491230000
    timed (2, 79, 998): belongs to no message
    ");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_not_told_as_one_that_is_missing() {
    let found = after(|tables, rows| tables.put_bytes("bodies", &rows.letter_body.to_bytes(), &[99])).await.join("\n");
    assert!(found.contains("bodies 1: ") && !found.contains("is not there"), "{found}");
}

#[tokio::test]
async fn a_message_without_its_body_and_a_body_without_its_message_are_named() {
    let found = after(|tables, rows| {
        tables.remove("bodies", &rows.letter_body);
        tables.put("bodies", &3_000_u64, &Body { bytes: "lost".into(), ..Body::default() });
        let shared = MessageState { body: rows.state.body, phase: Phase::Ready, ..rows.state.clone() };
        tables.put("states", &rows.flying, &MessageState { visible_at: LeaseTime::ZERO, ..shared });
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r"
    states (1, 1): its body 1 is not there
    states (2, 4): does not stand in ready, the index of its phase
    counts 2: says 1 ready, 1 delayed, 1 in flight, 21 bytes, a recount 2 ready, 1 delayed, 0 in flight, 17 bytes
    timed (2, 1793491230000, 4): its message is ready
    bodies 4: belongs to no message
    bodies 6: belongs to 2 messages
    bodies 3000: belongs to no message
    history (1, 1): message 1 is not there
    ");
}

#[tokio::test]
async fn counts_numbers_and_names_that_are_wrong_are_named() {
    let found = after(|tables, rows| {
        tables.put("counts", &rows.orders, &Counts { ready: 7, ..Counts::default() });
        tables.remove("counts", &rows.dead);
        tables.put("meta", &"last-id".to_owned(), &2_u64);
        tables.put_bytes("queue_names", b"ghost", &9_u32.to_be_bytes());
        tables.remove("queue_names", &"orders".to_owned());
        tables.put("states", &rows.ready, &MessageState { size_bytes: 99, ..rows.state.clone() });
        tables.remove("queues", &rows.dead);
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r#"
    queues 2: its name "orders" does not lead to it
    queue_names "dead": queue 1 is not there
    queue_names "ghost": queue 9 is not there
    states (1, 1): queue 1 is not there
    states (1, 1): holds number 3, but the last one given out is 2
    states (2, 4): holds number 5, but the last one given out is 2
    states (2, 6): says 99 bytes, its body 6 has 5
    states (2, 6): holds number 6, but the last one given out is 2
    states (2, 7): holds number 7, but the last one given out is 2
    counts 2: says 7 ready, 0 delayed, 0 in flight, 0 bytes, a recount 1 ready, 1 delayed, 1 in flight, 115 bytes
    counts 1: has no row, a recount says 1 ready, 0 delayed, 0 in flight, 4 bytes
    "#);
}

#[tokio::test]
async fn a_queue_under_another_number_and_a_history_out_of_step_are_named() {
    let found = after(|tables, rows| {
        let attempt = nightmail::base::Attempt {
            number: 1,
            function: String::new(),
            started_at: Timestamp::ZERO,
            ended_at: Timestamp::ZERO,
            end: nightmail::base::AttemptEnd::Retry,
            failure: None,
        };
        tables.put("history", &(3_000_u64, 1_u32), &attempt);
        tables.put("history", &(rows.letter_body, 8_u32), &attempt);
        let queue = QueueRecord { id: 41, name: "odd".into(), ..rows.queue.clone() };
        tables.put("queues", &40_u32, &queue);
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r#"
    queues 40: calls itself number 41
    queues 40: its name "odd" does not lead to it
    queues 40: its row number 2 does not lead to it
    states (1, 1): does not stand in letters, the index of its last failure
    queues 40: does not stand in dead_letter_sources
    history (1, 8): calls itself attempt 1
    history (3000, 1): message 3000 is not there
    "#);
}

#[tokio::test]
async fn the_index_of_dead_letters_and_its_counters_out_of_step_are_named() {
    let found = after(|tables, rows| {
        let class = 1_u64;
        tables.put("letters", &(rows.dead, class, 5_u64, 999_u64), &());
        tables.put("letters", &(rows.orders, class, 5_u64, rows.ready.1), &());
        tables.put("letter_groups", &(rows.dead, class, rows.orders), &7_u64);
        tables.put("dead_letter_sources", &("dead".to_owned(), 77_u64), &());
        tables.put("row_numbers", &88_u32, &nightmail::store::tx::u32_record::U32(77));
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r#"
    row_numbers 88: queue 77 is not there
    letters (1, 1, 5, 999): belongs to no message
    letters (2, 1, 5, 6): its message is no dead letter
    letter_groups (1, 1, 2): says 7, a recount 0
    letter_groups (2, 1, 0): has no row, a recount says 1
    dead_letter_sources ("dead", 77): that queue does not name it
    "#);
}

#[tokio::test]
async fn a_group_without_its_row_is_named_by_each_message_that_it_counts() {
    let mut world = World::with_orders().await;
    let send = |text: &str, delay: u64| {
        let delay = Some(std::time::Duration::from_secs(delay));
        world.queues().send("orders", Send { group: Some("fair".into()), delay, ..Send::text(text.to_owned()) })
    };
    send("delayed, which a standard queue's group does not count", 60).await.unwrap();
    assert_eq!(lines(&checked(world.queues().store())), [""; 0]);
    send("in flight", 0).await.unwrap();
    world.take_one("orders").await;
    send("ready", 0).await.unwrap();
    let group = world.snapshot().groups().unwrap().first((0, [0; 16])..=(u32::MAX, [0xff; 16]), 2).unwrap();
    world.close();
    change(&world.options().path, |tables| tables.remove("groups", &group[0].0));
    let found = lines(&checked(&Store::open(&world.options()).unwrap()));
    assert_eq!((group.len(), found.len()), (1, 2), "{found:?}");
    assert!(found.iter().all(|line| line.ends_with("its group has no row in groups")), "{found:?}");
}

#[tokio::test]
async fn runs_whose_books_do_not_balance_are_named() {
    let found = after(|tables, _| {
        let sent = RecipientState::Withdrawn("purged".into());
        let row = RecipientRecord {
            user: "ada".into(),
            state: sent,
            updated_at: Timestamp::ZERO,
            interrupted: 0,
            page: 1,
            address: "ada@example.com".into(),
            account: None,
            reason: String::new(),
            body: 0,
            copies: 0,
            refetch: 0,
            rendering: None,
        };
        tables.put("recipients", &(1_u64, [1; 16]), &row);
        tables.put("recipients", &(8_u64, [1; 16]), &row);
        tables.put("runs", &2_u64, &RunRecord { id: 2, schedule: "other".into(), ..run_record() });
        tables.put("run_keys", &"nothing".to_owned(), &7_u64);
        tables.put("totals", &6_u64, &RunTotals::default());
    })
    .await;
    insta::assert_snapshot!(found.join("\n"), @r#"
    totals 1: says RunTotals { fetched: 2, sent: 0, dead: 0, withdrawn: 0, repeated: 0, interrupted: 0, unknown: 0, skipped: 0, suppressed: 0, copies: 0, refetch_abandoned: 0, resending: 0, resends_unknown: 0, renderings: RenderingTotals { statements: 0, pages: 0, bytes: 0, empty: 0, over: 0, open: 0 }, phases: PhaseTotals { fetch: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, render: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, check: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, send: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 } } }, a recount RunTotals { fetched: 2, sent: 0, dead: 0, withdrawn: 1, repeated: 0, interrupted: 0, unknown: 0, skipped: 0, suppressed: 0, copies: 0, refetch_abandoned: 0, resending: 0, resends_unknown: 0, renderings: RenderingTotals { statements: 0, pages: 0, bytes: 0, empty: 0, over: 0, open: 0 }, phases: PhaseTotals { fetch: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, render: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, check: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 }, send: PhaseCounts { filtered: 0, done: 0, skipped: 0, retried: 0, dead: 0 } } }
    runs 2: its identity does not lead to it
    totals 2: the run has no totals
    run_keys "nothing": run 7 is not there
    totals 6: its run is not there
    recipients (8, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]): run 8 is not there
    "#);
}

#[tokio::test]
async fn findings_are_counted_beyond_those_that_are_kept_and_a_check_can_be_cut_off() {
    let mut world = world().await;
    let orders = world.queue("orders").id;
    world.close();
    let many = FINDINGS_MAX as u64 + 500;
    change(&world.options().path, |tables| {
        for sequence in 0..many {
            tables.put("ready", &(orders, 0_u32, 1_000_000 + sequence), &());
        }
    });
    let store = Store::open(&world.options()).unwrap();
    let findings = checked(&store);
    assert_eq!((findings.total, findings.shown.len()), (many, FINDINGS_MAX));
    let stop = CancellationToken::new();
    stop.cancel();
    let cut = check::records(&store.snapshot().unwrap(), &mut Findings::new(stop));
    assert!(matches!(cut, Err(Error::Stopped(_))), "{cut:?}");
}

#[tokio::test]
async fn compaction_gives_the_space_of_deleted_messages_back_to_the_file_system() {
    let mut world = World::with_orders().await;
    for _ in 0..40 {
        for (queue, count) in [("orders", 200), ("dead", 10)] {
            let bodies = (0..count).map(|_| Send::text("x".repeat(1000)));
            world.queues().send_all(queue, bodies.collect()).await.unwrap();
        }
    }
    assert_eq!(world.purge("orders").await, Ok(8000));
    let held = compact::compact(&world.options()).unwrap_err();
    assert!(matches!(held, Error::Locked { .. }), "{held}");
    world.close();
    let compacted = compact::compact(&world.options()).unwrap();
    assert!(compacted.before_bytes > 2 * compacted.after_bytes, "{compacted:?}");
    world.reopen().await;
    assert_eq!(lines(&checked(world.queues().store())), Vec::<String>::new());
    assert!(world.dump("dead").starts_with("dead: 400 ready"));
}
