//! What is wrong in a configuration: one finding for each fault, reported all at once.
//!
//! Knows no keys. A finding never holds a secret: whoever reports it leaves out the values of secret keys.

use std::fmt;
use std::ops::Range;

use super::source::{Excerpt, Location, Origin, Source};

/// One fault or one piece of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file's name as it was given.
    pub file: String,
    /// The line or the variable; [`Origin::Default`] for what is missing altogether.
    pub origin: Origin,
    /// The key's path, e.g. `functions.statement.concurrency`; empty for the file as a whole.
    pub field: String,
    /// What is wrong, the limit, and the remedy.
    pub text: String,
    /// The line itself, with secrets masked.
    pub excerpt: Option<Excerpt>,
}

impl fmt::Display for Finding {
    /// `path:line:column: field: text`, then the line and a caret. Without a final line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(f, "{}: ", self.file)?,
            Origin::File { line, column } => write!(f, "{}:{line}:{column}: ", self.file)?,
            Origin::Variable(name) => write!(f, "{name}: ")?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.text)?;
        let (Some(excerpt), Origin::File { line, .. }) = (&self.excerpt, &self.origin) else { return Ok(()) };
        let carets = "^".repeat(excerpt.width);
        write!(f, "\n{line:>5} | {}\n      | {:2$}{carets}", excerpt.text, "", excerpt.caret)
    }
}

/// Every fault of a configuration, in the order of the file's lines; those of variables come last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Finding>);

impl fmt::Display for Errors {
    /// The findings, one below the other. Without a final line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects faults and advice while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Faults: a single one keeps any settings from leaving the module.
    errors: Vec<(Location, String, String)>,
    /// Advice.
    warnings: Vec<(Location, String, String)>,
    /// Bytes of the file that no excerpt shows.
    masks: Vec<Range<usize>>,
}

impl Report {
    /// Adds a fault.
    pub(super) fn error(&mut self, location: &Location, field: impl Into<String>, text: impl fmt::Display) {
        self.errors.push((location.clone(), field.into(), text.to_string()));
    }

    /// Whether a fault of this key was reported already.
    pub(super) fn has_error(&self, field: &str) -> bool {
        self.errors.iter().any(|(_, known, _)| known == field)
    }

    /// Adds advice.
    pub(super) fn warning(&mut self, location: &Location, field: impl Into<String>, text: impl fmt::Display) {
        self.warnings.push((location.clone(), field.into(), text.to_string()));
    }

    /// Masks a value in all excerpts.
    pub(super) fn mask(&mut self, location: &Location) {
        if let Location::Span(span) = location {
            self.masks.push(span.clone());
        }
    }

    /// The faults if there are any, the advice otherwise.
    pub(super) fn finish(self, source: &Source) -> Result<Vec<Finding>, Errors> {
        let sorted = |list: Vec<(Location, String, String)>| {
            let mut findings: Vec<Finding> = list
                .into_iter()
                .map(|(location, field, text)| Finding {
                    file: source.name.clone(),
                    origin: source.origin(&location),
                    excerpt: source.excerpt(&location, &self.masks),
                    field,
                    text,
                })
                .collect();
            findings.sort_by(|a, b| (&a.origin, &a.field).cmp(&(&b.origin, &b.field)));
            findings.dedup();
            findings
        };
        if self.errors.is_empty() { Ok(sorted(self.warnings)) } else { Err(Errors(sorted(self.errors))) }
    }
}

/// Names the nearest of the known words, or lists them all.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    // Of equals the longer one: a letter is dropped more often than another one is written for it.
    let place = |candidate: &&'a str| {
        (strsim::damerau_levenshtein(word, candidate), std::cmp::Reverse(candidate.len()), *candidate)
    };
    let best = known.iter().map(place).min();
    match best {
        Some((distance, _, candidate)) if distance <= (word.len() / 3).max(1) => format!("did you mean {candidate:?}?"),
        Some(_) => format!("known: {}", known.join(", ")),
        None => "none is known here".into(),
    }
}
