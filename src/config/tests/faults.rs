//! How a fault is reported, and that every misspelt key is a fault.

use super::super::keys::{Fallback, Scope, ValueType, segments};
use super::super::schema::KEYS;
use super::{SMALL, fault_of, faults, load};

#[test]
fn several_faults_are_reported_at_once_in_the_order_of_lines() {
    let text =
        "[store]\ncache = \"lots\"\n[queues.a]\ndelay = \"16m\"\nmax_recieve_count = 5\n[log]\nlevel = \"infoo\"\n";
    let Err(errors) = load(text) else { panic!("must be refused") };
    insta::assert_snapshot!(errors, @r#"
    config.toml:2:9: store.cache: "lots" is not a size (write a number with a unit, e.g. "512B", "256KiB", "16MiB", "1GB")
        2 | cache = "lots"
          |         ^^^^^^
    config.toml:4:9: queues.a.delay: must be 0s to 15m (got "16m")
        4 | delay = "16m"
          |         ^^^^^
    config.toml:5:1: queues.a.max_recieve_count: unknown key (did you mean "max_receive_count"?)
        5 | max_recieve_count = …
          | ^^^^^^^^^^^^^^^^^
    config.toml:7:9: log.level: "infoo" is not a level (off, error, warn, info, debug, trace)
        7 | level = "infoo"
          |         ^^^^^^^
    "#);
}

#[test]
fn faults_of_syntax_name_line_and_column() {
    let Err(errors) = load("[log]\nlevel = \"info\nformat = text # or json\n[store\n") else {
        panic!("must be refused")
    };
    insta::assert_snapshot!(errors, @r#"
    config.toml:2:14: not TOML: invalid basic string, expected `"`
        2 | level = "info
          |              ^
    config.toml:3:10: not TOML: invalid boolean, expected `true`
        3 | format = text # or json
          |          ^^^^
    config.toml:4:7: not TOML: unclosed table, expected `]`
        4 | [store
          |       ^
    "#);
}

#[test]
fn what_a_function_cannot_work_with_is_found_before_it_is_made() {
    let text = SMALL.replace("{account_id}", "{account_id}/{mnth}").replace(
        "[functions.letter.mail]\n",
        "[functions.letter.mail]\nsubject = \"{{ user.nmae }}\"\ntext = \"{{ documnt }}\"\n",
    );
    let Err(errors) = load(&text) else { panic!("must be refused") };
    insta::assert_snapshot!(errors, @r#"
    config.toml:17:7: functions.letter.account.url: url "https://bank.example/accounts/{account_id}/{mnth}": {mnth} is unknown (known: user_id, account_id)
       17 | url = "https://bank.example/accounts/{account_id}/{mnth}"
          |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    config.toml:21:11: functions.letter.mail.subject: template subject: line 1: undefined value; known: run, user.*, params.*, document.*
       21 | subject = "{{ user.nmae }}"
          |           ^^^^^^^^^^^^^^^^^
    config.toml:22:8: functions.letter.mail.text: the template uses "documnt", which is not set (known: run, user, params, document)
       22 | text = "{{ documnt }}"
          |        ^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_missing_key_is_reported_at_its_section() {
    assert_eq!(
        fault_of("issuer = \"Bank\"\n", ""),
        "config.toml:18:19: functions.letter.document.issuer: missing; add issuer = \"…\""
    );
    assert_eq!(
        fault_of("[functions.letter.mail.relay]\nhost = \"relay.bank.example\"\n", ""),
        "config.toml:20:19: functions.letter.mail.relay.host: missing; add host = \"…\""
    );
}

/// A configuration with one more line in the section of a key.
fn with_line(key: &str, scope: Scope, line: &str) -> String {
    let function = if scope == Scope::FanOut { "spread" } else { "letter" };
    let (above, _) = key.rsplit_once('.').unwrap_or(("", key));
    let mut path: Vec<&str> = segments_of(above);
    let first = match above.split('.').next() {
        Some("queues") => "work",
        Some("functions") => function,
        _ => "monthly",
    };
    let names = std::iter::once(first).chain(std::iter::repeat("gmail"));
    path.iter_mut().filter(|name| **name == "*").zip(names).for_each(|(name, chosen)| *name = chosen);
    let header = format!("[{}]\n", path.join("."));
    if above.is_empty() {
        format!("{line}\n{SMALL}")
    } else if SMALL.contains(&header) {
        SMALL.replacen(&header, &format!("{header}{line}\n"), 1)
    } else {
        format!("{SMALL}{header}{line}\n")
    }
}

fn segments_of(path: &str) -> Vec<&str> {
    path.split('.').filter(|part| !part.is_empty()).collect()
}

#[test]
fn every_misspelt_key_is_refused_with_its_line_and_the_nearest_known_key() {
    let mut seen = 0;
    for key in KEYS.iter().filter(|key| !key.path.ends_with(".*")) {
        let name = *segments(key.path).last().unwrap();
        for drop in 0..name.len() {
            let misspelt = format!("{}{}", &name[..drop], &name[drop + 1..]);
            let text = with_line(key.path, key.scope, &format!("{misspelt} = \"hunter2\""));
            let Err(errors) = load(&text) else { panic!("{misspelt:?} for {} must be refused", key.path) };
            let line = text.lines().position(|line| line.ends_with("\"hunter2\"")).unwrap() + 1;
            let shown = errors.to_string();
            assert!(shown.contains(&format!("config.toml:{line}:1: ")), "{shown}");
            assert!(shown.contains(&format!("unknown key (did you mean {name:?}?)")), "{}: {shown}", key.path);
            assert!(!shown.contains("hunter2"), "the value of a misspelt key may be a secret: {shown}");
            seen += 1;
        }
    }
    assert!(seen > 400, "only {seen} misspellings were tried");
}

#[test]
fn every_misspelt_section_is_refused_with_the_nearest_known_one() {
    for (section, near) in
        [("loog", "log"), ("queue.x", "queues"), ("function.x", "functions"), ("schedule.x", "schedules")]
    {
        let list = faults(&format!("[{section}]\n"));
        assert_eq!(list.len(), 1, "{list:?}");
        assert!(list[0].contains(&format!("did you mean {near:?}?")), "{list:?}");
    }
}

#[test]
fn every_key_refuses_a_value_of_a_wrong_type() {
    for key in KEYS.iter().filter(|key| !key.path.ends_with(".*")) {
        let name = *segments(key.path).last().unwrap();
        let text = with_line(key.path, key.scope, &format!("{name} = 1979-05-27"));
        let Err(errors) = load(&text) else { panic!("{} must refuse a date", key.path) };
        let shown = errors.to_string();
        let doubled = shown.contains("duplicate key"); // Those that the small configuration sets already.
        assert!(doubled || shown.contains("(got a date)"), "{}: {shown}", key.path);
    }
}

#[test]
fn every_default_fits_its_own_limits() {
    for key in KEYS {
        if let Fallback::Toml(text) = key.fallback {
            let node = super::super::document::Node::of_variable(text);
            let checked = super::super::value_type::check(key.value_type, "", &node);
            assert!(checked.is_ok(), "{}: {checked:?}", key.path);
        }
    }
}

#[test]
fn limits_hold_at_their_ends() {
    for key in KEYS {
        if let ValueType::Count(min, max) = key.value_type {
            let check = |n: u64| {
                let node = super::super::document::Node::Integer(i64::try_from(n).ok());
                super::super::value_type::check(key.value_type, "", &node).is_ok()
            };
            assert!(check(min) && check(max) && !check(max + 1), "{}", key.path);
            assert!(min == 0 || !check(min - 1), "{}", key.path);
        }
    }
}

#[test]
fn a_key_of_the_other_kind_says_whose_it_is() {
    let line = fault_of("kind = \"statement\"\n", "kind = \"statement\"\ntarget = \"out\"\n");
    assert!(line.contains("only functions of kind \"fan-out\" have it"), "{line}");
}
