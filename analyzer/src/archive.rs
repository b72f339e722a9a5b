//! A layer's tar archive, walked once: bytes in, entries out, bodies that later steps read in a spool file.
//!
//! Headers are read by the `tar` crate; the framing is our own, because it has to bound extension headers before they are
//! read, honor sizes in PAX records, and hash bodies as they pass. What wins where formats disagree is what Go's archive/tar
//! does, since every container runtime unpacks with that. Nothing here knows other layers.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read as _},
};

use dna::{Digest, ImagePath, Limits};

use crate::{Error, Progress, rootfs::File};

mod body;
mod pax;
mod sparse;

pub(crate) use body::{Spool, TOO_LARGE};
use pax::Overrides;
use sparse::Map;

/// One entry that later steps apply.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its normalized path.
    pub(crate) path: ImagePath,
    /// What it puts there.
    pub(crate) kind: EntryKind,
    /// Permission bits, 0 to 0o7777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// What an entry puts at its path.
#[derive(Debug)]
pub(crate) enum EntryKind {
    File(File),
    Directory,
    Symlink(Box<[u8]>),
    /// A second name for the file at this path.
    HardLink(ImagePath),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) entries: Vec<Entry>,
    /// Paths and type flags of entries that no runtime unpacks.
    pub(crate) skipped: Vec<(Box<[u8]>, u8)>,
    /// Where the bodies went.
    pub(crate) spool: Spool,
}

/// Why an archive cannot be walked.
#[derive(Debug)]
pub(crate) enum Fault {
    Bad(&'static str),
    Limit(&'static str, u64),
    Read(io::Error),
    Spool(io::Error),
    Time(Error),
}

impl Fault {
    /// The crate's error for this fault in a layer.
    pub(crate) fn in_layer(self, layer: &Digest, offset: u64) -> Error {
        let layer = layer.clone();
        match self {
            Self::Bad(reason) => Error::Archive { layer, offset, reason },
            Self::Limit(limit, value) => Error::Limit { layer, limit, value },
            Self::Read(source) => Error::Decompress { layer, offset, source },
            Self::Spool(source) => {
                Error::Host { what: "keep a file's body in the temporary folder (TMPDIR)".to_owned(), source }
            }
            Self::Time(error) => error,
        }
    }
}

/// Walks an archive up to its end marker, bodies into `spool`; what follows is left to the caller.
pub(crate) fn read<R: BufRead>(
    input: &mut R,
    spool: Spool,
    limits: &Limits,
    progress: &Progress,
) -> Result<Walked, Fault> {
    let mut walked = Walked { entries: Vec::new(), skipped: Vec::new(), spool };
    let mut entries = 0u64;
    while let Some((header, overrides)) = next_header(input, limits)? {
        entries = entries.saturating_add(1);
        if entries > limits.layer_entries {
            return Err(Fault::Limit("layer_entries", limits.layer_entries));
        }
        if progress.add_entries(1) > limits.total_entries {
            return Err(Fault::Limit("total_entries", limits.total_entries));
        }
        if entries.is_multiple_of(1024) {
            progress.check().map_err(Fault::Time)?;
        }
        read_entry(input, &header, overrides, limits, &mut walked)?;
    }
    walked.spool.flush().map_err(Fault::Spool)?;
    Ok(walked)
}

/// The next header that stands for a file, with what extension headers before it say; none at the end marker.
fn next_header<R: BufRead>(input: &mut R, limits: &Limits) -> Result<Option<(tar::Header, Overrides)>, Fault> {
    let mut overrides = Overrides::default();
    loop {
        let Some(block) = read_block(input)? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            // One zero block is enough for Go and GNU tar to stop, whatever follows.
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        if !checksum_matches(&header) {
            return Err(Fault::Bad("header checksum does not match"));
        }
        let kind = header.entry_type();
        let extension = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if !extension {
            return Ok(Some((header, overrides)));
        }
        let size = header.entry_size().map_err(|_| Fault::Bad("size field is no number"))?;
        if size > limits.tar_header_bytes {
            return Err(Fault::Limit("tar_header_bytes", limits.tar_header_bytes));
        }
        let body = read_extension(input, size)?;
        if kind.is_pax_local_extensions() {
            overrides.add_pax(&body).map_err(Fault::Bad)?;
        } else if kind.is_gnu_longname() {
            overrides.path = Some(until_nul(&body).into());
        } else if kind.is_gnu_longlink() {
            overrides.link = Some(until_nul(&body).into());
        }
        // Global records are read over, as Go does.
    }
}

fn read_entry<R: BufRead>(
    input: &mut R,
    header: &tar::Header,
    mut overrides: Overrides,
    limits: &Limits,
    walked: &mut Walked,
) -> Result<(), Fault> {
    let number = |value: io::Result<u64>| value.map_err(|_| Fault::Bad("header field is no number"));
    let kind = header.entry_type();
    let raw_path = overrides.path.take().unwrap_or_else(|| header.path_bytes().into());
    if raw_path.len() as u64 > limits.path_bytes {
        return Err(Fault::Limit("path_bytes", limits.path_bytes));
    }
    let path = ImagePath::normalize(&raw_path).map_err(|_| Fault::Bad("a path holds a NUL byte"))?;
    if path.components().count() as u64 > limits.path_depth {
        return Err(Fault::Limit("path_depth", limits.path_depth));
    }
    let link = overrides.link.take().unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into());
    if link.len() as u64 > limits.path_bytes {
        return Err(Fault::Limit("path_bytes", limits.path_bytes));
    }
    let mut stored = match overrides.size {
        Some(size) => size,
        None => number(header.entry_size())?,
    };
    // Old archives mark a directory by its name alone.
    let directory = kind.is_dir() || (kind.as_byte() == 0 && raw_path.ends_with(b"/"));
    let device = || -> Result<(u32, u32), Fault> {
        let field =
            |value: io::Result<Option<u32>>| Ok(value.map_err(|_| Fault::Bad("bad device number"))?.unwrap_or(0));
        Ok((field(header.device_major())?, field(header.device_minor())?))
    };
    let mode = header.mode().map_err(|_| Fault::Bad("mode field is no number"))? & 0o7777;
    let regular = matches!(kind.as_byte(), 0 | b'0' | b'7' | b'S') && !directory;
    if !regular {
        // Only regular files have a body, whatever their size field says; Go reads it over for unknown types alone.
        if matches!(kind.as_byte(), b'1'..=b'6') || directory {
            stored = 0;
        }
        skip(input, padded(stored)?)?;
    }
    let kind = match kind.as_byte() {
        _ if directory => EntryKind::Directory,
        _ if regular => {
            let map = if kind.as_byte() == b'S' {
                Some(sparse::read_gnu(input, header, stored)?)
            } else {
                overrides.take_sparse(input, stored)?
            };
            let map = map.unwrap_or_else(|| Map::whole(stored));
            if map.size > limits.layer_bytes {
                return Err(Fault::Limit("layer_bytes", limits.layer_bytes));
            }
            let executable = mode & 0o111 != 0;
            let file = body::read(input, &path, executable, &map, limits, &mut walked.spool)?;
            skip(input, padding(map.stored))?;
            EntryKind::File(file)
        }
        b'1' => {
            EntryKind::HardLink(ImagePath::normalize(&link).map_err(|_| Fault::Bad("a link target holds a NUL byte"))?)
        }
        b'2' => EntryKind::Symlink(link),
        b'3' => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        b'6' => EntryKind::Fifo,
        flag => {
            walked.skipped.push((raw_path, flag));
            return Ok(());
        }
    };
    let narrow = |value: u64| u32::try_from(value).map_err(|_| Fault::Bad("user or group number above 2^32"));
    let path = match overrides.sparse_name.take() {
        Some(name) => ImagePath::normalize(&name).map_err(|_| Fault::Bad("a path holds a NUL byte"))?,
        None => path,
    };
    walked.entries.push(Entry {
        path,
        kind,
        mode,
        uid: narrow(overrides.uid.map_or_else(|| number(header.uid()), Ok)?)?,
        gid: narrow(overrides.gid.map_or_else(|| number(header.gid()), Ok)?)?,
        mtime: overrides.mtime.map_or_else(|| number(header.mtime()).map(|t| i64::try_from(t).unwrap_or(0)), Ok)?,
        xattrs: overrides.xattrs,
    });
    Ok(())
}

/// A block of 512 bytes; none where the archive ends at a block's start, as archives without an end marker do.
fn read_block<R: BufRead>(input: &mut R) -> Result<Option<[u8; 512]>, Fault> {
    let mut block = [0; 512];
    if input.fill_buf().map_err(Fault::Read)?.is_empty() {
        return Ok(None);
    }
    exactly(input, &mut block)?;
    Ok(Some(block))
}

fn exactly<R: BufRead>(input: &mut R, buffer: &mut [u8]) -> Result<(), Fault> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Bad("it ends in the middle of an entry"),
        _ => Fault::Read(error),
    })
}

/// The body of an extension header, already known to be within its limit, and its padding.
fn read_extension<R: BufRead>(input: &mut R, size: u64) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    let read = input.take(size).read_to_end(&mut body).map_err(Fault::Read)?;
    if read as u64 != size {
        return Err(Fault::Bad("it ends in the middle of an extension header"));
    }
    skip(input, padding(size))?;
    Ok(body)
}

/// Reads over `bytes`.
fn skip<R: BufRead>(input: &mut R, mut bytes: u64) -> Result<(), Fault> {
    while bytes > 0 {
        let there = input.fill_buf().map_err(Fault::Read)?.len();
        if there == 0 {
            return Err(Fault::Bad("it ends in the middle of an entry"));
        }
        let step = there.min(usize::try_from(bytes).unwrap_or(usize::MAX));
        input.consume(step);
        bytes = bytes.saturating_sub(step as u64);
    }
    Ok(())
}

/// Bytes from the end of a body of `size` to the next block.
fn padding(size: u64) -> u64 {
    (512 - size % 512) % 512
}

fn padded(size: u64) -> Result<u64, Fault> {
    size.checked_add(padding(size)).ok_or(Fault::Bad("size above 2^63"))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of the header's bytes, its checksum field taken as spaces; old tars summed signed bytes.
fn checksum_matches(header: &tar::Header) -> bool {
    let Ok(expected) = header.cksum() else { return false };
    let field = 148..156;
    let (mut unsigned, mut signed) = (0u32, 0i32);
    for (index, byte) in header.as_bytes().iter().enumerate() {
        let byte = if field.contains(&index) { b' ' } else { *byte };
        unsigned = unsigned.wrapping_add(u32::from(byte));
        signed = signed.wrapping_add(i32::from(byte.cast_signed()));
    }
    expected == unsigned || i64::from(expected) == i64::from(signed)
}
