//! `nightmail suppress`: the list as an operator keeps it.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::process::{Harness, has_tools};

#[test]
fn what_is_exported_can_be_imported_again() {
    let harness = Harness::empty();
    let daemon = harness.serve();
    let run = |words: &[&str]| harness.run(words);
    assert_eq!(run(&["suppress", "list"]).err.trim(), "no address is suppressed");
    assert_eq!(run(&["suppress", "list", "--json"]).json(), json!([]));
    let added =
        run(&["suppress", "add", "ada@bank.example", "bob@bank.example", "--reason", "=left, \"really\"", "--json"]);
    assert_eq!(added.json(), json!({"added": 2, "known": 0}));
    let again = run(&["suppress", "add", "ADA@bank.example", "--reason", "other"]);
    assert_eq!(again.good().trim(), "0 addresses added, 1 on the list before");
    let export = run(&["suppress", "export"]).good().to_owned();
    assert!(export.starts_with("address,reason,since\r\nada@bank.example,\"'=left, \"\"really\"\"\",20"), "{export}");
    assert!(run(&["suppress", "export", "--out", "list.csv"]).err.contains("2 addresses in list.csv"));
    assert_eq!(std::fs::metadata(harness.dir.path().join("list.csv")).unwrap().mode() & 0o777, 0o600);
    let before = run(&["suppress", "list", "--json"]).json();
    assert_eq!(before[0]["reason"], "=left, \"really\"");
    let removed = run(&["suppress", "remove", "ada@bank.example", "bob@bank.example", "eve@bank.example"]);
    assert_eq!((removed.code, removed.out.trim()), (1, "2 addresses removed"));
    assert!(removed.err.contains("not on the suppression list: eve@bank.example"), "{removed:?}");
    assert_eq!(run(&["suppress", "import", "list.csv", "--json"]).json(), json!({"added": 2, "known": 0}));
    let after = run(&["suppress", "list", "--json"]).json();
    for (before, after) in before.as_array().unwrap().iter().zip(after.as_array().unwrap()) {
        assert_eq!((&before["address"], &before["reason"]), (&after["address"], &after["reason"]));
        let seconds = |row: &serde_json::Value| row["since"].as_u64().unwrap() / 1000;
        assert_eq!(seconds(before), seconds(after), "an import keeps the time, to the second");
    }
    daemon.stop();
    let said = run(&["suppress", "list"]);
    assert!(said.good().contains("ada@bank.example") && said.err.contains("no daemon runs"), "{said:?}");
    assert_eq!(run(&["suppress", "add", "x@bank.example"]).code, 69, "only a daemon changes the list");
}

#[test]
fn a_file_with_a_wrong_line_adds_nothing_and_names_the_line() {
    let harness = Harness::empty();
    let _daemon = harness.serve();
    let said = harness.run_with_input(&["suppress", "import", "-"], b"ada@bank.example\nnobody\n\nb@c@d\n");
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    for text in ["nothing was added, 2 lines cannot be:", "line 2: \"nobody\" is no mail address", "line 4: \"b@c@d\""]
    {
        assert!(said.err.contains(text), "{text}: {}", said.err);
    }
    assert_eq!(harness.run(&["suppress", "list", "--json"]).json(), json!([]));
    let many: String = (0..1201).map(|n| format!("u-{n}@bank.example\n")).collect();
    let said = harness.run_with_input(&["suppress", "import", "-", "--reason", "the old system"], many.as_bytes());
    assert_eq!(said.good().trim(), "1201 addresses added");
    let list = harness.run(&["suppress", "list", "--json"]).json();
    assert_eq!((list.as_array().unwrap().len(), &list[1200]["reason"]), (1201, &json!("the old system")));
    assert_eq!(harness.run(&["suppress", "add", "no address"]).code, 1);
}

/// The documentation's script, with the harness's binary.
#[test]
fn the_script_of_the_documentation_suppresses_what_bounced_for_good() {
    if !has_tools(&["python3"]) {
        return;
    }
    let harness = Harness::empty();
    let _daemon = harness.serve();
    let docs = include_str!("../../docs/operating.md");
    let script = docs.split_once("```python\n#!/usr/bin/env python3\n").unwrap().1.split_once("```").unwrap().0;
    harness.write("bounces.py", script);
    let new = harness.dir.path().join("Maildir/new");
    for directory in ["new", "cur", "tmp"] {
        std::fs::create_dir_all(new.parent().unwrap().join(directory)).unwrap();
    }
    let bounce = |address: &str, action: &str, status: &str| {
        format!(
            "From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; {address}\r\nAction: {action}\r\n\
             Status: {status}\r\nDiagnostic-Code: smtp; 550 {status} unknown\r\n\r\n--b--\r\n"
        )
    };
    let mails = [
        ("1", bounce("gone@bank.example", "failed", "5.1.1")),
        ("2", bounce("full@bank.example", "failed", "5.2.2")),
        ("3", bounce("late@bank.example", "delayed", "4.4.1")),
        ("4", "Subject: out of office\r\n\r\nBack on Monday.\r\n".to_owned()),
        ("5", bounce("--help", "failed", "5.1.1")),
    ];
    for (name, mail) in &mails {
        std::fs::write(new.join(name), mail).unwrap();
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nightmail"), harness.dir.path().join("nightmail")).unwrap();
    let path = format!("{}:{}", harness.dir.path().display(), std::env::var("PATH").unwrap());
    let mut command = harness.bare("python3");
    command.args(["bounces.py", "Maildir"]).env("PATH", path);
    let said = crate::process::Said::of(&mut command);
    said.good();
    let list = harness.run(&["suppress", "list", "--json"]).json();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list} {said:?}");
    assert_eq!(
        (&list[0]["address"], &list[0]["reason"]),
        (&json!("gone@bank.example"), &json!("bounced: 550 5.1.1 unknown"))
    );
    let seen = std::fs::read_dir(new.parent().unwrap().join("cur")).unwrap().count();
    assert_eq!(seen, mails.len(), "each mail is read once");
}
