//! The [`Press`] over our own account parser and PDF renderer.

use super::account::{self, Expected};
use super::function::{Order, Press, Print};
use super::locale::Locale;
use super::money;
use super::options::DocumentOptions;
use super::pdf::{self, Renderer};
use super::template::Document;
use crate::base::Failure;
use crate::function::Error;

/// Prints statements as PDF documents. Fonts are parsed once, when it is made.
#[derive(Debug)]
pub struct PdfPress {
    renderer: Renderer,
    options: DocumentOptions,
}

impl PdfPress {
    /// A press for documents of this look.
    ///
    /// # Errors
    /// An embedded font does not parse: the binary is damaged.
    pub fn new(options: &DocumentOptions) -> Result<Self, Error> {
        let renderer = Renderer::new().map_err(|error| Error::Font(error.to_string()))?;
        Ok(Self { renderer, options: options.clone() })
    }
}

impl Press for PdfPress {
    fn print(&self, order: &Order<'_>) -> Result<Print, Failure> {
        let expected = Expected { account: order.account.to_owned(), period: order.period.map(str::to_owned) };
        let account = account::parse(order.body, &expected)?;
        let tag = order.user.locale.as_deref().unwrap_or(&self.options.default_locale);
        let document = pdf::Document {
            account: &account,
            holder: &order.user.name,
            address: &order.user.address,
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
        Ok(Print { pdf: rendered.bytes, sha256: rendered.sha256, document: words })
    }
}
