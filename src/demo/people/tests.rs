//! The population keeps its word: it adds up, repeats itself and reaches every script.

use std::collections::BTreeSet;

use rust_decimal::Decimal;

use super::*;

fn october() -> Period {
    "2026-10".parse().unwrap()
}

fn number(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

#[test]
fn every_statement_adds_up_with_its_currencys_decimals() {
    let people = People::new(1);
    for index in 0..2000 {
        let statement = people.statement(index, october());
        let decimals = iso_currency::Currency::from_code(&statement.currency).unwrap().exponent().unwrap();
        let sum: Decimal = statement.transactions.iter().map(|row| number(&row.amount)).sum();
        assert_eq!(number(&statement.opening_balance) + sum, number(&statement.closing_balance), "user {index}");
        assert!((ROWS_MIN..=ROWS_MAX).contains(&statement.transactions.len()), "user {index}");
        for amount in statement.transactions.iter().map(|row| &row.amount).chain([&statement.opening_balance]) {
            assert_eq!(number(amount).scale(), u32::from(decimals), "user {index}: {amount}");
        }
        assert!(statement.transactions.is_sorted_by_key(|row| &row.date), "user {index}");
        assert!(statement.transactions.iter().all(|row| row.date.parse::<jiff::civil::Date>().is_ok()), "user {index}");
    }
}

#[test]
fn a_month_opens_with_the_balance_that_the_month_before_closed_with() {
    let people = People::new(9);
    let closed = people.statement(5, "2026-12".parse().unwrap()).closing_balance;
    assert_eq!(people.statement(5, "2027-01".parse().unwrap()).opening_balance, closed);
}

#[test]
fn the_population_is_a_function_of_its_seed() {
    let (one, other) = (People::new(1), People::new(2));
    assert_eq!(one.expected(77, october()), People::new(1).expected(77, october()));
    assert_ne!(one.expected(77, october()).statement, other.expected(77, october()).statement);
    assert_ne!(one.statement(77, october()).transactions, one.statement(78, october()).transactions);
    let picture: Vec<String> = [0, 1, 999_999].map(|index| format!("{:?}", one.user(index))).into();
    insta::assert_snapshot!(picture.join("\n"));
}

#[test]
fn most_names_are_latin_and_every_script_occurs() {
    let people = People::new(1);
    let users: Vec<User> = (0..20_000).map(|index| people.user(index)).collect();
    let latin = |name: &str| {
        name.chars().filter(|c| c.is_alphabetic()).all(|c| u32::from(c) < 0x250 || u32::from(c) >> 8 == 0x1e)
    };
    let share = users.iter().filter(|user| latin(&user.name)).count() as f64 / users.len() as f64;
    assert!((0.90..0.96).contains(&share), "{share}");
    let locales: BTreeSet<&str> = users.iter().map(|user| user.locale.as_str()).collect();
    assert_eq!(locales.len(), latin::ALL.len() + scripts::ALL.len());
    assert!(users.iter().any(|user| user.name.contains('\'')) && users.iter().any(|user| user.name.contains(',')));
    assert!(users.iter().all(|user| !user.name.contains(char::is_control)));
}

#[test]
fn the_shares_of_the_cultures_make_a_whole() {
    assert_eq!(latin::ALL.iter().chain(scripts::ALL).map(|culture| culture.per_mille).sum::<u64>(), 1000);
}

#[test]
fn an_id_reads_back_and_nothing_else_does() {
    for index in [0, 1, 999_998, 999_999, u32::MAX] {
        assert_eq!(user_index(&user_id(index)), Some(index));
    }
    for bad in ["", "u-", "u-000000", "u-1", "u-0000001", "u-+00001", "x-000001", "u-4294967297", "u-000001 "] {
        assert_eq!(user_index(bad), None, "{bad:?}");
    }
}

#[test]
fn a_period_is_one_month_and_nothing_else() {
    assert_eq!(october().to_string(), "2026-10");
    assert_eq!(("2028-02".parse::<Period>().unwrap().days(), "2100-02".parse::<Period>().unwrap().days()), (29, 28));
    for bad in ["", "2026", "2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "2026/10", "+026-10", "२०२६-१०"]
    {
        assert!(bad.parse::<Period>().is_err(), "{bad:?}");
    }
}
