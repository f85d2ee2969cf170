//! Turns redb's panics on some damaged pages into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Error;
use super::table_id::TableId;

const REASON: &str = "redb cannot make sense of its pages (its own words stand above)";

/// A read or write of one table: the error names it.
pub(super) fn table<T>(table: TableId, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let broke = |_| Err(Error::Record { table: table.name, reason: REASON.to_owned() });
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(broke)
}

/// Work on the whole file: the error names it, as for any other damage.
pub(super) fn file<T>(path: &Path, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let broke = |_| Err(Error::Damaged { path: path.to_owned(), reason: REASON.to_owned() });
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(broke)
}
