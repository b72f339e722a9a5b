//! What people write: the kinds of group `mayfly.dev/v1alpha1`, in files or in a cluster.
//!
//! | kind | what it says | where |
//! | --- | --- | --- |
//! | [`ImageRule`](ImageRuleSpec) | what images of one namespace must be | namespaced |
//! | [`ClusterImageRule`](ImageRuleSpec) | the same, for all namespaces | cluster |
//! | [`RuntimeRule`](RuntimeRuleSpec) | what comes of deviations in one namespace | namespaced |
//! | [`ClusterRuntimeRule`](RuntimeRuleSpec) | the same, in all namespaces | cluster |
//! | [`RuleException`](RuleExceptionSpec) | which images need not, until when, and why | cluster |
//! | [`SignerTrust`](SignerTrustSpec) | a trust root by which certificates are judged | cluster |
//! | [`RegistryAccess`](RegistryAccessSpec) | how a registry is reached | cluster |
//!
//! Other products own kinds named `ClusterImagePolicy` and `ImagePolicy`; these names stay clear of them.

#[cfg(feature = "crd")]
mod crd;
mod exception;
mod registry;
mod rule;
mod runtime;
mod signer;
mod unknown;

#[cfg(feature = "crd")]
pub use crd::{crds, crds_yaml};
pub use exception::RuleExceptionSpec;
pub use registry::{Authentication, Limits, RegistryAccessSpec};
pub use rule::{
    Action, Condition, CustomPath, DnaFrom, Enforcement, ImageRuleSpec, Images, Match, MissingDna, NamespaceMatch,
    Require, RequireAttestation, RequireDna, RequireSignatures, Rollout, Scope, Tags, Templates, Validation, Variable,
};
pub use runtime::{Ignore, Response, ResponseAction, RuntimeMatch, RuntimeNamespaces, RuntimeRuleSpec, Severity, Then};
pub use signer::{Evidence, Identity, Key, Keyless, ObjectRef, Refresh, SignerSpec, SignerTrustSpec};
pub use unknown::{OnUnknown, UnknownAction};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The group and version of all kinds.
pub const API_VERSION: &str = "mayfly.dev/v1alpha1";

/// An object of one of the kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<S> {
    /// [`API_VERSION`].
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Name and namespace.
    pub metadata: Metadata,
    /// What it says.
    pub spec: S,
    /// What the cluster says of it; not read.
    #[serde(default, skip_serializing)]
    pub status: Option<Value>,
}

/// As much of an object's metadata as matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace, of kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
