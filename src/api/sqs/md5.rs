//! SQS's digests of a message: of its body, and of its attributes in SQS's own encoding.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use crate::store::record::{Attribute, AttributeValue};

use super::text::hex;

/// The MD5 of a body.
pub(super) fn of_body(body: &[u8]) -> String {
    hex(&Md5::digest(body))
}

/// The MD5 of message attributes; `None` when there are none. They are hashed in the order of their names: length and
/// bytes of name and data type, a byte for the kind of value, length and bytes of the value.
pub(super) fn of_attributes<'a>(attributes: impl IntoIterator<Item = (&'a String, &'a Attribute)>) -> Option<String> {
    let sorted: BTreeMap<_, _> = attributes.into_iter().collect();
    if sorted.is_empty() {
        return None;
    }
    let mut hash = Md5::new();
    for (name, attribute) in sorted {
        sized(&mut hash, name.as_bytes());
        sized(&mut hash, attribute.data_type.as_bytes());
        hash.update([match attribute.value {
            AttributeValue::Text(_) => 1,
            AttributeValue::Binary(_) => 2,
        }]);
        sized(&mut hash, attribute.value.as_bytes());
    }
    Some(hex(&hash.finalize()))
}

fn sized(hash: &mut Md5, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hash.update(length.to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data_type: &str, value: &str) -> Attribute {
        Attribute { data_type: data_type.into(), value: AttributeValue::Text(value.into()) }
    }

    /// The digests are those of boto3's own tests and of LocalStack's recordings.
    #[test]
    fn digests_are_those_of_aws() {
        assert_eq!(of_body(b"hello"), "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(of_attributes(&BTreeMap::new()), None);
        let timestamp = BTreeMap::from([("timestamp".to_owned(), text("Number", "1493147359900"))]);
        assert_eq!(of_attributes(&timestamp).as_deref(), Some("235c5c510d26fb653d073faed50ae77c"));
    }
}
