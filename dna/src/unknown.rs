//! What could not be known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something the analysis could not decide; policy judges what it means. Sorted by place, then subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Unknown {
    /// Where: a path in the image (bytes that are not UTF-8 escaped), a config key or a layer's digest.
    #[serde(rename = "where")]
    pub place: String,
    /// What is not known because of it.
    #[serde(rename = "what")]
    pub subject: Subject,
    /// Why, for people; never a value that may be secret.
    pub why: String,
}

/// What an [`Unknown`] bears on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Subject {
    /// The whole image: a platform that is not analyzed.
    Platform,
    /// A layer's contents.
    Layer,
    /// A file's contents or metadata.
    File,
    /// The packages installed.
    Packages,
    /// What the runtime starts.
    Start,
    /// Which programs run.
    Exec,
    /// Which libraries are loaded.
    Load,
    /// Facts of one program.
    Program,
    /// System calls made.
    Syscalls,
    /// Ports listened on.
    Listen,
}
