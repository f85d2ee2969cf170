//! Documents: the same input gives the same bytes in every process, and what was mailed is in the archive.

use serde_json::Value;

use crate::process::{Harness, Said};
use crate::support::files;

const USER: &str = "u-000001";

#[test]
fn the_same_input_gives_the_same_bytes_in_two_processes() {
    let harness = Harness::with_bank(&["--users", "40"]);
    let users: Vec<String> = (1..=40).map(|number| format!("u-{number:06}")).collect();
    let users = users.join(",");
    for out in ["first", "second"] {
        let test = ["run", "test", "monthly-statements", "--param", "period=2026-10", "--only", &users, "--out", out];
        harness.run(&test).good();
    }
    let mut names: Vec<_> = std::fs::read_dir(harness.dir.path().join("first")).unwrap().collect();
    assert_eq!(names.len(), 40);
    for name in names.drain(..).map(|entry| entry.unwrap().file_name()) {
        let of = |out: &str| std::fs::read(harness.dir.path().join(out).join(&name)).unwrap();
        assert!(of("first") == of("second"), "{name:?} differs");
    }
}

fn row(harness: &Harness) -> Value {
    harness.run(&["run", "recipients", "1", "--user", USER, "--json"]).json()[0].clone()
}

fn pdf(harness: &Harness, out: &str) -> Said {
    harness.run(&["run", "pdf", "1", USER, "--out", out, "--json"])
}

#[test]
fn with_files_the_document_that_was_mailed_is_written_or_made_again_and_a_difference_is_told() {
    let mut harness = Harness::with_bank_and_sink(&["--users", "3"]);
    harness.set("FUNCTIONS__STATEMENT__ARCHIVE", "files");
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    let mailed = row(&harness)["document_sha256"].as_str().unwrap().to_owned();
    let written = pdf(&harness, "one.pdf").json();
    assert_eq!((&written["origin"], &written["sha256"]), (&"archive".into(), &mailed.as_str().into()));
    let bytes = std::fs::read(harness.dir.path().join("one.pdf")).unwrap();
    assert!(bytes.starts_with(b"%PDF"));
    let there = pdf(&harness, "one.pdf");
    assert!(there.code == 1 && there.err.contains("exists"), "{there:?}");

    // Without the file it is made again from its data, also while no daemon runs.
    let name = format!("{mailed}.pdf");
    let found = files(&harness.dir.path().join("data/archive"));
    let archived = found.into_iter().find(|file| file.ends_with(&name)).expect("the document");
    assert_eq!(std::fs::read(&archived).unwrap(), bytes);
    std::fs::remove_file(&archived).unwrap();
    daemon.stop();
    let again = pdf(&harness, "two.pdf").json();
    assert_eq!((&again["origin"], &again["sha256"]), (&"rendered".into(), &mailed.as_str().into()));
    assert_eq!(std::fs::read(harness.dir.path().join("two.pdf")).unwrap(), bytes);
    harness.set("FUNCTIONS__STATEMENT__DOCUMENT__ISSUER", "Another Bank");
    let differs = pdf(&harness, "three.pdf");
    assert!(differs.code == 65 && differs.err.contains(&mailed), "{differs:?}");

    // Without its data it cannot be.
    std::fs::remove_file(archived.with_extension("json")).unwrap();
    let gone = pdf(&harness, "four.pdf");
    assert!(gone.code == 1 && gone.err.contains("is not in"), "{gone:?}");
}

#[test]
fn the_row_keeps_the_hash_by_default_and_none_when_told_so_and_neither_keeps_files() {
    for (archive, has_hash) in [("hash", true), ("none", false)] {
        let mut harness = Harness::with_bank_and_sink(&["--users", "3"]);
        harness.set("FUNCTIONS__STATEMENT__ARCHIVE", archive);
        let mut daemon = harness.serve();
        harness.run_to_the_end(&mut daemon);
        assert_eq!(row(&harness)["document_sha256"].is_string(), has_hash, "{archive}");
        let refused = pdf(&harness, "one.pdf");
        assert!(refused.code == 1 && refused.err.contains("archive"), "{refused:?}");
        assert!(!harness.dir.path().join("data/archive").exists());
        daemon.stop();
    }
}
