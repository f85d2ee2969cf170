//! The promises of the rendered file, read back by the tools that recipients' programs are built on.

use std::path::PathBuf;
use std::process::Command;

use rust_decimal::Decimal;

use super::*;
use crate::base::Failure;
use crate::function::statement::account::{Account, Transaction};
use crate::function::statement::options::DocumentOptions;

fn options() -> DocumentOptions {
    DocumentOptions {
        issuer: "Example Bank".into(),
        issuer_lines: vec!["1 Harbour Street".into(), "Dublin 1".into(), "+353 1 555 0100".into()],
        footer: "Example Bank plc is regulated by the Central Bank. Registered in Dublin, number 123456. Please check \
                 this statement and tell us within 30 days if anything looks wrong."
            .into(),
        default_locale: "en-GB".into(),
        pages_max: 500,
    }
}

const DESCRIPTIONS: [&str; 6] = [
    "Café Müller",
    "Salary October",
    "Supermarket 0815, Main Street",
    "Rent",
    "Electricity, instalment",
    "Ünïcode GmbH",
];

fn account(rows: usize) -> Account {
    let transactions: Vec<Transaction> = (0..rows)
        .map(|n| {
            let cents = if n % 7 == 1 { 250_000 } else { -1250 - (n as i64 * 37) % 9_000 };
            Transaction {
                date: jiff::civil::date(2026, 10, (n % 31 + 1) as i8),
                description: DESCRIPTIONS[n % 6].into(),
                amount: Decimal::new(cents, 2),
            }
        })
        .collect();
    let opening_balance = Decimal::new(120_050, 2);
    let closing_balance = opening_balance + transactions.iter().map(|t| t.amount).sum::<Decimal>();
    Account {
        account: "u-000001".into(),
        currency: iso_currency::Currency::EUR,
        period: "2026-10".into(),
        opening_balance,
        closing_balance,
        transactions,
    }
}

fn renderer() -> &'static Renderer {
    static RENDERER: std::sync::OnceLock<Renderer> = std::sync::OnceLock::new();
    RENDERER.get_or_init(|| Renderer::new().unwrap())
}

fn render_in(account: &Account, holder: &str, locale: &str) -> Result<Rendered, Failure> {
    let options = options();
    let address = ["12 Sea Road".to_owned(), "Galway".to_owned(), "Ireland".to_owned()];
    renderer().render(&Document { account, holder, address: &address, locale, options: &options })
}

fn render(account: &Account, holder: &str) -> Rendered {
    render_in(account, holder, "en-GB").unwrap()
}

/// Whether a tool is installed; a test without it logs that and checks nothing, unless
/// `NIGHTMAIL_TEST_TOOLS=required`.
#[expect(clippy::print_stderr, reason = "a skipped check must say why")]
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    let is_required = std::env::var("NIGHTMAIL_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(found || !is_required, "{tool} is not installed (scripts/install-test-tools installs it)");
    if !found {
        eprintln!("skipped: {tool} is not installed (Debian packages poppler-utils and qpdf)");
    }
    found
}

/// Writes the file where tools can read it; set `NIGHTMAIL_KEEP_PDF` to a directory to keep it for inspection.
fn saved(name: &str, rendered: &Rendered) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, &rendered.bytes).unwrap();
    if let Ok(keep) = std::env::var("NIGHTMAIL_KEEP_PDF") {
        std::fs::write(PathBuf::from(keep).join(name), &rendered.bytes).unwrap();
    }
    (dir, path)
}

/// The file's text as readers extract it, after `qpdf` has found no fault; `None` where a tool is missing.
fn text_of(name: &str, rendered: &Rendered) -> Option<String> {
    let (_dir, path) = saved(name, rendered);
    if has("qpdf") {
        let check = Command::new("qpdf").arg("--check").arg(&path).output().unwrap();
        assert!(check.status.success(), "{name}: {}", String::from_utf8_lossy(&check.stdout));
    }
    if !has("pdftotext") {
        return None;
    }
    let out = Command::new("pdftotext").args(["-layout", "-enc", "UTF-8"]).arg(&path).arg("-").output().unwrap();
    assert!(out.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    // Poppler puts right-to-left text between marks of direction; they are not part of the name.
    let text = String::from_utf8(out.stdout).unwrap();
    Some(text.chars().filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{200e}' | '\u{200f}')).collect())
}

fn assert_says(name: &str, rendered: &Rendered, words: &[&str]) {
    let Some(text) = text_of(name, rendered) else { return };
    for word in words {
        assert!(text.contains(word), "{name} must say {word:?}:\n{}", &text[..text.len().min(4_000)]);
    }
}

#[test]
fn a_statement_without_transactions_says_so() {
    let rendered = render(&account(0), "Zoë Quinn");
    assert_eq!(rendered.pages, 1);
    let words = ["No transactions in this period", "Opening balance", "Page 1 of 1", "1,200.50", "Zoë Quinn"];
    assert_says("none.pdf", &rendered, &words);
    assert!(rendered.bytes.len() < 60_000, "{} bytes", rendered.bytes.len());
}

#[test]
fn a_transaction_stands_with_its_amount_and_the_balance_after_it() {
    let rendered = render(&account(1), "Łukasz Żółć");
    let words = ["Łukasz Żółć", "u-000001", "01/10/2026 – 31/10/2026", "Café Müller", "-12.50", "1,188.00", "EUR"];
    assert_says("one.pdf", &rendered, &words);
}

#[test]
fn thirty_rows_fit_one_small_page() {
    let rendered = render(&account(30), "Łukasz Żółć");
    assert_eq!(rendered.pages, 1);
    assert!(rendered.bytes.len() < 60_000, "{} bytes", rendered.bytes.len());
    assert_says("thirty.pdf", &rendered, &["30/10/2026", "Closing balance"]);
}

#[test]
fn five_thousand_rows_carry_the_balance_from_page_to_page() {
    let account = account(5_000);
    let rendered = render(&account, "Zoë Quinn");
    assert!((90..=150).contains(&rendered.pages), "{} pages", rendered.pages);
    let Some(text) = text_of("many.pdf", &rendered) else { return };
    let pages: Vec<&str> = text.split('\u{c}').filter(|page| !page.trim().is_empty()).collect();
    assert_eq!(pages.len(), rendered.pages as usize);
    let figure = |page: &str, label: &str| {
        let line = page.lines().find(|line| line.contains(label)).map(str::trim);
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned))
    };
    for (number, pair) in pages.windows(2).enumerate() {
        let carried = figure(pair[0], "Carried forward");
        assert!(carried.is_some(), "page {} carries nothing forward", number + 1);
        assert_eq!(carried, figure(pair[1], "Brought forward"), "page {}", number + 1);
        assert!(pair[1].contains("Description"), "page {} has no table header", number + 2);
    }
    assert_eq!(text.lines().filter(|line| line.contains("/10/2026 ") && line.contains('.')).count(), 5_000);
}

#[test]
fn more_pages_than_allowed_are_refused_and_as_many_are_not() {
    let with = |rows: usize, pages_max: u32| {
        let options = DocumentOptions { pages_max, ..options() };
        let account = account(rows);
        let document = Document { account: &account, holder: "Z", address: &[], locale: "en-GB", options: &options };
        renderer().render(&document).map(|rendered| rendered.pages).map_err(|failure| failure.class())
    };
    assert_eq!(with(70, 2), Ok(2));
    for (rows, pages_max) in [(70, 1), (200, 2), (100_000, 500), (0, 0)] {
        assert_eq!(with(rows, pages_max), Err("render statement too-many-pages".into()), "{rows} rows");
    }
}

#[test]
fn overrides_of_the_direction_do_not_turn_a_name_around() {
    assert_says("override.pdf", &render(&account(1), "Zoë \u{202e}Quinn 王\u{2066}"), &["Zoë Quinn 王"]);
}

#[test]
fn names_in_any_script_are_found_in_their_logical_order() {
    let cases = [
        ("arabic", "محمد بن عبد الله الخوارزمي"),
        ("hebrew", "דוד בן גוריון"),
        ("japanese", "山田太郎 さくら"),
        ("chinese", "王小明"),
        ("korean", "김철수"),
        ("greek", "Γιώργος Παπαδόπουλος"),
        ("russian", "Анна Каренина"),
        ("ukrainian", "Ґалаґан Їжак"),
        ("vietnamese", "Nguyễn Thị Minh Khai"),
        ("thai", "สมชาย"),
        ("georgian", "გიორგი"),
        ("emoji", "Ann 🦀 Lee"),
    ];
    for (script, name) in cases {
        let rendered = render(&account(2), name);
        let largest = if script == "emoji" { 45_000 } else { 70_000 };
        assert!(rendered.bytes.len() < largest, "{script}: {} bytes", rendered.bytes.len());
        assert_says(&format!("{script}.pdf"), &rendered, &[name]);
    }
}

#[test]
fn a_combining_accent_extracts_with_its_letter() {
    let Some(text) = text_of("combining.pdf", &render(&account(1), "Zoe\u{308} Mu\u{308}ller")) else { return };
    assert!(["Zoe\u{308} Mu\u{308}ller", "Zoë Müller"].iter().any(|name| text.contains(name)), "{text}");
}

#[test]
fn a_very_long_description_is_wrapped_and_kept_whole() {
    let mut account = account(3);
    let words: Vec<String> = (0..120).map(|n| format!("word{n:03}")).collect();
    account.transactions[1].description = words.join(" ");
    account.transactions[2].description = "W".repeat(1_000);
    let rendered = render(&account, "Zoë Quinn");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_says("long.pdf", &rendered, &words);
    let Some(text) = text_of("long.pdf", &rendered) else { return };
    assert_eq!(text.matches('W').count(), 1_000);
}

#[test]
fn labels_dates_and_figures_follow_the_locale() {
    let account = account(2);
    let german = render_in(&account, "Jürgen Groß", "de").unwrap();
    let words = ["Kontoauszug", "Anfangssaldo", "1.200,50", "02.10.2026", "Seite 1 von 1", "2.500,00", "Jürgen Groß"];
    assert_says("german.pdf", &german, &words);
    let swedish = render_in(&account, "Åsa", "sv").unwrap();
    assert_says("swedish.pdf", &swedish, &["\u{2212}12,50", "2026-10-02"]);
    let arabic = render_in(&account, "A", "ar-EG").unwrap();
    assert_says("arabic-figures.pdf", &arabic, &["١٬١٨٨٫٠٠"]);
}

#[test]
fn the_same_input_gives_the_same_bytes_on_any_renderer_and_other_input_others() {
    let account = account(40);
    let first = render(&account, "山田 محمد Łukasz 🦀");
    let second = render(&account, "山田 محمد Łukasz 🦀");
    assert_eq!(first, second);
    let options = options();
    let address = ["12 Sea Road".to_owned(), "Galway".to_owned(), "Ireland".to_owned()];
    let document = Document {
        account: &account,
        holder: "山田 محمد Łukasz 🦀",
        address: &address,
        locale: "en-GB",
        options: &options,
    };
    assert_eq!(Renderer::new().unwrap().render(&document).unwrap().sha256, first.sha256);
    assert_ne!(render(&account, "Zoë").sha256, first.sha256);
    assert_eq!(first.sha256.len(), 64);
    let text = String::from_utf8_lossy(&first.bytes);
    assert!(!text.contains("CreationDate") && !text.contains("ModDate"), "a date would change the bytes");
}

#[test]
fn a_renderer_serves_all_threads_with_the_right_names() {
    let shared = std::sync::Arc::new(Renderer::new().unwrap());
    let alone: Vec<Rendered> = (0..4).map(|n| render(&account(n), &format!("Zoë {n} 王"))).collect();
    std::thread::scope(|scope| {
        for (n, alone) in alone.iter().enumerate() {
            let shared = shared.clone();
            scope.spawn(move || {
                let options = options();
                let address = ["12 Sea Road".to_owned(), "Galway".to_owned(), "Ireland".to_owned()];
                let account = account(n);
                let holder = format!("Zoë {n} 王");
                let document = Document {
                    account: &account,
                    holder: &holder,
                    address: &address,
                    locale: "en-GB",
                    options: &options,
                };
                assert_eq!(shared.render(&document).unwrap().sha256, alone.sha256);
            });
        }
    });
}

#[test]
fn hostile_texts_stay_inside_the_page() {
    let mut account = account(1);
    account.account = "x".repeat(5_000);
    account.period = "\u{202e}period\n\n".into();
    account.transactions[0].description = "a\u{300}".repeat(500);
    let options = DocumentOptions {
        issuer: "Issuer ".repeat(500),
        issuer_lines: vec!["line".repeat(100); 50],
        footer: "foot ".repeat(5_000),
        ..options()
    };
    let address: Vec<String> = (0..500).map(|n| format!("line {n} ").repeat(50)).collect();
    let holder = "holder".repeat(5_000);
    let document = Document { account: &account, holder: &holder, address: &address, locale: "", options: &options };
    let rendered = renderer().render(&document).unwrap();
    assert!(rendered.pages <= 2, "{} pages", rendered.pages);
    assert!(text_of("hostile.pdf", &rendered).is_none_or(|text| text.contains('…')));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]
    #[test]
    fn any_name_and_description_render(holder in "\\PC{0,60}|(?s).{0,60}", description in "(?s).{0,200}", locale in ".{0,8}") {
        let mut account = account(1);
        account.transactions[0].description = description;
        proptest::prop_assert!(render_in(&account, &holder, &locale).is_ok());
    }

    #[test]
    fn any_characters_of_one_block_render(start in 0_u32..0x11_0000, len in 1_u32..40) {
        let holder: String = (start..start + len).filter_map(char::from_u32).collect();
        proptest::prop_assert!(render_in(&account(1), &holder, "de").is_ok());
    }
}
