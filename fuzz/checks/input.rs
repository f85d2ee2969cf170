//! A fuzzer's bytes, read as choices. Zeros follow the last byte, so that every input means something.

/// What is left of the bytes.
pub(crate) struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub(crate) fn of(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        number % end.max(1)
    }

    /// At most so many bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
