//! Image in, DNA out. Sync, offline; nothing of an image is ever executed.
//!
//! ```text
//! oci::Image ─► squash ─► Rootfs ─┬─ inventory   packages, who owns which file
//!               (layers,          ├─ start       what the runtime executes, as whom
//!                in parallel)     ├─ reach       which programs run which, scripts read
//!                                 ├─ survey      every program: ELF facts, scripts, languages
//!                                 ├─ load        what each executed one maps
//!                                 ├─ servers     what servers are configured to do
//!                                 ├─ code        the system calls that reachable code makes
//!                                 ├─ capabilities  what the kernel will be asked for
//!                                 └─► Dna
//! ```
//!
//! [`analyze`] is these steps, one call each. [`answer`] and [`refine`] ask the DNA alone; [`bind`] asks it
//! for a container of a pod.

mod accounts;
mod acts;
mod analyze;
mod archive;
mod bind;
mod capabilities;
mod closure;
mod code;
mod compilers;
mod constants;
mod cron;
mod directory;
pub mod elf;
mod error;
pub mod expect;
pub mod filecaps;
pub mod inventory;
mod kept;
mod language;
mod layer;
mod lines;
pub mod loader;
mod merge;
mod operands;
mod phases;
mod places;
mod plugins;
pub mod programs;
mod progress;
mod reader;
mod refine;
mod rootfs;
pub mod sbom;
mod scripts;
mod servers;
mod sessions;
mod shell;
mod squash;
mod start;
mod supervisors;
mod syscalls;
mod words;
mod wrappers;

pub use analyze::{Analysis, Answer, CallStep, analyze, analyze_with, rules};
pub use bind::{ConfigMaps, bind, config_maps};
pub use code::count_calls;
pub use error::Error;
pub use inventory::{Distro, Inventory, Package, PackageKind, inventory};
pub use progress::Progress;
pub use refine::{Laid, Mounted, answer, refine};
pub use rootfs::{
    Bodies, Content, File, Inode, InodeId, InodeKind, Metadata, ReadError, ResolveError, Resolved, Rootfs,
};
pub use servers::settings;
pub use shell::commands;
pub use squash::{Squashed, squash, squash_layer};
