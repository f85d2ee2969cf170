//! What describes a configuration key: path, type, limits, default and meaning.
//!
//! The validation, the variables' names, the "did you mean", the reference in `docs/config.md` and the tests all follow
//! the list in `schema`, so a new key is one entry here, its use in the module's checked settings, and its lines in
//! `config.toml` and `docs/config.md` (tests say which are missing).

use std::time::Duration;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// The path from the top; `*` stands for a name that the file chooses.
    pub(super) path: &'static str,
    /// Which functions have it.
    pub(super) scope: Scope,
    /// The type of its value.
    pub(super) value_type: ValueType,
    /// What applies when it is not set.
    pub(super) fallback: Fallback,
    /// One sentence for the reference.
    pub(super) meaning: &'static str,
}

/// Which functions have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All functions, or the key does not belong to a function.
    All,
    /// `kind = "fan-out"`.
    FanOut,
    /// `kind = "statement"`.
    Statement,
}

impl Scope {
    /// The function's kind as the file names it.
    pub(super) fn of_kind(kind: &str) -> Option<Self> {
        match kind {
            "fan-out" => Some(Self::FanOut),
            "statement" => Some(Self::Statement),
            _ => None,
        }
    }

    /// Whether a function of this kind has the key; a function whose kind is unknown has them all.
    pub(super) fn admits(self, kind: Option<Self>) -> bool {
        self == Self::All || kind.is_none_or(|kind| kind == self)
    }
}

/// The type of a value, with its limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum ValueType {
    /// Any text, also of several lines.
    Text,
    /// One line that is not empty.
    Line,
    /// The name of a queue or a function.
    Name,
    /// A path; relative ones start at the file's directory, those of variables at the working directory.
    Path,
    /// A span of time with a unit.
    Span(Duration, Duration),
    /// A span of time, or `"forever"`.
    SpanOrForever(Duration, Duration),
    /// A number of bytes with a unit.
    Size(u64, u64),
    /// A whole number.
    Count(u64, u64),
    /// A percentage, or `"off"`.
    ShareOrOff,
    /// A percentage of a number, or `"off"`.
    BrakeOrOff,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An array of lines.
    Lines,
    /// An http or https address with placeholders in braces.
    Url,
    /// A mailbox.
    Mailbox,
    /// A host name or an IP address.
    Host,
    /// An IP address and a port.
    Listen,
    /// The number of an AWS account.
    Account,
    /// A BCP 47 language tag.
    Locale,
    /// A JSON pointer.
    Pointer,
    /// Hours and minutes.
    TimeOfDay,
    /// A log filter.
    LogFilter,
    /// A minijinja template over these variables; of one line.
    LineTemplate(&'static [&'static str]),
    /// A minijinja template over these variables; of several lines.
    Template(&'static [&'static str]),
    /// A reference to a secret.
    Secret,
    /// A header's value: a literal, or a reference to a secret.
    Header,
}

/// What applies when a key is not set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// The key must be set.
    Required,
    /// Nothing.
    Nothing,
    /// This value, in TOML.
    Toml(&'static str),
    /// The value of the embedded example at the same path.
    Example,
    /// What these words describe; the builder of the settings computes it.
    Told(&'static str),
}

/// The segments of a key's path.
pub(super) fn segments(path: &'static str) -> Vec<&'static str> {
    path.split('.').collect()
}
