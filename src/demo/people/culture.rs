//! What a customer's language and country decide: names, addresses, currency and what money is spent on.
//!
//! Owns how the tables are read; the tables stand in `latin` and `scripts`.

use std::borrow::Cow;

use super::super::dice::Dice;
use super::{latin, scripts};

/// One language in one country.
pub(super) struct Culture {
    /// Of 1,000 customers, about this many.
    pub(super) per_mille: u64,
    /// A BCP 47 tag.
    pub(super) locale: &'static str,
    /// ISO 4217.
    pub(super) currency: &'static str,
    /// The currency's decimals (ISO 4217: JPY 0, EUR 2, KWD 3).
    pub(super) decimals: u32,
    /// About how many units of the currency buy what one euro buys.
    pub(super) euro: i64,
    /// Names that come first in their own order.
    pub(super) first: &'static [&'static str],
    /// Names that come second.
    pub(super) second: &'static [&'static str],
    /// What stands between the two: a space, or nothing in Chinese, Japanese and Korean.
    pub(super) between: &'static str,
    /// Streets; `#` becomes the house number.
    pub(super) streets: &'static [&'static str],
    /// Towns with their postal code.
    pub(super) towns: &'static [&'static str],
    /// Money in.
    pub(super) income: &'static [&'static str],
    /// Money out.
    pub(super) spending: &'static [&'static str],
    /// Money moved between own accounts: the row that makes the sum right.
    pub(super) transfer: &'static str,
}

/// Descriptions that break careless quoting, escaping, wrapping or matching; rare in every culture.
const AWKWARD: &[&str] = &[
    "REF 4711/0815; \"INVOICE\" <2026-Q3> & Co., 50 % off",
    "O'Reilly's Bar & Grill, Exit 9 \\ Gate \"B\"",
    "SEPA Direct Debit, mandate DE-98-ZZZ-0999-9999-999, creditor Example Municipal Utilities Company, quarterly \
     instalment for electricity, gas, water and district heating, customer number 0000-1111-2222-3333",
    "=SUM(A1:A9)",
    "{{ user.name }} {% endraw %}",
    "From: not a header",
    ".",
];

/// A culture, the frequent ones more often.
pub(super) fn choose(dice: &mut Dice) -> &'static Culture {
    let mut left = dice.below(1000);
    for culture in latin::ALL.iter().chain(scripts::ALL) {
        if left < culture.per_mille {
            return culture;
        }
        left -= culture.per_mille;
    }
    &latin::ALL[0]
}

impl Culture {
    /// A whole name; now and then with a second given name or a suffix after a comma.
    pub(super) fn name(&self, dice: &mut Dice) -> String {
        let first = dice.pick(self.first);
        let second = dice.pick(self.second);
        let turn = dice.below(40);
        match turn {
            0 if self.between == " " => format!("{first} {} {second}", dice.pick(self.first)),
            1 if self.currency == "USD" || self.currency == "GBP" => format!("{first} {second}, Jr."),
            2 if self.currency == "EUR" && self.between == " " => {
                format!("{first} {second}-{}", dice.pick(self.second))
            }
            _ => format!("{first}{}{second}", self.between),
        }
    }

    /// Street and town.
    pub(super) fn address(&self, dice: &mut Dice) -> Vec<String> {
        let number = 1 + dice.below(180);
        vec![dice.pick(self.streets).replace('#', &number.to_string()), dice.pick(self.towns).into()]
    }

    /// An amount from 0 to `euros_max` euros' worth in the currency's smallest unit.
    pub(super) fn amount(&self, dice: &mut Dice, euros_max: i64) -> i64 {
        let units = euros_max.saturating_mul(self.euro).saturating_mul(10_i64.pow(self.decimals));
        dice.below(units.unsigned_abs()) as i64
    }

    /// One row: what it was, and its amount in the currency's smallest unit, never zero.
    pub(super) fn transaction(&self, dice: &mut Dice) -> (Cow<'static, str>, i64) {
        match dice.below(200) {
            0 => (Cow::Borrowed(dice.pick(AWKWARD)), -1 - self.amount(dice, 90)),
            1..25 => (Cow::Borrowed(dice.pick(self.income)), 1 + self.amount(dice, 1_900)),
            25..90 => {
                let shop = dice.pick(self.spending);
                (Cow::Owned(format!("{shop} {:04}", dice.below(10_000))), -1 - self.amount(dice, 120))
            }
            _ => (Cow::Borrowed(dice.pick(self.spending)), -1 - self.amount(dice, 180)),
        }
    }
}
