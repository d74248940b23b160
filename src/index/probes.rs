//! How far a search goes through the lists.

use serde_json::{Value as Json, json};

/// What was found to be needed for the wanted recall by searches for so many rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The rows asked for.
    pub top_k: usize,
    /// The lists that have to be gone through.
    pub lists: usize,
    /// The gap after these lists that all but few searches have; see [`Probe::gap`].
    pub gap: f32,
}

/// How far one search goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// At least so many lists, and on from there …
    pub lists: usize,
    /// … while the gap is smaller than this: how far off the next list is, in units of how far off
    /// the last row of the answer is. A query unlike the rows, or one whose neighbours a filter
    /// leaves out, finds its answer further away, in more lists.
    pub gap: f32,
}

/// What was found out about a segment, by how many rows are asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Probes(Vec<Step>);

impl Probes {
    /// In ascending order of `top_k`.
    pub fn new(steps: Vec<Step>) -> Self {
        Self(steps)
    }

    /// For so many rows; between two steps on a line through their logarithms, and all lists beyond
    /// the last.
    pub fn probe(&self, top_k: f64) -> Probe {
        let all = Probe { lists: usize::MAX, gap: 0.0 };
        let Some(first) = self.0.first() else {
            return all;
        };
        if top_k <= first.top_k as f64 {
            return Probe { lists: first.lists, gap: first.gap };
        }
        for pair in self.0.windows(2) {
            let [low, high] = [pair[0], pair[1]];
            if top_k <= high.top_k as f64 {
                let way = (high.top_k as f64 / low.top_k as f64).ln();
                let share = (top_k / low.top_k as f64).ln() / way;
                let growth = (high.lists as f64 / low.lists as f64).ln();
                let lists = ((low.lists as f64).ln() + share * growth).exp();
                // Rounding is not to add a list.
                let lists = (lists - 1e-6).ceil() as usize;
                return Probe { lists, gap: low.gap + share as f32 * (high.gap - low.gap) };
            }
        }
        all
    }

    /// As JSON.
    pub fn to_json(&self) -> Json {
        let step =
            |step: &Step| json!({ "top_k": step.top_k, "lists": step.lists, "gap": step.gap });
        self.0.iter().map(step).collect()
    }

    /// From JSON; none, and so all lists, where it is not what [`Probes::to_json`] wrote.
    pub fn from_json(json: &Json) -> Self {
        let step = |step: &Json| {
            let number = |name: &str| step[name].as_u64().map(|number| number as usize);
            let gap = step["gap"].as_f64()? as f32;
            Some(Step { top_k: number("top_k")?, lists: number("lists")?, gap })
        };
        let steps: Option<Vec<_>> =
            json.as_array().and_then(|steps| steps.iter().map(step).collect());
        Self(steps.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_rows_need_more_lists() {
        let step = |top_k, lists, gap| Step { top_k, lists, gap };
        let probes = Probes::new(vec![step(10, 4, 1.0), step(100, 16, 2.0), step(1000, 100, 0.5)]);
        for (top_k, lists) in [(1.0, 4), (10.0, 4), (31.6, 8), (100.0, 16), (1000.0, 100)] {
            assert_eq!(probes.probe(top_k).lists, lists, "{top_k}");
        }
        assert!((probes.probe(31.6).gap - 1.5).abs() < 1e-2);
        assert_eq!(probes.probe(1001.0).lists, usize::MAX);
        assert_eq!(Probes::default().probe(1.0).lists, usize::MAX);
        assert_eq!(Probes::from_json(&probes.to_json()), probes);
        assert_eq!(Probes::from_json(&json!("x")), Probes::default());
    }
}
