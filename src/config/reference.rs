//! The reference table of all keys, as `docs/config.md` holds it.

use std::fmt::Write;

use super::keys::{Fallback, Key, Scope, ValueType};
use super::schema::KEYS;
use super::syntax::{BRAKE_OF_MAX, SHARE_MAX};
use super::value_type::show_span;
use crate::base::units::{show_share, show_size};

/// One Markdown table for each section of the configuration, made from the list of keys.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in KEYS {
        let (above, name) = split(key);
        if section.as_ref() != Some(&above) {
            let title = if above.is_empty() { "Top level".into() } else { format!("`[{above}]`") };
            let _ = write!(
                text,
                "\n### {title}\n\n| key | type | default | limits | meaning |\n| --- | --- | --- | --- | --- |\n"
            );
            section = Some(above);
        }
        let (value_type, limits) = value_type(key.value_type);
        let only = match key.scope {
            Scope::All => "",
            Scope::FanOut => " (fan-out)",
            Scope::Statement => " (statement)",
        };
        let _ = writeln!(
            text,
            "| `{name}`{only} | {value_type} | {} | {limits} | {} |",
            fallback(key.fallback),
            key.meaning
        );
    }
    text
}

/// The section and the key's name in it; `backoff` belongs to the section above it.
fn split(key: &Key) -> (String, String) {
    let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
    let (above, name) = match above.rsplit_once('.') {
        Some((section, inner @ ("backoff" | "headers" | "params"))) => (section, format!("{inner}.{name}")),
        _ => (above, name.to_owned()),
    };
    (above.replace('*', "<name>"), name.replace('*', "<name>"))
}

fn fallback(fallback: Fallback) -> String {
    match fallback {
        Fallback::Required => "**required**".into(),
        Fallback::Nothing => "none".into(),
        Fallback::Toml(text) => format!("`{text}`"),
        Fallback::Example => "the text in `config.toml`".into(),
        Fallback::Told(words) => words.into(),
    }
}

/// The type's name and its limits.
fn value_type(value_type: ValueType) -> (&'static str, String) {
    let uses = |roots: &[&str]| format!("variables: {}", roots.join(", "));
    match value_type {
        ValueType::Text => ("string", "any text".into()),
        ValueType::Line => ("string", "one line, not empty".into()),
        ValueType::Name => ("name", "1 to 80 of A-Z a-z 0-9 _ -, .fifo at the end of FIFO queues".into()),
        ValueType::Path => ("path", "one line, not empty".into()),
        ValueType::Span(min, max) => ("duration", format!("{} to {}", show_span(min), show_span(max))),
        ValueType::SpanOrForever(min, max) => {
            ("duration", format!("{} to {}, or \"forever\"", show_span(min), show_span(max)))
        }
        ValueType::Size(min, max) => ("size", format!("{} to {}", show_size(min), show_size(max))),
        ValueType::Count(min, max) => ("integer", format!("{min} to {max}")),
        ValueType::ShareOrOff => ("share", format!("0% to {}, or \"off\"", show_share(SHARE_MAX.into()))),
        ValueType::BrakeOrOff => ("share of a number", format!("at most 100% of 1 to {BRAKE_OF_MAX}, or \"off\"")),
        ValueType::Choice(words) => ("word", words.join(", ")),
        ValueType::Flag => ("boolean", "true, false".into()),
        ValueType::Lines => ("array of strings", "one line each".into()),
        ValueType::Url => ("URL template", "http or https; no placeholder in the host, no user or password".into()),
        ValueType::Mailbox => ("mailbox", "exactly one @".into()),
        ValueType::Host => ("host", "a host name or an IP address".into()),
        ValueType::Listen => ("address", "an IP address and a port; port 0 takes a free one".into()),
        ValueType::Account => ("account number", "12 digits".into()),
        ValueType::Locale => ("language tag", "BCP 47".into()),
        ValueType::Pointer => ("JSON pointer", "starts with /".into()),
        ValueType::TimeOfDay => ("time of day", "00:00 to 23:59".into()),
        ValueType::LogFilter => ("log filter", "off, error, warn, info, debug, trace".into()),
        ValueType::LineTemplate(roots) => ("template", format!("one line; {}", uses(roots))),
        ValueType::Template(roots) => ("template", uses(roots)),
        ValueType::Secret => ("secret", "a reference, never a literal".into()),
        ValueType::Header => ("string or secret", "visible ASCII, 1 line".into()),
    }
}
