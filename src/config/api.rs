//! `[api.sqs]` to [`sqs::Options`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::validate::segment;
use super::values::Values;
use crate::api::sqs::{Access, AccessKey, Options, TlsOptions};

/// Access key ids have at most this many characters.
const ID_CHARS_MAX: usize = 128;

/// Builds the options of the SQS endpoint; `None` when it is off. `configured` are the queues of the file.
pub(super) fn sqs(values: &mut Values<'_>, configured: BTreeSet<String>) -> Option<Options> {
    let url = values.maybe_text("api.sqs.queue_url");
    if let Some(url) = &url {
        check_url(values, url);
    }
    let keys = keys(values);
    let listen = values.maybe_text("api.sqs.listen")?.parse().ok()?;
    let access = access(values, listen, keys);
    let tls = tls(values, listen);
    let (region, account) = (values.text("api.sqs.region"), values.text("api.sqs.account_id"));
    let requests_per_second = NonZeroU32::new(values.count("api.sqs.requests_per_second"));
    Some(Options { listen, tls, region, account, url, access, requests_per_second, configured })
}

fn check_url(values: &mut Values<'_>, url: &str) {
    let parsed = url::Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if parsed.is_none_or(|url| url.path() != "/" || url.query().is_some() || !url.username().is_empty()) {
        let text = "must be a scheme and a host, e.g. \"https://sqs.bank.example\"";
        values.error_if_sound("api.sqs.queue_url", text);
    }
}

fn access(values: &mut Values<'_>, listen: SocketAddr, keys: Vec<AccessKey>) -> Access {
    if values.text("api.sqs.auth") != "none" {
        if keys.is_empty() {
            let text = "needs keys: add [api.sqs.keys.<name>] with id and secret, or, on a loopback address, set auth = \"none\"";
            values.error_if_sound("api.sqs.listen", text);
        }
        return Access::Keys(keys);
    }
    if !listen.ip().is_loopback() {
        let text =
            format!("\"none\" goes with a loopback address alone (listen is {listen}); add [api.sqs.keys.<name>]");
        values.error("api.sqs.auth", text);
    }
    Access::Anyone
}

fn tls(values: &mut Values<'_>, listen: SocketAddr) -> Option<TlsOptions> {
    let (certificate, key) = ("api.sqs.tls.certificate", "api.sqs.tls.key");
    match (values.is_set(certificate), values.is_set(key)) {
        (true, false) => values.error(certificate, "needs key beside it"),
        (false, true) => values.error(key, "needs certificate beside it"),
        (false, false) if !listen.ip().is_loopback() => {
            let text = "messages cross the network in plain text; set api.sqs.tls, or let a proxy speak TLS";
            values.warning("api.sqs.listen", text);
        }
        _ => {}
    }
    let (certificate, key) = (values.path(certificate)?, values.path(key)?);
    Some(TlsOptions { certificate, key })
}

fn keys(values: &mut Values<'_>) -> Vec<AccessKey> {
    let mut keys: Vec<AccessKey> = Vec::new();
    for name in values.found.names("api.sqs.keys") {
        let at = |key: &str| format!("api.sqs.keys.{}.{key}", segment(&name));
        let id = values.text(&at("id"));
        let is_word = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word || id.len() > ID_CHARS_MAX {
            values.error_if_sound(&at("id"), format!("must be 1 to {ID_CHARS_MAX} of A-Z a-z 0-9 _"));
        } else if let Some(other) = keys.iter().find(|other| other.id == id) {
            values.error_if_sound(
                &at("id"),
                format!("is the id of api.sqs.keys.{} too; give each key its own", other.name),
            );
        }
        let (queues, actions) = (values.lines(&at("queues")), values.lines(&at("actions")));
        // Without secrets, commands that do not serve get by.
        let secret = values.secret(&at("secret")).unwrap_or_default();
        keys.push(AccessKey { name, id, secret, queues, actions });
    }
    keys
}
