//! Malformed user records: the letter that each becomes, and its second check after a redrive.

use serde::{Deserialize, Serialize};

use crate::base::{Contact, Failure, Outcome};
use crate::function::statement::{PageAddress, Record, User};
use crate::function::upstream::Fault;
use crate::queue::{Send, admission, catalog, send};
use crate::run::ledger::{self, Recipient};
use crate::store::Tx;
use crate::store::record::{QueueRecord, RunRecord};

use super::user_message::{user_message, user_record};
use super::{Error, FanOut, disk_full, may_go_on, retry};

/// A message of the fan-out's own queue: a run to fan out, or one malformed record to check again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FanOutMessage {
    pub(super) run: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<Malformed>,
}

/// A record that is no valid user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Malformed {
    /// Its page, counted from 0.
    pub(super) page: u32,
    /// Its position there, counted from 0.
    pub(super) index: usize,
    /// Its text; cut when it is long.
    pub(super) raw: String,
    /// The key of its row; `None` in letters of earlier versions, whose rows are keyed by position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<[u8; 16]>,
    /// Where its page is, so that it can be fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<PageAddress>,
}

impl Malformed {
    /// Its name in lists.
    pub(super) fn name(&self) -> String {
        format!("page {} record {}", self.page + 1, self.index + 1)
    }

    fn row_key(&self) -> [u8; 16] {
        self.key.unwrap_or_else(|| ledger::record_key_by_place(self.page, self.index))
    }

    /// Its dead letter. It always fits the fan-out's own queue: characters that SQS does not allow are replaced, and a
    /// text that is too long is truncated.
    pub(super) fn letter(mut self, own: &QueueRecord, run: u64) -> Send {
        self.raw = self.raw.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
        let recipient = self.row_key();
        let mut work = FanOutMessage { run, record: Some(self) };
        // Halves the text until the body fits. The size of the body is known only after JSON has escaped the text.
        loop {
            let body = serde_json::to_vec(&work).expect("text and numbers always serialise");
            let letter = Send { run, recipient, ..Send::text(body) };
            match &mut work.record {
                Some(record) if !record.raw.is_empty() && send::check(own, &letter).is_err() => {
                    record.raw.truncate(record.raw.floor_char_boundary(record.raw.len() / 2));
                }
                _ => return letter,
            }
        }
    }
}

impl FanOut {
    /// Checks a malformed record again after its redrive. If it is valid now, its user gets a message.
    pub(super) async fn recheck_record(
        &self,
        run: RunRecord,
        record: Malformed,
        contacts: &mut Vec<Contact>,
    ) -> Outcome {
        if let Err(full) = self.queues.space().admit(&self.options.target) {
            return disk_full(&full);
        }
        let user = match self.user_by_now(&run, &record, contacts).await {
            Ok(user) => user,
            Err(end) => return end,
        };
        let (target, now) = (self.options.target.clone(), self.queues.now());
        let step = move |tx: &mut Tx<'_>| {
            may_go_on(tx, run.id)?;
            let target = catalog::find(tx, &target)?;
            let text = user_record(&user);
            let message = user_message(&run, &user, &text);
            let key = message.recipient;
            // A user who has a row already has a message too: nothing is sent, and no room is needed. Whom an abandoned
            // refetch added has none.
            let row = tx.recipients()?.get(&(run.id, key))?;
            let is_new = row.as_ref().is_none_or(ledger::is_of_abandoned_refetch);
            let admitted = is_new.then(|| admission::admit(tx, &target, message, now)).transpose()?;
            // The user's row replaces the record's row in the same commit, so the run counts this recipient once.
            let refetch = ledger::replace(tx, run.id, record.row_key())?;
            match admitted {
                Some(admitted) => {
                    let body = send::send(tx, admitted, now)?.sequence;
                    let (address, account) = (user.email.as_str(), user.account_id.as_deref());
                    let (page, record) = (record.page + 1, Some(text.get()));
                    let recipient = Recipient { key, user: &user.id, address, account, page, record, body, refetch };
                    ledger::add(tx, run.id, recipient, now.wall)?;
                }
                None => {
                    ledger::count_repeated(tx, run.id, 1)?;
                    ledger::removed(tx, run.id, now.wall)?;
                }
            }
            Ok(())
        };
        match self.queues.store().write::<_, Error, _>(step).await {
            Ok(()) => Outcome::done(),
            Err(error) => retry(&error),
        }
    }

    /// The user of a formerly malformed record: the stored text if it passes the check now, else the record that the
    /// users API returns today, found by its id or, without an id, by its position.
    async fn user_by_now(
        &self,
        run: &RunRecord,
        record: &Malformed,
        contacts: &mut Vec<Contact>,
    ) -> Result<User, Outcome> {
        let dead = |why| Outcome::Dead { why };
        let why = match User::check(&record.raw) {
            Ok(user) => return Ok(user),
            Err(why) => why,
        };
        // The fault was corrected either in this program, and the stored text passes, or at the source, and the page
        // must be fetched again.
        let Some(address) = &record.address else { return Err(dead(why)) };
        let page = self.users.page(address, &run.params, contacts).await;
        let mut records = page.map_err(Fault::into_outcome)?.records;
        let id = kept_id(&record.raw);
        let is_it = |found: &Record| matches!((found, &id), (Record::User(user), Some(id)) if user.id == *id);
        let position = records.iter().position(is_it).unwrap_or(record.index);
        let found = (position < records.len()).then(|| records.swap_remove(position));
        match found {
            Some(Record::Malformed { why, .. }) => Err(dead(why)),
            Some(Record::User(user)) if id.as_ref().is_none_or(|id| user.id == *id) => {
                // Without an id only the position identifies the record, and the page may have shifted since. A user
                // who has a row already is another user, who moved to this position.
                match self.is_recipient(run.id, &user) {
                    Ok(true) if id.is_none() => Err(dead(gone(record))),
                    Ok(_) => Ok(user),
                    Err(error) => Err(retry(&error)),
                }
            }
            _ => Err(dead(gone(record))),
        }
    }

    fn is_recipient(&self, run: u64, user: &User) -> Result<bool, Error> {
        let key = (run, ledger::user_key(&user.id, user.account()));
        let row = self.queues.store().snapshot()?.recipients()?.get(&key)?;
        Ok(row.is_some_and(|row| !ledger::is_of_abandoned_refetch(&row)))
    }
}

/// The id of a malformed record, if it can be read.
pub(super) fn kept_id(raw: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(raw).ok()?.get("id")? {
        serde_json::Value::String(id) => Some(id.clone()),
        serde_json::Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// The page no longer has the record, or another user is at its position.
fn gone(record: &Malformed) -> Failure {
    let (page, index) = (record.page + 1, record.index + 1);
    let text = format!("record {index} of page {page} is not there any more (fetch the users anew in another run)");
    Failure::new("data", "users", "record-gone", text)
}
