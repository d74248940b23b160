//! The folder of index files, beside the database.

use std::path::PathBuf;

use super::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::fs;

impl Store {
    /// The folder of index files: `<database>.index`.
    pub fn index_folder(&self) -> PathBuf {
        let mut path = self.options.path.as_os_str().to_owned();
        path.push(".index");
        PathBuf::from(path)
    }

    /// Whether the folder of index files is there. An error says why it is not to be used: it is a
    /// link, or belongs to somebody who may not write the database.
    pub fn check_index_folder(&self) -> Result<bool> {
        let folder = self.index_folder();
        fs::check_index_folder(&folder, &self.options.path).map_err(|reason| {
            let message =
                format!("the folder of index files '{}' is not used: {reason}", folder.display());
            Error::new(ErrorKind::CannotOpen, message)
        })
    }

    /// Creates the folder of index files, unless it is there, for whoever may use the database.
    pub fn create_index_folder(&self) -> Result<()> {
        if self.check_index_folder()? {
            return Ok(());
        }
        let folder = self.index_folder();
        match fs::create_index_folder(&folder, &self.options.path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                let message = format!("cannot create the folder '{}' ({cause})", folder.display());
                Err(Error::new(ErrorKind::CannotOpen, message))
            }
            _ => Ok(()),
        }
    }
}
