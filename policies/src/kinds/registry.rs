//! `RegistryAccess`: how registries are reached. The webhook follows it; no rule reads it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::signer::ObjectRef;

/// How some registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryAccessSpec {
    /// Hosts with ports where they have one, as globs: `registry.example.com`, `*.example.com:5000`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 260)))]
    pub hosts: Vec<String>,
    /// Certificate authorities beside the system's, PEM in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<ObjectRef>,
    /// Spoken to without TLS. Only for a registry on the same machine or in a test.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
    /// Credentials that are tried, in this order. Empty: as the kubelet does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub authentication: Vec<Authentication>,
    /// A pull secret for [`Authentication::Secret`], `kubernetes.io/dockerconfigjson`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<ObjectRef>,
    /// Bounds on how much is asked.
    #[serde(default)]
    pub limits: Limits,
    /// Mirrors that are asked first, by digest only: `https://mirror.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    pub mirrors: Vec<String>,
}

/// A place credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Authentication {
    /// The pod's `imagePullSecrets`.
    PodSecrets,
    /// Its service account's.
    ServiceAccount,
    /// The cloud's identity of the webhook.
    Cloud,
    /// The secret named here.
    Secret,
    /// None.
    Anonymous,
}

/// Bounds on how much a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Requests a second.
    #[schemars(range(min = 1, max = 10_000))]
    pub requests_per_second: u32,
    /// Requests at once.
    #[schemars(range(min = 1, max = 1_000))]
    pub in_flight: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_per_second: 50, in_flight: 16 }
    }
}
