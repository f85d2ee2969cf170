//! The built-in function `statement`: fetch one account's transactions, render the PDF, mail it.

pub mod account;
pub mod locale;
pub mod money;
pub mod options;
pub mod pdf;

pub use account::{Account, Expected, Transaction};
pub use options::{AccountOptions, DocumentOptions, MailOptions, Options, RelayOptions, Tls, UsersOptions};
