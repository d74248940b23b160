//! A segment's rows, compared with the table's.

use super::resident::read_elements;
use super::{Damage, Segment};
use crate::schema::Element;
use crate::vector::RowMeta;

/// What of a segment's row is not as the table has it; `None` if nothing.
pub fn row_differs(
    segment: &Segment,
    position: usize,
    row: RowMeta,
    key: &[u8],
    element: Element,
    bytes: &[u8],
) -> Result<Option<&'static str>, Damage> {
    let meta = segment.meta(position)?;
    let differs = if segment.key(position)? != key {
        Some("entity key")
    } else if meta.event != row.event {
        Some("event time")
    } else if meta.expires_at != row.expires_at {
        Some("expiry")
    } else if is_vector(segment, position, element, bytes)? {
        None
    } else {
        Some("vector")
    };
    Ok(differs)
}

fn is_vector(
    segment: &Segment,
    position: usize,
    element: Element,
    bytes: &[u8],
) -> Result<bool, Damage> {
    Ok(if segment.header().element_bytes == size_of::<f32>() {
        let mut wanted: Vec<f32> = Vec::new();
        read_elements(element, bytes, &mut wanted);
        let stored = &segment.vector::<f32>(position)?[..segment.header().dim];
        stored.iter().map(|x| x.to_bits()).eq(wanted.iter().map(|x| x.to_bits()))
    } else {
        let mut wanted: Vec<f64> = Vec::new();
        read_elements(element, bytes, &mut wanted);
        let stored = &segment.vector::<f64>(position)?[..segment.header().dim];
        stored.iter().map(|x| x.to_bits()).eq(wanted.iter().map(|x| x.to_bits()))
    })
}
