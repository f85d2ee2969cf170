//! The recipients that an operator names: by user ids, and by accounts where a user has several.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::store::Snapshot;
use crate::store::record::RecipientRecord;

use super::{Error, ledger};

/// An error lists at most this many accounts.
const ACCOUNTS_SHOWN_MAX: usize = 10;

/// A recipient by its row's key.
pub(super) type Recipient = ([u8; 16], RecipientRecord);

/// Whom an operator names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) run: u64,
    /// The users' ids.
    pub(super) users: &'a [String],
    /// Of a user with several accounts, those that are meant.
    pub(super) accounts: &'a [String],
}

impl Named<'_> {
    /// Those recipients, in the order of their keys. Of a user's several ones only those that `is_wanted` come into
    /// question, when there are any.
    ///
    /// # Errors
    /// [`Error::NoRecipient`]; [`Error::SeveralAccounts`]; [`Error::NoAccount`]; a storage fault.
    pub(super) fn find(
        self,
        snapshot: &Snapshot,
        is_wanted: impl Fn(&Recipient) -> bool,
    ) -> Result<Vec<Recipient>, Error> {
        let run = self.run;
        let mut found: BTreeMap<&str, Vec<Recipient>> =
            self.users.iter().map(|user| (user.as_str(), Vec::new())).collect();
        snapshot.recipients()?.scan((run, [0; 16])..=(run, [0xff; 16]), |(_, key), row| {
            if let Some(rows) = found.get_mut(row.user.as_str()) {
                rows.push((key, row));
            }
            ControlFlow::Continue(())
        })?;
        let mut all = Vec::new();
        for (user, rows) in found {
            all.extend(self.choose(user, rows, &is_wanted)?);
        }
        all.sort_by_key(|(key, _)| *key);
        Ok(all)
    }

    /// Those of a user's recipients that are meant.
    fn choose(
        self,
        user: &str,
        mut rows: Vec<Recipient>,
        is_wanted: &impl Fn(&Recipient) -> bool,
    ) -> Result<Vec<Recipient>, Error> {
        let run = self.run;
        if rows.is_empty() {
            return Err(Error::NoRecipient { run, user: user.into() });
        }
        // A malformed record may name anybody's id.
        keep(&mut rows, is_user);
        keep(&mut rows, is_wanted);
        let accounts: Vec<String> = rows.iter().map(|(_, row)| account(row).to_owned()).collect();
        if rows.len() > 1 && self.accounts.is_empty() {
            return Err(Error::SeveralAccounts { run, user: user.into(), accounts: list(&accounts) });
        }
        if rows.len() > 1 {
            rows.retain(|(_, row)| self.accounts.iter().any(|wanted| wanted == account(row)));
        }
        if rows.is_empty() {
            return Err(Error::NoAccount { run, user: user.into(), accounts: list(&accounts) });
        }
        Ok(rows)
    }
}

/// Keeps those of which this holds, unless it holds of none.
fn keep(rows: &mut Vec<Recipient>, is_kept: impl Fn(&Recipient) -> bool) {
    if rows.iter().any(&is_kept) {
        rows.retain(is_kept);
    }
}

/// Whether the row is a user's and not a malformed record's. Rows of earlier versions have no address.
fn is_user((key, row): &Recipient) -> bool {
    !row.address.is_empty() || *key == ledger::user_key(&row.user, account(row))
}

fn account(row: &RecipientRecord) -> &str {
    row.account.as_deref().unwrap_or(&row.user)
}

fn list(accounts: &[String]) -> String {
    let shown: Vec<&str> = accounts.iter().take(ACCOUNTS_SHOWN_MAX).map(String::as_str).collect();
    let more = if accounts.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
