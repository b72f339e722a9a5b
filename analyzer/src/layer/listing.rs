//! A verified layer as it is kept for later analyses, and back: entries as numbers and bytes, bodies by where they lie.

use std::{collections::BTreeMap, sync::Arc};

use dna::ImagePath;
use serde::{Deserialize, Serialize};

use super::VerifiedLayer;
use crate::{
    archive::{Entry, EntryKind, TOO_LARGE},
    rootfs::{Bodies, Content, File},
};

/// What is kept of a layer, beside its bodies.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    size: u64,
    skipped: Vec<(Box<[u8]>, u8)>,
    entries: Vec<KeptEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptEntry {
    path: Box<[u8]>,
    kind: KeptKind,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

#[derive(Debug, Serialize, Deserialize)]
enum KeptKind {
    /// A file; where its body lies, if it was kept.
    File {
        size: u64,
        sha256: Option<[u8; 32]>,
        offset: Option<u64>,
    },
    Directory,
    Symlink(Box<[u8]>),
    HardLink(Box<[u8]>),
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

impl Listing {
    pub(super) fn of(layer: &VerifiedLayer) -> Self {
        let entry = |entry: &Entry| KeptEntry {
            path: entry.path.as_bytes().into(),
            kind: match &entry.kind {
                EntryKind::File(file) => KeptKind::File {
                    size: file.size,
                    sha256: file.sha256,
                    offset: match file.content {
                        Content::Spooled { offset, .. } => Some(offset),
                        _ => None,
                    },
                },
                EntryKind::Directory => KeptKind::Directory,
                EntryKind::Symlink(target) => KeptKind::Symlink(target.clone()),
                EntryKind::HardLink(target) => KeptKind::HardLink(target.as_bytes().into()),
                EntryKind::CharDevice { major, minor } => KeptKind::CharDevice { major: *major, minor: *minor },
                EntryKind::BlockDevice { major, minor } => KeptKind::BlockDevice { major: *major, minor: *minor },
                EntryKind::Fifo => KeptKind::Fifo,
            },
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        Self { size: layer.size, skipped: layer.skipped.clone(), entries: layer.entries.iter().map(entry).collect() }
    }

    /// The layer again; none where a body would lie outside the bodies.
    pub(super) fn into_layer(self, bodies: &Arc<Bodies>) -> Option<VerifiedLayer> {
        let entry = |entry: KeptEntry| {
            let KeptEntry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
            let kind = match kind {
                KeptKind::File { size, sha256, offset } => {
                    let content = match offset {
                        Some(offset) => {
                            offset.checked_add(size).filter(|end| Some(*end) <= bodies.len())?;
                            Content::Spooled { spool: bodies.clone(), offset }
                        }
                        None => Content::Dropped(TOO_LARGE),
                    };
                    EntryKind::File(File { size, sha256, content })
                }
                KeptKind::Directory => EntryKind::Directory,
                KeptKind::Symlink(target) => EntryKind::Symlink(target),
                KeptKind::HardLink(target) => EntryKind::HardLink(ImagePath::normalize(&target).ok()?),
                KeptKind::CharDevice { major, minor } => EntryKind::CharDevice { major, minor },
                KeptKind::BlockDevice { major, minor } => EntryKind::BlockDevice { major, minor },
                KeptKind::Fifo => EntryKind::Fifo,
            };
            Some(Entry { path: ImagePath::normalize(&path).ok()?, kind, mode, uid, gid, mtime, xattrs })
        };
        let entries = self.entries.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
        Some(VerifiedLayer { entries, skipped: self.skipped, size: self.size })
    }
}
