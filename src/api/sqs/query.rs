//! The Query protocol's parameters: names such as `Attribute.1.Name` become the tree that the JSON protocol sends.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::error::{Code, Error};

/// The most parameters of a request: ten entries with ten attributes each need fewer than five hundred.
const PARAMETERS_MAX: usize = 5000;
/// The most parts of a parameter's name.
const PARTS_MAX: usize = 8;

/// Lists, by the name of their items and of the whole.
const LISTS: &[(&str, &str)] = &[
    ("AttributeName", "AttributeNames"),
    ("MessageAttributeName", "MessageAttributeNames"),
    ("MessageSystemAttributeName", "MessageSystemAttributeNames"),
    ("AWSAccountId", "AWSAccountIds"),
    ("ActionName", "Actions"),
    ("TagKey", "TagKeys"),
    ("SendMessageBatchRequestEntry", "Entries"),
    ("DeleteMessageBatchRequestEntry", "Entries"),
    ("ChangeMessageVisibilityBatchRequestEntry", "Entries"),
    ("StringListValue", "StringListValues"),
    ("BinaryListValue", "BinaryListValues"),
];
/// Maps, by the name of their items and of the whole, and what key and value are called.
const MAPS: &[(&str, &str, &str, &str)] = &[
    ("Attribute", "Attributes", "Name", "Value"),
    ("MessageAttribute", "MessageAttributes", "Name", "Value"),
    ("MessageSystemAttribute", "MessageSystemAttributes", "Name", "Value"),
    ("Tag", "Tags", "Key", "Value"),
    ("Tags", "Tags", "Key", "Value"),
];
/// Parameters that are numbers.
const NUMBERS: &[&str] = &[
    "DelaySeconds",
    "VisibilityTimeout",
    "WaitTimeSeconds",
    "MaxNumberOfMessages",
    "MaxResults",
    "MaxNumberOfMessagesPerSecond",
];

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, Node>);

/// A parameter, or those whose names go on behind a dot.
#[derive(Debug)]
enum Node {
    Text(String),
    Parts(BTreeMap<String, Node>),
}

/// The parameters of an address and of a form.
pub(super) fn parse(address: &[u8], form: &[u8]) -> Result<Parameters, Error> {
    let mut parameters = Parameters::default();
    let pairs = form_urlencoded::parse(address).chain(form_urlencoded::parse(form));
    for (count, (name, value)) in pairs.enumerate() {
        if count == PARAMETERS_MAX {
            let text = format!("A request must not have more than {PARAMETERS_MAX} parameters.");
            return Err(Error::new(Code::MalformedInput, text));
        }
        parameters.add(&name, value.into_owned())?;
    }
    Ok(parameters)
}

impl Parameters {
    /// A parameter without parts.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Node::Text(text) => Some(text),
            Node::Parts(_) => None,
        }
    }

    fn add(&mut self, name: &str, value: String) -> Result<(), Error> {
        let refused = || Error::new(Code::MalformedInput, format!("The parameter {name} does not read."));
        let parts: Vec<&str> = name.split('.').collect();
        let (last, above) = parts.split_last().filter(|_| parts.len() <= PARTS_MAX).ok_or_else(refused)?;
        let mut at = &mut self.0;
        for part in above {
            let node = at.entry((*part).to_owned()).or_insert_with(|| Node::Parts(BTreeMap::new()));
            let Node::Parts(below) = node else { return Err(refused()) };
            at = below;
        }
        match at.insert((*last).to_owned(), Node::Text(value)) {
            Some(Node::Parts(_)) => Err(refused()),
            _ => Ok(()),
        }
    }

    /// The parameters of an action.
    pub(super) fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        let value = structure(self.0)?;
        serde_json::from_value(value).map_err(|error| Error::new(Code::MalformedInput, error.to_string()))
    }
}

fn structure(fields: BTreeMap<String, Node>) -> Result<Value, Error> {
    let mut object = Map::new();
    for (name, node) in fields {
        let (name, value) = field(name, node)?;
        object.insert(name, value);
    }
    Ok(Value::Object(object))
}

fn field(name: String, node: Node) -> Result<(String, Value), Error> {
    // An SDK sends an empty list under the name of the whole.
    if let Some((_, whole)) = LISTS.iter().find(|(item, whole)| *item == name || *whole == name) {
        let items = items(node).into_iter().map(value).collect::<Result<_, _>>()?;
        return Ok(((*whole).to_owned(), Value::Array(items)));
    }
    if let Some((_, whole, key, of)) = MAPS.iter().find(|(item, ..)| *item == name) {
        let pairs = items(node).into_iter().map(|item| pair(item, key, of)).collect::<Result<_, _>>()?;
        return Ok(((*whole).to_owned(), Value::Object(pairs)));
    }
    let value = match node {
        Node::Text(text) if NUMBERS.contains(&name.as_str()) => number(&name, &text)?,
        node => value(node)?,
    };
    Ok((name, value))
}

fn value(node: Node) -> Result<Value, Error> {
    match node {
        Node::Text(text) => Ok(Value::String(text)),
        Node::Parts(parts) => structure(parts),
    }
}

/// The items of a list, by their numbers. A list may come without numbers, as one item.
fn items(node: Node) -> Vec<Node> {
    let parts = match node {
        Node::Text(text) if text.is_empty() => return Vec::new(),
        Node::Text(_) => return vec![node],
        Node::Parts(parts) => parts,
    };
    let is_numbered = parts.keys().all(|part| part.parse::<u32>().is_ok());
    if !is_numbered {
        return vec![Node::Parts(parts)];
    }
    let mut items: Vec<(u32, Node)> =
        parts.into_iter().map(|(part, node)| (part.parse().unwrap_or_default(), node)).collect();
    items.sort_by_key(|(number, _)| *number);
    items.into_iter().map(|(_, node)| node).collect()
}

fn pair(item: Node, key: &str, of: &str) -> Result<(String, Value), Error> {
    let Node::Parts(mut parts) = item else { return Err(Error::missing(key)) };
    let Some(Node::Text(name)) = parts.remove(key) else { return Err(Error::missing(key)) };
    let of = parts.remove(of).unwrap_or(Node::Text(String::new()));
    Ok((name, value(of)?))
}

fn number(name: &str, text: &str) -> Result<Value, Error> {
    let number: i64 = text.parse().map_err(|_| Error::value(name, text, "Must be an integer."))?;
    Ok(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(form: &str) -> Result<Value, Error> {
        parse(b"", form.as_bytes())?.decode()
    }

    #[test]
    fn numbered_names_become_lists_and_maps() {
        let form = "QueueName=a&Attribute.1.Name=DelaySeconds&Attribute.1.Value=5&Tag.1.Key=k&Tag.1.Value=v";
        let expected = serde_json::json!({"QueueName": "a", "Attributes": {"DelaySeconds": "5"}, "Tags": {"k": "v"}});
        assert_eq!(tree(form), Ok(expected));
        assert_eq!(tree("Entries="), Ok(serde_json::json!({"Entries": []})));
        let form = "AttributeName.10=c&AttributeName.2=b&AttributeName.1=a&DelaySeconds=7";
        assert_eq!(tree(form), Ok(serde_json::json!({"AttributeNames": ["a", "b", "c"], "DelaySeconds": 7})));
        let form = "SendMessageBatchRequestEntry.1.Id=x&SendMessageBatchRequestEntry.1.MessageAttribute.1.Name=n\
                    &SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.DataType=String";
        let expected =
            serde_json::json!({"Entries": [{"Id": "x", "MessageAttributes": {"n": {"DataType": "String"}}}]});
        assert_eq!(tree(form), Ok(expected));
    }

    #[test]
    fn names_that_contradict_each_other_or_go_too_deep_are_refused() {
        for form in ["a=1&a.b=2", "a.b=2&a=1", "a.b.c.d.e.f.g.h.i=1", "DelaySeconds=x", "Attribute.1.Value=v"] {
            assert!(tree(form).is_err(), "{form}");
        }
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|number| format!("p{number}=1")).collect();
        assert!(tree(&many.join("&")).is_err());
    }
}
