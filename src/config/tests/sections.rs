//! The checks within each section and between sections.

use std::path::Path;

use super::super::keys::{Key, segments};
use super::super::schema::KEYS;
use super::super::{EXAMPLE, Environment, Kind, load as load_file, load_text};
use super::{SMALL, fault_of, faults, load, load_with};
use crate::store::record::Scope;

/// The key of a path in settings.
pub(super) fn key_of(path: &str) -> Option<&'static Key> {
    // A quoted name may hold a dot.
    let path = path.replace(".fifo\"", "\"").replace(".com\"", "\"");
    let parts: Vec<&str> = path.split('.').collect();
    KEYS.iter().find(|key| {
        let pattern = segments(key.path);
        pattern.len() == parts.len() && pattern.iter().zip(&parts).all(|(want, have)| *want == "*" || want == have)
    })
}

fn warnings(text: &str) -> Vec<String> {
    let settings = load(text).unwrap_or_else(|errors| panic!("{errors}"));
    settings.warnings.iter().map(|finding| format!("{}: {}", finding.field, finding.text)).collect()
}

#[test]
fn a_gate_needs_dead_letters_for_what_it_cannot_make() {
    let gated = format!("{}gate = \"manual\"\n", super::SMALL);
    load(&gated).unwrap_or_else(|errors| panic!("{errors}"));
    let list = faults(&gated.replacen("dead_letter_queue = \"dead\"\nmax_receive_count = 3\n", "", 1));
    assert_eq!(list.len(), 1, "{list:#?}");
    assert!(list[0].contains("gate: needs a dead_letter_queue for queue \"work\""), "{}", list[0]);
}

#[test]
fn names_follow_sqs() {
    let long = "q".repeat(81);
    for (name, why) in [
        ("a b", "is not a name"),
        ("ü", "is not a name"),
        ("", "is not a name"),
        (long.as_str(), "is not a name"),
        (".fifo", "is not a name"),
        ("a.b", "is not a name"),
    ] {
        let list = faults(&format!("[queues.\"{name}\"]"));
        assert!(list.len() == 1 && list[0].contains(why), "{list:?}");
    }
    assert!(load(&format!("[queues.{}]", "q".repeat(80))).is_ok());
    assert!(load("[functions.\"a.fifo\"]").is_err());
}

#[test]
fn a_queue_whose_name_ends_in_fifo_is_a_fifo_queue_and_has_its_keys() {
    let text = "[queues.\"orders.fifo\"]\ncontent_based_deduplication = true\ndeduplication_scope = \"messageGroup\"\n";
    let settings = load(text).unwrap_or_else(|errors| panic!("{errors}"));
    let fifo = settings.queues["orders.fifo"].fifo.unwrap();
    assert!(fifo.content_based_deduplication);
    assert_eq!(fifo.deduplication_scope, Scope::Group);
    let list = faults("[queues.orders]\ncontent_based_deduplication = true");
    assert!(list.len() == 1 && list[0].contains("[queues.\"orders.fifo\"]"), "{list:?}");
    let list = faults("[queues.\"a.fifo\"]\ndead_letter_queue = \"b\"\nmax_receive_count = 1\n[queues.b]");
    assert!(list.len() == 1 && list[0].contains("of the same kind"), "{list:?}");
    let list = faults("[queues.a]\ndead_letter_queue = \"b\"\nmax_receive_count = 1\n[queues.b]\nredrive_allow = []");
    assert!(list.len() == 1 && list[0].contains("takes no letters"), "{list:?}");
}

#[test]
fn dead_letter_queues_exist_and_are_others() {
    let line = fault_of("dead_letter_queue = \"dead\"", "dead_letter_queue = \"daed\"");
    assert!(line.contains("queue \"daed\" not found (did you mean \"dead\"?)"), "{line}");
    assert!(
        fault_of("dead_letter_queue = \"dead\"", "dead_letter_queue = \"work\"")
            .contains("must not be the queue itself")
    );
    assert!(fault_of("max_receive_count = 3\n", "").contains("needs max_receive_count"));
    assert!(fault_of("dead_letter_queue = \"dead\"\n", "").contains("needs dead_letter_queue"));
    assert!(fault_of("max_receive_count = 3", "max_receive_count = 1001").contains("must be 1 to 1000 (got 1001)"));
    let circle = faults(
        "[queues.a]\ndead_letter_queue=\"b\"\nmax_receive_count=1\n[queues.b]\ndead_letter_queue=\"a\"\nmax_receive_count=1\n",
    );
    assert!(circle.len() == 2 && circle[0].contains("break the circle"), "{circle:?}");
}

#[test]
fn attributes_of_queues_have_sqs_limits() {
    for (line, why) in [
        ("visibility_timeout = \"12h1s\"", "must be 0s to 12h"),
        ("delay = \"15m1s\"", "must be 0s to 15m"),
        ("retention = \"59s\"", "must be 1m to 14d, or \"forever\""),
        ("retention = \"15d\"", "or \"forever\""),
        ("receive_wait = \"21s\"", "must be 0s to 20s"),
        ("message_max = \"1023B\"", "must be 1.0 KiB to 1.0 MiB"),
        ("message_max = \"1025KiB\"", "must be 1.0 KiB to 1.0 MiB"),
        ("delay = 30", "with a unit"),
    ] {
        let list = faults(&format!("[queues.a]\n{line}\n"));
        assert!(list.len() == 1 && list[0].contains(why), "{list:?}");
    }
}

#[test]
fn functions_and_queues_belong_together() {
    assert!(fault_of("queue = \"out\"", "queue = \"oout\"").contains("queue \"oout\" not found"));
    assert!(
        fault_of("target = \"work\"", "target = \"wrok\"")
            .contains("queue \"wrok\" not found (did you mean \"work\"?)")
    );
    assert!(fault_of("target = \"work\"", "target = \"dead\"").contains("no function serves queue \"dead\""));
    assert!(fault_of("target = \"work\"", "target = \"out\"").contains("must not be the function's own queue"));
    let two = faults(&SMALL.replacen("queue = \"out\"", "queue = \"work\"", 1));
    assert!(two.iter().any(|line| line.contains("is served by function \"letter\" already")), "{two:?}");
    assert!(fault_of("kind = \"statement\"", "kind = \"statment\"").contains("must be one of fan-out, statement"));
}

#[test]
fn a_relay_has_the_time_that_rfc_5321_gives_it_for_each_step_unless_it_is_set() {
    let limits = |text: &str| {
        let settings = load(text).unwrap_or_else(|errors| panic!("{errors}"));
        let letter = settings.functions.into_iter().find(|function| function.pool.function == "letter").unwrap();
        let Kind::Statement(statement) = letter.kind else { panic!("it is a statement") };
        let limits = statement.mail.relay.limits;
        let steps = [limits.connect, limits.greeting, limits.command, limits.data, limits.body_piece, limits.body];
        (steps.map(|step| step.as_secs()), limits.end_of_data.as_secs())
    };
    assert_eq!(limits(SMALL), ([10, 300, 300, 120, 180, 600], 600));
    let set = "connect_timeout = \"1s\"\ngreeting_timeout = \"2s\"\ncommand_timeout = \"3s\"\ndata_timeout = \"4s\"\n\
               body_piece_timeout = \"5s\"\nbody_timeout = \"6s\"\nend_of_data_timeout = \"7s\"\n";
    let host = "host = \"relay.bank.example\"\n";
    assert_eq!(limits(&SMALL.replace(host, &format!("{host}{set}"))), ([1, 2, 3, 4, 5, 6], 7));
}

#[test]
fn an_attempt_that_could_outlast_its_messages_lease_is_refused() {
    let queue = "kind = \"statement\"\nqueue = \"work\"\n";
    // With the default limits a dialogue takes 1 h 2 min 22 s at most, and a lease 12 h with a margin of 30 s.
    assert!(load(&SMALL.replace(queue, &format!("{queue}timeout = \"10h57m8s\"\n"))).is_ok());
    let line = fault_of(queue, &format!("{queue}timeout = \"10h57m9s\"\n"));
    assert!(
        line.contains("functions.letter.timeout: with a mail's dialogue, whose limits add up to 1h 2m 22s"),
        "{line}"
    );
    let host = "host = \"relay.bank.example\"\n";
    let hours = "connect_timeout = \"1h\"\ncommand_timeout = \"1h\"\nend_of_data_timeout = \"1h\"\nbody_timeout = \"1h\"\ndata_timeout = \"1h\"\n";
    let line = fault_of(host, &format!("{host}{hours}"));
    assert!(line.contains("functions.letter.mail.relay.connect_timeout: with a mail's dialogue"), "{line}");
}

#[test]
fn a_relay_has_one_daily_quota_and_its_rate_leaves_every_attempt_a_turn() {
    let host = "host = \"relay.bank.example\"\n";
    let letter = &SMALL[SMALL.find("[functions.letter]").unwrap()..SMALL.find("[schedules.monthly]").unwrap()];
    let second = letter.replace("letter", "reminder").replace("\"work\"", "\"other\"");
    let both = |first: &str, other: &str| {
        let second = second.replace(host, &format!("{host}{other}"));
        format!("{}\n[queues.other]\n{second}", SMALL.replace(host, &format!("{host}{first}")))
    };
    assert!(load(&both("per_day = 100\n", "per_day = 100\n")).is_ok());
    assert!(load(&both("per_day = 100\n", "per_day = 200\nport = 2525\n")).is_ok(), "another relay");
    let differs = faults(&both("per_day = 100\n", ""));
    let of =
        "functions.reminder.mail.relay.per_day: differs from that of function \"letter\" (100) with the same relay";
    assert!(differs.len() == 1 && differs[0].contains(of), "{differs:?}");

    let queue = "kind = \"statement\"\nqueue = \"work\"\n";
    let warned = |timeout: &str, rate: u32| {
        let rated = SMALL.replace(host, &format!("{host}per_second = {rate}\n"));
        let settings = load(&rated.replace(queue, &format!("{queue}timeout = \"{timeout}\"\n"))).unwrap();
        let warnings = settings.warnings.iter().map(ToString::to_string).collect::<String>();
        warnings.contains("gives 30 turns within timeout (10s), fewer than concurrency (32)")
    };
    assert!(warned("10s", 3));
    assert!(!warned("60s", 1) && !warned("10s", 4), "32 attempts at once");
}

#[test]
fn schedules_start_fan_outs_alone() {
    assert!(fault_of("function = \"spread\"", "function = \"letter\"").contains("starts one of kind \"fan-out\""));
    assert!(fault_of("function = \"spread\"", "function = \"sprad\"").contains("did you mean \"spread\"?"));
    assert!(fault_of("function = \"spread\"", "function = \"spread\"\ntimezone = \"Mars/Base\"").contains("IANA"));
    assert!(fault_of("cron = \"0 2 1 * *\"", "cron = \"monthly\"").contains("schedules.monthly.cron"));
}

#[test]
fn addresses_are_http_and_name_the_account() {
    let url = "https://bank.example/accounts/{account_id}";
    for (bad, why) in [
        ("ftp://bank.example/{account_id}", "must start with http:// or https://"),
        ("bank.example/{account_id}", "is not an address"),
        ("https://bank.example/{account_id", "a brace is open"),
        ("https://bank.example/account_id}", "a brace closes"),
        ("https://bank.example/{account id}", "a placeholder must be"),
        ("https://{account_id}.bank.example/", "the host must not come from data"),
        ("https://bank.example/accounts", "must name the account"),
    ] {
        assert!(fault_of(url, bad).contains(why), "{bad}: {}", fault_of(url, bad));
    }
}

#[test]
fn mailboxes_locales_hosts_and_pointers_are_plausible() {
    let from = "from = \"statements@bank.example\"";
    for bad in ["bank", "a@b@c", "@bank.example", "a@", "Bank <a@b", "Bank a@b>", "a b@c", "Bank <a@b>\\r\\nBcc: c@d"] {
        assert!(fault_of(from, &format!("from = \"{bad}\"")).contains("functions.letter.mail.from"), "{bad}");
    }
    for good in ["Bank <a@b.example>", "a@b", "Bank <Ünited> <a@münchen.example>"] {
        assert!(load(&SMALL.replacen(from, &format!("from = \"{good}\""), 1)).is_ok(), "{good}");
    }
    let issuer = "issuer = \"Bank\"";
    assert!(fault_of(issuer, &format!("{issuer}\ndefault_locale = \"english\"")).contains("language tag"));
    let host = "host = \"relay.bank.example\"";
    assert!(fault_of(host, "host = \"relay:25\"").contains("give the port in its own key"));
    let users = "[functions.spread.users]\n";
    assert!(fault_of(users, &format!("{users}items = \"users\"\n")).contains("JSON pointer"));
}

#[test]
fn templates_are_checked_before_the_first_mail() {
    let from = "from = \"statements@bank.example\"";
    let with = |line: &str| fault_of(from, &format!("{from}\n{line}"));
    assert!(with("subject = \"{{ user.name\"").contains("is not a template"));
    assert!(
        with("subject = \"{{ usr.name }}\"")
            .contains("uses \"usr\", which is not set (known: run, user, params, document)")
    );
    assert!(with("subject = \"a\\nb\"").contains("must be one line"));
    let loops = format!("{from}\ntext = \"{{% for i in range(2) %}}{{{{ i }}}}{{% endfor %}}\"");
    assert!(load(&SMALL.replacen(from, &loops, 1)).is_ok());
}

#[test]
fn a_template_may_stand_in_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let from = "from = \"statements@bank.example\"";
    let text = SMALL.replacen(from, &format!("{from}\ntext_file = \"mail.txt\""), 1);
    let load = || load_text("config.toml", directory.path(), &text, &Environment::default());
    assert!(load().unwrap_err().to_string().contains("mail.txt: No such file"));
    std::fs::write(directory.path().join("mail.txt"), "Dear {{ nobody }}").unwrap();
    assert!(load().unwrap_err().to_string().contains("uses \"nobody\""));
    std::fs::write(directory.path().join("mail.txt"), "Dear {{ user.name }}").unwrap();
    let settings = load().unwrap_or_else(|errors| panic!("{errors}"));
    assert!(format!("{:?}", settings.functions).contains("Dear {{ user.name }}"));
}

#[test]
fn what_is_rarely_meant_is_advice() {
    assert_eq!(
        warnings("[queues.a]\nretention=\"forever\"\ndead_letter_queue=\"b\"\nmax_receive_count=1\n[queues.b]\n"),
        [
            "queues.a.dead_letter_queue: its letters expire sooner (4d) than this queue's messages; raise queues.b.retention"
        ]
    );
    let small = warnings(SMALL);
    assert!(
        small.iter().any(|line| line.starts_with("queues.work.visibility_timeout: is shorter (30s)")),
        "{small:#?}"
    );
    assert!(small.iter().any(|line| line.contains("queue \"out\" has no dead_letter_queue")), "{small:#?}");
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_one_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let refused = || load_file(Some(Path::new(&path)), &Environment::default()).unwrap_err().to_string();
    assert!(refused().contains("config.toml: cannot be read: No such file"), "{}", refused());
    std::fs::write(&path, b"[log]\nlevel = \"\xff\"\n").unwrap();
    assert!(refused().contains("line 2 is not UTF-8"), "{}", refused());
    std::fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert!(refused().contains("has more than 1048576 bytes"), "{}", refused());
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let settings = load("").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(settings.queues.is_empty() && settings.functions.is_empty() && settings.schedules.is_empty());
}

#[test]
fn who_is_told_about_runs_is_checked() {
    let schedule = "[schedules.monthly-statements.notify]";
    let found = |lines: &str| {
        let text = EXAMPLE.replace(schedule, &format!("{schedule}\n{lines}"));
        load_with(&text, &Environment::default()).map(drop).map_err(|errors| errors.to_string())
    };
    assert_eq!(
        found("queue = \"fan-out-dead\"\nurl = \"http://127.0.0.1:9/x\"\ncommand = [\"true\"]\non = [\"end\"]"),
        Ok(())
    );
    for (lines, text) in [
        ("queue = \"nope\"", "notify.queue: queue \"nope\" not found"),
        ("url = \"http://hooks.example/{period}\"", "notify.url: must be a whole address without placeholders"),
        ("command = [\"\"]", "notify.command: must not be empty"),
        ("queue = \"fan-out.fifo\"", "notify.queue: queue \"fan-out.fifo\" not found"),
        (
            "on = [\"start\"]",
            "notify.on: must name some of first-death, awaiting-release, braked, deadline-at-risk, deadline-missed, end",
        ),
        ("attempts = 0", "notify.attempts: must be 1 to 1000 (got 0)"),
    ] {
        let said = found(lines).err().unwrap_or_default();
        assert!(said.contains(text), "{lines}: {said}");
    }
}

#[test]
fn a_deadline_is_a_time_of_day() {
    let schedule = "[schedules.monthly-statements]";
    let found = |deadline: &str| {
        let text = EXAMPLE.replace(schedule, &format!("{schedule}\ndeadline = {deadline:?}"));
        load_with(&text, &Environment::default()).map(|settings| settings.schedules[0].deadline)
    };
    assert_eq!(found("10:00").unwrap(), Some(jiff::civil::time(10, 0, 0, 0)));
    for wrong in ["24:00", "10:60", "10", "1:00", "10:00:00", "-1:00", "ten"] {
        let said = found(wrong).unwrap_err().to_string();
        assert!(said.contains("is not a time of day; write hours and minutes, as in \"10:00\""), "{wrong}: {said}");
    }
}

#[test]
fn recipient_domains_have_limits_of_their_own() {
    let relay = "[functions.statement.mail.relay.domains.";
    let found = |sections: &str| load_with(&format!("{EXAMPLE}\n{sections}"), &Environment::default());
    let set = format!("{relay}\"GMail.com\"]\nper_second = 10\nconnections = 5\n{relay}localhost]\nconnections = 30\n");
    let settings = found(&set).unwrap_or_else(|errors| panic!("{errors}"));
    let domains = settings.functions.iter().find_map(|function| match &function.kind {
        Kind::Statement(options) => Some(&options.mail.relay.domains),
        Kind::FanOut(_) => None,
    });
    let domains = domains.unwrap();
    assert_eq!((domains["gmail.com"].per_second.map(u32::from), domains["gmail.com"].connections), (Some(10), Some(5)));
    assert_eq!((domains["localhost"].per_second, domains["localhost"].connections), (None, Some(30)));
    let advice: Vec<String> = settings.warnings.iter().map(|warning| warning.text.clone()).collect();
    assert_eq!(advice, ["is more than the relay's connections (20), which hold for all of its mails"]);
    for (sections, text) in [
        (format!("{relay}\"a b\"]\nper_second = 1"), "is not a host name"),
        (format!("{relay}\"a.example\"]\nper_second = 0"), "must be 1 to 100000 (got 0)"),
        (format!("{relay}a]\nper_second = 1\n{relay}A]\nper_second = 2"), "names \"a\" a second time"),
    ] {
        let said = found(&sections).map(drop).unwrap_err().to_string();
        assert!(said.contains(text), "{sections}: {said}");
    }
}
