//! Checks the syntax of text values: names, addresses, mailboxes, locales, templates.
//!
//! Pure. Each check returns what is wrong as a lowercase fragment that never repeats a credential.

use crate::base::limit::QUEUE_NAME_CHARS_MAX;
use crate::base::units;
use crate::queue::catalog::FIFO_SUFFIX;
use crate::store::record::BrakeLimit;

/// The largest share, in hundredths of a percent: ten times as many.
pub(super) const SHARE_MAX: u32 = 100_000;

/// A brake looks at no more recipients at once.
pub(super) const BRAKE_OF_MAX: u64 = 1_000_000;

/// A name by SQS's grammar for queues: as [`name`], and `.fifo` at the end of FIFO queues.
pub(super) fn queue_name(text: &str) -> Result<(), String> {
    match text.strip_suffix(FIFO_SUFFIX) {
        Some(stem) if text.len() <= QUEUE_NAME_CHARS_MAX => name(stem),
        _ => name(text),
    }
}

/// 1 to 80 of A-Z a-z 0-9 _ -.
pub(super) fn name(text: &str) -> Result<(), String> {
    let well_formed = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if well_formed && (1..=QUEUE_NAME_CHARS_MAX).contains(&text.len()) {
        return Ok(());
    }
    Err(format!("{:?} is not a name; use 1 to {QUEUE_NAME_CHARS_MAX} of A-Z a-z 0-9 _ -", start(text)))
}

/// A parameter's name: what minijinja can look up.
pub(super) fn parameter_name(text: &str) -> Result<(), String> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(format!("{:?} is not a parameter's name; use 1 to 64 of A-Z a-z 0-9 _, no digit first", start(text)))
}

/// The name of a header that the configuration may set.
pub(super) fn header_name(text: &str) -> Result<(), String> {
    const RESERVED: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "te", "upgrade"];
    if reqwest::header::HeaderName::from_bytes(text.as_bytes()).is_err() || text.contains('.') {
        return Err(format!("{:?} is not a header's name; use letters, digits and -", start(text)));
    }
    if RESERVED.contains(&text.to_ascii_lowercase().as_str()) {
        return Err("this header is set by the HTTP client; remove it".into());
    }
    Ok(())
}

/// Whether a header carries credentials by its name, so that a literal value is refused.
pub(super) fn is_credential_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "token", "secret", "key", "cookie", "password", "credential"].iter().any(|word| name.contains(word))
}

/// An address to listen on: names are not resolved, so that it is plain who can reach it.
pub(super) fn listen(text: &str) -> Result<(), String> {
    let refused =
        |_| format!("{:?} is not an address; write IP address and port, e.g. \"127.0.0.1:9324\"", start(text));
    text.parse::<std::net::SocketAddr>().map(drop).map_err(refused)
}

/// The number of an AWS account.
pub(super) fn account(text: &str) -> Result<(), String> {
    match text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!("{:?} is not an account's number; write 12 digits", start(text))),
    }
}

/// A share of at most [`SHARE_MAX`], or `off`.
pub(super) fn share_or_off(text: &str) -> Result<(), String> {
    match text {
        "off" => Ok(()),
        _ => match units::share(text) {
            Ok(share) if share <= SHARE_MAX => Ok(()),
            Ok(_) => Err(format!(
                "must be 0% to {}, or \"off\" (got {:?})",
                units::show_share(SHARE_MAX.into()),
                start(text)
            )),
            Err(error) => Err(format!("{error}, or \"off\"")),
        },
    }
}

/// A share of a number of recipients, as in `2% of 500`.
pub(super) fn brake(text: &str) -> Option<BrakeLimit> {
    let (share, of) = text.split_once(" of ")?;
    let (share, of) = (units::share(share).ok()?, of.trim().parse().ok()?);
    (share <= 10_000 && (1..=BRAKE_OF_MAX).contains(&of)).then_some(BrakeLimit { share, of })
}

/// The same, or `off`.
pub(super) fn brake_or_off(text: &str) -> Result<(), String> {
    if text == "off" || brake(text).is_some() {
        return Ok(());
    }
    let got = start(text);
    Err(format!("must be a share, at most 100%, of 1 to {BRAKE_OF_MAX}, e.g. \"2% of 500\", or \"off\" (got {got:?})"))
}

/// One line that is not empty and has no control characters.
pub(super) fn line(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".into());
    }
    Ok(())
}

/// An http or https address with placeholders in braces behind the host.
pub(super) fn url(text: &str) -> Result<(), String> {
    line(text)?;
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((placeholder, behind)) = after.split_once('}') else {
            return Err("a brace is open; write a placeholder as {name}".into());
        };
        parameter_name(placeholder).map_err(|_| "a placeholder must be a parameter's name, as in {period}")?;
        plain.push_str(before);
        plain.push('x');
        rest = behind;
    }
    plain.push_str(rest);
    if plain.contains('}') {
        return Err("a brace closes that was not open; write a placeholder as {name}".into());
    }
    let parsed =
        url::Url::parse(&plain).map_err(|error| format!("is not an address ({error}); write http://… or https://…"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("must start with http:// or https:// (got {:?})", parsed.scheme()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not hold a user or a password; set token or headers".into());
    }
    let authority = text.split("://").nth(1).unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('{') {
        return Err("the host must not come from data; write placeholders behind it only".into());
    }
    Ok(())
}

/// The placeholders of an address that [`url`] accepted.
pub(super) fn placeholders(url: &str) -> Vec<&str> {
    url.split('{').skip(1).filter_map(|part| part.split('}').next()).collect()
}

/// A mailbox with exactly one `@`; the mail builder checks the rest.
pub(super) fn mailbox(text: &str) -> Result<(), String> {
    line(text)?;
    let refused = |why: &str| Err(format!("{:?} is not a mailbox ({why}); write Name <local@domain>", start(text)));
    let address = match (text.split_once('<'), text.trim_end().strip_suffix('>')) {
        (Some((_, _)), Some(head)) => head.rsplit_once('<').map_or("", |(_, address)| address),
        (None, None) => text.trim(),
        _ => return refused("one angle bracket is missing"),
    };
    match address.split('@').collect::<Vec<_>>()[..] {
        [local, domain] if !local.is_empty() && host(domain).is_ok() => {
            if address.contains(char::is_whitespace) {
                refused("the address holds a space")
            } else {
                Ok(())
            }
        }
        [_, _] => refused("a side of the @ is empty or no host"),
        _ => refused("the address needs exactly one @"),
    }
}

/// A host name, an IPv4 or an IPv6 address.
pub(super) fn host(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        let inside = label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
        inside && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.trim_end_matches('.').split('.').all(label);
    if is_name || text.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("{:?} is not a host name or an IP address; give the port in its own key", start(text)))
}

/// A BCP 47 language tag, by its form.
pub(super) fn locale(text: &str) -> Result<(), String> {
    let mut parts = text.split('-');
    let language =
        parts.next().is_some_and(|p| (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
    if language && parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return Ok(());
    }
    Err(format!("{:?} is not a language tag; write it as in \"en-GB\" or \"de\"", start(text)))
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer(text: &str) -> Result<(), String> {
    let escapes = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if text.starts_with('/') && escapes {
        return Ok(());
    }
    Err(format!("{:?} is not a JSON pointer; write it as in \"/data/users\"", start(text)))
}

/// A time of day, as in `10:00`.
pub(super) fn time_of_day(text: &str) -> Result<jiff::civil::Time, String> {
    let number = |part: &str| part.parse::<i8>().ok().filter(|_| part.len() == 2 && part.is_ascii());
    let parsed = text.split_once(':').and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
    let time = parsed.and_then(|(hour, minute)| jiff::civil::Time::new(hour, minute, 0, 0).ok());
    time.ok_or_else(|| format!("{:?} is not a time of day; write hours and minutes, as in \"10:00\"", start(text)))
}

/// A log filter. A bare word must be a level: the filter's own parser takes a misspelt level for a target's name.
pub(super) fn log_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !is_level(level) {
            return Err(format!("{:?} is not a level ({})", start(level), LEVELS.join(", ")));
        }
    }
    let parsed = tracing_subscriber::EnvFilter::builder().parse(text);
    parsed
        .map(drop)
        .map_err(|error| format!("is not a log filter ({error}); write it as in \"info,nightmail::work=debug\""))
}

/// A minijinja template that uses only these variables.
pub(super) fn template(text: &str, roots: &[&str]) -> Result<(), String> {
    let environment = minijinja::Environment::new();
    let template = environment.template_from_str(text).map_err(|error| {
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("is not a template ({}{detail}, its line {})", error.kind(), error.line().unwrap_or(1))
    })?;
    let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
    let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    unknown.retain(|name| !roots.contains(&name.as_str()) && !globals.contains(&name.as_str()));
    unknown.sort_unstable();
    match unknown.first() {
        Some(name) => Err(format!("the template uses {name:?}, which is not set (known: {})", roots.join(", "))),
        None => Ok(()),
    }
}

/// The start of a text for a message.
pub(super) fn start(text: &str) -> String {
    text.chars().take(80).collect()
}
