//! Segment files of any content, with checksums that are right, read as searches and lookups do:
//! for [`crate::fuzzing`] and the tests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::format::{CHUNK_BYTES, HEADER_BYTES, Header, Layout, SECTIONS, Section};
use super::{
    BuildOptions, Built, Damage, How, IndexType, Part, Probes, Reach, Segment, Staging, VectorSet,
    build, row_differs,
};
use crate::fuzzing::bytes::Bytes;
use crate::schema::Element;
use crate::vector::{Hit, Metric, Query, Real, RowMeta, RowSet, Scope};

/// The stamp of every segment here.
pub(super) const STAMP: u64 = 42;

/// Where the header's checksums are.
pub(super) const CRC: usize = 12;
const CHUNKS_CRC: usize = 100;

/// The header's fields after its checksum.
pub(super) const FIELDS: Range<usize> = CRC + 4..120;

/// Rows of an answer to [`ask`]: those of every step come in front of the wanted ones.
pub(super) const MOST_HITS: usize = 24;

/// No file that is made here is longer.
const MAX_BYTES: usize = 1 << 18;

/// Edits of one input.
const MAX_EDITS: usize = 40;

pub(super) fn put_u32(file: &mut [u8], at: usize, number: u32) {
    file[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Makes the checksums right again.
pub(super) fn seal(file: &mut [u8], layout: &Layout) {
    let chunks = layout.body().len().div_ceil(CHUNK_BYTES);
    let at = layout.range(Section::Chunks);
    for chunk in 0..chunks {
        let crc = crc32fast::hash(&file[layout.chunk(chunk)]);
        put_u32(file, at.start + chunk * 4, crc);
    }
    let crc = crc32fast::hash(&file[at]);
    put_u32(file, CHUNKS_CRC, crc);
    seal_header(file);
}

pub(super) fn seal_header(file: &mut [u8]) {
    let crc = crc32fast::hash(&file[CRC + 4..HEADER_BYTES]);
    put_u32(file, CRC, crc);
}

/// What all questions were answered with.
pub(super) type Answers = (Vec<Vec<Hit>>, Vec<Option<(i64, Vec<u8>)>>);

/// Asks the segment in every way that there is.
pub(super) fn ask<T: Real>(
    segment: Segment,
    ids: &[i64],
    queries: &[Query<T>],
    probes: Probes,
) -> Result<Answers, Damage> {
    let segment = Arc::new(segment);
    let mut part = Part::new(Arc::clone(&segment), probes, false);
    if ids.len() > 5 {
        part.bury(std::iter::once(ids[3]..ids[5]))?;
    }
    let set = VectorSet::<T>::new(Vec::new(), vec![part]);
    let few = RowSet::of(&ids[..ids.len().min(9)]);
    let many = RowSet::of(&ids.iter().copied().step_by(2).collect::<Vec<_>>());
    let mut hits = Vec::new();
    for rows in [None, Some(&few), Some(&many)] {
        for (now, not_before) in [(i64::MIN, i64::MIN), (50, 2)] {
            let scope = Scope { now, not_before, rows };
            for exact in [false, true] {
                let how = How { scope, threads: 1, exact, reach: Reach::Measured };
                hits.extend(set.search(queries, &how)?.0);
            }
            let how = How { scope, threads: 1, exact: false, reach: Reach::Lists(2) };
            hits.extend(set.search_in_steps(queries, &how, &[1, 4], 9)?.0);
        }
    }
    let mut rows = Vec::new();
    for id in ids {
        rows.push(set.row(*id)?.map(|(event, key)| (event, key.to_vec())));
        if let Some(position) = segment.position(*id)? {
            let vector = vec![0; segment.header().dim * 4];
            row_differs(&segment, position, RowMeta::plain(*id), b"", Element::F32, &vector)?;
        }
    }
    Ok((hits, rows))
}

/// Vectors in a file that a build reads.
pub(super) fn stage<T: Real>(
    folder: &Path,
    rows: &[(RowMeta, Vec<f32>)],
    key_of: impl Fn(i64) -> String,
) -> super::Staged<T> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(folder.join("staging")).expect("a file");
    let mut staging = Staging::<T>::new(file, rows[0].1.len());
    for (meta, vector) in rows {
        let key = key_of(meta.row_id);
        let bytes = bytemuck::cast_slice(vector);
        staging.put(*meta, key.as_bytes(), Element::F32, bytes).expect("room in the file");
    }
    staging.finish().expect("a file")
}

pub(super) fn options(folder: &Path, metric: Metric, lists: Option<usize>) -> BuildOptions {
    BuildOptions {
        folder: folder.to_owned(),
        database: folder.to_owned(),
        table_id: 1,
        column_id: 2,
        metric,
        index_type: if lists.is_some() { IndexType::Ivf } else { IndexType::Flat },
        lists,
        target_recall: 0.99,
        stamp: STAMP,
        threads: 2,
    }
}

/// A segment that does not lie, by what it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    dim: usize,
    rows: usize,
    lists: Option<usize>,
    metric: u8,
    is_wide: bool,
}

impl Kind {
    fn of(bytes: &mut Bytes<'_>) -> Self {
        const DIMS: [usize; 4] = [1, 3, 17, 70];
        const ROWS: [usize; 4] = [1, 5, 40, 70];
        let choice = bytes.small();
        Self {
            dim: DIMS[choice % 4],
            rows: ROWS[choice / 4 % 4],
            lists: [None, Some(3)][choice / 16 % 2],
            metric: (choice / 32 % 3) as u8,
            is_wide: choice / 32 > 4,
        }
    }

    fn metric(self) -> Metric {
        [Metric::L2, Metric::Cosine, Metric::InnerProduct][usize::from(self.metric)]
    }

    /// Some expire, some are old, and a few vectors are of zeros, which have no codes.
    fn contents(self) -> Vec<(RowMeta, Vec<f32>)> {
        let row = |row: usize| {
            let meta = RowMeta {
                row_id: 1000 + 3 * row as i64,
                expires_at: if row % 4 == 1 { 50 } else { i64::MAX },
                event: row as i64 % 5,
            };
            let value = |at: usize| ((row * 31 + at * 17) % 23) as f32 / 11.0 - 1.0;
            let scale = if row % 9 == 7 { 0.0 } else { 1.0 };
            (meta, (0..self.dim).map(|at| value(at) * scale).collect())
        };
        (0..self.rows).map(row).collect()
    }

    fn build(self) -> Vec<u8> {
        fn built<T: Real>(kind: Kind, folder: &Path) -> Built {
            let staged = stage::<T>(folder, &kind.contents(), |id| format!("key {id}"));
            build(&staged, &options(folder, kind.metric(), kind.lists))
                .expect("a segment")
                .expect("nobody said stop")
        }
        let name = format!("feast-vector-{:016x}", crate::random::bits());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let of = if self.is_wide { built::<f64> } else { built::<f32> };
        let file = of(self, &folder).file;
        let truth = std::fs::read(folder.join(file)).expect("a file");
        std::fs::remove_dir_all(&folder).expect("the folder");
        truth
    }

    fn truth(self) -> Vec<u8> {
        thread_local! {
            static KNOWN: RefCell<HashMap<Kind, Vec<u8>>> = RefCell::default();
        }
        KNOWN.with(|known| known.borrow_mut().entry(self).or_insert_with(|| self.build()).clone())
    }
}

/// A file of a build, with edits of its sections and its header, and the right checksums. The first
/// byte is which file, those after it are edits.
pub(crate) fn segments(data: &[u8]) {
    let mut bytes = Bytes(data);
    let kind = Kind::of(&mut bytes);
    let mut file = kind.truth();
    let mut header = Header::decode(&file).expect("a header that was written");
    let mut raw = Vec::new();
    let mut probes = Probes::default();
    for _ in 0..MAX_EDITS {
        let Some(what) = bytes.next() else { break };
        match usize::from(what) {
            // All but the checksums, which are made right.
            section if section < SECTIONS.len() - 1 => {
                let range = header.layout().range(SECTIONS[section]);
                edit(&mut file, range, &mut bytes);
            }
            // A header that says something else of the same bytes, more or fewer.
            16..=27 => {
                recount(&mut header, what - 16, &mut bytes);
                if header.dim == 0 || header.layout().length > MAX_BYTES {
                    return;
                }
                file.resize(header.layout().length, 0);
            }
            // One that no writer makes.
            28 => raw.push((bytes.small(), bytes.eight())),
            29 => {
                let text = format!(
                    r#"[{{"top_k":{},"lists":{},"gap":{}}},{{"top_k":{},"lists":{},"gap":1.5}}]"#,
                    bytes.small(),
                    bytes.small(),
                    bytes.eight(),
                    bytes.small(),
                    bytes.eight().cast_unsigned(),
                );
                probes = Probes::from_json(&serde_json::from_str(&text).unwrap_or_default());
            }
            30 => file.truncate(file.len().saturating_sub(bytes.small())),
            _ => {}
        }
    }
    let layout = header.layout();
    let encoded = header.encode();
    let end = encoded.len().min(file.len());
    file[..end].copy_from_slice(&encoded[..end]);
    if file.len() == layout.length {
        seal(&mut file, &layout);
    }
    for (at, number) in raw {
        let at = FIELDS.start + at % (FIELDS.len() - 8);
        if file.len() >= HEADER_BYTES {
            file[at..at + 8].copy_from_slice(&number.to_le_bytes());
            seal_header(&mut file);
        }
    }
    let Ok(segment) = Segment::of_bytes(&file, STAMP) else { return };
    let _ = segment.verify();
    let answers = match segment.header().element_bytes {
        4 => answers::<f32>(segment, kind, probes),
        _ => answers::<f64>(segment, kind, probes),
    };
    for hits in answers.iter().flat_map(|answers| &answers.0) {
        assert!(hits.len() <= MOST_HITS, "{} hits", hits.len());
    }
}

fn answers<T: Real>(segment: Segment, kind: Kind, probes: Probes) -> Option<Answers> {
    let contents = kind.contents();
    let ids: Vec<i64> = contents.iter().map(|row| row.0.row_id).collect();
    // The catalog says what length queries have; a segment of another is not searched.
    let dim = segment.header().dim;
    let metric = segment.header().metric;
    let queries: Vec<Query<T>> = contents
        .iter()
        .take(2)
        .map(|(_, vector)| {
            let vector = vector.iter().cycle().take(dim).map(|x| f64::from(*x));
            Query::new(vector, metric, 12)
        })
        .collect();
    ask(segment, &ids, &queries, probes).ok()
}

/// A segment that does not lie, of table 1, column 2 and three elements.
pub(crate) fn segment() -> Arc<Segment> {
    let kind = Kind { dim: 3, rows: 40, lists: Some(3), metric: 0, is_wide: false };
    Arc::new(Segment::of_bytes(&kind.truth(), STAMP).expect("a segment"))
}

/// Searches it as its entry in the manifest says.
pub(crate) fn search(part: Part) {
    let live = part.live;
    let set = VectorSet::<f32>::new(Vec::new(), vec![part]);
    for top_k in [1, 7, 100] {
        let query = Query::new([0.5, 0.25, -1.0].into_iter(), Metric::L2, top_k);
        let scope = Scope::default();
        let how = How { scope, threads: 1, exact: false, reach: Reach::Measured };
        let (hits, _) = set.search(&[query], &how).expect("a segment that does not lie");
        assert!(hits[0].len() <= live.min(top_k), "{} of {live}", hits[0].len());
    }
}

/// Changes a few bytes, or a whole number to one that is likely to be at an edge.
fn edit(file: &mut [u8], within: Range<usize>, bytes: &mut Bytes<'_>) {
    let at = bytes.small() | bytes.small() << 8;
    let (how, value) = (bytes.small(), bytes.small());
    let within = within.start..within.end.min(file.len());
    if within.is_empty() {
        return;
    }
    let at = within.start + at % within.len();
    let width = [1, 1, 4, 8][how % 4];
    let at = within.start + (at - within.start) / width * width;
    let number = match how / 4 % 4 {
        0 => value as u64,
        1 => (value as u64).wrapping_neg(),
        2 => 1u64.rotate_left(value as u32),
        _ => bytes.eight().cast_unsigned(),
    };
    let end = (at + width).min(within.end);
    if how % 4 == 0 {
        file[at] ^= value as u8;
    } else {
        file[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
    }
}

/// Another number in the header.
fn recount(header: &mut Header, field: u8, bytes: &mut Bytes<'_>) {
    let number = bytes.small();
    match field {
        0 => header.dim = number,
        1 => header.element_bytes = [4, 8][number % 2],
        2 => {
            header.metric =
                [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1][number % 4];
        }
        3 => header.coded = number,
        4 => header.rows = number,
        5 => header.lists = number,
        6 => header.blocks = number,
        7 => header.ordered = number % 2 == 1,
        8 => header.key_bytes = number,
        9 => header.least_event = bytes.eight(),
        10 => header.least_expiry = bytes.eight(),
        _ => header.table_id = bytes.eight(),
    }
}
