//! How one attempt ended: the result of every function, whatever its kind.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fingerprint;

/// Error texts are shortened to this many bytes before they are stored.
pub const FAILURE_TEXT_BYTES_MAX: usize = 1024;

/// What went wrong, classified so that the same fault groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of fault: `http`, `smtp`, `data`, `render`, `timeout`, `panic`, `crash`.
    pub kind: String,
    /// Where it happened: `users`, `account`, `relay`, `statement`.
    pub place: String,
    /// The code within kind and place: `404`, `550`, `balance-mismatch`.
    pub code: String,
    /// For people: names the thing, the value, the limit and the remedy.
    pub text: String,
}

impl Failure {
    /// Classifies a fault. `text` becomes one line of at most [`FAILURE_TEXT_BYTES_MAX`] bytes; a remedy in parentheses
    /// at its end is never cut off.
    pub fn new(kind: &str, place: &str, code: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { kind: kind.into(), place: place.into(), code: code.to_string(), text: printable(&text.to_string()) }
    }

    /// The fingerprint of this class of fault; it does not depend on the text.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.kind, &self.place, &self.code)
    }

    /// The class in words, e.g. `http account 404`.
    pub fn class(&self) -> String {
        format!("{} {} {}", self.kind, self.place, self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class(), self.text)
    }
}

/// Whether a character could change how a terminal or a log shows what stands around it: control characters, line and
/// paragraph separators, and the bidirectional controls, which show text in another order than it has.
pub fn is_deceptive(c: char) -> bool {
    let is_bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidi || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A text from outside as one line of at most [`FAILURE_TEXT_BYTES_MAX`] bytes; see [`shorten`].
pub fn printable(text: &str) -> String {
    shorten(text, FAILURE_TEXT_BYTES_MAX)
}

/// Escapes deceptive characters and makes the text at most `bytes_max` bytes long. What is cut is never the remedy: it
/// stands in parentheses at the end of a text, and what is foreign and may be long stands before it.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    const CUT: &str = "… ";
    let (whole, is_cut) = escaped(text, bytes_max);
    if !is_cut {
        return whole;
    }
    let remedy = remedy(text).map(|remedy| escaped(remedy, bytes_max.saturating_sub(CUT.len())));
    let end = match remedy {
        Some((remedy, false)) => format!("{CUT}{remedy}"),
        // Without a remedy, or with one that alone is too long, the beginning says most.
        _ => CUT.trim_end().to_owned(),
    };
    let (beginning, _) = escaped(text, bytes_max.saturating_sub(end.len()));
    beginning + &end
}

/// The beginning of the text with escapes, at most `bytes_max` bytes, and whether more follows.
fn escaped(text: &str, bytes_max: usize) -> (String, bool) {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let before = out.len();
        if is_deceptive(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        if out.len() > bytes_max {
            out.truncate(before);
            return (out, true);
        }
    }
    (out, false)
}

/// A failure's text without its remedy, and the remedy without its parentheses.
pub fn split_remedy(text: &str) -> (&str, Option<&str>) {
    match remedy(text) {
        Some(remedy) => (text[..text.len() - remedy.len()].trim_end(), Some(&remedy[1..remedy.len() - 1])),
        None => (text, None),
    }
}

/// The parentheses at the end of a text, with those inside them.
fn remedy(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' if depth == 1 => return Some(&text[at..]),
            '(' => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done; the message is deleted.
    Done(DeliveryProof),
    /// A transient fault: try again after the back-off, or after `after` when the other side asked for a delay.
    Retry {
        /// What went wrong.
        why: Failure,
        /// Wait this long instead of the back-off.
        after: Option<Duration>,
        /// Whether the effect (the mail) may have happened anyway.
        effect: Effect,
    },
    /// A permanent fault: another attempt cannot help, so the message goes to the dead-letter queue at once.
    Dead {
        /// What went wrong.
        why: Failure,
    },
    /// Not the message's fault (a full relay, a drain): tried again, and no attempt is charged.
    Deferred {
        /// Why the work could not be done now.
        why: Failure,
        /// Wait this long; the pool's default when `None`.
        after: Option<Duration>,
    },
    /// The effect must not happen, because another message of the same recipient had it or may have had it: the message is
    /// deleted without it.
    Duplicate {
        /// What is known about the effect.
        why: Failure,
    },
    /// The document is made, and is not to be mailed yet: the message is deleted, and the ledger keeps the document's hash.
    Rendered(RenderedDocument),
    /// Nobody is to be mailed: the message is deleted, and the ledger keeps why.
    LeftOut {
        /// By what.
        by: LeftOutBy,
        /// Why, for people.
        why: String,
    },
    /// Deferred for as long as it takes (a full queue): the time does not count towards `deferral_max`.
    Waiting {
        /// What it waits for.
        why: Failure,
        /// Wait this long; the pool's default when `None`.
        after: Option<Duration>,
    },
    /// It waits for its turn under our own limits: nothing was tried, so it leaves no trace in the history, and a series of
    /// deferrals neither begins nor ends.
    Paced {
        /// Which limit.
        why: Failure,
        /// Wait this long; the pool's default when `None`.
        after: Option<Duration>,
    },
}

impl Outcome {
    /// Done, without proof.
    pub fn done() -> Self {
        Self::Done(DeliveryProof::default())
    }

    /// The failure; `None` when there is nothing left to do.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Done(_) | Self::Rendered(_) | Self::LeftOut { .. } => None,
            Self::Retry { why, .. }
            | Self::Dead { why }
            | Self::Deferred { why, .. }
            | Self::Duplicate { why }
            | Self::Waiting { why, .. }
            | Self::Paced { why, .. } => Some(why),
        }
    }

    /// The outcome's name in lists and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Deferred { .. } | Self::Waiting { .. } => "deferred",
            Self::Paced { .. } => "paced",
            Self::Duplicate { .. } => "duplicate",
            Self::Rendered(_) => "rendered",
            Self::LeftOut { by: LeftOutBy::Rule, .. } => "skipped",
            Self::LeftOut { by: LeftOutBy::Suppression, .. } => "suppressed",
        }
    }
}

/// A document that was made and not mailed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderedDocument {
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Its size.
    pub bytes: u64,
    /// Its pages.
    pub pages: u32,
    /// Whether it has no transactions.
    pub is_empty: bool,
}

/// What leaves a recipient out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOutBy {
    /// A rule of the configuration.
    Rule,
    /// The suppression list.
    Suppression,
}

/// Whether a failed attempt may have had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It had none.
    None,
    /// Unknown: the attempt was cut off after the request was sent and before the reply.
    Unknown,
}

/// The proof that the work was done; it is written to the run's ledger in the commit that deletes the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryProof {
    /// The relay's reply to the mail, e.g. `250 2.0.0 queued as 1234`.
    pub reply: Option<String>,
    /// The Message-ID of the mail.
    pub message_id: Option<String>,
    /// SHA-256 of the document, in hex.
    pub document_sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_loses_what_is_foreign_and_keeps_its_remedy() {
        let remedy = "(send UTF-8 (RFC 3629), or ask who does)";
        for foreign in ["x".repeat(5000), "é".repeat(5000), "\n".repeat(5000), "(".repeat(5000)] {
            let failure = Failure::new("data", "users", "odd", format!("the page says {foreign} {remedy}"));
            assert!(failure.text.starts_with("the page says "), "{}", failure.text);
            assert!(failure.text.ends_with(&format!("… {remedy}")), "{}", failure.text);
            assert!((FAILURE_TEXT_BYTES_MAX - 8..=FAILURE_TEXT_BYTES_MAX).contains(&failure.text.len()));
        }
        assert_eq!(shorten("abcdefghi", 9), "abcdefghi");
        assert_eq!(shorten("abcdefghij", 9), "abcdef…");
        assert_eq!(shorten("abcdefghij (k)", 9), "ab… (k)");
        assert_eq!(shorten("a (a remedy that alone is too long)", 9), "a (a r…");
        assert_eq!(shorten("closes) without opening", 9), "closes…");
        assert_eq!(split_remedy("failed (ask (who?))"), ("failed", Some("ask (who?)")));
        assert_eq!(split_remedy("failed"), ("failed", None));
    }

    #[test]
    fn nothing_can_turn_a_line_round_or_break_it() {
        let controls = ['\u{7}', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{2029}'];
        let bidi = ['\u{200e}', '\u{200f}', '\u{61c}']
            .into_iter()
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}');
        for c in controls.into_iter().chain(bidi) {
            let shown = printable(&format!("a{c}b"));
            assert!(shown.starts_with("a\\") && shown.ends_with('b') && shown.is_ascii(), "{c:?}: {shown}");
        }
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(printable("é \u{200d} \u{200b} ש"), "é \u{200d} \u{200b} ש", "joiners and letters are no controls");
    }
}
