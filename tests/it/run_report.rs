//! `nightmail run report`: each recipient once, with the proof or the reason, in every format.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nightmail::base::Fingerprint;
use nightmail::base::outcome::DeliveryProof;
use nightmail::run::identity;
use nightmail::store::record::{EffectRecord, FanOutProgress, RecipientRecord, RecipientState, RunRecord, RunTotals};
use nightmail::store::{self, Options, Store, Tx};
use serde_json::{Value, json};

use crate::format::{recipients, run};
use crate::harness::{say, size};
use crate::process::{Harness, Process, timed};
use crate::support::START;

/// The rows of a CSV by column.
fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row = |row: csv::StringRecord| header.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// Run 1 of the example's schedule, fetched, without recipients.
fn run_1() -> RunRecord {
    let fan_out = FanOutProgress { finished_at: Some(START), next: None, ..run().fan_out };
    RunRecord { id: 1, schedule: "monthly-statements".into(), function: "fan-out".into(), fan_out, ..run() }
}

/// A store with run 1 and these recipients, which the harness's commands find.
fn with_rows(harness: &Harness, count: u32, row: impl Fn(u32) -> RecipientRecord + Send + Sync + 'static) {
    std::fs::create_dir_all(harness.dir.path().join("data")).unwrap();
    let store = Store::open(&Options::at(harness.dir.path().join("data/nightmail.redb"))).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let row = std::sync::Arc::new(row);
    for from in (0..count).step_by(500) {
        let row = row.clone();
        let step = move |tx: &mut Tx<'_>| {
            if from == 0 {
                let run = run_1();
                tx.runs()?.insert(&1, &run)?;
                tx.run_keys()?.insert(&identity(&run.schedule, &run.params, run.scheduled_for), &1)?;
                *tx.totals_mut(1)? = RunTotals::default();
            }
            for n in from..count.min(from + 500) {
                let row = row(n);
                count_in(tx.totals_mut(1)?, &row);
                tx.recipients()?.insert(&(1, key(n)), &row)?;
            }
            Ok::<_, store::Error>(())
        };
        runtime.block_on(store.write(step)).unwrap();
    }
}

/// Keys are hashes: spread over the table.
fn key(n: u32) -> [u8; 16] {
    u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
}

/// Adds mails beside the run's own to the recipient `n`.
fn add_resends(harness: &Harness, n: u32, states: Vec<RecipientState>) {
    let store = Store::open(&Options::at(harness.dir.path().join("data/nightmail.redb"))).unwrap();
    let step = move |tx: &mut Tx<'_>| {
        for (number, state) in (1..).zip(states) {
            let slot = tx.totals_mut(1)?;
            slot.resends_unknown += u64::from(matches!(state, RecipientState::Unknown(_)));
            let purpose = format!("resend-{number}");
            let effect = EffectRecord { purpose, state, updated_at: START, body: 0, interrupted: 0 };
            // The later ones have the smaller keys.
            tx.effects()?.insert(&(1, key(n), [0xff - number; 16]), &effect)?;
        }
        Ok::<_, store::Error>(())
    };
    tokio::runtime::Runtime::new().unwrap().block_on(store.write(step)).unwrap();
}

#[test]
fn every_format_has_the_mails_that_were_sent_again_with_their_proof_and_those_in_doubt() {
    let harness = Harness::empty();
    with_rows(&harness, 3, |n| row(&format!("user-{n}"), RecipientState::Sent(proof()), ""));
    let again = DeliveryProof { message_id: Some("<2.u@bank.example>".into()), ..proof() };
    let doubt = RecipientState::Unknown(Some("<3.u@bank.example>".into()));
    add_resends(&harness, 1, vec![RecipientState::Sent(again), doubt]);
    let rows = table(harness.run(&["run", "report", "1", "--csv"]).good());
    let cells: BTreeMap<_, _> = rows.iter().map(|row| (row["user"].as_str(), row["resends"].as_str())).collect();
    assert_eq!((cells["user-0"], cells["user-2"]), ("", ""));
    let hash = "ab".repeat(32);
    let at = &rows[0]["since"];
    let expected = format!(
        "resend-1 sent {at} <2.u@bank.example> {hash} 250 2.0.0 queued as 4711; resend-2 unknown {at} <3.u@bank.example>"
    );
    assert_eq!(cells["user-1"], expected);
    let json = harness.run(&["run", "report", "1", "--json"]).json();
    assert_eq!(json["run"]["resends_unknown"], 1);
    let json = json["recipients"].as_array().unwrap().iter().find(|row| row["user"] == "user-1").unwrap();
    assert_eq!(
        (&json["resends"][0]["document_sha256"], &json["resends"][1]["state"]),
        (&hash.into(), &"unknown".into())
    );
    let page = harness.run(&["run", "report", "1", "--html"]).good().to_owned();
    let section = page.split("<h2>Sent again by hand</h2>").nth(1).unwrap().split("<h2>").next().unwrap();
    for text in
        ["user-1", "resend-1: sent", "&lt;2.u@bank.example&gt;", "resend-2: unknown", "&lt;3.u@bank.example&gt;"]
    {
        assert!(section.contains(text), "{text}: {section}");
    }
    assert!(!section.contains("user-2") && page.contains("1 recipient needs attention."), "{page}");
    let shown = harness.run(&["run", "show", "1"]).good().to_owned();
    assert!(shown.contains("1 resend unknown") && shown.contains("`nightmail run recipients 1 --resent`"), "{shown}");
    let listed = harness.run(&["run", "recipients", "1", "--resent", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().iter().map(|row| &row["user"]).collect::<Vec<_>>(), ["user-1"]);
}

fn count_in(totals: &mut RunTotals, row: &RecipientRecord) {
    totals.fetched += 1;
    totals.interrupted += u64::from(row.interrupted);
    match row.state {
        RecipientState::Open => {}
        RecipientState::Sent(_) => totals.sent += 1,
        RecipientState::Dead(_) => totals.dead += 1,
        RecipientState::Withdrawn(_) => totals.withdrawn += 1,
        RecipientState::Unknown(_) => totals.unknown += 1,
        RecipientState::Skipped(_) => totals.skipped += 1,
        RecipientState::Suppressed(_) => totals.suppressed += 1,
    }
}

fn row(user: &str, state: RecipientState, reason: &str) -> RecipientRecord {
    let interrupted = u32::from(matches!(state, RecipientState::Unknown(_)));
    let (user, address, reason) = (user.to_owned(), format!("{user}@bank.example"), reason.to_owned());
    RecipientRecord { user, address, state, reason, interrupted, ..recipients().remove(0) }
}

fn proof() -> DeliveryProof {
    DeliveryProof {
        reply: Some("250 2.0.0 queued as 4711".into()),
        message_id: Some("<1.u@bank.example>".into()),
        document_sha256: Some("ab".repeat(32)),
    }
}

#[test]
fn the_csv_has_each_recipient_once_with_the_proof_or_the_reason() {
    let harness = Harness::with_bank_and_sink(&["--users", "20", "--fail", "20%", "--malformed", "1"]);
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    let run = harness.run(&["run", "show", "1", "--json"]).json();
    let said = harness.run(&["run", "report", "1", "--csv"]);
    assert_eq!(said.err, "");
    assert!(
        said.good().lines().next().unwrap().starts_with("run,schedule,parameters,user,account,address,state,since,")
    );
    assert!(said.out.ends_with("\r\n"));
    let rows = table(&said.out);
    let users: BTreeSet<_> = rows.iter().map(|row| &row["user"]).collect();
    assert_eq!((rows.len(), users.len()), (20, 20));
    let with = |state: &str| rows.iter().filter(|row| row["state"] == state).collect::<Vec<_>>();
    assert_eq!(with("sent").len() as u64, run["sent"]);
    for row in with("sent") {
        assert!(row["relay_reply"].starts_with("250 ") && row["message_id"].ends_with('>'), "{row:?}");
        assert!(row["pdf_sha256"].len() == 64 && row["address"].contains('@') && row["reason"].is_empty(), "{row:?}");
        assert!(row["since"].starts_with("20") && row["since"].ends_with('Z'), "{row:?}");
    }
    assert_eq!(with("dead").len() as u64, run["dead"]);
    for row in with("dead") {
        assert!(row["fingerprint"].len() == 8 && !row["reason"].is_empty(), "{row:?}");
        assert!(
            !row["reason"].ends_with(')') && row["message_id"].is_empty() && row["relay_reply"].is_empty(),
            "{row:?}"
        );
    }
    assert!(with("dead").iter().any(|row| !row["remedy"].is_empty()));
    let report = harness.run(&["run", "report", "1", "--json"]).json();
    assert_eq!((&report["run"], &report["recounted"]["recipients"]), (&run, &json!(20)));
    assert_eq!(report["recounted"]["by_state"], json!({"sent": run["sent"], "dead": run["dead"]}));
    assert_eq!(report["recipients"].as_array().unwrap().len(), 20);
    let page = harness.run(&["run", "report", "1", "--html"]).good().to_owned();
    assert!(page.contains("nightmail redrive statements-dead --where fingerprint="), "{page}");
    assert!(page.contains("nightmail redrive fan-out-dead --where fingerprint="), "{page}");
    for row in &rows {
        assert!(page.contains(&format!(">{}</bdi>", row["user"])), "{row:?}");
    }
}

#[test]
fn foreign_text_is_no_formula_no_markup_and_no_second_row() {
    let harness = Harness::empty();
    let users = [
        "=HYPERLINK(\"http://evil\")",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "<script>alert(1)</script>",
        "a,\"b\"\r\nc",
        "Ada\u{202e}",
    ];
    let count = u32::try_from(users.len()).unwrap();
    with_rows(&harness, count, move |n| {
        let state = RecipientState::Dead(Fingerprint::of("http", "account", "404"));
        row(users[n as usize], state, "http account 404: =cmd <b>gone</b> (ask the bank)")
    });
    let rows = table(harness.run(&["run", "report", "1", "--csv"]).good());
    let mut found: Vec<_> = rows.iter().map(|row| row["user"].clone()).collect();
    found.sort();
    let mut expected: Vec<_> = users[..5].iter().map(|user| format!("'{user}")).collect();
    expected.extend(users[5..].iter().map(|user| (*user).to_owned()));
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(
        (rows[0]["reason"].as_str(), rows[0]["remedy"].as_str()),
        ("http account 404: =cmd <b>gone</b>", "ask the bank")
    );
    let json = harness.run(&["run", "report", "1", "--json"]);
    let named: BTreeSet<_> = json.json()["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["user"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, users.map(str::to_owned).into(), "JSON has the very text");
    let page = harness.run(&["run", "report", "1", "--html"]).good().to_owned();
    assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains('\u{202e}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("Ada\\u{202e}"), "{page}");
    for outside in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "the page is self-contained: {outside}");
    }
}

#[test]
fn the_page_lists_who_needs_attention_and_says_what_it_leaves_out() {
    let harness = Harness::empty();
    with_rows(&harness, 1500, |n| match n {
        0 => row("in-doubt", RecipientState::Unknown(Some("<doubt@bank.example>".into())), "the relay fell silent"),
        1 => RecipientRecord { interrupted: 1, ..row("perhaps-twice", RecipientState::Sent(proof()), "") },
        2 => row("taken-back", RecipientState::Withdrawn("purged".into()), ""),
        3 => row("left-out", RecipientState::Skipped("no transactions".into()), ""),
        4 => row("bounced", RecipientState::Suppressed("mailbox gone".into()), ""),
        5 => row("waiting", RecipientState::Open, ""),
        6..300 => row(
            &format!("dead-{n}"),
            RecipientState::Dead(Fingerprint::of("http", "account", "404")),
            "http account 404: gone",
        ),
        _ => row(&format!("u-{n}"), RecipientState::Sent(proof()), ""),
    });
    let page = harness.run(&["run", "report", "1", "--html"]).good().to_owned();
    for text in ["in-doubt", "perhaps-twice", "taken-back", "left-out", "bounced", "waiting", "dead-6<", "dead-299<"] {
        assert!(page.contains(text), "{text}");
    }
    for text in [
        "The run is going on: 1 recipient has not ended.",
        "Recounted from 1,500 rows: every recipient is in exactly one state.",
        "This page lists 1,000 of the 1,201",
        "nightmail run resolve 1 --sent",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("250 2.0.0 queued").count(), 1000, "the one in doubt is in its own list, too");
}

#[test]
fn totals_that_the_rows_contradict_are_told_and_the_report_is_written_all_the_same() {
    let harness = Harness::empty();
    with_rows(&harness, 3, |n| row(&format!("u-{n}"), RecipientState::Sent(proof()), ""));
    let store = Store::open(&Options::at(harness.dir.path().join("data/nightmail.redb"))).unwrap();
    let lie = |tx: &mut Tx<'_>| {
        tx.totals_mut(1)?.fetched = 4;
        Ok::<_, store::Error>(())
    };
    tokio::runtime::Runtime::new().unwrap().block_on(store.write(lie)).unwrap();
    drop(store);
    for format in ["--csv", "--json", "--html"] {
        let said = harness.run(&["run", "report", "1", format]);
        assert_eq!(said.code, 65, "{format}: {said:?}");
        assert!(said.err.contains("faults"), "{format}: {}", said.err);
        assert!(said.out.contains("u-2"), "{format}");
    }
    assert!(harness.run(&["run", "report", "1", "--html"]).out.contains("The books do not balance"));
}

#[test]
fn a_file_is_for_its_owner_alone_and_bears_its_name_once_it_is_complete() {
    let harness = Harness::empty();
    with_rows(&harness, 2, |n| row(&format!("u-{n}"), RecipientState::Sent(proof()), ""));
    let file = harness.dir.path().join("report.csv");
    std::fs::write(&file, "an older one").unwrap();
    let said = harness.run(&["run", "report", "1", "--csv", "--out", "report.csv"]);
    assert!(said.good().is_empty() && said.err.contains("run 1: 2 recipients in report.csv"), "{said:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(table(&std::fs::read_to_string(&file).unwrap()).len(), 2);
    let failed = harness.run(&["run", "report", "9", "--csv", "--out", "none.csv"]);
    assert!(failed.code == 1 && failed.err.contains("run 9 not found"), "{failed:?}");
    let left: Vec<_> = std::fs::read_dir(harness.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("none") || name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
    for (words, code, text) in [
        ("run report 1", 1, "give one of --csv, --json and --html"),
        ("run report 1 --csv --json", 1, "give one of"),
        ("run report 1 --csv --html", 64, "cannot be used with"),
        ("run report 1 --csv --out data", 1, "data is no file"),
        ("run report 1 --csv --out none/report.csv", 1, "none/report.csv"),
    ] {
        let said = harness.run(&words.split(' ').collect::<Vec<_>>());
        assert!(said.code == code && said.out.is_empty() && said.err.contains(text), "{words}: {said:?}");
    }
}

/// The peak of a process's memory, read while it runs.
fn peak_of(process: &mut Process) -> u64 {
    let path = format!("/proc/{}/status", process.pid());
    let mut peak_kib = 0;
    while let Ok(status) = std::fs::read_to_string(&path) {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse().ok()) else { break };
        peak_kib = kib;
        std::thread::yield_now();
    }
    peak_kib
}

#[test]
fn a_report_of_a_large_run_takes_seconds_and_constant_memory() {
    let rows = size("NIGHTMAIL_REPORT_ROWS", 20_000);
    let harness = Harness::empty();
    with_rows(&harness, rows, |n| match n % 50 {
        0 => row(
            &format!("u-{n}"),
            RecipientState::Dead(Fingerprint::of("http", "account", "404")),
            "http account 404: gone (ask)",
        ),
        1 => row(&format!("u-{n}"), RecipientState::Skipped("no transactions".into()), ""),
        _ => row(&format!("u-{n}"), RecipientState::Sent(proof()), ""),
    });
    let _daemon = harness.serve();
    for format in ["--csv", "--json", "--html"] {
        let file = format!("report{format}");
        let mut process = Process::start(&mut harness.command(&["run", "report", "1", format, "--out", &file]));
        let (peak_kib, took) = timed(|| peak_of(&mut process));
        assert_eq!(process.end(), 0, "{:?}", process.seen);
        let bytes = std::fs::metadata(harness.dir.path().join(&file)).unwrap().len();
        say(format_args!("{format}: {rows} rows, {bytes} bytes, {took:?}, peak {} MiB", peak_kib / 1024));
    }
    let lines = lines(&harness.dir.path().join("report--csv"));
    assert_eq!(lines, u64::from(rows) + 1);
    if rows <= 20_000 {
        let text = std::fs::read_to_string(harness.dir.path().join("report--json")).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["recipients"].as_array().unwrap().len(), rows as usize);
    }
}

fn lines(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
