//! The built-in function `statement`: fetch one account's transactions, render the PDF, mail it.

pub mod account;
mod address;
pub mod archive;
pub mod function;
pub mod locale;
pub mod mail;
pub mod money;
pub mod options;
mod page;
pub mod pdf;
pub mod renderer;
pub mod template;
pub mod url;
pub mod user;
pub mod users;

pub use account::{Account, Expected, Transaction};
pub use address::mailable_text;
pub use archive::Archive;
pub use function::{CHANGED, RenderRequest, RenderedStatement, Rendering, Statement, StatementRenderer};
pub use mail::{DomainLimits, MessageIds};
pub use options::{
    AccountOptions, DialogueLimits, DocumentOptions, MailOptions, Options, RelayOptions, Skip, SuppressOn, Tls,
    UsersOptions,
};
pub use page::{MALFORMED_BYTES_MAX, Record};
pub use renderer::PdfStatementRenderer;
pub use user::User;
pub use users::{Page, PageAddress, Users};
