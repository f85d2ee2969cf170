//! `[api.sqs]`: who may call, how often, and over what.

use secrecy::ExposeSecret;

use super::super::{Environment, Errors, Finding, Settings};
use super::{faults, load, load_with};
use crate::api::sqs::{Access, Options};

const KEY: &str = "[api.sqs.keys.billing]\nid = \"AKIABILLING\"\nsecret = { env = \"BILLING_SECRET\" }\n";

fn with_secret(text: &str) -> Result<Settings, Errors> {
    let environment = Environment::from_iter([("BILLING_SECRET", "s3cret")]);
    load_with(text, &environment)
}

fn options(text: &str) -> Options {
    with_secret(text).unwrap_or_else(|errors| panic!("{errors}")).sqs.expect("it has an address")
}

#[test]
fn the_endpoint_is_off_until_it_has_an_address() {
    assert!(load("").unwrap().sqs.is_none());
    assert!(with_secret(KEY).unwrap().sqs.is_none());
}

#[test]
fn a_key_is_good_for_everything_unless_its_patterns_say_less() {
    let listen = "[api.sqs]\nlisten = \"127.0.0.1:9324\"\n";
    let Access::Keys(keys) = options(&format!("{listen}{KEY}")).access else { panic!("there are keys") };
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((key.name.as_str(), key.id.as_str()), ("billing", "AKIABILLING"));
    assert_eq!(key.secret.expose_secret(), "s3cret");
    assert_eq!((key.queues.as_slice(), key.actions.as_slice()), (&["*".to_owned()][..], &["*".to_owned()][..]));
    let limited = format!("{listen}{KEY}queues = [\"orders-*\"]\nactions = [\"Send*\"]\n");
    let Access::Keys(keys) = options(&limited).access else { panic!("there are keys") };
    assert_eq!(
        (keys[0].queues.as_slice(), keys[0].actions.as_slice()),
        (&["orders-*".into()][..], &["Send*".into()][..])
    );
}

#[test]
fn an_endpoint_without_keys_or_beyond_the_loopback_without_signatures_is_refused() {
    let list = faults("[api.sqs]\nlisten = \"127.0.0.1:9324\"");
    assert!(list.len() == 1 && list[0].contains("needs keys"), "{list:?}");
    let list = faults("[api.sqs]\nlisten = \"0.0.0.0:9324\"\nauth = \"none\"");
    assert!(list.len() == 1 && list[0].contains("goes with a loopback address alone"), "{list:?}");
    assert!(matches!(options("[api.sqs]\nlisten = \"[::1]:0\"\nauth = \"none\"").access, Access::Anyone));
}

#[test]
fn keys_have_ids_of_their_own_and_of_letters_that_clients_send() {
    let twice = format!("{KEY}[api.sqs.keys.other]\nid = \"AKIABILLING\"\nsecret = {{ env = \"BILLING_SECRET\" }}\n");
    let list = faults(&twice);
    assert!(list.iter().any(|fault| fault.contains("is the id of api.sqs.keys.billing too")), "{list:?}");
    let list = faults("[api.sqs.keys.a]\nid = \"A/B\"\nsecret = { env = \"S\" }");
    assert!(list.iter().any(|fault| fault.contains("must be 1 to 128 of A-Z a-z 0-9 _")), "{list:?}");
    let list = faults("[api.sqs.keys.a]\nid = \"AB\"\nsecret = \"literal\"");
    assert!(list.iter().any(|fault| fault.contains("secret")), "{list:?}");
}

#[test]
fn tls_needs_both_files_and_its_absence_beyond_the_loopback_is_told() {
    let with = |lines: &str| format!("[api.sqs]\nlisten = \"0.0.0.0:9324\"\n{lines}\n{KEY}");
    let refused = |lines: &str| with_secret(&with(lines)).unwrap_err().to_string();
    assert!(refused("tls.certificate = \"a.pem\"").contains("needs key beside it"));
    assert!(refused("tls.key = \"a.key\"").contains("needs certificate beside it"));
    let tls = options(&with("tls.certificate = \"a.pem\"\ntls.key = \"a.key\"")).tls.expect("both are set");
    assert!(tls.certificate.ends_with("a.pem") && tls.key.ends_with("a.key"), "{tls:?}");
    let settings = with_secret(&with("")).unwrap();
    let told = |finding: &Finding| finding.text.contains("in plain text");
    assert!(settings.warnings.iter().any(told), "{:?}", settings.warnings);
}

#[test]
fn a_limit_of_requests_is_at_least_one_in_a_second() {
    let with = |lines: &str| format!("[api.sqs]\nlisten = \"127.0.0.1:9324\"\nauth = \"none\"\n{lines}");
    assert_eq!(options(&with("")).requests_per_second, None);
    assert_eq!(options(&with("requests_per_second = 50")).requests_per_second.map(u32::from), Some(50));
    assert_eq!(faults(&with("requests_per_second = 0")).len(), 1);
}

#[test]
fn queue_urls_begin_with_a_scheme_and_a_host() {
    let with = |url: &str| format!("[api.sqs]\nqueue_url = \"{url}\"");
    assert!(load(&with("https://sqs.bank.example")).is_ok());
    for url in
        ["sqs.bank.example", "ftp://sqs.bank.example", "https://sqs.bank.example/queues", "https://me@sqs.bank.example"]
    {
        let list = faults(&with(url));
        assert!(list.len() == 1 && list[0].contains("must be a scheme and a host"), "{list:?}");
    }
}
