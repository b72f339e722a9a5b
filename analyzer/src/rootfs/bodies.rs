//! Bodies of files in a row, in one file of the host: read in parallel, no cursor shared, and checked piece by piece where
//! they were written by an earlier analysis.

use std::{
    fmt, fs, io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A file of bodies.
#[derive(Debug)]
pub struct Bodies {
    file: fs::File,
    seal: Option<Seal>,
}

/// What finds damage in bodies that an earlier analysis kept.
pub(crate) struct Seal {
    /// Bytes of all bodies.
    pub(crate) len: u64,
    /// CRC-32 of each piece. Whoever could write to the file on purpose could as well write the check values anew.
    pub(crate) sums: Vec<u32>,
    /// Set when damage is found.
    pub(crate) is_damaged: Arc<AtomicBool>,
    /// Removes the file, so that it misleads nobody again.
    pub(crate) forget: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("len", &self.len).field("is_damaged", &self.is_damaged).finish_non_exhaustive()
    }
}

/// Bytes that have one check value: little is read for the sake of a file's first bytes.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

impl Bodies {
    /// Bodies that this process wrote itself.
    pub(crate) fn own(file: fs::File) -> Self {
        Self { file, seal: None }
    }

    /// Bodies that an earlier one wrote.
    pub(crate) fn sealed(file: fs::File, seal: Seal) -> Self {
        Self { file, seal: Some(seal) }
    }

    /// Bytes of all bodies, where they are sealed.
    pub(crate) fn len(&self) -> Option<u64> {
        self.seal.as_ref().map(|seal| seal.len)
    }

    /// Exactly `len` bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(seal) = &self.seal else {
            let mut bytes = vec![0; len];
            self.file.read_exact_at(&mut bytes, offset)?;
            return Ok(bytes);
        };
        self.read_checked(seal, offset, len).inspect_err(|_| {
            seal.is_damaged.store(true, Ordering::Relaxed);
            (seal.forget)();
        })
    }

    /// Reads the pieces that the bytes lie in, and takes the bytes out of them.
    fn read_checked(&self, seal: &Seal, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a kept body is damaged");
        let end = offset.checked_add(len as u64).filter(|end| *end <= seal.len).ok_or_else(damaged)?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let piece_bytes = PIECE_BYTES as u64;
        let first = offset / piece_bytes;
        let start = first.saturating_mul(piece_bytes);
        let end = end.next_multiple_of(piece_bytes).min(seal.len);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).map_err(|_| damaged())?];
        self.file.read_exact_at(&mut bytes, start)?;
        let sums = seal.sums.get(usize::try_from(first).map_err(|_| damaged())?..).unwrap_or_default();
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            if sums.get(index) != Some(&crc32fast::hash(piece)) {
                return Err(damaged());
            }
        }
        bytes.drain(..usize::try_from(offset.saturating_sub(start)).unwrap_or(0));
        bytes.truncate(len);
        Ok(bytes)
    }
}

/// Check values in the making.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    done: Vec<u32>,
    piece: crc32fast::Hasher,
    filled: usize,
}

impl Sums {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES.saturating_sub(self.filled)));
            self.piece.update(now);
            self.filled = self.filled.saturating_add(now.len());
            if self.filled == PIECE_BYTES {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    /// The check values of all pieces, the last one maybe shorter.
    pub(crate) fn finish(mut self) -> Vec<u32> {
        if self.filled != 0 {
            self.end_piece();
        }
        self.done
    }

    fn end_piece(&mut self) {
        self.done.push(std::mem::take(&mut self.piece).finalize());
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn sealed(bytes: &[u8], spoil: Option<u64>) -> (Bodies, Arc<AtomicBool>) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        if let Some(at) = spoil {
            file.write_all_at(b"!", at).expect("spoilt");
        }
        let mut sums = Sums::default();
        bytes.chunks(1000).for_each(|part| sums.update(part));
        let is_damaged = Arc::<AtomicBool>::default();
        let seal = Seal {
            len: bytes.len() as u64,
            sums: sums.finish(),
            is_damaged: is_damaged.clone(),
            forget: Box::new(|| {}),
        };
        (Bodies::sealed(file, seal), is_damaged)
    }

    #[test]
    fn any_range_is_read_whole() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let (bodies, is_damaged) = sealed(&bytes, None);
        for (offset, len) in [(0, 4), (5, 32 << 10), ((32 << 10) - 1, 2), (399_999, 1), (0, 400_000), (400_000, 0)] {
            let found = bodies.read(offset as u64, len).expect("whole");
            assert_eq!(Some(&*found), bytes.get(offset..offset + len), "{offset} {len}");
        }
        assert!(!is_damaged.load(Ordering::Relaxed));
        assert!(bodies.read(399_999, 2).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed_where_it_is_read() {
        let (bodies, is_damaged) = sealed(&[7; 100_000], Some(40_000));
        assert!(bodies.read(0, 10).is_ok() && !is_damaged.load(Ordering::Relaxed));
        assert!(bodies.read(50_000, 10).is_err() && is_damaged.load(Ordering::Relaxed));
    }
}
