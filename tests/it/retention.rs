//! `nightmail backup`, `compact` and `store check` as an operator runs them: with the daemon, without it, and refused.

use redb::{Database, TableDefinition};

use crate::process::Harness;
use crate::support::sealed;

fn harness() -> Harness {
    let harness = Harness::empty();
    harness.append("\n[queues.notes]\n");
    harness
}

#[test]
fn a_backup_of_the_running_daemon_is_restored_with_what_was_there() {
    let harness = harness();
    let daemon = harness.serve();
    assert_eq!(harness.run(&["send", "notes", "before"]).code, 0);
    let made = harness.run(&["backup", "copy.redb", "--verify", "--json"]).json();
    assert_eq!(made["is_verified"], true);
    assert_eq!(made["file"], harness.dir.path().join("copy.redb").display().to_string(), "the path is made absolute");
    assert_eq!(harness.run(&["send", "notes", "after"]).code, 0);

    let again = harness.run(&["backup", "copy.redb"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("exists (name another file, or say --force to replace it)"), "{again:?}");
    let text = harness.run(&["backup", "other.redb", "--verify"]);
    assert!(text.good().contains("read again and found equal"), "{text:?}");
    harness.run(&["backup", "other.redb", "--force"]).good();
    let own = harness.run(&["backup", "data/nightmail.redb", "--force"]);
    assert!(own.code == 1 && own.err.contains("a name that the store itself uses"), "{own:?}");
    daemon.stop();

    // The procedure of docs/operating.md.
    let data = harness.dir.path().join("data");
    for file in crate::support::FILES {
        std::fs::rename(data.join(file), data.join(format!("{file}.before"))).unwrap();
    }
    std::fs::copy(harness.dir.path().join("copy.redb"), data.join("nightmail.redb")).unwrap();
    harness.run(&["store", "check"]).good();
    let daemon = harness.serve();
    let peeked = harness.run(&["peek", "notes", "--json"]).json();
    assert_eq!((peeked.as_array().unwrap().len(), &peeked[0]["body"]), (1, &"before".into()), "{peeked}");
    daemon.stop();
}

#[test]
fn a_backup_needs_no_daemon() {
    let harness = harness();
    let none = harness.run(&["backup", "copy.redb"]);
    assert!(none.code == 69 && none.err.contains("no store at"), "{none:?}");
    harness.serve().stop();
    harness.run(&["backup", "copy.redb", "--verify"]).good();
    assert!(harness.dir.path().join("copy.redb").exists());
}

#[test]
fn compaction_keeps_what_is_there_and_is_refused_while_a_daemon_holds_the_store() {
    let harness = harness();
    let none = harness.run(&["compact"]);
    assert!(none.code == 1 && none.err.contains("no store at"), "{none:?}");
    let daemon = harness.serve();
    assert_eq!(harness.run(&["send", "notes", "kept"]).code, 0);
    let refused = harness.run(&["compact"]);
    assert_eq!(refused.code, 69, "{refused:?}");
    assert!(refused.err.contains(&format!("in use by `nightmail serve` (pid {})", daemon.pid())), "{refused:?}");
    daemon.stop();
    let said = harness.run(&["compact", "--json"]).json();
    assert!(said["after_bytes"].as_u64() <= said["before_bytes"].as_u64() && said["after_bytes"] != 0, "{said}");
    assert!(harness.run(&["compact"]).good().contains(" before, "));
    harness.run(&["store", "check"]).good();
    assert_eq!(harness.run(&["peek", "notes", "--json"]).json()[0]["body"], "kept");
}

#[test]
fn a_check_finds_nothing_in_a_sound_store_and_names_what_contradicts_itself_with_code_65() {
    let harness = harness();
    let daemon = harness.serve();
    assert_eq!(harness.run(&["send", "notes", "hello"]).code, 0);
    assert!(harness.run(&["store", "check"]).good().contains("nothing wrong"));
    assert_eq!(harness.run(&["store", "check", "--json"]).json()["total"], 0);
    daemon.stop();
    assert!(harness.run(&["store", "check"]).good().contains("nothing wrong"));

    let db = Database::open(harness.dir.path().join("data/nightmail.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    let ready: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ready");
    // In the queue notes, which no function serves: the daemon does not read it.
    let key = [&3_u32.to_be_bytes()[..], &0_u32.to_be_bytes(), &77_u64.to_be_bytes()].concat();
    transaction.open_table(ready).unwrap().insert(key.as_slice(), sealed("ready", &key, b"").as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    let found = |said: crate::process::Said| {
        assert_eq!(said.code, 65, "{said:?}");
        assert!(said.out.contains("ready") && said.out.contains("belongs to no message"), "{said:?}");
        assert!(said.err.contains("error: the store has 1 fault"), "{said:?}");
    };
    found(harness.run(&["store", "check"]));
    let daemon = harness.serve();
    found(harness.run(&["store", "check"]));
    daemon.stop();
}

#[test]
fn a_check_of_a_store_that_is_too_damaged_to_open_names_the_damage_with_code_65() {
    let harness = harness();
    harness.serve().stop();
    let path = harness.dir.path().join("data/nightmail.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).rposition(|word| word == b"notes").expect("the queue's name is in the file");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let said = harness.run(&["store", "check", "--json"]);
    assert_eq!(said.code, 65, "{said:?}");
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&found["total"], &found["findings"][0]["key"]), (&1.into(), &"data/nightmail.redb".into()));
    let said = harness.run(&["store", "check"]);
    assert!(said.code == 65 && said.out.contains("(file)") && said.err.contains("restore a backup"), "{said:?}");
}
