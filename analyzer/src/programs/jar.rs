//! Java archives: a file in, the `Main-Class` of its manifest out. Other members are not opened.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use dna::Limits;

use crate::{InodeId, ReadError, Rootfs};

/// The main class, where the archive names one.
pub(super) fn main_class(rootfs: &Rootfs, inode: InodeId, limits: &Limits) -> Result<Option<String>, JarError> {
    let size = rootfs.file(inode).map_or(0, |file| file.size);
    if size > limits.zip_bytes {
        return Err(ReadError::TooLarge { size, limit: limits.zip_bytes }.into());
    }
    let body = Body { rootfs, inode, size, at: 0 };
    let mut archive = zip::ZipArchive::new(BufReader::with_capacity(64 << 10, body))?;
    if archive.len() as u64 > limits.zip_entries {
        return Err(JarError::Entries(archive.len()));
    }
    let member = match archive.by_name("META-INF/MANIFEST.MF") {
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        member => member?,
    };
    let mut manifest = Vec::new();
    member.take(MANIFEST_BYTES).read_to_end(&mut manifest)?;
    Ok(find_main_class(&String::from_utf8_lossy(&manifest)))
}

/// `Main-Class` of a manifest's main section; a line that starts with a space continues the one before. Source: JAR file
/// specification.
fn find_main_class(manifest: &str) -> Option<String> {
    let joined = manifest.replace("\r\n", "\n").replace("\n ", "");
    let main = joined.split("\n\n").next().unwrap_or_default();
    let value =
        main.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case("Main-Class"));
    value.map(|(_, class)| class.trim().to_owned()).filter(|class| !class.is_empty())
}

/// A Java archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum JarError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("malformed zip archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("cannot inflate the manifest: {0}")]
    Inflate(#[from] io::Error),
    #[error("{0} entries, more than the limit")]
    Entries(usize),
}

struct Body<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_and_only_the_main_section_count() {
        let manifest = "Manifest-Version: 1.0\r\nMain-Class: org.example.\r\n Main\r\n\r\nName: x\r\nMain-Class: y\r\n";
        assert_eq!(find_main_class(manifest).as_deref(), Some("org.example.Main"));
        assert_eq!(find_main_class("Manifest-Version: 1.0\n\nName: x\nMain-Class: y\n"), None);
    }
}
