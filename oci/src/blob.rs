//! A blob on local storage: a byte range of an open file. Reading never moves a shared cursor, so layers are read in
//! parallel.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

/// A byte range of an open file: a file of a layout, a member of an archive, a download spooled to an unlinked file.
#[derive(Debug, Clone)]
pub struct Blob {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl Blob {
    /// The `len` bytes of `file` from `offset` on.
    pub fn new(file: Arc<File>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it; None where it reaches beyond the end.
    pub fn part(&self, offset: u64, len: u64) -> Option<Self> {
        offset.checked_add(len).filter(|end| *end <= self.len)?;
        Some(Self { file: Arc::clone(&self.file), offset: self.offset.checked_add(offset)?, len })
    }

    /// A reader over the whole blob; each has its own position. It fails with `UnexpectedEof` where the file is shorter
    /// than the blob should be.
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), position: 0 }
    }
}

/// Reads a [`Blob`] from start to end.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len.saturating_sub(self.position);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want).filter(|b| !b.is_empty()) else { return Ok(0) };
        let offset = self.blob.offset.checked_add(self.position).ok_or(io::ErrorKind::InvalidInput)?;
        match self.blob.file.read_at(buffer, offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.position = self.position.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
                Ok(read)
            }
        }
    }
}
