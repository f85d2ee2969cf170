//! Each documented command as a user runs it: the real binary, a bank and a mail sink as processes.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use nightmail::base::Timestamp;
use nightmail::store::record::{TickRecord, TickVerdict};
use nightmail::store::{Options, Store, Tx};
use serde_json::{Value, json};

use crate::process::{Harness, Process, has_tools, timed, until};

/// Twenty users, of whom four have broken accounts (one of each kind) and one has a malformed record.
const BANK: &[&str] = &["--users", "20", "--fail", "20%", "--malformed", "1"];

fn finished() -> (Harness, Process) {
    let harness = Harness::with_bank_and_sink(BANK);
    harness.append("\n[queues.notes]\n");
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    (harness, daemon)
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn every_data_command_prints_one_json_value_and_nothing_else() {
    let (harness, _daemon) = finished();
    let ask = |words: &str| {
        let said = harness.run(&words.split(' ').chain(["--json"]).collect::<Vec<_>>());
        assert_eq!(said.err, "", "{words}");
        said.json()
    };
    assert_eq!(keys(&ask("check")), ["errors", "file", "functions", "queues", "schedules", "valid", "warnings"]);
    assert!(ask("example").as_str().unwrap().contains("[schedules.monthly-statements]"));
    let shown = ask("config show");
    assert_eq!(keys(&shown[0]), ["key", "origin", "value"]);
    let origin = |key: &str| shown.as_array().unwrap().iter().find(|row| row["key"] == key).unwrap()["origin"].clone();
    let port = "functions.statement.mail.relay.port";
    assert_eq!(origin(port), "$NIGHTMAIL__FUNCTIONS__STATEMENT__MAIL__RELAY__PORT");
    assert_eq!(origin("store.cache"), "default");
    assert!(origin("functions.statement.kind").as_str().unwrap().contains("config.toml:"), "{shown}");
    let queues = ask("queues");
    let stats = "bytes dead_letter_queue delayed followers in_flight is_more_ready name oldest_age_s paused ready";
    assert_eq!(keys(&queues[0]).join(" "), stats);
    let run = ask("run show 1");
    for name in
        ["fetched", "sent", "dead", "withdrawn", "open", "interrupted", "unknown", "skipped", "suppressed", "copies"]
    {
        assert!(run[name].is_u64(), "{name}: {run}");
    }
    assert_eq!(ask("run list"), json!([run]));
    assert_eq!((&run["fetched"], &run["open"], &run["params"]), (&json!(20), &json!(0), &json!({"period": "2026-10"})));
    let dead = ask("dead statements");
    let group = ["class", "count", "fingerprint", "first_at", "last_at", "sample", "sample_id"];
    assert_eq!(keys(&dead[0]), group);
    let dead_count: u64 = dead.as_array().unwrap().iter().map(|group| group["count"].as_u64().unwrap()).sum();
    assert_eq!(dead_count + 1, run["dead"].as_u64().unwrap(), "the letters and the malformed record");
    assert_eq!(ask("run recipients 1 --state dead").as_array().unwrap().len() as u64, dead_count + 1);
    assert_eq!(ask("run recipients 1 --state open"), json!([]));
    let verified = ask("run verify 1");
    assert_eq!((&verified["rows"], &verified["findings"]), (&run["fetched"], &json!([])));
    assert_eq!(ask("run resolve 1 --sent --preview"), json!({"run": 1, "unknown": 0}));
    assert_eq!(ask("run resolve 1 --resend"), json!({"run": 1, "resolved": 0}));
    assert_eq!(ask("peek statements-dead -n 1")[0]["history"][0]["end"], "dead");
    assert_eq!(ask("peek statements"), json!([]));
    let malformed = &ask("peek fan-out-dead")[0]["history"][0];
    assert_eq!(malformed["started_at"], malformed["ended_at"], "a record that was never received took no time");
    assert_eq!(keys(&ask("schedules")[0]), ["ahead", "name", "next", "past", "rule", "timezone"]);
    assert_eq!(ask("redrives"), json!([]));
    assert_eq!(ask("redrive statements-dead --preview")["matching"], dead_count);
    assert!(ask("redrive statements-dead --detach")["redrive"].is_u64());
    assert_eq!(keys(&ask("send notes hello")), ["message_id"]);
    assert_eq!(ask("purge notes --yes"), json!({"queue": "notes", "deleted": 1}));
    assert_eq!(ask("probe"), json!({"probed": []}));
    assert_eq!(ask("run start monthly-statements --param period=2026-09"), json!({"run": 2}));
}

#[test]
fn errors_go_to_standard_error_with_the_documented_exit_code() {
    let (harness, _daemon) = finished();
    let example = std::fs::read_to_string(harness.dir.path().join("config.toml")).unwrap();
    let bad =
        example.replace("# level = ", "levl = ").replace("visibility_timeout = \"2m\"", "visibility_timeout = \"13h\"");
    harness.write("bad.toml", &bad);
    let long = "x".repeat(1_048_577);
    for (words, code, text) in [
        ("peek nope", 1, "queue \"nope\" not found (known: fan-out,"),
        ("dead nope", 1, "queue \"nope\" not found"),
        ("send nope hello", 1, "queue \"nope\" not found"),
        ("purge nope --yes", 1, "queue \"nope\" not found"),
        ("purge statements", 1, "say --yes"),
        ("run show 99", 1, "run 99 not found"),
        ("run recipients 99", 1, "run 99 not found"),
        ("run verify 99", 1, "run 99 not found"),
        ("run stop 99", 1, "run 99 not found"),
        ("run resume 1", 1, "run 1 is complete-with-letters, so it cannot be resumed (`nightmail run refetch 1`"),
        ("run abandon 99 --yes", 1, "run 99 not found"),
        ("run abandon 1", 1, "say --yes"),
        ("run resolve 99 --sent", 1, "run 99 not found"),
        ("run resolve 1 --resend --recipient nobody", 1, "run 1 has no recipient \"nobody\" (see"),
        ("run resolve 1", 64, "<--sent|--resend>"),
        ("run resolve 1 --sent --resend", 64, "cannot be used with"),
        ("run forecast nope", 1, "schedule \"nope\" not found (known: monthly-statements)"),
        ("run start nope", 1, "schedule \"nope\" not found (known: monthly-statements)"),
        ("run start monthly-statements --param period=2026-10", 1, "was started before as run 1"),
        (
            "run start monthly-statements --param peroid=2026-10",
            1,
            "\"peroid\" is not one of this schedule (known: period)",
        ),
        ("redrive statements", 1, "is not a dead-letter queue"),
        ("redrive statements-dead --to nope", 1, "queue \"nope\" not found"),
        ("redrive --cancel 99", 1, "redrive 99 is not there or not running any more (see `nightmail redrives`)"),
        ("", 64, "Usage: nightmail"),
        ("quues", 64, "'queues'"),
        ("peek statements -n 0", 64, "1..=1000"),
        ("run start monthly-statements --param period", 64, "is not KEY=VALUE"),
        ("redrive statements-dead --rate 0", 64, "1..=100000"),
        ("redrive statements-dead --where fp=1", 64, "known: fingerprint"),
        ("redrive statements-dead --where fingerprint=xyz", 64, "is not 8 hex digits"),
        ("redrive statements-dead --id 12", 64, "is not a UUID"),
        ("redrive", 64, "<FROM>"),
        ("demo --fail 3", 64, "write a percentage"),
        ("check --config none.toml", 78, "start from `nightmail example`"),
        ("serve --config none.toml", 78, "none.toml: cannot be read"),
        ("check --config bad.toml", 78, "log.levl: unknown key (did you mean \"level\"?)"),
        ("serve --config bad.toml", 78, "the configuration has 2 faults"),
        ("queues --config bad.toml", 78, "queues.statements.visibility_timeout: must be 0s to 12h (got \"13h\")"),
    ] {
        for json in [false, true] {
            let mut words: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
            words.extend(json.then_some("--json"));
            if json && words[0] == "check" {
                continue; // The findings are its data.
            }
            let said = harness.run(&words);
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{words:?}: {}", said.err);
            assert!(said.err.contains(text), "{words:?} must say {text:?}: {}", said.err);
        }
    }
    let said = harness.run_with_input(&["send", "notes"], long.as_bytes());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("standard input has more than 1.0 MiB"), "{}", said.err);
    let said = harness.run_with_input(&["send", "notes"], b"ab\xff");
    assert!(said.code == 1 && said.err.contains("not UTF-8 at byte 2"), "{}", said.err);
    assert!(harness.run(&["queues", "--json"]).json().as_array().unwrap().iter().any(|queue| queue["name"] == "notes"));
}

#[test]
fn a_run_is_stopped_resumed_and_abandoned_by_hand() {
    let (harness, daemon) = finished();
    let dead = harness.run(&["run", "show", "1", "--json"]).json()["dead"].as_u64().unwrap();
    let said = harness.run(&["run", "stop", "1"]);
    let remedy = "`nightmail run resume 1` goes on, `nightmail run abandon 1` ends it";
    assert_eq!(said.good(), format!("run 1 is stopped, 0 recipients open: {remedy}\n"));
    let shown = harness.run(&["run", "show", "1"]);
    assert!(shown.good().contains("  state     stopped since 20"), "{}", shown.out);
    assert!(shown.out.contains(&format!("  remedy    {remedy}\n")), "{}", shown.out);
    assert!(harness.run(&["run", "list"]).good().contains(" stopped "));
    let status = harness.run(&["status"]);
    assert_eq!(status.code, 2, "{}", status.out);
    assert!(status.out.replace('\n', " ").contains("run 1 is stopped with 0 recipients open"), "{}", status.out);
    let said = harness.run(&["run", "stop", "1"]);
    assert!(said.code == 1 && said.err.contains("run 1 is stopped, so it cannot be stopped"), "{}", said.err);
    let resumed = harness.run(&["run", "resume", "1", "--json"]).json();
    assert_eq!((&resumed["state"], &resumed["held_since"]), (&json!("complete-with-letters"), &Value::Null));
    assert!(harness.run(&["run", "abandon", "1", "--yes"]).good().starts_with("run 1 is abandoned: "));
    until("the letters to be withdrawn", || {
        let run = harness.run(&["run", "show", "1", "--json"]).json();
        (run["withdrawn"] == json!(dead) && run["dead"] == json!(0)).then_some(())
    });
    assert_eq!(harness.run(&["peek", "statements-dead", "--json"]).json(), json!([]));
    harness.run(&["run", "verify", "1"]).good();
    let log = daemon.stop();
    for word in ["stopped", "resumed", "abandoned"] {
        assert!(log.iter().any(|line| line.contains(&format!("the run was {word} by hand"))), "{word}: {log:?}");
    }
}

#[test]
fn without_a_daemon_readers_answer_and_changers_say_what_to_do() {
    let harness = Harness::with_bank_and_sink(BANK);
    let said = harness.run(&["queues"]);
    assert_eq!(said.code, 69);
    assert!(said.err.contains("no store at data/nightmail.redb (start one with `nightmail serve`)"), "{}", said.err);
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    let before = harness.run(&["run", "show", "1", "--json"]).json();
    daemon.kill();
    let readers = [
        "queues",
        "peek statements-dead",
        "dead statements",
        "redrive statements-dead --preview",
        "redrives",
        "run list",
        "run show 1",
        "run recipients 1",
        "run forecast monthly-statements --users 1000",
        "schedules",
    ];
    for words in readers {
        let mut words: Vec<_> = words.split(' ').collect();
        let said = harness.run(&words);
        assert_eq!(said.code, 0, "{words:?}: {}", said.err);
        assert!(said.err.contains("no daemon runs; reading data/nightmail.redb directly"), "{}", said.err);
        words.push("--json");
        harness.run(&words).json();
    }
    assert_eq!(harness.run(&["run", "show", "1", "--json"]).json(), before);
    for words in
        ["send statements x", "purge statements --yes", "redrive statements-dead", "run start monthly-statements"]
    {
        let said = harness.run(&words.split(' ').collect::<Vec<_>>());
        assert_eq!((said.code, said.out.as_str()), (69, ""), "{words}");
        assert!(said.err.contains("needs one (start it with `nightmail serve`"), "{words}: {}", said.err);
    }
}

#[test]
fn a_second_daemon_names_the_first_and_exits_at_once() {
    let harness = Harness::empty();
    let first = harness.serve();
    let (second, took) = timed(|| harness.run(&["serve"]));
    assert_eq!((second.code, second.out.as_str()), (69, ""));
    let holder = format!("in use by `nightmail serve` (pid {})", first.pid());
    assert!(second.err.contains(&holder), "{}", second.err);
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    harness.run(&["queues"]).good();
    assert!(first.stop().iter().any(|line| line.contains("stopped")));
}

#[test]
fn a_stale_control_socket_is_replaced_and_owner_and_group_may_use_it() {
    let harness = Harness::empty();
    let path = harness.dir.path().join("data/control.sock");
    let mode = || {
        let socket = std::fs::metadata(&path).unwrap();
        assert!(socket.file_type().is_socket());
        socket.mode() & 0o777
    };
    let first = harness.serve();
    assert_eq!(mode(), 0o660);
    first.kill();
    assert!(path.exists(), "a killed daemon leaves its socket behind");
    let second = harness.serve();
    assert_eq!(mode(), 0o660);
    let said = harness.run(&["queues"]);
    assert_eq!(said.err, "", "the daemon answers, not the store");
    second.stop();
}

#[test]
fn a_second_signal_stops_at_once_and_the_work_goes_back() {
    let harness = Harness::with_bank_and_sink(&["--users", "4", "--latency", "8000"]);
    let mut daemon = harness.serve();
    harness.run(&["run", "start", "monthly-statements"]).good();
    daemon.wait_for("all users are fetched");
    until("four accounts are being fetched", || {
        let queues = harness.run(&["queues", "--json"]).json();
        let statements = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "statements").cloned();
        (statements?["in_flight"] == 4).then_some(())
    });
    daemon.terminate();
    daemon.wait_for("draining");
    daemon.terminate();
    let (code, took) = timed(|| daemon.end());
    assert_eq!(code, 0, "{}", daemon.seen.join("\n"));
    assert!(took < Duration::from_secs(4), "the bank answers after 8 s; the stop took {took:?}");
    let messages = harness.run(&["peek", "statements", "--json"]).json();
    for message in messages.as_array().unwrap() {
        assert_eq!((&message["phase"], &message["attempts_charged"]), (&json!("ready"), &json!(0)), "{message}");
    }
    assert_eq!(messages.as_array().unwrap().len(), 4);
}

#[test]
fn serve_says_each_milestone_in_one_line() {
    let mut harness = Harness::with_bank_and_sink(BANK);
    harness.set("LOG__FORMAT", "text");
    harness.set("SCHEDULES__MONTHLY_STATEMENTS__CRON", "* * * * * *");
    harness.set("SCHEDULES__MONTHLY_STATEMENTS__PARAMS__PERIOD", "2026-10");
    let mut daemon = harness.serve();
    for milestone in ["the tick started a run", "all users are fetched", "the run is complete"] {
        let line = daemon.wait_for(milestone);
        assert!(line.contains(" INFO ") && line.contains("run=1"), "{line}");
    }
    harness.run(&["run", "start", "monthly-statements", "--param", "period=2026-09"]).good();
    daemon.wait_for("a run was started by hand");
    let lines = daemon.stop();
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?}"));
    assert!(at("ready: 4 queues, 2 functions (32 statements at once), 1 schedule") < at("the tick started"));
    assert!(at("draining") < at(" stopped"));
    assert!(!lines.iter().any(|line| line.contains('\u{1b}')), "colours without a terminal");
}

#[test]
fn without_a_terminal_each_log_line_is_json() {
    let harness = Harness::empty();
    for line in harness.serve().stop() {
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn peek_cuts_long_bodies_and_keeps_a_message_on_its_line() {
    let harness = Harness::empty();
    harness.append("\n[queues.notes]\n");
    let _daemon = harness.serve();
    let body = format!("first\nsecond {}", "x".repeat(200_000));
    let id = harness.run_with_input(&["send", "notes"], body.as_bytes());
    let peeked = harness.run(&["peek", "notes"]);
    assert!(peeked.good().starts_with(id.good().trim()), "{peeked:?}");
    assert!(peeked.out.len() < 800, "{} bytes for one message", peeked.out.len());
    assert!(peeked.out.contains("195.3 KiB") && peeked.out.contains("first\\nsecond xxx"), "{}", peeked.out);
    let messages = harness.run(&["peek", "notes", "--json"]).json();
    assert_eq!(messages[0]["body_bytes"], body.len());
    assert_eq!(messages[0]["body"].as_str().unwrap(), &body[..4096]);
}

#[test]
fn a_purge_asks_on_a_terminal_and_a_no_leaves_everything() {
    let harness = Harness::empty();
    harness.append("\n[queues.notes]\n");
    let _daemon = harness.serve();
    harness.run(&["send", "notes", "kept"]).good();
    let count = || harness.run(&["peek", "notes", "--json"]).json().as_array().unwrap().len();
    let Some(no) = harness.run_on_terminal(&["purge", "notes"], "n\n") else { return };
    assert_eq!((no.code, count()), (1, 1), "{no:?}");
    assert!(no.out.contains("Delete all messages of notes") && no.out.contains("nothing was done"), "{no:?}");
    let yes = harness.run_on_terminal(&["purge", "notes"], "y\n").unwrap();
    assert_eq!((yes.code, count()), (0, 0), "{yes:?}");
    assert!(yes.out.contains("1 message of notes deleted"), "{yes:?}");
}

#[test]
fn a_daemon_whose_disk_fails_ends_at_once_with_its_exit_code_and_goes_on_where_it_stood() {
    if !has_tools(&["prlimit"]) {
        return;
    }
    let harness = Harness::empty();
    harness.append("[queues.notes]\n");
    // Without the signal, a write beyond the limit is an error, as on a broken disk.
    let mut command = harness.bare("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" serve", env!("CARGO_BIN_EXE_nightmail")]);
    let mut daemon = Process::start(&mut command);
    daemon.wait_for("ready: ");
    harness.run(&["send", "notes", "acknowledged"]).good();
    let pid = format!("--pid={}", daemon.pid());
    assert!(std::process::Command::new("prlimit").args([&pid, "--fsize=0"]).status().unwrap().success());
    let said = harness.run(&["send", "notes", "in doubt"]);
    assert_eq!(said.code, 74, "{said:?}");
    let (code, took) = timed(|| daemon.end());
    assert_eq!(code, 74);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let daemon = harness.serve();
    assert!(harness.run(&["peek", "notes"]).good().contains("acknowledged"));
    daemon.stop();
}

#[test]
fn check_finds_what_only_the_machine_can_tell_and_serve_says_the_same() {
    let mut harness = Harness::empty();
    harness.set_variable("SSL_CERT_FILE", "/nonexistent/roots.pem");
    let said = harness.run(&["check"]);
    assert_eq!(said.code, 78, "{said:?}");
    for function in ["fan-out", "statement"] {
        assert!(said.err.contains(&format!("functions.{function}: TLS cannot be set up")), "{}", said.err);
    }
    assert!(said.err.contains("SSL_CERT_FILE"), "{}", said.err);
    let serve = harness.run(&["serve"]);
    assert_eq!((serve.code, serve.err.contains("TLS cannot be set up")), (78, true), "{serve:?}");
}

#[test]
fn colours_are_for_terminals_and_not_with_no_color() {
    let mut harness = Harness::empty();
    assert!(!harness.run(&["check"]).good().contains('\u{1b}'));
    let Some(said) = harness.run_on_terminal(&["check"], "") else { return };
    assert!(said.good().contains("\u{1b}[1m\u{1b}[32mconfig.toml is valid"), "{said:?}");
    harness.set_variable("NO_COLOR", "1");
    let said = harness.run_on_terminal(&["check"], "").unwrap();
    assert!(said.good().contains("config.toml is valid") && !said.out.contains('\u{1b}'), "{said:?}");
}

#[test]
fn letters_are_redriven_by_fault_by_id_at_a_rate_and_elsewhere() {
    let (harness, _daemon) = finished();
    let letters = || harness.run(&["peek", "statements-dead", "--json"]).json().as_array().unwrap().clone();
    let all = letters().len();
    assert!(all >= 3, "the bank breaks a fifth of its accounts");
    let fingerprint = harness.run(&["dead", "statements-dead", "--json"]).json()[0].clone();
    let count = fingerprint["count"].as_u64().unwrap();
    let condition = format!("fingerprint={}", fingerprint["fingerprint"].as_str().unwrap());
    let preview = harness.run(&["redrive", "statements-dead", "--where", &condition, "--preview", "--json"]).json();
    assert_eq!((&preview["letters"], &preview["matching"]), (&json!(all), &json!(count)));
    assert_eq!(preview["destinations"], json!({"statements": count}));
    assert!(preview["sample"].as_array().unwrap().len() as u64 == count.min(10) && preview["as_of"].is_string());

    let token = preview["as_of"].as_str().unwrap();
    let all_of_them = harness.run(&["redrive", "statements-dead", "--as-of", token]);
    assert!(all_of_them.code == 1 && all_of_them.err.contains("another queue or selection"), "{all_of_them:?}");
    let invented = harness.run(&["redrive", "statements-dead", "--where", &condition, "--as-of", "17"]);
    assert!(invented.code == 1 && invented.err.contains("is not a token that a preview"), "{invented:?}");
    for preview in [&["--preview"][..], &[]] {
        let said = harness.run(&[&["redrive", "statements-dead", "--where", "error=teapot"], preview].concat());
        assert!(said.code == 1 && said.err.contains("nothing to redrive: none of the"), "{said:?}");
        let said = harness.run(&[&["redrive", "statements-dead", "--where", "fingerprint=00000000"], preview].concat());
        assert!(said.code == 1 && said.err.contains(&condition["fingerprint=".len()..]), "{said:?}");
    }
    let pinned = ["redrive", "statements-dead", "--where", &condition, "--as-of", token, "--to", "notes", "--json"];
    assert_eq!(harness.run(&pinned).json()["moved"], count);
    harness.run(&["purge", "notes", "--yes"]).good();
    let all = all - count as usize;

    let id = letters()[0]["message_id"].as_str().unwrap().to_owned();
    let moved = harness.run(&["redrive", "statements-dead", "--id", &id, "--to", "notes", "--json"]).json();
    assert_eq!((&moved["state"], &moved["moved"]), (&json!("completed"), &json!(1)));
    assert_eq!(harness.run(&["peek", "notes", "--json"]).json().as_array().unwrap().len(), 1);

    let slow = ["redrive", "statements-dead", "--to", "notes", "--rate", "1", "--detach", "--json"];
    let number = harness.run(&slow).json()["redrive"].to_string();
    let said = harness.run(&["redrive", "statements-dead"]);
    assert!(said.code == 1 && said.err.contains(&format!("redrive {number} ")), "{said:?}");
    let cancelled = harness.run(&["redrive", "--cancel", &number, "--json"]).json();
    assert!(cancelled["moved"].as_u64().unwrap() < all as u64 - 1, "{cancelled}");
    assert_eq!(harness.run(&["redrives", "--json"]).json()[0]["state"], "cancelled");

    // What is redriven before the fix dies again; the books balance at every moment.
    let said = harness.run(&["redrive", "statements-dead"]);
    assert!(said.good().contains("completed"), "{said:?}");
    until("the letters died again", || {
        let queues = harness.run(&["queues", "--json"]).json();
        let statements = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "statements").cloned()?;
        let waiting =
            ["ready", "delayed", "in_flight"].iter().filter_map(|place| statements[place].as_u64()).sum::<u64>();
        (waiting == 0).then_some(())
    });
    let run = harness.run(&["run", "show", "1"]);
    assert!(run.good().contains("balance: fetched 20 = ") && !run.out.contains("NOT BALANCE"), "{run:?}");
}

#[test]
fn an_operator_who_cannot_read_the_daemons_secrets_can_speak_to_it() {
    let mut harness = Harness::empty();
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__USERNAME", "nightmail");
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PASSWORD__ENV", "RELAY_PASSWORD");
    let mut daemon = Process::start(harness.command(&["serve"]).env("RELAY_PASSWORD", "hunter2-secret"));
    daemon.wait_for("ready: ");
    harness.run(&["queues"]).good();
    harness.run(&["redrive", "statements-dead", "--preview"]).good();
    let said = harness.run(&["check"]);
    assert_eq!(said.code, 78, "check is about the daemon's own view");
    assert!(said.err.contains("environment variable RELAY_PASSWORD is not set"), "{}", said.err);
    assert_eq!(harness.run(&["serve"]).code, 78, "a daemon never starts without its secrets");
    assert!(!daemon.stop().join("\n").contains("hunter2-secret"));
}

#[test]
fn schedules_show_the_wall_clock_of_their_zone_and_a_mistyped_period_starts_nothing() {
    let harness = Harness::empty();
    let _daemon = harness.serve();
    let said = harness.run(&["schedules"]);
    let first = said.good().lines().next().unwrap();
    assert_eq!(first, "monthly-statements: At 02:00, on day 1 of the month (Europe/Berlin)");
    let next: Vec<_> = said.out.lines().filter(|line| line.starts_with("  next")).collect();
    assert_eq!(next.len(), 5);
    assert!(next.iter().all(|line| line.contains("-01 02:00:00 +0")), "{next:?}");
    assert_eq!(harness.run(&["run", "start", "monthly-statements", "--param", "periode=2026-10"]).code, 1);
    assert_eq!(harness.run(&["run", "list", "--json"]).json(), json!([]));
}

#[test]
fn a_period_given_twice_is_refused_and_blanks_around_it_make_no_second_run() {
    let harness = Harness::with_bank(&["--users", "1"]);
    let _daemon = harness.serve();
    let start = |params: &[&str]| {
        let params = params.iter().flat_map(|param| ["--param", param]);
        harness.run(&["run", "start", "monthly-statements"].into_iter().chain(params).collect::<Vec<_>>())
    };
    let said = start(&["period=2026-10", "period = 2026-11"]);
    let twice = "--param period is given twice, as \"2026-10\" and \"2026-11\"";
    assert!(said.code == 1 && said.err.contains(twice), "{said:?}");
    assert_eq!(harness.run(&["run", "list", "--json"]).json(), json!([]));
    start(&[" period= 2026-10\u{a0}"]).good();
    let said = start(&["period=2026-10 "]);
    assert!(said.code == 1 && said.err.contains("period=\"2026-10\" was started before as run 1"), "{said:?}");
    start(&["period=2026  10"]).good();
    let list = harness.run(&["run", "list"]);
    assert!(list.good().contains("period=\"2026-10\"") && list.out.contains("period=\"2026  10\""), "{list:?}");
    assert!(harness.run(&["run", "show", "2"]).good().starts_with("run 2: monthly-statements period=\"2026  10\"\n"));
}

#[test]
fn a_fan_out_that_died_is_told_by_log_list_and_json_and_goes_on_by_the_command_that_they_name() {
    let mut harness = Harness::with_bank(&["--users", "0"]);
    let mut daemon = harness.serve();
    let start = ["run", "start", "monthly-statements", "--param", "period=2026-10"];
    harness.run(&start).good();
    let line = daemon.wait_for("the fan-out died");
    assert!(line.contains("ERROR") && line.contains("data users none"), "{line}");
    let shown = harness.run(&["run", "show", "1", "--json"]).json();
    let letter = harness.run(&["peek", "fan-out-dead", "--json"]).json()[0]["message_id"].as_str().unwrap().to_owned();
    assert_eq!((&shown["state"], &shown["fetch_death"]["letter"]), (&json!("fetch-dead"), &json!(letter)));
    assert_eq!(harness.run(&["run", "list", "--json"]).json(), json!([shown]));
    let remedy = format!("nightmail redrive fan-out-dead --id {letter}");
    let list = harness.run(&["run", "list"]).good().to_owned();
    assert!([letter.as_str(), "fetch-dead", &remedy].iter().all(|part| list.contains(*part)), "{list}");
    let text = harness.run(&["run", "show", "1"]);
    for part in ["fetch-dead", &letter, "data users none: the users API answered no users at all", &remedy] {
        assert!(text.good().contains(part), "{part}: {text:?}");
    }
    assert!(line.contains(&remedy), "{line}");
    let status = harness.run(&["status"]);
    assert_eq!(status.code, 2, "{status:?}");
    let sentence = format!("degraded: run 1 is fetch-dead: data users none (mend the cause, then `{remedy}`)");
    assert!(status.out.starts_with(&sentence), "{status:?}");

    // The users are there now; the same run goes on.
    daemon.stop();
    harness.start_bank(&["--users", "3"]);
    harness.start_sink();
    let mut daemon = harness.serve();
    let words: Vec<_> = remedy.split(' ').skip(1).collect();
    harness.run(&words).good();
    daemon.wait_for("the run is complete");
    let shown = harness.run(&["run", "show", "1", "--json"]).json();
    assert_eq!((&shown["state"], &shown["fetch_death"], &shown["sent"]), (&json!("complete"), &json!(null), &json!(3)));
}

#[test]
fn what_a_clock_ahead_decided_is_shown_and_forgotten_while_the_daemon_runs() {
    const NAME: &str = "monthly-statements";
    let harness = Harness::empty();
    harness.serve().stop();
    let decide = |month: &str, verdict| {
        let tick: jiff::Timestamp = format!("2100-{month}-01T02:00:00+01:00").parse().unwrap();
        let key = (NAME.to_owned(), Timestamp::from_jiff(tick).as_millis());
        (key, TickRecord { decided_at: Timestamp::from_jiff(tick), verdict })
    };
    let skipped = |month| decide(month, TickVerdict::Skipped { why: "missed".into() });
    let rows = [skipped("01"), skipped("02"), decide("03", TickVerdict::Fired { run: 7 })];
    let store = Store::open(&Options::at(harness.dir.path().join("data/nightmail.redb"))).unwrap();
    let step = move |tx: &mut Tx<'_>| rows.iter().try_for_each(|(key, row)| tx.ticks()?.insert(key, row).map(drop));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.write::<_, nightmail::store::Error, _>(step)).unwrap();
    drop(store);

    let _daemon = harness.serve();
    let said = harness.run(&["schedules"]);
    let ahead: Vec<_> = said.good().lines().filter(|line| line.starts_with("  ahead")).collect();
    assert_eq!(ahead.len(), 3, "{said:?}");
    let by = "by a clock that was ahead, at 2100-01-01 02:00:00 +01:00 (void: decided again when its time comes)";
    assert_eq!(ahead[0], format!("  ahead 2100-01-01 02:00:00 +01:00  skipped: missed {by}"));
    assert!(ahead[2].contains("started run 7") && ahead[2].ends_with("(does not fire again)"), "{said:?}");

    let forget = |tick| harness.run(&["schedules", "forget", NAME, tick]);
    assert_eq!(forget("2100-01-01 02:00:00 +01:00").good(), "1 decision in the future forgotten\n");
    let again = forget("2100-01-01T02:00:00+01:00");
    assert!(again.code == 1 && again.err.contains("has no decision for 2100-01-01T01:00:00.000Z"), "{again:?}");
    let fired = forget("2100-03-01T02:00:00+01:00");
    assert!(fired.code == 1 && fired.err.contains("started run 7, so it stays"), "{fired:?}");
    assert_eq!(harness.run(&["schedules", "forget", NAME]).code, 64, "a tick or --all");
    assert_eq!(harness.run(&["schedules", "forget", NAME, "tomorrow"]).code, 64);
    let unknown = harness.run(&["schedules", "forget", "weekly", "--all"]);
    assert!(unknown.code == 1 && unknown.err.contains("not found (known: monthly-statements)"), "{unknown:?}");
    let said = harness.run(&["schedules", "forget", NAME, "--all", "--json"]).json();
    assert_eq!(said, json!({"forgotten": 1, "with_run": 1}));
    assert_eq!(harness.run(&["schedules"]).good().matches("\n  ahead").count(), 1);
}

#[test]
fn the_demo_balances_and_leaves_its_mails_and_nothing_else() {
    let mut harness = Harness::empty();
    let temporary = tempfile::tempdir().unwrap();
    harness.set_variable("TMPDIR", temporary.path().to_str().unwrap());
    let said = harness.run(&["demo", "--users", "40", "--fail", "10%"]);
    assert!(said.good().contains("balance: fetched 40 = sent 40 + dead 0"), "{said:?}");
    assert!(said.out.contains("the mail sink took 40 mails to 40 recipients, 0 of them twice"), "{said:?}");
    assert!(said.err.contains("fetched 40"), "without a terminal progress is lines: {said:?}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let mut kept: Vec<_> = std::fs::read_dir(&left[0]).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["mails", "pdfs"]);
    for (kind, start) in [("mail", "a mail:"), ("PDF", "a PDF:")] {
        let line = said.out.lines().find(|line| line.starts_with(start)).unwrap();
        let path = line.trim_start_matches(start).trim();
        assert!(std::fs::metadata(path).is_ok_and(|file| file.len() > 1000), "the {kind} {path} is there");
    }
}

#[test]
fn the_demo_shows_bars_on_a_terminal() {
    let mut harness = Harness::empty();
    let temporary = tempfile::tempdir().unwrap();
    harness.set_variable("TMPDIR", temporary.path().to_str().unwrap());
    let Some(said) = harness.run_on_terminal(&["demo", "--users", "20", "--fail", "10%"], "") else { return };
    let text = said.good();
    assert!(text.contains("balance: fetched 20 = sent 20 + dead 0"), "{text}");
    for harness in ["fetched", "sent", "dead"] {
        assert!(
            text.lines().any(|line| line.contains(harness) && line.contains('█') && line.contains("/20")),
            "{text}"
        );
    }
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing() {
    let mut harness = Harness::empty();
    let temporary = tempfile::tempdir().unwrap();
    harness.set_variable("TMPDIR", temporary.path().to_str().unwrap());
    let mut demo = Process::start(&mut harness.command(&["demo", "--users", "500"]));
    demo.wait_for("fires in 2s");
    demo.terminate();
    assert_eq!(demo.end(), 1);
    assert!(demo.seen.iter().any(|line| line == "error: stopped before its end"), "{:?}", demo.seen);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn systemd_is_told_ready_status_watchdog_and_stopping() {
    let harness = Harness::empty();
    let path = harness.dir.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // WATCHDOG_PID must be the daemon's own process id; a shell that execs the daemon knows it in advance.
    let mut command = harness.bare("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" serve", env!("CARGO_BIN_EXE_nightmail")]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let daemon = Process::start(&mut command);
    let mut told = String::new();
    let read_more = |told: &mut String| {
        let mut buffer = [0; 4096];
        let bytes = socket.recv(&mut buffer).expect("the daemon speaks within 30 s");
        told.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
        told.push('\n');
    };
    while told.matches("WATCHDOG=1").count() < 3 {
        read_more(&mut told);
    }
    assert!(told.starts_with("READY=1\n"), "{told}");
    assert!(told.contains("STATUS=ready: 4 queues"), "{told}");
    daemon.terminate();
    while !told.contains("STOPPING=1") {
        read_more(&mut told);
    }
    assert!(told.contains("STATUS=draining"), "{told}");
    // 25 s of drain, 5 s to give back, 10 s to close: systemd waits for them also when TimeoutStopSec= is shorter.
    assert!(told.contains("EXTEND_TIMEOUT_USEC=40000000"), "{told}");
    daemon.stop();
}

#[test]
fn the_unit_file_allows_the_drain_its_time_and_does_not_restart_a_wrong_configuration() {
    let unit = include_str!("../../systemd/nightmail.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("the unit has no {key}")).to_owned()
    };
    // 25 s is the default of daemon.drain, 5 s more give the work back, 2 s more end the control socket.
    assert!(value("TimeoutStopSec").parse::<u32>().unwrap() > 25 + 5 + 2);
    assert_eq!((value("Type"), value("RestartPreventExitStatus")), ("notify".into(), "78".into()));
    if has_tools(&["systemd-analyze"]) {
        let check = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check-unit");
        let output = std::process::Command::new(check).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_queue_is_paused_and_goes_on_and_a_message_takes_what_its_sender_says() {
    let harness = Harness::with_bank_and_sink(BANK);
    harness.append("\n[queues.notes]\n");
    let _daemon = harness.serve();
    assert!(harness.run(&["pause", "notes", "--by", "ada"]).good().contains("notes is paused by ada"));
    let queues = harness.run(&["queues"]).good().to_owned();
    assert!(queues.contains("notes is paused by ada since "), "{queues}");
    let send = "send notes hello --attribute team=a --priority 3 --unique once --unique-mode keep-last --expires-in 1h";
    let send: Vec<&str> = send.split(' ').collect();
    let first = harness.run(&send).good().to_owned();
    assert_eq!(harness.run(&send).good(), first, "the second one takes the first one's place");
    assert!(harness.run(&["resume", "notes"]).good().contains("notes goes on"));
    let refused = harness.run(&["send", "notes", "x", "--deduplication-id", "1"]);
    assert!(refused.code == 1 && refused.err.contains("only FIFO queues do"), "{refused:?}");
    let refused = harness.run(&["send", "notes", "x", "--unique", "k", "--unique-mode", "sometimes"]);
    assert!(refused.code == 64 && refused.err.contains("throttle=<duration>"), "{refused:?}");
}
