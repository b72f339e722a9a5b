//! A file of lines, each read only so far as may be: a record of a stream, an audit log.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file, unpacked where it is packed; `-` is standard input.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let plain: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    let mut plain = BufReader::new(plain);
    let start = plain.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
    Ok(match start.starts_with(&GZIP) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(plain))),
        false => Box::new(plain),
    })
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is whole.
    Line,
    /// It is longer than may be; its rest was passed over.
    TooLong,
    /// There is none.
    File,
}

/// Reads a line, but no more of it than `most` bytes.
pub(crate) fn next(log: &mut dyn BufRead, line: &mut Vec<u8>, most: u64) -> io::Result<Ended> {
    line.clear();
    if log.take(most + 1).read_until(b'\n', line)? == 0 {
        return Ok(Ended::File);
    }
    if line.last() == Some(&b'\n') || line.len() as u64 <= most {
        return Ok(Ended::Line);
    }
    line.clear();
    let mut rest = Vec::new();
    loop {
        rest.clear();
        let read = log.take(1 << 20).read_until(b'\n', &mut rest)?;
        if read == 0 || rest.last() == Some(&b'\n') {
            return Ok(Ended::TooLong);
        }
    }
}
