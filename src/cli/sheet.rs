//! CSV after RFC 4180 that opens in a spreadsheet without harm, and reads back as it was.

use std::borrow::Cow;
use std::io::Write;

use csv::{Terminator, Writer, WriterBuilder};

/// What a spreadsheet takes for the beginning of a formula; the last four are the same in full width.
const FORMULA: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

/// Writes rows of cells.
pub(super) struct Sheet<W: Write>(Writer<W>);

impl<W: Write> Sheet<W> {
    /// Begins with the header.
    pub(super) fn new(out: W, header: &[&str]) -> anyhow::Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        writer.write_record(header).map_err(fault)?;
        Ok(Self(writer))
    }

    /// Writes one row.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = Cow<'a, str>>) -> anyhow::Result<()> {
        for cell in cells {
            self.0.write_field(defused(cell).as_bytes()).map_err(fault)?;
        }
        self.0.write_record(None::<&[u8]>).map_err(fault)
    }

    /// Writes what is buffered.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.0.flush()?)
    }
}

/// A cell that a spreadsheet would take for a formula begins with an apostrophe
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). They skip blanks in front of one.
fn defused(cell: Cow<'_, str>) -> Cow<'_, str> {
    if is_formula(&cell) { Cow::Owned(format!("'{cell}")) } else { cell }
}

/// The cell without the apostrophe that [`Sheet`] put in front of it.
pub(super) fn restored(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(cell)
}

fn is_formula(cell: &str) -> bool {
    cell.trim_start_matches([' ', '\n']).starts_with(FORMULA)
}

/// A fault of writing, which may be a closed pipe.
fn fault(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => anyhow::anyhow!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_as_a_formula_does_and_each_reads_back() {
        for cell in ["=1+1", "+49", "-5", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1", "＝1"] {
            assert_eq!(defused(cell.into()), format!("'{cell}"));
            assert_eq!(restored(&defused(cell.into())), cell);
        }
        for cell in ["", "u-17", "250 2.0.0 ok", "<1@b.example>", "a=b", "1-2", "'quoted'"] {
            assert_eq!(defused(cell.into()), cell);
            assert_eq!(restored(cell), cell);
        }
    }
}
