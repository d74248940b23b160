//! Connections that are closed: all, or those whose log is lost.

use super::connections::Store;

impl Store {
    /// Closes the idle readers: what they have open is lost, or cannot be read.
    pub(super) fn leave_readers(&self) {
        for readers in [&self.readers, &self.sql_readers] {
            let mut readers = readers.lock();
            for reader in &*readers {
                let _ = reader.keep_log_on_close();
            }
            readers.clear();
        }
    }

    /// After an I/O error: connections that are left keep SQLite in the state that gave it, such as
    /// that of a log that was deleted.
    pub(super) fn leave_all(&self) {
        self.leave_readers();
        if let Some(mut writer) = self.writer.try_lock()
            && let Some(left) = writer.take()
        {
            let _ = left.connection.keep_log_on_close();
        }
    }

    /// Closes every connection; the next call opens them anew.
    pub fn disconnect(&self) {
        let mut writer = self.writer.lock();
        self.checkpointer.finish();
        self.readers.lock().clear();
        self.sql_readers.lock().clear();
        *writer = None;
    }
}
