//! What an operator meets at 04:00, with the real binary: signals, the control socket, the store's lock, the state of
//! the daemon.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Harness, Process, Said, timed, until};

/// A user that owns nothing on the test machine.
const NOBODY: u32 = 65534;

#[test]
fn commands_that_read_in_a_loop_neither_fail_nor_keep_the_daemon_from_starting() {
    let harness = Harness::empty();
    harness.serve().stop();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (dir, stop) = (harness.dir.path().to_owned(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_nightmail"));
                    command.current_dir(&dir).env_clear().args(["queues", "--json", "--timeout", "60s"]);
                    Said::of(&mut command).json();
                }
            })
        })
        .collect();
    for _ in 0..6 {
        harness.serve().stop();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_named_with_what_was_waited_for() {
    let harness = Harness::empty();
    let daemon = harness.serve();
    daemon.signal(Signal::STOP);
    let ((read, changed, backup), took) = timed(|| {
        let ask = |words: &[&str]| harness.run(&[words, &["--timeout", "300ms"]].concat());
        (ask(&["queues"]), ask(&["pause", "statements"]), ask(&["backup", "copy.redb"]))
    });
    let waited = "waited 300ms for the daemon at data/control.sock to answer `nightmail";
    for (said, text) in [(&read, "queues`"), (&changed, "pause`"), (&backup, "status`")] {
        assert_eq!((said.code, said.out.as_str()), (69, ""), "{said:?}");
        assert!(said.err.contains(&format!("{waited} {text}")) && said.err.contains("--timeout"), "{said:?}");
    }
    assert!(changed.err.contains("it may still do it") && !read.err.contains("may still"), "{changed:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    daemon.signal(Signal::CONT);
    assert_eq!(harness.run(&["queues"]).err, "");
    let said = harness.run(&["queues", "--timeout", "0s"]);
    assert!(said.code == 64 && said.err.contains("must be 100ms to 24h"), "{said:?}");
}

#[test]
fn a_daemon_on_another_socket_is_named_by_the_store_that_it_holds() {
    let mut harness = Harness::empty();
    let daemon = harness.serve();
    harness.set("CONTROL__SOCKET", "elsewhere.sock");
    let said = harness.run(&["queues", "--timeout", "400ms"]);
    let waited = format!("waited 400ms for `nightmail serve` (pid {}): it holds the store", daemon.pid());
    assert!(said.code == 69 && said.err.contains(&waited), "{said:?}");
    assert!(said.err.contains("nothing listens at elsewhere.sock"), "{said:?}");
}

#[test]
fn a_deleted_control_socket_comes_back_and_commands_wait_for_it() {
    let harness = Harness::empty();
    let mut daemon = harness.serve();
    let socket = harness.dir.path().join("data/control.sock");
    std::fs::remove_file(&socket).unwrap();
    let said = harness.run(&["queues"]);
    assert!(said.code == 0 && said.err.is_empty(), "the daemon answers, not the store: {said:?}");
    daemon.wait_for("was deleted; it is bound anew");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    harness.run(&["pause", "statements"]).good();
    daemon.stop();
}

#[test]
fn a_daemon_with_another_store_does_not_take_the_control_socket_away() {
    let mut harness = Harness::empty();
    harness.set("CONTROL__SOCKET", "shared.sock");
    let first = harness.serve();
    harness.set("DATA_DIR", "other");
    let second = harness.run(&["serve"]);
    assert_eq!(second.code, 69, "{second:?}");
    assert!(second.err.contains("a daemon with another data_dir listens there"), "{second:?}");
    harness.run(&["queues"]).good();
    first.stop();
}

#[test]
fn the_end_of_the_terminal_drains_unless_systemd_or_nohup_is_behind_it() {
    let mut harness = Harness::empty();
    let mut daemon = harness.serve();
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.end(), 0, "{:?}", daemon.seen);
    assert!(daemon.seen.iter().any(|line| line.contains("draining")), "{:?}", daemon.seen);

    let mut nohup = Process::start(harness.bare("nohup").args([env!("CARGO_BIN_EXE_nightmail"), "serve"]));
    nohup.wait_for("ready: ");
    nohup.signal(Signal::HUP);
    harness.run(&["queues"]).good();
    nohup.stop();

    let path = harness.dir.path().join("notify.sock");
    let _systemd = UnixDatagram::bind(&path).unwrap();
    harness.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut daemon = harness.serve();
    for _ in 0..2 {
        daemon.signal(Signal::HUP);
        daemon.wait_for("SIGHUP is ignored");
    }
    harness.run(&["queues"]).good();
    daemon.stop();
}

/// Runs a command as a user that may not use the daemon's directory.
fn run_as_stranger(harness: &Harness, arguments: &[&str]) -> Said {
    if !rustix::process::getuid().is_root() {
        return harness.run(arguments);
    }
    // Root may open anything, and a stranger may not be able to reach the build directory.
    let binary = harness.dir.path().join("nightmail");
    if !binary.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_nightmail"), &binary).unwrap();
    }
    let mut command = harness.bare(binary.to_str().unwrap());
    Said::of(command.args(arguments).uid(NOBODY).gid(NOBODY))
}

#[test]
fn permission_denied_is_told_as_that_and_not_as_a_missing_store() {
    let harness = Harness::empty();
    let set_mode = |name: &str, mode| {
        std::fs::set_permissions(harness.dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode("", 0o755);
    let daemon = harness.serve();
    set_mode("data", 0o755);
    set_mode("data/control.sock", 0o000);
    let said = run_as_stranger(&harness, &["queues"]);
    assert_eq!(said.code, 77, "{said:?}");
    assert!(said.err.contains("control socket data/control.sock: permission denied"), "{said:?}");
    daemon.stop();
    assert!(!harness.dir.path().join("data/control.sock").exists(), "a daemon that stops takes its socket away");
    set_mode("data", 0o000);
    for words in ["queues", "compact", "store check"] {
        let said = run_as_stranger(&harness, &words.split(' ').collect::<Vec<_>>());
        assert_eq!(said.code, 77, "{words}: {said:?}");
        assert!(said.err.contains("permission denied") && !said.err.contains("no store"), "{words}: {said:?}");
    }
    set_mode("data", 0o755);
    set_mode("data/nightmail.log0", 0o000);
    set_mode("data/nightmail.lock", 0o666);
    let said = run_as_stranger(&harness, &["queues"]);
    assert!(said.code == 77 && said.err.contains("nightmail.log0: permission denied"), "{said:?}");
    set_mode("config.toml", 0o000);
    let said = run_as_stranger(&harness, &["queues"]);
    assert!(said.code == 78 && said.err.contains("config.toml: permission denied"), "{said:?}");
}

#[test]
fn serve_without_a_configuration_says_first_that_it_runs_the_example() {
    let harness = Harness::empty();
    std::fs::remove_file(harness.dir.path().join("config.toml")).unwrap();
    let lines = harness.serve().stop();
    assert!(lines[0].contains("there is no configuration, so this is the built-in example"), "{lines:?}");
}

#[test]
fn status_says_in_one_sentence_and_by_its_exit_code_how_the_daemon_is() {
    let mut harness = Harness::with_bank_and_sink(&["--users", "20", "--fail", "20%", "--malformed", "1"]);
    harness.append("\n[queues.notes]\n");
    let status = |harness: &Harness| harness.run(&["status"]);
    let sentence = |said: &Said| said.out.lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(&harness).code, 69, "neither daemon nor store");
    let mut daemon = harness.serve();
    let healthy = status(&harness);
    assert_eq!((healthy.code, healthy.err.as_str()), (0, ""), "{healthy:?}");
    assert!(
        sentence(&healthy).starts_with("healthy: nothing is under way; next is monthly-statements at "),
        "{healthy:?}"
    );
    for part in [&format!("pid {}, up ", daemon.pid()), " free (256.0 MiB are kept)", "QUEUE ", "notes ", "NEXT TICK"] {
        assert!(healthy.out.contains(part), "{part}: {healthy:?}");
    }

    harness.run(&["pause", "notes", "--by", "alice"]).good();
    let paused = status(&harness);
    assert_eq!(paused.code, 2, "{paused:?}");
    assert!(sentence(&paused).starts_with("degraded: notes is paused by alice since "), "{paused:?}");
    harness.run(&["resume", "notes"]).good();

    harness.run_to_the_end(&mut daemon);
    let degraded = harness.run(&["status", "--json"]);
    assert_eq!((degraded.code, degraded.err.as_str()), (2, ""), "{degraded:?}");
    let json: serde_json::Value = serde_json::from_str(&degraded.out).unwrap();
    assert_eq!((&json["health"], &json["runs"][0]["fetched"]), (&"degraded".into(), &20.into()));
    let letters = ["1 dead letter in fan-out-dead", "4 dead letters in statements-dead"];
    assert_eq!(json["problems"], serde_json::json!(letters));
    assert_eq!(json["sentence"], format!("degraded: {}", letters.join("; ")));
    for queue in ["fan-out-dead", "statements-dead"] {
        harness.run(&["purge", queue, "--yes"]).good();
    }
    assert_eq!(status(&harness).code, 0);

    daemon.stop();
    let down = status(&harness);
    assert_eq!(down.code, 69, "{down:?}");
    assert!(sentence(&down).starts_with("down: no daemon runs, and its store is empty"), "{down:?}");
    harness.set("STORE__RESERVE", "1000TiB");
    let _daemon = harness.serve();
    let full = status(&harness);
    assert_eq!(full.code, 2, "{full:?}");
    assert!(
        sentence(&full).contains("the disk is nearly full (") && full.out.contains("all sends are refused"),
        "{full:?}"
    );
}

#[test]
fn status_goes_on_looking_until_ctrl_c_also_while_the_daemon_is_away() {
    let harness = Harness::empty();
    let daemon = harness.serve();
    let mut watch = Process::start(&mut harness.command(&["status", "--watch", "1"]));
    for _ in 0..2 {
        watch.wait_for("healthy: ");
    }
    daemon.stop();
    watch.wait_for("down: ");
    let daemon = harness.serve();
    watch.wait_for("healthy: ");
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), 0, "{:?}", watch.seen);
    daemon.stop();
    let said = harness.run(&["status", "--watch", "0"]);
    assert!(said.code == 64 && said.err.contains("1..=3600"), "{said:?}");
}

/// Four letters in statements-dead: the bank breaks a fifth of its accounts.
fn with_letters() -> (Harness, Process) {
    let harness = Harness::with_bank_and_sink(&["--users", "20", "--fail", "20%"]);
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    (harness, daemon)
}

#[test]
fn a_redrive_of_everything_asks_on_a_terminal_and_nowhere_else() {
    let (harness, daemon) = with_letters();
    let redrives = || harness.run(&["redrives", "--json"]).json().as_array().unwrap().len();
    if let Some(no) = harness.run_on_terminal(&["redrive", "statements-dead"], "n\n") {
        assert_eq!((no.code, redrives()), (1, 0), "{no:?}");
        assert!(no.out.contains("Redrive all 4 letters of statements-dead (4 to statements)? [y/N]"), "{no:?}");
        assert!(no.out.contains("nothing was done"), "{no:?}");
        let to = ["--to", "fan-out-dead"];
        let one =
            harness.run(&["peek", "statements-dead", "--json"]).json()[0]["message_id"].as_str().unwrap().to_owned();
        let chosen = harness.run_on_terminal(&[&["redrive", "statements-dead", "--id", &one], &to[..]].concat(), "n\n");
        assert_eq!((chosen.unwrap().code, redrives()), (0, 1), "who chose letters is not asked");
        let yes = harness.run_on_terminal(&[&["redrive", "statements-dead", "--yes"], &to[..]].concat(), "n\n");
        assert_eq!((yes.unwrap().code, redrives()), (0, 2));
        let empty = harness.run_on_terminal(&["redrive", "statements-dead"], "n\n").unwrap();
        assert!(!empty.out.contains("[y/N]"), "{empty:?}");
    } else {
        harness.run(&["redrive", "statements-dead", "--to", "fan-out-dead"]).good();
        assert_eq!(redrives(), 1);
    }
    daemon.stop();
    let said = harness.run_on_terminal(&["redrive", "statements-dead"], "n\n");
    assert!(said.is_none_or(|said| said.code == 69 && !said.out.contains("[y/N]")), "without a daemon it is in vain");
}

#[test]
fn ctrl_c_leaves_a_redrive_to_the_daemon_and_says_how_to_stop_it() {
    let (harness, _daemon) = with_letters();
    let mut following = Process::start(&mut harness.command(&["redrive", "statements-dead", "--rate", "1"]));
    let redrive = until("the redrive runs", || harness.run(&["redrives", "--json"]).json().get(0).cloned());
    following.signal(Signal::INT);
    assert_eq!(following.end(), 130, "{:?}", following.seen);
    let id = &redrive["id"];
    let goes_on = format!(
        "redrive {id} goes on in the daemon (`nightmail redrives` shows it, `nightmail redrive --cancel {id}` stops it)"
    );
    assert_eq!(following.seen, [goes_on]);
    assert_eq!(harness.run(&["redrives", "--json"]).json()[0]["state"], "running");
    let table = harness.run(&["redrives"]);
    assert!(table.good().contains(&format!("{id} statements-dead")) && table.out.contains("running"), "{table:?}");
    harness.run(&["redrive", "--cancel", &id.to_string()]).good();
}

#[test]
fn an_unknown_command_is_answered_with_a_near_one_or_none() {
    let harness = Harness::empty();
    let suggested = |typed: &str| {
        let said = harness.run(&[typed]);
        assert_eq!(said.code, 64, "{said:?}");
        said.err.lines().find_map(|line| line.trim().strip_prefix("tip: ").map(str::to_owned))
    };
    for (typed, near) in [("quues", "queues"), ("stat", "status"), ("state", "status"), ("pasue", "pause")] {
        assert_eq!(suggested(typed), Some(format!("a similar subcommand exists: '{near}'")), "{typed}");
    }
    for typed in ["start", "stop", "list", "restart", "health"] {
        assert_eq!(suggested(typed), None, "{typed}");
    }
}

#[test]
fn check_prints_its_findings_as_json_and_shows_two_faults_of_one_schedule() {
    let mut harness = Harness::empty();
    let example = std::fs::read_to_string(harness.dir.path().join("config.toml")).unwrap();
    let bad = example.replace("# level = ", "levl = ").replace("cron = \"0 2 1 * *\"", "cron = \"0 99 1 * *\"");
    assert!(bad.contains("99 1"), "the example's rule has changed");
    harness.write("bad.toml", &bad.replace("Europe/Berlin", "Europe/Nowhere"));
    let said = harness.run(&["check", "--config", "bad.toml", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (78, ""), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&json["valid"], &json["file"]), (&false.into(), &"bad.toml".into()));
    let errors: Vec<_> =
        json["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    let schedule = "schedules.monthly-statements";
    assert_eq!(errors, ["log.levl", &format!("{schedule}.cron"), &format!("{schedule}.timezone")], "{json}");
    let text = |index: usize| json["errors"][index]["text"].as_str().unwrap().to_owned();
    assert!(text(0).contains("did you mean \"level\"?") && text(2).contains("\"Europe/Nowhere\" not found"), "{json}");
    assert!(json["errors"].as_array().unwrap().iter().all(|error| error["line"].is_u64() && error["column"].is_u64()));

    harness.set("LOG__LEVEL", "loud");
    let json: serde_json::Value = serde_json::from_str(&harness.run(&["check", "--json"]).out).unwrap();
    assert_eq!(json["errors"][0]["variable"], "NIGHTMAIL__LOG__LEVEL", "{json}");
    let mut harness = Harness::empty();
    harness.set_variable("SSL_CERT_FILE", "/nonexistent/roots.pem");
    let said = harness.run(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &json["errors"][0]["field"]), (78, &"functions.fan-out".into()), "{json}");
}

#[test]
fn an_empty_configuration_is_refused() {
    let harness = Harness::empty();
    for text in ["", "\n\n", "# log.level = \"info\"\n"] {
        harness.write("empty.toml", text);
        for command in ["check", "serve", "queues"] {
            let said = harness.run(&[command, "--config", "empty.toml"]);
            assert!(said.code == 78 && said.err.contains("empty.toml: is empty"), "{text:?}: {said:?}");
        }
    }
    // A small one is none of these: the variables of the harness name keys that it does not have.
    harness.write("small.toml", "[queues.notes]\n");
    Said::of(harness.command(&["check", "--config", "small.toml"]).env_clear()).good();
}

#[test]
fn a_log_line_has_its_time_as_a_number_and_its_span_once() {
    let (_harness, daemon) = with_letters();
    let lines = daemon.stop();
    let attempts: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line: &serde_json::Value| line.get("took_ms").is_some())
        .collect();
    assert!(attempts.len() >= 4, "{lines:?}");
    for line in &attempts {
        assert!(line["took_ms"].is_u64() && line.get("spans").is_none(), "{line}");
        assert_eq!(
            (&line["span"]["name"], &line["span"]["function"]),
            (&"attempt".into(), &"statement".into()),
            "{line}"
        );
    }
}

#[test]
fn refusals_name_flags_and_not_fields_of_the_api() {
    let harness = Harness::empty();
    harness.append("\n[queues.notes]\n[queues.\"orders.fifo\"]\n");
    let _daemon = harness.serve();
    for (words, text) in [
        ("send orders.fifo x", "wants a message group (give --group)"),
        ("send orders.fifo x --group a", "wants a deduplication id (give --deduplication-id, or set"),
        ("send orders.fifo x --group é --deduplication-id 1", "--group \"é\": must be 1 to 128"),
        ("send orders.fifo x --group a --deduplication-id 1 --delay 5s", "takes no --delay for a message"),
        (
            "send orders.fifo x --group a --deduplication-id 1 --unique k",
            "takes no --unique for a message (use --deduplication-id)",
        ),
        ("send notes x --deduplication-id 1", "is a standard queue and takes no --deduplication-id"),
        ("send notes x --delay 16m", "--delay: must be 0s to 15m (got 16m)"),
        ("send notes x --priority 3000000", "--priority: must be 0 to 2097152"),
        ("send notes x --attribute AWS.x=1", "--attribute AWS.x: "),
        ("redrive statements-dead --to statements-dead", "name another queue with --to"),
        ("redrive statements-dead --as-of 12", "--as-of \"12\" is not a token"),
    ] {
        let said = harness.run(&words.split(' ').collect::<Vec<_>>());
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{words}: {said:?}");
        assert!(said.err.contains(text), "{words} must say {text:?}: {said:?}");
        for field in ["MessageGroupId", "MessageDeduplicationId", "DelaySeconds"] {
            assert!(!said.err.contains(field), "{words}: {said:?}");
        }
    }
}

/// The destinations of `check --connect --json` by name, with their states and texts.
fn contacted(said: &Said) -> Vec<(String, String, String)> {
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    let kind = |row: &serde_json::Value| text(row, "destination").rsplit_once(' ').unwrap().0.to_owned();
    let rows = json["destinations"].as_array().unwrap();
    rows.iter().map(|row| (kind(row), text(row, "state"), text(row, "text"))).collect()
}

#[test]
fn check_connect_contacts_every_destination_and_mails_nobody() {
    let mut harness = Harness::with_bank(&["--users", "300", "--fail", "0%", "--malformed", "2"]);
    let sink = ["demo", "mail-sink", "--listen", "127.0.0.1:0", "--journal", "journal.jsonl"];
    let mut sink = Process::start(&mut harness.command(&sink));
    let port = sink.wait_for("mail sink on ").split_whitespace().nth(3).unwrap().rsplit(':').next().unwrap().to_owned();
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", &port);

    let said = harness.run(&["check", "--connect", "--param", "period=2026-10", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let all = contacted(&said);
    let kinds: Vec<_> = all.iter().map(|(kind, state, _)| (kind.as_str(), state.as_str())).collect();
    assert_eq!(kinds, [("users API", "ok"), ("account API", "ok"), ("relay", "ok")]);
    assert!(all[0].2.contains(" users on the first page"), "{all:?}");
    assert!(all[1].2.contains("the account of user u-") && all[1].2.contains("makes a statement ("), "{all:?}");
    assert!(all[2].2.contains("greeted and answered EHLO, without TLS, no login is configured"), "{all:?}");
    let text = harness.run(&["check", "--connect"]);
    assert!(text.good().contains("config.toml is valid") && text.out.contains("\nok relay 127.0.0.1:"), "{text:?}");
    assert!(!harness.dir.path().join("data").exists(), "it needs no store");
    sink.signal(Signal::INT);
    assert_eq!(sink.end(), 0);
    assert!(sink.seen.iter().any(|line| line.contains("took 0 mails to 0 recipients")), "{:?}", sink.seen);
}

#[test]
fn check_connect_says_what_is_wrong_with_each_destination_and_what_to_do() {
    let mut harness = Harness::with_bank(&["--users", "5", "--fail", "100%"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", &silent.local_addr().unwrap().port().to_string());
    let said = harness.run(&["check", "--connect", "--timeout", "2s", "--json"]);
    assert_eq!(said.code, 69, "{said:?}");
    let all = contacted(&said);
    assert_eq!((all[0].1.as_str(), all[1].1.as_str(), all[2].1.as_str()), ("ok", "failed", "failed"), "{all:?}");
    assert!(all[1].2.starts_with("user u-000001: "), "{all:?}");
    assert!(all[2].2.contains("did not answer within 2s"), "{all:?}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", &closed.to_string());
    harness.set("FUNCTIONS__FAN_OUT__USERS__URL", &format!("http://127.0.0.1:{closed}/users?period={{period}}"));
    let said = harness.run(&["check", "--connect", "--json"]);
    assert_eq!(said.code, 69, "{said:?}");
    let all = contacted(&said);
    assert_eq!((all[0].1.as_str(), all[1].1.as_str(), all[2].1.as_str()), ("failed", "not-tried", "failed"), "{all:?}");
    for (at, remedy) in [(0, "users.url"), (1, "no users API named a user"), (2, "check relay.host and relay.port")] {
        assert!(all[at].2.contains(remedy), "{remedy}: {all:?}");
    }
    let said = harness.run(&["check", "--param", "period=2026-10"]);
    assert!(said.code == 64 && said.err.contains("--connect"), "{said:?}");
}

#[test]
fn recipients_are_found_by_user_address_and_reason_and_show_what_the_relays_log_is_searched_for() {
    let harness = Harness::with_bank_and_sink(&["--users", "20", "--fail", "20%", "--malformed", "1"]);
    let mut daemon = harness.serve();
    harness.run_to_the_end(&mut daemon);
    let list = |words: &[&str]| {
        let json = harness.run(&[&["run", "recipients", "1", "--json"], words].concat()).json();
        json.as_array().unwrap().clone()
    };
    let sent = list(&["--state", "sent"])[0].clone();
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    assert!(text(&sent, "address").contains('@') && text(&sent, "reply").starts_with("250 "), "{sent}");
    assert!(text(&sent, "message_id").ends_with("@bank.example>"), "{sent}");
    assert_eq!(list(&["--user", &text(&sent, "user")]), std::slice::from_ref(&sent));
    assert_eq!(list(&["--address", &text(&sent, "address").to_uppercase()]), std::slice::from_ref(&sent));
    assert_eq!(list(&["--user", &text(&sent, "user"), "--state", "dead"]).len(), 0);

    let dead = list(&["--state", "dead"]);
    assert_eq!(dead.len(), 5, "{dead:?}");
    let malformed: Vec<_> = dead.iter().filter(|row| text(row, "address").is_empty()).collect();
    assert_eq!(malformed.len(), 1, "{dead:?}");
    assert!(text(malformed[0], "user").starts_with("u-"), "the id that the record names: {malformed:?}");
    assert!(text(malformed[0], "reason").starts_with("data users "), "{malformed:?}");
    let letter = dead.iter().find(|row| !text(row, "address").is_empty()).unwrap();
    let found = list(&["--reason", &text(letter, "fingerprint")]);
    assert!(found.contains(letter) && found.iter().all(|row| row["fingerprint"] == letter["fingerprint"]), "{found:?}");
    assert_eq!(list(&["--reason", "no such reason"]).len(), 0);

    let shown = harness.run(&["run", "recipients", "1", "--user", &text(&sent, "user")]);
    let lines: Vec<_> = shown.good().lines().collect();
    let name = format!("{} <{}>: sent since ", text(&sent, "user"), text(&sent, "address"));
    assert!(lines[0].starts_with(&name), "{shown:?}");
    assert_eq!(lines[1], format!("  relay: {}", text(&sent, "reply")));
    assert_eq!(lines[2], format!("  Message-ID: {}", text(&sent, "message_id")));
    daemon.stop();
    let offline = harness.run(&["run", "recipients", "1", "--user", &text(&sent, "user"), "--json"]);
    assert_eq!(offline.json(), serde_json::json!([sent]), "without a daemon it is the same");
}

#[test]
fn a_run_whose_fan_out_died_is_a_problem_without_its_letter_too() {
    let harness = Harness::with_bank(&["--users", "0"]);
    let mut daemon = harness.serve();
    harness.run(&["run", "start", "monthly-statements", "--param", "period=2026-10"]).good();
    daemon.wait_for("the fan-out died");
    harness.run(&["purge", "fan-out-dead", "--yes"]).good();
    let status = harness.run(&["status"]);
    let sentence = "degraded: run 1 is fetch-dead: withdrawn purged (`nightmail send QUEUE '{\"run\": 1}'`";
    assert!(status.code == 2 && status.out.starts_with(sentence), "{status:?}");
}
