//! One user record: the fields that the users source must give, checked before the record is used.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address;
use crate::base::Failure;
use crate::base::limit::USER_ID_BYTES_MAX;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 200;
/// The most lines of a postal address.
pub const ADDRESS_LINES_MAX: usize = 10;
/// The longest locale tag, in bytes.
const LOCALE_BYTES_MAX: usize = 35;

/// One recipient. A value of this type has passed [`User::check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The team's id of the user: 1 to 256 bytes without control characters.
    pub id: String,
    /// The name for the letter and the To header: 1 to 200 characters on one line.
    pub name: String,
    /// The mail address in ASCII, an international domain as punycode.
    pub email: String,
    /// A BCP 47 tag such as `de-AT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The account to ask for when it is not `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The lines of the postal address for the letter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<String>,
}

/// The raw record: any value in any field; a repeated field is an error.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    email: Value,
    #[serde(default)]
    locale: Value,
    #[serde(default)]
    account_id: Value,
    #[serde(default)]
    address: Value,
}

impl User {
    /// Checks one record's JSON text. Unknown fields are ignored.
    ///
    /// # Errors
    /// A failure of kind `data`, place `users`, with a code such as `missing-id`, `invalid-email`,
    /// `control-character`; its text names the field and the rule, never the address.
    pub fn check(json: &str) -> Result<Self, Failure> {
        // serde would also fill the fields from a list, by position.
        if !json.trim_start().starts_with('{') {
            return Err(failure("malformed", "the record is not a JSON object"));
        }
        let raw: Raw = serde_json::from_str(json)
            .map_err(|e| failure("malformed", format!("the record is not a JSON object of a user: {e}")))?;
        let id = id("id", &raw.id)?.ok_or_else(|| failure("missing-id", "the record has no id"))?;
        Ok(Self {
            name: text("name", &raw.name)?.ok_or_else(|| failure("missing-name", "the record has no name"))?,
            email: email(&raw.email)?,
            locale: locale(&raw.locale)?,
            account_id: self::id("account_id", &raw.account_id)?,
            address: lines(&raw.address)?,
            id,
        })
    }

    /// The account to ask for.
    pub fn account(&self) -> &str {
        self.account_id.as_deref().unwrap_or(&self.id)
    }
}

fn failure(code: &str, text: impl std::fmt::Display) -> Failure {
    Failure::new("data", "users", code, text)
}

/// An id: a string or a whole number.
fn id(field: &str, value: &Value) -> Result<Option<String>, Failure> {
    let id = match value {
        Value::Null => return Ok(None),
        Value::String(id) => id.clone(),
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return Err(wrong(field, "must be a string or a whole number below 2^64")),
    };
    if id.is_empty() || id.len() > USER_ID_BYTES_MAX {
        return Err(wrong(field, format!("has {} bytes (1 to {USER_ID_BYTES_MAX})", id.len())));
    }
    without_controls(field, &id)?;
    Ok(Some(id))
}

/// One line of text; nothing but spaces counts as missing.
fn text(field: &str, value: &Value) -> Result<Option<String>, Failure> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        _ => return Err(wrong(field, "must be a string")),
    };
    without_controls(field, text)?;
    let text = text.trim();
    let chars = text.chars().count();
    if chars > NAME_CHARS_MAX {
        return Err(wrong(field, format!("has {chars} characters (at most {NAME_CHARS_MAX})")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn email(value: &Value) -> Result<String, Failure> {
    let text = match value {
        Value::Null => return Err(failure("missing-email", "the record has no email")),
        Value::String(text) => text.trim(),
        _ => return Err(wrong("email", "must be a string")),
    };
    if text.is_empty() {
        return Err(failure("missing-email", "email is empty"));
    }
    without_controls("email", text)?;
    let address = address::mailable(text).map_err(|why| wrong("email", format!("is not a mail address: {why}")))?;
    Ok(address.to_string())
}

fn locale(value: &Value) -> Result<Option<String>, Failure> {
    let Some(tag) = text("locale", value)? else { return Ok(None) };
    let tag = tag.replace('_', "-");
    let well_formed = tag.split('-').all(|part| (1..=8).contains(&part.len()))
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && tag.len() <= LOCALE_BYTES_MAX;
    if !well_formed {
        return Err(wrong("locale", "is not a BCP 47 tag such as \"en-GB\""));
    }
    Ok(Some(tag))
}

/// A postal address: a list of lines, or one string with line breaks.
fn lines(value: &Value) -> Result<Vec<String>, Failure> {
    let lines: Vec<Value> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.lines().map(Value::from).collect(),
        Value::Array(lines) => lines.clone(),
        _ => return Err(wrong("address", "must be a list of lines")),
    };
    if lines.len() > ADDRESS_LINES_MAX {
        return Err(wrong("address", format!("has {} lines (at most {ADDRESS_LINES_MAX})", lines.len())));
    }
    lines.iter().filter_map(|line| text("address", line).transpose()).collect()
}

fn without_controls(field: &str, text: &str) -> Result<(), Failure> {
    // The two Unicode separators (line and paragraph) break lines as CR and LF do.
    match text.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        Some(c) => {
            let code = u32::from(c);
            Err(failure("control-character", format!("{field} holds the control character U+{code:04X} (remove it)")))
        }
        None => Ok(()),
    }
}

fn wrong(field: &str, rule: impl std::fmt::Display) -> Failure {
    failure(&format!("invalid-{}", field.replace('_', "-")), format!("{field} {rule}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(record: &Value) -> String {
        User::check(&record.to_string()).unwrap_err().code
    }

    /// A good record with one field changed.
    fn with(field: &str, value: Value) -> Value {
        let mut record = json!({"id": "u-1", "name": "Ada", "email": "ada@example.com"});
        record[field] = value;
        record
    }

    #[test]
    fn a_whole_record_is_read_and_reads_back() {
        let record = json!({"id": 42, "name": " Zoë O'Neil ", "email": "zoe@bücher.example", "locale": "de_AT",
            "account_id": "A/1", "address": "Weg 1\r\n1010 Wien\n", "vip": [1, {}]});
        let user = User::check(&record.to_string()).unwrap();
        assert_eq!((user.id.as_str(), user.name.as_str(), user.account()), ("42", "Zoë O'Neil", "A/1"));
        assert_eq!((user.email.as_str(), user.locale.as_deref()), ("zoe@xn--bcher-kva.example", Some("de-AT")));
        assert_eq!(user.address, ["Weg 1", "1010 Wien"]);
        assert_eq!(User::check(&serde_json::to_string(&user).unwrap()), Ok(user));
        assert_eq!(User::check(&with("locale", Value::Null).to_string()).unwrap().account(), "u-1");
    }

    #[test]
    fn each_fault_of_a_record_has_its_code() {
        for (field, value, expected) in [
            ("id", Value::Null, "missing-id"),
            ("id", json!(""), "invalid-id"),
            ("id", json!(1.5), "invalid-id"),
            ("id", json!(true), "invalid-id"),
            ("id", json!("x".repeat(257)), "invalid-id"),
            ("id", json!("a\u{7f}b"), "control-character"),
            ("name", Value::Null, "missing-name"),
            ("name", json!("  "), "missing-name"),
            ("name", json!(7), "invalid-name"),
            ("name", json!("é".repeat(201)), "invalid-name"),
            ("name", json!("Ada\r\nBcc: x@y.z"), "control-character"),
            ("name", json!("Ada\u{2028}x"), "control-character"),
            ("name", json!("\u{0}"), "control-character"),
            ("email", Value::Null, "missing-email"),
            ("email", json!(" "), "missing-email"),
            ("email", json!("nobody"), "invalid-email"),
            ("email", json!(["a@b.c"]), "invalid-email"),
            ("email", json!("a@b.c\nRCPT TO:<x@y.z>"), "control-character"),
            ("locale", json!("../etc"), "invalid-locale"),
            ("account_id", json!({}), "invalid-account-id"),
            ("address", json!(vec!["x"; 11]), "invalid-address"),
            ("address", json!([1]), "invalid-address"),
        ] {
            assert_eq!(code(&with(field, value.clone())), expected, "{field} {value}");
        }
        assert_eq!(User::check("[1]").unwrap_err().class(), "data users malformed");
        let twice = r#"{"id":1,"id":2,"name":"a","email":"a@b.cd"}"#;
        assert_eq!(User::check(twice).unwrap_err().code, "malformed");
    }

    #[test]
    fn the_longest_id_and_name_are_taken() {
        assert!(User::check(&with("id", json!("x".repeat(256))).to_string()).is_ok());
        assert!(User::check(&with("name", json!("é".repeat(200))).to_string()).is_ok());
        assert_eq!(User::check(&with("id", json!(u64::MAX)).to_string()).unwrap().id, u64::MAX.to_string());
    }
}
