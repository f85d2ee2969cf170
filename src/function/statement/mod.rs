//! The built-in function `statement`: fetch one account's transactions, render the PDF, mail it.

mod address;
pub mod options;
mod page;
pub mod url;
pub mod user;
pub mod users;

pub use options::{AccountOptions, DocumentOptions, MailOptions, Options, RelayOptions, Tls, UsersOptions};
pub use page::{MALFORMED_BYTES_MAX, Record};
pub use user::User;
pub use users::{Page, PageAddress, Users};
