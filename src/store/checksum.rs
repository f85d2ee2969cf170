//! The checksum at the end of every stored value. It detects changed values, and values under another key or in another
//! table than they were written to.

use super::Error;
use super::table_id::TableId;

/// The length of a checksum.
pub(super) const BYTES: usize = 4;

/// The CRC-32C of table, key and value; the key's length fixes the border between key and value.
pub(super) fn of(table: TableId, key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let [a, b, c, d] = u32::try_from(key.len()).expect("a key is far shorter than 4 GiB").to_be_bytes();
    let head = crc32c::crc32c(&[table.number, a, b, c, d]);
    crc32c::crc32c_append(crc32c::crc32c_append(head, key), value).to_be_bytes()
}

/// The value without its checksum.
pub(super) fn strip(stored: &[u8]) -> Option<(&[u8], &[u8; BYTES])> {
    stored.split_last_chunk()
}

/// The value without its checksum; the error says why the checksum does not match.
pub(super) fn open<'v>(table: TableId, key: &[u8], stored: &'v [u8]) -> Result<&'v [u8], Error> {
    let damaged = |reason: String| Error::Record { table: table.name, reason };
    let (value, found) = strip(stored).ok_or_else(|| damaged(format!("{} bytes hold no checksum", stored.len())))?;
    if of(table, key, value) == *found { Ok(value) } else { Err(damaged("its checksum does not fit".into())) }
}

/// The value with its checksum.
pub(super) fn seal(table: TableId, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let checksum = of(table, key, &value);
    value.extend_from_slice(&checksum);
    value
}

#[cfg(test)]
mod tests {
    use super::super::table_id::table;
    use super::*;

    const STATES: TableId = table("states");

    #[test]
    fn a_value_opens_in_its_place_alone() {
        let stored = seal(STATES, b"key", b"value".to_vec());
        assert_eq!(open(STATES, b"key", &stored), Ok(&b"value"[..]));
        assert!(open(table("counts"), b"key", &stored).is_err());
        assert!(open(STATES, b"kez", &stored).is_err());
        // The same bytes in a row, with the border between key and value elsewhere.
        assert!(open(STATES, b"ke", &[b"y", &stored[..]].concat()).is_err());
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(STATES, b"key", &flipped).is_err(), "bit {bit}");
        }
        assert!(open(STATES, b"key", b"abc").is_err());
    }
}
