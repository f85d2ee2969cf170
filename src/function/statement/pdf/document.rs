//! The content of one statement, as it is given to the renderer.

use super::super::account::Account;
use super::super::options::DocumentOptions;

/// The content of one statement.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// The checked figures.
    pub account: &'a Account,
    /// The name of the account's holder, in any script.
    pub holder: &'a str,
    /// The lines of the holder's postal address.
    pub address: &'a [String],
    /// The holder's BCP 47 tag; an unknown one falls back to the configured default.
    pub locale: &'a str,
    /// What the document looks like.
    pub options: &'a DocumentOptions,
}
