//! A query as a segment and its lists see it.

use super::{Damage, Part};
use crate::vector::rabitq::{Space, fine_bytes, fine_key};
use crate::vector::{Kernels, Real, Scope};

/// A query as one segment sees it.
pub(super) struct Aimed<'a> {
    pub(super) number: u32,
    pub(super) part: &'a Part,
    pub(super) rotated: Vec<f32>,
    /// What is in every list's share of a key, and for products the query's length.
    common: f32,
    length: f32,
    /// Whether rows have to be looked at to know whether they are in question.
    pub(super) tests_rows: bool,
}

/// A query as one list sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) number: usize,
    /// Its share of a key.
    pub(super) share: f32,
    /// How far the query is from its centroid; for products the query's length.
    pub(super) reach: f32,
}

impl<'a> Aimed<'a> {
    /// Turns the query to the segment's mean.
    pub(super) fn new(
        rotated: &[f32],
        scope: &Scope<'_>,
        number: usize,
        part: &'a Part,
    ) -> Result<Self, Damage> {
        let header = part.segment.header();
        let mean = part.segment.mean()?;
        let mut rotated = rotated.to_vec();
        let mut common = [0.0];
        match header.space() {
            Space::Distance => {
                for (x, mean) in rotated.iter_mut().zip(mean) {
                    *x -= mean;
                }
            }
            Space::Product => (f32::kernels().dot)(&rotated, mean, &mut common),
        }
        let square = rotated.iter().map(|x| x * x).sum::<f32>();
        if header.space() == Space::Distance {
            common[0] = -square;
        }
        Ok(Self {
            number: number as u32,
            part,
            rotated,
            common: -common[0],
            length: square.sqrt(),
            tests_rows: scope.rows.is_some()
                || scope.not_before > header.least_event
                || scope.now >= header.least_expiry,
        })
    }

    /// About each list's share of a key, with the list's number.
    pub(super) fn order(&self) -> Result<Vec<(f32, u32)>, Damage> {
        let segment = &self.part.segment;
        let bytes = fine_bytes(segment.header().padded());
        let codes = segment.centroid_codes()?.chunks_exact(bytes);
        Ok(codes
            .zip(0..)
            .map(|(code, list)| (fine_key(&self.rotated, code, 0.0).0, list))
            .collect())
    }

    pub(super) fn list(&self, number: usize) -> Result<List, Damage> {
        let segment = &self.part.segment;
        let kernels: &Kernels<f32> = f32::kernels();
        let mut out = [0.0];
        let centroid = segment.centroid(number)?;
        let (share, reach) = match segment.header().space() {
            Space::Distance => {
                (kernels.l2_squared)(&self.rotated, centroid, &mut out);
                (out[0], out[0].sqrt())
            }
            Space::Product => {
                (kernels.dot)(&self.rotated, centroid, &mut out);
                (self.common - out[0], self.length)
            }
        };
        Ok(List { number, share, reach })
    }
}
