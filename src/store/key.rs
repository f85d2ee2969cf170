//! Keys as bytes whose order is the order of their values: big-endian numbers, text ended by a zero byte.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A key of a table. Its bytes sort as its values do.
pub trait Key: Sized {
    /// The key's bytes.
    fn to_bytes(&self) -> KeyBytes;
    /// The key from its bytes; `None` when they are not a valid key.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for u32 {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Key for u64 {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Key for (u32, u64) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), u64::from_bytes(tail)?))
    }
}

impl Key for (u64, u32) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*head), u32::from_bytes(tail)?))
    }
}

impl Key for (u32, u64, u64) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes(), &self.2.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<8>()?;
        Some((u32::from_be_bytes(*head), u64::from_be_bytes(*middle), u64::from_bytes(last)?))
    }
}

impl Key for (u32, u32, u64) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes(), &self.2.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), u32::from_be_bytes(*middle), u64::from_bytes(last)?))
    }
}

impl Key for (u32, u64, u32) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes(), &self.2.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<8>()?;
        Some((u32::from_be_bytes(*head), u64::from_be_bytes(*middle), u32::from_bytes(last)?))
    }
}

impl Key for (u32, u64, u64, u64) {
    fn to_bytes(&self) -> KeyBytes {
        let (a, b, c, d) = (self.0.to_be_bytes(), self.1.to_be_bytes(), self.2.to_be_bytes(), self.3.to_be_bytes());
        KeyBytes::of(&[&a, &b, &c, &d])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (second, tail) = tail.split_first_chunk::<8>()?;
        let (third, last) = tail.split_first_chunk::<8>()?;
        let [second, third] = [second, third].map(|number| u64::from_be_bytes(*number));
        Some((u32::from_be_bytes(*head), second, third, u64::from_bytes(last)?))
    }
}

impl Key for (u32, [u8; 16]) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), tail.try_into().ok()?))
    }
}

impl Key for (u32, u64, [u8; 16]) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1.to_be_bytes(), &self.2])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<8>()?;
        Some((u32::from_be_bytes(*head), u64::from_be_bytes(*middle), last.try_into().ok()?))
    }
}

impl Key for (u32, [u8; 16], u32, u64) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1, &self.2.to_be_bytes(), &self.3.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (queue, rest) = bytes.split_first_chunk::<4>()?;
        let (group, rest) = rest.split_first_chunk::<16>()?;
        let (priority, rest) = rest.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*queue), *group, u32::from_be_bytes(*priority), u64::from_bytes(rest)?))
    }
}

impl Key for (u64, [u8; 16]) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*head), tail.try_into().ok()?))
    }
}

impl Key for (u64, [u8; 16], [u8; 16]) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[&self.0.to_be_bytes(), &self.1, &self.2])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<8>()?;
        let (middle, last) = tail.split_first_chunk::<16>()?;
        Some((u64::from_be_bytes(*head), *middle, last.try_into().ok()?))
    }
}

impl Key for String {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[self.as_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// Text without a zero byte, then a number.
impl Key for (String, u64) {
    fn to_bytes(&self) -> KeyBytes {
        KeyBytes::of(&[self.0.as_bytes(), &[0], &self.1.to_be_bytes()])
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (text, number) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        let text = text.strip_suffix(&[0])?;
        Some((String::from_bytes(text)?, u64::from_bytes(number)?))
    }
}

/// Keys up to this length are kept in place. The longest key of fixed length that hot steps use has 32 bytes.
const SHORT_BYTES: usize = 38;

/// A key's bytes; cheap to make and to copy.
#[derive(Clone)]
pub struct KeyBytes(Repr);

#[derive(Clone)]
enum Repr {
    Short { length: u8, bytes: [u8; SHORT_BYTES] },
    Long(Arc<[u8]>),
}

impl KeyBytes {
    /// These parts, one behind the other.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        match u8::try_from(length) {
            Ok(short) if length <= SHORT_BYTES => {
                let (mut bytes, mut at) = ([0; SHORT_BYTES], 0);
                for part in parts {
                    bytes[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                Self(Repr::Short { length: short, bytes })
            }
            _ => Self(Repr::Long(parts.concat().into())),
        }
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { length, bytes } => &bytes[..usize::from(*length)],
            Repr::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for KeyBytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for KeyBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_sort_as_their_values() {
        let keys = [(1_u32, 2_u64, 3_u64), (1, 2, 4), (1, 256, 0), (2, 0, 0)];
        let bytes: Vec<_> = keys.iter().map(Key::to_bytes).collect();
        assert!(bytes.is_sorted());
        assert_eq!(keys.map(Some).to_vec(), bytes.iter().map(|b| Key::from_bytes(b)).collect::<Vec<_>>());
        let ticks = [("a".to_owned(), 9_u64), ("a".to_owned(), 10), ("ab".to_owned(), 1)];
        assert!(ticks.iter().map(Key::to_bytes).is_sorted());
        assert_eq!(<(String, u64)>::from_bytes(&ticks[2].to_bytes()), Some(ticks[2].clone()));
        assert_eq!(<(u32, u64)>::from_bytes(&[1, 2]), None);
        let grouped = (1_u32, [2; 16], 3_u32, 4_u64);
        assert_eq!(Key::from_bytes(&grouped.to_bytes()), Some(grouped));
        let long = "a name that is longer than what is kept in place".to_owned();
        assert_eq!(&*long.to_bytes(), long.as_bytes());
        let dedup = (1_u32, 2_u64, [3; 16]);
        assert_eq!(Key::from_bytes(&dedup.to_bytes()), Some(dedup));
        let effect = (1_u64, [2; 16], [3; 16]);
        assert_eq!(Key::from_bytes(&effect.to_bytes()), Some(effect));
        let letter = (1_u32, 2_u64, 3_u64, 4_u64);
        assert_eq!(Key::from_bytes(&letter.to_bytes()), Some(letter));
        let letter_group = (1_u32, 2_u64, 3_u32);
        assert_eq!(Key::from_bytes(&letter_group.to_bytes()), Some(letter_group));
        let ready = (1_u32, 2_u32, 3_u64);
        assert_eq!(Key::from_bytes(&ready.to_bytes()), Some(ready));
    }
}
