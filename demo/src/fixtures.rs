//! The demo bank's customers, a pure function of a seed: who they are and what their accounts did in a month.
//!
//! Owns the population and holds none of it in memory. Knows nothing of HTTP or mail. A month's opening balance is the
//! closing balance of the month before.

mod culture;
mod latin;
mod scripts;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::culture::Culture;
use super::rng::Rng;

/// A statement has at least this many rows.
pub const ROWS_MIN: usize = 5;
/// A statement has at most this many rows.
pub const ROWS_MAX: usize = 60;

/// Separates the streams of numbers that one user's data is made of.
const STREAM_PERSON: u64 = 1;
const STREAM_BALANCE: u64 = 2;
const STREAM_ROWS: u64 = 3;

/// The population of one seed. User numbers count from 0 and have no upper end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixtures {
    seed: u64,
}

/// One customer, as the users API lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `u-000001` for user number 0; also the account's name.
    pub id: String,
    /// The name in its own script and order.
    pub name: String,
    /// The address in the reserved domain `example.test`.
    pub email: String,
    /// A BCP 47 tag that fits the name.
    pub locale: String,
    /// The account's currency (ISO 4217).
    pub currency: String,
    /// The postal address, a line each.
    pub address: Vec<String>,
}

/// One account in one month, as the account API answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The account, equal to the user's id.
    pub account: String,
    /// ISO 4217.
    pub currency: Cow<'static, str>,
    /// The month, `2026-10`.
    pub period: String,
    /// Exact decimal with the currency's decimals.
    pub opening_balance: String,
    /// Opening balance plus all amounts.
    pub closing_balance: String,
    /// [`ROWS_MIN`] to [`ROWS_MAX`] rows, ordered by date.
    pub transactions: Vec<Row>,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `2026-10-03`, within the statement's month.
    pub date: String,
    /// What it was, in the customer's language or in English.
    pub description: Cow<'static, str>,
    /// Exact decimal with the currency's decimals; negative is money out.
    pub amount: String,
}

/// What one user's PDF and mail must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whom the mail is for.
    pub user: User,
    /// What the PDF shows.
    pub statement: Statement,
}

impl Fixtures {
    /// The population of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// User number `index`, counted from 0.
    pub fn user(&self, index: u32) -> User {
        let (culture, mut rng) = self.person(index);
        let id = user_id(index);
        let email = format!("{id}@example.test");
        let name = culture.name(&mut rng);
        let address = culture.address(&mut rng);
        User { id, name, email, locale: culture.locale.into(), currency: culture.currency.into(), address }
    }

    /// The account of user number `index` in one month.
    pub fn statement(&self, index: u32, period: Period) -> Statement {
        let (culture, _) = self.person(index);
        let opening = self.opening(index, culture, period);
        let closing = self.opening(index, culture, period.next());
        Statement {
            account: user_id(index),
            currency: Cow::Borrowed(culture.currency),
            period: period.to_string(),
            opening_balance: decimal(opening, culture.decimals),
            closing_balance: decimal(closing, culture.decimals),
            transactions: self.rows(index, culture, period, closing - opening),
        }
    }

    /// What user number `index` must get for one month.
    pub fn expected(&self, index: u32, period: Period) -> Expected {
        Expected { user: self.user(index), statement: self.statement(index, period) }
    }

    /// The culture of a user, and the stream of numbers for the rest of the user's data.
    fn person(&self, index: u32) -> (&'static Culture, Rng) {
        let mut rng = Rng::of(&[self.seed, u64::from(index), STREAM_PERSON]);
        (choose_culture(&mut rng), rng)
    }

    /// The balance at the start of a month in the currency's smallest unit.
    fn opening(&self, index: u32, culture: &Culture, period: Period) -> i64 {
        let mut rng = Rng::of(&[self.seed, u64::from(index), STREAM_BALANCE, period.number()]);
        culture.amount(&mut rng, 12_000) - culture.amount(&mut rng, 900)
    }

    /// The month's rows; the last one, a transfer between own accounts, makes them sum up to `change`.
    fn rows(&self, index: u32, culture: &'static Culture, period: Period, change: i64) -> Vec<Row> {
        let mut rng = Rng::of(&[self.seed, u64::from(index), STREAM_ROWS, period.number()]);
        let count = ROWS_MIN + rng.below((ROWS_MAX - ROWS_MIN + 1) as u64) as usize;
        let mut rows = Vec::with_capacity(count);
        let mut left = change;
        for place in 0..count {
            let date = period.date(place * usize::from(period.days()) / count);
            let (description, amount) = match place + 1 == count {
                true => (Cow::Borrowed(culture.transfer), left),
                false => culture.transaction(&mut rng),
            };
            left -= amount;
            rows.push(Row { date, description, amount: decimal(amount, culture.decimals) });
        }
        rows
    }
}

/// Draws a culture, weighted by frequency.
fn choose_culture(rng: &mut Rng) -> &'static Culture {
    let mut left = rng.below(1000);
    for culture in latin::ALL.iter().chain(scripts::ALL) {
        if left < culture.per_mille {
            return culture;
        }
        left -= culture.per_mille;
    }
    &latin::ALL[0]
}

/// The id of user number `index`: six digits or more, counted from 1.
pub fn user_id(index: u32) -> String {
    format!("u-{:06}", u64::from(index) + 1)
}

/// The number of the user with this id; `None` for any text that [`user_id`] does not make.
pub fn user_index(id: &str) -> Option<u32> {
    let number: u64 = id.strip_prefix("u-")?.parse().ok()?;
    let index = u32::try_from(number.checked_sub(1)?).ok()?;
    (user_id(index) == id).then_some(index)
}

/// An amount in the currency's smallest unit as an exact decimal, e.g. `-12.50`.
fn decimal(amount: i64, decimals: u32) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let (unit, amount) = (10_u64.pow(decimals), amount.unsigned_abs());
    match decimals {
        0 => format!("{sign}{amount}"),
        _ => format!("{sign}{}.{:0width$}", amount / unit, amount % unit, width = decimals as usize),
    }
}

/// One calendar month, `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    year: u16,
    month: u8,
}

impl Period {
    /// Months since year 0.
    fn number(self) -> u64 {
        u64::from(self.year) * 12 + u64::from(self.month)
    }

    /// The month after this one.
    fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            _ => Self { month: self.month + 1, ..self },
        }
    }

    /// How many days it has.
    fn days(self) -> u8 {
        let leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The day that is `days` after the first one, `2026-10-03`.
    fn date(self, days: usize) -> String {
        format!("{self}-{:02}", days + 1)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidPeriod(text.chars().take(80).collect());
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        match text.split_once('-') {
            Some((year, month)) if year.len() == 4 && month.len() == 2 && digits(year) && digits(month) => {
                let period =
                    Self { year: year.parse().map_err(|_| refused())?, month: month.parse().map_err(|_| refused())? };
                (1..=12).contains(&period.month).then_some(period).ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }
}

/// The text is not a month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("period {0:?} is not a month (write it as year and month, e.g. 2026-10)")]
pub struct InvalidPeriod(String);

#[cfg(test)]
mod tests;
