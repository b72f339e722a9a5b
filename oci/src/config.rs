//! The image config: JSON in, typed fields out. Source: OCI image specification, `config.md`, with Docker's `Healthcheck`
//! and `Shell`.

use std::collections::BTreeMap;

use dna::Digest;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// An image config, `application/vnd.oci.image.config.v1+json` or Docker's equivalent. Missing and `null` fields read as
/// empty; unknown ones are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// As `GOARCH`.
    #[serde(deserialize_with = "null_as_default")]
    pub architecture: String,
    /// As `GOOS`.
    #[serde(deserialize_with = "null_as_default")]
    pub os: String,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// How to run it.
    #[serde(deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// What the layers must unpack to.
    #[serde(deserialize_with = "null_as_default")]
    pub rootfs: RootfsIds,
    /// Build steps, oldest first.
    #[serde(deserialize_with = "null_as_default")]
    pub history: Vec<HistoryEntry>,
}

/// The execution parameters of an image config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `uid`, `user:group` …
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// Keys such as `80/tcp`.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=VALUE` each.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The command's fixed part.
    #[serde(deserialize_with = "words")]
    pub entrypoint: Vec<String>,
    /// The command's default arguments.
    #[serde(deserialize_with = "words")]
    pub cmd: Vec<String>,
    /// Keys are paths.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops a container.
    pub stop_signal: Option<String>,
    /// Docker's health check.
    pub healthcheck: Option<ConfigHealthcheck>,
    /// Docker's shell for commands in shell form.
    #[serde(deserialize_with = "null_as_default")]
    pub shell: Vec<String>,
    /// Windows: arguments are one escaped line.
    #[serde(deserialize_with = "null_as_default")]
    pub args_escaped: bool,
}

/// Docker's `Healthcheck`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigHealthcheck {
    /// `["NONE"]`, `["CMD", argv…]` or `["CMD-SHELL", line]`.
    #[serde(deserialize_with = "null_as_default")]
    pub test: Vec<String>,
}

/// `rootfs` of an image config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootfsIds {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// One build step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// The command.
    pub created_by: Option<String>,
    /// A remark of the tool.
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(deserialize_with = "null_as_default")]
    pub empty_layer: bool,
}

impl Config {
    /// The build step of each layer, by layer index: the history entries that made one, in order. Where the history does
    /// not fit the number of layers, `None` for all.
    pub fn build_steps(&self, layers: usize) -> Vec<Option<&str>> {
        let steps: Vec<_> = self.history.iter().filter(|entry| !entry.empty_layer).collect();
        if steps.len() != layers {
            return vec![None; layers];
        }
        steps.into_iter().map(|entry| entry.created_by.as_deref()).collect()
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A command in exec form (a list) or in the shell form old builders left behind (one string, run by `/bin/sh -c`).
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Exec(Vec<String>),
        Shell(String),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Form::Exec(words)) => words,
        Some(Form::Shell(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
    })
}
