//! Reads a mailed PDF with independent tools (poppler, qpdf) and compares it with the bank's figures.

use std::path::Path;
use std::process::Command;

use nightmail_demo::fixtures::Expected;

/// Whether the file's structure passes `qpdf --check`.
pub(crate) fn check_structure(path: &Path) {
    let check = Command::new("qpdf").arg("--check").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{}: {said}", path.display());
}

/// The file's text as readers extract it, without direction marks.
pub(crate) fn text_of(path: &Path) -> String {
    let out = Command::new("pdftotext").args(["-layout", "-enc", "UTF-8"]).arg(path).arg("-").output().unwrap();
    assert!(out.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.chars().filter(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{200e}' | '\u{200f}')).collect()
}

/// Checks name, account, period, number of rows and closing balance. Names in scripts that readers extract in another
/// order, or in other characters of the same look, are not compared.
pub(crate) fn check_content(text: &str, expected: &Expected) {
    let (user, statement) = (&expected.user, &expected.statement);
    assert!(text.contains(&user.id), "{}: the account is missing:\n{text}", user.id);
    if is_latin(&user.name) {
        for word in user.name.split_whitespace() {
            assert!(text.contains(word), "{}: the name {:?} is missing:\n{text}", user.id, user.name);
        }
    }
    if writes_left_to_right(&user.locale) {
        let dates = dates(text);
        assert_eq!(dates.len(), statement.transactions.len(), "{}: rows\n{text}", user.id);
        let (year, month) = statement.period.split_once('-').unwrap();
        for date in &dates {
            assert!(date.contains(year) && date.contains(month), "{}: {date} is not in {year}-{month}", user.id);
        }
        let closing = digits(&statement.closing_balance);
        let figures: Vec<String> = text.split("   ").map(digits).collect();
        // Once in the summary, once after the last row.
        let shown = figures.iter().filter(|figure| **figure == closing).count();
        assert!(shown >= 2, "{}: the closing balance {} stands there {shown} times:\n{text}", user.id, closing);
    }
}

fn is_latin(name: &str) -> bool {
    name.chars().all(|c| c < '\u{0250}' || ('\u{1e00}'..'\u{1f00}').contains(&c))
}

fn writes_left_to_right(locale: &str) -> bool {
    !["ar", "he", "fa", "ur"].contains(&locale.split('-').next().unwrap())
}

/// The first word of each line that begins with a date: groups of four, two and two digits in some order.
fn dates(text: &str) -> Vec<String> {
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let is_date = |word: &String| {
        let groups = word.split(['.', '/', '-']);
        let mut lengths: Vec<usize> = groups.map(|group| group.chars().filter(|c| c.is_numeric()).count()).collect();
        lengths.sort_unstable();
        lengths == [2, 2, 4] && word.chars().count() == 10
    };
    text.lines().filter_map(first).filter(is_date).collect()
}

/// The digits of a figure and its minus sign, whatever the separators.
fn digits(figure: &str) -> String {
    let is_negative = figure.contains(['-', '−', '\u{2010}', '\u{2011}']);
    let digits = figure.chars().filter_map(|c| c.to_digit(10));
    let digits: String = digits.filter_map(|digit| char::from_digit(digit, 10)).collect();
    if is_negative { format!("-{digits}") } else { digits }
}
