//! Bodies of regular files as they pass: which are kept for later steps, which are hashed, and where they lie.

use std::{
    fs,
    io::{self, BufRead, Write as _},
    sync::Arc,
};

use dna::{ImagePath, Limits};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{Fault, exactly, sparse::Map};
use crate::rootfs::{
    Content, File,
    bodies::{Bodies, Sums},
};

/// Bodies in a row, in an unlinked temporary file that vanishes with its last user, or in one that is to be kept.
#[derive(Debug)]
pub(crate) struct Spool {
    file: fs::File,
    kept: Option<(NamedTempFile, Sums)>,
    bodies: Arc<Bodies>,
    buffer: Vec<u8>,
    written: u64,
}

const BUFFER_BYTES: usize = 1 << 20;

impl Spool {
    /// Bodies that are forgotten with the analysis.
    pub(crate) fn new() -> io::Result<Self> {
        Self::of(tempfile::tempfile()?, None)
    }

    /// Bodies that are to be kept in a file.
    pub(crate) fn keeping(file: NamedTempFile) -> io::Result<Self> {
        Self::of(file.as_file().try_clone()?, Some((file, Sums::default())))
    }

    fn of(file: fs::File, kept: Option<(NamedTempFile, Sums)>) -> io::Result<Self> {
        let bodies = Arc::new(Bodies::own(file.try_clone()?));
        Ok(Self { file, kept, bodies, buffer: Vec::with_capacity(BUFFER_BYTES), written: 0 })
    }

    fn position(&self) -> u64 {
        self.written.saturating_add(self.buffer.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len().saturating_add(bytes.len()) > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes all bodies readable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        if let Some((_, sums)) = &mut self.kept {
            sums.update(&self.buffer);
        }
        self.written = self.position();
        self.buffer.clear();
        Ok(())
    }

    /// The file to be kept, bytes of all bodies, and the check values of their pieces.
    pub(crate) fn into_kept(self) -> Option<(NamedTempFile, u64, Vec<u32>)> {
        let (file, sums) = self.kept?;
        Some((file, self.written, sums.finish()))
    }
}

/// What becomes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    hash: bool,
    /// Kept where it is at most this large.
    keep_bytes: u64,
}

/// Decides by a body's first bytes and place: programs and archives are read by later steps whatever their size, package
/// databases too, other files only while they are small.
fn plan(head: &[u8], path: &ImagePath, executable: bool, limits: &Limits) -> Plan {
    let program = executable || head.starts_with(b"\x7fELF") || head.starts_with(b"#!");
    let keep_bytes = if program {
        limits.elf_bytes
    } else if head.starts_with(b"PK\x03\x04") {
        limits.zip_bytes
    } else if is_database(path) {
        limits.database_bytes
    } else {
        limits.kept_file_bytes
    };
    Plan { hash: program, keep_bytes }
}

/// Why a body is not kept.
pub(crate) const TOO_LARGE: &str = "larger than the limit for files of its kind";

/// Where package managers keep their databases.
fn is_database(path: &ImagePath) -> bool {
    const FOLDERS: [&[u8]; 5] =
        [b"/var/lib/dpkg/", b"/var/lib/rpm/", b"/usr/lib/sysimage/rpm/", b"/lib/apk/", b"/usr/lib/apk/"];
    FOLDERS.iter().any(|folder| path.as_bytes().starts_with(folder))
}

/// Reads a body, its padding left where it is. It is readable once the spool is flushed.
pub(super) fn read<R: BufRead>(
    input: &mut R,
    path: &ImagePath,
    executable: bool,
    map: &Map,
    limits: &Limits,
    spool: &mut Spool,
) -> Result<File, Fault> {
    // The first bytes tell what it is; in a sparse file they may be a hole.
    let mut head = [0; 4];
    let first = map.pieces.first().filter(|(offset, _)| *offset == 0).map_or(0, |(_, length)| (*length).min(4));
    let head = head.get_mut(..usize::try_from(first).unwrap_or(0)).unwrap_or_default();
    exactly(input, head)?;
    let plan = plan(head, path, executable, limits);
    let keep = map.size <= plan.keep_bytes;
    // A hole costs nothing in the archive: what is not kept is not filled with zeros just to be hashed.
    let hash = plan.hash && (keep || map.size == map.stored);
    let content = match keep {
        true => Content::Spooled { spool: spool.bodies.clone(), offset: spool.position() },
        false => Content::Dropped(TOO_LARGE),
    };
    let mut sink = Sink { hash: hash.then(Sha256::new), spool: keep.then_some(spool) };
    sink.write(head)?;
    let mut position = first;
    for &(offset, length) in &map.pieces {
        sink.hole(offset.saturating_sub(position))?;
        let end = offset.saturating_add(length);
        copy(input, end.saturating_sub(position.max(offset)), &mut sink)?;
        position = end;
    }
    sink.hole(map.size.saturating_sub(position))?;
    Ok(File { size: map.size, sha256: sink.hash.map(|hash| hash.finalize().into()), content })
}

/// Passes on exactly `left` bytes.
fn copy<R: BufRead>(input: &mut R, mut left: u64, sink: &mut Sink<'_>) -> Result<(), Fault> {
    while left > 0 {
        let chunk = input.fill_buf().map_err(Fault::Read)?;
        let step = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(bytes) = chunk.get(..step).filter(|bytes| !bytes.is_empty()) else {
            return Err(Fault::Bad("it ends in the middle of an entry"));
        };
        sink.write(bytes)?;
        input.consume(step);
        left = left.saturating_sub(step as u64);
    }
    Ok(())
}

struct Sink<'a> {
    hash: Option<Sha256>,
    spool: Option<&'a mut Spool>,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        match &mut self.spool {
            Some(spool) => spool.write(bytes).map_err(Fault::Spool),
            None => Ok(()),
        }
    }

    /// Fills a hole, where the body is kept.
    fn hole(&mut self, mut count: u64) -> Result<(), Fault> {
        if self.spool.is_none() {
            return Ok(());
        }
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let step = ZEROS.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.write(ZEROS.get(..step).unwrap_or_default())?;
            count = count.saturating_sub(step as u64);
        }
        Ok(())
    }
}
