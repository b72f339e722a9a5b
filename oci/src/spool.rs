//! Bytes that cannot be read twice, onto disk: a stream in, an unlinked file out, inflated where it was compressed.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write as _},
    path::PathBuf,
};

use dna::Limits;

use crate::{Blob, Error};

/// How bytes are compressed, by their first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// # Errors
    /// [`Error::Unsupported`] for xz and bzip2, which only archives of old tools have.
    pub(crate) fn of(start: &[u8], what: &str) -> Result<Self, Error> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            // A zstd frame, or a skippable one, by which zstd:chunked may begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] | [b'B', b'Z', b'h', _, b'1', b'A', ..] => {
                let reason = "it is compressed with xz or bzip2; decompress it first".to_owned();
                Err(Error::Unsupported { what: what.to_owned(), reason })
            }
            _ => Ok(Self::None),
        }
    }
}

/// `blob` as it is, or its inflated bytes in a new file where it is compressed.
pub(crate) fn inflated(blob: Blob, what: &str, limits: &Limits) -> Result<Blob, Error> {
    let mut start = Vec::new();
    blob.reader().take(SNIFFED_BYTES).read_to_end(&mut start).map_err(|error| Error::read(what, error))?;
    match Compression::of(&start, what)? {
        Compression::None => Ok(blob),
        _ => spool(blob.reader(), what, limits),
    }
}

/// Reads `stream` to its end into an unlinked file, inflated where it is gzip or zstd.
///
/// # Errors
/// [`Error::Limit`] when more comes than one image may have, or when it inflates like nothing honest does.
pub(crate) fn spool(mut stream: impl Read, what: &str, limits: &Limits) -> Result<Blob, Error> {
    let mut start = Vec::new();
    (&mut stream).take(SNIFFED_BYTES).read_to_end(&mut start).map_err(|error| Error::read(what, error))?;
    let compression = Compression::of(&start, what)?;
    let read = std::cell::Cell::new(0u64);
    let counted = Counted { inner: io::Cursor::new(start).chain(stream), read: &read };
    let mut reader: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(BufReader::new(counted));
            let mut decoder = decoder.map_err(|error| Error::read(what, error))?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(|error| Error::read(what, error))?;
            Box::new(decoder)
        }
    };
    let (name, limit) = match compression {
        Compression::None => ("image_bytes", limits.image_bytes),
        _ => ("total_bytes", limits.total_bytes),
    };
    let mut file = file()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut len = 0u64;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::read(what, error)),
        };
        len = len.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if len > limit {
            return Err(Error::Limit { what: format!("the size of {what}"), name, limit });
        }
        if compression != Compression::None
            && len > RATIO_COUNTS_FROM_BYTES
            && len / limits.layer_ratio.max(1) > read.get()
        {
            let what = format!("the compression ratio of {what}");
            return Err(Error::Limit { what, name: "layer_ratio", limit: limits.layer_ratio });
        }
        file.write_all(buffer.get(..count).unwrap_or_default()).map_err(|error| Error::write("a spool file", error))?;
    }
    drop(reader);
    Ok(Blob::new(std::sync::Arc::new(file), 0, len))
}

/// An unlinked file: in `TMPDIR`, else in `/var/tmp`, because `/tmp` is often memory.
pub(crate) fn file() -> Result<File, Error> {
    let folder = match std::env::var_os("TMPDIR") {
        Some(folder) => PathBuf::from(folder),
        None => Some(PathBuf::from("/var/tmp")).filter(|path| path.is_dir()).unwrap_or_else(std::env::temp_dir),
    };
    tempfile::tempfile_in(&folder).map_err(|error| Error::write(format!("a spool file in {}", folder.display()), error))
}

/// Counts what is read.
struct Counted<'a, R> {
    inner: R,
    read: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.set(self.read.get().saturating_add(u64::try_from(count).unwrap_or(u64::MAX)));
        Ok(count)
    }
}

const SNIFFED_BYTES: u64 = 6;
const BUFFER_BYTES: usize = 128 << 10;
/// Below this, a high ratio harms nobody.
const RATIO_COUNTS_FROM_BYTES: u64 = 64 << 20;
/// 128 MiB, as `zstd -d` allows without being asked; it bounds the decoder's memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn text_of(blob: &Blob) -> Vec<u8> {
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).expect("readable");
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("finished")
    }

    #[test]
    fn plain_gzip_and_zstd_streams_give_the_same_bytes() {
        let bytes = b"mayfly".repeat(100_000);
        let zstd = zstd::encode_all(&*bytes, 1).expect("encoded");
        for stream in [bytes.clone(), gzip(&bytes), zstd] {
            assert_eq!(text_of(&spool(&*stream, "x", &Limits::default()).expect("spooled")), bytes);
        }
        assert!(spool(&b""[..], "x", &Limits::default()).expect("empty").is_empty());
    }

    #[test]
    fn endless_and_truncated_streams_are_refused() {
        let limits = Limits { image_bytes: 1_000, total_bytes: 2_000, ..Limits::default() };
        let endless = spool(io::repeat(7), "x", &limits);
        assert!(matches!(endless, Err(Error::Limit { name: "image_bytes", .. })));
        let bomb = spool(&*gzip(&[0; 10_000]), "x", &limits);
        assert!(matches!(bomb, Err(Error::Limit { name: "total_bytes", .. })));
        let mut cut = gzip(&[7; 500]);
        cut.truncate(cut.len() - 9);
        assert!(spool(&*cut, "x", &limits).is_err());
        assert!(matches!(spool(&b"BZh91AY"[..], "x", &limits), Err(Error::Unsupported { .. })));
    }
}
