//! Keeps web pages out, which a browser lets send requests to this machine.
//!
//! Where requests are signed a page has no key to sign with. Where they are not, a page could otherwise send a form, or
//! have an image loaded whose address deletes a queue: the browser would send either without asking anybody.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN, USER_AGENT};

use super::error::{Code, Error};
use super::{Access, Options};

/// Today's browsers send it with every request to the loopback; a page cannot keep it back.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How all browsers name themselves, those too that send none of the other headers with an image's address. So do clients
/// on libcurl, Celery's for one, but they sign, and no page can have a browser do that.
const BROWSER: &str = "Mozilla/";

/// Refuses requests of web pages.
pub(super) fn check(options: &Options, headers: &HeaderMap) -> Result<(), Error> {
    let refused = |what| Err(Error::new(Code::AccessDenied, format!("Requests of {what} are not answered here.")));
    if headers.contains_key(ORIGIN) {
        return refused("web pages (with the header Origin)");
    }
    if matches!(options.access, Access::Keys(_)) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_unsigned = !headers.contains_key(AUTHORIZATION);
    if headers.contains_key(FETCH_SITE) || (is_unsigned && text(USER_AGENT).starts_with(BROWSER)) {
        return refused("browsers (with the header Sec-Fetch-Site, or unsigned with User-Agent: Mozilla)");
    }
    // A page may come from a name that was made to resolve to this machine.
    let host = text(HOST);
    if options.url.as_deref().is_some_and(|url| is_of(url, host)) || is_loopback(host) {
        return Ok(());
    }
    refused("another host (the header Host must name the loopback)")
}

/// Whether the URL's host, with its port, is that one.
fn is_of(url: &str, host: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority.trim_end_matches('/').eq_ignore_ascii_case(host)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_many_names_and_other_hosts_are_none_of_them() {
        for host in
            ["localhost", "localhost:9324", "127.0.0.1:9324", "127.1.2.3", "[::1]:9324", "[::1]", "sqs.localhost"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:9324", "127.0.0.1.evil.example", "10.0.0.1:9324", "localhost.evil"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_host_of_the_queues_urls_is_compared_as_a_whole() {
        for host in ["sqs.bank.example", "SQS.bank.example"] {
            assert!(is_of("https://sqs.bank.example", host), "{host}");
        }
        assert!(is_of("http://sqs.bank.example:8080/", "sqs.bank.example:8080"));
        for host in ["", "e", "bank.example", "example", "sqs.bank.example:443"] {
            assert!(!is_of("https://sqs.bank.example", host), "{host}");
        }
    }
}
