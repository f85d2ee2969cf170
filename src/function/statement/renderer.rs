//! The [`StatementRenderer`] over our own account parser and PDF renderer.

use super::account::{self, Account, Expected};
use super::function::{RenderRequest, RenderedStatement, Rendering, StatementRenderer};
use super::locale::Locale;
use super::money;
use super::options::{DocumentOptions, Skip};
use super::pdf::{self, Renderer};
use super::template::Document;
use crate::base::Failure;
use crate::function::Error;

/// Renders statements as PDF documents. Fonts are parsed once, in the constructor.
#[derive(Debug)]
pub struct PdfStatementRenderer {
    renderer: Renderer,
    options: DocumentOptions,
    skip: Skip,
}

impl PdfStatementRenderer {
    /// A renderer with these document settings.
    ///
    /// # Errors
    /// An embedded font does not parse: the binary is damaged.
    pub fn new(options: &DocumentOptions) -> Result<Self, Error> {
        let renderer = Renderer::new().map_err(|error| Error::Font(error.to_string()))?;
        Ok(Self { renderer, options: options.clone(), skip: Skip::Never })
    }

    /// The same, but accounts that the rule names are left out.
    pub fn skipping(self, skip: Skip) -> Self {
        Self { skip, ..self }
    }
}

impl StatementRenderer for PdfStatementRenderer {
    fn render(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        let account = parse(request)?;
        match why_skipped(self.skip, &account) {
            Some(reason) => Ok(Rendering::Skipped(reason)),
            None => self.draw(&account, request),
        }
    }

    fn render_again(&self, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        self.draw(&parse(request)?, request)
    }
}

fn parse(request: &RenderRequest<'_>) -> Result<Account, Failure> {
    let expected = Expected { account: request.account.to_owned(), period: request.period.map(str::to_owned) };
    account::parse(request.body, &expected)
}

impl PdfStatementRenderer {
    fn draw(&self, account: &Account, request: &RenderRequest<'_>) -> Result<Rendering, Failure> {
        let tag = request.user.locale.as_deref().unwrap_or(&self.options.default_locale);
        let document = pdf::Document {
            account,
            holder: &request.user.name,
            address: &request.user.address,
            locale: tag,
            options: &self.options,
        };
        let rendered = self.renderer.render(&document)?;
        let locale = Locale::resolve(tag, &self.options.default_locale);
        let format = money::Format::new(&locale, account.currency);
        let words = Document {
            issuer: self.options.issuer.clone(),
            account: account.account.clone(),
            period: locale.period(&account.period),
            currency: account.currency.code().to_owned(),
            opening_balance: format.with_code(account.opening_balance),
            closing_balance: format.with_code(account.closing_balance),
            pages: rendered.pages,
        };
        let is_empty = account.transactions.is_empty();
        let (pdf, sha256) = (rendered.bytes, rendered.sha256);
        Ok(Rendering::Document(RenderedStatement { pdf, sha256, document: words, is_empty }))
    }
}

/// Why the rule leaves the account out; `None` when it does not.
fn why_skipped(skip: Skip, account: &Account) -> Option<&'static str> {
    let is_quiet = account.transactions.is_empty();
    let is_zero = account.closing_balance.is_zero();
    match skip {
        Skip::NoTransactions | Skip::Either if is_quiet => Some("no transactions"),
        Skip::ZeroBalance | Skip::Either if is_zero => Some("zero balance"),
        Skip::Both if is_quiet && is_zero => Some("no transactions and zero balance"),
        _ => None,
    }
}
