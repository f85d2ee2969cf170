//! A mail's bytes between 354 and the final dot: unstuffed, bounded and looked at line by line. No I/O.

use memchr::memchr;

use super::LINE_BYTES_MAX;

/// The part of the mail that was received so far.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// The unstuffed lines, each with its CRLF.
    pub(super) bytes: Vec<u8>,
    /// More came than was allowed; `bytes` is not the whole mail.
    pub(super) too_large: bool,
    /// Lines of more than [`LINE_BYTES_MAX`] bytes.
    pub(super) long_lines: u64,
    /// A byte above 127 was seen.
    pub(super) eight_bit: bool,
    /// A NUL was seen.
    pub(super) nul: bool,
    /// What `bytes` may grow to.
    bytes_max: usize,
}

/// What one line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A line of the mail.
    Line,
    /// The end of data: a single dot.
    End,
    /// LF without CR.
    BareLf,
    /// CR without LF.
    BareCr,
}

impl Body {
    /// An empty mail of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Takes one line as it came, with the LF that ends it.
    pub(super) fn take(&mut self, line: &[u8]) -> Taken {
        let Some(text) = line.strip_suffix(b"\r\n") else { return Taken::BareLf };
        if memchr(b'\r', text).is_some() {
            return Taken::BareCr;
        }
        if text == b"." {
            return Taken::End;
        }
        let line = line.strip_prefix(b".").unwrap_or(line);
        self.long_lines += u64::from(line.len() > LINE_BYTES_MAX);
        self.eight_bit |= !line.is_ascii();
        self.nul |= memchr(0, line).is_some();
        self.too_large |= self.bytes.len() + line.len() > self.bytes_max;
        if !self.too_large {
            self.bytes.extend_from_slice(line);
        }
        Taken::Line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_dots_are_taken_off_and_a_lone_dot_ends_the_mail() {
        let mut body = Body::new(100);
        for line in ["a\r\n", "..\r\n", "..b\r\n", ".c\r\n", "\r\n"] {
            assert_eq!(body.take(line.as_bytes()), Taken::Line);
        }
        assert_eq!(body.take(b".\r\n"), Taken::End);
        assert_eq!(body.bytes, b"a\r\n.\r\n.b\r\nc\r\n\r\n");
    }

    #[test]
    fn lines_that_do_not_end_in_crlf_alone_are_refused() {
        assert_eq!(Body::new(9).take(b"a\n"), Taken::BareLf);
        assert_eq!(Body::new(9).take(b".\n"), Taken::BareLf);
        assert_eq!(Body::new(9).take(b"\n"), Taken::BareLf);
        assert_eq!(Body::new(9).take(b"a\r.\r\n"), Taken::BareCr);
        assert_eq!(Body::new(9).take(b".\r\r\n"), Taken::BareCr);
    }

    #[test]
    fn a_mail_above_its_limit_is_not_kept() {
        let mut body = Body::new(6);
        body.take(b"abcd\r\n");
        assert!(!body.too_large);
        body.take(b"\r\n");
        assert!(body.too_large);
        assert_eq!(body.bytes.len(), 6);
    }

    #[test]
    fn a_line_is_long_from_1001_bytes_on_without_its_stuffed_dot() {
        let mut body = Body::new(9000);
        body.take(format!(".{}\r\n", "x".repeat(998)).as_bytes());
        assert_eq!(body.long_lines, 0);
        body.take(format!("{}\r\n", "x".repeat(999)).as_bytes());
        assert_eq!(body.long_lines, 1);
    }
}
