//! Variables override keys.

use std::path::Path;
use std::time::Duration;

use super::super::{Environment, Kind, Origin, load_text};
use super::{SMALL, load_with};

fn with(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

fn fault(variables: &[(&str, &str)]) -> String {
    match load_with(SMALL, &with(variables)) {
        Ok(_) => panic!("{variables:?} must be refused"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_variable_overrides_a_key_and_is_its_origin() {
    let environment = with(&[
        ("NIGHTMAIL__FUNCTIONS__LETTER__CONCURRENCY", "4"),
        ("NIGHTMAIL__FUNCTIONS__LETTER__MAIL__RELAY__HOST", "10.0.0.7"),
        ("NIGHTMAIL__FUNCTIONS__LETTER__BACKOFF__MAX", "\"1m\""),
        ("NIGHTMAIL__FUNCTIONS__LETTER__DOCUMENT__FOOTER", "2026"),
        ("NIGHTMAIL__FUNCTIONS__LETTER__DOCUMENT__ISSUER_LINES", "[\"a\", \"b\"]"),
        ("NIGHTMAIL__LOG__LEVEL", "debug"),
        ("NIGHTMAIL__DATA_DIR", "/srv/nightmail"),
    ]);
    let settings = load_with(SMALL, &environment).unwrap_or_else(|errors| panic!("{errors}"));
    let letter = &settings.functions[0];
    assert_eq!(letter.pool.concurrency, 4);
    assert_eq!(letter.pool.backoff.max, Duration::from_secs(60));
    let Kind::Statement(statement) = &letter.kind else { panic!("letter is a statement") };
    assert_eq!(statement.mail.relay.host, "10.0.0.7");
    assert_eq!(statement.document.footer, "2026");
    assert_eq!(statement.document.issuer_lines, ["a", "b"]);
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.data_dir, Path::new("/srv/nightmail"));
    let origin = |path: &str| settings.origins[path].origin.clone();
    assert_eq!(origin("log.level"), Origin::Variable("NIGHTMAIL__LOG__LEVEL".into()));
    assert_eq!(origin("log.format"), Origin::Default);
    assert_eq!(origin("functions.letter.queue"), Origin::File { line: 15, column: 9 });
    assert_eq!(settings.origins["functions.letter.concurrency"].value, "4");
    assert_eq!(settings.origins["functions.letter.mail.relay.port"].value, "587");
}

#[test]
fn a_dash_in_a_name_is_an_underscore_in_the_variable() {
    let environment = with(&[("NIGHTMAIL__QUEUES__FAN_OUT_DEAD__DELAY", "3s")]);
    let settings = load_with("[queues.fan-out-dead]", &environment).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.queues["fan-out-dead"].delay, Duration::from_secs(3));
    let both = load_with("[queues.fan-out-dead]\n[queues.fan_out_dead]", &environment).unwrap_err().to_string();
    assert!(both.contains("stands for both queues.fan-out-dead.delay and queues.fan_out_dead.delay"), "{both}");
}

#[test]
fn a_fault_in_a_variable_names_the_variable() {
    assert_eq!(
        fault(&[("NIGHTMAIL__FUNCTIONS__LETTER__CONCURRENCY", "0")]),
        "NIGHTMAIL__FUNCTIONS__LETTER__CONCURRENCY: functions.letter.concurrency: must be 1 to 1024 (got 0)"
    );
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        fault(&[("NIGHTMAIL__FUNCTIONS__LETTER__CONCURENCY", "1")]),
        "NIGHTMAIL__FUNCTIONS__LETTER__CONCURENCY: \
         unknown variable (did you mean \"NIGHTMAIL__FUNCTIONS__LETTER__CONCURRENCY\"?)"
    );
    assert!(fault(&[("NIGHTMAIL__X", "1")]).contains("NIGHTMAIL__LOG__LEVEL sets log.level"));
    assert!(load_with(SMALL, &with(&[("NIGHTMAIL_CONFIG", "x"), ("NIGHTMAIL", "y")])).is_ok());
}

#[test]
fn systemd_directories_are_the_defaults() {
    let environment = with(&[("STATE_DIRECTORY", "/var/lib/nightmail:/x"), ("RUNTIME_DIRECTORY", "/run/nightmail")]);
    let settings = load_with(SMALL, &environment).unwrap();
    assert_eq!(settings.data_dir, Path::new("/var/lib/nightmail"));
    assert_eq!(settings.store.path, Path::new("/var/lib/nightmail/nightmail.redb"));
    assert_eq!(settings.control_socket, Path::new("/run/nightmail/control.sock"));
}

#[test]
fn a_command_that_reads_the_units_file_finds_the_units_directories() {
    let none = Environment::default();
    let of = |base: &str| load_text("config.toml", Path::new(base), SMALL, &none).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(of("/etc/nightmail").control_socket, Path::new("/run/nightmail/control.sock"));
    assert_eq!(of("/etc/nightmail").data_dir, Path::new("/var/lib/nightmail"));
    assert_eq!(of("/srv").data_dir, Path::new("data"));
}

#[test]
fn a_socket_path_beyond_the_kernels_limit_is_refused() {
    let long = "d".repeat(96);
    assert!(fault(&[("NIGHTMAIL__DATA_DIR", &long)]).contains("must be at most 107 bytes (got 109)"));
    assert!(load_with(SMALL, &with(&[("NIGHTMAIL__DATA_DIR", &long[..94])])).is_ok());
}

#[test]
fn relative_paths_of_the_file_start_at_its_directory() {
    let text = format!("data_dir = \"data\"\n{SMALL}");
    let base = Path::new("/etc/nightmail");
    let load = |environment: &Environment| super::super::load_text("c", base, &text, environment).unwrap().data_dir;
    assert_eq!(load(&Environment::default()), Path::new("/etc/nightmail/data"));
    assert_eq!(load(&with(&[("NIGHTMAIL__DATA_DIR", "here")])), Path::new("here"));
}
