//! `[functions.<name>.mail]` to [`MailOptions`].

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::syntax;
use super::validate::segment;
use super::values::Values;
use crate::base::units::show_duration;
use crate::function::statement::{DialogueLimits, DomainLimits, MailOptions, RelayOptions, SuppressOn, Tls};
use crate::work::options::ATTEMPT_MAX;

/// Builds what one `statement` function mails with; `at` is the function's path.
pub(super) fn build(values: &mut Values<'_>, at: &str) -> MailOptions {
    let mail = format!("{at}.mail");
    let from = values.text(&format!("{mail}.from"));
    let domain = format!("{mail}.message_id_domain");
    let message_id_domain = values.maybe_text(&domain);
    if message_id_domain.is_none() {
        let of_from = from.rsplit('@').next().unwrap_or_default().trim_end_matches('>').trim();
        values.note(&domain, of_from);
    }
    MailOptions {
        relay: relay(values, at, &format!("{mail}.relay")),
        from,
        reply_to: values.maybe_text(&format!("{mail}.reply_to")),
        message_id_domain,
        subject: values.text(&format!("{mail}.subject")),
        text: body(values, &mail, "text"),
        html: body(values, &mail, "html"),
        attachment_name: values.text(&format!("{mail}.attachment_name")),
        suppress_on: match values.text(&format!("{mail}.suppress_on")).as_str() {
            "hard-bounce" => SuppressOn::HardBounce,
            _ => SuppressOn::Never,
        },
    }
}

/// A body that stands in the file or in a file of its own.
fn body(values: &mut Values<'_>, mail: &str, key: &str) -> String {
    let (inline, file) = (format!("{mail}.{key}"), format!("{mail}.{key}_file"));
    if values.is_set(&inline) && values.is_set(&file) {
        values.error(&file, format!("stands beside {key}; keep one of the two"));
        return String::new();
    }
    if !values.is_set(&file) {
        return values.text(&inline);
    }
    let text = values.template_file(&file).unwrap_or_default();
    if let Err(why) = syntax::template(&text, super::schema::MAIL) {
        values.error(&file, format!("the file's text {why}"));
    }
    text
}

fn relay(values: &mut Values<'_>, at: &str, relay: &str) -> RelayOptions {
    let (tls, port) = match values.text(&format!("{relay}.tls")).as_str() {
        "none" => (Tls::None, 25),
        "implicit" => (Tls::Implicit, 465),
        _ => (Tls::StartTls, 587),
    };
    let port_path = format!("{relay}.port");
    values.note_count(&port_path, port);
    let host = values.text(&format!("{relay}.host"));
    check_rate(values, at, relay);
    let helo_path = format!("{relay}.helo");
    values.note(&helo_path, &host_name());
    RelayOptions {
        port: values.count(&port_path),
        tls,
        credentials: credentials(values, relay, tls, &host),
        connections: values.count(&format!("{relay}.connections")),
        per_second: NonZeroU32::new(values.count(&format!("{relay}.per_second"))),
        per_day: values.maybe_count(&format!("{relay}.per_day")),
        domains: domains(values, relay),
        limits: limits(values, at, relay),
        idle_max: values.span(&format!("{relay}.idle_max")),
        mails_per_connection: values.count(&format!("{relay}.mails_per_connection")),
        helo: values.text(&helo_path),
        host,
    }
}

/// What recipient domains are given.
fn domains(values: &mut Values<'_>, relay: &str) -> BTreeMap<String, DomainLimits> {
    let (mut domains, all) = (BTreeMap::new(), values.count::<usize>(&format!("{relay}.connections")));
    for name in values.found.names(&format!("{relay}.domains")) {
        let at = format!("{relay}.domains.{}", segment(&name));
        let (rate, connections) = (format!("{at}.per_second"), format!("{at}.connections"));
        let limits = DomainLimits {
            per_second: values.maybe_count(&rate).and_then(|rate| NonZeroU32::new(u32::try_from(rate).ok()?)),
            connections: values.maybe_count(&connections).and_then(|count| usize::try_from(count).ok()),
        };
        if limits.connections.is_some_and(|count| count > all) {
            values.warning(
                &connections,
                format!("is more than the relay's connections ({all}), which hold for all of its mails"),
            );
        }
        if let Some(other) = domains.insert(name.to_ascii_lowercase(), limits).map(|_| name.to_ascii_lowercase()) {
            values.error(&at, format!("names {other:?} a second time; domains are the same in upper and lower case"));
        }
    }
    domains
}

/// Attempts that would wait longer for their turn than they may take go back to the queue, and what they fetched was in vain.
fn check_rate(values: &mut Values<'_>, at: &str, relay: &str) {
    let path = format!("{relay}.per_second");
    let Some(rate) = values.maybe_count(&path) else { return };
    let (at_once, timeout) = (values.count::<u64>(&format!("{at}.concurrency")), values.span(&format!("{at}.timeout")));
    let turns = timeout.as_secs().saturating_mul(rate);
    if turns < at_once {
        let text = format!(
            "gives {turns} turns within timeout ({}), fewer than concurrency ({at_once}): lower that, or raise timeout",
            show_duration(timeout)
        );
        values.warning(&path, text);
    }
}

/// The limits of a dialogue's steps. An attempt may take as long as their sum beyond its timeout, and its message's
/// lease must outlast it, else a slow relay would get the mail twice.
fn limits(values: &mut Values<'_>, at: &str, relay: &str) -> DialogueLimits {
    let keys = ["connect", "greeting", "command", "data", "body_piece", "body", "end_of_data"]
        .map(|step| format!("{relay}.{step}_timeout"));
    let [connect, greeting, command, data, body_piece, body, end_of_data] = keys.each_ref().map(|key| values.span(key));
    let limits = DialogueLimits { connect, greeting, command, data, body_piece, body, end_of_data };
    let (timeout, dialogue) = (format!("{at}.timeout"), limits.dialogue_max());
    if values.span(&timeout).saturating_add(dialogue) > ATTEMPT_MAX {
        let (longest, most) = (show_duration(dialogue), show_duration(ATTEMPT_MAX));
        let text = format!(
            "with a mail's dialogue, whose limits add up to {longest}, an attempt could outlast its message's lease \
             (at most {most} together): lower it, or the limits of {relay}"
        );
        let blamed = keys.iter().find(|key| values.is_set(key)).filter(|_| !values.is_set(&timeout));
        values.error(&blamed.cloned().unwrap_or(timeout), text);
    }
    if body_piece > body {
        let (piece, body) = (show_duration(body_piece), show_duration(body));
        let text = format!("is longer ({piece}) than body_timeout ({body}), which then ends a piece first");
        values.warning(&format!("{relay}.body_piece_timeout"), text);
    }
    limits
}

fn credentials(values: &mut Values<'_>, relay: &str, tls: Tls, host: &str) -> Option<(String, secrecy::SecretString)> {
    let (username, password) = (format!("{relay}.username"), format!("{relay}.password"));
    match (values.is_set(&username), values.is_set(&password)) {
        (true, false) => values.error(&username, "needs password beside it"),
        (false, true) => values.error(&password, "needs username beside it"),
        (true, true) if tls == Tls::None && !is_loopback(host) => values.warning(
            &password,
            format!(
                "crosses the network in plain text: tls is \"none\" and host {host:?} is not this machine; set tls"
            ),
        ),
        _ => {}
    }
    let secret = values.secret(&password);
    values.maybe_text(&username).zip(secret)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The machine's host name as the kernel tells it.
fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = told.trim();
    if syntax::host(name).is_ok() { name.into() } else { "localhost".into() }
}
