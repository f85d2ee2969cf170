//! What stands where on the pages of a statement.
//!
//! Letterhead, address, facts and summary on the first page; on each page the table with its header, the balance
//! carried forward, footer and page number. Measures are points from the top left corner of A4. Must not know fonts or
//! files.

use std::borrow::Cow;

use rust_decimal::Decimal;

use super::super::account::DESCRIPTION_CHARS_MAX;
use super::super::locale::{Labels, Locale};
use super::super::money::Format;
use super::canvas::{Canvas, Ink, PAGE_HEIGHT, PAGE_WIDTH};
use super::document::Document;
use super::fonts::Weight::{self, Bold, Regular};
use super::text::{Text, shape};
use super::wrap::{wrap, wrap_at_most};
use crate::base::Failure;

const LEFT: f32 = 56.7;
const RIGHT: f32 = PAGE_WIDTH - 56.7;
const WIDTH: f32 = RIGHT - LEFT;

const NAVY: Ink = Ink(27, 47, 77);
const TEXT: Ink = Ink(32, 36, 43);
const MUTED: Ink = Ink(107, 116, 130);
const GREEN: Ink = Ink(24, 107, 78);
const WHITE: Ink = Ink(255, 255, 255);
const PALE: Ink = Ink(243, 245, 249);
const PALE_ON_NAVY: Ink = Ink(190, 202, 220);
const HAIRLINE: Ink = Ink(222, 227, 235);

/// The size of the table's text, the distance of its lines and the white between rows.
const ROW_SIZE: f32 = 8.5;
const ROW_LINE: f32 = 10.6;
const ROW_PAD: f32 = 3.4;
/// The height of a row of one line.
const ROW_HEIGHT: f32 = ROW_LINE + ROW_PAD;
/// The lines of one description that stay together; a longer one goes on in a row without figures.
const ROW_LINES_MAX: usize = 24;
/// No page holds as many rows as this.
const PAGE_ROWS_MAX: usize = 60;
/// Between the columns of the table.
const GAP: f32 = 14.0;

/// Draws all pages.
///
/// # Errors
/// A failure `too-many-pages` as soon as there are more than the options allow.
pub(super) fn draw(canvas: &mut Canvas<'_>, document: &Document<'_>, locale: &Locale) -> Result<(), Failure> {
    // What cannot fit is refused before any of it is shaped and held in memory.
    if document.account.transactions.len() / PAGE_ROWS_MAX >= document.options.pages_max as usize {
        return Err(too_many_pages(document));
    }
    let money = Format::new(locale, document.account.currency);
    let mut page = Page::new(canvas, document, locale, &money);
    page.first_page()?;
    page.table()?;
    page.feet();
    Ok(())
}

fn too_many_pages(document: &Document<'_>) -> Failure {
    let text = format!(
        "{} transactions need more than {} pages (raise document.pages_max, or state shorter periods)",
        document.account.transactions.len(),
        document.options.pages_max
    );
    Failure::new("render", "statement", "too-many-pages", text)
}

/// A document while it is drawn from top to bottom.
struct Page<'c, 'f, 'd> {
    canvas: &'c mut Canvas<'f>,
    document: &'d Document<'d>,
    locale: &'d Locale,
    labels: &'static Labels,
    money: &'d Format,
    /// The next free place from the top.
    y: f32,
    /// The footer's lines, the same on each page.
    footer: Vec<Text>,
    /// Where the figures of the amount column end.
    amount_right: f32,
    /// How wide descriptions may be.
    description_width: f32,
}

/// One row of the table, shaped.
struct Row<'r> {
    date: Option<Cow<'r, str>>,
    lines: Vec<Text>,
    amount: Option<(Text, Ink)>,
    balance: Option<Text>,
    ink: Ink,
}

impl<'c, 'f, 'd> Page<'c, 'f, 'd> {
    fn new(canvas: &'c mut Canvas<'f>, document: &'d Document<'d>, locale: &'d Locale, money: &'d Format) -> Self {
        let footer = wrap_at_most(canvas.fonts(), Regular, &document.options.footer, thousandths(400.0, 6.8), 4);
        let labels = locale.labels();
        Self { canvas, document, locale, labels, money, y: 0.0, footer, amount_right: RIGHT, description_width: WIDTH }
    }

    fn shape(&self, weight: Weight, text: &str) -> Text {
        shape(self.canvas.fonts(), weight, text)
    }

    /// One line of text from outside, cut to the width.
    fn fit(&self, weight: Weight, text: &str, width: f32, size: f32) -> Text {
        wrap_at_most(self.canvas.fonts(), weight, text, thousandths(width - size, size), 1).pop().unwrap_or_default()
    }

    /// Where the table must end on each page.
    fn bottom(&self) -> f32 {
        PAGE_HEIGHT - 44.0 - self.footer.len().max(1) as f32 * 8.6 - 8.0
    }

    fn add_page(&mut self) -> Result<(), Failure> {
        if self.canvas.pages() >= self.document.options.pages_max as usize {
            return Err(too_many_pages(self.document));
        }
        self.canvas.add_page();
        Ok(())
    }

    fn first_page(&mut self) -> Result<(), Failure> {
        self.add_page()?;
        self.letterhead();
        let top = self.y + 32.0;
        let after_address = self.address(top);
        let after_facts = self.facts(top);
        self.y = after_address.max(after_facts) + 26.0;
        let title = self.shape(Bold, self.labels.statement);
        self.canvas.text(&title, LEFT, self.y, 19.0, NAVY);
        self.y += 16.0;
        self.summary();
        self.y += 20.0;
        Ok(())
    }

    fn letterhead(&mut self) {
        let fonts = self.canvas.fonts();
        let mut left = 62.0;
        for line in wrap_at_most(fonts, Bold, &self.document.options.issuer, thousandths(270.0, 15.0), 2) {
            self.canvas.text(&line, LEFT, left, 15.0, NAVY);
            left += 18.0;
        }
        let mut right = 56.0;
        for line in self.document.options.issuer_lines.iter().take(6) {
            let line = self.fit(Regular, line, 190.0, 8.0);
            self.canvas.text_right(&line, RIGHT, right, 8.0, MUTED);
            right += 10.6;
        }
        self.y = f32::max(left - 8.0, right - 2.0).max(78.0);
        self.canvas.fill(LEFT, self.y, WIDTH, 1.2, NAVY);
    }

    fn address(&mut self, top: f32) -> f32 {
        let fonts = self.canvas.fonts();
        let width = thousandths(225.0, 10.0);
        let mut lines = wrap_at_most(fonts, Regular, self.document.holder, width, 3);
        for line in self.document.address {
            lines.extend(wrap_at_most(fonts, Regular, line, width, 2));
        }
        lines.truncate(9);
        let mut y = top;
        for line in &lines {
            self.canvas.text(line, LEFT, y, 10.0, TEXT);
            y += 13.6;
        }
        // The address keeps the height of five lines, so that what follows begins at the same place on most letters.
        y.max(top + 5.0 * 13.6)
    }

    fn facts(&mut self, top: f32) -> f32 {
        let account = self.document.account;
        let period = self.locale.period(&account.period);
        let facts = [
            (self.labels.account, account.account.as_str()),
            (self.labels.period, period.as_str()),
            (self.labels.currency, account.currency.code()),
        ];
        let mut y = top;
        for (label, value) in facts {
            let label = self.shape(Regular, label);
            let value = self.fit(Regular, value, 145.0, 8.8);
            self.canvas.text(&label, 330.0, y, 8.8, MUTED);
            self.canvas.text_right(&value, RIGHT, y, 8.8, TEXT);
            self.canvas.fill(330.0, y + 5.0, RIGHT - 330.0, 0.4, HAIRLINE);
            y += 16.4;
        }
        y
    }

    fn summary(&mut self) {
        let account = self.document.account;
        let cells = [
            (self.labels.opening_balance, account.opening_balance),
            (self.labels.money_in, account.money_in()),
            (self.labels.money_out, account.money_out()),
            (self.labels.closing_balance, account.closing_balance),
        ];
        let (width, height) = (WIDTH / 4.0, 42.0);
        self.canvas.fill(LEFT, self.y, WIDTH - width, height, PALE);
        self.canvas.fill(RIGHT - width, self.y, width, height, NAVY);
        for (index, (label, value)) in cells.into_iter().enumerate() {
            let x = LEFT + width * index as f32 + 10.0;
            let (label_ink, ink) = if index == 3 { (PALE_ON_NAVY, WHITE) } else { (MUTED, NAVY) };
            let label = self.shape(Regular, label);
            self.canvas.text(&label, x, self.y + 15.0, 7.4, label_ink);
            let value = self.shape(Bold, &self.money.figure(value));
            let size = f32::min(11.0, (width - 16.0) * 1000.0 / value.width.max(1.0));
            self.canvas.text(&value, x, self.y + 31.0, size, ink);
        }
        self.y += height;
    }

    /// Makes the two figure columns as wide as their widest figure.
    fn set_columns(&mut self, figures: &[(Text, Text)]) {
        let account = self.document.account;
        let widest = |texts: &mut dyn Iterator<Item = f32>| texts.fold(0.0, f32::max) * ROW_SIZE / 1000.0;
        let label = |page: &Self, label: &str| page.shape(Bold, label).width * 7.6 / 1000.0;
        let ends = [account.opening_balance, account.closing_balance]
            .map(|value| self.shape(Bold, &self.money.figure(value)).width);
        let amount = widest(&mut figures.iter().map(|(amount, _)| amount.width)).max(label(self, self.labels.amount));
        let balance = widest(&mut figures.iter().map(|(_, balance)| balance.width).chain(ends))
            .max(label(self, self.labels.balance));
        self.amount_right = RIGHT - balance.max(62.0) - GAP;
        self.description_width = self.amount_right - amount.max(54.0) - GAP - self.description_left();
    }

    fn description_left(&self) -> f32 {
        LEFT + 62.0
    }

    fn table(&mut self) -> Result<(), Failure> {
        let account = self.document.account;
        let mut balance = account.opening_balance;
        let figures: Vec<(Text, Text)> = account
            .transactions
            .iter()
            .map(|transaction| {
                balance += transaction.amount;
                let amount = self.money.figure(transaction.amount);
                (self.shape(Regular, &amount), self.shape(Regular, &self.money.figure(balance)))
            })
            .collect();
        self.set_columns(&figures);
        self.table_header();
        self.balance_row(self.labels.opening_balance, account.opening_balance, MUTED, Regular);
        if account.transactions.is_empty() {
            self.no_transactions();
        }
        let mut balance = account.opening_balance;
        for (transaction, (amount, after)) in account.transactions.iter().zip(figures) {
            let size = thousandths(self.description_width, ROW_SIZE);
            let fonts = self.canvas.fonts();
            let mut lines = wrap(fonts, Regular, &transaction.description, size, DESCRIPTION_CHARS_MAX);
            let rest = lines.split_off(lines.len().min(ROW_LINES_MAX));
            let ink = if transaction.amount > Decimal::ZERO { GREEN } else { TEXT };
            let date = Some(Cow::Owned(self.locale.date(transaction.date)));
            let row = Row { date, lines, amount: Some((amount, ink)), balance: Some(after), ink: TEXT };
            self.row(&row, balance)?;
            balance += transaction.amount;
            self.more_lines(rest, balance)?;
        }
        // Nothing comes after the closing balance, so it may take the place of a line carried forward.
        self.make_room(0.0, balance)?;
        self.canvas.fill(LEFT, self.y, WIDTH, 0.8, NAVY);
        self.balance_row(self.labels.closing_balance, account.closing_balance, NAVY, Bold);
        Ok(())
    }

    fn table_header(&mut self) {
        let baseline = self.y + 9.0;
        let [date, description, amount, balance] =
            [self.labels.date, self.labels.description, self.labels.amount, self.labels.balance]
                .map(|label| self.shape(Bold, label));
        self.canvas.text(&date, LEFT, baseline, 7.6, NAVY);
        self.canvas.text(&description, self.description_left(), baseline, 7.6, NAVY);
        self.canvas.text_right(&amount, self.amount_right, baseline, 7.6, NAVY);
        self.canvas.text_right(&balance, RIGHT, baseline, 7.6, NAVY);
        self.y += 15.0;
        self.canvas.fill(LEFT, self.y, WIDTH, 0.8, NAVY);
        self.y += 0.8;
    }

    /// A row of the table that says a balance only.
    fn balance_row(&mut self, label: &str, balance: Decimal, ink: Ink, weight: Weight) {
        let label = self.shape(weight, label);
        let balance = self.shape(weight, &self.money.figure(balance));
        let row = Row { date: None, lines: vec![label], amount: None, balance: Some(balance), ink };
        self.draw_row(&row);
    }

    fn no_transactions(&mut self) {
        let text = self.shape(Regular, self.labels.no_transactions);
        self.canvas.text(&text, self.description_left(), self.y + 22.0, 9.2, TEXT);
        self.y += 36.0;
    }

    /// The lines of a description that did not stay together with its first ones.
    fn more_lines(&mut self, mut lines: Vec<Text>, balance: Decimal) -> Result<(), Failure> {
        while !lines.is_empty() {
            let rest = lines.split_off(lines.len().min(ROW_LINES_MAX));
            self.row(&Row { date: None, lines, amount: None, balance: None, ink: TEXT }, balance)?;
            lines = rest;
        }
        Ok(())
    }

    /// Draws a row, on a new page when it does not fit; `before` is the balance before it.
    fn row(&mut self, row: &Row<'_>, before: Decimal) -> Result<(), Failure> {
        self.make_room(row.height(), before)?;
        self.draw_row(row);
        self.canvas.fill(LEFT, self.y - 0.2, WIDTH, 0.4, HAIRLINE);
        Ok(())
    }

    /// Goes to a new page unless `height` and a line carried forward still fit.
    fn make_room(&mut self, height: f32, balance: Decimal) -> Result<(), Failure> {
        if self.y + height + ROW_HEIGHT <= self.bottom() {
            return Ok(());
        }
        self.balance_row(self.labels.carried_forward, balance, MUTED, Regular);
        self.add_page()?;
        self.running_head();
        self.table_header();
        self.balance_row(self.labels.brought_forward, balance, MUTED, Regular);
        Ok(())
    }

    fn running_head(&mut self) {
        let account = self.document.account;
        let issuer = self.fit(Bold, &self.document.options.issuer, 220.0, 9.0);
        self.canvas.text(&issuer, LEFT, 52.0, 9.0, NAVY);
        let period = self.locale.period(&account.period);
        let about = format!("{}  ·  {}  ·  {period}", self.labels.statement, account.account);
        let about = self.fit(Regular, &about, 250.0, 7.8);
        self.canvas.text_right(&about, RIGHT, 52.0, 7.8, MUTED);
        self.canvas.fill(LEFT, 60.0, WIDTH, 0.8, NAVY);
        self.y = 76.0;
    }

    fn draw_row(&mut self, row: &Row<'_>) {
        let baseline = self.y + ROW_PAD + 6.5;
        if let Some(date) = &row.date {
            let date = self.shape(Regular, date);
            self.canvas.text(&date, LEFT, baseline, ROW_SIZE, MUTED);
        }
        for (index, line) in row.lines.iter().enumerate() {
            let y = baseline + index as f32 * ROW_LINE;
            self.canvas.text(line, self.description_left(), y, ROW_SIZE, row.ink);
        }
        if let Some((amount, ink)) = &row.amount {
            self.canvas.text_right(amount, self.amount_right, baseline, ROW_SIZE, *ink);
        }
        if let Some(balance) = &row.balance {
            self.canvas.text_right(balance, RIGHT, baseline, ROW_SIZE, row.ink);
        }
        self.y += row.height();
    }

    /// Footer and page number of each page, now that their count is known.
    fn feet(&mut self) {
        let pages = self.canvas.pages();
        let top = self.bottom() + 8.0;
        for page in 0..pages {
            self.canvas.turn_to(page);
            self.canvas.fill(LEFT, top, WIDTH, 0.4, HAIRLINE);
            for (index, line) in self.footer.iter().enumerate() {
                self.canvas.text(line, LEFT, top + 12.0 + index as f32 * 8.6, 6.8, MUTED);
            }
            let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
            let text = shape(self.canvas.fonts(), Regular, &self.labels.page_of(number(page + 1), number(pages)));
            self.canvas.text_right(&text, RIGHT, top + 12.0, 6.8, MUTED);
        }
    }
}

impl Row<'_> {
    fn height(&self) -> f32 {
        (self.lines.len().max(1) - 1) as f32 * ROW_LINE + ROW_HEIGHT
    }
}

/// A width in points as thousandths of an em of a size.
fn thousandths(width: f32, size: f32) -> f32 {
    width * 1000.0 / size
}
