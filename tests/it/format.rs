//! The bytes on disk: a store file of every format version opens with its content, and each record has the bytes
//! that `docs/format.md` describes.
//!
//! `NIGHTMAIL_WRITE_STORE=tests/data/stores/vN.redb cargo test --test it format` writes the file of the format that
//! this version writes, where there is none yet; a file once released is never written again.

mod log;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nightmail::base::outcome::DeliveryProof;
use nightmail::base::{Attempt, AttemptEnd, Calls, Failure, Fingerprint, LeaseTime, ManualClock, MessageId, Timestamp};
use nightmail::queue::observer::NoObserver;
use nightmail::queue::redrive::{self, Redrive};
use nightmail::queue::{Options, Queues, Receive, Send, dead, dump, settle};
use nightmail::store::check::{self, Findings};
use nightmail::store::record::{
    Announced, Body, Brake, BrakeLimit, Canary, CheckRecord, Counts, CursorCycle, DeadlineState, DedupEntry,
    DedupRecord, EffectRecord, Envelope, FanOutLetter, FanOutProgress, Fifo, Follower, Gate, GateLimits, GateMode,
    Group, GroupRecord, Guard, IntentRecord, LetterBefore, Measured, MeasuredLimits, MessageState, Owner, Pause, Phase,
    PhaseCounts, PhaseTotals, Purge, QueueAttributes, QueueRecord, RecipientRecord, RecipientState, Record,
    RedriveAllow, RedriveRecord, RedriveState, RedriveTotals, RedrivenBy, Refetching, RenderingRecord, RenderingTotals,
    RunControl, RunDeadline, RunHold, RunPace, RunRecord, RunTotals, Scope, Selection, Shown, Suspicion, TickRecord,
    TickVerdict, UniqueRecord, UniqueRef, UserText,
};
use nightmail::store::{self, Error, Snapshot, Store, backup};
use tokio_util::sync::CancellationToken;

use crate::support::{FILES, START, START_NOW, dying_after, failure, forever};

/// Files of each format, written by the first version that had it.
const STORED: [&str; 4] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stores/v1.redb"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stores/v2.redb"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stores/v3.redb"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stores/v4.redb"),
];

/// Opens a store with a clock that shows `now`.
fn queues(path: &Path, now: Timestamp) -> Queues {
    let store = Store::open(&store::Options::at(path)).unwrap();
    Queues::new(store, ManualClock::new(now), Arc::new(NoObserver))
}

/// Fills a store with a record of every kind, in every state.
async fn fill(path: &Path) {
    let queues = queues(path, START);
    queues.ensure("dead", &Options { retention: Some(Duration::from_secs(1_209_600)), ..forever() }).await.unwrap();
    queues.ensure("orders", &dying_after(3)).await.unwrap();
    for text in ["in flight", "waits", "letter", "driven back", "ready ünicode"] {
        let message = Send { run: 7, recipient: [9; 16], ..Send::text(text) };
        queues.send("orders", message).await.unwrap();
    }
    let delayed = Send { delay: Some(Duration::from_secs(900)), ..Send::text("delayed") };
    queues.send("orders", delayed).await.unwrap();
    let received = queues.receive("orders", Receive::for_client(4), Duration::ZERO).await.unwrap();
    for (message, code) in received[1..].iter().zip(["500", "404", "404"]) {
        let ended = settle::Ended { function: "statement".into(), why: failure(code), at: START_NOW };
        let (handle, is_hopeless) = (message.handle, code == "404");
        let step = move |tx: &mut store::Tx<'_>| match is_hopeless {
            true => settle::move_to_dlq(tx, &NoObserver, handle, &ended, Duration::ZERO),
            false => settle::retry(tx, &NoObserver, handle, &ended, Duration::from_secs(60)),
        };
        queues.store().write(step).await.unwrap();
    }
    let ids = vec![received[3].message_id];
    let back = Redrive {
        from: "dead".into(),
        selection: Selection { ids, ..Selection::default() },
        per_second: Some(10),
        ..Redrive::default()
    };
    let id = queues.start_redrive(back).await.unwrap();
    queues.store().write(move |tx| redrive::step(tx, &NoObserver, id, 10, START_NOW)).await.unwrap();
    queues.store().write(books).await.unwrap();
}

/// Writes the records of the modules above the queue.
fn books(tx: &mut store::Tx<'_>) -> Result<(), Error> {
    tx.runs()?.insert(&7, &run())?;
    tx.run_keys()?.insert(&"monthly period=2026-10".into(), &7)?;
    *tx.totals_mut(7)? = totals();
    for (n, recipient) in (0..).zip(recipients()) {
        tx.recipients()?.insert(&(7, [n; 16]), &recipient)?;
    }
    tx.user_records()?.insert(&(7, [0; 16]), &UserText("{}".into()))?;
    for (n, tick) in (0..).zip(ticks()) {
        tx.ticks()?.insert(&("monthly".into(), n), &tick)?;
    }
    Ok(())
}

/// Run 7.
pub(crate) fn run() -> RunRecord {
    RunRecord {
        id: 7,
        schedule: "monthly".into(),
        function: "statements".into(),
        params: BTreeMap::from([("period".into(), "2026-10".into())]),
        scheduled_for: START,
        started_at: START,
        fan_out: FanOutProgress { pages: 2, next: Some("/users?page=3".into()), ..FanOutProgress::default() },
        refetches: 0,
        note: String::new(),
        folded_at: None,
        check: None,
    }
}

/// The run with the fields that version 1 of its record did not have.
fn run_in_full() -> RunRecord {
    let letter = FanOutLetter {
        message_id: MessageId::from_bytes([4; 16]),
        queue: "d".into(),
        class: "c".into(),
        text: "t".into(),
        died_at: Timestamp::from_millis(5),
    };
    let cycle = CursorCycle { saved: Some([6; 16]), span: 7, since: 8 };
    let fan_out = FanOutProgress { position: 9, cycle, letter: Some(letter), ..run().fan_out };
    RunRecord { id: 8, fan_out, refetches: 3, note: "n".into(), folded_at: Some(Timestamp::from_millis(6)), ..run() }
}

fn totals() -> RunTotals {
    RunTotals { fetched: 6, sent: 1, dead: 1, withdrawn: 1, repeated: 2, interrupted: 3, ..RunTotals::default() }
}

/// One in each state, the open one first.
pub(crate) fn recipients() -> Vec<RecipientRecord> {
    let proof = DeliveryProof {
        reply: Some("250 2.0.0 queued".into()),
        message_id: Some("<7.1@example.com>".into()),
        document_sha256: Some("ab".repeat(32)),
    };
    let states = [
        RecipientState::Open,
        RecipientState::Sent(proof),
        RecipientState::Dead(Fingerprint::of("http", "account", "404")),
        RecipientState::Withdrawn("purged".into()),
    ];
    let record = |(n, state)| RecipientRecord {
        user: format!("user-{n}"),
        state,
        updated_at: START,
        interrupted: n,
        page: 0,
        address: String::new(),
        account: None,
        reason: String::new(),
        body: 0,
        copies: 0,
        refetch: 0,
        rendering: None,
    };
    (0..).zip(states).map(record).collect()
}

fn ticks() -> Vec<TickRecord> {
    let verdicts = [TickVerdict::Fired { run: 7 }, TickVerdict::Known, TickVerdict::Skipped { why: "late".into() }];
    verdicts.into_iter().map(|verdict| TickRecord { decided_at: START, verdict }).collect()
}

const ORDERS: &str = "\
orders: 2 ready, 2 delayed, 1 in flight
  in flight 30s | received 1 charged 1 | in flight
  delayed 60s | received 1 charged 1 | waits
    #1 Retry http account 500
  ready | received 0 charged 0 | ready ünicode
  delayed 900s | received 0 charged 0 | delayed
  ready | received 0 charged 0 | driven back
    #1 Dead http account 404
";
const DEAD: &str = "\
dead: 1 ready, 0 delayed, 0 in flight
  ready | received 1 charged 0 | letter
    #1 Dead http account 404
";

/// Everything that [`fill`] wrote, as text and as records.
fn compare(snapshot: &Snapshot) {
    assert_eq!(dump::dump(snapshot, "orders", START_NOW).unwrap(), ORDERS);
    // Those who wrote the stored files kept the charges of a message that died.
    let dump_of_dead = dump::dump(snapshot, "dead", START_NOW).unwrap().replace("charged 1", "charged 0");
    assert_eq!(dump_of_dead, DEAD);
    let queue = nightmail::queue::catalog::look_up(snapshot, "dead").unwrap();
    let groups = dead::groups(snapshot, &queue).unwrap();
    let groups: Vec<_> = groups.into_iter().map(|group| (group.class, group.count)).collect();
    assert_eq!(groups, [("http account 404".to_owned(), 1)], "letters of earlier formats are in the index too");
    assert_eq!(snapshot.runs().unwrap().get(&7), Ok(Some(run())));
    assert_eq!(snapshot.run_keys().unwrap().get(&"monthly period=2026-10".into()), Ok(Some(7)));
    assert_eq!(snapshot.totals().unwrap().get(&7), Ok(Some(totals())));
    let stored = snapshot.recipients().unwrap().first((7, [0; 16])..=(7, [255; 16]), 10).unwrap();
    assert_eq!(stored.into_iter().map(|(_, recipient)| recipient).collect::<Vec<_>>(), recipients());
    let stored = snapshot.ticks().unwrap().first(("monthly".into(), 0)..=("monthly".into(), 9), 10).unwrap();
    assert_eq!(stored.into_iter().map(|(_, tick)| tick).collect::<Vec<_>>(), ticks());
    let redrives = redrive::list(snapshot).unwrap();
    assert_eq!((redrives.len(), redrives[0].moved, redrives[0].per_second), (1, 1, Some(10)));
    let names: Vec<_> =
        nightmail::queue::catalog::list(snapshot).unwrap().into_iter().map(|q| (q.id, q.name)).collect();
    assert_eq!(names, [(1, "dead".into()), (2, "orders".into())]);
}

#[tokio::test]
async fn a_store_of_this_version_holds_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nightmail.redb");
    fill(&path).await;
    // Closed: everything is in this one file.
    if let Some(target) = std::env::var_os("NIGHTMAIL_WRITE_STORE") {
        assert!(!Path::new(&target).exists(), "a stored file is never written again");
        std::fs::copy(&path, target).unwrap();
    }
    compare(&queues(&path, START).store().snapshot().unwrap());
}

#[tokio::test]
async fn a_store_of_every_format_opens_with_its_content_and_goes_on() {
    for stored in STORED {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nightmail.redb");
        std::fs::copy(stored, &path).unwrap();
        let queues = queues(&path, START);
        compare(&queues.store().snapshot().unwrap());
        assert_eq!(crate::support::unsound(&queues.store().snapshot().unwrap()), 0, "{stored}");
        let sent = queues.send("orders", Send::text("new")).await.unwrap();
        assert!(sent.sequence > 6, "numbers go on where they stood");
        assert_eq!(queues.ensure("new", &forever()).await, Ok(3));
        let letter = queues.receive("dead", Receive::for_client(1), Duration::ZERO).await.unwrap().remove(0);
        assert_eq!((&letter.body[..], letter.run, letter.recipient), (&b"letter"[..], 7, [9; 16]));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message's state with every field.
fn state() -> MessageState {
    MessageState {
        phase: Phase::InFlight,
        owner: Owner::Client,
        body: 0x0101_0101_0101_0101,
        message_id: MessageId::from_bytes([2; 16]),
        sent_at: Timestamp::from_millis(3),
        visible_at: LeaseTime::from_millis(4),
        first_received_at: Timestamp::from_millis(5),
        received_at: LeaseTime::from_millis(6),
        deferred_since: LeaseTime::from_millis(7),
        receive_count: 8,
        attempts_charged: 9,
        attempts: 10,
        lease: 11,
        arrival_seq: 12,
        size_bytes: 13,
        source: 14,
        group: Some(Group { id: [0xa; 16], is_ordered: true }),
        priority: 15,
        expires_at: Timestamp::from_millis(16),
        unique: Some(UniqueRef { queue: 17, key: [0xb; 16] }),
        redriven_by: Some(RedrivenBy { redrive: 18, source: 19, was: None }),
        suspicion: Suspicion::Alone,
    }
}

/// A lost attempt.
fn attempt() -> Attempt {
    Attempt {
        number: 300,
        function: "fn".into(),
        started_at: Timestamp::from_millis(1),
        ended_at: Timestamp::from_millis(128),
        end: AttemptEnd::Lost,
        failure: Some(Failure { kind: "k".into(), place: "p".into(), code: "c".into(), text: "t".into() }),
    }
}

/// A redrive that failed.
fn redrive() -> RedriveRecord {
    RedriveRecord {
        id: 1,
        from: 2,
        to: Some(3),
        selection: Selection {
            fingerprint: Some(Fingerprint::from_bytes([0xab, 0, 0, 1])),
            ids: vec![MessageId::from_bytes([4; 16])],
            ..Selection::default()
        },
        as_of: 10,
        matching: 11,
        per_second: None,
        canary: Some(Canary { first_permille: 12, failed_permille_max: 13, allowed: 14 }),
        undoes: None,
        at_queue: 2,
        last: 5,
        done: 6,
        moved: 7,
        started_at: Timestamp::from_millis(8),
        state: RedriveState::Failed { at: Timestamp::from_millis(9), why: "w".into() },
    }
}

/// A queue with every attribute.
fn queue() -> QueueRecord {
    let attributes = QueueAttributes {
        visibility_timeout_ms: 1,
        delay_ms: 2,
        retention_ms: Some(3),
        receive_wait_ms: 4,
        message_bytes_max: 5,
        redrive: Some(("d".into(), 6)),
        redrive_allow: RedriveAllow::Only(vec!["s".into()]),
        fifo: Some(Fifo {
            content_based_deduplication: true,
            deduplication_scope: Scope::Group,
            throughput_limit: Scope::Queue,
        }),
        messages_max: Some(7),
        bytes_max: None,
    };
    QueueRecord {
        id: 1,
        name: "q".into(),
        created_at: Timestamp::from_millis(2),
        modified_at: Timestamp::from_millis(3),
        attributes,
        tags: BTreeMap::from([("k".into(), "v".into())]),
        paused: Some(Pause { by: "p".into(), since: Timestamp::from_millis(4) }),
        deleted_at: None,
        rows: 5,
        purged: Some(Purge { before: 6, at: LeaseTime::from_millis(7) }),
        delays_from: Some(8),
    }
}

#[test]
fn the_hot_records_are_laid_out_as_the_format_says() {
    let state = state();
    let fields = [
        "02",
        "02",
        "02",
        "bf",
        "0101010101010101",
        "02020202020202020202020202020202",
        "0000000000000003",
        "0000000000000004",
        "0000000000000005",
        "0000000000000006",
        "0000000000000007",
        "00000008",
        "00000009",
        "0000000a",
        "000000000000000b",
        "000000000000000c",
        "0000000d",
        "0000000e",
        "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
        "0000000f",
        "0000000000000010",
        "00000011",
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "0000000000000012",
        "00000013",
    ];
    assert_eq!(hex(&state.encode()), fields.concat());
    let was = LetterBefore {
        sequence: 20,
        message_id: MessageId::from_bytes([21; 16]),
        sent_at: Timestamp::from_millis(22),
        first_received_at: Timestamp::from_millis(23),
        received_at: LeaseTime::from_millis(24),
        receive_count: 25,
        attempts_charged: 26,
    };
    let redriven_by = Some(RedrivenBy { redrive: 18, source: 19, was: Some(was) });
    let redriven = MessageState { redriven_by, ..state.clone() };
    let times = ["0000000000000016", "0000000000000017", "0000000000000018"].concat();
    let before = ["0000000000000014", &"15".repeat(16), &times, "00000019", "0000001a"];
    assert_eq!(hex(&redriven.encode()), format!("03{}{}", &fields.concat()[2..], before.concat()));
    let plain = MessageState {
        group: None,
        priority: 0,
        expires_at: Timestamp::ZERO,
        unique: None,
        redriven_by: None,
        suspicion: Suspicion::None,
        ..state
    };
    assert_eq!(plain.encode().len(), 104);
    let body = Body { run: 1, recipient: [2; 16], bytes: "hi".into(), ..Body::default() };
    assert_eq!(hex(&body.encode()), "02000000000000000102020202020202020202020202020202000000006869");
    let envelope = Envelope { group: Some("g".into()), ..Envelope::default() };
    let grouped = Body { envelope, ..body };
    assert_eq!(
        hex(&grouped.encode()),
        "020000000000000001020202020202020202020202020202020000000800000001016700006869"
    );
    let group = GroupRecord { in_flight: 1, held: 2, held_known: vec![7], waiting: 3, head: (4, 5), turn: 6 };
    let numbers = "000000000000000100000000000000020000000000000003000000040000000000000005";
    assert_eq!(hex(&group.encode()), format!("02{numbers}000000000000000600010000000000000007"));
    let older = GroupRecord { held_known: Vec::new(), turn: 0, ..group.clone() };
    assert_eq!(GroupRecord::decode(&[&[1], &group.encode()[1..37]].concat()), Ok(older), "version 1");
    assert_eq!((hex(&Shown(None).encode()), hex(&Shown(Some(7)).encode())), (String::new(), format!("{:016x}", 7)));
    let list_with_outcomes = RedriveTotals { succeeded: 1, failed: 2, withdrawn: 3, undone: 4 };
    let numbers = (1..=4).map(|n| format!("{n:016x}")).collect::<String>();
    assert_eq!(hex(&list_with_outcomes.encode()), format!("01{numbers}"));
    let counts = Counts { ready: 1, delayed: 2, in_flight: 3, bytes: 4, followers: 5, follower_bytes: 6 };
    let numbers = (1..=6).map(|n| format!("{n:016x}")).collect::<String>();
    assert_eq!(hex(&counts.encode()), format!("02{numbers}"));
    let older = Counts { followers: 0, follower_bytes: 0, ..counts };
    assert_eq!(Counts::decode(&[&[1], &counts.encode()[1..33]].concat()), Ok(older), "version 1");
    let totals =
        RunTotals { fetched: 1, sent: 2, dead: 3, withdrawn: 4, repeated: 5, interrupted: 6, ..RunTotals::default() };
    let older = RunTotals { unknown: 7, skipped: 8, suppressed: 9, copies: 10, ..totals };
    let again = RunTotals { refetch_abandoned: 11, resending: 12, resends_unknown: 13, ..older };
    let renderings = RenderingTotals { statements: 14, pages: 15, bytes: 16, empty: 17, over: 18, open: 19 };
    let phase = |n| PhaseCounts { filtered: n, done: n + 1, skipped: n + 2, retried: n + 3, dead: n + 4 };
    let phases = PhaseTotals { fetch: phase(20), render: phase(25), check: phase(30), send: phase(35) };
    let all = RunTotals { renderings, phases, ..again };
    let numbers = (1..=39).map(|n| format!("{n:016x}")).collect::<String>();
    assert_eq!(hex(&all.encode()), format!("04{numbers}"));
    assert_eq!(RunTotals::decode(&[&[3], &all.encode()[1..105]].concat()), Ok(again), "version 3");
    assert_eq!(RunTotals::decode(&[&[2], &all.encode()[1..81]].concat()), Ok(older), "version 2");
    assert_eq!(RunTotals::decode(&[&[1], &all.encode()[1..49]].concat()), Ok(totals), "version 1");
    let (at, purpose) = (Timestamp::from_millis(5), "p".to_owned());
    let intent = IntentRecord { queue: 1, sequence: 2, lease: 3, body: 4, at, recipient: [6; 16], purpose };
    let fields = ["01", "00000001", "0000000000000002", "0000000000000003", "0000000000000004", "0000000000000005"];
    assert_eq!(hex(&intent.encode()), format!("{}{}70", fields.concat(), "06".repeat(16)));
    assert_eq!(hex(&UserText("{}".into()).encode()), "017b7d");
}

#[test]
fn the_other_records_are_laid_out_as_the_format_says() {
    let attempt = attempt();
    insta::assert_snapshot!(hex(&attempt.encode()), @"01ac0202666e0180010301016b017001630174");
    let redrive = redrive();
    insta::assert_snapshot!(hex(&redrive.encode()), @"02010201030108616230303030303101100404040404040404040404040404040400000000000a0b00010c0d0e00050206070803090177");
    let queue = queue();
    insta::assert_snapshot!(hex(&queue.encode()), @"03010171020301020103040501016406020101730101010001070001016b01760101700400050106070108");
    let older = QueueRecord { rows: queue.id, purged: None, delays_from: None, ..queue.clone() };
    let encoded = queue.encode();
    let version_2 = [&[2], &encoded[1..encoded.len() - 6]].concat();
    assert_eq!(QueueRecord::decode(&version_2), Ok(older), "version 2");
    assert_eq!(QueueRecord::decode(&encoded), Ok(queue));
    let what = DedupEntry::Sent { message_id: MessageId::from_bytes([4; 16]), sequence: 5 };
    let dedup = DedupRecord { until: LeaseTime::from_millis(6), what };
    insta::assert_snapshot!(hex(&dedup.encode()), @"010600100404040404040404040404040404040405");
    let follower = Follower {
        body: 1,
        message_id: MessageId::from_bytes([4; 16]),
        size_bytes: 2,
        priority: 3,
        sent_at: Timestamp::from_millis(4),
        expires_at: Timestamp::ZERO,
        visible_at: LeaseTime::from_millis(5),
    };
    let unique = UniqueRecord { queue: 7, sequence: 8, follower: Some(follower) };
    insta::assert_snapshot!(hex(&unique.encode()), @"020708010110040404040404040404040404040404040203040005");
    let older = UniqueRecord::decode(&[&[1], &unique.encode()[1..unique.encode().len() - 1]].concat()).unwrap();
    assert_eq!(older.follower.map(|follower| follower.visible_at), Some(LeaseTime::ZERO), "version 1");
}

#[test]
fn a_queue_of_version_1_keeps_each_of_its_attributes() {
    let bytes = [1, 7, 1, b'q', 2, 3, 4, 1, 5, 6, 7, 1, 1, b'd', 8];
    let queue = QueueRecord::decode(&bytes).unwrap();
    let attributes = QueueAttributes {
        visibility_timeout_ms: 3,
        delay_ms: 4,
        retention_ms: Some(5),
        receive_wait_ms: 6,
        message_bytes_max: 7,
        redrive: Some(("d".into(), 8)),
        redrive_allow: RedriveAllow::All,
        fifo: None,
        messages_max: None,
        bytes_max: None,
    };
    let created_at = Timestamp::from_millis(2);
    let expected = QueueRecord {
        id: 7,
        name: "q".into(),
        created_at,
        modified_at: created_at,
        attributes,
        tags: BTreeMap::new(),
        paused: None,
        deleted_at: None,
        rows: 7,
        purged: None,
        delays_from: None,
    };
    assert_eq!(queue, expected);
}

#[test]
fn every_table_can_be_read_checked_and_backed_up_right_after_an_upgrade() {
    for stored in STORED {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nightmail.redb");
        std::fs::copy(stored, &path).unwrap();
        let store = Store::open(&store::Options::at(&path)).unwrap();
        let mut findings = Findings::default();
        check::records(&store.snapshot().unwrap(), &mut findings).unwrap();
        nightmail::queue::check::check(&store.snapshot().unwrap(), &mut findings).unwrap();
        assert_eq!(findings.shown, [], "{stored}");
        let order = backup::Order { file: dir.path().join("copy"), replace: false, verify: true };
        let rows = store.backup(&order, &CancellationToken::new()).unwrap().rows;
        assert!(rows >= findings.rows, "{stored}: {rows} of {} rows", findings.rows);
    }
}

#[test]
fn runs_recipients_and_ticks_are_laid_out_as_the_format_says_and_their_version_1_is_read() {
    let run = RunRecord { params: BTreeMap::from([("k".into(), "v".into())]), ..run_in_full() };
    let run = RunRecord { schedule: "s".into(), function: "f".into(), ..run };
    let run = RunRecord { scheduled_for: Timestamp::from_millis(1), started_at: Timestamp::from_millis(2), ..run };
    let check = Some(CheckRecord { at: Timestamp::from_millis(7), findings: vec!["f".into()] });
    let checked = RunRecord { check, ..run.clone() };
    assert!(hex(&checked.encode()).ends_with("01060107010166"));
    assert_eq!(RunRecord::decode(&checked.encode()), Ok(checked));
    insta::assert_snapshot!(hex(&run.encode()), @"05080173016601016b0176010202010d2f75736572733f706167653d330009010606060606060606060606060606060607080110040404040404040404040404040404040164016301740503016e010600");
    assert_eq!(RunRecord::decode(&run.encode()), Ok(run.clone()));
    let bytes = [&[4], &run.encode()[1..run.encode().len() - 1]].concat();
    assert_eq!(RunRecord::decode(&bytes), Ok(run.clone()), "version 4");
    let older = RunRecord { folded_at: None, ..run };
    let bytes = [&[3], &older.encode()[1..older.encode().len() - 2]].concat();
    assert_eq!(RunRecord::decode(&bytes), Ok(older.clone()), "version 3");
    let older = RunRecord { refetches: 0, note: String::new(), ..older };
    let bytes = [&[2], &older.encode()[1..older.encode().len() - 4]].concat();
    assert_eq!(RunRecord::decode(&bytes), Ok(older), "version 2");
    let recipient = RecipientRecord { page: 300, ..recipients().remove(0) };
    let (account, reason) = (Some("c".into()), "d".into());
    let in_full = RecipientRecord { address: "a@b".into(), account, reason, body: 301, copies: 5, ..recipient };
    let added = RecipientRecord { refetch: 6, ..in_full.clone() };
    insta::assert_snapshot!(hex(&added.encode()), @"0506757365722d300080d09fa3993400ac02036140620101630164ad02050600");
    let made = RenderingRecord { sha256: [7; 32], bytes: 300, pages: 2, is_empty: true, is_over: false };
    let rendered = RecipientRecord { rendering: Some(made), ..added.clone() };
    let tail = format!("01{}ac02020100", "07".repeat(32));
    assert!(hex(&rendered.encode()).ends_with(&tail), "{}", hex(&rendered.encode()));
    assert_eq!(RecipientRecord::decode(&rendered.encode()), Ok(rendered));
    assert_eq!(RecipientRecord::decode(&added.encode()), Ok(added.clone()));
    let bytes = [&[4], &added.encode()[1..added.encode().len() - 1]].concat();
    assert_eq!(RecipientRecord::decode(&bytes), Ok(added), "version 4");
    let bytes = [&[3], &in_full.encode()[1..in_full.encode().len() - 2]].concat();
    assert_eq!(RecipientRecord::decode(&bytes), Ok(in_full.clone()), "version 3");
    let older = RecipientRecord { body: 0, copies: 0, ..in_full.clone() };
    let bytes = [&[2], &older.encode()[1..older.encode().len() - 4]].concat();
    assert_eq!(RecipientRecord::decode(&bytes), Ok(older), "version 2");
    let unknown = RecipientState::Unknown(Some("i".into()));
    let effect = EffectRecord { purpose: "p".into(), state: unknown, updated_at: START, body: 1, interrupted: 2 };
    insta::assert_snapshot!(hex(&effect.encode()), @"0101700401016980d09fa399340102");
    let recipient = recipients().remove(0);
    let older = [&[1], &recipient.encode()[1..recipient.encode().len() - 8]].concat();
    assert_eq!(RecipientRecord::decode(&older), Ok(recipient));
    let tick = TickRecord { decided_at: Timestamp::from_millis(1), verdict: TickVerdict::Waiting };
    insta::assert_snapshot!(hex(&tick.encode()), @"020103");
    assert_eq!(TickRecord::decode(&[1, 1, 1]).map(|tick| tick.verdict), Ok(TickVerdict::Known));
}

#[tokio::test]
async fn the_upgrade_counts_the_followers_that_earlier_counts_did_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nightmail.redb");
    std::fs::copy(STORED[1], &path).unwrap();
    let follower = |body, size_bytes| Follower {
        body,
        message_id: MessageId::from_bytes([4; 16]),
        size_bytes,
        priority: 0,
        sent_at: START,
        expires_at: Timestamp::ZERO,
        visible_at: LeaseTime::ZERO,
    };
    let db = redb::Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    for (key, follower) in [(1, Some(follower(901, 30))), (2, None), (3, Some(follower(902, 12)))] {
        let row = UniqueRecord { queue: 2, sequence: 1, follower }.encode();
        let key = [&2_u32.to_be_bytes()[..], &[key; 16]].concat();
        // Format 2 has no checksums.
        transaction.open_table(crate::support::table("uniques")).unwrap().insert(&*key, &*row).unwrap();
    }
    transaction.commit().unwrap();
    drop(db);
    let queues = queues(&path, START);
    let counts = queues.store().snapshot().unwrap().counts().unwrap();
    let orders = counts.get(&2).unwrap().unwrap();
    assert_eq!((orders.total(), orders.followers, orders.follower_bytes), (5, 2, 42));
    assert_eq!(counts.get(&1).unwrap().unwrap().followers, 0);
}

#[tokio::test]
async fn a_store_of_format_4_from_before_its_newest_tables_opens_and_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILES[0]);
    queues(&path, START).ensure("orders", &forever()).await.unwrap();
    let db = redb::Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    assert!(transaction.delete_table(crate::support::table("run_controls")).unwrap());
    transaction.commit().unwrap();
    drop(db);
    let queues = queues(&path, START);
    queues.send("orders", Send::text("as ever")).await.unwrap();
    assert_eq!(queues.store().snapshot().unwrap().run_controls().unwrap().get(&1).unwrap(), None);
}

#[tokio::test]
async fn the_record_of_what_is_decided_about_a_run_has_the_bytes_of_the_format() {
    let hold = RunHold::Stopped { at: Timestamp::from_millis(5) };
    let control = RunControl { hold, decision: 6, has_queued: true, ..RunControl::default() };
    let bytes = control.encode();
    insta::assert_snapshot!(hex(&bytes), @"05010506010000000000");
    assert_eq!(RunControl::decode(&[&[4], &bytes[1..]].concat()), Ok(control.clone()), "version 4");
    assert_eq!(RunControl::decode(&[&[3], &bytes[1..bytes.len() - 1]].concat()), Ok(control.clone()), "version 3");
    assert_eq!(RunControl::decode(&[&[2], &bytes[1..bytes.len() - 2]].concat()), Ok(control.clone()), "version 2");
    assert_eq!(RunControl::decode(&[1, 1, 5, 6, 1, 0]), Ok(control.clone()), "version 1");
    assert_eq!(RunControl::decode(&bytes), Ok(control));
    let abandoned = RunControl { hold: RunHold::Abandoned { at: Timestamp::from_millis(5) }, ..RunControl::default() };
    insta::assert_snapshot!(hex(&abandoned.encode()), @"05020500000000000000");
    insta::assert_snapshot!(hex(&RunControl::default().encode()), @"050000000000000000");
    let guard = Some(Guard { users_min: 300, deviation: Some(1000) });
    let guarded = RunControl { hold: RunHold::Fetching, decision: 7, guard, ..RunControl::default() };
    insta::assert_snapshot!(hex(&guarded.encode()), @"050307000001ac0201e807000000");
    let hold = RunHold::AwaitingRelease { at: Timestamp::from_millis(5), reason: "r".into() };
    let waiting = RunControl { hold, decision: 8, ..RunControl::default() };
    insta::assert_snapshot!(hex(&waiting.encode()), @"050405017208000000000000");
    let limit = BrakeLimit { share: 200, of: 500 };
    let brake = Some(Brake { limit, from: 3, failures: 4 });
    let hold = RunHold::Braked { at: Timestamp::from_millis(5), reason: "r".into() };
    let braked = RunControl { hold, decision: 8, brake, ..RunControl::default() };
    insta::assert_snapshot!(hex(&braked.encode()), @"05050501720800000001c801f40303040000");
    let abandoned_at = Some(Timestamp::from_millis(6));
    let refetch = Some(Refetching { number: 2, fetched_at: Timestamp::from_millis(5), abandoned_at, users_before: 7 });
    let refetched = RunControl { decision: 9, refetch, ..RunControl::default() };
    insta::assert_snapshot!(hex(&refetched.encode()), @"0500090000000001020501060700");
    let earlier = refetch.map(|refetch| Refetching { users_before: 0, ..refetch });
    let earlier = RunControl { refetch: earlier, ..refetched };
    assert_eq!(RunControl::decode(b"\x04\x00\x09\x00\x00\x00\x00\x01\x02\x05\x01\x06\x00"), Ok(earlier), "version 4");
    let limits = GateLimits { failures: Some(100), empty: None, pages_max: 50, bytes_max: 300, deviation: Some(2500) };
    let gate = Some(Gate { mode: GateMode::Auto, limits, checked_at: Some(Timestamp::from_millis(5)) });
    let gated = RunControl { hold: RunHold::Rendering, decision: 9, gate, ..RunControl::default() };
    insta::assert_snapshot!(hex(&gated.encode()), @"0506090000000000010101640032ac0201c4130105");
    assert_eq!(RunControl::decode(&gated.encode()), Ok(gated));
    let remade = RunControl { hold: RunHold::Remaking, decision: 9, ..RunControl::default() };
    insta::assert_snapshot!(hex(&remade.encode()), @"050709000000000000");
    let deadline = Some((DeadlineState::AtRisk, Timestamp::from_millis(7)));
    let announced = Announced { first_death: true, end: Some(9), held: Some(Timestamp::from_millis(5)), deadline };
    insta::assert_snapshot!(hex(&announced.encode()), @"030101090105010107");
    let before = Announced { deadline: None, ..announced };
    assert_eq!(Announced::decode(&[2, 1, 1, 9, 1, 5]), Ok(before), "version 2");
    assert_eq!(Announced::decode(&[1, 1, 1, 9]), Ok(Announced { held: None, ..before }), "version 1");
    let calls = |count| Calls { count, total_us: count + 1 };
    let limits = MeasuredLimits { concurrency: 32, connections: 20, per_second: Some(5) };
    let (account, document, mail) = (calls(1), calls(2), calls(3));
    let measured = Measured { ended: 4, span_ms: 5, cpu_ms: 6, account, document, mail, limits };
    let (at, since) = (Timestamp::from_millis(8), Timestamp::from_millis(9));
    let deadline = Some(RunDeadline { at, state: DeadlineState::Met, since });
    let pace = RunPace { deadline, ended_at: Some(since), measured };
    insta::assert_snapshot!(hex(&pace.encode()), @"0101080309010904050601020203030420140105");
    assert_eq!(RunPace::decode(&pace.encode()), Ok(pace));
}

#[tokio::test]
async fn a_store_of_format_3_that_was_killed_keeps_what_its_log_holds() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let killed = {
        let queues = queues(&dir.path().join(FILES[0]), START);
        queues.ensure("orders", &forever()).await.unwrap();
        queues.send("orders", Send::text("in the log")).await.unwrap();
        for name in FILES {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        copy.path().join(FILES[0])
    };
    // Format 3 lacked the newest tables, and nothing else.
    let db = redb::Database::open(&killed).unwrap();
    let transaction = db.begin_write().unwrap();
    for name in ["intents", "effects", "user_records", "kept_attributes"] {
        assert!(transaction.delete_table(crate::support::table(name)).unwrap());
    }
    transaction.commit().unwrap();
    drop(db);
    crate::support::tamper(&killed, "meta", b"format", &3_u64.to_be_bytes());
    let queues = queues(&killed, START);
    let found = queues.receive("orders", Receive::for_client(1), Duration::ZERO).await.unwrap();
    assert_eq!(&found[0].body[..], b"in the log");
    assert_eq!(crate::support::unsound(&queues.store().snapshot().unwrap()), 0);
}
