//! Receipt handles: which receive of which message.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// Names one receive of one message. As text: `1-` and three hex numbers, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceiptHandle {
    /// The row number of the queue when it was received.
    pub queue: u32,
    /// The message's sequence number.
    pub sequence: u64,
    /// The receive.
    pub lease: u64,
}

impl fmt::Display for ReceiptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1-{:08x}{:016x}{:016x}", self.queue, self.sequence, self.lease)
    }
}

impl FromStr for ReceiptHandle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = || Error::ReceiptHandle(text.chars().take(80).collect());
        let digits = text.strip_prefix("1-").filter(|digits| digits.len() == 40).ok_or_else(refused)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let number = |range| u64::from_str_radix(&digits[range], 16).map_err(|_| refused());
        Ok(Self {
            queue: u32::try_from(number(0..8)?).map_err(|_| refused())?,
            sequence: number(8..24)?,
            lease: number(24..40)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_handle_reads_back_and_anything_else_is_refused() {
        let handle = ReceiptHandle { queue: 3, sequence: u64::MAX, lease: 17 };
        assert_eq!(handle.to_string().parse(), Ok(handle));
        for bad in ["", "1-", "2-00", &"1".repeat(42), "1-ü"] {
            assert!(bad.parse::<ReceiptHandle>().is_err(), "{bad:?} must be refused");
        }
    }
}
