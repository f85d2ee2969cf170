//! Reads the users source page by page for the fan-out.
//!
//! Owns the step from one page to the next and its dangers: foreign origins, loops. `page` reads a page, `user` checks
//! a user. The address of a page is the fan-out's durable cursor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::UsersOptions;
use super::page::{self, Pointers, Record};
use super::url::UrlTemplate;
use crate::base::{Clock, Contact, Destination, Failure};
use crate::function::Error;
use crate::function::upstream::{self, Answer, Fault};

/// The longest address or cursor of a next page, in bytes.
pub const PAGE_ADDRESS_BYTES_MAX: usize = 8192;

/// The users source.
#[derive(Debug)]
pub struct Users {
    first: UrlTemplate,
    client: upstream::Client,
    pointers: Pointers,
    cursor_param: String,
}

/// Where a page is; stored as the fan-out's durable cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageAddress {
    /// The configured address.
    First,
    /// A whole address of the same origin.
    Url(String),
    /// The configured address with this value in the cursor parameter.
    Cursor(String),
}

/// One page of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The users and malformed records in the page's order.
    pub records: Vec<Record>,
    /// Where the next page is; none after the last one.
    pub next: Option<PageAddress>,
}

impl Users {
    /// Checks the settings. `params` are the names of the run's parameters that the address may use.
    ///
    /// # Errors
    /// [`Error`] for a wrong address, token or header.
    pub fn new(options: &UsersOptions, params: &[&str], clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let first = UrlTemplate::new(&options.url, params)?;
        let destination = Destination::new("users API", &first.host_and_port());
        Ok(Self {
            client: upstream::Client::new(&options.upstream, destination, clock)?,
            first,
            pointers: Pointers { items: options.items.clone(), next: options.next.clone() },
            cursor_param: options.cursor_param.clone(),
        })
    }

    /// What is called.
    pub fn destination(&self) -> &Destination {
        self.client.destination()
    }

    /// How long the users API has been silent in the call that has waited longest; `None` without a call.
    pub fn longest_silence(&self) -> Option<Duration> {
        self.client.longest_silence()
    }

    /// Reads the page at `address`; `params` are the run's parameters. What the call says about the users API is added
    /// to `contacts`.
    ///
    /// # Errors
    /// [`Fault`] of the call, or of kind `data`: not a page of users (`html`, `invalid-utf8`, `malformed`, permanent), a page that ends too
    /// early (`truncated`, temporary), a next page elsewhere (`foreign-origin`) or the same again (`loop`).
    pub async fn page(
        &self,
        address: &PageAddress,
        params: &BTreeMap<String, String>,
        contacts: &mut Vec<Contact>,
    ) -> Result<Page, Fault> {
        let first = self.first.fill("users", |name| params.get(name).map(String::as_str)).map_err(Fault::permanent)?;
        let url = self.resolve(&first, address)?;
        let answer = self.client.get(&url, "users", contacts).await?;
        if answer.is_no_content && *address != PageAddress::First {
            // Some services end with an empty page after the last full one.
            return Ok(Page { records: Vec::new(), next: None });
        }
        let parsed = page::parse(&answer.body, answer.content_type.as_deref(), &self.pointers)?;
        let next = match self.next_text(&answer, parsed.next) {
            Some(text) => Some(next_address(&first, &url, text)?),
            None => None,
        };
        if let Some(next) = &next
            && (next == address || self.resolve(&first, next)? == url)
        {
            return Err(lasting(
                "loop",
                "the page names itself as the next page (check users.next and users.cursor_param)",
            ));
        }
        Ok(Page { records: parsed.records, next })
    }

    /// A configured pointer decides alone; otherwise the `Link` header comes before the body.
    fn next_text(&self, answer: &Answer, in_body: Option<String>) -> Option<Next> {
        let in_body = in_body.map(Next::Body);
        if self.pointers.next.is_some() {
            return in_body;
        }
        answer.link_next.clone().map(Next::Link).or(in_body)
    }

    /// The address as a URL; also a stored one must be of the configured origin.
    fn resolve(&self, first: &Url, address: &PageAddress) -> Result<Url, Fault> {
        match address {
            PageAddress::First => Ok(first.clone()),
            PageAddress::Url(text) => same_origin(first, first.join(text)),
            PageAddress::Cursor(cursor) => Ok(self.with_cursor(first, cursor)),
        }
    }

    fn with_cursor(&self, first: &Url, cursor: &str) -> Url {
        let kept: Vec<(String, String)> = first
            .query_pairs()
            .filter(|(name, _)| *name != self.cursor_param.as_str())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let mut url = first.clone();
        url.query_pairs_mut().clear().extend_pairs(kept).append_pair(&self.cursor_param, cursor);
        url
    }
}

/// What the response says about the next page, and where.
enum Next {
    /// Always an address.
    Link(String),
    /// An address or a cursor.
    Body(String),
}

fn next_address(first: &Url, current: &Url, next: Next) -> Result<PageAddress, Fault> {
    let (Next::Link(text) | Next::Body(text)) = &next;
    if text.len() > PAGE_ADDRESS_BYTES_MAX {
        return Err(lasting(
            "cursor-too-long",
            format!("the next page's address has {} bytes (at most {PAGE_ADDRESS_BYTES_MAX})", text.len()),
        ));
    }
    let is_address = matches!(next, Next::Link(_)) || text.starts_with(['/', '?']) || text.contains("://");
    if !is_address {
        return Ok(PageAddress::Cursor(text.clone()));
    }
    Ok(PageAddress::Url(same_origin(first, current.join(text))?.into()))
}

/// Refuses addresses that would send the token elsewhere or reach into the network behind the daemon.
fn same_origin(first: &Url, url: Result<Url, url::ParseError>) -> Result<Url, Fault> {
    let mut url = url.map_err(|e| lasting("malformed", format!("the next page's address is wrong: {e}")))?;
    if url.origin() != first.origin() {
        let text = format!("the next page is at {}, not at {}", origin(&url), origin(first));
        return Err(lasting("foreign-origin", text));
    }
    // User and password are the configured ones or none.
    let _ = url.set_username(first.username());
    let _ = url.set_password(first.password());
    url.set_fragment(None);
    Ok(url)
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization().chars().take(200).collect()
}

fn lasting(code: &str, text: impl std::fmt::Display) -> Fault {
    Fault::permanent(Failure::new("data", "users", code, text))
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
