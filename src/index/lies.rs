//! Segment files that lie, with checksums that are right: damage, or the answers of the truth where
//! the lie is not about a value. Never a panic, and no read outside of the file.

use std::fs;
use std::ops::Range;

use super::format::{Header, Layout, SECTIONS, Section};
use super::fuzzing::{Answers, FIELDS, MOST_HITS, STAMP, ask, seal, seal_header};
use super::tests::{built, clustered, plain, query};
use super::{Damage, Probes, Segment};
use crate::vector::{Metric, SplitMix64};

const DIM: usize = 20;
const METRIC: Metric = Metric::L2;

/// Miri takes its time.
const ROWS: usize = if cfg!(miri) { 70 } else { 700 };
const LIES: usize = if cfg!(miri) { 12 } else { 320 };

/// Sections of which every number is checked against the others.
const STRUCTURE: [Section; 4] =
    [Section::Starts, Section::SortedIds, Section::SortedPositions, Section::KeyEnds];

struct Liar {
    truth: Vec<u8>,
    layout: Layout,
    ids: Vec<i64>,
    vectors: Vec<Vec<f32>>,
    answers: Answers,
}

impl Liar {
    fn new(lists: Option<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vectors = clustered(ROWS, DIM, 5);
        let rows = plain(vectors.clone());
        let built = built::<f32>(folder.path(), &rows, METRIC, lists);
        assert_eq!(built.part.segment.header().ordered, lists.is_none());
        let truth = fs::read(folder.path().join(&built.file)).unwrap();
        let layout = Header::decode(&truth).unwrap().layout();
        let ids: Vec<i64> = rows.iter().map(|row| row.0.row_id).collect();
        let mut liar = Self { truth, layout, ids, vectors, answers: (Vec::new(), Vec::new()) };
        liar.answers = liar.tell(&liar.truth).unwrap();
        liar
    }

    fn tell(&self, lie: &[u8]) -> Result<Answers, Damage> {
        let segment = Segment::of_bytes(lie, STAMP)?;
        let header = segment.header();
        if (header.table_id, header.column_id, header.dim, header.element_bytes, header.metric)
            != (1, 2, DIM, 4, METRIC)
        {
            return Err(Damage::new("the engine compares these with the catalog"));
        }
        let truth = Header::decode(&self.truth)?;
        if (header.least_event, header.least_expiry) != (truth.least_event, truth.least_expiry) {
            // Values, as the times of the rows are.
            return Ok(self.answers.clone());
        }
        let queries: Vec<_> = self.vectors[..3].iter().map(|v| query(v, METRIC, 12)).collect();
        ask::<f32>(segment, &self.ids, &queries, Probes::default())
    }

    /// Changes a few bytes, or a whole number to one that is likely to be at an edge.
    fn mutate(file: &mut [u8], within: Range<usize>, random: &mut SplitMix64) {
        let at = within.start + (random.next() as usize) % within.len();
        match random.next() % 4 {
            0 => file[at] ^= 1 << (random.next() % 8),
            1 => file[at] = random.next() as u8,
            kind => {
                let width = if kind == 2 { 4 } else { 8 };
                let at = within.start + (at - within.start) / width * width;
                let edges =
                    [0, 1, 2, 31, 32, 33, ROWS as u64, u64::from(u32::MAX), 1 << 31, u64::MAX];
                let number = edges[(random.next() as usize) % edges.len()];
                let number = number.wrapping_add(random.next() % 3).wrapping_sub(1);
                let end = (at + width).min(within.end);
                file[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

#[test]
fn a_lie_about_where_things_are_is_damage_or_changes_nothing() {
    let mut random = SplitMix64(1);
    for lists in [None, Some(5)] {
        let liar = Liar::new(lists);
        let (mut refused, mut told) = (0, 0);
        for section in STRUCTURE.into_iter().cycle().take(LIES) {
            let within = liar.layout.range(section);
            if within.is_empty() {
                continue;
            }
            let mut lie = liar.truth.clone();
            Liar::mutate(&mut lie, within, &mut random);
            if lie == liar.truth {
                continue;
            }
            seal(&mut lie, &liar.layout);
            told += 1;
            match liar.tell(&lie) {
                Err(_) => refused += 1,
                // A key's end that moves is the key's value.
                Ok(answers) if section == Section::KeyEnds => {
                    assert_eq!(answers.0, liar.answers.0);
                }
                Ok(answers) => assert_eq!(answers, liar.answers, "{section:?}"),
            }
        }
        assert!(told > LIES / 3 && refused > told / 2, "{refused} of {told}");
    }
}

#[test]
fn a_header_that_lies_is_damage_or_changes_nothing() {
    let mut random = SplitMix64(2);
    for lists in [None, Some(5)] {
        let liar = Liar::new(lists);
        for _ in 0..2 * LIES {
            let mut lie = liar.truth.clone();
            Liar::mutate(&mut lie, FIELDS, &mut random);
            if random.next().is_multiple_of(3) {
                Liar::mutate(&mut lie, FIELDS, &mut random);
            }
            seal_header(&mut lie);
            if let Ok(answers) = liar.tell(&lie) {
                assert_eq!(answers, liar.answers);
            }
        }
    }
}

#[test]
fn values_that_lie_are_searched_without_a_panic() {
    let mut random = SplitMix64(3);
    for lists in [None, Some(5)] {
        let liar = Liar::new(lists);
        // Sections of values, which only the table knows.
        let is_checked =
            |section: &Section| *section == Section::Chunks || STRUCTURE.contains(section);
        let values: Vec<_> = SECTIONS.into_iter().filter(|s| !is_checked(s)).collect();
        for section in values.into_iter().cycle().take(LIES + LIES / 3) {
            let mut lie = liar.truth.clone();
            for _ in 0..=random.next() % 20 {
                Liar::mutate(&mut lie, liar.layout.range(section), &mut random);
            }
            seal(&mut lie, &liar.layout);
            if let Ok((hits, _)) = liar.tell(&lie) {
                assert!(hits.iter().all(|hits| hits.len() <= MOST_HITS), "{section:?}");
            }
        }
    }
}
