//! The example, the reference and the list of keys agree.

use std::path::Path;
use std::time::Duration;

use super::super::keys::{Fallback, segments};
use super::super::schema::KEYS;
use super::super::{EXAMPLE, Environment, Kind, Origin, load, reference};
use super::{load_with, sections};
use crate::function::statement::Tls;
use crate::queue;

/// What the references in the example's commented lines need.
fn variables() -> Environment {
    ["USERS_TOKEN", "ACCOUNT_TOKEN", "RELAY_PASSWORD", "BILLING_SECRET", "NOTIFY_TOKEN"]
        .into_iter()
        .map(|name| (name, "x"))
        .collect()
}

/// The key of a commented line, without the `# `.
fn commented(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix("# ")?.split_once(" = ")?;
    key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)).then_some(key)
}

fn uncommented(but: impl Fn(&str) -> bool) -> String {
    let is_meant = |line: &str| line.starts_with("# [") || commented(line).is_some_and(&but);
    let line = |line: &'static str| if is_meant(line) { &line[2..] } else { line };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_accepted_without_advice_and_without_any_variable() {
    let settings = load(None, &Environment::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.warnings, []);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let from_file = load(Some(&path), &Environment::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(from_file.warnings, []);
}

#[test]
fn the_readmes_configuration_has_twelve_lines_and_is_complete() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    assert_eq!(text.lines().count(), 12);
    let settings = load_with(text, &Environment::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.warnings, []);
    let names: Vec<&str> = settings.functions.iter().map(|function| function.pool.function.as_str()).collect();
    assert_eq!((names, settings.schedules.len()), (vec!["fan-out", "statement"], 1));
}

#[test]
fn the_example_runs_the_monthly_statements_against_the_demo() {
    let settings = load(None, &Environment::default()).unwrap();
    assert_eq!(settings.data_dir, Path::new("data"));
    assert_eq!(settings.control_socket, Path::new("data/control.sock"));
    let statements = &settings.queues["statements"];
    assert_eq!(statements.visibility_timeout, Duration::from_secs(120));
    assert_eq!(statements.retention, None);
    assert_eq!(settings.schedules[0].function, "fan-out");
    assert_eq!(settings.schedules[0].params["period"], "{{ tick.previous_month }}");
    let Kind::Statement(statement) = &settings.functions[1].kind else { panic!("functions are sorted by name") };
    assert_eq!(statement.mail.relay.port, 9701);
    assert_eq!(statement.mail.relay.tls, Tls::None);
    assert!(statement.mail.html.contains("{{ user.name }}"));
    let Kind::FanOut(fan_out) = &settings.functions[0].kind else { panic!("functions are sorted by name") };
    assert_eq!(fan_out.users.pages_max, 1_000_000);
}

#[test]
fn every_commented_line_of_the_example_is_valid_and_shows_the_default() {
    let plain = load(None, &Environment::default()).unwrap();
    let all = uncommented(|key| !key.ends_with("_file"));
    let set = load_with(&all, &variables()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(set.warnings, []);
    for (path, entry) in &plain.origins {
        if entry.origin == Origin::Default
            && sections::key_of(path).is_some_and(|k| matches!(k.fallback, Fallback::Toml(_)))
        {
            assert_eq!(set.origins[path].value, entry.value, "{path}: the example's comment shows another default");
        }
    }
    // An access key's table is commented as a whole, and needs these.
    let is_needed = |key: &str| ["id", "secret"].contains(&key);
    let files = load_with(&uncommented(|key| key.ends_with("_file") || is_needed(key)), &variables()).unwrap_err();
    assert!(files.0.iter().all(|finding| finding.text.contains("keep one of the two")), "{files}");
    assert_eq!(files.0.len(), 2);
}

#[test]
fn every_key_stands_in_the_example() {
    let all = load_with(&uncommented(|key| !key.ends_with("_file")), &variables()).unwrap();
    for key in KEYS {
        let set = all.origins.iter().any(|(path, entry)| {
            entry.origin != Origin::Default && sections::key_of(path).is_some_and(|found| found.path == key.path)
        });
        let shown = EXAMPLE.lines().filter_map(commented).any(|name| Some(&name) == segments(key.path).last());
        assert!(set || (key.path.ends_with("_file") && shown), "{} is not in config.toml", key.path);
    }
}

#[test]
fn the_reference_in_the_documentation_is_the_list_of_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- keys: start -->\n", "<!-- keys: end -->");
    let table = text.split(start).nth(1).and_then(|rest| rest.split(end).next()).unwrap();
    assert!(table == reference(), "docs/config.md is behind; between its markers belongs:\n{}", reference());
}

#[test]
fn defaults_are_those_of_the_modules() {
    let settings = load_with("[queues.plain]", &Environment::default()).unwrap();
    assert_eq!(settings.queues["plain"], queue::Options::default());
    let store = crate::store::Options::at("data/nightmail.redb");
    assert_eq!(format!("{:?}", settings.store), format!("{store:?}"));
}
