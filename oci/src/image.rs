//! One image, opened: what every medium (registry, layout, archive, directory) gives in the end.

use std::{collections::BTreeMap, path::PathBuf};

use dna::{Digest, Platform};

use crate::{Blob, Config};

/// One image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// The reference or source it was asked for by, for people; no credentials in it.
    pub name: String,
    /// What identifies it.
    pub digests: Digests,
    /// The platform it is for.
    pub platform: Platform,
    /// Its config.
    pub config: Config,
    /// Its files.
    pub contents: Contents,
}

/// The digests of an image; those its medium does not have are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests {
    /// The index (manifest list) it was chosen from.
    pub index: Option<Digest>,
    /// Its manifest.
    pub manifest: Option<Digest>,
    /// Its config.
    pub config: Option<Digest>,
}

/// Where an image's files are.
#[derive(Debug, Clone)]
pub enum Contents {
    /// Layers, lowest first.
    Layers(Vec<Layer>),
    /// An unpacked root file system.
    Directory(PathBuf),
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the blob as stored, usually compressed.
    pub digest: Digest,
    /// Media type as the manifest gives it; empty where the medium has none.
    pub media_type: String,
    /// Digest that the uncompressed archive must have.
    pub diff_id: Digest,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// Its bytes, or why there are none.
    pub body: LayerBody,
}

/// The bytes of a layer. They are *not yet verified*: whoever reads them checks digest and diff id to the last byte before
/// any of the content counts.
#[derive(Debug, Clone)]
pub enum LayerBody {
    /// Readable. gzip, zstd or plain tar, to be told by its first bytes.
    Present(Blob),
    /// Not readable here, which becomes an unknown: a foreign, encrypted or missing layer.
    Unreadable(String),
}
