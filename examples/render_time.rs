#![allow(missing_docs, clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used)]
use nightmail::function::statement::*;
fn main() {
    let options = DocumentOptions {
        issuer: "Bank".into(),
        issuer_lines: vec!["1 Street".into()],
        footer: "foot".into(),
        default_locale: "en-GB".into(),
        pages_max: 10_000,
    };
    let r = PdfStatementRenderer::new(&options).unwrap();
    let user = User::check(r#"{"id":"u","name":"Ada","email":"a@example.org"}"#).unwrap();
    for rows in [30usize, 100, 300, 500, 700, 1000, 2000, 5000, 17000] {
        let rows_json: Vec<String> = (0..rows).map(|n| format!(r#"{{"date":"2026-10-{:02}","description":"Supermarket number {} Main Street","amount":"-12.{:02}"}}"#, n % 28 + 1, n, n % 100)).collect();
        let cents: i64 = (0..rows as i64).map(|n| -1200 - n % 100).sum();
        let closing = 100_000_000 + cents;
        let body = format!(
            r#"{{"account":"u","currency":"EUR","period":"2026-10","opening_balance":"1000000.00","closing_balance":"{}.{:02}","transactions":[{}]}}"#,
            closing / 100,
            closing % 100,
            rows_json.join(",")
        );
        let mut best = f64::MAX;
        let mut all = vec![];
        let mut pages = 0;
        let mut pdf = 0;
        for _ in 0..7 {
            let t = std::time::Instant::now();
            let out = r
                .render(&RenderRequest { body: body.as_bytes(), account: "u", period: Some("2026-10"), user: &user })
                .unwrap();
            let ms = t.elapsed().as_secs_f64() * 1e3;
            all.push(ms);
            best = best.min(ms);
            pages = out.document.pages;
            pdf = out.pdf.len();
        }
        all.sort_by(f64::total_cmp);
        println!(
            "{rows} rows, {} bytes JSON, {pages} pages, {pdf} bytes PDF: best {best:.2} ms, median {:.2} ms",
            body.len(),
            all[3]
        );
    }
}
