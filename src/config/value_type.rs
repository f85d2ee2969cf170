//! Checks one value against the type of its key: a TOML value becomes a typed value or an error.
//!
//! Pure; it opens no file and resolves no secret.

use std::time::Duration;

use secrecy::SecretString;

use super::document::{Node, Table};
use super::keys::ValueType;
use super::syntax;
use crate::base::units;

/// A value that fits the type of its key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Text of any kind, including words and paths.
    Text(String),
    /// A list of texts.
    Lines(Vec<String>),
    /// A span of time; `None` is for ever.
    Span(Option<Duration>),
    /// A number or a size in bytes.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// Where a secret is.
    Secret(Reference),
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub(super) enum Reference {
    /// In an environment variable.
    Env(String),
    /// In a file that only its owner reads.
    File(String),
    /// In systemd's credentials directory.
    Credential(String),
    /// In the file itself: a header that carries no credential. It is never shown either.
    Literal(SecretString),
}

/// How a secret is written.
const SECRET_FORMS: &str = "{ env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" }";

/// Checks one value. `name` is the key's last segment.
pub(super) fn check(value_type: ValueType, name: &str, node: &Node) -> Result<Value, String> {
    match value_type {
        ValueType::Count(min, max) => count(node, min, max),
        ValueType::Flag => flag(node),
        ValueType::Lines => lines(node),
        ValueType::Secret => secret(node),
        ValueType::Header => header(name, node),
        ValueType::Span(min, max) => span(of_text(node, "a duration with a unit, e.g. \"30s\"")?, min, max, ""),
        ValueType::SpanOrForever(min, max) => {
            match of_text(node, "a duration with a unit, e.g. \"4d\", or \"forever\"")? {
                "forever" => Ok(Value::Span(None)),
                text => span(text, min, max, ", or \"forever\""),
            }
        }
        ValueType::Size(min, max) => size(of_text(node, "a size with a unit, e.g. \"64MiB\"")?, min, max),
        _ => text(value_type, of_text(node, "a string")?),
    }
}

fn text(value_type: ValueType, text: &str) -> Result<Value, String> {
    match value_type {
        ValueType::Line | ValueType::Path => syntax::line(text)?,
        ValueType::Name => syntax::queue_name(text)?,
        ValueType::Url => syntax::url(text)?,
        ValueType::Mailbox => syntax::mailbox(text)?,
        ValueType::Host => syntax::host(text)?,
        ValueType::Listen => syntax::listen(text)?,
        ValueType::Account => syntax::account(text)?,
        ValueType::Locale => syntax::locale(text)?,
        ValueType::Pointer => syntax::pointer(text)?,
        ValueType::LogFilter => syntax::log_filter(text)?,
        ValueType::TimeOfDay => syntax::time_of_day(text).map(drop)?,
        ValueType::ShareOrOff => syntax::share_or_off(text)?,
        ValueType::BrakeOrOff => syntax::brake_or_off(text)?,
        ValueType::Template(roots) => syntax::template(text, roots)?,
        ValueType::LineTemplate(roots) => {
            syntax::line(text)?;
            syntax::template(text, roots)?;
        }
        ValueType::Choice(words) if !words.contains(&text) => {
            let got = syntax::start(text);
            return Err(format!("must be one of {} (got {got:?})", words.join(", ")));
        }
        _ => {}
    }
    Ok(Value::Text(text.into()))
}

fn of_text<'a>(node: &'a Node, wanted: &str) -> Result<&'a str, String> {
    node.as_text().ok_or_else(|| format!("must be {wanted} (got {})", node.type_name()))
}

fn flag(node: &Node) -> Result<Value, String> {
    match node {
        Node::Flag(flag) => Ok(Value::Flag(*flag)),
        other => Err(format!("must be true or false (got {})", other.type_name())),
    }
}

fn count(node: &Node, min: u64, max: u64) -> Result<Value, String> {
    match node {
        Node::Integer(Some(number)) => match u64::try_from(*number) {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Count(number)),
            _ => Err(format!("must be {min} to {max} (got {number})")),
        },
        Node::Integer(None) => Err(format!("must be {min} to {max} (got a number beyond 64 bits)")),
        other => Err(format!("must be a whole number from {min} to {max} (got {})", other.type_name())),
    }
}

/// `or` names what else is allowed.
fn span(text: &str, min: Duration, max: Duration, or: &str) -> Result<Value, String> {
    let span = units::duration(text).map_err(|error| format!("{error}{or}"))?;
    if (min..=max).contains(&span) {
        return Ok(Value::Span(Some(span)));
    }
    Err(format!("must be {} to {}{or} (got {:?})", show_span(min), show_span(max), syntax::start(text)))
}

/// A span of time as people write it in a configuration: whole days from two on, else as elsewhere.
pub(super) fn show_span(span: Duration) -> String {
    let days = span.as_secs() / 86_400;
    if days >= 2 && span == Duration::from_secs(days * 86_400) {
        format!("{days}d")
    } else {
        units::show_duration(span)
    }
}

fn size(text: &str, min: u64, max: u64) -> Result<Value, String> {
    let bytes = units::size(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&bytes) {
        return Ok(Value::Count(bytes));
    }
    let (min, max) = (units::show_size(min), units::show_size(max));
    Err(format!("must be {min} to {max} (got {:?})", syntax::start(text)))
}

fn lines(node: &Node) -> Result<Value, String> {
    let refused = |got: &Node| format!("must be an array of strings (got {})", got.type_name());
    let Node::Array(items) = node else { return Err(refused(node)) };
    let line = |item: &Node| {
        let Some(text) = item.as_text() else { return Err(format!("{} among others", refused(item))) };
        syntax::line(text).map(|()| text.to_owned())
    };
    items.iter().map(line).collect::<Result<Vec<_>, _>>().map(Value::Lines)
}

fn secret(node: &Node) -> Result<Value, String> {
    match node {
        Node::Table(table) => reference(table).map(Value::Secret),
        Node::Text(_) => Err(format!("a secret must not stand in the configuration; write {SECRET_FORMS}")),
        other => Err(format!("must be {SECRET_FORMS} (got {})", other.type_name())),
    }
}

fn header(name: &str, node: &Node) -> Result<Value, String> {
    syntax::header_name(name)?;
    match node {
        Node::Text(_) if syntax::is_credential_header(name) => secret(node),
        Node::Text(text) => {
            let fits = reqwest::header::HeaderValue::from_str(text).is_ok();
            let value = Value::Secret(Reference::Literal(text.clone().into()));
            fits.then_some(value).ok_or_else(|| "must be one line of visible ASCII".into())
        }
        Node::Table(table) => reference(table).map(Value::Secret),
        other => Err(format!("must be a string or {SECRET_FORMS} (got {})", other.type_name())),
    }
}

/// Reads `{ env = … }` and the like. An error does not repeat another value found there: it may be the secret.
fn reference(table: &Table) -> Result<Reference, String> {
    let mut entries = table.iter();
    let (Some((form, item)), None) = (entries.next(), entries.next()) else {
        return Err(format!("must be exactly one of {SECRET_FORMS}"));
    };
    let Some(text) = item.node.as_text().filter(|text| syntax::line(text).is_ok()) else {
        return Err(format!("must be {SECRET_FORMS}"));
    };
    match form.as_str() {
        "env" if syntax::parameter_name(text).is_err() => {
            Err("env must be a variable's name (A-Z a-z 0-9 _), not its value".into())
        }
        "env" => Ok(Reference::Env(text.into())),
        "file" => Ok(Reference::File(text.into())),
        "credential" if text.contains('/') || text.starts_with('.') => {
            Err("credential must be a name, without a path; use { file = \"/path\" } for a file".into())
        }
        "credential" => Ok(Reference::Credential(text.into())),
        _ => Err(format!("must be {SECRET_FORMS}")),
    }
}
