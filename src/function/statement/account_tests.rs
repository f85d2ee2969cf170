//! What `account::parse` accepts and refuses, and its error messages.

use super::*;

const GOOD: &str = r#"{"account":"u-000001","currency":"EUR","period":"2026-10","opening_balance":"1200.50",
"closing_balance":"1188.00","transactions":[{"date":"2026-10-03","description":"Café Müller","amount":"-12.50"}]}"#;

fn expected() -> Expected {
    Expected { account: "u-000001".into(), period: Some("2026-10".into()) }
}

fn refused(body: &str) -> Failure {
    parse(body.as_bytes(), &expected()).expect_err("must be refused")
}

#[test]
fn an_answer_that_adds_up_is_taken_with_exact_figures() {
    let account = parse(GOOD.as_bytes(), &expected()).unwrap();
    assert_eq!(account.currency, Currency::EUR);
    assert_eq!(account.opening_balance.to_string(), "1200.50");
    assert_eq!(account.transactions[0].amount.to_string(), "-12.50");
    assert_eq!(account.transactions[0].description, "Café Müller");
    assert_eq!(account.money_out().to_string(), "-12.50");
    assert!(account.money_in().is_zero());
}

#[test]
fn json_numbers_keep_their_digits_and_unknown_fields_are_ignored() {
    let body = r#"{"extra":{"a":[1]},"account":"u-000001","currency":"EUR","period":"2026-10","opening_balance":0.1,
        "closing_balance":900000000000000.3,"transactions":[{"date":"2026-10-03","description":"","amount":9e14,"x":1},
        {"date":"2026-10-03","description":"","amount":0.20}]}"#;
    let account = parse(body.as_bytes(), &expected()).unwrap();
    assert_eq!(account.closing_balance.to_string(), "900000000000000.30");
    assert_eq!(account.transactions[1].amount.to_string(), "0.20");
}

#[test]
fn no_transactions_and_no_period_are_fine() {
    let body = r#"{"account":"a","currency":"JPY","opening_balance":"-0","closing_balance":"0.0","transactions":[]}"#;
    let account = parse(body.as_bytes(), &Expected { account: "a".into(), period: None }).unwrap();
    assert_eq!(account.opening_balance.to_string(), "0");
    assert_eq!(account.period, "");
}

#[test]
fn decimals_follow_the_currency() {
    let with = |currency: &str, amount: &str| {
        let body = format!(
            r#"{{"account":"a","currency":"{currency}","opening_balance":"{amount}","closing_balance":"{amount}","transactions":[]}}"#
        );
        parse(body.as_bytes(), &Expected { account: "a".into(), period: None })
    };
    assert_eq!(with("JPY", "12").unwrap().opening_balance.to_string(), "12");
    assert_eq!(with("KWD", "12.345").unwrap().opening_balance.to_string(), "12.345");
    assert_eq!(with("EUR", "12.340").unwrap().opening_balance.to_string(), "12.34");
    for (currency, amount) in [("JPY", "12.5"), ("EUR", "12.345"), ("KWD", "1.2345")] {
        assert_eq!(with(currency, amount).unwrap_err().code, "too-many-decimals", "{currency} {amount}");
    }
}

#[test]
fn another_account_is_refused_without_a_word_of_its_figures() {
    let foreign = GOOD.replace("u-000001", "u-000002");
    let bad_foreign = foreign.replace("\"1200.50\"", "{\"secret\":4711}").replace("\"EUR\"", "4711");
    let unnamed = GOOD.replace("\"account\":\"u-000001\",", "");
    let number = GOOD.replace("\"u-000001\"", "4711");
    for body in [&foreign, &bad_foreign, &unnamed, &number] {
        let failure = refused(body);
        assert_eq!((failure.kind.as_str(), failure.place.as_str()), ("data", "account"));
        assert_eq!(failure.code, "account-mismatch", "{body}");
        for secret in ["1200", "1188", "12.50", "Müller", "4711", "EUR"] {
            assert!(!failure.text.contains(secret), "{secret} in {}", failure.text);
        }
    }
    assert!(refused(&foreign).text.contains("u-000001"));
}

#[test]
fn a_body_that_is_not_the_answer_is_refused_with_where_and_what() {
    let twice = GOOD.replace("\"currency\"", "\"account\":\"u-000001\",\"currency\"");
    let table: &[(&str, &str)] = &[
        ("[]", "JSON object"),
        ("nonsense", "not JSON"),
        (&twice, "one \"account\""),
        (&format!("{GOOD} {{}}"), "not JSON"),
        (&GOOD.replace("\"EUR\"", "5"), "currency"),
        (&GOOD.replace("\"currency\":\"EUR\",", ""), "missing field `currency`"),
        (&GOOD.replace("\"closing_balance\":\"1188.00\",", ""), "missing field `closing_balance`"),
        (&GOOD.replace("\"Café Müller\"", "null"), "transactions[0].description"),
        (&GOOD.replace("\"2026-10-03\"", "20261003"), "transactions[0].date"),
    ];
    for (body, says) in table {
        let failure = refused(body);
        assert_eq!(failure.code, "malformed", "{body}: {failure}");
        assert!(failure.text.contains(says), "{says:?} in {:?}", failure.text);
    }
}

#[test]
fn html_cut_off_json_bad_utf_8_and_nothing_are_classes_of_their_own() {
    let bad_description = GOOD.replace("Café", "Caf\u{0}").into_bytes();
    let bad_description: Vec<u8> =
        bad_description.into_iter().map(|byte| if byte == 0 { 0xE9 } else { byte }).collect();
    let bodies: [(&[u8], &str, &str); 6] = [
        (b"", "empty", "empty"),
        (b"  <!doctype html><html>", "html", "account.url"),
        (&GOOD.as_bytes()[..GOOD.len() - 30], "truncated", "ends early"),
        (b"{\"account\":\"\xff\"}", "invalid-utf8", "(send UTF-8)"),
        (&bad_description, "invalid-utf8", "(send UTF-8)"),
        (b"nonsense", "malformed", "not JSON"),
    ];
    let mut prints = std::collections::BTreeSet::new();
    for (body, code, says) in bodies {
        let failure = parse(body, &expected()).unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.text.contains(says), "{failure}");
        prints.insert(failure.fingerprint());
    }
    assert_eq!(prints.len(), 5);
}

#[test]
fn a_wrong_value_is_refused_with_a_stable_code() {
    let table: &[(&str, &str, &str)] = &[
        ("\"2026-10\"", "\"2026-09\"", "period-mismatch"),
        ("\"period\":\"2026-10\",", "", "period-mismatch"),
        ("\"EUR\"", "\"EURO\"", "unknown-currency"),
        ("\"EUR\"", "\"eur\"", "unknown-currency"),
        ("\"EUR\"", "\"XAU\"", "unknown-currency"),
        ("\"1200.50\"", "\"1,200.50\"", "invalid-amount"),
        ("\"1200.50\"", "\"1_200.50\"", "invalid-amount"),
        ("\"1200.50\"", "\"\"", "invalid-amount"),
        ("\"1200.50\"", "\"1e3\"", "invalid-amount"),
        ("\"1200.50\"", "\"NaN\"", "invalid-amount"),
        ("\"1200.50\"", "null", "invalid-amount"),
        ("\"1200.50\"", "true", "invalid-amount"),
        ("\"1200.50\"", "[1]", "invalid-amount"),
        ("\"1200.50\"", "1e300", "amount-out-of-range"),
        ("\"1200.50\"", "1e15", "amount-out-of-range"),
        ("\"1200.50\"", "99999999999999999999999999999999999", "amount-out-of-range"),
        ("\"-12.50\"", "\"-12.501\"", "too-many-decimals"),
        ("\"-12.50\"", "\"-12.51\"", "balance-mismatch"),
        ("2026-10-03", "2026-02-30", "invalid-date"),
        ("2026-10-03", "03.10.2026", "invalid-date"),
        ("2026-10-03", "2026-10-03T10:00", "invalid-date"),
    ];
    for (from, to, code) in table {
        assert_eq!(refused(&GOOD.replace(from, to)).code, *code, "{from} -> {to}");
    }
}

#[test]
fn a_balance_mismatch_names_the_figures_and_an_amount_its_place() {
    let text = refused(&GOOD.replace("1188.00", "1188.01")).text;
    for figure in ["1200.50", "-12.50", "1188.00", "1188.01"] {
        assert!(text.contains(figure), "{figure} in {text}");
    }
    let text = refused(&GOOD.replace("\"-12.50\"", "\"twelve\"")).text;
    assert!(text.contains("transactions[0].amount") && text.contains("line 2 column"), "{text}");
}

#[test]
fn the_limits_on_rows_and_descriptions_hold_at_their_edges() {
    let with = |rows: usize, description: usize| {
        let row = format!(r#"{{"date":"2026-10-03","description":"{}","amount":0}}"#, "é".repeat(description));
        let rows = vec![row; rows].join(",");
        let body = format!(
            r#"{{"account":"a","currency":"EUR","opening_balance":1,"closing_balance":1,"transactions":[{rows}]}}"#
        );
        parse(body.as_bytes(), &Expected { account: "a".into(), period: None }).map_err(|failure| failure.code)
    };
    assert_eq!(with(TRANSACTIONS_MAX, 0).map(|a| a.transactions.len()), Ok(TRANSACTIONS_MAX));
    assert_eq!(with(TRANSACTIONS_MAX + 1, 0).unwrap_err(), "too-many-transactions");
    assert!(with(1, DESCRIPTION_CHARS_MAX).is_ok());
    assert_eq!(with(1, DESCRIPTION_CHARS_MAX + 1).unwrap_err(), "description-too-long");
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_in_an_answer_or_a_failure(body: Vec<u8>) {
        let _ = parse(&body, &expected());
    }

    #[test]
    fn any_amount_written_as_string_or_number_is_the_same(cents in -99_999_999_999_999_999_i64..99_999_999_999_999_999) {
        let amount = Decimal::new(cents, 2);
        let body = format!(
            r#"{{"account":"a","currency":"EUR","opening_balance":"{amount}","closing_balance":{amount},"transactions":[]}}"#
        );
        let account = parse(body.as_bytes(), &Expected { account: "a".into(), period: None }).unwrap();
        proptest::prop_assert_eq!(account.opening_balance, amount);
        proptest::prop_assert_eq!(account.closing_balance, amount);
    }
}
