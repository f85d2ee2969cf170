//! The response of the account API as checked values: it names the expected account and its figures add up exactly.
//!
//! Knows the JSON shape and ISO 4217; must not know HTTP, locales or pages. Every failure here is permanent: another
//! request would return the same response.

use std::fmt;

use iso_currency::Currency;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::base::Failure;

/// A response with more transactions than this is refused.
pub const TRANSACTIONS_MAX: usize = 100_000;
/// A transaction's description may have this many characters.
pub const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// No amount or balance may be further from zero than this; sums of [`TRANSACTIONS_MAX`] such amounts stay exact.
pub const AMOUNT_MAX: u64 = 999_999_999_999_999;
/// A period's name may have this many characters.
pub const PERIOD_CHARS_MAX: usize = 40;

/// The account and period that the response must be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The requested account.
    pub account: String,
    /// The requested period, e.g. `2026-10`; any period when `None`.
    pub period: Option<String>,
}

/// One account's checked figures for one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's id.
    pub account: String,
    /// The currency of all its figures.
    pub currency: Currency,
    /// The period's name as the API returned it; empty when it returned none and none was requested.
    pub period: String,
    /// The balance before the first transaction.
    pub opening_balance: Decimal,
    /// The balance after the last transaction; equals opening balance plus all amounts.
    pub closing_balance: Decimal,
    /// The transactions in the API's order, at most [`TRANSACTIONS_MAX`].
    pub transactions: Vec<Transaction>,
}

/// One movement of money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The booking day.
    pub date: Date,
    /// What it was for, at most [`DESCRIPTION_CHARS_MAX`] characters.
    pub description: String,
    /// Money in is positive, money out negative.
    pub amount: Decimal,
}

impl Account {
    /// The sum of all positive amounts.
    pub fn money_in(&self) -> Decimal {
        self.transactions.iter().map(|t| t.amount).filter(Decimal::is_sign_positive).sum()
    }

    /// The sum of all negative amounts, itself zero or negative.
    pub fn money_out(&self) -> Decimal {
        self.transactions.iter().map(|t| t.amount).filter(Decimal::is_sign_negative).sum()
    }
}

/// Reads and checks the response of the account API.
///
/// Amounts are JSON strings or numbers and stay exact; unknown fields are ignored.
///
/// # Errors
/// A failure of kind `data`, place `account` and one of these codes: `empty`, `html` (or XML), `invalid-utf8`,
/// `truncated` (JSON that was cut off), `malformed` (not this JSON; the text says where and what was expected), `account-mismatch`, `period-mismatch`, `unknown-currency`, `invalid-amount`,
/// `amount-out-of-range`, `too-many-decimals`, `invalid-date`, `description-too-long`, `too-many-transactions`,
/// `balance-mismatch`. Until the account is known to be the expected one, a text quotes nothing but account ids.
pub fn parse(body: &[u8], expect: &Expected) -> Result<Account, Failure> {
    check_account(body, expect)?;
    let wire: WireAccount<'_> = read(body)?;
    let at = Position { body };
    let period = check_period(wire.period, expect)?;
    let currency = check_currency(&wire.currency)?;
    let decimals = currency.exponent().map(u32::from).ok_or_else(|| {
        failure("unknown-currency", format!("currency {} has no minor unit and cannot be stated", currency.code()))
    })?;
    if wire.transactions.len() > TRANSACTIONS_MAX {
        let text = format!("transactions: {} are more than the limit of {TRANSACTIONS_MAX}", wire.transactions.len());
        return Err(failure("too-many-transactions", text));
    }
    let opening_balance = amount(wire.opening_balance, "opening_balance", decimals, &at)?;
    let closing_balance = amount(wire.closing_balance, "closing_balance", decimals, &at)?;
    let transactions = wire
        .transactions
        .into_iter()
        .enumerate()
        .map(|(index, row)| transaction(row, index, decimals, &at))
        .collect::<Result<Vec<_>, _>>()?;
    let account =
        Account { account: expect.account.clone(), currency, period, opening_balance, closing_balance, transactions };
    check_balance(&account)?;
    Ok(account)
}

/// The one field that is read first: until it matches, the response may be another account's.
#[derive(Deserialize)]
struct WireHead<'a> {
    #[serde(default, borrow)]
    account: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireAccount<'a> {
    #[serde(rename = "account")]
    _account: IgnoredAny,
    currency: String,
    #[serde(default)]
    period: Option<String>,
    #[serde(borrow)]
    opening_balance: &'a RawValue,
    #[serde(borrow)]
    closing_balance: &'a RawValue,
    #[serde(borrow)]
    transactions: Vec<WireTransaction<'a>>,
}

#[derive(Deserialize)]
struct WireTransaction<'a> {
    date: String,
    description: String,
    #[serde(borrow)]
    amount: &'a RawValue,
}

fn failure(code: &str, text: impl fmt::Display) -> Failure {
    Failure::new("data", "account", code, text)
}

/// Cuts a foreign text for quoting.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    format!("{cut:?}")
}

/// Reads JSON whose values may be quoted in the failure.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        match std::str::from_utf8(body) {
            Ok(_) => failure("malformed", format!("{place}{}", error.into_inner())),
            Err(_) => not_utf8(),
        }
    })?;
    json.end().map_err(|error| failure("malformed", format!("more follows after the answer's object: {error}")))?;
    Ok(value)
}

/// These failures may quote nothing of the response but its account id: it may be another account's.
fn check_account(body: &[u8], expect: &Expected) -> Result<(), Failure> {
    let head: WireHead<'_> = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(failure("malformed", "the body is a JSON array, expected a JSON object"));
    }
    let Some(raw) = head.account else {
        let text = format!("the answer names no account, asked was {} (field \"account\")", quoted(&expect.account));
        return Err(failure("account-mismatch", text));
    };
    let named = serde_json::from_str::<String>(raw.get()).map_err(|_| {
        let text = format!("account: must be a string, the id that was asked for: {}", quoted(&expect.account));
        failure("account-mismatch", text)
    })?;
    if named == expect.account {
        return Ok(());
    }
    let text = format!("the answer names account {}, asked was {}", quoted(&named), quoted(&expect.account));
    Err(failure("account-mismatch", text))
}

/// Says what the body is instead of JSON, without quoting it.
fn not_json(body: &[u8], error: &serde_json::Error) -> Failure {
    let (line, column) = (error.line(), error.column());
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => failure("empty", "the body is empty, expected a JSON object"),
        Some(b'<') => {
            failure("html", "the body is HTML or XML, not JSON (is account.url an API's address, and the token right?)")
        }
        _ if std::str::from_utf8(body).is_err() => not_utf8(),
        _ if error.is_eof() => {
            failure("truncated", format!("the body ends early, at line {line} column {column}: it was cut off"))
        }
        _ if error.is_data() => {
            let text = format!("expected a JSON object with one \"account\", at line {line} column {column}");
            failure("malformed", text)
        }
        _ => failure("malformed", format!("the body is not JSON: {error}")),
    }
}

fn not_utf8() -> Failure {
    failure("invalid-utf8", "the body is not UTF-8 (send UTF-8)")
}

fn check_period(named: Option<String>, expect: &Expected) -> Result<String, Failure> {
    let named = named.unwrap_or_default();
    match &expect.period {
        Some(period) if *period != named => {
            let text = format!("the answer is for period {}, asked was {}", quoted(&named), quoted(period));
            Err(failure("period-mismatch", text))
        }
        _ if named.chars().count() > PERIOD_CHARS_MAX => {
            let text = format!("period: {} is longer than {PERIOD_CHARS_MAX} characters", quoted(&named));
            Err(failure("malformed", text))
        }
        _ => Ok(named),
    }
}

fn check_currency(code: &str) -> Result<Currency, Failure> {
    Currency::from_code(code).ok_or_else(|| {
        let text = format!("currency: {} is not an ISO 4217 code (three capital letters, e.g. \"EUR\")", quoted(code));
        failure("unknown-currency", text)
    })
}

fn check_balance(account: &Account) -> Result<(), Failure> {
    let sum: Decimal = account.transactions.iter().map(|t| t.amount).sum();
    if account.opening_balance + sum == account.closing_balance {
        return Ok(());
    }
    let text = format!(
        "opening balance {} plus transactions {} is {}, but the closing balance is {}",
        account.opening_balance,
        sum,
        account.opening_balance + sum,
        account.closing_balance
    );
    Err(failure("balance-mismatch", text))
}

fn transaction(
    row: WireTransaction<'_>,
    index: usize,
    decimals: u32,
    at: &Position<'_>,
) -> Result<Transaction, Failure> {
    let date = date(&row.date).ok_or_else(|| {
        let text = format!("transactions[{index}].date: {} is not a day (YYYY-MM-DD)", quoted(&row.date));
        failure("invalid-date", text)
    })?;
    let chars = row.description.chars().count();
    if chars > DESCRIPTION_CHARS_MAX {
        let text = format!(
            "transactions[{index}].description: {chars} characters are more than the limit of {DESCRIPTION_CHARS_MAX}"
        );
        return Err(failure("description-too-long", text));
    }
    let amount = amount(row.amount, &format!("transactions[{index}].amount"), decimals, at)?;
    Ok(Transaction { date, description: row.description, amount })
}

/// Only `YYYY-MM-DD`; jiff alone would also take times and drop them.
fn date(text: &str) -> Option<Date> {
    let shape = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if shape { text.parse().ok() } else { None }
}

/// Reads one exact amount from a JSON string or number.
fn amount(raw: &RawValue, path: &str, decimals: u32, at: &Position<'_>) -> Result<Decimal, Failure> {
    let json = raw.get();
    let place = || format!("{path}: {} at {}", quoted(json), at.of(json));
    let invalid =
        || failure("invalid-amount", format!("{} is not an amount (e.g. \"-12.50\" or -12.5, no grouping)", place()));
    let out_of_range = || failure("amount-out-of-range", format!("{} is beyond ±{AMOUNT_MAX}", place()));
    let value = if json.starts_with('"') {
        let text: String = serde_json::from_str(json).map_err(|_| invalid())?;
        if !is_plain_decimal(&text) {
            return Err(invalid());
        }
        Decimal::from_str_exact(&text).map_err(|_| out_of_range())?
    } else if json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        if json.contains(['e', 'E']) {
            Decimal::from_scientific(json).map_err(|_| out_of_range())?
        } else {
            Decimal::from_str_exact(json).map_err(|_| out_of_range())?
        }
    } else {
        return Err(invalid());
    };
    if value.abs() > Decimal::from(AMOUNT_MAX) {
        return Err(out_of_range());
    }
    let mut value = value.normalize();
    if value.scale() > decimals {
        let text = format!("{} has {} decimals, the currency has {decimals}", place(), value.scale());
        return Err(failure("too-many-decimals", text));
    }
    value.rescale(decimals);
    if value.is_zero() {
        value.set_sign_positive(true);
    }
    Ok(value)
}

fn is_plain_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

/// Finds the position of a borrowed piece of JSON in its body.
struct Position<'a> {
    body: &'a [u8],
}

impl Position<'_> {
    fn of(&self, piece: &str) -> String {
        let offset = (piece.as_ptr() as usize).saturating_sub(self.body.as_ptr() as usize).min(self.body.len());
        let before = &self.body[..offset];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        format!("line {line} column {column}")
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
