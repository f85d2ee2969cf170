//! What counts as an e-mail address that can be mailed to: RFC 5321's limits, ASCII on the wire.

use lettre::Address;

/// RFC 5321's limit of a path without its angle brackets, in bytes.
pub(super) const ADDRESS_BYTES_MAX: usize = 254;

/// Checks an address and turns an international domain into its ASCII form (`jürgen@…` in the local part would need
/// SMTPUTF8 at every relay on the way and is refused). The error says what is wrong, without the address.
pub(super) fn mailable(text: &str) -> Result<Address, String> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(format!("{} bytes, at most {ADDRESS_BYTES_MAX}", text.len()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>')) {
        return Err("it holds a space, a control character or an angle bracket".into());
    }
    let (user, domain) = text.rsplit_once('@').ok_or("it has no @")?;
    if !user.is_ascii() {
        return Err("the part before the @ is not ASCII".into());
    }
    let domain = if domain.is_ascii() { domain.to_owned() } else { ascii_domain(domain)? };
    let address = Address::new(user, domain).map_err(|e| e.to_string().to_lowercase())?;
    if address.to_string().len() > ADDRESS_BYTES_MAX {
        return Err(format!("more than {ADDRESS_BYTES_MAX} bytes with its domain in ASCII"));
    }
    Ok(address)
}

/// The address with its domain in ASCII, when it can be mailed to.
///
/// # Errors
/// What is wrong with it, without the address.
pub fn mailable_text(text: &str) -> Result<String, String> {
    mailable(text).map(|address| address.to_string())
}

fn ascii_domain(domain: &str) -> Result<String, String> {
    match url::Host::parse(domain) {
        Ok(url::Host::Domain(ascii)) => Ok(ascii),
        _ => Err("its international domain has no ASCII form".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_international_domains_become_ascii() {
        assert_eq!(mailable("o'neil+tag@example.com").unwrap().to_string(), "o'neil+tag@example.com");
        assert_eq!(mailable("post@bücher.example").unwrap().to_string(), "post@xn--bcher-kva.example");
        let long = format!("{}@example.com", "a".repeat(250));
        for bad in [
            "",
            "@",
            "a@",
            "@b.c",
            "a b@c.de",
            "a@b c.de",
            "a@c.de\r\nRCPT TO:<x@y.z>",
            "\"a\r\nb\"@c.de",
            "a@c.de>",
            "<a@c.de",
            "jürgen@example.com",
            "a@b@c.de",
            "a..b@c.de",
            &long,
            "a@c.de\u{0}",
            "\"a b\"@c.de",
        ] {
            assert!(mailable(bad).is_err(), "{bad:?}");
        }
    }
}
