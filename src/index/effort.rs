//! How far a search goes, and what it did.

/// What a search did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Effort {
    /// Lists gone through.
    pub lists: usize,
    /// Rows whose 1-bit codes were scanned.
    pub scanned: usize,
    /// Rows whose 8-bit codes were read.
    pub refined: usize,
    /// Rows whose distances were computed.
    pub measured: usize,
    /// The least gap after the lists that were wanted, if there were others; see
    /// [`super::Probes`].
    pub gap: Option<f32>,
}

impl std::ops::AddAssign for Effort {
    fn add_assign(&mut self, other: Self) {
        self.lists += other.lists;
        self.scanned += other.scanned;
        self.refined += other.refined;
        self.measured += other.measured;
        self.note_gap(other.gap);
    }
}

impl Effort {
    pub(super) fn note_gap(&mut self, gap: Option<f32>) {
        self.gap = match (self.gap, gap) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// How far a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// As far as was found to be needed for the recall that is wanted.
    Measured,
    /// This many lists of each segment.
    Lists(usize),
}
