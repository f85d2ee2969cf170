//! Exact amounts as people read them: the currency's decimals, the locale's digits, grouping and minus sign.
//!
//! Knows decimals and CLDR (through `icu_decimal`, compiled data); must not know accounts or pages.

use icu_decimal::input::Decimal as Digits;
use icu_decimal::{DecimalFormatter, DecimalFormatterPreferences};
use iso_currency::Currency;
use rust_decimal::Decimal;

use super::locale::Locale;

/// Writes amounts of one currency in one locale.
#[derive(Debug)]
pub struct Format {
    /// The locale's habits.
    formatter: DecimalFormatter,
    /// How many decimals each amount shows.
    decimals: u32,
    /// The ISO 4217 code.
    code: &'static str,
}

impl Format {
    /// The format for a currency in a locale; a currency without minor unit shows two decimals.
    pub fn new(locale: &Locale, currency: Currency) -> Self {
        let preferences: DecimalFormatterPreferences = locale.icu().clone().into();
        let formatter = DecimalFormatter::try_new(preferences, Default::default())
            .or_else(|_| DecimalFormatter::try_new(Default::default(), Default::default()))
            .expect("the compiled data holds the root locale");
        Self { formatter, decimals: currency.exponent().map_or(2, u32::from), code: currency.code() }
    }

    /// The figure alone, e.g. `-1.234,50`. The value is shown exactly when it has no more decimals than the
    /// currency; any more are rounded half to even.
    pub fn figure(&self, value: Decimal) -> String {
        let mut value = value.round_dp(self.decimals);
        value.rescale(self.decimals);
        if value.is_zero() {
            value.set_sign_positive(true);
        }
        let plain = value.to_string();
        match Digits::try_from_str(&plain) {
            Ok(digits) => self.formatter.format(&digits).to_string(),
            Err(_) => plain,
        }
    }

    /// The figure with the currency's code behind it, e.g. `1.234,50 EUR` (with a no-break space).
    pub fn with_code(&self, value: Decimal) -> String {
        format!("{}\u{a0}{}", self.figure(value), self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tag: &str, currency: Currency, value: &str) -> String {
        Format::new(&Locale::known(tag).unwrap(), currency).figure(value.parse().unwrap())
    }

    #[test]
    fn each_locale_writes_its_own_separators_digits_and_grouping() {
        let table = [
            ("de", "-1.234.567,50"),
            ("en-GB", "-1,234,567.50"),
            ("en-US", "-1,234,567.50"),
            ("fr", "-1\u{202f}234\u{202f}567,50"),
            ("es", "-1.234.567,50"),
            ("it", "-1.234.567,50"),
            ("nl", "-1.234.567,50"),
            ("pl", "-1\u{a0}234\u{a0}567,50"),
            ("pt-BR", "-1.234.567,50"),
            ("sv", "\u{2212}1\u{a0}234\u{a0}567,50"),
            ("da", "-1.234.567,50"),
            ("nb", "\u{2212}1\u{a0}234\u{a0}567,50"),
            ("fi", "\u{2212}1\u{a0}234\u{a0}567,50"),
            ("cs", "-1\u{a0}234\u{a0}567,50"),
            ("tr", "-1.234.567,50"),
            ("ru", "-1\u{a0}234\u{a0}567,50"),
            ("uk", "-1\u{a0}234\u{a0}567,50"),
            ("el", "-1.234.567,50"),
            ("ja", "-1,234,567.50"),
            ("zh", "-1,234,567.50"),
            ("ko", "-1,234,567.50"),
            ("ar-EG", "\u{61c}-١٬٢٣٤٬٥٦٧٫٥٠"),
            ("he", "\u{200e}-1,234,567.50"),
            ("hi", "-12,34,567.50"),
            ("en-IN", "-12,34,567.50"),
        ];
        for (tag, figure) in table {
            assert_eq!(shown(tag, Currency::EUR, "-1234567.5"), figure, "{tag}");
        }
    }

    #[test]
    fn the_currency_decides_the_decimals() {
        assert_eq!(shown("en-GB", Currency::JPY, "1234"), "1,234");
        assert_eq!(shown("en-GB", Currency::EUR, "1234"), "1,234.00");
        assert_eq!(shown("en-GB", Currency::KWD, "1234.5"), "1,234.500");
        assert_eq!(shown("en-GB", Currency::EUR, "-0.00"), "0.00");
    }

    #[test]
    fn the_largest_amounts_keep_every_digit() {
        assert_eq!(shown("en-GB", Currency::EUR, "999999999999999.99"), "999,999,999,999,999.99");
        assert_eq!(shown("en-GB", Currency::KWD, "-99999999999999999999.123"), "-99,999,999,999,999,999,999.123");
    }

    #[test]
    fn the_code_stands_behind_the_figure() {
        let format = Format::new(&Locale::known("de").unwrap(), Currency::EUR);
        assert_eq!(format.with_code(Decimal::new(123450, 2)), "1.234,50\u{a0}EUR");
    }
}
