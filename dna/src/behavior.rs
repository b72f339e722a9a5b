//! What a container may do, in eight dimensions, each item with its confidence and evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Evidence, ImagePath, Probability};

/// What the start command (or one program) may do. Every dimension is sorted by what its items name; `completeness` says
/// how far a missing item means "no".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Behavior {
    /// Programs executed, by resolved file name: `/usr/bin/dash`, not `/bin/sh`.
    pub exec: Vec<Known<Exec>>,
    /// Files mapped as code: the ELF interpreter, shared libraries, plugins.
    pub load: Vec<Known<Load>>,
    /// System calls by their kernel name.
    pub syscalls: Vec<Known<Syscall>>,
    /// Linux capabilities the workload needs in order to work.
    pub capabilities: Vec<Known<Capability>>,
    /// Ports it listens on.
    pub listen: Vec<Known<Listen>>,
    /// Whom it calls.
    pub connect: Vec<Known<Connect>>,
    /// Files it creates, changes or removes; a path may be a glob (`*` within a component, `**` across).
    pub write: Vec<Known<Write>>,
    /// Sensitive files it reads: keys, credentials, account databases.
    pub read: Vec<Known<Read>>,
    /// How much of each dimension was worked out.
    pub completeness: Completenesses,
}

impl Behavior {
    /// The same without what it rests on.
    #[must_use]
    pub fn without_evidence(&self) -> Self {
        fn bare<T: Clone>(items: &[Known<T>]) -> Vec<Known<T>> {
            let bare = |item: &Known<T>| Known {
                what: item.what.clone(),
                confidence: item.confidence,
                probability: item.probability,
                when: item.when.clone(),
                evidence: Vec::new(),
            };
            items.iter().map(bare).collect()
        }
        Self {
            exec: bare(&self.exec),
            load: bare(&self.load),
            syscalls: bare(&self.syscalls),
            capabilities: bare(&self.capabilities),
            listen: bare(&self.listen),
            connect: bare(&self.connect),
            write: bare(&self.write),
            read: bare(&self.read),
            completeness: self.completeness.clone(),
        }
    }
}

/// An item of a dimension with why we believe it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Known<T> {
    /// What is predicted.
    #[serde(flatten)]
    pub what: T,
    /// How sure the prediction is.
    pub confidence: Confidence,
    /// The probability that a container does it, where a calibrated model tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Probability>,
    /// Conditions under which it holds; absent means always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
    /// What it rests on, most telling first.
    pub evidence: Vec<Evidence>,
}

/// How sure a prediction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Follows from the image's bytes and the runtime's rules.
    Certain,
    /// Expected in normal operation.
    Likely,
    /// Cannot be ruled out; not expected.
    Possible,
}

/// A program executed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// The resolved file.
    pub path: ImagePath,
}

/// A file mapped as code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// The resolved file.
    pub path: ImagePath,
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Syscall {
    /// The kernel's name, `openat`.
    pub name: String,
    /// What its sensitive arguments are, as far as constants tell; absent where nothing is known of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Arguments>,
    /// When it is made, where that is known; of a program's own behavior: where that program is started once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
}

/// When in the life of a container something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Not while the server serves: on the way there, or at its end.
    Startup,
}

/// The values of a system call's sensitive arguments. Pointers and lengths are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Arguments {
    /// Their names: `domain`, `type`, `protocol`.
    pub parameters: Vec<String>,
    /// The values that occur together, named as in the Linux headers; a value that is not known is null.
    pub values: Vec<Vec<Option<String>>>,
    /// It is made with no others. Where this is false, there may be others.
    pub all_known: bool,
}

impl Arguments {
    /// Whether a parameter may have one of these values, or a flag of them; none where that is not known.
    pub fn may_be(&self, parameter: usize, wanted: &[String]) -> Option<bool> {
        let mut is_known = self.all_known;
        for value in &self.values {
            match value.get(parameter) {
                Some(Some(value)) if value.split('|').any(|part| wanted.iter().any(|name| name == part)) => {
                    return Some(true);
                }
                Some(Some(_)) => {}
                _ => is_known = false,
            }
        }
        is_known.then_some(false)
    }
}

/// A capability, capabilities(7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Capability {
    /// `CAP_NET_BIND_SERVICE`.
    pub name: String,
}

/// A port listened on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Listen {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port, 1 to 65535.
    pub port: u16,
    /// The address bound, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Only claimed, by `EXPOSE`; no program was seen to open it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
}

/// A peer called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Connect {
    /// Host name or address.
    pub host: String,
    /// The port, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// A file written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Write {
    /// The file, or a glob over files.
    pub path: ImagePath,
}

/// A sensitive file read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// The file, or a glob over files.
    pub path: ImagePath,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol.
    Udp,
    /// Stream Control Transmission Protocol.
    Sctp,
}

/// Completeness of each dimension of a [`Behavior`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Completenesses {
    /// Of `exec`.
    pub exec: Completeness,
    /// Of `load`.
    pub load: Completeness,
    /// Of `syscalls`.
    pub syscalls: Completeness,
    /// Of `capabilities`.
    pub capabilities: Completeness,
    /// Of `listen`.
    pub listen: Completeness,
    /// Of `connect`.
    pub connect: Completeness,
    /// Of `write`.
    pub write: Completeness,
    /// Of `read`.
    pub read: Completeness,
}

/// How much of a dimension was worked out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Completeness {
    /// An item that is not listed will not happen.
    Complete,
    /// Items may be missing.
    Partial {
        /// Why.
        reason: String,
    },
    /// Not worked out: nothing follows from an item's absence.
    #[default]
    None,
}
