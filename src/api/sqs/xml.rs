//! The Query protocol's answers: XML. It is only written here, never read.

use serde_json::{Map, Value};

use super::error::{Code, Error};

const NAMESPACE: &str = "http://queue.amazonaws.com/doc/2012-11-05/";

/// Actions that return nothing, not even an empty result.
const WITHOUT_RESULT: &[&str] = &[
    "AddPermission",
    "ChangeMessageVisibility",
    "DeleteMessage",
    "DeleteQueue",
    "PurgeQueue",
    "RemovePermission",
    "SetQueueAttributes",
    "TagQueue",
    "UntagQueue",
];

/// The body of an answer.
pub(super) fn answer(action: &str, id: &str, value: &Value) -> Vec<u8> {
    let mut xml = declaration();
    xml.push_str(&format!("<{action}Response xmlns=\"{NAMESPACE}\">"));
    if let Some(fields) = value.as_object().filter(|_| !WITHOUT_RESULT.contains(&action)) {
        element(&mut xml, &format!("{action}Result"), |xml| structure(xml, action, fields));
    }
    element(&mut xml, "ResponseMetadata", |xml| text(xml, "RequestId", id));
    xml.push_str(&format!("</{action}Response>"));
    xml.into_bytes()
}

/// The body of a refusal.
pub(super) fn refusal(error: &Error, id: &str) -> Vec<u8> {
    let mut xml = declaration();
    let message = match error.code {
        Code::QueueDoesNotExist => "The specified queue does not exist for this wsdl version.",
        _ => &error.message,
    };
    xml.push_str(&format!("<ErrorResponse xmlns=\"{NAMESPACE}\">"));
    element(&mut xml, "Error", |xml| {
        text(xml, "Type", error.code.fault());
        text(xml, "Code", error.code.query());
        text(xml, "Message", message);
        xml.push_str("<Detail/>");
    });
    text(&mut xml, "RequestId", id);
    xml.push_str("</ErrorResponse>");
    xml.into_bytes()
}

fn declaration() -> String {
    "<?xml version=\"1.0\"?>".to_owned()
}

fn structure(xml: &mut String, action: &str, fields: &Map<String, Value>) {
    for (name, value) in fields {
        field(xml, action, name, value);
    }
}

/// A field. The items of lists and maps stand beside each other, without an element around them.
fn field(xml: &mut String, action: &str, name: &str, value: &Value) {
    match value {
        Value::Array(items) => {
            let name = item(action, name);
            for item in items {
                field(xml, action, &name, item);
            }
        }
        Value::Object(pairs) => match map(name) {
            Some((item, key, of)) => {
                for (name, value) in pairs {
                    element(xml, item, |xml| {
                        text(xml, key, name);
                        field(xml, action, of, value);
                    });
                }
            }
            None => element(xml, name, |xml| structure(xml, action, pairs)),
        },
        Value::String(value) => text(xml, name, value),
        other => text(xml, name, &other.to_string()),
    }
}

/// The name of a list's items.
fn item(action: &str, name: &str) -> String {
    match name {
        "QueueUrls" | "queueUrls" => "QueueUrl".into(),
        "Messages" => "Message".into(),
        "Successful" => format!("{action}ResultEntry"),
        "Failed" => "BatchResultErrorEntry".into(),
        "Results" => format!("{action}ResultEntry"),
        other => other.trim_end_matches('s').into(),
    }
}

/// What the items of a map, their keys and their values are called.
fn map(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match name {
        "Attributes" => Some(("Attribute", "Name", "Value")),
        "MessageAttributes" => Some(("MessageAttribute", "Name", "Value")),
        "Tags" => Some(("Tag", "Key", "Value")),
        _ => None,
    }
}

fn element(xml: &mut String, name: &str, content: impl FnOnce(&mut String)) {
    xml.push_str(&format!("<{name}>"));
    content(xml);
    xml.push_str(&format!("</{name}>"));
}

fn text(xml: &mut String, name: &str, value: &str) {
    element(xml, name, |xml| {
        for character in value.chars() {
            match character {
                '&' => xml.push_str("&amp;"),
                '<' => xml.push_str("&lt;"),
                '>' => xml.push_str("&gt;"),
                // As it stands a reader takes it for a line feed, and the body's MD5 is another one.
                '\r' => xml.push_str("&#xD;"),
                // A refusal may repeat what a client sent; XML 1.0 has no way to write these.
                '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    xml.push('\u{fffd}')
                }
                other => xml.push(other),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_elements_of_the_query_protocol() {
        let value = serde_json::json!({"Messages": [{"Body": "a<b>&\r\n", "Attributes": {"SentTimestamp": "1"}}]});
        let expected = "<?xml version=\"1.0\"?>\
            <ReceiveMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><ReceiveMessageResult>\
            <Message><Attribute><Name>SentTimestamp</Name><Value>1</Value></Attribute><Body>a&lt;b&gt;&amp;&#xD;\n</Body>\
            </Message></ReceiveMessageResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata>\
            </ReceiveMessageResponse>";
        assert_eq!(String::from_utf8(answer("ReceiveMessage", "id", &value)).unwrap(), expected);
        let nothing = String::from_utf8(answer("DeleteQueue", "id", &serde_json::json!({}))).unwrap();
        assert!(!nothing.contains("Result"), "{nothing}");
        let empty = String::from_utf8(answer("ListQueues", "id", &serde_json::json!({}))).unwrap();
        assert!(empty.contains("<ListQueuesResult></ListQueuesResult>"), "{empty}");
    }
}
