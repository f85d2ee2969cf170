//! The suppression list: addresses that no run mails any more, until somebody takes them off it.
//!
//! Addresses are compared in lower case, the part before the @ too: RFC 5321 lets its case matter, no mailbox that people
//! use does, and a list that misses an address because of it would mail somebody who must not be mailed.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::base::Timestamp;
use crate::base::outcome::shorten;
use crate::function::statement::mailable_text;
use crate::store::check::Findings;
use crate::store::record::SuppressionRecord;
use crate::store::{self, Snapshot, Tx};

use super::Error;

/// A list returns, and one step adds, at most this many.
pub const LISTED_MAX: usize = 1000;
/// One step adds at most this many.
pub const ADDED_MAX: usize = 500;
/// A reason is shortened to this.
pub const REASON_BYTES_MAX: usize = 300;

/// One address of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The address.
    pub address: String,
    /// Why, for people.
    pub reason: String,
    /// Since when; when it is added, `None` for now.
    pub since: Option<Timestamp>,
}

/// Adds addresses and returns how many are new; those that are on the list keep their reason.
///
/// # Errors
/// [`Error::Address`] for one that is no mail address, before anything is written; a storage fault.
pub fn add(tx: &mut Tx<'_>, what: &[Suppression], now: Timestamp) -> Result<u64, Error> {
    let mut rows = Vec::with_capacity(what.len());
    for Suppression { address, reason, since } in what {
        let address = checked(address)?;
        let reason = shorten(reason, REASON_BYTES_MAX);
        rows.push(SuppressionRecord { address, reason, since: since.unwrap_or(now) });
    }
    let mut added = 0;
    for row in rows {
        added += u64::from(insert(tx, &row)?);
    }
    Ok(added)
}

/// Adds one address that is known to be good; false when it is on the list.
///
/// # Errors
/// A storage fault.
pub(super) fn insert(tx: &mut Tx<'_>, row: &SuppressionRecord) -> Result<bool, store::Error> {
    let key = key(&row.address);
    let is_new = tx.suppressions()?.get(&key)?.is_none();
    if is_new {
        tx.suppressions()?.insert(&key, row)?;
    }
    Ok(is_new)
}

/// Takes an address off the list; false when it is not on it.
///
/// # Errors
/// [`Error::Address`]; a storage fault.
pub fn remove(tx: &mut Tx<'_>, address: &str) -> Result<bool, Error> {
    Ok(tx.suppressions()?.remove(&key(&checked(address)?))?)
}

/// Up to [`LISTED_MAX`] addresses in order, those after `after`.
///
/// # Errors
/// A storage fault.
pub fn list(snapshot: &Snapshot, after: Option<&str>) -> Result<Vec<Suppression>, store::Error> {
    let from = after.map(key).unwrap_or_default();
    let mut listed = Vec::new();
    snapshot.suppressions()?.scan(from.clone()..=LAST.to_owned(), |found, row| {
        if after.is_none() || found != from {
            listed.push(Suppression { address: row.address, reason: row.reason, since: Some(row.since) });
        }
        if listed.len() < LISTED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(listed)
}

/// Why the address is on the list; `None` when it is not.
///
/// # Errors
/// A storage fault.
pub(super) fn reason(snapshot: &Snapshot, address: &str) -> Result<Option<String>, store::Error> {
    Ok(snapshot.suppressions()?.get(&key(address))?.map(|row| row.reason))
}

/// Whether the address is on the list.
///
/// # Errors
/// A storage fault.
pub(super) fn has(tx: &mut Tx<'_>, address: &str) -> Result<bool, store::Error> {
    Ok(tx.suppressions()?.get(&key(address))?.is_some())
}

/// Adds a finding for each row that does not stand under its address.
///
/// # Errors
/// A storage fault, or the check is to stop.
pub(super) fn check(snapshot: &Snapshot, findings: &mut Findings) -> Result<(), store::Error> {
    snapshot.suppressions()?.each_sound(|found, row| {
        if found != key(&row.address) {
            findings.add("suppressions", &found, "its address stands under another key");
        }
        findings.go_on()
    })
}

/// Above every address: those are ASCII.
const LAST: &str = "\u{10ffff}";

fn key(address: &str) -> String {
    address.to_ascii_lowercase()
}

fn checked(address: &str) -> Result<String, Error> {
    mailable_text(address).map_err(|why| Error::Address { address: shorten(address, REASON_BYTES_MAX), why })
}
