//! The built-in function `statement`: fetch one account's transactions, render the PDF, mail it.

pub mod options;

pub use options::{AccountOptions, DocumentOptions, MailOptions, Options, RelayOptions, Tls, UsersOptions};
