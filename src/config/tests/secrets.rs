//! Secrets are fetched, guarded and never shown.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::ExposeSecret;

use super::super::{Environment, Errors, Kind, Settings};
use super::{SMALL, load_with};

/// The small configuration with a line in the relay's section, loaded with variables.
fn relay(line: &str, variables: &[(&str, &str)]) -> Result<Settings, Errors> {
    let text = SMALL.replacen(
        "[functions.letter.mail.relay]\n",
        &format!("[functions.letter.mail.relay]\nusername = \"u\"\n{line}\n"),
        1,
    );
    load_with(&text, &variables.iter().copied().collect::<Environment>())
}

fn password(settings: &Settings) -> String {
    let Kind::Statement(statement) = &settings.functions[0].kind else { panic!("letter is a statement") };
    let (user, password) = statement.mail.relay.credentials.as_ref().unwrap();
    assert_eq!(user, "u");
    password.expose_secret().to_owned()
}

fn file(directory: &Path, text: &str, mode: u32) -> std::path::PathBuf {
    let path = directory.join("password");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_secret_comes_from_a_variable_a_file_or_a_credential() {
    let settings = relay("password = { env = \"PW\" }", &[("PW", "hunter2")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(password(&settings), "hunter2");

    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "hunter2\n\n", 0o600);
    let line = format!("password = {{ file = {:?} }}", path.display().to_string());
    let settings = relay(&line, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(password(&settings), "hunter2\n", "exactly one line break is dropped");

    file(directory.path(), "hunter2\n", 0o444);
    let variables = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
    let settings = relay("password = { credential = \"password\" }", &variables).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(password(&settings), "hunter2");
}

#[test]
fn a_variable_may_carry_the_reference() {
    let name = "NIGHTMAIL__FUNCTIONS__LETTER__MAIL__RELAY__PASSWORD__ENV";
    let settings = relay("", &[(name, "PW"), ("PW", "hunter2")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(password(&settings), "hunter2");
    let name = "NIGHTMAIL__FUNCTIONS__LETTER__MAIL__RELAY__PASSWORD";
    let settings = relay("", &[(name, "{ env = \"PW\" }"), ("PW", "hunter2")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(password(&settings), "hunter2");
    let refused = relay("", &[(name, "hunter2")]).unwrap_err().to_string();
    assert!(refused.contains("a secret must not stand in the configuration"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[test]
fn a_missing_variable_is_refused() {
    let refused = relay("password = { env = \"PW\" }", &[]).unwrap_err().to_string();
    assert!(refused.contains("environment variable PW is not set"), "{refused}");
    assert!(relay("password = { env = \"PW\" }", &[("PW", "")]).unwrap_err().to_string().contains("is empty"));
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o602] {
        let path = file(directory.path(), "hunter2", mode);
        let line = format!("password = {{ file = {:?} }}", path.display().to_string());
        let refused = relay(&line, &[]).unwrap_err().to_string();
        assert!(refused.contains(&format!("is open to others (mode {mode:04o}); chmod 600")), "{refused}");
    }
}

#[test]
fn what_is_no_readable_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = relay("password = { file = \"/does/not/exist\" }", &[]).unwrap_err().to_string();
    assert!(missing.contains("file /does/not/exist: No such file"), "{missing}");
    let line = format!("password = {{ file = {:?} }}", directory.path().display().to_string());
    assert!(relay(&line, &[]).unwrap_err().to_string().contains("is not a regular file"));
    let credential = relay("password = { credential = \"pw\" }", &[]).unwrap_err().to_string();
    assert!(credential.contains("LoadCredential=pw"), "{credential}");
    let outside = relay("password = { credential = \"../pw\" }", &[]).unwrap_err().to_string();
    assert!(outside.contains("must be a name"), "{outside}");
}

#[test]
fn a_secret_that_stands_in_the_file_is_never_repeated() {
    for line in [
        "password = \"hunter2\"",
        "password = { plain = \"hunter2\" }",
        "password = { env = \"hunter2!\" }",
        "password = { env = \"A\", file = \"hunter2\" }",
        "password = [\"hunter2\"]",
        "password = \"hunter2",
        "password = hunter2",
        "password \"hunter2\"",
        "pasword = \"hunter2\"",
        "pw = { env = \"hunter2\" }",
        "headers = { Authorization = \"hunter2\" }",
        "port = 1 password = \"hunter2\"",
    ] {
        let errors = relay(line, &[]).expect_err(line);
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.contains("hunter2"), "{line}\n{shown}");
    }
}

#[test]
fn a_literal_credential_header_is_refused_and_others_are_accepted() {
    let with = |header: &str| {
        let section = "[functions.spread.users]\n";
        let text = SMALL.replacen(section, &format!("{section}headers = {{ {header} }}\n"), 1);
        load_with(&text, &Environment::default())
    };
    let settings = with("Accept-Language = \"de\"").unwrap_or_else(|e| panic!("{e}"));
    let Kind::FanOut(fan_out) = &settings.functions[1].kind else { panic!("spread is a fan-out") };
    assert_eq!(fan_out.users.upstream.headers[0].1.expose_secret(), "de");
    for header in ["Authorization = \"hunter2\"", "X-Api-Key = \"hunter2\"", "Cookie = \"hunter2\""] {
        let refused = with(header).unwrap_err().to_string();
        assert!(refused.contains("a secret must not stand in the configuration"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    assert!(with("Host = \"x\"").unwrap_err().to_string().contains("set by the HTTP client"));
}

#[test]
fn settings_and_origins_show_no_secret() {
    let line = "password = { env = \"PW\" }";
    let settings = relay(line, &[("PW", "hunter2")]).unwrap();
    assert_eq!(settings.origins["functions.letter.mail.relay.password"].value, "{ env = \"PW\" }");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let environment: Environment = [("PW", "hunter2")].into_iter().collect();
    assert!(!format!("{environment:?}").contains("hunter2"));
}

#[test]
fn an_address_with_a_password_is_refused_without_repeating_it() {
    let text = SMALL.replacen("https://bank.example/users", "https://u:hunter2@bank.example/users", 1);
    let refused = load_with(&text, &Environment::default()).unwrap_err().to_string();
    assert!(refused.contains("must not hold a user or a password"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}
