//! The checksum at the end of every stored value. It detects changed values, and values under another key or in another
//! table than they were written to.

/// The length of a checksum.
pub(super) const BYTES: usize = 4;

/// The CRC-32 (IEEE) of table, key, value and the key's length; the length fixes the border between key and value.
pub(super) fn of(table: &str, key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.update(&u32::try_from(key.len()).expect("a key is far shorter than 4 GiB").to_be_bytes());
    hasher.finalize().to_be_bytes()
}

/// The value without its checksum; the error says why the checksum does not match.
pub(super) fn open<'v>(table: &str, key: &[u8], stored: &'v [u8]) -> Result<&'v [u8], String> {
    let (value, found) =
        stored.split_last_chunk::<BYTES>().ok_or_else(|| format!("{} bytes hold no checksum", stored.len()))?;
    if of(table, key, value) == *found { Ok(value) } else { Err("its checksum does not fit".into()) }
}

/// The value with its checksum.
pub(super) fn seal(table: &str, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let checksum = of(table, key, &value);
    value.extend_from_slice(&checksum);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_in_its_place_alone() {
        let stored = seal("states", b"key", b"value".to_vec());
        assert_eq!(open("states", b"key", &stored), Ok(&b"value"[..]));
        assert!(open("counts", b"key", &stored).is_err());
        assert!(open("states", b"kez", &stored).is_err());
        // The same bytes in a row, with the border between key and value elsewhere.
        assert!(open("states", b"ke", &[b"y", &stored[..]].concat()).is_err());
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open("states", b"key", &flipped).is_err(), "bit {bit}");
        }
        assert!(open("states", b"key", b"abc").is_err());
    }
}
