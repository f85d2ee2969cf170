//! A real foreign SMTP server takes the mails: aiosmtpd, which reads them back with Python's own email package.

use std::path::{Path, PathBuf};
use std::process::Command;

use nightmail_demo::fixtures::Fixtures;
use serde_json::{Value, json};

use crate::process::{Harness, Process, has_tools};

const USERS: u32 = 24;
const PASSWORD: &str = "correct-horse-battery";

/// The relay, the directory of its mails, and a harness that points to it.
struct Foreign {
    harness: Harness,
    relay: Process,
    mails: PathBuf,
}

impl Foreign {
    fn start(users: u32, options: &[&str]) -> Self {
        let mut harness = Harness::with_bank(&["--users", &users.to_string()]);
        let mails = harness.dir.path().join("mails");
        std::fs::create_dir(&mails).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/relay.py");
        let mut command = Command::new("python3");
        command.current_dir(harness.dir.path()).arg(script).arg(&mails).args(options);
        let mut relay = Process::start(&mut command);
        harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PORT", relay.wait_for("").trim());
        Self { harness, relay, mails }
    }

    /// With STARTTLS, a self-signed certificate, and AUTH.
    fn start_secured(users: u32) -> Self {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("relay.cert"), dir.path().join("relay.key"));
        std::fs::write(&cert, signed.cert.der()).unwrap();
        std::fs::write(&key, signed.signing_key.serialize_der()).unwrap();
        let login = format!("nightmail:{PASSWORD}");
        let paths = [cert.to_str().unwrap(), key.to_str().unwrap()];
        let mut foreign = Self::start(users, &["--cert", paths[0], "--key", paths[1], "--login", &login]);
        let trusted = foreign.harness.dir.path().join("relay.pem");
        std::fs::copy(dir.path().join("relay.cert.pem"), trusted).unwrap();
        foreign.harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__TLS", "starttls");
        foreign.harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__USERNAME", "nightmail");
        foreign.harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__PASSWORD__ENV", "RELAY_PASSWORD");
        foreign.harness.set_variable("RELAY_PASSWORD", PASSWORD);
        foreign
    }

    /// Each mail with its attachment's file, by recipient address.
    fn received(&self) -> Vec<(Value, PathBuf)> {
        let files = std::fs::read_dir(&self.mails).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let read = |path: PathBuf| {
            let mail: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (mail, path.with_extension("pdf"))
        };
        let mut mails: Vec<_> = files.map(read).collect();
        mails.sort_by_key(|(mail, _)| mail["envelope"]["to"].to_string());
        mails
    }

    /// Every mail is complete, well formed, and addressed to the recipient it reached.
    fn check(&self, users: u32) -> Vec<Value> {
        let received = self.received();
        assert_eq!(received.len(), users as usize);
        let mut ids: Vec<_> = received.iter().map(|(mail, _)| mail["headers"]["message-id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), users as usize, "each mail has a Message-ID of its own");
        let fixtures = Fixtures::new(1);
        for (index, (mail, pdf)) in (0..users).zip(&received) {
            check_mail(mail, &fixtures.user(index));
            check_document(pdf, &fixtures.user(index).id);
        }
        received.into_iter().map(|(mail, _)| mail).collect()
    }
}

fn check_mail(mail: &Value, user: &nightmail_demo::fixtures::User) {
    let id = &user.id;
    assert_eq!(mail["envelope"], json!({"from": "statements@bank.example", "to": [user.email]}));
    assert_eq!(mail["to"], json!([{"name": user.name, "address": user.email}]), "{id}");
    assert_eq!(mail["from"], json!([{"name": "Example Bank", "address": "statements@bank.example"}]));
    let headers = &mail["headers"];
    assert_eq!(headers["subject"], "Your Example Bank statement for 2026-10");
    assert_eq!(headers["auto-submitted"], "auto-generated");
    assert_eq!(headers["mime-version"], "1.0");
    assert!(headers["message-id"].as_str().unwrap().ends_with("@bank.example>"), "{headers}");
    assert_eq!(mail["headers_doubled"], 0);
    let text = mail["text"].as_str().unwrap();
    assert!(text.contains(&format!("Dear {},", user.name)), "{id}: {text}");
    assert!(text.contains(&format!("This mail was sent to {}.", user.email)), "{text}");
    let html = mail["html"].as_str().unwrap();
    let escaped = user.name.replace('&', "&amp;").replace('\'', "&#x27;");
    assert!(html.contains(&format!("<p>Dear {escaped},</p>")) && html.contains("</html>"), "{id}: {html}");
    let attachments = mail["attachments"].as_array().unwrap();
    assert_eq!(attachments.len(), 1);
    assert_eq!(attachments[0]["name"], "statement-2026-10.pdf");
    assert_eq!(attachments[0]["type"], "application/pdf");
    assert_eq!(mail["defects"], json!([]), "{id}: what Python finds wrong");
    assert_eq!(mail["is_ascii"], true, "the relay offers no SMTPUTF8");
    assert!(mail["longest_line"].as_u64().unwrap() <= 998, "RFC 5322 section 2.1.1");
}

/// The attachment opens, and is this account's statement of the month.
fn check_document(pdf: &Path, account: &str) {
    let output = Command::new("pdftotext").args(["-layout", pdf.to_str().unwrap(), "-"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{account}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(account) && text.contains("Example Bank"), "{account}: {text}");
}

#[test]
fn a_foreign_relay_reads_every_mail_as_it_was_meant() {
    if !has_tools(&["python3", "aiosmtpd", "pdftotext"]) {
        return;
    }
    let foreign = Foreign::start(USERS, &[]);
    let mut daemon = foreign.harness.serve();
    foreign.harness.run_to_the_end(&mut daemon);
    for mail in foreign.check(USERS) {
        assert_eq!(mail["tls"], false);
    }
    let run = foreign.harness.run(&["run", "show", "1", "--json"]).json();
    assert_eq!((&run["sent"], &run["interrupted"]), (&json!(USERS), &json!(0)));
    let rows = foreign.harness.run(&["run", "recipients", "1", "--state", "sent", "--json"]).json();
    for row in rows.as_array().unwrap() {
        assert!(row["detail"].as_str().unwrap().starts_with("250 2.0.0 kept as "), "the relay's own words: {row}");
    }
    daemon.stop();
    drop(foreign.relay);
}

#[test]
fn a_relay_with_starttls_and_a_password_is_used_when_its_certificate_is_trusted() {
    if !has_tools(&["python3", "aiosmtpd", "pdftotext"]) {
        return;
    }
    let mut foreign = Foreign::start_secured(USERS);
    foreign.harness.set_variable("SSL_CERT_FILE", "relay.pem");
    let connected = foreign.harness.run(&["check", "--connect"]);
    let logged_in = "STARTTLS with a trusted certificate, logged in as nightmail";
    assert!(connected.good().contains(logged_in) && !connected.out.contains(PASSWORD), "{connected:?}");
    assert_eq!(foreign.received().len(), 0, "a contact is no mail");
    let mut daemon = foreign.harness.serve();
    foreign.harness.run_to_the_end(&mut daemon);
    for mail in foreign.check(USERS) {
        assert_eq!((&mail["tls"], &mail["login"]), (&json!(true), &json!("nightmail")));
    }
    assert!(!daemon.stop().join("\n").contains(PASSWORD));
}

/// Starts a run whose relay waits for an operator; returns the one line that says so, when nobody got a mail and nothing
/// died.
fn needs_an_operator(foreign: &Foreign) -> String {
    let mut daemon = foreign.harness.serve();
    foreign.harness.run(&["run", "start", "monthly-statements", "--param", "period=2026-10"]).good();
    let told = daemon.wait_for(" is away: ");
    assert!(told.contains(r#""level":"ERROR""#) && told.contains("nightmail probe"), "{told}");
    let status = foreign.harness.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    let breaker = &status["breakers"][0];
    assert!(breaker["destination"].as_str().unwrap().starts_with("relay "), "{breaker}");
    assert_eq!((&breaker["needs_operator"], status["breakers"].as_array().unwrap().len()), (&json!(true), 1));
    let shown = foreign.harness.run(&["status"]);
    assert!(shown.code == 2 && shown.out.starts_with("degraded: relay "), "{shown:?}");
    assert!(shown.out.lines().any(|line| line.starts_with("AWAY ") && line.contains("NEXT TRY")), "{shown:?}");
    let probed = foreign.harness.run(&["probe", "--json"]).json();
    assert_eq!(probed["probed"].as_array().unwrap().len(), 1, "{probed}");
    assert_eq!(foreign.received().len(), 0);
    assert_eq!(foreign.harness.run(&["dead", "statements", "--json"]).json(), json!([]), "waiting costs nothing");
    let log = daemon.stop().join("\n");
    assert_eq!(log.matches(r#""level":"ERROR""#).count(), 1, "told once: {log}");
    format!("{told}\n{log}")
}

#[test]
fn a_relay_that_nobody_vouches_for_gets_neither_password_nor_mail_and_one_line_says_what_to_do() {
    if !has_tools(&["python3", "aiosmtpd"]) {
        return;
    }
    let foreign = Foreign::start_secured(USERS);
    let said = needs_an_operator(&foreign);
    assert!(!foreign.mails.join("logins").exists(), "the password left the house");
    assert!(said.contains("UnknownIssuer") && said.contains("SSL_CERT_FILE"), "{said}");
}

#[test]
fn a_wrong_password_is_named_and_never_shown() {
    if !has_tools(&["python3", "aiosmtpd"]) {
        return;
    }
    let mut foreign = Foreign::start_secured(USERS);
    foreign.harness.set_variable("SSL_CERT_FILE", "relay.pem");
    foreign.harness.set_variable("RELAY_PASSWORD", "not-the-right-one");
    let connected = foreign.harness.run(&["check", "--connect"]);
    assert!(connected.code == 69 && connected.out.contains("535"), "{connected:?}");
    let said = needs_an_operator(&foreign) + &connected.out;
    assert!(said.contains("535") && said.contains("check relay.username and relay.password"), "{said}");
    assert!(!said.contains("not-the-right-one"));
}

#[test]
fn certificates_that_are_named_and_missing_keep_the_daemon_from_starting() {
    let mut harness = Harness::empty();
    harness.set_variable("SSL_CERT_FILE", "missing.pem");
    harness.set("FUNCTIONS__STATEMENT__MAIL__RELAY__TLS", "starttls");
    let said = harness.run(&["serve"]);
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains("missing.pem") && said.err.contains("SSL_CERT_FILE"), "{said:?}");
}
