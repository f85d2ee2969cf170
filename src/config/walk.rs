//! From a document to its leaves: known keys with checked values; what is unknown, misplaced or missing is reported.
//!
//! Follows the list of keys and knows no single one, except that a function's `kind` decides which keys it has.

use std::collections::BTreeMap;

use super::document::{Item, Node, Table};
use super::finding::{Report, nearest};
use super::key_list::KEYS;
use super::keys::{self, Fallback, Key, Scope, Shape, segments};
use super::plausible;
use super::shape::{self, Reference, Value};
use super::source::Place;

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// The value; `None` when it was reported as wrong.
    pub(super) value: Option<Value>,
    /// Where the value stands.
    pub(super) place: Place,
    /// The value in TOML, without secrets.
    pub(super) shown: String,
}

/// What a document holds, defaults included.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Keys by their paths.
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// Where each table's key stands, by its path.
    pub(super) sections: BTreeMap<String, Place>,
}

impl Found {
    /// The names below a section such as `queues`.
    pub(super) fn names(&self, section: &str) -> Vec<String> {
        let below = |path: &String| only_segment(path.strip_prefix(section)?.strip_prefix('.')?);
        self.sections.keys().chain(self.leaves.keys()).filter_map(below).collect()
    }

    /// Where a key stands; for one that is not set, where its section does.
    pub(super) fn place(&self, path: &str) -> Place {
        if let Some(leaf) = self.leaves.get(path).filter(|leaf| leaf.place != Place::Nowhere) {
            return leaf.place.clone();
        }
        let mut rest = path;
        loop {
            if let Some(place) = self.sections.get(rest) {
                return place.clone();
            }
            match rest.rsplit_once('.') {
                Some((above, _)) => rest = above,
                None => return Place::Nowhere,
            }
        }
    }
}

/// Reads a document.
pub(super) fn walk(document: &Table, example: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Found {
    let mut found = Found::default();
    Walker { report, found: &mut found }.table(&[], &[], document, None);
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
    let replaced = found.leaves.contains_key(&format!("{path}_file")); // `text_file` stands in for `text`.
    if replaced || found.leaves.contains_key(path) {
        return;
    }
    let node = match key.fallback {
        Fallback::Required => {
            let name = path.rsplit('.').next().unwrap_or(path);
            return report.error(&found.place(path), path, format!("missing; add {name} = \"…\""));
        }
        Fallback::Nothing | Fallback::Told(_) => return,
        Fallback::Toml(text) => Node::of_variable(text),
        Fallback::Example => Node::Text(example(key.path).unwrap_or_default()),
    };
    let name = path.rsplit('.').next().unwrap_or(path);
    let value = shape::check(key.shape, name, &node).ok();
    found.leaves.insert(path.into(), Leaf { value, place: Place::Nowhere, shown: show(key.shape, &node) });
}

struct Walker<'a> {
    report: &'a mut Report,
    found: &'a mut Found,
}

impl Walker<'_> {
    fn table(&mut self, path: &[&str], pattern: &[&str], table: &Table, mut scope: Option<Scope>) {
        if pattern == ["functions", "*"] {
            scope = table.get("kind").and_then(|item| item.node.as_text()).and_then(Scope::of_kind);
        }
        let known = keys::below(pattern, scope);
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
            match (keys::find(&pattern, scope), &item.node) {
                (Some(key), _) => self.leaf(key, &below, item),
                (None, Node::Table(inner)) => {
                    self.found.sections.insert(joined(&below), item.key.clone());
                    self.table(&below, &pattern, inner, scope);
                }
                (None, other) => {
                    self.report.mask(&item.place);
                    let text = format!("must be a table (got {})", other.type_name());
                    self.report.error(&item.key, joined(&below), text);
                }
            }
        }
    }

    fn unknown(&mut self, path: &[&str], pattern: &[&str], known: &[&'static str], item: &Item, scope: Option<Scope>) {
        let name = path.last().copied().unwrap_or_default();
        if !matches!((&item.key, &item.place), (Place::Span(key), Place::Span(value)) if value.start < key.end) {
            self.report.mask(&item.place); // The value of a misspelt key may be a secret.
        }
        let text = if scope.is_some() && keys::below(pattern, None).contains(&name) {
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
            [.., "params", "*"] => plausible::parameter_name(name),
            [.., "headers", "*"] => plausible::header_name(name),
            ["queues", "*"] => plausible::queue_name(name),
            _ => plausible::name(name),
        };
        if let Err(why) = &checked {
            self.report.mask(&item.place);
            self.report.error(&item.key, shown_path(path), why);
        }
        checked.is_ok()
    }

    fn leaf(&mut self, key: &'static Key, path: &[&str], item: &Item) {
        if matches!(key.shape, Shape::Secret | Shape::Header | Shape::Url) {
            let plain = shape::check(Shape::Secret, "", &item.node).is_ok() || matches!(key.shape, Shape::Url);
            if !plain || item.node.as_text().is_some_and(|text| text.contains('@')) {
                self.report.mask(&item.place);
            }
        }
        let name = path.last().copied().unwrap_or_default();
        let value = shape::check(key.shape, name, &item.node);
        if let Err(why) = &value {
            self.report.error(&item.place, joined(path), why);
        }
        let shown = show(key.shape, &item.node);
        self.found.leaves.insert(joined(path), Leaf { value: value.ok(), place: item.place.clone(), shown });
    }
}

/// A path for a message; a name that is no bare key is cut and quoted.
fn shown_path(path: &[&str]) -> String {
    joined(&path.iter().map(|part| plausible::start(part)).collect::<Vec<_>>())
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
fn show(shape: Shape, node: &Node) -> String {
    if matches!(shape, Shape::Secret | Shape::Header) {
        return match shape::check(Shape::Secret, "", node) {
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
            let items: Vec<String> = items.iter().map(|item| show(shape, item)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => "\"…\"".into(),
    }
}

/// A string in TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
