//! Why an item is in the DNA: a place a person can look at, and the conditions under which it holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ImagePath;

/// One place in the image that an item rests on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evidence {
    /// A key of the image config, such as `Entrypoint` or `ExposedPorts`.
    Config {
        /// The key as the OCI image specification spells it.
        key: String,
    },
    /// A text file: script, configuration file, package database.
    File {
        /// The file.
        path: ImagePath,
        /// The line, counted from 1, where the place is one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u32>,
        /// Index into the DNA's `layers` of the layer that brought the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<u32>,
        /// What stands there, in a few words; never a value that may be secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A compiled program or library.
    Binary {
        /// The file.
        path: ImagePath,
        /// The offset in bytes from the start of the file, where the place is one instruction or datum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// Index into the DNA's `layers` of the layer that brought the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<u32>,
        /// What stands there: `PT_INTERP`, `DT_NEEDED libc.so.6` …
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

/// One condition of the conjunction `when`: the item holds only where all of them do. Patterns are shell patterns
/// (POSIX.1-2024, Shell Command Language, 2.14).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "on", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Condition {
    /// An argument of the program the edge starts from.
    Argv {
        /// Position; 1 is the first argument.
        index: u32,
        /// A pattern the argument matches.
        matches: String,
        /// The condition holds where the pattern does *not* match.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        negated: bool,
    },
    /// An environment variable; unset counts as empty.
    Env {
        /// Its name.
        name: String,
        /// A pattern its value matches; `?*` means set and not empty.
        matches: String,
        /// The condition holds where the pattern does *not* match.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        negated: bool,
    },
    /// The effective user of the process.
    Uid {
        /// Its number.
        equals: u32,
        /// The condition holds for every *other* user.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        negated: bool,
    },
    /// A file that the image does not hold, or may be mounted over.
    Exists {
        /// The file.
        path: ImagePath,
        /// The condition holds where the file does *not* exist.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        negated: bool,
    },
    /// A setting of the kernel that the runtime chooses, sysctl(8).
    Sysctl {
        /// Its name, `net.ipv4.ip_unprivileged_port_start`.
        name: String,
        /// The condition holds where its value is larger than this.
        exceeds: u64,
    },
}
