//! Typed access to the checked values, for the builders of settings.
//!
//! A value that is missing or was reported as wrong reads as its type's empty value, so that the builders continue and
//! find the other faults. One reported fault is enough to keep any settings from leaving the module.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::environment::Environment;
use super::finding::Report;
use super::secret;
use super::source::{Location, Source};
use super::validate::{Found, Leaf, quote};
use super::value_type::{Reference, Value};

/// A template's file may have this many bytes.
const TEMPLATE_BYTES_MAX: u64 = 262_144;

/// What the builders of settings read from and report to.
pub(super) struct Values<'a> {
    /// The checked values.
    pub(super) found: Found,
    /// Where faults go.
    pub(super) report: &'a mut Report,
    /// The file.
    pub(super) source: &'a Source,
    /// The variables for secrets and systemd's directories.
    pub(super) environment: &'a Environment,
}

impl Values<'_> {
    fn value(&self, path: &str) -> Option<&Value> {
        self.found.leaves.get(path)?.value.as_ref()
    }

    /// A text; `None` when it is not set or wrong.
    pub(super) fn maybe_text(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// A text that is set or has a default.
    pub(super) fn text(&self, path: &str) -> String {
        self.maybe_text(path).unwrap_or_default()
    }

    /// Lines that are set or have a default.
    pub(super) fn lines(&self, path: &str) -> Vec<String> {
        match self.value(path) {
            Some(Value::Lines(lines)) => lines.clone(),
            _ => Vec::new(),
        }
    }

    /// A span of time: the outer `None` when it is not set or wrong, the inner one for ever.
    pub(super) fn maybe_span(&self, path: &str) -> Option<Option<Duration>> {
        match self.value(path) {
            Some(Value::Span(span)) => Some(*span),
            _ => None,
        }
    }

    /// A span of time that is set or has a default.
    pub(super) fn span(&self, path: &str) -> Duration {
        self.maybe_span(path).flatten().unwrap_or_default()
    }

    /// A number; `None` when it is not set or wrong.
    pub(super) fn maybe_count(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Count(count)) => Some(*count),
            _ => None,
        }
    }

    /// A number that is set or has a default; its limits in the list of keys make it fit.
    pub(super) fn count<N: TryFrom<u64> + Default>(&self, path: &str) -> N {
        self.maybe_count(path).and_then(|count| N::try_from(count).ok()).unwrap_or_default()
    }

    /// Whether a key is true; false when it is not set.
    pub(super) fn flag(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Flag(true)))
    }

    /// Lines; `None` when they are not set or wrong.
    pub(super) fn maybe_lines(&self, path: &str) -> Option<Vec<String>> {
        match self.value(path) {
            Some(Value::Lines(lines)) => Some(lines.clone()),
            _ => None,
        }
    }

    /// Whether a key is set, even to a wrong value.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.found.leaves.get(path).is_some_and(|leaf| leaf.location != Location::Nowhere)
    }

    /// A path; a relative path in the file starts at the file's directory.
    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        let text = self.maybe_text(path)?;
        Some(self.base(path).join(text))
    }

    /// A secret; a failure to fetch it is reported.
    pub(super) fn secret(&mut self, path: &str) -> Option<SecretString> {
        let Some(Value::Secret(reference)) = self.value(path) else { return None };
        let reference: Reference = reference.clone();
        match secret::resolve(&reference, self.base(path), self.environment) {
            Ok(secret) => Some(secret),
            Err(why) => {
                self.error(path, why);
                None
            }
        }
    }

    /// The text of a template's file; a failure to read it is reported.
    pub(super) fn template_file(&mut self, path: &str) -> Option<String> {
        let file = self.path(path)?;
        let read = std::fs::File::open(&file).and_then(|opened| {
            let mut text = String::new();
            opened.take(TEMPLATE_BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
        });
        match read {
            Ok(text) if text.len() as u64 <= TEMPLATE_BYTES_MAX => return Some(text),
            Ok(_) => self.error(path, format!("{} has more than {TEMPLATE_BYTES_MAX} bytes", file.display())),
            Err(error) => self.error(path, format!("{}: {error}", file.display())),
        }
        None
    }

    /// Records a default that a builder computed, so that it has an origin too.
    pub(super) fn note(&mut self, path: &str, text: &str) {
        let leaf = Leaf { value: Some(Value::Text(text.into())), location: Location::Nowhere, shown: quote(text) };
        self.found.leaves.entry(path.into()).or_insert(leaf);
    }

    /// The same for a number.
    pub(super) fn note_count(&mut self, path: &str, count: u64) {
        let leaf = Leaf { value: Some(Value::Count(count)), location: Location::Nowhere, shown: count.to_string() };
        self.found.leaves.entry(path.into()).or_insert(leaf);
    }

    /// Reports a fault of a key.
    pub(super) fn error(&mut self, path: &str, text: impl std::fmt::Display) {
        self.report.error(&self.found.location(path), path, text);
    }

    /// Reports a fault of a key, unless one was reported already.
    pub(super) fn error_if_sound(&mut self, path: &str, text: impl std::fmt::Display) {
        if !self.report.has_error(path) {
            self.error(path, text);
        }
    }

    /// Gives advice on a key.
    pub(super) fn warning(&mut self, path: &str, text: impl std::fmt::Display) {
        self.report.warning(&self.found.location(path), path, text);
    }

    fn base(&self, path: &str) -> &Path {
        match self.found.location(path) {
            Location::Span(_) => &self.source.base,
            _ => Path::new(""),
        }
    }
}
