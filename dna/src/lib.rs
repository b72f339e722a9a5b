//! The nouns every part of Mayfly shares.
//!
//! In: nothing. Out: types. No I/O, no async, no analysis: what an image *is* is read by `oci`, what it *does* is worked
//! out by `analyzer`, and both say it in the words of this crate.
//!
//! ```text
//! Dna ─┬─ image, layers             what was analyzed, by digest
//!      ├─ start                     what the runtime will execute
//!      ├─ programs ── runs, behavior  the graph: who may run whom, and what each does
//!      ├─ accounts, folders         who owns what
//!      ├─ behavior                  the answer for the image's own start command
//!      └─ unknowns                  what could not be known, and why
//! ```
//!
//! The digest of a DNA is the SHA-256 of its canonical JSON:
//!
//! ```
//! use dna::Digest;
//!
//! let digest = Digest::sha256(b"");
//! assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
//! ```

mod accounts;
mod activity;
mod behavior;
mod canonical;
mod container;
mod deviation;
mod digest;
mod document;
mod evidence;
mod expect;
mod facts;
mod family;
mod finding;
mod glob;
mod limits;
mod outline;
mod path;
mod platform;
mod probability;
mod program;
mod runtime;
mod secret;
mod shell;
mod start;
mod unknown;
mod workload;

pub use accounts::{Accounts, Folder, Group, User};
pub use activity::{Act, Activity, Change, Origin, Outcome, Process, SeenContainer};
pub use behavior::{
    Arguments, Behavior, Capability, Completeness, Completenesses, Confidence, Connect, Exec, Known, Listen, Load,
    Phase, Protocol, Read, Syscall, Write,
};
pub use canonical::{CanonicalError, canonical_json};
pub use container::{
    Action, ConfigMapFiles, ContainerSpec, DeclaredPort, EnvFrom, HostNamespaces, ImageUse, Mount, PodSpec, Probe,
    Role, Seccomp, Security, Setting, SpecError, Volume, expand,
};
pub use deviation::{Class, Deviation, Driver};
pub use digest::{Digest, DigestError};
pub use document::{Analyzer, Dna, DnaError, ImageFacts, Layer, SCHEMA};
pub use evidence::{Condition, Evidence};
pub use expect::{Beside, Expectation, expect};
pub use facts::{
    AttestationFact, Attested, Cause, Commit, ConfigFacts, DnaFact, DnaSource, Fact, Gap, Last, NamedImage,
    RefusalFact, Resolved, SignatureFact, SubjectFacts, Vouched, Voucher,
};
pub use family::{Borrowed, Kinship, LEAST_MEMBERS, Near, Relative, Sort, Trait, Traits, Unlike, kinship, nearest};
pub use finding::{Effect, Finding, FindingCode};
pub use glob::path_matches;
pub use limits::{LimitError, Limits};
pub use outline::{Difference, File, How, Outline};
pub use path::{ImagePath, PathError};
pub use platform::{Platform, PlatformError};
pub use probability::Probability;
pub use program::{
    Elf, FileCapabilities, Hardening, Kind, Language, Linkage, Needed, Packing, Program, Relro, Run, Script, Tristate,
};
pub use runtime::{CAPABILITIES, RuntimeFacts};
pub use secret::{REDACTED, is_secret_name, redact, redact_argv};
pub use shell::is_shell;
pub use start::{EnvVar, ExposedPort, Healthcheck, Start};
pub use unknown::{Subject, Unknown};
pub use workload::Workload;
