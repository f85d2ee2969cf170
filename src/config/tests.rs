//! The promises of the config module, tested through its public interface.

mod access;
mod example;
mod faults;
mod secrets;
mod sections;
mod variables;

use std::path::Path;

use super::{Environment, Errors, Settings, load_text};

/// A configuration in which everything that is required is set, and nothing else.
const SMALL: &str = r#"
[queues.out]
[queues.work]
dead_letter_queue = "dead"
max_receive_count = 3
[queues.dead]
[functions.spread]
kind = "fan-out"
queue = "out"
target = "work"
[functions.spread.users]
url = "https://bank.example/users"
[functions.letter]
kind = "statement"
queue = "work"
[functions.letter.account]
url = "https://bank.example/accounts/{account_id}"
[functions.letter.document]
issuer = "Bank"
[functions.letter.mail]
from = "statements@bank.example"
[functions.letter.mail.relay]
host = "relay.bank.example"
[schedules.monthly]
cron = "0 2 1 * *"
function = "spread"
"#;

fn load_with(text: &str, environment: &Environment) -> Result<Settings, Errors> {
    load_text("config.toml", Path::new(""), text, environment)
}

fn load(text: &str) -> Result<Settings, Errors> {
    load_with(text, &Environment::default())
}

/// The faults without their excerpts.
fn faults(text: &str) -> Vec<String> {
    let Err(errors) = load(text) else { panic!("must be refused:\n{text}") };
    errors.0.iter().map(|finding| finding.to_string().lines().next().unwrap().to_owned()).collect()
}

/// The one fault of the small configuration after a change.
fn fault_of(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from:?} is not in the small configuration");
    let list = faults(&SMALL.replacen(from, to, 1));
    assert_eq!(list.len(), 1, "{list:#?}");
    list[0].clone()
}

#[test]
fn the_small_configuration_is_accepted() {
    let settings = load(SMALL).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(settings.functions.len(), 2);
}
