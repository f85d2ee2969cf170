//! How one user's language writes dates, digits and the labels of the page.
//!
//! Knows BCP 47 tags and the Unicode CLDR's habits; must not know accounts or pages. Figures are `money`'s part.

use icu_decimal::DecimalFormatter;
use icu_decimal::input::Decimal as Digits;
use icu_locale_core::Locale as Tag;
use jiff::civil::Date;

/// The locale when neither the user's nor the configured tag is known.
pub const LAST_RESORT: &str = "en-GB";

/// The languages with known habits, each with its usual numeric date; a region can differ (see [`REGIONS`]).
/// In a pattern `d`, `m` and `y` stand for day, month (two digits each) and year (four).
const LANGUAGES: &[(&str, &str)] = &[
    ("ar", "d/m/y"),
    ("bg", "d.m.y"),
    ("ca", "d/m/y"),
    ("cs", "d.m.y"),
    ("da", "d.m.y"),
    ("de", "d.m.y"),
    ("el", "d/m/y"),
    ("en", "d/m/y"),
    ("es", "d/m/y"),
    ("et", "d.m.y"),
    ("fi", "d.m.y"),
    ("fr", "d/m/y"),
    ("he", "d.m.y"),
    ("hi", "d/m/y"),
    ("hr", "d.m.y"),
    ("hu", "y.m.d"),
    ("id", "d/m/y"),
    ("it", "d/m/y"),
    ("ja", "y/m/d"),
    ("ko", "y.m.d"),
    ("lt", "y-m-d"),
    ("lv", "d.m.y"),
    ("nb", "d.m.y"),
    ("nl", "d-m-y"),
    ("nn", "d.m.y"),
    ("no", "d.m.y"),
    ("pl", "d.m.y"),
    ("pt", "d/m/y"),
    ("ro", "d.m.y"),
    ("ru", "d.m.y"),
    ("sk", "d.m.y"),
    ("sl", "d.m.y"),
    ("sv", "y-m-d"),
    ("tr", "d.m.y"),
    ("uk", "d.m.y"),
    ("vi", "d/m/y"),
    ("zh", "y/m/d"),
];

/// Where a region writes dates unlike its language.
const REGIONS: &[(&str, &str, &str)] = &[
    ("en", "", "m/d/y"),
    ("en", "US", "m/d/y"),
    ("en", "PH", "m/d/y"),
    ("en", "CA", "y-m-d"),
    ("en", "SE", "y-m-d"),
    ("en", "ZA", "y/m/d"),
    ("fr", "CA", "y-m-d"),
    ("fr", "CH", "d.m.y"),
    ("it", "CH", "d.m.y"),
    ("nl", "BE", "d/m/y"),
    ("zh", "HK", "d/m/y"),
];

/// One user's habits of writing.
#[derive(Clone, Debug)]
pub struct Locale {
    /// The checked tag.
    tag: Tag,
    /// The date pattern, see [`LANGUAGES`].
    pattern: &'static str,
    /// The digits 0 to 9 when they are not the ASCII ones.
    digits: Option<[char; 10]>,
    /// The words on the page.
    labels: &'static Labels,
}

impl Locale {
    /// The first of `wanted`, `default` and [`LAST_RESORT`] that is a well-formed tag of a known language.
    /// An underscore counts as a hyphen (`de_AT`).
    pub fn resolve(wanted: &str, default: &str) -> Self {
        [wanted, default, LAST_RESORT]
            .iter()
            .find_map(|tag| Self::known(tag))
            .expect("the last resort is a tag of a known language")
    }

    /// The locale of a tag; `None` when the tag is not well formed or its language's habits are not known.
    pub fn known(tag: &str) -> Option<Self> {
        let tag: Tag = tag.trim().replace('_', "-").parse().ok()?;
        let language = tag.id.language.as_str();
        let region = tag.id.region.as_ref().map_or("", |region| region.as_str());
        let usual = LANGUAGES.iter().find(|(known, _)| *known == language)?.1;
        let pattern = REGIONS.iter().find(|(l, r, _)| *l == language && *r == region).map_or(usual, |(_, _, p)| p);
        let labels = match language {
            "de" => &GERMAN,
            "fr" => &FRENCH,
            _ => &ENGLISH,
        };
        Some(Self { digits: digits_of(&tag), pattern, labels, tag })
    }

    /// The tag in its canonical form, e.g. `de-AT`.
    pub fn tag(&self) -> String {
        self.tag.to_string()
    }

    /// The labels on the page: German, French, or English for all other languages.
    pub fn labels(&self) -> &'static Labels {
        self.labels
    }

    /// A day in the usual numeric order, e.g. `03.10.2026`.
    pub fn date(&self, date: Date) -> String {
        let mut out = String::with_capacity(10);
        for c in self.pattern.chars() {
            match c {
                'd' => push_padded(&mut out, date.day().into(), 2),
                'm' => push_padded(&mut out, date.month().into(), 2),
                'y' => push_padded(&mut out, date.year().into(), 4),
                other => out.push(other),
            }
        }
        match self.digits {
            Some(digits) => out.chars().map(|c| c.to_digit(10).map_or(c, |d| digits[d as usize])).collect(),
            None => out,
        }
    }

    /// A period: a month such as `2026-10` as its first and last day, any other name as it is.
    pub fn period(&self, period: &str) -> String {
        match month(period) {
            Some(first) => format!("{} – {}", self.date(first), self.date(first.last_of_month())),
            None => period.to_owned(),
        }
    }

    /// The locale for `money`.
    pub(super) fn icu(&self) -> &Tag {
        &self.tag
    }
}

fn month(period: &str) -> Option<Date> {
    let (year, month) = period.split_once('-')?;
    let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) {
        return None;
    }
    Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()
}

fn push_padded(out: &mut String, number: i32, width: usize) {
    use std::fmt::Write;
    let _ = write!(out, "{number:0width$}");
}

/// The locale's own digits, as the number formatter writes them.
fn digits_of(tag: &Tag) -> Option<[char; 10]> {
    let formatter = DecimalFormatter::try_new(tag.clone().into(), Default::default()).ok()?;
    let mut digits = ['0'; 10];
    for (value, digit) in (0_u8..).zip(digits.iter_mut()) {
        *digit = formatter.format(&Digits::from(value)).to_string().chars().next()?;
    }
    (digits[1] != '1').then_some(digits)
}

/// The labels on the page in one language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The title.
    pub statement: &'static str,
    /// The account's id.
    pub account: &'static str,
    /// The days that the statement covers.
    pub period: &'static str,
    /// The currency of all figures.
    pub currency: &'static str,
    /// Column: the booking day.
    pub date: &'static str,
    /// Column: what it was for.
    pub description: &'static str,
    /// Column: the amount.
    pub amount: &'static str,
    /// Column: the balance after it.
    pub balance: &'static str,
    /// The balance before the first transaction.
    pub opening_balance: &'static str,
    /// The balance after the last transaction.
    pub closing_balance: &'static str,
    /// The sum of positive amounts.
    pub money_in: &'static str,
    /// The sum of negative amounts.
    pub money_out: &'static str,
    /// The balance at the foot of a page that has a next one.
    pub carried_forward: &'static str,
    /// The same balance at the head of the next page.
    pub brought_forward: &'static str,
    /// In place of the table's rows.
    pub no_transactions: &'static str,
    /// Between "page" and the counts, see [`Labels::page_of`].
    page: &'static str,
    of: &'static str,
}

impl Labels {
    /// `Page 2 of 5`.
    pub fn page_of(&self, page: u32, pages: u32) -> String {
        format!("{} {page} {} {pages}", self.page, self.of)
    }
}

const ENGLISH: Labels = Labels {
    statement: "Statement",
    account: "Account",
    period: "Period",
    currency: "Currency",
    date: "Date",
    description: "Description",
    amount: "Amount",
    balance: "Balance",
    opening_balance: "Opening balance",
    closing_balance: "Closing balance",
    money_in: "Money in",
    money_out: "Money out",
    carried_forward: "Carried forward",
    brought_forward: "Brought forward",
    no_transactions: "No transactions in this period",
    page: "Page",
    of: "of",
};

const GERMAN: Labels = Labels {
    statement: "Kontoauszug",
    account: "Konto",
    period: "Zeitraum",
    currency: "Währung",
    date: "Datum",
    description: "Beschreibung",
    amount: "Betrag",
    balance: "Saldo",
    opening_balance: "Anfangssaldo",
    closing_balance: "Endsaldo",
    money_in: "Eingänge",
    money_out: "Ausgänge",
    carried_forward: "Übertrag auf die nächste Seite",
    brought_forward: "Übertrag von der vorigen Seite",
    no_transactions: "Keine Umsätze in diesem Zeitraum",
    page: "Seite",
    of: "von",
};

const FRENCH: Labels = Labels {
    statement: "Relevé de compte",
    account: "Compte",
    period: "Période",
    currency: "Devise",
    date: "Date",
    description: "Libellé",
    amount: "Montant",
    balance: "Solde",
    opening_balance: "Solde initial",
    closing_balance: "Solde final",
    money_in: "Crédits",
    money_out: "Débits",
    carried_forward: "À reporter",
    brought_forward: "Report",
    no_transactions: "Aucune opération sur cette période",
    page: "Page",
    of: "sur",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_usual_order_of_the_locale() {
        let day = jiff::civil::date(2026, 10, 3);
        let table = [
            ("de", "03.10.2026"),
            ("en-GB", "03/10/2026"),
            ("en-US", "10/03/2026"),
            ("en", "10/03/2026"),
            ("en-IN", "03/10/2026"),
            ("fr", "03/10/2026"),
            ("fr-CA", "2026-10-03"),
            ("nl", "03-10-2026"),
            ("sv", "2026-10-03"),
            ("ja", "2026/10/03"),
            ("ko", "2026.10.03"),
            ("ar-EG", "٠٣/١٠/٢٠٢٦"),
            ("de_AT", "03.10.2026"),
        ];
        for (tag, shown) in table {
            assert_eq!(Locale::known(tag).unwrap().date(day), shown, "{tag}");
        }
    }

    #[test]
    fn an_unknown_or_broken_tag_falls_back_to_the_configured_then_the_last_resort() {
        assert_eq!(Locale::resolve("fr", "de").tag(), "fr");
        for unknown in ["", "xx", "tlh", "not a tag", "🙂"] {
            assert_eq!(Locale::resolve(unknown, "de").tag(), "de", "{unknown}");
            assert_eq!(Locale::resolve(unknown, unknown).tag(), LAST_RESORT, "{unknown}");
        }
    }

    #[test]
    fn a_month_is_shown_as_its_days_and_any_other_period_as_it_is() {
        let german = Locale::resolve("de", "");
        assert_eq!(german.period("2026-02"), "01.02.2026 – 28.02.2026");
        assert_eq!(german.period("Q3 2026"), "Q3 2026");
        assert_eq!(german.period("2026-13"), "2026-13");
    }

    #[test]
    fn labels_are_german_french_or_english() {
        assert_eq!(Locale::resolve("de-CH", "").labels().page_of(2, 5), "Seite 2 von 5");
        assert_eq!(Locale::resolve("fr", "").labels().closing_balance, "Solde final");
        assert_eq!(Locale::resolve("ja", "").labels().statement, "Statement");
    }
}
