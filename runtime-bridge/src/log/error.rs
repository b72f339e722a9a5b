//! What can go wrong with the log. Clones share the cause: one failed write answers all who waited for it.

use std::{io, path::PathBuf, sync::Arc};

/// Why a log does not open, take or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder cannot be used.
    #[error("the log's folder {path} cannot be used; give a folder on a local disk that this user may write to", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Another process uses the folder.
    #[error("the log in {path} is in use by process {holder}; end it, or give this process a folder of its own", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process's number, as it wrote it.
        holder: String,
    },
    /// There is no space on the disk.
    #[error("the disk of {path} is full; nothing is taken until there is space", path = path.display())]
    Full {
        /// The log's folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The log's own limit is reached.
    #[error("the log in {path} reached its limit of {limit_bytes} bytes, and what is in it is not read yet", path = path.display())]
    Limit {
        /// The log's folder.
        path: PathBuf,
        /// Its limit.
        limit_bytes: u64,
    },
    /// It cannot be written.
    #[error("the log in {path} cannot be written", path = path.display())]
    Write {
        /// The log's folder.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// It cannot be read.
    #[error("the log's segment {path} cannot be read", path = path.display())]
    Read {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A batch is too large for a frame.
    #[error("a batch of {bytes} bytes is larger than {limit_bytes}; send fewer items at once")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A cursor cannot be used.
    #[error("cursor {name}: {reason}")]
    Cursor {
        /// Its name.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The log is closed, or its writer is gone.
    #[error("the log is closed")]
    Closed,
}

impl Error {
    /// Sorts what the system says of a write.
    pub(super) fn write(folder: &std::path::Path, source: io::Error) -> Self {
        let (path, is_full) = (folder.to_owned(), is_full(&source));
        let source = Arc::new(source);
        if is_full { Self::Full { path, source } } else { Self::Write { path, source } }
    }
}

/// Whether a disk, or the share of it that this user has, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
