//! An incident as one file: a tar archive by gzip whose first entry lists all others with their hashes.
//!
//! ```text
//! manifest.json           what is in it, with SHA-256; who asked for it, and when
//! incident.json           the story
//! trees.json              the processes of its containers
//! alerts/ID.json          alerts with their events, what their containers did before, and what people did
//! images/DIGEST.json      lineage of the images: signatures, attestations, decisions, pods
//! dna/DIGEST.json         what was predicted, as it was compared
//! decisions/ID.json       what was decided at admission, and why
//! blind.json              when sensors could not see
//! ```
//!
//! It is for people who look at it when pods, logs and ledger are gone. Equal contents are equal bytes.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write as _},
};

use dna::Digest;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The first entry.
pub const MANIFEST: &str = "manifest.json";
/// Bytes of all files together; further ones are named and left out.
pub const MAX_BYTES: usize = 64 << 20;

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `mayfly.dev/v1`.
    pub api_version: String,
    /// `Evidence`.
    pub kind: String,
    /// The incident's name.
    pub incident: String,
    /// When it was put together.
    pub made_at: Timestamp,
    /// For whom.
    pub made_for: String,
    /// The version of the program.
    pub version: String,
    /// The files.
    pub files: Vec<File>,
    /// Files that there was no room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the archive.
    pub path: String,
    /// SHA-256 of its contents.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// Files that are put together.
#[derive(Debug, Default)]
pub struct Evidence {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    left_out: Vec<String>,
}

impl Evidence {
    /// Adds a value as JSON.
    ///
    /// # Errors
    /// Those of its own `Serialize`.
    pub fn add(&mut self, path: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(value)?;
        json.push(b'\n');
        self.put(path, json);
        Ok(())
    }

    /// Adds a file as it is.
    pub fn put(&mut self, path: &str, contents: Vec<u8>) {
        if self.bytes.saturating_add(contents.len()) > MAX_BYTES {
            self.left_out.push(path.to_owned());
            return;
        }
        self.bytes += contents.len();
        self.files.insert(path.to_owned(), contents);
    }

    /// The archive.
    ///
    /// # Errors
    /// None but of memory: what is written to is a buffer.
    pub fn archive(self, incident: &str, made_for: &str, now: Timestamp) -> io::Result<Vec<u8>> {
        let file = |(path, contents): (&String, &Vec<u8>)| File {
            path: path.clone(),
            sha256: Digest::sha256(contents).hex().to_owned(),
            bytes: contents.len() as u64,
        };
        let manifest = Manifest {
            api_version: "mayfly.dev/v1".to_owned(),
            kind: "Evidence".to_owned(),
            incident: incident.to_owned(),
            made_at: now,
            made_for: made_for.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: self.files.iter().map(file).collect(),
            left_out: self.left_out,
        };
        let mut out = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let mut manifest = serde_json::to_vec_pretty(&manifest)?;
        manifest.push(b'\n');
        let at = u64::try_from(now.as_second()).unwrap_or_default();
        append(&mut out, MANIFEST, &manifest, at)?;
        for (path, contents) in &self.files {
            append(&mut out, path, contents, at)?;
        }
        let mut gzip = out.into_inner()?;
        gzip.flush()?;
        gzip.finish()
    }
}

fn append(out: &mut tar::Builder<impl io::Write>, path: &str, contents: &[u8], at: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(at);
    out.append_data(&mut header, path, contents)
}

/// Why an archive is not as it was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Changed {
    /// It is no archive.
    #[error("it is no archive of evidence: {0}")]
    Unreadable(String),
    /// A file differs.
    #[error("{0}: it is not the file that the manifest names: its SHA-256 differs")]
    Differs(String),
    /// A file is missing.
    #[error("{0}: it is in the manifest, and not in the archive")]
    Missing(String),
    /// A file that nobody names.
    #[error("{0}: it is in the archive, and not in the manifest")]
    Stranger(String),
}

/// Reads an archive, and looks whether all that its manifest names is there as it was.
///
/// # Errors
/// [`Changed`].
pub fn verify(archive: impl Read) -> Result<Manifest, Changed> {
    let unreadable = |error: io::Error| Changed::Unreadable(error.to_string());
    // A little more than files may have: headers, and the manifest.
    let bytes = GzDecoder::new(archive).take(2 * MAX_BYTES as u64);
    let mut archive = tar::Archive::new(bytes);
    let mut manifest: Option<Manifest> = None;
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).map_err(unreadable)?;
        match &manifest {
            None if path == MANIFEST => {
                let read: Manifest =
                    serde_json::from_slice(&contents).map_err(|error| Changed::Unreadable(error.to_string()))?;
                named = read.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect();
                manifest = Some(read);
            }
            None => return Err(Changed::Unreadable(format!("it begins with {path}, and not with {MANIFEST}"))),
            Some(_) => match named.remove(&path) {
                None => return Err(Changed::Stranger(path)),
                Some(sha256) if *Digest::sha256(&contents).hex() != sha256 => return Err(Changed::Differs(path)),
                Some(_) => {}
            },
        }
    }
    if let Some((path, _)) = named.pop_first() {
        return Err(Changed::Missing(path));
    }
    manifest.ok_or_else(|| Changed::Unreadable("it is empty".to_owned()))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn evidence(text: &str) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.add("incident.json", &text).expect("JSON");
        evidence.put("dna/x.json", b"{}".to_vec());
        evidence
    }

    fn archive(evidence: Evidence) -> Vec<u8> {
        evidence.archive("i1", "alice", Timestamp::UNIX_EPOCH).expect("an archive")
    }

    /// The archive's entries by a change, with the manifest as it was.
    fn changed(archive: &[u8], change: impl Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>) -> Vec<u8> {
        let mut out = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for entry in tar::Archive::new(GzDecoder::new(archive)).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).expect("read");
            if let Some((path, contents)) = change(&path, contents) {
                append(&mut out, &path, &contents, 0).expect("written");
            }
        }
        out.into_inner().expect("written").finish().expect("written")
    }

    #[test]
    fn an_archive_tells_when_it_was_changed() {
        let whole = archive(evidence("a story"));
        assert_eq!(whole, archive(evidence("a story")), "equal contents are equal bytes");
        let manifest = verify(&*whole).expect("as it was");
        assert_eq!((manifest.incident.as_str(), manifest.files.len()), ("i1", 2));
        let told = |bytes: &[u8]| verify(bytes).expect_err("a change").to_string();
        let same = |path: &str, contents| Some((path.to_owned(), contents));
        let other =
            changed(
                &whole,
                |path, contents| {
                    if path == "dna/x.json" { same(path, b"[]".to_vec()) } else { same(path, contents) }
                },
            );
        assert!(told(&other).starts_with("dna/x.json: it is not the file"), "{}", told(&other));
        let less = changed(&whole, |path, contents| if path == "dna/x.json" { None } else { same(path, contents) });
        assert!(told(&less).contains("dna/x.json: it is in the manifest"));
        let more = changed(&whole, |path, contents| {
            if path == "dna/x.json" { Some(("dna/y.json".to_owned(), contents)) } else { same(path, contents) }
        });
        assert!(told(&more).contains("dna/y.json: it is in the archive"));
        assert!(told(b"nothing").contains("no archive"));
        assert!(told(&whole[..whole.len() / 2]).contains("no archive"));
    }

    #[test]
    fn what_there_is_no_room_for_is_named() {
        let mut evidence = evidence("a story");
        evidence.put("dna/large.json", vec![b' '; MAX_BYTES]);
        let manifest = verify(&*archive(evidence)).expect("an archive");
        assert_eq!(manifest.left_out, ["dna/large.json"]);
    }
}
