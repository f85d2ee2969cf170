//! A TOML document as a tree in which every key and every value has its location in the source.
//!
//! Knows only TOML, not the meaning of any key.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::Location;

/// A table.
pub(super) type Table = BTreeMap<String, Item>;

/// One entry of a table.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Where the key is.
    pub(super) key: Location,
    /// Where the value is.
    pub(super) location: Location,
    /// The value.
    pub(super) node: Node,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A string.
    Text(String),
    /// An integer; `None` when it does not fit 64 bits.
    Integer(Option<i64>),
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
    /// A boolean.
    Flag(bool),
    /// A type that no key accepts: a float or a date, named with its article.
    Other(&'static str),
}

impl Node {
    /// The type's name with its article, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Flag(_) => "a boolean",
            Self::Other(name) => name,
        }
    }

    /// The value of an environment variable: TOML where it reads as TOML, a string otherwise.
    pub(super) fn of_variable(text: &str) -> Self {
        match DeValue::parse(text.trim()) {
            Ok(value) => node(value.into_inner(), &|_| Location::Nowhere),
            Err(_) => Self::Text(text.into()),
        }
    }

    /// The table inside.
    pub(super) fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The string inside.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads a document.
///
/// # Errors
/// Every syntax error: its byte range and what is wrong.
pub(super) fn parse(text: &str) -> Result<Table, Vec<(std::ops::Range<usize>, String)>> {
    let (document, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        let told = |fault: &toml::de::Error| (fault.span().unwrap_or(0..0), fault.message().to_owned());
        return Err(faults.iter().map(told).collect());
    }
    Ok(table(document.into_inner(), &Location::Span))
}

fn table(entries: DeTable<'_>, location: &dyn Fn(std::ops::Range<usize>) -> Location) -> Table {
    let item = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
        let item = Item {
            key: location(key.span()),
            location: location(value.span()),
            node: node(value.into_inner(), location),
        };
        (key.into_inner().into_owned(), item)
    };
    entries.into_iter().map(item).collect()
}

fn node(value: DeValue<'_>, location: &dyn Fn(std::ops::Range<usize>) -> Location) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.into_owned()),
        DeValue::Integer(number) => Node::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Array(items) => Node::Array(items.into_iter().map(|item| node(item.into_inner(), location)).collect()),
        DeValue::Table(entries) => Node::Table(table(entries, location)),
        DeValue::Float(_) => Node::Other("a float"),
        DeValue::Boolean(flag) => Node::Flag(flag),
        DeValue::Datetime(_) => Node::Other("a date"),
    }
}
