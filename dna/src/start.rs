//! What the runtime starts when nothing overrides it, after the OCI image config (image-spec, `config.md`).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ImagePath, Protocol};

/// The start command and its surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Start {
    /// `Entrypoint` followed by `Cmd`; empty where the image names no command.
    pub argv: Vec<String>,
    /// How many of `argv` come from `Entrypoint`.
    pub entrypoint: u32,
    /// The file the runtime executes for `argv[0]`, symbolic links resolved; absent where the image has no such file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<ImagePath>,
    /// `User` as written: `name`, `uid`, `name:group` …; empty means root.
    pub user: String,
    /// The user number it resolves to; absent where the image's `/etc/passwd` does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group number it resolves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Supplementary groups from `/etc/group`.
    pub groups: BTreeSet<u32>,
    /// `WorkingDir`; `/` where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<ImagePath>,
    /// Environment variables, in order.
    pub env: Vec<EnvVar>,
    /// `ExposedPorts`: what the image claims to listen on.
    pub exposed: BTreeSet<ExposedPort>,
    /// `Volumes`.
    pub volumes: BTreeSet<ImagePath>,
    /// `StopSignal` as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `Healthcheck` (Docker's extension).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, only where behavior depends on it and it is not a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A port the image claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ExposedPort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A health check that the Docker engine would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Healthcheck {
    /// The command, a shell already in front where it was given in shell form.
    pub argv: Vec<String>,
}
