//! Who may sign: a rule's signers, and `SignerTrust`, the roots their certificates are judged by.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Somebody whose signature counts, under a name that the rest of the rule uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.keyless) != has(self.key)", "message": "a signer is known by `keyless` or by `key`"},
]))]
pub struct SignerSpec {
    /// Its name in this rule: `ci`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_-]*$"))]
    pub name: String,
    /// Known by a certificate that an identity provider's word is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyless: Option<Keyless>,
    /// Known by a public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// What must stand behind a signature.
    #[serde(default)]
    pub evidence: Evidence,
}

/// Known by a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keyless {
    /// The trust root: the name of a `SignerTrust`, or `public-good` or `github`, which come with the program.
    #[serde(default = "public_good")]
    #[schemars(length(max = 253))]
    pub trust: String,
    /// Who: any of these.
    #[schemars(length(min = 1, max = 32))]
    pub identities: Vec<Identity>,
}

fn public_good() -> String {
    "public-good".to_owned()
}

/// Whom a certificate must name. Of issuer and subject each, one way to say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.issuer) != has(self.issuerRegExp)", "message": "say `issuer` or `issuerRegExp`"},
    {"rule": "has(self.subject) != has(self.subjectRegExp)", "message": "say `subject` or `subjectRegExp`"},
]))]
pub struct Identity {
    /// The OpenID Connect issuer: `https://token.actions.githubusercontent.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub issuer: Option<String>,
    /// A regular expression that the whole issuer matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub issuer_reg_exp: Option<String>,
    /// The e-mail address or URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub subject: Option<String>,
    /// A regular expression that the whole subject matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub subject_reg_exp: Option<String>,
    /// Claims of the build service, equal to these, by Fulcio's names: `sourceRepositoryUri`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub claims: BTreeMap<String, String>,
}

/// Known by a public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.data), has(self.secretRef), has(self.configMapRef)].filter(x, x).size() == 1",
     "message": "say one of `data`, `secretRef`, `configMapRef`"},
]))]
pub struct Key {
    /// The key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub data: Option<String>,
    /// A Secret that holds it; of an `ImageRule` in its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
    /// A ConfigMap that holds it; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
    /// A trust root for timestamps and log entries: the name of a `SignerTrust`, `public-good` or `github`. A signature alone needs
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub trust: Option<String>,
}

/// An object, and which of its entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; of kinds without one the webhook's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The entry; the only one where it is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// What must stand behind a signature, from the weakest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Evidence {
    /// The signature alone: nobody else saw it. Only with a key.
    Signature,
    /// A time that an authority signed.
    Timestamp,
    /// An entry in a transparency log.
    #[default]
    Log,
}

/// A Sigstore trust root of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.trustedRoot) != has(self.configMapRef)", "message": "say `trustedRoot` or `configMapRef`"},
]))]
pub struct SignerTrustSpec {
    /// The root, as `cosign trusted-root create` writes it: JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub trusted_root: Option<String>,
    /// A ConfigMap that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
    /// Renewed from a TUF repository, in the background only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// How old it may become before nothing is judged by it any more: `2160h`. Absent: it does not age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_age: Option<String>,
}

/// Where a trust root is renewed from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refresh {
    /// The TUF repository: `https://tuf.example.com`.
    #[schemars(length(max = 512))]
    pub tuf: String,
    /// The `root.json` of it that trust begins with: JSON text.
    #[schemars(length(min = 2, max = 131_072))]
    pub root: String,
    /// How often: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub every: Option<String>,
}
