//! A fetched page, ready to be committed in slices: each record with its message, made outside the writer's thread.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::base::Failure;
use crate::function::statement::{Page, PageAddress, Record};
use crate::queue::{Send, send};
use crate::run::ledger;
use crate::store::record::{QueueRecord, RunRecord};

use super::malformed::{Malformed, kept_id};
use super::user_message::{user_message, user_record};

/// The dead letter of a record that is too large for a message keeps this much of the record's text.
const RAW_CHARS_MAX: usize = 4096;
/// The row of a malformed record keeps this much of the id that it names.
const MALFORMED_ID_CHARS_MAX: usize = 100;

/// A page whose messages are made.
#[derive(Debug)]
pub struct PreparedPage {
    /// Its number, counted from 1.
    pub(super) number: u32,
    /// Its records in order.
    pub(super) records: Vec<PreparedRecord>,
    /// The next page's address as the run stores it; `None` after the last page.
    pub(super) next: Option<String>,
    /// The earlier run that the guard compares with, when it had to be searched for.
    pub(super) earlier: Option<u64>,
}

/// One record of a page.
#[derive(Debug)]
pub struct PreparedRecord {
    /// The key of its row.
    pub(super) key: [u8; 16],
    /// The user's id; of a malformed record the id that it names, else its position.
    pub(super) name: String,
    /// The mail address; empty for a malformed record.
    pub(super) address: String,
    /// The account, when it is not the user's id.
    pub(super) account: Option<String>,
    /// Whether an earlier record of this page has the same key.
    pub(super) is_twice: bool,
    /// What it becomes.
    pub(super) message: PreparedMessage,
}

/// What a record becomes.
#[derive(Debug)]
pub enum PreparedMessage {
    /// A message for the target queue, and the user record for the ledger.
    User(Send, Box<RawValue>),
    /// A dead letter of the fan-out's own queue, and the reason.
    Letter(Send, Failure),
}

impl PreparedPage {
    /// Makes the messages of the page that `run`'s cursor points to, for the queues `target` and `own`.
    pub fn new(
        page: Page,
        run: &RunRecord,
        address: &PageAddress,
        (target, own): (&QueueRecord, &QueueRecord),
    ) -> Self {
        let mut maker = Maker { run, address, target, own, keys: HashSet::new(), texts: HashMap::new() };
        let records = page.records.into_iter().enumerate().map(|(index, record)| maker.record(index, record)).collect();
        let next = page.next.map(|next| serde_json::to_string(&next).expect("an address always serialises"));
        Self { number: run.fan_out.pages + 1, records, next, earlier: None }
    }

    /// Whether the fetch ends with it.
    pub const fn is_last(&self) -> bool {
        self.next.is_none()
    }

    /// The same with the earlier run that the guard compares with: see [`crate::run::control::search_earlier`].
    #[must_use]
    pub fn compared_with(self, earlier: Option<u64>) -> Self {
        Self { earlier, ..self }
    }
}

/// Makes the records of one page.
struct Maker<'a> {
    run: &'a RunRecord,
    address: &'a PageAddress,
    target: &'a QueueRecord,
    own: &'a QueueRecord,
    /// The keys of the records so far.
    keys: HashSet<[u8; 16]>,
    /// How often each text of a malformed record without an id was there so far.
    texts: HashMap<[u8; 32], u32>,
}

impl Maker<'_> {
    fn record(&mut self, index: usize, record: Record) -> PreparedRecord {
        let mut record = match record {
            Record::Malformed { raw, digest, why, .. } => self.malformed(index, raw, digest, why),
            Record::User(user) => {
                let text = user_record(&user);
                let message = user_message(self.run, &user, &text);
                match send::check(self.target, &message) {
                    Ok(()) => PreparedRecord {
                        key: message.recipient,
                        name: user.id,
                        address: user.email,
                        account: user.account_id,
                        is_twice: false,
                        message: PreparedMessage::User(message, text),
                    },
                    // The user is valid but its message breaks a limit of the queue. That is this record's fault alone:
                    // the page must not fail because of it.
                    Err(error) => {
                        let raw = text.get();
                        let why = Failure::new("data", "users", "message-refused", error);
                        let digest = Sha256::digest(raw).into();
                        self.malformed(index, raw.chars().take(RAW_CHARS_MAX).collect(), digest, why)
                    }
                }
            }
        };
        record.is_twice = !self.keys.insert(record.key);
        record
    }

    fn malformed(&mut self, index: usize, raw: String, digest: [u8; 32], why: Failure) -> PreparedRecord {
        let page = self.run.fan_out.pages;
        let id = kept_id(&raw);
        let position = id.is_none().then(|| {
            let nth = self.texts.entry(digest).or_default();
            *nth += 1;
            (page, *nth)
        });
        let key = ledger::record_key(&digest, position);
        let record = Malformed { page, index, raw, key: Some(key), address: Some(self.address.clone()) };
        // The id as a user's may be, although nothing about the record is checked.
        let own = id.map(|id| id.chars().filter(|c| !c.is_control()).take(MALFORMED_ID_CHARS_MAX).collect::<String>());
        PreparedRecord {
            key,
            name: own.filter(|id| !id.trim().is_empty()).unwrap_or_else(|| record.name()),
            address: String::new(),
            account: None,
            is_twice: false,
            message: PreparedMessage::Letter(record.letter(self.own, self.run.id), why),
        }
    }
}
