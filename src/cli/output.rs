//! The one place that prints: tables and JSON to standard output, notes and errors to standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

use crate::base::outcome::is_deceptive;
use crate::base::{Timestamp, units};

/// A word of a table's last column may be broken when it has more characters than this.
const PROSE_WORD_CHARS_MAX: usize = 40;

/// A failure's text on a terminal is shortened to this, with its remedy.
pub(super) const FAILURE_BYTES_MAX: usize = 400;

/// The first column, which names the row, is broken only when it has a cell of more characters than this.
const FIRST_CHARS_MAX: usize = 24;

/// The size of a terminal that does not tell it.
const ROWS: usize = 24;
const COLUMNS: u16 = 80;

/// How a command shows what it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    is_json: bool,
    has_colours: bool,
}

impl Output {
    /// JSON when asked for; colours only on a terminal, and not with `NO_COLOR`.
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, has_colours: !is_json && !wants_no_colour() && std::io::stdout().is_terminal() }
    }

    /// Shows data: as one JSON value, or as `text` makes it.
    pub(super) fn show<T: Serialize>(self, data: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let text = if self.is_json { json(data)? } else { text(data) };
        print(&text)
    }

    /// Shows a list; an empty one is a note to the person, and no text.
    pub(super) fn list<T: Serialize>(
        self,
        rows: &[T],
        when_empty: &str,
        text: impl FnOnce(&[T]) -> String,
    ) -> anyhow::Result<()> {
        if rows.is_empty() && !self.is_json {
            note(when_empty);
            return Ok(());
        }
        self.show(&rows, |rows| text(rows))
    }

    /// Whether data is shown as JSON.
    pub(super) const fn is_json(self) -> bool {
        self.is_json
    }

    /// Shows text in the place of what was shown before; where that cannot be, below it.
    pub(super) fn show_in_place(self, text: &str) -> anyhow::Result<()> {
        if self.is_json || !std::io::stdout().is_terminal() {
            return print(text);
        }
        let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(ROWS, |size| usize::from(size.ws_row));
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(screen(text, rows).as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Shows text that accompanies the data; with `--json` it is left out.
    #[cfg(feature = "demo")]
    pub(super) fn text(self, text: impl Display) -> anyhow::Result<()> {
        if self.is_json { Ok(()) } else { print(&text.to_string()) }
    }

    /// Shows data only with `--json`, because the accompanying text already contains it.
    #[cfg(feature = "demo")]
    pub(super) fn json<T: Serialize>(self, data: &T) -> anyhow::Result<()> {
        if self.is_json { print(&json(data)?) } else { Ok(()) }
    }

    /// A success in green.
    pub(super) fn good(self, text: impl Display) -> String {
        self.paint(AnsiColor::Green, text)
    }

    /// A problem in red.
    pub(super) fn bad(self, text: impl Display) -> String {
        self.paint(AnsiColor::Red, text)
    }

    fn paint(self, colour: AnsiColor, text: impl Display) -> String {
        if self.has_colours {
            let style = Style::new().fg_color(Some(colour.into())).bold();
            format!("{style}{text}{style:#}")
        } else {
            text.to_string()
        }
    }
}

/// What overwrites a screen of so many rows line by line, which does not flicker, and clears the rest of it.
fn screen(text: &str, rows: usize) -> String {
    let (lines, rows) = (text.lines().collect::<Vec<_>>(), rows.max(3));
    // The cursor needs the last row.
    let shown = if lines.len() < rows { lines.len() } else { rows - 2 };
    let mut out = String::from("\x1b[H");
    for line in &lines[..shown] {
        out += &format!("{line}\x1b[K\n");
    }
    if shown < lines.len() {
        out += &format!("… {} more\x1b[K\n", units::count(lines.len() - shown, "line"));
    }
    out + "\x1b[J"
}

/// A moment to the second, for tables.
pub(super) fn seconds(at: Timestamp) -> String {
    at.to_jiff().map_or_else(|| at.to_string(), |moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A moment to the minute, in UTC, where a table has little room.
pub(super) fn minutes(at: Timestamp) -> String {
    at.to_jiff().map_or_else(|| at.to_string(), |moment| moment.strftime("%d. %H:%MZ").to_string())
}

/// Whether the environment asks for plain text: `NO_COLOR` with any value (<https://no-color.org>).
pub(super) fn wants_no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Data as JSON.
fn json<T: Serialize>(data: &T) -> anyhow::Result<String> {
    Ok(escaped_json(serde_json::to_string_pretty(data)?))
}

/// JSON whose deceptive characters are escaped, as JSON allows within strings: the value is the same.
pub(super) fn escaped_json(text: String) -> String {
    // serde escapes those below U+0020 itself, and the others stand in strings alone.
    let deceives = |c: char| c > ' ' && is_deceptive(c);
    if !text.contains(deceives) {
        return text;
    }
    let escape = |c: char| if deceives(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Makes foreign text safe for a terminal: characters that could deceive are escaped, and long text is cut.
pub(super) fn tame(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().take(chars_max) {
        if is_deceptive(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

/// A note to the person at the terminal; never part of the data.
pub(super) fn note(text: impl Display) {
    // When standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table with aligned columns; those named in `numbers` are aligned to the right.
/// On a terminal it is as wide as that.
pub(super) fn table(header: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> String {
    table_of_width(header, numbers, rows, columns())
}

/// The width of the terminal; `None` when there is none.
fn columns() -> Option<u16> {
    let size = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|size| size.ws_col);
    std::io::stdout().is_terminal().then(|| size().filter(|width| *width > 0).unwrap_or(COLUMNS))
}

/// Breaks a sentence between words where the terminal's lines end.
pub(super) fn wrap(text: &str) -> String {
    wrap_behind(0, text)
}

/// As [`wrap`], for a sentence that begins behind so many characters: its further lines begin there too.
pub(super) fn wrap_behind(indent: usize, text: &str) -> String {
    match columns() {
        Some(width) => indented_at(usize::from(width), indent, text),
        None => text.to_owned(),
    }
}

fn indented_at(width: usize, indent: usize, text: &str) -> String {
    wrap_at(text, width.saturating_sub(indent)).replace('\n', &format!("\n{:indent$}", ""))
}

fn wrap_at(text: &str, width: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let chars = word.chars().count();
        if used > 0 && used + 1 + chars > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out += word;
        used += chars;
    }
    out
}

fn table_of_width(header: &[&str], numbers: &[usize], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(match width {
        Some(_) => ContentArrangement::Dynamic,
        None => ContentArrangement::Disabled,
    });
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(header.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    let widths = least_widths(header, numbers, &rows);
    table.add_rows(rows);
    for (column, chars) in table.column_iter_mut().zip(widths) {
        // Two for the padding, which counts.
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(chars + 2)));
    }
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // The first column begins at the edge, as in `ls` and `ps`.
    let text = table.trim_fmt();
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The least width of each column in characters, so that a narrow terminal breaks lines between words and never a name
/// or a number with its unit. The last column is the one for prose: words in it that are very long, such as addresses,
/// may be broken.
fn least_widths(header: &[&str], numbers: &[usize], rows: &[Vec<String>]) -> Vec<u16> {
    let longest_word = |text: &str| text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    let of_column = |(index, title): (usize, &&str)| {
        let cells = || rows.iter().filter_map(|row| row.get(index));
        let longest = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let is_whole = numbers.contains(&index) || (index == 0 && longest <= FIRST_CHARS_MAX);
        let cells = cells().map(|cell| if is_whole { cell.chars().count() } else { longest_word(cell) });
        let most = if index + 1 == header.len() { PROSE_WORD_CHARS_MAX } else { usize::from(u16::MAX / 2) };
        let chars = cells.chain([longest_word(title)]).max().unwrap_or(0).min(most);
        u16::try_from(chars).unwrap_or(u16::MAX / 2)
    };
    header.iter().enumerate().map(of_column).collect()
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        // The reader closed the pipe, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_table_breaks_lines_between_words_and_never_a_name() {
        let row =
            |name: &str, size: &str, why: &str| vec![name.to_owned(), size.into(), "period=2026-10".into(), why.into()];
        let rows = vec![
            row("monthly-statements", "2.3 KiB", "the relay says that it is too busy to take any more mails now"),
            row("a-name-with-many-characters-and-no-blank", "269 B", "monthly-statements-production-dead"),
        ];
        insta::assert_snapshot!(table_of_width(&["schedule", "its size", "parameters", "why"], &[1], rows, Some(80)), @r"
        SCHEDULE                                      ITS  PARAMETERS      WHY
                                                     SIZE
        monthly-statements                        2.3 KiB  period=2026-10  the relay says that it is too busy
                                                                           to take any more mails now
        a-name-with-many-characters-and-no-blank    269 B  period=2026-10  monthly-statements-production-dead
        ");
    }

    #[test]
    fn foreign_text_cannot_turn_a_line_round() {
        assert_eq!(tame("Ada\u{202e}adA\u{7}", 10), "Ada\\u{202e}adA\\u{7}");
        assert_eq!(tame("Ada Lovelace", 3), "Ada…");
        let data = ["\u{202e}\u{9b}\n", "é"];
        let text = json(&data).unwrap();
        assert_eq!(text, "[\n  \"\\u202e\\u009b\\n\",\n  \"é\"\n]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), data);
    }

    #[test]
    fn a_sentence_is_broken_between_words() {
        assert_eq!(wrap_at("one two three", 7), "one two\nthree");
        assert_eq!(wrap_at("a-very-long-name is long", 5), "a-very-long-name\nis\nlong");
        assert_eq!(indented_at(9, 2, "one two three"), "one two\n  three");
    }

    #[test]
    fn a_screen_is_never_higher_than_the_terminal() {
        let text = (1..=10).map(|number| number.to_string()).collect::<Vec<_>>().join("\n");
        let lines = |rows| screen(&text, rows).matches('\n').count();
        assert_eq!((lines(24), lines(11), lines(10), lines(5), lines(0)), (10, 10, 9, 4, 2));
        assert!(screen(&text, 5).contains("\n… 7 lines more\u{1b}[K\n\u{1b}[J"), "{:?}", screen(&text, 5));
    }
}
