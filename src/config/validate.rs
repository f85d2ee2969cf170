//! Validates a document: known keys with checked values. Unknown, misplaced and missing keys are reported.
//!
//! Driven by the list of keys. The only key it knows by name is a function's `kind`, which decides its other keys.

use std::collections::BTreeMap;

use super::document::{Item, Node, Table};
use super::finding::{Report, nearest};
use super::keys::{Fallback, Key, Scope, ValueType, segments};
use super::schema::KEYS;
use super::source::Location;
use super::syntax;
use super::value_type::{self, Reference, Value};

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// The value; `None` when it was reported as wrong.
    pub(super) value: Option<Value>,
    /// Where the value is.
    pub(super) location: Location,
    /// The value in TOML, without secrets.
    pub(super) shown: String,
}

/// What a document holds, defaults included.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Keys by their paths.
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// Where each table's key is, by its path.
    pub(super) sections: BTreeMap<String, Location>,
}

impl Found {
    /// The names below a section such as `queues`.
    pub(super) fn names(&self, section: &str) -> Vec<String> {
        let below = |path: &String| only_segment(path.strip_prefix(section)?.strip_prefix('.')?);
        self.sections.keys().chain(self.leaves.keys()).filter_map(below).collect()
    }

    /// Where a key is; for a key that is not set, where its section is.
    pub(super) fn location(&self, path: &str) -> Location {
        if let Some(leaf) = self.leaves.get(path).filter(|leaf| leaf.location != Location::Nowhere) {
            return leaf.location.clone();
        }
        let mut rest = path;
        loop {
            if let Some(location) = self.sections.get(rest) {
                return location.clone();
            }
            match rest.rsplit_once('.') {
                Some((above, _)) => rest = above,
                None => return Location::Nowhere,
            }
        }
    }
}

/// Reads a document.
pub(super) fn validate(document: &Table, example: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Found {
    let mut found = Found::default();
    Validator { report, found: &mut found }.table(&[], &[], document, None);
    for key in KEYS {
        for path in expand(&segments(key.path), document) {
            if has(document, &path, key.scope) {
                fall_back(key, &joined(&path), &mut found, example, report);
            }
        }
    }
    found
}

/// The paths that a key has in a document: `*` becomes each name that the document gives.
pub(super) fn expand(pattern: &[&str], document: &Table) -> Vec<Vec<String>> {
    let mut paths: Vec<(Vec<String>, Option<&Table>)> = vec![(Vec::new(), Some(document))];
    for segment in pattern {
        let mut longer = Vec::new();
        for (path, table) in paths {
            let names: Vec<&str> = match (*segment, table) {
                ("*", Some(table)) => table.keys().map(String::as_str).collect(),
                ("*", None) => Vec::new(),
                (fixed, _) => vec![fixed],
            };
            for name in names {
                let below = table.and_then(|table| table.get(name)).and_then(|item| item.node.as_table());
                let path = path.iter().map(String::as_str).chain([name]).map(str::to_owned).collect();
                longer.push((path, below));
            }
        }
        paths = longer;
    }
    paths.into_iter().map(|(path, _)| path).collect()
}

/// Whether the key of this scope is one that the document's function at a path has.
fn has(document: &Table, path: &[String], scope: Scope) -> bool {
    let named =
        |table: &Table| path.get(1).is_some_and(|name| table.get(name).is_some_and(|i| i.node.as_table().is_some()));
    match path.first().map(String::as_str) {
        Some(section @ ("queues" | "schedules" | "functions")) => {
            let is_table = document.get(section).and_then(|item| item.node.as_table()).is_some_and(named);
            is_table && (scope == Scope::All || kind(document, path) == Some(scope))
        }
        _ => true,
    }
}

fn kind(document: &Table, path: &[String]) -> Option<Scope> {
    let function = document.get("functions")?.node.as_table()?.get(path.get(1)?)?.node.as_table()?;
    Scope::of_kind(function.get("kind")?.node.as_text()?)
}

fn fall_back(
    key: &'static Key,
    path: &str,
    found: &mut Found,
    example: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) {
    let replaced = found.leaves.contains_key(&format!("{path}_file")); // `text_file` replaces `text`.
    if replaced || found.leaves.contains_key(path) {
        return;
    }
    let node = match key.fallback {
        Fallback::Required => {
            let name = path.rsplit('.').next().unwrap_or(path);
            return report.error(&found.location(path), path, format!("missing; add {name} = \"…\""));
        }
        Fallback::Nothing | Fallback::Told(_) => return,
        Fallback::Toml(text) => Node::of_variable(text),
        Fallback::Example => Node::Text(example(key.path).unwrap_or_default()),
    };
    let name = path.rsplit('.').next().unwrap_or(path);
    let value = value_type::check(key.value_type, name, &node).ok();
    found.leaves.insert(path.into(), Leaf { value, location: Location::Nowhere, shown: show(key.value_type, &node) });
}

struct Validator<'a> {
    report: &'a mut Report,
    found: &'a mut Found,
}

impl Validator<'_> {
    fn table(&mut self, path: &[&str], pattern: &[&str], table: &Table, mut scope: Option<Scope>) {
        if pattern == ["functions", "*"] {
            scope = table.get("kind").and_then(|item| item.node.as_text()).and_then(Scope::of_kind);
        }
        let known = below(pattern, scope);
        for (name, item) in table {
            let segment = if known.contains(&name.as_str()) { name.as_str() } else { "*" };
            let below: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            if segment == "*" && !known.contains(&"*") {
                self.unknown(&below, pattern, &known, item, scope);
                continue;
            }
            let pattern: Vec<&str> = pattern.iter().copied().chain([segment]).collect();
            if segment == "*" && !self.is_name(&below, &pattern, item) {
                continue;
            }
            match (find(&pattern, scope), &item.node) {
                (Some(key), _) => self.leaf(key, &below, item),
                (None, Node::Table(inner)) => {
                    self.found.sections.insert(joined(&below), item.key.clone());
                    self.table(&below, &pattern, inner, scope);
                }
                (None, other) => {
                    self.report.mask(&item.location);
                    let text = format!("must be a table (got {})", other.type_name());
                    self.report.error(&item.key, joined(&below), text);
                }
            }
        }
    }

    fn unknown(&mut self, path: &[&str], pattern: &[&str], known: &[&'static str], item: &Item, scope: Option<Scope>) {
        let name = path.last().copied().unwrap_or_default();
        if !matches!((&item.key, &item.location), (Location::Span(key), Location::Span(value)) if value.start < key.end)
        {
            self.report.mask(&item.location); // The value of a misspelt key may be a secret.
        }
        let text = if scope.is_some() && below(pattern, None).contains(&name) {
            let other = if scope == Some(Scope::FanOut) { "statement" } else { "fan-out" };
            format!("unknown key here (only functions of kind {other:?} have it)")
        } else {
            format!("unknown key ({})", nearest(name, known.iter().copied()))
        };
        self.report.error(&item.key, shown_path(path), text);
    }

    fn is_name(&mut self, path: &[&str], pattern: &[&str], item: &Item) -> bool {
        let name = path.last().copied().unwrap_or_default();
        let checked = match pattern {
            [.., "params", "*"] => syntax::parameter_name(name),
            [.., "headers", "*"] => syntax::header_name(name),
            [.., "domains", "*"] => syntax::host(name),
            ["queues", "*"] => syntax::queue_name(name),
            _ => syntax::name(name),
        };
        if let Err(why) = &checked {
            self.report.mask(&item.location);
            self.report.error(&item.key, shown_path(path), why);
        }
        checked.is_ok()
    }

    fn leaf(&mut self, key: &'static Key, path: &[&str], item: &Item) {
        if matches!(key.value_type, ValueType::Secret | ValueType::Header | ValueType::Url) {
            let plain = value_type::check(ValueType::Secret, "", &item.node).is_ok()
                || matches!(key.value_type, ValueType::Url);
            if !plain || item.node.as_text().is_some_and(|text| text.contains('@')) {
                self.report.mask(&item.location);
            }
        }
        let name = path.last().copied().unwrap_or_default();
        let value = value_type::check(key.value_type, name, &item.node);
        if let Err(why) = &value {
            self.report.error(&item.location, joined(path), why);
        }
        let shown = show(key.value_type, &item.node);
        self.found.leaves.insert(joined(path), Leaf { value: value.ok(), location: item.location.clone(), shown });
    }
}

/// A path for a message; a name that is no bare key is cut and quoted.
fn shown_path(path: &[&str]) -> String {
    joined(&path.iter().map(|part| syntax::start(part)).collect::<Vec<_>>())
}

/// The path of a key as TOML writes it: a name that is no bare key is quoted.
pub(super) fn joined<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(|part| segment(part.as_ref())).collect::<Vec<_>>().join(".")
}

/// One name as a path of [`joined`] has it.
pub(super) fn segment(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { name.to_owned() } else { format!("{name:?}") }
}

/// The name that the rest of a path comes to; `None` when more than one name is left.
fn only_segment(rest: &str) -> Option<String> {
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').filter(|name| !name.contains('"')).map(str::to_owned),
        None => (!rest.contains('.')).then(|| rest.to_owned()),
    }
}

/// A value in TOML, without secrets.
fn show(value_type: ValueType, node: &Node) -> String {
    if matches!(value_type, ValueType::Secret | ValueType::Header) {
        return match value_type::check(ValueType::Secret, "", node) {
            Ok(Value::Secret(Reference::Env(name))) => format!("{{ env = {} }}", quote(&name)),
            Ok(Value::Secret(Reference::File(path))) => format!("{{ file = {} }}", quote(&path)),
            Ok(Value::Secret(Reference::Credential(name))) => format!("{{ credential = {} }}", quote(&name)),
            _ => "\"…\"".into(),
        };
    }
    match node {
        Node::Text(text) => quote(text),
        Node::Integer(Some(number)) => number.to_string(),
        Node::Flag(flag) => flag.to_string(),
        Node::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| show(value_type, item)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => "\"…\"".into(),
    }
}

/// A string in TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

/// The names that may stand below the table at a path (with `*` for chosen names) of a function of this kind; `*`
/// among them stands for any name.
fn below(pattern: &[&str], kind: Option<Scope>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS.iter().filter(|key| key.scope.admits(kind)) {
        let path = segments(key.path);
        if let Some(name) = path.get(pattern.len()).filter(|_| path.starts_with(pattern))
            && !names.contains(name)
        {
            names.push(*name);
        }
    }
    names
}

/// The key at a path (with `*` for chosen names) of a function of this kind.
fn find(pattern: &[&str], kind: Option<Scope>) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.scope.admits(kind) && segments(key.path) == pattern)
}
