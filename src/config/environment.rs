//! Environment variables as a value, and those that override keys: `NIGHTMAIL__SECTION__KEY`.
//!
//! A variable's value is never repeated in a message: it may be a secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::document::{Item, Node, Table};
use super::finding::{Report, nearest};
use super::keys::{self, Key, ValueType};
use super::schema::KEYS;
use super::source::Location;
use super::validate::{expand, joined};

/// What the name of every overriding variable starts with.
const PREFIX: &str = "NIGHTMAIL__";

/// The environment variables that a configuration may use. Values are hidden in `Debug`.
#[derive(Clone, Default)]
pub struct Environment {
    /// Values by name; `None` is a value that is not UTF-8.
    values: BTreeMap<String, Option<String>>,
    /// Set by [`Environment::without_secrets`].
    leaves_secrets: bool,
}

impl Environment {
    /// Those of this process, as they are now.
    pub fn of_process() -> Self {
        let text = |value: OsString| value.into_string().ok();
        let values = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, text(value))));
        Self { values: values.collect(), leaves_secrets: false }
    }

    /// The same for a command that only speaks to the daemon: secrets, which the daemon's user alone may read, are not
    /// fetched, and a placeholder stands for each.
    #[must_use]
    pub fn without_secrets(self) -> Self {
        Self { leaves_secrets: true, ..self }
    }

    /// Whether secrets are not fetched.
    pub(super) const fn leaves_secrets(&self) -> bool {
        self.leaves_secrets
    }

    /// A variable's value; `None` also when it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_deref()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let values = variables.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect();
        Self { values, leaves_secrets: false }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// What one variable sets.
struct Target {
    path: Vec<String>,
    key: &'static Key,
    /// The form of a secret that the variable's last part names.
    form: Option<&'static str>,
}

/// Applies the overriding variables to a document.
pub(super) fn overlay(document: &mut Table, environment: &Environment, report: &mut Report) {
    let overriding = environment.values.iter().filter(|(name, _)| name.starts_with(PREFIX));
    let overriding: Vec<(&String, &Option<String>)> = overriding.collect();
    if overriding.is_empty() {
        return;
    }
    let targets = targets(document);
    for (name, value) in overriding {
        let location = Location::Variable(name.clone());
        match (targets.get(name).map(Vec::as_slice), value) {
            (None | Some([]), _) => report.error(&location, "", unknown(name, &targets)),
            (Some([target]), Some(text)) => set(document, &target.path, item(target, text, &location)),
            (Some([target]), None) => report.error(&location, joined(&target.path), "must be UTF-8"),
            (Some([first, second, ..]), _) => {
                let (first, second) = (joined(&first.path), joined(&second.path));
                report.error(&location, "", format!("stands for both {first} and {second}; rename one of them"));
            }
        }
    }
}

fn unknown(name: &str, targets: &BTreeMap<String, Vec<Target>>) -> String {
    let best = nearest(name, targets.keys().map(String::as_str));
    let hint = if best.starts_with("did") {
        best
    } else {
        "variables override keys of sections that the file has: NIGHTMAIL__LOG__LEVEL sets log.level".into()
    };
    format!("unknown variable ({hint})")
}

/// Every variable that sets a key of this document.
fn targets(document: &Table) -> BTreeMap<String, Vec<Target>> {
    let mut targets: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for key in KEYS {
        let forms: &[Option<&str>] = match key.value_type {
            ValueType::Secret | ValueType::Header => &[None, Some("env"), Some("file"), Some("credential")],
            _ => &[None],
        };
        for path in expand(&keys::segments(key.path), document) {
            for form in forms {
                let parts = path.iter().map(String::as_str).chain(*form).map(upper);
                let name = format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"));
                let same = targets.entry(name).or_default();
                if same.iter().all(|target| target.path != path || target.form != *form) {
                    same.push(Target { path: path.clone(), key, form: *form });
                }
            }
        }
    }
    targets
}

fn upper(part: &str) -> String {
    part.to_ascii_uppercase().replace(['-', '.'], "_")
}

fn item(target: &Target, text: &str, location: &Location) -> Item {
    let at = |node: Node| Item { key: location.clone(), location: location.clone(), node };
    if let Some(form) = target.form {
        return at(Node::Table(Table::from([(form.to_owned(), at(Node::Text(text.into())))])));
    }
    let node = Node::of_variable(text);
    let structured = matches!(
        target.key.value_type,
        ValueType::Count(..) | ValueType::Flag | ValueType::Lines | ValueType::Secret | ValueType::Header
    );
    at(if structured || node.as_text().is_some() { node } else { Node::Text(text.into()) })
}

/// Sets a value. A section that is not a table stays as it is; it is reported elsewhere.
fn set(document: &mut Table, path: &[String], item: Item) {
    let Some((name, above)) = path.split_last() else { return };
    let mut table = document;
    for section in above {
        let created =
            || Item { key: item.key.clone(), location: item.location.clone(), node: Node::Table(Table::new()) };
        match &mut table.entry(section.clone()).or_insert_with(created).node {
            Node::Table(inner) => table = inner,
            _ => return,
        }
    }
    table.insert(name.clone(), item);
}
