//! The text of one configuration file: lines, columns and excerpts.
//!
//! Knows no keys. The caller, who does, masks what must not be shown.

use std::ops::Range;
use std::path::PathBuf;

/// An excerpt shows at most this many characters of a line.
const EXCERPT_CHARS_MAX: usize = 120;

/// Where a key or a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Nowhere: a default, or something that is missing altogether.
    Nowhere,
    /// These bytes of the file.
    Span(Range<usize>),
    /// The environment variable of this name.
    Variable(String),
}

/// Where a value came from. The order is that of findings: the file as a whole, its lines, variables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A location in the file.
    File {
        /// The line, from 1.
        line: u32,
        /// The column in characters, from 1.
        column: u32,
    },
    /// The environment variable of this name.
    Variable(String),
}

/// A line of the file and what to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The line, at most 120 characters of it, with secrets masked.
    pub text: String,
    /// The first character to point at, from 0.
    pub caret: usize,
    /// How many characters to point at, at least 1.
    pub width: usize,
}

/// A file's text and where its lines start.
#[derive(Debug)]
pub(super) struct Source {
    /// The file's name as messages show it.
    pub(super) name: String,
    /// The directory that relative paths in the file start from.
    pub(super) base: PathBuf,
    /// The whole text.
    pub(super) text: String,
    /// The byte at which each line starts; the first is 0.
    line_starts: Vec<usize>,
}

impl Source {
    /// Wraps a text.
    pub(super) fn new(name: impl Into<String>, base: impl Into<PathBuf>, text: String) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Self { name: name.into(), base: base.into(), text, line_starts }
    }

    /// The public form of a location: line and column count from 1, columns in characters.
    pub(super) fn origin(&self, location: &Location) -> Origin {
        match location {
            Location::Nowhere => Origin::Default,
            Location::Variable(name) => Origin::Variable(name.clone()),
            Location::Span(span) => {
                let (line, range) = self.line_at(span.start);
                let before = self.text.get(range.start..span.start).unwrap_or_default();
                let column = before.chars().count() + 1;
                Origin::File { line: narrow(line + 1), column: narrow(column) }
            }
        }
    }

    /// The line at a location with secrets masked, and the position of the caret.
    pub(super) fn excerpt(&self, location: &Location, masks: &[Range<usize>]) -> Option<Excerpt> {
        let Location::Span(span) = location else { return None };
        let (_, range) = self.line_at(span.start);
        let line = self.text.get(range.clone())?.trim_end_matches(['\n', '\r']);
        let mut shown = String::new();
        let (mut chars, mut from, mut to, mut masked) = (0, None, None, false);
        for (offset, character) in line.char_indices() {
            let at = range.start + offset;
            from = from.or((at >= span.start).then_some(chars));
            to = to.or((at >= span.end).then_some(chars));
            let hidden = masks.iter().any(|mask| mask.contains(&at));
            if hidden && masked {
                continue;
            }
            masked = hidden;
            shown.push(if hidden {
                '…'
            } else if character.is_control() {
                ' '
            } else {
                character
            });
            chars += 1;
        }
        let from = from.unwrap_or(chars);
        Some(crop(&shown, from, to.unwrap_or(chars).saturating_sub(from).max(1)))
    }

    /// The number of the line that holds a byte, from 0, and the line's bytes.
    pub(super) fn line_at(&self, at: usize) -> (usize, Range<usize>) {
        let line = self.line_starts.partition_point(|start| *start <= at).saturating_sub(1);
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        (line, self.line_starts[line]..end)
    }
}

/// Keeps the part of a long line that the caret points to.
fn crop(line: &str, from: usize, width: usize) -> Excerpt {
    let first = from.saturating_sub(EXCERPT_CHARS_MAX / 2);
    let text: String = line.chars().skip(first).take(EXCERPT_CHARS_MAX).collect();
    let caret = from - first;
    Excerpt { text, caret, width: width.min(EXCERPT_CHARS_MAX - caret) }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
