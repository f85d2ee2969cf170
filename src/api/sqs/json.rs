//! The JSON protocol: AWS JSON 1.0.

use bytes::Bytes;
use hyper::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Code, Error};

/// The header that names the action.
pub(super) const TARGET: &str = "x-amz-target";
const SERVICE: &str = "AmazonSQS.";

/// The action of a request.
pub(super) fn action(target: &HeaderValue) -> Result<String, Error> {
    let target = target.to_str().unwrap_or_default();
    match target.strip_prefix(SERVICE) {
        Some(action) => Ok(action.to_owned()),
        None => Err(Error::new(Code::InvalidAction, format!("{TARGET} must be {SERVICE}<action>, not {target:?}."))),
    }
}

/// The parameters of a request; an empty body has none.
pub(super) fn decode<T: DeserializeOwned>(body: &Bytes) -> Result<T, Error> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Error::new(Code::MalformedInput, error.to_string()))
}

/// The body of an answer.
pub(super) fn encode(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers have text keys and finite numbers alone")
}

/// The body of a refusal.
pub(super) fn refusal(error: &Error) -> Vec<u8> {
    #[derive(Serialize)]
    struct Refusal<'a> {
        __type: &'a str,
        message: &'a str,
    }
    encode(&Refusal { __type: error.code.json(), message: &error.message })
}
