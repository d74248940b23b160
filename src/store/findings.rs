//! What a check of the store finds wrong, and where.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::schema::ViewId;

/// Something that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing: `pages`, `catalog`, `row`, `key`, `cell`, `text`, `index`.
    pub check: &'static str,
    /// What is wrong.
    pub message: String,
    /// The feature view.
    pub view: Option<ViewId>,
    /// The feature.
    pub feature: Option<String>,
    /// The row.
    pub row_id: Option<i64>,
    /// The row's entity key, for people.
    pub key: Option<String>,
    /// The index file.
    pub file: Option<String>,
}

/// Findings: the first of each check in full, all of them as a number.
#[derive(Debug)]
pub struct Findings {
    limit: usize,
    listed: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
    /// Things that are no damage, and good to know.
    notes: Vec<String>,
    rows: u64,
    vectors: u64,
}

impl Findings {
    /// None yet; `limit` of each check are going to be listed.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            listed: Vec::new(),
            counts: BTreeMap::new(),
            notes: Vec::new(),
            rows: 0,
            vectors: 0,
        }
    }

    /// Takes a finding in.
    pub fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.check).or_default();
        *count += 1;
        if *count <= self.limit as u64 {
            self.listed.push(finding);
        }
    }

    /// Takes something in that is no damage.
    pub fn note(&mut self, sentence: String) {
        self.notes.push(sentence);
    }

    /// Counts a row that was checked.
    pub(super) fn row(&mut self) {
        self.rows += 1;
    }

    /// Counts a vector that was compared with its index.
    pub fn vector(&mut self) {
        self.vectors += 1;
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// What is listed.
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// All of it.
    pub fn to_json(&self) -> Json {
        let listed: Vec<Json> = self
            .listed
            .iter()
            .map(|finding| {
                json!({
                    "check": finding.check,
                    "message": finding.message,
                    "project": finding.view.as_ref().map(|view| &view.project),
                    "view": finding.view.as_ref().map(|view| &view.view),
                    "version": finding.view.as_ref().map(|view| view.version),
                    "feature": finding.feature,
                    "row_id": finding.row_id,
                    "entity_key": finding.key,
                    "file": finding.file,
                })
            })
            .collect();
        json!({
            "ok": self.is_clean(),
            "rows": self.rows,
            "vectors": self.vectors,
            "counts": self.counts,
            "findings": listed,
            "notes": self.notes,
        })
    }
}
