//! Why there is no DNA at all. What cannot be read *inside* an image is an unknown instead.

use std::io;

use dna::{Digest, ImagePath};

/// An image that cannot be analyzed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stored bytes are not the ones the manifest names.
    #[error("layer {layer}: its bytes hash to {found}; the image was changed or damaged after it was made")]
    BlobDigest {
        /// Digest the manifest names.
        layer: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// The uncompressed archive is not the one the config names.
    #[error("layer {layer}: it unpacks to {found}, the image config promises {expected}")]
    DiffId {
        /// Digest of the blob.
        layer: Digest,
        /// The config's diff id.
        expected: Digest,
        /// Digest of the uncompressed archive.
        found: Digest,
    },
    /// Compressed data that does not decode, or ends early.
    #[error("layer {layer}: cannot decompress it after {offset} bytes")]
    Decompress {
        /// Digest of the blob.
        layer: Digest,
        /// Uncompressed bytes that came out before.
        offset: u64,
        /// What the decoder says.
        source: io::Error,
    },
    /// Bytes that are no tar archive.
    #[error("layer {layer}: bad tar archive at offset {offset}: {reason}")]
    Archive {
        /// Digest of the blob.
        layer: Digest,
        /// Offset in the uncompressed archive.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that no runtime could unpack.
    #[error("layer {layer}: cannot place {path}: {reason}")]
    Entry {
        /// Digest of the blob.
        layer: Digest,
        /// The entry's path.
        path: ImagePath,
        /// What is wrong.
        reason: &'static str,
    },
    /// A limit was reached.
    #[error(
        "layer {layer}: more than {value} by the limit `{limit}`; raise it if you trust the image: --limit {limit}=NUMBER"
    )]
    Limit {
        /// Digest of the blob.
        layer: Digest,
        /// The limit's name, a field of [`dna::Limits`].
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// Time ran out.
    #[error("the analysis took longer than {seconds} s; give it more: --limit analysis_seconds=NUMBER")]
    Time {
        /// The limit.
        seconds: u64,
    },
    /// The image has more layers than the limit.
    #[error("{found} layers, more than the limit of {limit}; raise it if you trust the image: --limit layers=NUMBER")]
    Layers {
        /// How many there are.
        found: usize,
        /// The limit.
        limit: u64,
    },
    /// The folder to analyze, or the host's temporary folder, fails.
    #[error("cannot read or write on this host: {what}")]
    Host {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The limits have no canonical form to be named by.
    #[error("the analyzer's rules cannot be named")]
    Rules,
}
