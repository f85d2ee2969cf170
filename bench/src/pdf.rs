//! The time that one document takes on one thread: a page of 30 rows, from the account's answer to the PDF's bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{anyhow, bail, ensure};
use nightmail::base::{Clock, SystemClock};
use nightmail::function::statement::{PdfStatementRenderer, RenderRequest, Rendering, StatementRenderer, User};

use crate::output::{count, median, table};
use crate::settings::{self, PERIOD, Side};

const ROWS: usize = 30;
const ROUNDS: usize = 5;
/// The design goal: 100,000 documents between 02:00 and 10:00.
const USERS_PER_NIGHT: f64 = 100_000.0;

/// Renders documents and prints how long each took.
pub(crate) fn run(full: bool) -> anyhow::Result<()> {
    let documents = if full { 4_000 } else { 500 };
    let nowhere = Side { bank: ([127, 0, 0, 1], 1).into(), sink: ([127, 0, 0, 1], 1).into(), dir: PathBuf::from(".") };
    let settings = nowhere.settings()?;
    let (_, options) = settings::statement(&settings)?;
    let renderer = PdfStatementRenderer::new(&options.document)?;
    let mut rows = Vec::new();
    for (script, name) in [("Latin", "Zoë Ångström-Łukasiewicz"), ("Arabic", "ليلى الهاشمي"), ("Chinese", "王小明")]
    {
        let user = user(name)?;
        let account = account()?;
        let order = RenderRequest { body: &account, account: "u-1", period: Some(PERIOD), user: &user };
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (ms, size) = round(&renderer, &order, documents)?;
            times.push(ms);
            bytes = size;
        }
        let ms = median(times);
        let night = format!("{:.0}", USERS_PER_NIGHT * ms / 1e3);
        rows.push(vec![script.into(), format!("{ms:.3}"), count(1e3 / ms), count(bytes as f64), night]);
    }
    let head = ["name in", "ms/document", "documents/s", "bytes", "s for 100,000"];
    table(&format!("pdf: one page of {ROWS} rows, one thread, medians of {ROUNDS} rounds of {documents}"), &head, &rows)
}

/// The milliseconds of one document, and its size.
fn round(renderer: &PdfStatementRenderer, order: &RenderRequest<'_>, documents: usize) -> anyhow::Result<(f64, usize)> {
    let clock = SystemClock::new();
    let mut bytes = 0;
    for _ in 0..documents {
        let Rendering::Document(print) = renderer.render(order).map_err(|why| anyhow!("{why}"))? else {
            bail!("the account was skipped");
        };
        ensure!(print.document.pages == 1, "the document has {} pages", print.document.pages);
        bytes = print.pdf.len();
    }
    Ok((clock.monotonic().as_secs_f64() * 1e3 / documents as f64, bytes))
}

fn user(name: &str) -> anyhow::Result<User> {
    let json = serde_json::json!({
        "id": "u-1", "name": name, "email": "u-1@example.test", "locale": "en-GB",
        "address": ["1 Long Street", "London N1 1AA"],
    });
    User::check(&json.to_string()).map_err(|why| anyhow!("{why}"))
}

/// The account service's answer: amounts from -1.01 to -30.30.
fn account() -> anyhow::Result<Vec<u8>> {
    let cents = |row: usize| 101 * (row + 1);
    let amount = |cents: usize| format!("{}.{:02}", cents / 100, cents % 100);
    let transactions: Vec<BTreeMap<&str, String>> = (0..ROWS)
        .map(|row| {
            BTreeMap::from([
                ("date", format!("{PERIOD}-{:02}", row + 1)),
                ("description", format!("Card payment {} at Café Nord, Straße {row}", 4_711 + row)),
                ("amount", format!("-{}", amount(cents(row)))),
            ])
        })
        .collect();
    let spent: usize = (0..ROWS).map(cents).sum();
    let body = serde_json::json!({
        "account": "u-1", "currency": "GBP", "period": PERIOD, "opening_balance": "1000.00",
        "closing_balance": amount(100_000 - spent), "transactions": transactions,
    });
    Ok(serde_json::to_vec(&body)?)
}
