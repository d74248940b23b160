//! When which segments are built: the logarithmic method (Bentley and Saxe, J. Algorithms 1980), as
//! log-structured merge trees use it. Rows that no segment has go into a new one, together with
//! those of the segments that are not much larger, so that every row is built into segments a
//! logarithmic number of times.

/// Below this many bytes of vectors, comparing a query with all of them is as fast as anything.
pub const MIN_BYTES: usize = if cfg!(test) { 64 << 10 } else { 2 << 20 };

/// A segment is merged into one that has at least this share of its rows besides.
const GROWTH: f64 = 0.5;

/// A segment of which a larger share is dead is built anew.
const MOST_DEAD: f64 = 0.3;

/// The most segments; each costs every search something.
const MOST_SEGMENTS: usize = 8;

/// A segment's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize {
    /// Those that are still there.
    pub live: usize,
    /// Those that were deleted or rewritten.
    pub dead: usize,
}

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Nothing,
    /// A segment of the rows that none has, and those of these segments, by their position.
    Merge(Vec<usize>),
    /// One segment of everything.
    Everything,
}

/// What is to be built, where `loose` rows of `row_bytes` each are in no segment.
pub fn plan(segments: &[SegmentSize], loose: usize, row_bytes: usize) -> Plan {
    let is_worth = |rows: usize| rows.saturating_mul(row_bytes) >= MIN_BYTES;
    if segments.is_empty() {
        return if is_worth(loose) { Plan::Everything } else { Plan::Nothing };
    }
    let is_worn = |segment: &SegmentSize| {
        segment.dead as f64 > MOST_DEAD * (segment.live + segment.dead) as f64
            && is_worth(segment.dead)
    };
    if !is_worth(loose) && !segments.iter().any(is_worn) {
        return Plan::Nothing;
    }
    let mut by_size: Vec<usize> = (0..segments.len()).collect();
    by_size.sort_by_key(|&at| segments[at].live);
    let mut rows = loose;
    let mut merged = Vec::new();
    let mut kept = segments.len();
    for at in by_size {
        let segment = &segments[at];
        let is_small = rows as f64 >= GROWTH * segment.live as f64;
        if is_small || is_worn(segment) || kept >= MOST_SEGMENTS {
            rows += segment.live;
            merged.push(at);
            kept -= 1;
        }
    }
    if merged.len() == segments.len() { Plan::Everything } else { Plan::Merge(merged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = MIN_BYTES / 100;

    fn live(live: usize) -> SegmentSize {
        SegmentSize { live, dead: 0 }
    }

    #[test]
    fn little_is_left_alone() {
        assert_eq!(plan(&[], 99, ROW), Plan::Nothing);
        assert_eq!(plan(&[], 101, ROW), Plan::Everything);
        assert_eq!(plan(&[live(5000)], 99, ROW), Plan::Nothing);
        assert_eq!(plan(&[live(5000)], 101, ROW), Plan::Merge(vec![]));
        assert_eq!(plan(&[live(150)], 101, ROW), Plan::Everything);
        assert_eq!(plan(&[live(5000), live(600), live(150)], 110, ROW), Plan::Merge(vec![2]));
    }

    #[test]
    fn worn_segments_are_built_anew() {
        let worn = SegmentSize { live: 5000, dead: 4000 };
        assert_eq!(plan(&[live(90_000), worn], 0, ROW), Plan::Merge(vec![1]));
        assert_eq!(plan(&[SegmentSize { live: 9, dead: 50 }], 0, ROW), Plan::Nothing);
    }

    #[test]
    fn a_row_is_built_a_logarithmic_number_of_times() {
        let (mut segments, mut built, total) = (Vec::<SegmentSize>::new(), 0, 1_000_000usize);
        let mut loose = 0;
        for _ in 0..total / 101 {
            loose += 101;
            match plan(&segments, loose, ROW) {
                Plan::Nothing => continue,
                Plan::Everything => {
                    loose += segments.drain(..).map(|segment| segment.live).sum::<usize>();
                }
                Plan::Merge(merged) => {
                    let mut at = 0;
                    segments.retain(|segment| {
                        let goes = merged.contains(&at);
                        at += 1;
                        loose += if goes { segment.live } else { 0 };
                        !goes
                    });
                }
            }
            built += loose;
            segments.push(live(loose));
            loose = 0;
            assert!(segments.len() <= MOST_SEGMENTS);
        }
        let times = built as f64 / total as f64;
        assert!(times < 2.0 * (total as f64 / 101.0).log2(), "{times}");
    }
}
