//! What a backup says of itself: `manifest.json`, written last.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::files::{self, Sum, cannot};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::is_index_file_name;

/// The manifest's name in a backup's folder.
pub(super) const MANIFEST: &str = "manifest.json";

/// The database's name there.
pub(super) const DATABASE: &str = "online.db";

/// The folder of index files there.
pub(super) const INDEX: &str = "online.db.index";

/// The version of backups that this version writes and reads.
const VERSION: u64 = 1;

/// A manifest is never longer than this; what is, is none.
const MAX_BYTES: u64 = 64 << 20;

/// A backup's content.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) created: String,
    pub(super) format_version: i64,
    pub(super) database: Sum,
    /// Names of index files, without a folder.
    pub(super) index_files: Vec<(String, Sum)>,
    /// Index files that the database names and that were not there; they are built again.
    pub(super) missing: Vec<String>,
    /// The tables and their numbers of rows.
    pub(super) views: Json,
}

impl Manifest {
    pub(super) fn to_json(&self) -> Json {
        let file = |name: &str, sum: Sum| json!({ "file": name, "bytes": sum.bytes, "crc32": format!("{:08x}", sum.crc) });
        let index: Vec<Json> = self
            .index_files
            .iter()
            .map(|(name, sum)| file(&format!("{INDEX}/{name}"), *sum))
            .collect();
        json!({
            "feast_vector_backup": VERSION,
            "created": self.created,
            "written_by": concat!("feast-vector ", env!("CARGO_PKG_VERSION")),
            "format_version": self.format_version,
            "database": file(DATABASE, self.database),
            "index_files": index,
            "missing_index_files": self.missing,
            "views": self.views,
        })
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        // A manifest may say anything; what is too much is found when the files are read.
        let index_files = self.index_files.iter().map(|(_, sum)| sum.bytes);
        index_files.fold(self.database.bytes, u64::saturating_add)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let text = format!("{:#}\n", self.to_json());
        let written = crate::fs::create_new(&path, &folder.join(DATABASE)).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|cause| cannot("write", &path, &cause))?;
        files::sync_folder(&folder.join(INDEX));
        files::sync_folder(folder);
        Ok(())
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let is_file =
            fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() < MAX_BYTES);
        if !is_file {
            let message = format!(
                "'{}' is not a backup: there is no {MANIFEST} in it. A backup is a folder that \
                 `feast-vector backup` has made",
                folder.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let text = fs::read(&path).map_err(|cause| cannot("read", &path, &cause))?;
        let json: Json = serde_json::from_slice(&text)
            .map_err(|_| damaged(folder, "its manifest.json is not valid JSON"))?;
        match json["feast_vector_backup"].as_u64() {
            Some(VERSION) => {}
            Some(newer) => {
                let message = format!(
                    "the backup '{}' has version {newer}; feast-vector {} reads version {VERSION}. \
                     Upgrade feast-vector",
                    folder.display(),
                    env!("CARGO_PKG_VERSION")
                );
                return Err(Error::new(ErrorKind::NewerFormat, message));
            }
            None => return Err(damaged(folder, "its manifest.json is not a backup's")),
        }
        Self::parse(&json).ok_or_else(|| damaged(folder, "its manifest.json lacks a part"))
    }

    pub(super) fn parse(json: &Json) -> Option<Self> {
        let sum = |entry: &Json| {
            let crc = u32::from_str_radix(entry["crc32"].as_str()?, 16).ok()?;
            Some(Sum { bytes: entry["bytes"].as_u64()?, crc })
        };
        let index_files = json["index_files"].as_array()?.iter().map(|entry| {
            let name = entry["file"].as_str()?.strip_prefix(INDEX)?.strip_prefix('/')?;
            is_index_file_name(name).then(|| Some((name.to_owned(), sum(entry)?)))?
        });
        Some(Self {
            created: json["created"].as_str()?.to_owned(),
            format_version: json["format_version"].as_i64()?,
            database: sum(&json["database"])?,
            index_files: index_files.collect::<Option<_>>()?,
            missing: json["missing_index_files"]
                .as_array()?
                .iter()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            views: json["views"].clone(),
        })
    }
}

/// The error of a backup that cannot be trusted.
pub(super) fn damaged(folder: &Path, what: &str) -> Error {
    let message = format!(
        "the backup '{}' is damaged: {what}. Nothing was changed; use another backup",
        folder.display()
    );
    Error::new(ErrorKind::Damaged, message)
}
