//! Java archives: a file in, its directory and manifest out. Other members are opened by those who ask for them.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use dna::Limits;

use crate::{InodeId, ReadError, Rootfs};

/// The main class, where the archive names one.
pub(super) fn main_class(rootfs: &Rootfs, inode: InodeId, limits: &Limits) -> Result<Option<String>, JarError> {
    let mut archive = open(rootfs, inode, limits)?;
    Ok(manifest(&mut archive)?.as_deref().and_then(|manifest| attribute(manifest, "Main-Class")))
}

/// An archive, its directory read: within the limits on its size and number of entries.
pub(crate) fn open<'a>(rootfs: &'a Rootfs, inode: InodeId, limits: &Limits) -> Result<Archive<'a>, JarError> {
    let size = rootfs.file(inode).map_or(0, |file| file.size);
    if size > limits.zip_bytes {
        return Err(ReadError::TooLarge { size, limit: limits.zip_bytes }.into());
    }
    // Counted before the crate reads the directory into memory.
    let tail = rootfs.read_range(inode, size.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    let entries = count_entries(&tail).ok_or(JarError::End)?;
    if entries > limits.zip_entries {
        return Err(JarError::Entries(entries));
    }
    let body = Body { rootfs, inode, size, at: 0 };
    Ok(zip::ZipArchive::new(BufReader::with_capacity(64 << 10, body))?)
}

/// The manifest's text, where there is one.
pub(crate) fn manifest(archive: &mut Archive<'_>) -> Result<Option<String>, JarError> {
    let member = match archive.by_name("META-INF/MANIFEST.MF") {
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        member => member?,
    };
    let mut manifest = Vec::new();
    member.take(MANIFEST_BYTES).read_to_end(&mut manifest)?;
    Ok(Some(String::from_utf8_lossy(&manifest).into_owned()))
}

/// A Java archive that is open.
pub(crate) type Archive<'a> = zip::ZipArchive<BufReader<Body<'a>>>;

/// The most entries that any end-of-directory record in an archive's last bytes claims; none where there is no record. Source:
/// APPNOTE.TXT 4.3.14 and 4.3.16.
fn count_entries(tail: &[u8]) -> Option<u64> {
    let number = |at: usize, from: usize, to: usize| {
        let bytes = tail.get(at.checked_add(from)?..at.checked_add(to)?)?;
        Some(bytes.iter().rev().fold(0u64, |value, byte| (value << 8) | u64::from(*byte)))
    };
    let plain = memchr::memmem::find_iter(tail, b"PK\x05\x06").filter_map(|at| number(at, 10, 12)).max()?;
    let large = memchr::memmem::find_iter(tail, b"PK\x06\x06").filter_map(|at| number(at, 32, 40)).max();
    Some(large.map_or(plain, |large| large.max(plain)))
}

/// An attribute of a manifest's main section; a line that starts with a space continues the one before. Source: JAR file
/// specification.
pub(crate) fn attribute(manifest: &str, name: &str) -> Option<String> {
    let joined = manifest.replace("\r\n", "\n").replace("\n ", "");
    let main = joined.split("\n\n").next().unwrap_or_default();
    let value = main.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
    value.map(|(_, class)| class.trim().to_owned()).filter(|class| !class.is_empty())
}

/// A Java archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JarError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("malformed zip archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("cannot inflate the manifest: {0}")]
    Inflate(#[from] io::Error),
    #[error("{0} entries, more than the limit")]
    Entries(u64),
    #[error("no end of the archive's directory")]
    End,
}

/// A file's body, to read and seek in.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    rootfs: &'a Rootfs,
    inode: InodeId,
    size: u64,
    at: u64,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.rootfs.read_range(self.inode, self.at, buffer.len() as u64).map_err(io::Error::other)?;
        if let Some(into) = buffer.get_mut(..bytes.len()) {
            into.copy_from_slice(&bytes);
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }
}

impl Seek for Body<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Manifests list signed members, some megabytes at most; the main section is at the start.
const MANIFEST_BYTES: u64 = 1 << 20;
/// The last record, its comment of 64 KiB at most, and the two records of large archives before it.
const TAIL_BYTES: u64 = (64 << 10) + 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_claims_too_many_entries_is_refused() {
        let mut end = b"PK\x03\x04PK\x05\x06".to_vec();
        end.extend([0, 0, 0, 0, 3, 0, 3, 0]);
        end.resize(26, 0);
        assert_eq!(count_entries(&end), Some(3));
        assert_eq!(count_entries(b"PK\x03\x04"), None);
        let mut root = Rootfs::default();
        let jar = root.put_file("/a.jar", 0o644, end);
        let limits = Limits { zip_entries: 2, ..Limits::default() };
        assert!(matches!(main_class(&root, jar, &limits), Err(JarError::Entries(3))));
    }

    #[test]
    fn continued_lines_and_only_the_main_section_count() {
        let manifest = "Manifest-Version: 1.0\r\nMain-Class: org.example.\r\n Main\r\n\r\nName: x\r\nMain-Class: y\r\n";
        assert_eq!(attribute(manifest, "Main-Class").as_deref(), Some("org.example.Main"));
        assert_eq!(attribute("Manifest-Version: 1.0\n\nName: x\nMain-Class: y\n", "Main-Class"), None);
    }
}
