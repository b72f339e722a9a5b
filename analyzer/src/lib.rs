//! Image in, DNA out. Sync, offline; nothing of an image is ever executed.
//!
//! ```text
//! oci::Image ─layers─► squash ─► Rootfs ─┬─ inventory: packages, who owns which file
//!                                        ├─ programs:  ELF facts, scripts, languages
//!                                        ├─ start:     what the runtime executes
//!                                        ├─ closure:   which programs run which, which libraries they load
//!                                        └─► Dna
//! ```

mod accounts;
mod archive;
mod closure;
mod directory;
mod error;
pub mod inventory;
mod layer;
mod progress;
mod rootfs;
pub mod sbom;
mod shell;
mod squash;
mod start;
mod supervisors;
mod wrappers;

pub use error::Error;
pub use inventory::{Distro, Inventory, Package, PackageKind, inventory};
pub use progress::Progress;
pub use rootfs::{Content, File, Inode, InodeId, InodeKind, Metadata, ReadError, ResolveError, Resolved, Rootfs};
pub use squash::{Squashed, squash, squash_layer};
