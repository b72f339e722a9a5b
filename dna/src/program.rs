//! The nodes of the graph: programs, their cheap facts, and the edges between them.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Behavior, Condition, Confidence, Digest, Evidence, ImagePath};

/// An executable file of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// The file itself, never a symbolic link.
    pub path: ImagePath,
    /// Digest of its contents.
    pub sha256: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Index into the DNA's `layers` of the layer that brought it.
    pub layer: u32,
    /// Package URL of the package that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Other names: symbolic links that lead to it, further hard links.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<ImagePath>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid (0o4000), setgid (0o2000) and sticky (0o1000).
    pub mode: u32,
    /// `security.capability`, where the file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<FileCapabilities>,
    /// What sort of file it is, with the facts of that sort.
    #[serde(flatten)]
    pub kind: Kind,
    /// What it was written in, where that shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Programs it may execute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// What a process of it may do, where that was worked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
}

/// What sort of file a program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "facts", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// An ELF executable.
    Elf(Box<Elf>),
    /// A text file that starts with `#!`, or that an interpreter is told to run.
    Script(Script),
    /// A Java archive with a `Main-Class`.
    Jar {
        /// `Main-Class` of its manifest.
        main_class: String,
    },
    /// A file with an execute bit that is none of these.
    Other,
}

/// Facts of an ELF executable. Source: System V ABI; elf(5); ld.so(8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Elf {
    /// Architecture in the words of `GOARCH`: `amd64`, `arm64` …, or `em-N` for another `e_machine`.
    pub architecture: String,
    /// How it reaches its libraries.
    pub linkage: Linkage,
    /// `PT_INTERP` as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// `DT_NEEDED` in order, with the file the loader would take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<Needed>,
    /// `DT_RPATH`, split at colons, as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`, split at colons, as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runpath: Vec<String>,
    /// GNU build id, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// No symbol table beside the dynamic one.
    pub stripped: bool,
    /// Exploit mitigations.
    pub hardening: Hardening,
    /// Signs of packing, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<Packing>,
}

/// How an executable reaches its libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Linkage {
    /// Through the interpreter it names.
    Dynamic,
    /// It has none.
    Static,
    /// It has none and relocates itself.
    StaticPie,
}

/// A library an ELF file needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Needed {
    /// The name asked for.
    pub name: String,
    /// The file the loader would map, resolved; absent where it would find none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ImagePath>,
}

/// A fact that may be undecidable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tristate {
    /// It holds.
    Yes,
    /// It does not hold.
    No,
    /// The file does not tell.
    #[default]
    Unknown,
}

/// Exploit mitigations built into an ELF executable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hardening {
    /// Position-independent executable.
    pub pie: Tristate,
    /// Read-only relocations.
    pub relro: Relro,
    /// Stack not executable (`PT_GNU_STACK`).
    pub nx: Tristate,
    /// Stack canaries.
    pub canary: Tristate,
    /// `_FORTIFY_SOURCE` checks in use.
    pub fortify: Tristate,
}

/// Read-only relocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relro {
    /// `PT_GNU_RELRO`, and all symbols bound at start.
    Full,
    /// `PT_GNU_RELRO` with lazy binding.
    Partial,
    /// None.
    No,
    /// The file does not tell.
    #[default]
    Unknown,
}

/// Signs that an executable unpacks itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packing {
    /// The packer, where its mark was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packer: Option<String>,
    /// Shannon entropy of the executable segments in hundredths of a bit per byte, 0 to 800.
    pub entropy_centibits: u16,
}

/// What a program was written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Language {
    /// `c`, `c++`, `go`, `rust`, `java`, `dotnet`, `python`, `node`, `perl`, `ruby`, `php`, `shell` …
    pub name: String,
    /// Version of its compiler or runtime, where it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Main module and its version, where the language records them: `github.com/x/y@v1.2.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// Facts of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Script {
    /// The `#!` line's words: interpreter and at most one argument, as execve(2) splits it; empty without such a line.
    pub shebang: Vec<String>,
}

/// Capabilities attached to a file, capabilities(7) section "File capabilities".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileCapabilities {
    /// Granted whatever the process had.
    pub permitted: BTreeSet<String>,
    /// Granted where the process could inherit them.
    pub inheritable: BTreeSet<String>,
    /// Raised at once.
    pub effective: bool,
    /// User namespace root the capabilities are for (version 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_uid: Option<u32>,
}

/// An edge of the graph: a program that may be executed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The program's file, resolved.
    pub program: ImagePath,
    /// The names it is called by that are not its file's own: what a multicall program does depends on them (busybox(1)).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub called: BTreeSet<String>,
    /// Why, in a few words: `#! interpreter`, `calls`, `argument of tini` …
    pub reason: String,
    /// How sure.
    pub confidence: Confidence,
    /// Conditions under which it holds; absent means always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// Where this shows.
    pub evidence: Vec<Evidence>,
}
