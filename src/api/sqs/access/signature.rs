//! AWS Signature Version 4: a request proves that its sender has a key's secret, and that nobody changed it on its way.
//!
//! The signature stands in the header `Authorization`, or, of an address that was signed beforehand, in its parameters.
//! Source: "AWS Signature Version 4 for API requests" (IAM User Guide).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use hyper::http::request::Parts;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};

use crate::base::Timestamp;

use super::super::error::{Code, Error};
use super::super::text::hex;
use super::AccessKey;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "sqs";
const TERMINATOR: &str = "aws4_request";
/// How far a request's date may be from the present, before and behind.
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// The longest life of an address that was signed beforehand.
const EXPIRES_MAX: Duration = Duration::from_secs(7 * 86_400);
/// What stays as it is in a canonical address: letters, digits and these.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ENCODED_IN_PATHS: &AsciiSet = &ENCODED.remove(b'/');

/// What a request says of its signature, with the key that it names.
#[derive(Debug)]
pub(in super::super) struct Claim<'a> {
    pub(in super::super) key: &'a AccessKey,
    signed_headers: String,
    signature: String,
    /// The moment as the request writes it: `20261001T020000Z`.
    date: String,
    /// Day, region, service and terminator.
    scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    day: String,
    region: String,
}

/// Reads the claim, and refuses what can be refused without the request's body: no signature, an unknown key, a date that
/// is too far away.
pub(in super::super) fn claim<'a>(head: &Parts, keys: &'a [AccessKey], now: Timestamp) -> Result<Claim<'a>, Error> {
    let parts = parts(head)?;
    let (id, scope) = credential(&parts.credential)?;
    let key = keys.iter().find(|key| key.id == id).ok_or_else(|| {
        Error::new(Code::InvalidClientTokenId, "The security token included in the request is invalid.")
    })?;
    check_date(&parts, now)?;
    if !parts.date.starts_with(&scope.day) {
        let text = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.";
        return Err(Error::new(Code::SignatureDoesNotMatch, text));
    }
    check_signed(head, &parts.signed_headers)?;
    Ok(Claim { key, signed_headers: parts.signed_headers, signature: parts.signature, date: parts.date, scope })
}

/// The signing keys that were made last, by access key id: a client signs a day's requests with one.
#[derive(Debug, Default)]
pub(in super::super) struct SigningKeys(Mutex<HashMap<String, (Scope, hmac::Key)>>);

impl SigningKeys {
    fn of(&self, key: &AccessKey, scope: &Scope) -> hmac::Key {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, signing_key)) = made.get(&key.id)
            && of == scope
        {
            return signing_key.clone();
        }
        let signing_key = scope.signing_key(&key.secret);
        made.insert(key.id.clone(), (scope.clone(), signing_key.clone()));
        signing_key
    }
}

impl Claim<'_> {
    /// Checks the signature of the request with that body.
    pub(in super::super) fn verify(&self, head: &Parts, body: &[u8], keys: &SigningKeys) -> Result<(), Error> {
        let request = canonical_request(head, &self.signed_headers, body);
        let text = self.scope.text_to_sign(&self.date, &request);
        let key = keys.of(self.key, &self.scope);
        let given = from_hex(&self.signature).unwrap_or_default();
        // In constant time: a difference found early would tell a guesser how far the guess was right.
        hmac::verify(&key, text.as_bytes(), &given).map_err(|_| {
            let text = "The request signature we calculated does not match the signature you provided. Check your AWS \
                        Secret Access Key and signing method. Consult the service documentation for details.";
            Error::new(Code::SignatureDoesNotMatch, text)
        })
    }
}

impl Scope {
    fn name(&self) -> String {
        format!("{}/{}/{SERVICE}/{TERMINATOR}", self.day, self.region)
    }

    fn text_to_sign(&self, date: &str, canonical_request: &str) -> String {
        let hash = hex(digest::digest(&digest::SHA256, canonical_request.as_bytes()).as_ref());
        [ALGORITHM, date, &self.name(), &hash].join("\n")
    }

    fn signing_key(&self, secret: &SecretString) -> hmac::Key {
        let secret = format!("AWS4{}", secret.expose_secret());
        let parts = [&self.day, &self.region, SERVICE, TERMINATOR];
        let key = parts.iter().fold(secret.into_bytes(), |key, part| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec()
        });
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }
}

/// What a client signs with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: SecretString,
    /// The session's token, of keys that are lent for a time.
    pub token: Option<SecretString>,
}

/// Signs a request of ours to another SQS endpoint: adds the headers that it needs. All headers that it has by then are
/// signed.
///
/// # Errors
/// The token is no header's value.
pub fn sign(
    head: &mut Parts,
    body: &[u8],
    (credentials, region): (&Credentials, &str),
    now: Timestamp,
) -> Result<(), InvalidHeaderValue> {
    let date = shown(now);
    let scope = Scope { day: date.chars().take_while(|c| *c != 'T').collect(), region: region.to_owned() };
    head.headers.insert("x-amz-date", HeaderValue::from_str(&date)?);
    if let Some(token) = &credentials.token {
        let mut token = HeaderValue::from_str(token.expose_secret())?;
        token.set_sensitive(true);
        head.headers.insert("x-amz-security-token", token);
    }
    let mut names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let signed_headers = names.join(";");
    let text = scope.text_to_sign(&date, &canonical_request(head, &signed_headers, body));
    let signature = hex(hmac::sign(&scope.signing_key(&credentials.secret), text.as_bytes()).as_ref());
    let (id, scope) = (&credentials.id, scope.name());
    let header = format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={signed_headers}, Signature={signature}");
    head.headers.insert(AUTHORIZATION, HeaderValue::from_str(&header)?);
    Ok(())
}

/// The parts of a signature as text.
struct SignatureParts {
    credential: String,
    signed_headers: String,
    signature: String,
    date: String,
    /// How long it is valid, when it was signed beforehand.
    expires: Option<String>,
}

fn parts(head: &Parts) -> Result<SignatureParts, Error> {
    if let Some(header) = head.headers.get(AUTHORIZATION) {
        return in_header(header.to_str().unwrap_or_default(), &head.headers);
    }
    let parameter = |name: &str| pairs(head).into_iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let Some(signature) = parameter("X-Amz-Signature") else {
        return Err(Error::new(Code::MissingAuthenticationToken, "Request is missing Authentication Token"));
    };
    let needed = |name: &str| parameter(name).ok_or_else(|| incomplete(name));
    if needed("X-Amz-Algorithm")? != ALGORITHM {
        return Err(incomplete("X-Amz-Algorithm"));
    }
    Ok(SignatureParts {
        credential: needed("X-Amz-Credential")?,
        signed_headers: needed("X-Amz-SignedHeaders")?,
        date: needed("X-Amz-Date")?,
        expires: Some(needed("X-Amz-Expires")?),
        signature,
    })
}

fn in_header(header: &str, headers: &HeaderMap) -> Result<SignatureParts, Error> {
    let Some(fields) = header.strip_prefix(ALGORITHM) else {
        let text = "Authorization header must begin with the algorithm AWS4-HMAC-SHA256.";
        return Err(Error::new(Code::IncompleteSignature, text));
    };
    let field = |name: &str| {
        let value = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        value.map(str::to_owned).ok_or_else(|| incomplete(name))
    };
    let date = headers.get("x-amz-date").and_then(|date| date.to_str().ok()).ok_or_else(|| incomplete("X-Amz-Date"))?;
    Ok(SignatureParts {
        credential: field("Credential")?,
        signed_headers: field("SignedHeaders")?,
        signature: field("Signature")?,
        date: date.to_owned(),
        expires: None,
    })
}

fn incomplete(what: &str) -> Error {
    Error::new(Code::IncompleteSignature, format!("Authorization requires '{what}'."))
}

/// The key's id and the scope of a credential: `ID/20261001/us-east-1/sqs/aws4_request`.
fn credential(text: &str) -> Result<(&str, Scope), Error> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts[..] {
        [id, day, region, SERVICE, TERMINATOR] => Ok((id, Scope { day: day.to_owned(), region: region.to_owned() })),
        _ => {
            let text = "Credential must have the form <key>/<date>/<region>/sqs/aws4_request.";
            Err(Error::new(Code::IncompleteSignature, text))
        }
    }
}

fn check_date(parts: &SignatureParts, now: Timestamp) -> Result<(), Error> {
    let signed = moment(&parts.date).ok_or_else(|| {
        let text = format!("Date must be in ISO-8601 'basic format'. Got '{}'.", parts.date);
        Error::new(Code::IncompleteSignature, text)
    })?;
    let life = match &parts.expires {
        None => SKEW_MAX,
        Some(seconds) => {
            let seconds = seconds.parse().map(Duration::from_secs).ok().filter(|life| *life <= EXPIRES_MAX);
            seconds.ok_or_else(|| incomplete("X-Amz-Expires"))?
        }
    };
    let refused = |text: String| Err(Error::new(Code::RequestExpired, text));
    let (date, present) = (&parts.date, shown(now));
    if now.since(signed) > life {
        return refused(format!("Signature expired: {date} is now earlier than {present} by more than its life."));
    }
    if signed.since(now) > SKEW_MAX {
        return refused(format!(
            "Signature not yet current: {date} is still later than {present} by more than 15 min."
        ));
    }
    Ok(())
}

/// The moment behind `20261001T020000Z`.
fn moment(text: &str) -> Option<Timestamp> {
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(Timestamp::from_jiff(civil.to_zoned(TimeZone::UTC).ok()?.timestamp()))
}

fn shown(now: Timestamp) -> String {
    now.to_jiff().map(|now| now.strftime("%Y%m%dT%H%M%SZ").to_string()).unwrap_or_default()
}

/// What decides over the request must be signed: the host, and all of AWS's own headers.
fn check_signed(head: &Parts, signed_headers: &str) -> Result<(), Error> {
    let is_signed = |name: &str| signed_headers.split(';').any(|signed| signed == name);
    let own = head.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
    match own.chain(["host"]).find(|name| !is_signed(name)) {
        None => Ok(()),
        Some(name) => {
            let text = format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.");
            Err(Error::new(Code::SignatureDoesNotMatch, text))
        }
    }
}

fn canonical_request(head: &Parts, signed_headers: &str, body: &[u8]) -> String {
    let mut pairs: Vec<(String, String)> = pairs(head)
        .into_iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| (encoded(&name), encoded(&value)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = signed_headers.split(';').map(|name| canonical_header(name, &head.headers)).collect();
    [
        head.method.as_str(),
        &utf8_percent_encode(head.uri.path(), ENCODED_IN_PATHS).to_string(),
        &query.join("&"),
        &headers,
        signed_headers,
        &hex(digest::digest(&digest::SHA256, body).as_ref()),
    ]
    .join("\n")
}

/// A header as a line: its values trimmed, with single spaces, joined by commas.
fn canonical_header(name: &str, headers: &HeaderMap) -> String {
    let value = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let values: Vec<String> = headers.get_all(name).iter().map(value).collect();
    format!("{name}:{}\n", values.join(","))
}

/// The parameters of the address.
fn pairs(head: &Parts) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 == 1 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_key_is_made_anew_for_another_day_region_or_secret() {
        let key = |id: &str, secret: &str| AccessKey {
            name: id.into(),
            id: id.into(),
            secret: secret.into(),
            queues: Vec::new(),
            actions: Vec::new(),
        };
        let scope = |day: &str, region: &str| Scope { day: day.into(), region: region.into() };
        let cases = [
            (key("A", "one"), scope("20261001", "us-east-1")),
            (key("A", "one"), scope("20261001", "us-east-1")),
            (key("A", "one"), scope("20261002", "us-east-1")),
            (key("A", "one"), scope("20261002", "eu-central-1")),
            (key("B", "two"), scope("20261002", "eu-central-1")),
            (key("A", "one"), scope("20261001", "us-east-1")),
        ];
        let keys = SigningKeys::default();
        for (key, scope) in cases {
            let signed = |key: &hmac::Key| hmac::sign(key, b"text").as_ref().to_vec();
            assert_eq!(signed(&keys.of(&key, &scope)), signed(&scope.signing_key(&key.secret)), "{key:?} {scope:?}");
        }
        assert_eq!(keys.0.lock().unwrap().len(), 2, "one for each access key");
    }
}
