//! What a target decides by.

/// Decisions taken from the input; zeros where it has ended.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn small(&mut self) -> usize {
        self.next().unwrap_or_default().into()
    }

    pub(crate) fn eight(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.next().unwrap_or_default()))
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.some()).into_owned()
    }

    /// Up to 31 bytes.
    pub(crate) fn some(&mut self) -> &[u8] {
        let length = (self.small() % 32).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }
}
