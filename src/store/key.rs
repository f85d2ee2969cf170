//! Keys as bytes whose order is the order of their values: big-endian numbers, text ended by a zero byte.

/// A key of a table. Its bytes sort as its values do.
pub trait Key: Sized {
    /// The key's bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// The key from its bytes; `None` when they are not a valid key.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for u32 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Key for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Key for (u32, u64) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), u64::from_bytes(tail)?))
    }
}

impl Key for (u64, u32) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*head), u32::from_bytes(tail)?))
    }
}

impl Key for (u32, u64, u64) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes(), &self.2.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<8>()?;
        Some((u32::from_be_bytes(*head), u64::from_be_bytes(*middle), u64::from_bytes(last)?))
    }
}

impl Key for (u32, u32, u64) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes(), &self.2.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), u32::from_be_bytes(*middle), u64::from_bytes(last)?))
    }
}

impl Key for (u32, [u8; 16]) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*head), tail.try_into().ok()?))
    }
}

impl Key for (u32, u64, [u8; 16]) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes(), &self.2].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<4>()?;
        let (middle, last) = tail.split_first_chunk::<8>()?;
        Some((u32::from_be_bytes(*head), u64::from_be_bytes(*middle), last.try_into().ok()?))
    }
}

impl Key for (u32, [u8; 16], u32, u64) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1, &self.2.to_be_bytes(), &self.3.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (queue, rest) = bytes.split_first_chunk::<4>()?;
        let (group, rest) = rest.split_first_chunk::<16>()?;
        let (priority, rest) = rest.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*queue), *group, u32::from_be_bytes(*priority), u64::from_bytes(rest)?))
    }
}

impl Key for (u64, [u8; 16]) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*head), tail.try_into().ok()?))
    }
}

impl Key for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// Text without a zero byte, then a number.
impl Key for (String, u64) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.0.as_bytes(), &[0], &self.1.to_be_bytes()].concat()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (text, number) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        let text = text.strip_suffix(&[0])?;
        Some((String::from_bytes(text)?, u64::from_bytes(number)?))
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
        let dedup = (1_u32, 2_u64, [3; 16]);
        assert_eq!(Key::from_bytes(&dedup.to_bytes()), Some(dedup));
        let ready = (1_u32, 2_u32, 3_u64);
        assert_eq!(Key::from_bytes(&ready.to_bytes()), Some(ready));
    }
}
