//! The note of a run: free text for people, which identifies nothing.

use crate::store::Tx;
use crate::store::record::RunRecord;

use super::Error;

/// The longest note.
pub const NOTE_BYTES_MAX: usize = 2000;

/// Sets the note of a run in place of an earlier one; an empty one removes it.
///
/// # Errors
/// [`Error::Note`] for one that is too long or has control characters; [`Error::NotFound`]; a storage fault.
pub fn note(tx: &mut Tx<'_>, run: u64, text: &str) -> Result<(), Error> {
    check(text)?;
    let record = tx.runs()?.get(&run)?.ok_or(Error::NotFound(run))?;
    tx.runs()?.insert(&run, &RunRecord { note: text.into(), ..record })?;
    Ok(())
}

/// Checks a note before the run is there.
///
/// # Errors
/// [`Error::Note`].
pub fn check(text: &str) -> Result<(), Error> {
    if text.len() > NOTE_BYTES_MAX {
        return Err(Error::Note { why: format!("has {} bytes, at most {NOTE_BYTES_MAX}", text.len()) });
    }
    match text.chars().any(|c| c.is_control() && c != '\n') {
        true => Err(Error::Note { why: "has control characters".into() }),
        false => Ok(()),
    }
}
