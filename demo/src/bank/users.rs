//! Pages of users as JSON: which ones a page has, and records that are malformed on purpose.

use serde_json::{Value, json};

use super::{Malformed, PAGE_USERS_MAX, Shared};
use crate::fixtures::{User, user_id};

/// The numbers of the users on one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The first one.
    pub(super) start: u32,
    /// One past the last one.
    pub(super) end: u32,
    /// How many the page was asked for.
    pub(super) limit: u32,
}

impl Shared {
    /// The page that `cursor` and `limit` ask for; the error is for the client.
    pub(super) fn slice(&self, cursor: Option<&str>, limit: Option<&str>) -> Result<Slice, String> {
        let users = self.plan.users();
        let start = cursor.map_or(Ok(0), |cursor| {
            let read = cursor.strip_prefix("after-").and_then(crate::fixtures::user_index);
            let known = read.filter(|index| *index < users).map(|index| index + 1);
            known.ok_or_else(|| format!("cursor {cursor:?} is not one that this API gave out"))
        })?;
        let limit = limit.map_or(Ok(self.options.page_size.clamp(1, PAGE_USERS_MAX)), |limit| {
            let read = limit.parse().ok().filter(|limit| (1..=PAGE_USERS_MAX).contains(limit));
            read.ok_or_else(|| format!("limit {limit:?} is not a number from 1 to {PAGE_USERS_MAX}"))
        })?;
        Ok(Slice { start, end: users.min(start.saturating_add(limit)), limit })
    }

    /// The cursor of the page after this one.
    pub(super) fn next_cursor(&self, slice: Slice) -> Option<String> {
        (slice.end < self.plan.users()).then(|| format!("after-{}", user_id(slice.end - 1)))
    }

    /// Appends the users' records, `between` standing between two of them.
    pub(super) fn write_users(&self, out: &mut Vec<u8>, slice: Slice, between: u8) {
        let fixed = self.fixed();
        for index in slice.start..slice.end {
            if index > slice.start {
                out.push(between);
            }
            let user = self.fixtures.user(index);
            match self.plan.malformed(index).filter(|_| !fixed) {
                None => write(out, &user),
                Some(kind) => write(out, &malformed(user, kind)),
            }
        }
    }
}

/// Appends JSON.
pub(super) fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("plain structs serialize into memory");
}

/// The user's record, broken.
fn malformed(user: User, kind: Malformed) -> Value {
    let User { id, name, email, .. } = user;
    match kind {
        Malformed::InvalidEmail => json!({ "id": id, "name": name, "email": format!("{id}.example.test") }),
        Malformed::MissingEmail => json!({ "id": id, "name": name }),
        Malformed::MissingId => json!({ "name": name, "email": email }),
        Malformed::HeaderInName => {
            json!({ "id": id, "name": format!("{name}\r\nBcc: someone-else@example.test"), "email": email })
        }
        Malformed::NameIsNumber => json!({ "id": id, "name": 4711, "email": email }),
        Malformed::NotAnObject => json!(id),
    }
}
