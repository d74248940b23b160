//! What callers and other operations have to do with vector indexes.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Engine;
use super::indexing::{run, sweep};
use super::job::{Extent, IndexSettings, Job, Outcome};
use super::request::SearchRequest;
use super::vectors::{CacheKey, Followed};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Plan, plan};
use crate::parallel;
use crate::schema::{VectorIndexSpec, ViewId, ViewSpec};
use crate::store::IndexId;
use crate::vector::Metric;

/// How long [`Engine::optimize`] waits for another builder.
const BUILDER_PATIENCE: Duration = Duration::from_secs(600);

impl Engine {
    /// Builds the index of a feature's vectors, or of every indexed feature of the view, anew: one
    /// segment of everything, in the foreground, with all cores. Waits for another builder. Gives a
    /// report for each feature; null where comparing all vectors is as fast, or where the metric has
    /// no index.
    pub fn optimize(&self, view: &ViewSpec, feature: Option<&str>) -> Result<Json> {
        let _entered = self.gate.enter()?;
        let mut reports = serde_json::Map::new();
        for job in jobs(view)?.into_iter().filter(|job| feature.is_none_or(|f| f == job.feature)) {
            let place = format!("{}, feature '{}'", view.id, job.feature);
            let outcome =
                run(&self.store, &job, Extent::Everything, BUILDER_PATIENCE, parallel::cores())
                    .map_err(|error| error.at(&place))?;
            let report = match outcome {
                Outcome::Published(report) => report,
                Outcome::Nothing => json!(null),
                Outcome::Cancelled => return Err(parallel::interrupted()),
                Outcome::Busy => {
                    let message = "another process has been building indexes for ten minutes";
                    return Err(Error::new(ErrorKind::Busy, message).at(place));
                }
            };
            reports.insert(job.feature, report);
        }
        for index in &view.vector_indexes {
            if feature.is_none_or(|f| f == index.feature) && !has_index(index)? {
                reports.insert(index.feature.clone(), json!(null));
            }
        }
        match feature {
            Some(feature) if !view.vector_indexes.iter().any(|index| index.feature == feature) => {
                let message = format!(
                    "the vectors of '{feature}' are not indexed; declare the field with \
                     `vector_index=True`"
                );
                Err(Error::new(ErrorKind::NotAVector, message).at(&view.id))
            }
            _ => Ok(Json::Object(reports)),
        }
    }

    /// The view's indexes: for each feature and length of vectors the segments, with what was
    /// measured when they were built, and the changes that they do not cover yet.
    pub fn indexes(&self, view: &ViewId) -> Result<Json> {
        let _entered = self.gate.enter()?;
        let folder = self.store.index_folder();
        self.store.read(|snapshot| {
            let Some(table) = snapshot.table(view)? else {
                return Ok(json!([]));
            };
            let mut indexes = Vec::new();
            for column in &table.schema.columns {
                for dim in snapshot.indexed_lengths(table.schema.table_id, column.id)? {
                    let table_id = table.schema.table_id;
                    let id = IndexId { table_id, column_id: column.id, dim };
                    let Some(index) = snapshot.index(id)? else {
                        continue;
                    };
                    let segments: Vec<Json> = index
                        .segments
                        .iter()
                        .map(|entry| {
                            json!({
                                "file": folder.join(&entry.file).display().to_string(),
                                "dead": entry.dead.len(),
                                "report": serde_json::from_str::<Json>(&entry.report)
                                    .unwrap_or_default(),
                            })
                        })
                        .collect();
                    indexes.push(json!({
                        "feature": column.feature,
                        "length": dim,
                        "segments": segments,
                        "covers_change": index.seq,
                        "last_change": table.last_seq,
                    }));
                }
            }
            Ok(Json::Array(indexes))
        })
    }

    /// Whether an index is being built, or about to be, of what was written.
    pub fn is_building(&self) -> bool {
        self.builder.is_busy()
    }

    /// Waits for the indexes that are being built, until `waiting` says no.
    pub fn finish_builds(&self, waiting: &mut dyn FnMut() -> bool) {
        self.builder.finish(waiting);
    }

    /// What went wrong with indexes or the file since the last call: sentences for people. No answer
    /// was wrong by it.
    pub fn take_notices(&self) -> Vec<String> {
        let mut notices = self.builder.take_notices();
        notices.extend(self.store.take_notices());
        notices
    }

    /// After a write: the view's indexes may be worth building.
    pub(super) fn request_indexes(&self, view: &ViewSpec) {
        self.builder.note_write();
        if self.options.builds_indexes {
            for job in jobs(view).unwrap_or_default() {
                self.builder.request(job);
            }
        }
    }

    /// After a search: its index may be worth building.
    pub(super) fn request_index(&self, request: &SearchRequest<'_>, followed: &Followed) {
        let Some(vectors) = request.vectors.filter(|_| self.options.builds_indexes) else {
            return;
        };
        let extent = followed.extent;
        let declared = request.view.vector_indexes.iter().find(|i| i.feature == vectors.feature);
        let settings = match declared.map(IndexSettings::of) {
            Some(Ok(settings)) => settings,
            _ => IndexSettings::new(vectors.metric),
        };
        if !settings.metric.can_be_indexed() {
            return;
        }
        let is_other = |part: &crate::index::Part| part.segment.header().metric != settings.metric;
        let is_wanted = extent.is_broken
            || (declared.is_some() && followed.vectors.parts().iter().any(is_other))
            || plan(&followed.sizes(), extent.loose, extent.row_bytes) != Plan::Nothing;
        if is_wanted {
            self.builder.request(Job {
                view: request.view.id.clone(),
                feature: vectors.feature.to_owned(),
                dim: Some(vectors.queries.ncols()),
                settings,
                is_suspect: extent.is_broken,
            });
        }
    }

    /// Says once that the index cannot be opened for the moment. It stays as it is, and the next
    /// search tries again.
    pub(super) fn note_unavailable_index(
        &self,
        request: &SearchRequest<'_>,
        key: &CacheKey,
        error: &Error,
    ) {
        let place = format!("{}, feature '{}'", request.view.id, key.1);
        let sentence = format!(
            "{place}: {error}; nothing is wrong with the index, which is tried again by every \
             search. Until it can be opened answers stay right without it, only slower. Raise the \
             process's limit of open files or memory, or let it read the index folder"
        );
        self.builder.notice_once(place, sentence);
    }

    /// Searches without the index from now on, until it is built anew, and says so.
    pub(super) fn give_up_index(
        &self,
        request: &SearchRequest<'_>,
        key: &CacheKey,
        index: (i64, i64),
        error: &Error,
    ) {
        self.vectors.entry(key.clone()).lock().give_up_index(index.0, index.1);
        let again = if self.options.builds_indexes {
            "it is being built anew"
        } else {
            "build it anew with `feast-vector optimize`"
        };
        self.builder.notice(format!(
            "{}, feature '{}': {error}; answers stay right without the index, only slower, and \
             {again}",
            request.view.id, key.1
        ));
    }

    /// Deletes the files of indexes that are gone, unless somebody is building, who does it then.
    pub(super) fn delete_lost_index_files(&self) -> Result<()> {
        match self.store.check_index_folder() {
            Ok(true) => {
                if let Some(_lock) = self.store.lock_builder(Duration::ZERO)? {
                    sweep(&self.store)?;
                }
            }
            Ok(false) => {}
            // Tables are dropped with or without their index files.
            Err(refused) => self.builder.notice(refused.to_string()),
        }
        Ok(())
    }
}

/// A job for each feature that the view wants indexed.
fn jobs(view: &ViewSpec) -> Result<Vec<Job>> {
    view.vector_indexes
        .iter()
        .filter(|index| has_index(index).unwrap_or(true))
        .map(|index| {
            Ok(Job {
                view: view.id.clone(),
                feature: index.feature.clone(),
                dim: None,
                settings: IndexSettings::of(index).map_err(|error| error.at(&view.id))?,
                is_suspect: false,
            })
        })
        .collect()
}

/// Whether there are indexes for the metric.
fn has_index(index: &VectorIndexSpec) -> Result<bool> {
    Ok(Metric::parse(&index.metric)?.can_be_indexed())
}
