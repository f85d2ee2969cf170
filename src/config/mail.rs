//! `[functions.<name>.mail]` to [`MailOptions`].

use super::syntax;
use super::values::Values;
use crate::base::units::show_duration;
use crate::function::statement::{MailOptions, RelayOptions, Tls};

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
    let helo_path = format!("{relay}.helo");
    values.note(&helo_path, &host_name());
    let options = RelayOptions {
        port: values.count(&port_path),
        tls,
        credentials: credentials(values, relay, tls, &host),
        connections: values.count(&format!("{relay}.connections")),
        connect_timeout: values.span(&format!("{relay}.connect_timeout")),
        command_timeout: values.span(&format!("{relay}.command_timeout")),
        idle_max: values.span(&format!("{relay}.idle_max")),
        mails_per_connection: values.count(&format!("{relay}.mails_per_connection")),
        helo: values.text(&helo_path),
        host,
    };
    let (reply, timeout) = (options.command_timeout.saturating_mul(2), values.span(&format!("{at}.timeout")));
    if reply > timeout {
        let (reply, timeout) = (show_duration(reply), show_duration(timeout));
        values.warning(
            &format!("{relay}.command_timeout"),
            format!("the final reply may take {reply}, but {at}.timeout ends the attempt after {timeout}: such mails end as unknown"),
        );
    }
    options
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
