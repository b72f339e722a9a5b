//! Image in, DNA out. Sync, offline; nothing of an image is ever executed.
//!
//! ```text
//! oci::Image ─layers─► squash ─► Rootfs ─┬─ inventory: packages, who owns which file
//!                                        ├─ programs:  ELF facts, scripts, languages
//!                                        ├─ start:     what the runtime executes
//!                                        ├─ closure:   which programs run which, which libraries they load
//!                                        └─► Dna
//! ```

mod archive;
mod buildinfo;
mod directory;
pub mod elf;
mod error;
pub mod filecaps;
mod language;
mod layer;
pub mod loader;
pub mod programs;
mod progress;
mod rootfs;
mod squash;

pub use error::Error;
pub use progress::Progress;
pub use rootfs::{Content, File, Inode, InodeId, InodeKind, Metadata, ReadError, ResolveError, Resolved, Rootfs};
pub use squash::{Squashed, squash, squash_layer};
