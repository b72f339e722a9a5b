//! What a sensor on a node saw a process in a container do: one shape for all sensors.
//!
//! A sensor tells what it knows; what it does not tell is absent, never guessed. Credentials are taken out where an activity is
//! made ([`crate::redact`]).

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// One act of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// When, by the node's clock.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The sensor's kind: `falco`, `tetragon`, `tracee`, `kubearmor`, `inspektor-gadget`, `mayfly`.
    pub sensor: String,
    /// The node it was seen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The container, as the sensor names it.
    pub container: SeenContainer,
    /// The process that acts; of an execution, as it is after it.
    pub process: Process,
    /// Who started it, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Process>,
    /// What it does.
    pub act: Act,
    /// How that ended.
    #[serde(default, skip_serializing_if = "Outcome::is_done")]
    pub outcome: Outcome,
    /// The sensor's rule or policy that told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A container as a sensor names it: any of these may be missing, short, or carry a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SeenContainer {
    /// Its id without a scheme: 64 hexadecimal digits, or the first 12 to 31 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name in the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image as written, without a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `sha256:…` of the image: of its manifest, its index or its configuration, as the sensor has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Its number on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The sensor's own name for it, which is never used again, as numbers are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `comm`, at most 15 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file that runs, as the container sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Its arguments, `argv[0]` first; where a sensor has one text only, split at spaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Its working folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The user it acts as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The file that runs is not the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Where the file of a process comes from, where the sensor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// A layer of the image.
    Image,
    /// Written in the container after it started: overlayfs' upper layer.
    Written,
    /// memfd_create(2): there is no file.
    Memory,
    /// It was deleted since.
    Deleted,
}

/// What a process does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Act {
    /// execve(2) of a file; the process is already the new program.
    Exec {
        /// The file as asked for: a script, a symbolic link.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// It ended.
    Exit,
    /// listen(2), or bind(2) of a datagram socket.
    Listen {
        /// The transport protocol.
        protocol: Protocol,
        /// The address bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// accept(2): somebody connected to it.
    Accept {
        /// Its own port.
        port: u16,
        /// The peer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        peer: Option<IpAddr>,
    },
    /// connect(2), or a datagram sent.
    Connect {
        /// The transport protocol.
        protocol: Protocol,
        /// The peer's address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        address: Option<IpAddr>,
        /// Its name, where the sensor tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Its port.
        port: u16,
    },
    /// connect(2) to a socket of the file system, unix(7).
    ConnectUnix {
        /// The socket's path.
        path: String,
    },
    /// A file opened for writing, or changed.
    Write {
        /// The file.
        path: String,
        /// What was done to it.
        change: Change,
    },
    /// A file opened for reading, where the sensor is told to look.
    Read {
        /// The file.
        path: String,
    },
    /// A capability used, capabilities(7).
    Capability {
        /// `CAP_NET_RAW`.
        name: String,
    },
    /// setuid(2) and its like.
    Identity {
        /// The system call.
        call: String,
        /// The number it asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
    },
    /// Another system call.
    Syscall {
        /// The kernel's name.
        name: String,
        /// Its arguments as the sensor writes them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<String>,
    },
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// Opened for writing.
    Open,
    /// Made: a file, a folder, a link, a device.
    Create,
    /// Removed.
    Remove,
    /// Given another name; the path is the new one.
    Rename,
    /// Cut to a length.
    Truncate,
    /// Its mode was changed.
    Mode,
    /// Its owner was changed.
    Owner,
}

/// How an act ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[non_exhaustive]
pub enum Outcome {
    /// It was done, or the sensor does not tell.
    #[default]
    Done,
    /// The kernel refused it.
    Failed {
        /// The error's name, `EACCES`.
        error: String,
    },
    /// A security module or the sensor kept it from happening.
    Blocked,
}

impl Outcome {
    /// Whether it was done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}
