//! The one place that prints: tables and JSON to standard output, notes and errors to standard error.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

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
        let text = if self.is_json { serde_json::to_string_pretty(data)? } else { text(data) };
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

    /// Shows text that accompanies the data; with `--json` it is left out.
    #[cfg(feature = "demo")]
    pub(super) fn text(self, text: impl Display) -> anyhow::Result<()> {
        if self.is_json { Ok(()) } else { print(&text.to_string()) }
    }

    /// Shows data only with `--json`, because the accompanying text already contains it.
    #[cfg(feature = "demo")]
    pub(super) fn json<T: Serialize>(self, data: &T) -> anyhow::Result<()> {
        if self.is_json { print(&serde_json::to_string_pretty(data)?) } else { Ok(()) }
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

/// Whether the environment asks for plain text: `NO_COLOR` with any value (<https://no-color.org>).
pub(super) fn wants_no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Makes foreign text safe for a terminal: control characters are escaped, and long text is cut.
pub(super) fn tame(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().take(chars_max) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
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
pub(super) fn table(header: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    table.add_rows(rows);
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // The first column begins at the edge, as in `ls` and `ps`.
    let text = table.trim_fmt();
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        // The reader closed the pipe, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
