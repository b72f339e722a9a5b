//! From an image reference, layout or archive to digest-verified bytes.
//!
//! In: what a person typed ([`Source`]). Out: an [`Image`]: its config, parsed, and its layers as readable blobs whose
//! digests were checked. What is *in* a layer is the analyzer's business; nothing here unpacks one.

mod blob;
mod config;
mod image;

pub use blob::{Blob, BlobReader};
pub use config::{Config, ConfigHealthcheck, HistoryEntry, RootfsIds, RunConfig};
pub use image::{Contents, Digests, Image, Layer, LayerBody};
