//! `[api.sqs]` to [`sqs::Options`].

use std::collections::BTreeSet;

use super::values::Values;
use crate::api::sqs;

/// Builds the options of the SQS endpoint; `None` when it is off. `configured` are the queues of the file.
pub(super) fn sqs(values: &mut Values<'_>, configured: BTreeSet<String>) -> Option<sqs::Options> {
    let url = values.maybe_text("api.sqs.queue_url");
    if let Some(url) = &url {
        check_url(values, url);
    }
    let listen = values.maybe_text("api.sqs.listen")?.parse().ok()?;
    check_listen(values, listen);
    Some(sqs::Options {
        listen,
        region: values.text("api.sqs.region"),
        account: values.text("api.sqs.account_id"),
        url,
        access: sqs::Access::Anyone,
        configured,
    })
}

fn check_url(values: &mut Values<'_>, url: &str) {
    let parsed = url::Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if parsed.is_none_or(|url| url.path() != "/" || url.query().is_some() || !url.username().is_empty()) {
        let text = "must be a scheme and a host, e.g. \"https://sqs.bank.example\"";
        values.error_if_sound("api.sqs.queue_url", text);
    }
}

fn check_listen(values: &mut Values<'_>, listen: std::net::SocketAddr) {
    if !listen.ip().is_loopback() {
        let text = "must be a loopback address: signatures are not verified yet, so whoever reaches it may call";
        values.error("api.sqs.listen", format!("{text} (got {listen})"));
    }
}
