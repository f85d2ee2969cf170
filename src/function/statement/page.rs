//! One page of users as bytes: its format, its records, and what it says about the next page.
//!
//! Splits the page into records without parsing them, so that one bad record does not spoil the page.
//! Must not know how pages are fetched.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::user::User;
use crate::base::Failure;
use crate::function::upstream::Fault;

/// A malformed record's text is kept up to this many bytes.
pub const MALFORMED_BYTES_MAX: usize = 4096;
/// Where the array of users is searched for in an object.
const ITEMS: &[&str] = &["/users", "/data", "/items", "/results"];
/// Where the next page's address or cursor is searched for in an object.
const NEXT: &[&str] = &["/next", "/next_cursor", "/cursor", "/links/next"];

/// One record of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A recipient.
    User(User),
    /// A record that is no valid user.
    Malformed {
        /// Its position on the page, counted from 0.
        index: usize,
        /// Its text, cut at [`MALFORMED_BYTES_MAX`].
        raw: String,
        /// The SHA-256 of its whole text.
        digest: [u8; 32],
        /// What is wrong with it.
        why: Failure,
    },
}

/// The JSON pointers that the settings name.
#[derive(Clone, Debug, Default)]
pub(super) struct Pointers {
    pub(super) items: Option<String>,
    pub(super) next: Option<String>,
}

/// The parsed bytes of one page.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) records: Vec<Record>,
    /// The next page's address or cursor as it stands in the body.
    pub(super) next: Option<String>,
}

/// Reads one page.
///
/// # Errors
/// A permanent fault when the page is something else than users (`html`, `invalid-utf8`, `malformed`); a temporary one
/// when it ends too early (`truncated`).
pub(super) fn parse(body: &[u8], content_type: Option<&str>, pointers: &Pointers) -> Result<Parsed, Fault> {
    let text = String::from_utf8_lossy(body);
    // Invalid UTF-8 spoils the records that contain it, not the page.
    let broken_utf8 = matches!(text, Cow::Owned(_));
    let text = text.trim_start_matches('\u{feff}').trim();
    let media_type = content_type.and_then(|t| t.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    if media_type.contains("html") || text.starts_with('<') {
        let text = "the page is HTML or XML, not JSON (is users.url an API's address, and the token right?)";
        return Err(Fault::permanent(Failure::new("data", "users", "html", text)));
    }
    let named_lines = ["ndjson", "jsonl", "json-lines", "jsonlines"].iter().any(|name| media_type.contains(name));
    let record = |(index, json)| record(index, json, broken_utf8);
    if named_lines || looks_like_lines(text) {
        let lines = lines(text)?;
        return Ok(Parsed { records: lines.into_iter().enumerate().map(record).collect(), next: None });
    }
    let found = if text.starts_with('[') { array(text).map(|items| (items, None)) } else { object(text, pointers) };
    let (items, next) = match found {
        Err(_) if pointers.items.is_none() && is_one_line(text) => {
            return Ok(Parsed { records: vec![record((0, text))], next: None });
        }
        // Bytes that are not UTF-8 outside of every record.
        Err(fault) if broken_utf8 && fault.is_permanent() => {
            let text = format!("{} (send UTF-8)", fault.failure().text);
            return Err(Fault::permanent(Failure::new("data", "users", "invalid-utf8", text)));
        }
        found => found?,
    };
    let records = items.iter().map(|item| item.get()).enumerate().map(record).collect();
    Ok(Parsed { records, next })
}

/// Checks one record.
fn record(index: usize, json: &str, broken_utf8: bool) -> Record {
    let why = if broken_utf8 && json.contains(char::REPLACEMENT_CHARACTER) {
        Failure::new("data", "users", "invalid-utf8", "the record is not UTF-8 (send UTF-8)")
    } else {
        match User::check(json) {
            Ok(user) => return Record::User(user),
            Err(why) => why,
        }
    };
    Record::Malformed { index, raw: cut(json).to_owned(), digest: Sha256::digest(json).into(), why }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MALFORMED_BYTES_MAX)]
}

/// JSON Lines: the first line is a whole object and more follows.
fn looks_like_lines(text: &str) -> bool {
    let Some((first, _)) = text.split_once('\n') else { return false };
    first.starts_with('{') && serde_json::from_str::<&RawValue>(first).is_ok()
}

/// JSON Lines of one user, such as a last page: a valid user on one line. Anything else may be an error that the
/// service answers with status 200, and the pages behind it would be lost.
fn is_one_line(text: &str) -> bool {
    !text.contains('\n') && User::check(text).is_ok()
}

/// The lines of JSON Lines. Only the last one can show that the page was cut off.
fn lines(text: &str) -> Result<Vec<&str>, Fault> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if let Some(last) = lines.last()
        && let Err(error) = serde_json::from_str::<&RawValue>(last)
        && error.is_eof()
    {
        return Err(unreadable(&error));
    }
    Ok(lines)
}

fn array(text: &str) -> Result<Vec<&RawValue>, Fault> {
    serde_json::from_str(text).map_err(|e| unreadable(&e))
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn object<'a>(text: &'a str, pointers: &Pointers) -> Result<(Vec<&'a RawValue>, Option<String>), Fault> {
    let fields: Fields<'a> = serde_json::from_str(text).map_err(|e| unreadable(&e))?;
    let items = match &pointers.items {
        Some(pointer) => find(&fields, pointer),
        None => ITEMS.iter().filter_map(|pointer| find(&fields, pointer)).find(|found| is_array(found)),
    };
    let Some(items) = items.filter(|found| is_array(found)) else {
        let places = pointers.items.clone().unwrap_or_else(|| ITEMS.join(", "));
        return Err(malformed(format!(
            "the page has no array of users (looked at {places}; set users.items to its pointer)"
        )));
    };
    let next = match &pointers.next {
        Some(pointer) => find(&fields, pointer).and_then(next_text),
        None => NEXT.iter().find_map(|pointer| find(&fields, pointer).and_then(next_text)),
    };
    Ok((array(items.get())?, next))
}

fn is_array(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

/// Follows a JSON pointer (RFC 6901) through objects.
fn find<'a>(fields: &Fields<'a>, pointer: &str) -> Option<&'a RawValue> {
    let mut names = pointer.strip_prefix('/').unwrap_or(pointer).split('/');
    let unescape = |name: &str| name.replace("~1", "/").replace("~0", "~");
    let mut found = *fields.get(&unescape(names.next()?))?;
    for name in names {
        let fields: Fields<'a> = serde_json::from_str(found.get()).ok()?;
        found = *fields.get(&unescape(name))?;
    }
    Some(found)
}

/// An address or cursor: a string or a number; `{"href": …}` as HAL writes it; null, "" and false mean the end.
fn next_text(value: &RawValue) -> Option<String> {
    match serde_json::from_str(value.get()).ok()? {
        serde_json::Value::String(text) if !text.is_empty() => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Object(link) => Some(link.get("href")?.as_str()?.to_owned()),
        _ => None,
    }
}

fn malformed(text: impl std::fmt::Display) -> Fault {
    Fault::permanent(Failure::new("data", "users", "malformed", text))
}

fn unreadable(error: &serde_json::Error) -> Fault {
    if error.is_eof() {
        let text = format!("the page ends too early: {error}");
        return Fault::temporary(Failure::new("data", "users", "truncated", text));
    }
    malformed(format!("the page is not JSON of users: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = r#"{"id":1,"name":"Ada","email":"ada@example.com"}"#;
    const BOB: &str = r#"{"id":2,"name":"Bob","email":"bob@example.com"}"#;

    fn page(body: impl AsRef<[u8]>) -> Result<Parsed, Fault> {
        parse(body.as_ref(), None, &Pointers::default())
    }

    /// The ids of the users and the codes of the malformed records.
    fn shape(parsed: &Parsed) -> Vec<String> {
        let one = |record: &Record| match record {
            Record::User(user) => user.id.clone(),
            Record::Malformed { index, why, .. } => format!("{index}:{}", why.code),
        };
        parsed.records.iter().map(one).collect()
    }

    #[test]
    fn arrays_objects_and_json_lines_are_read() {
        for body in [
            format!("[{ADA},{BOB}]"),
            format!("\u{feff} [{ADA},\n{BOB}]\n"),
            format!(r#"{{"total":2,"users":[{ADA},{BOB}]}}"#),
            format!("{{\n\"results\":[{ADA},{BOB}],\"data\":null}}"),
            format!("{ADA}\n{BOB}\n"),
            format!("{ADA}\r\n\r\n{BOB}"),
        ] {
            assert_eq!(shape(&page(&body).unwrap()), ["1", "2"], "{body}");
        }
        let one = parse(ADA.as_bytes(), Some("application/x-ndjson; charset=utf-8"), &Pointers::default());
        assert_eq!(shape(&one.unwrap()), ["1"]);
        assert_eq!(shape(&page(ADA).unwrap()), ["1"]);
        for no_page in [r#"{"id":"req-77","error":"internal"}"#, &ADA.replace(',', ",\n")] {
            assert!(page(no_page).unwrap_err().is_permanent(), "{no_page}");
        }
        assert_eq!(shape(&page(format!(r#"{{"id":"page-1","users":[{BOB}]}}"#)).unwrap()), ["2"]);
        assert_eq!(shape(&page("[]").unwrap()), Vec::<String>::new());
        assert_eq!(shape(&page(r#"{"items":[]}"#).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn the_settings_pointers_are_followed() {
        let pointers = Pointers { items: Some("/a~1b/list".into()), next: Some("/meta/more".into()) };
        let body = format!(r#"{{"users":[],"a/b":{{"list":[{ADA}]}},"meta":{{"more":"c2"}},"next":"no"}}"#);
        let parsed = parse(body.as_bytes(), None, &pointers).unwrap();
        assert_eq!((shape(&parsed), parsed.next.as_deref()), (vec!["1".to_owned()], Some("c2")));
        let fault = parse(br#"{"users":[]}"#, None, &pointers).unwrap_err();
        assert!(fault.failure().text.contains("/a~1b/list"), "{fault:?}");
    }

    #[test]
    fn a_bad_record_spoils_only_itself() {
        let body = format!(r#"[{ADA},null,{{"id":7}},"x",[],{BOB}]"#);
        let expected = ["1", "1:malformed", "2:missing-name", "3:malformed", "4:malformed", "2"];
        assert_eq!(shape(&page(body).unwrap()), expected);
        let lines = format!("{ADA}\n{{broken\n{BOB}");
        assert_eq!(shape(&page(lines).unwrap()), ["1", "1:malformed", "2"]);
        let mut latin1 = format!(r#"[{ADA},{{"id":3,"name":"J"#).into_bytes();
        latin1.push(0xFC);
        latin1.extend(br#"rgen","email":"j@example.com"}]"#);
        assert_eq!(shape(&page(latin1).unwrap()), ["1", "1:invalid-utf8"]);
    }

    #[test]
    fn a_malformed_record_is_kept_up_to_4_kib() {
        let (one, other) = ("é".repeat(5000), "é".repeat(5001));
        let parsed = page(format!(r#"[{{"id":"{one}"}},{{"id":"{other}"}}]"#)).unwrap();
        let [Record::Malformed { raw, digest, .. }, Record::Malformed { digest: other, .. }] = &parsed.records[..]
        else {
            panic!("{parsed:?}")
        };
        assert!(raw.starts_with(r#"{"id":"éé"#) && (4095..=4096).contains(&raw.len()));
        assert_ne!(digest, other, "the digest is of the whole text");
    }

    #[test]
    fn what_is_not_a_page_of_users_is_permanent_and_a_cut_page_temporary() {
        for body in ["<html>", " <?xml?>"] {
            assert_eq!(page(body).unwrap_err().failure().class(), "data users html");
        }
        assert_eq!(page(b"{\"a\xff\": 1}").unwrap_err().failure().class(), "data users invalid-utf8");
        for body in [r#"{"error":"no"}"#, r#"{"users":{}}"#, "7", "\"x\"", "[1,}", "null", "{]"] {
            let fault = page(body).unwrap_err();
            assert_eq!(
                (fault.failure().class().as_str(), fault.is_permanent()),
                ("data users malformed", true),
                "{body}"
            );
        }
        let html = parse(b"[]", Some("text/html; charset=utf-8"), &Pointers::default()).unwrap_err();
        assert!(html.is_permanent() && html.failure().code == "html");
        let whole = format!(r#"{{"users":[{ADA}]}}"#);
        for end in 0..whole.len() {
            let fault = page(&whole[..end]).unwrap_err();
            assert!(fault.is_temporary() && fault.failure().code == "truncated", "{:?}: {fault:?}", &whole[..end]);
        }
        assert!(page(format!("{ADA}\n{}", &BOB[..20])).unwrap_err().is_temporary());
    }

    #[test]
    fn the_next_page_is_found_in_the_body() {
        let next = |body: &str| page(body).unwrap().next;
        assert_eq!(next(r#"{"users":[],"next":"https://a/2"}"#).as_deref(), Some("https://a/2"));
        assert_eq!(next(r#"{"users":[],"next":null,"next_cursor":17}"#).as_deref(), Some("17"));
        assert_eq!(next(r#"{"users":[],"links":{"next":{"href":"/2"}}}"#).as_deref(), Some("/2"));
        assert_eq!(next(r#"{"users":[],"next":"","cursor":false}"#), None);
    }

    #[test]
    fn deeply_nested_json_does_not_overflow_the_stack() {
        let deep = format!("[{}{}]", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(shape(&page(deep).unwrap()), ["0:malformed"]);
    }
}
