//! From an image reference, layout or archive to digest-verified bytes.
//!
//! In: what a person typed ([`Source`]). Out: an [`Image`]: its config, parsed, and its layers as readable blobs whose
//! digests were checked. What is *in* a layer is the analyzer's business; nothing here unpacks one.
//!
//! ```text
//! text ──parse──► Source ──open──► documents ──resolve──► manifest, config ──► Image { config, layers as blobs }
//!                          registry · layout · archive · daemon · folder              │
//!                                                                       pull ──► an OCI layout
//! ```
//!
//! ```
//! let source: oci::Source = "nginx:1.27".parse()?;
//! assert_eq!(source.to_string(), "docker://docker.io/library/nginx:1.27");
//! # Ok::<(), oci::SourceError>(())
//! ```

mod archive;
mod blob;
mod cache;
mod config;
mod docker_archive;
mod error;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod fixture;
mod image;
mod layout;
mod manifest;
mod open;
mod progress;
mod pull;
mod reference;
#[cfg(feature = "registry")]
pub mod registry;
mod resolve;
mod source;
mod spool;
mod verify;

pub use blob::{Blob, BlobReader};
pub use cache::Cache;
pub use config::{Config, ConfigHealthcheck, HistoryEntry, RootfsIds, RunConfig};
pub use error::Error;
pub use image::{Contents, Digests, Image, Layer, LayerBody};
pub use manifest::{Descriptor, DescriptorPlatform, Index, Manifest, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST};
pub use open::{Options, open, open_archive};
pub use progress::Progress;
pub use pull::{Pulled, pull};
pub use reference::{Reference, ReferenceError};
#[cfg(feature = "registry")]
pub use registry::open_async;
pub use source::{Select, Source, SourceError};
