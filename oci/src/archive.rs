//! The table of contents of a tar archive: a file in, the places of its members out. Nothing is unpacked and no name is
//! ever used as a path. Sources: POSIX.1-2017 `pax`, GNU tar manual.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::Read as _,
};

use dna::Limits;
use tar::{EntryType, Header, PaxExtensions};

use crate::{Blob, Error, manifest::within};

/// The members of an archive, by name without leading `./`.
#[derive(Debug)]
pub(crate) struct Archive {
    /// What it is, for messages.
    pub(crate) what: String,
    blob: Blob,
    members: BTreeMap<String, Member>,
    max_links: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File {
        offset: u64,
        len: u64,
    },
    /// To the name of another member.
    Link(String),
}

impl Archive {
    /// Reads the headers of all members.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no tar archive, is cut off, or names one document twice; [`Error::Limit`].
    pub(crate) fn index(blob: Blob, what: &str, limits: &Limits) -> Result<Self, Error> {
        let malformed = |reason: &str| Error::malformed(what, reason);
        let mut members = BTreeMap::new();
        let mut position = 0u64;
        let mut count = 0usize;
        let mut over = Overrides::default();
        while let Some(header) = block(&blob, position, what)? {
            let start = position.checked_add(BLOCK_BYTES).ok_or_else(|| malformed("it is too large"))?;
            if !checksum_fits(&header) {
                return Err(malformed(if count == 0 { "it is not a tar archive" } else { "a header is damaged" }));
            }
            count = count.saturating_add(1);
            within(count, limits.archive_members, "archive_members", format!("the number of members of {what}"))?;
            let header = Header::from_byte_slice(&header);
            let own = header.entry_size().map_err(|_| malformed("a member has no valid size"))?;
            let kind = header.entry_type();
            let extension = is_extension(kind);
            let len = if extension { own } else { over.size.unwrap_or(own) };
            let len = if holds_bytes(kind) { len } else { 0 };
            let end =
                start.checked_add(len).filter(|end| *end <= blob.len()).ok_or_else(|| malformed("it is cut off"))?;
            if extension {
                over.take(kind, &small(&blob, start, len, what, limits)?, what)?;
            } else {
                let over = std::mem::take(&mut over);
                let name = over.name.unwrap_or_else(|| header.path_bytes().into_owned());
                let link = || over.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
                let member = match kind {
                    EntryType::Regular | EntryType::Continuous => Some(Member::File { offset: start, len }),
                    EntryType::Link => link().and_then(|to| normal(&to)).map(Member::Link),
                    EntryType::Symlink => link().and_then(|to| beside(&name, &to)).map(Member::Link),
                    _ => None,
                };
                if let (Some(name), Some(member)) = (normal(&name), member) {
                    add(&mut members, name, member).map_err(|reason| Error::malformed(what, reason))?;
                }
            }
            position = end.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(|| malformed("it is too large"))?;
        }
        if count == 0 {
            return Err(malformed("it is empty"));
        }
        Ok(Self { what: what.to_owned(), blob, members, max_links: limits.symlinks })
    }

    /// The bytes of a member; links are followed within the archive. None: there is none, or it leads nowhere.
    pub(crate) fn member(&self, name: &str) -> Option<Blob> {
        let mut name = normal(name.as_bytes())?;
        for _ in 0..=self.max_links {
            match self.members.get(&name)? {
                Member::File { offset, len } => return self.blob.part(*offset, *len),
                Member::Link(to) => name = to.clone(),
            }
        }
        None
    }
}

/// What the extension headers before a member say about it.
#[derive(Debug, Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Overrides {
    fn take(&mut self, kind: EntryType, bytes: &[u8], what: &str) -> Result<(), Error> {
        let text = || bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => self.name = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => {
                for record in PaxExtensions::new(bytes) {
                    let record = record.map_err(|_| Error::malformed(what, "a PAX header is damaged"))?;
                    let value = record.value_bytes();
                    match record.key_bytes() {
                        b"path" => self.name = Some(value.to_vec()),
                        b"linkpath" => self.link = Some(value.to_vec()),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                            self.size = Some(size.ok_or_else(|| Error::malformed(what, "a member has no valid size"))?);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Adds a member. Two documents of one name would let two readers see two images; other members are only believed once
/// their digest fits, so the first one stays.
fn add(members: &mut BTreeMap<String, Member>, name: String, member: Member) -> Result<(), String> {
    match members.entry(name) {
        Entry::Vacant(place) => {
            place.insert(member);
            Ok(())
        }
        Entry::Occupied(place) if DOCUMENTS.contains(&place.key().as_str()) => {
            Err(format!("it has two `{}`", place.key()))
        }
        Entry::Occupied(_) => Ok(()),
    }
}

/// A name without empty and `.` components; None where it is absolute, leaves the archive or is no text.
fn normal(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok().filter(|text| !text.starts_with('/'))?;
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The target of a symbolic link, as a name in the archive.
fn beside(name: &[u8], target: &[u8]) -> Option<String> {
    if target.starts_with(b"/") {
        return None;
    }
    let folder = name.iter().rposition(|b| *b == b'/').and_then(|at| name.get(..=at)).unwrap_or_default();
    normal(&[folder, target].concat())
}

/// The block at `position`; None at the end of the archive: a block of zeros, or no more bytes.
fn block(blob: &Blob, position: u64, what: &str) -> Result<Option<[u8; 512]>, Error> {
    let mut bytes = [0; 512];
    match blob.len().saturating_sub(position) {
        0 => return Ok(None),
        left if left < BLOCK_BYTES => return Err(Error::malformed(what, "it is no tar archive, or cut off")),
        _ => {}
    }
    let part = blob.part(position, BLOCK_BYTES).ok_or_else(|| Error::malformed(what, "it is cut off"))?;
    part.reader().read_exact(&mut bytes).map_err(|error| Error::read(what, error))?;
    Ok(bytes.iter().any(|b| *b != 0).then_some(bytes))
}

/// An extension header's bytes.
fn small(blob: &Blob, start: u64, len: u64, what: &str, limits: &Limits) -> Result<Vec<u8>, Error> {
    if len > limits.tar_header_bytes {
        let what = format!("an extension header of {what}");
        return Err(Error::Limit { what, name: "tar_header_bytes", limit: limits.tar_header_bytes });
    }
    let part = blob.part(start, len).ok_or_else(|| Error::malformed(what, "it is cut off"))?;
    let mut bytes = Vec::new();
    part.reader().read_to_end(&mut bytes).map_err(|error| Error::read(what, error))?;
    Ok(bytes)
}

/// The sum of the header's bytes, its own field counted as blanks; old tools summed signed bytes.
fn checksum_fits(block: &[u8; 512]) -> bool {
    let Ok(stored) = Header::from_byte_slice(block).cksum() else { return false };
    let bytes = || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: u32 = bytes().map(u32::from).sum();
    let signed: i32 = bytes().map(|byte| i32::from(byte.cast_signed())).sum();
    stored == unsigned || i64::from(stored) == i64::from(signed)
}

fn is_extension(kind: EntryType) -> bool {
    matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader)
}

fn holds_bytes(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    !matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

const BLOCK_BYTES: u64 = 512;
const DOCUMENTS: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{blob, tar};

    fn index(bytes: &[u8]) -> Result<Archive, Error> {
        Archive::index(blob(bytes), "the archive", &Limits::default())
    }

    fn text(archive: &Archive, name: &str) -> Option<String> {
        let mut text = String::new();
        archive.member(name)?.reader().read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).expect("appended");
    }

    #[test]
    fn members_are_found_with_and_without_dot_and_folders() {
        let long = format!("blobs/{}/x", "a".repeat(300));
        let archive = index(&tar(&[("./index.json", "one"), (&long, "two"), ("blobs/b", "")])).expect("indexed");
        assert_eq!(text(&archive, "index.json").as_deref(), Some("one"));
        assert_eq!(text(&archive, &long).as_deref(), Some("two"));
        assert_eq!(text(&archive, "blobs/b").as_deref(), Some(""));
        assert_eq!(text(&archive, "blobs"), None);
    }

    #[test]
    fn links_are_followed_within_the_archive_only() {
        let mut builder = tar::Builder::new(tar(&[("a/layer.tar", b"layer")]));
        let mut bytes = std::mem::take(builder.get_mut());
        bytes.truncate(1024);
        let mut builder = tar::Builder::new(bytes);
        link(&mut builder, EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
        link(&mut builder, EntryType::Link, "c", "b/layer.tar");
        link(&mut builder, EntryType::Symlink, "d", "../../etc/passwd");
        link(&mut builder, EntryType::Symlink, "e", "/etc/passwd");
        link(&mut builder, EntryType::Symlink, "loop", "loop");
        let archive = index(&builder.into_inner().expect("finished")).expect("indexed");
        assert_eq!(text(&archive, "b/layer.tar").as_deref(), Some("layer"));
        assert_eq!(text(&archive, "c").as_deref(), Some("layer"));
        for name in ["d", "e", "loop", "../a/layer.tar", "/a/layer.tar"] {
            assert_eq!(text(&archive, name), None, "{name}");
        }
    }

    #[test]
    fn a_document_that_is_there_twice_is_refused() {
        let error = index(&tar(&[("index.json", b"1"), ("./index.json", b"2")])).expect_err("two").to_string();
        assert!(error.contains("two `index.json`"), "{error}");
        let archive = index(&tar(&[("x", b"1"), ("x", b"2")])).expect("digests decide");
        assert_eq!(text(&archive, "x").as_deref(), Some("1"));
    }

    #[test]
    fn cut_damaged_and_foreign_files_are_refused() {
        let whole = tar(&[("index.json", &[7; 2000])]);
        assert!(index(&whole).is_ok());
        assert!(index(&whole[..1500]).expect_err("cut").to_string().contains("cut off"));
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(index(&damaged).expect_err("damaged").to_string().contains("not a tar archive"));
        assert!(index(&[b'x'; 2048]).is_err());
        assert!(index(b"").expect_err("nothing").to_string().contains("empty"));
    }

    #[test]
    fn too_many_members_and_huge_names_are_refused() {
        let limits = Limits { archive_members: 1, tar_header_bytes: 100, ..Limits::default() };
        let two = tar(&[("a", b""), ("b", b"")]);
        let error = Archive::index(blob(&two), "x", &limits).expect_err("two");
        assert!(matches!(error, Error::Limit { name: "archive_members", .. }), "{error}");
        let error = Archive::index(blob(&tar(&[(&"n".repeat(200), b"")])), "x", &limits).expect_err("long");
        assert!(matches!(error, Error::Limit { name: "tar_header_bytes", .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..3000, with: u8) {
            let mut bytes = tar(&[("index.json", vec![7; 900]), ("b", vec![1])]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            let _ = index(&bytes);
        }
    }
}
