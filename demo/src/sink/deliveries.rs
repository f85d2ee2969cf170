//! The record of what the sink received: deliveries, recipients with several mails, violations. No I/O.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// This many violations are kept in words; all are counted.
const VIOLATIONS_MAX: usize = 1000;

/// One delivery: one mail to one recipient of its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The order in which deliveries were received, counted from 1.
    pub number: u64,
    /// The connection, counted from 1 over the sink's life.
    pub connection: u64,
    /// The recipient in the envelope.
    pub recipient: String,
    /// The header Message-ID without its brackets.
    pub message_id: Option<String>,
    /// The addresses in the header From.
    pub from: Option<String>,
    /// The addresses in the header To.
    pub to: Option<String>,
    /// The name in the header To, decoded.
    pub to_name: Option<String>,
    /// The header Subject, decoded.
    pub subject: Option<String>,
    /// The whole mail, in bytes.
    pub mail_bytes: u64,
    /// The attached PDF.
    pub pdf: Option<Pdf>,
    /// What was wrong with the mail.
    pub violations: Vec<ViolationKind>,
    /// The whole mail, when the sink keeps mails in memory.
    #[serde(skip)]
    pub raw: Option<Bytes>,
}

/// A PDF as it was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pdf {
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationKind {
    /// The header To is not the envelope's recipient alone.
    ToMismatch,
    /// One mail has several recipients, who all see the same document.
    SeveralRecipients,
    /// From, To, Date or Message-ID is missing.
    MissingHeader,
    /// A header that may stand once stands there twice.
    DoubledHeader,
    /// The mail has a line of one dot.
    DotLine,
    /// The mail has a line that is an SMTP command.
    ForeignDialogue,
    /// The mail's body has headers that begin a mail.
    ForeignHeaders,
    /// A line has more bytes than [`super::LINE_BYTES_MAX`].
    LongLine,
    /// A line ended with LF alone; refused.
    BareLf,
    /// CR without LF; refused.
    BareCr,
    /// A NUL byte.
    Nul,
    /// Bytes above 127 without BODY=8BITMIME.
    EightBit,
    /// A MIME part is broken.
    BrokenMime,
    /// A part that is declared as PDF is not one.
    NotPdf,
    /// More than one PDF in one mail.
    SeveralPdfs,
    /// A command came where it is not allowed; refused.
    OutOfOrder,
    /// A command that is not well formed; refused.
    Syntax,
    /// The mail's text came before the reply 354 to DATA.
    SentBeforeReply,
    /// A mail larger than the sink takes; refused.
    TooLarge,
}

/// One thing that a client did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The connection, counted from 1.
    pub connection: u64,
    /// The delivery, when there is one.
    pub number: Option<u64>,
    /// What it was.
    pub kind: ViolationKind,
    /// For people.
    pub detail: String,
}

/// A recipient with more than one mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doubled {
    /// The recipient in the envelope.
    pub recipient: String,
    /// The Message-IDs of all mails in the order in which they came; empty for a mail without one.
    pub message_ids: Vec<String>,
}

/// What the sink has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Deliveries: mails acknowledged, or taken without a reply by script.
    pub total: u64,
    /// Different recipients.
    pub distinct: u64,
    /// Recipients with more than one mail, by name.
    pub doubled: Vec<Doubled>,
    /// How many violations there were of each kind.
    pub violations: BTreeMap<ViolationKind, u64>,
    /// The first 1,000 violations in words.
    pub violation_list: Vec<Violation>,
    /// Connections that were served.
    pub connections: u64,
    /// Connections that were one too many.
    pub turned_away: u64,
    /// Mails that were answered 451 or 452 because the sink could not keep them.
    pub not_kept: u64,
}

/// The mails of one recipient; most have one.
struct Mails {
    first: Box<str>,
    more: Vec<Box<str>>,
}

/// Everything seen so far.
#[derive(Default)]
pub(super) struct Deliveries {
    total: u64,
    by_recipient: HashMap<Box<str>, Mails>,
    records: Vec<Record>,
    violations: BTreeMap<ViolationKind, u64>,
    violation_list: Vec<Violation>,
}

impl Deliveries {
    /// How many deliveries there were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Counts a delivery, and keeps its record while there are fewer than `records_max`.
    pub(super) fn deliver(&mut self, record: Record, records_max: usize) {
        self.total += 1;
        let message_id: Box<str> = record.message_id.as_deref().unwrap_or_default().into();
        match self.by_recipient.get_mut(record.recipient.as_str()) {
            Some(mails) => mails.more.push(message_id),
            None => {
                let mails = Mails { first: message_id, more: Vec::new() };
                self.by_recipient.insert(record.recipient.as_str().into(), mails);
            }
        }
        if self.records.len() < records_max {
            self.records.push(record);
        }
    }

    /// Records a violation.
    pub(super) fn violation(&mut self, violation: Violation) {
        *self.violations.entry(violation.kind).or_default() += 1;
        if self.violation_list.len() < VIOLATIONS_MAX {
            self.violation_list.push(violation);
        }
    }

    /// The records in the order in which they were received.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = self.records.clone();
        records.sort_by_key(|record| record.number);
        records
    }

    /// Adds everything up; the counts of connections are the caller's.
    pub(super) fn summary(&self) -> Summary {
        let twice = self.by_recipient.iter().filter(|(_, mails)| !mails.more.is_empty());
        let mut doubled: Vec<Doubled> = twice
            .map(|(recipient, mails)| Doubled {
                recipient: recipient.to_string(),
                message_ids: [&mails.first].into_iter().chain(&mails.more).map(ToString::to_string).collect(),
            })
            .collect();
        doubled.sort_by(|one, other| one.recipient.cmp(&other.recipient));
        Summary {
            total: self.total,
            distinct: self.by_recipient.len() as u64,
            doubled,
            violations: self.violations.clone(),
            violation_list: self.violation_list.clone(),
            ..Summary::default()
        }
    }
}
