//! Addresses with placeholders such as `https://api/accounts/{account_id}?month={period}`.
//!
//! Owns the promise that a value can only ever be one path segment or one query value: it cannot leave its place,
//! change the host or reach another record. Must not know where values come from.

use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::base::Failure;
use crate::function::Error;

/// RFC 3986's unreserved characters stay as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// A longer value is refused, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// A checked address with placeholders.
#[derive(Clone, Debug)]
pub struct UrlTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    /// A name in braces, before or after the first `?`.
    Value {
        name: String,
        in_path: bool,
    },
}

impl UrlTemplate {
    /// Checks a template. `known` are the names that [`UrlTemplate::fill`] will have values for.
    ///
    /// # Errors
    /// [`Error::Url`] for an unknown name, an unclosed brace, a scheme other than http and https, or a placeholder in
    /// scheme, host, port, user or fragment.
    pub fn new(template: &str, known: &[&str]) -> Result<Self, Error> {
        let refused = |why: String| {
            let template = template.split('?').next().unwrap_or_default();
            Error::Url { template: without_user_info(template), why }
        };
        let pieces = pieces(template).map_err(refused)?;
        for piece in &pieces {
            if let Piece::Value { name, .. } = piece
                && !known.contains(&name.as_str())
            {
                return Err(refused(format!("{{{name}}} is unknown (known: {})", known.join(", "))));
            }
        }
        let checked = Self { pieces };
        checked.check_places().map_err(refused)?;
        Ok(checked)
    }

    /// The names in braces.
    pub fn names(&self) -> BTreeSet<&str> {
        let values = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value { name, .. } => Some(name.as_str()),
            Piece::Literal(_) => None,
        });
        values.collect()
    }

    /// Inserts the values, percent-encoded. `place` names the service in failures.
    ///
    /// # Errors
    /// A failure of kind `data` for a value that is missing, empty, too long or, in the path, made of dots alone
    /// (`..` means the parent even when it is percent-encoded).
    pub fn fill<'v>(&self, place: &str, value: impl Fn(&str) -> Option<&'v str>) -> Result<Url, Failure> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Value { name, in_path } => {
                    let value = value(name).unwrap_or_default();
                    check_value(name, value, *in_path)
                        .map_err(|why| Failure::new("data", place, "address-value", why))?;
                    text.extend(utf8_percent_encode(value, ENCODED));
                }
            }
        }
        Url::parse(&text).map_err(|e| Failure::new("data", place, "address", format!("the filled url is wrong: {e}")))
    }

    /// Host and port, which no value can change.
    pub fn host_and_port(&self) -> String {
        let url = self.fill("url", |_| Some("1")).expect("the template was checked with this sample");
        let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", url.host_str().unwrap_or_default())
    }

    /// Fills in two different samples: only path and query may differ.
    fn check_places(&self) -> Result<(), String> {
        let sample = |value| self.fill("url", |_| Some(value)).map_err(|failure| failure.text);
        let (one, other) = (sample("1")?, sample("2")?);
        if !matches!(one.scheme(), "http" | "https") || one.host_str().is_none_or(str::is_empty) {
            return Err("must start with http:// or https:// and a host".into());
        }
        let fixed = |url: &Url| (url.origin(), url.username().to_owned(), url.password().map(str::to_owned));
        if fixed(&one) != fixed(&other) || one.fragment() != other.fragment() {
            return Err("placeholders may stand in the path and the query only".into());
        }
        Ok(())
    }
}

fn check_value(name: &str, value: &str, in_path: bool) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{{{name}}} has no value"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("{{{name}}} has {} bytes (at most {VALUE_BYTES_MAX})", value.len()));
    }
    if in_path && value.bytes().all(|b| b == b'.') {
        return Err(format!("{{{name}}} is {value:?}, which cannot be a part of a path"));
    }
    Ok(())
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut in_path = true;
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let literal = &rest[..open];
        in_path &= !literal.contains('?');
        pieces.push(Piece::Literal(literal.to_owned()));
        let inside = rest[open..].strip_prefix('{').ok_or("a } has no { (write %7D for a literal one)")?;
        let (name, after) = inside.split_once('}').ok_or("a { has no } (write %7B for a literal one)")?;
        pieces.push(Piece::Value { name: name.trim().to_owned(), in_path });
        rest = after;
    }
    pieces.push(Piece::Literal(rest.to_owned()));
    Ok(pieces)
}

/// Cuts `user:password@` out of what is shown.
fn without_user_info(template: &str) -> String {
    match template.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.find('/').unwrap_or(rest.len());
            let start = rest[..host].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[start..])
        }
        None => template.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["user_id", "account_id", "period"];

    fn fill(template: &str, value: &str) -> Result<Url, Failure> {
        UrlTemplate::new(template, KNOWN).unwrap().fill("account", |_| Some(value))
    }

    #[test]
    fn a_user_id_cannot_change_the_path_the_query_or_the_host() {
        let url = fill("https://bank/users/{user_id}/tx?of={user_id}&m=1", "../../admin?x&m=2#@evil").unwrap();
        let encoded = "..%2F..%2Fadmin%3Fx%26m%3D2%23%40evil";
        assert_eq!(url.as_str(), format!("https://bank/users/{encoded}/tx?of={encoded}&m=1"));
        assert_eq!(url.path_segments().unwrap().count(), 3);
    }

    #[test]
    fn values_that_would_vanish_from_a_path_are_refused() {
        for value in ["", ".", "..", "..."] {
            let failure = fill("https://bank/users/{user_id}/tx", value).unwrap_err();
            assert_eq!(failure.class(), "data account address-value", "{value:?}");
        }
        assert!(fill("https://bank/{user_id}", "%2e%2e").unwrap().as_str().ends_with("/%252e%252e"));
        assert!(fill("https://bank/?u={user_id}", "..").unwrap().as_str().ends_with("?u=.."));
    }

    #[test]
    fn wrong_templates_are_refused_with_a_reason_and_without_secrets() {
        for (template, reason) in [
            ("https://bank/{acount_id}", "{acount_id} is unknown (known: user_id, account_id, period)"),
            ("https://bank/{user_id", "a { has no }"),
            ("https://bank/user_id}", "a } has no {"),
            ("https://{user_id}/x", "path and the query only"),
            ("https://bank{user_id}.com/x", "path and the query only"),
            ("https://bank:808{user_id}/x", "path and the query only"),
            ("https://{user_id}@bank/x", "path and the query only"),
            ("https://bank/#{user_id}", "path and the query only"),
            ("ftp://bank/{user_id}", "http"),
            ("{user_id}", ""),
        ] {
            let message = UrlTemplate::new(template, KNOWN).unwrap_err().to_string();
            assert!(message.contains(reason), "{template}: {message}");
        }
        let message = UrlTemplate::new("https://me:geheim@bank/{x}?key=geheim", KNOWN).unwrap_err().to_string();
        assert!(!message.contains("geheim"), "{message}");
    }

    #[test]
    fn names_are_listed() {
        let template = UrlTemplate::new("https://b/{user_id}/{ period }?u={user_id}", KNOWN).unwrap();
        assert_eq!(template.names().into_iter().collect::<Vec<_>>(), ["period", "user_id"]);
    }

    proptest! {
        #[test]
        fn any_value_comes_back_whole_from_its_one_place(value in "\\PC{1,40}|[./%?#&=+ \\\\:@]{1,8}") {
            if let Ok(url) = fill("https://bank/a/{user_id}/b?q={user_id}&z=1", &value) {
                let segments: Vec<_> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                let decoded = percent_encoding::percent_decode_str(segments[1]).decode_utf8().unwrap();
                prop_assert_eq!(decoded.as_ref(), &value);
                let pairs: Vec<_> = url.query_pairs().collect();
                prop_assert_eq!(pairs.len(), 2);
                prop_assert_eq!(pairs[0].1.as_ref(), &value);
                prop_assert_eq!(url.fragment(), None);
            }
        }
    }
}
