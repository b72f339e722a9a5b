//! `ImageRule` and `ClusterImageRule`: what images must be, and what happens where they are not.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{signer::SignerSpec, unknown::OnUnknown};

/// What images must be. All rules that match must pass; a rule that says nothing about which is for all of them.
///
/// A fresh install only audits: what a rule denies is told and recorded, and admitted all the same, until the namespace carries the
/// label `mayfly.dev/enforce` (its value `true`, or the names of the rules, joined by `.`) or the rule says
/// `enforcement: Always`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageRuleSpec {
    /// For people: what it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What it is about. Empty: all images of all namespaces.
    #[serde(rename = "match")]
    pub matches: Match,
    /// What happens to templates of pods: in a Deployment, Job and the like. Pods always follow `actions`.
    pub templates: Templates,
    /// How images may be named.
    pub tags: Tags,
    /// Which platforms of an image are judged: `linux/amd64`. Empty: all that the pod can land on. `*`: all that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub platforms: Vec<String>,
    /// Whose signatures and attestations count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub signers: Vec<SignerSpec>,
    /// What there must be of each image.
    pub require: Require,
    /// Values with names, for the expressions after them: `variables.NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub variables: Vec<Variable>,
    /// What must hold of each image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub validations: Vec<Validation>,
    /// What happens where something is not as it must be.
    #[serde(default = "deny", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub actions: Vec<Action>,
    /// Where `Deny` is more than told.
    pub enforcement: Enforcement,
    /// What happens where nobody can say whether it is as it must be.
    pub on_unknown: OnUnknown,
    /// How it comes into force.
    pub rollout: Rollout,
}

fn deny() -> Vec<Action> {
    vec![Action::Deny]
}

/// What a rule is about: all of what is written must fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Which namespaces; an `ImageRule` is for its own only.
    pub namespaces: NamespaceMatch,
    /// Kinds that hold pods. Empty: all of Pod, Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, ReplicationController,
    /// and those of `customPaths`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub workloads: Vec<String>,
    /// Where other kinds hold a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub custom_paths: Vec<CustomPath>,
    /// Which images.
    pub images: Images,
    /// Expressions over `object`, `oldObject`, `request` and `namespaceObject`; where one is false the rule does not apply. They are
    /// evaluated before anything is looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Which namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceMatch {
    /// Globs over names. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub names: Vec<String>,
    /// Globs over names that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub exclude: Vec<String>,
    /// Labels that they have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub match_labels: BTreeMap<String, String>,
}

/// Where a kind that is not Kubernetes' own holds a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomPath {
    /// `argoproj.io/v1alpha1`.
    #[schemars(length(max = 253))]
    pub api_version: String,
    /// `Rollout`.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// The field that holds the pod's template, joined by dots: `spec.template`.
    #[schemars(length(max = 253))]
    pub pod_template: String,
}

/// Which images, as anchored globs over the normalized name without digest: `registry.example.com/team/**`,
/// `docker.io/library/nginx:1.*`. `*` stays within a path component, `**` does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// Those that are meant. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 512)))]
    pub include: Vec<String>,
    /// Those that are not, of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 512)))]
    pub exclude: Vec<String>,
}

/// An expression that says whether a rule applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// CEL that gives true or false.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
}

/// What happens to templates of pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Templates {
    /// They are not looked at; their pods are.
    Off,
    /// What denies a pod warns of a template.
    #[default]
    Warn,
    /// As pods.
    Enforce,
}

/// How images may be named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Tags {
    /// By digest only.
    RequireDigest,
    /// By tag too: what the tag leads to now is recorded for the pod, and compared with what runs.
    #[default]
    AllowAndBind,
}

/// What there must be of each image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Require {
    /// Signatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<RequireSignatures>,
    /// Attestations, each by a name that expressions use: `attestations.NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub attestations: Vec<RequireAttestation>,
    /// A DNA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dna: Option<RequireDna>,
}

/// Signatures that there must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequireSignatures {
    /// Names of signers.
    #[schemars(length(min = 1, max = 16))]
    pub any_of: Vec<String>,
    /// How many different ones.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub threshold: u32,
}

fn one() -> u32 {
    1
}

/// An attestation that there must, or may, be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequireAttestation {
    /// What expressions call it: `prov`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub name: String,
    /// The kind of statement, a URI: `https://slsa.dev/provenance/v1`.
    #[schemars(length(min = 1, max = 512))]
    pub predicate_type: String,
    /// Names of signers, any of which may state it.
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<String>,
    /// How old the newest may be, by a time that somebody signed: `2160h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_age: Option<String>,
    /// It may be missing: expressions ask `has(attestations.NAME)`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A DNA that there must be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RequireDna {
    /// Whose word counts. Empty: analyzed here or kept from before, and attested where `signers` are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub from: Vec<DnaFrom>,
    /// Names of signers whose word about what an image does counts. None: nobody's does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub signers: Vec<String>,
    /// What happens while there is none.
    pub on_missing: MissingDna,
}

/// Where a DNA may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DnaFrom {
    /// A signer states it.
    Attested,
    /// It was worked out here before.
    Ledger,
    /// It is worked out here now.
    Analyzed,
}

/// What happens while there is no DNA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MissingDna {
    /// As where a check fails.
    Deny,
    /// The same, and controllers are told when to try again.
    #[default]
    DenyRetry,
    /// A warning.
    Warn,
}

/// A value with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub name: String,
    /// CEL.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
}

/// Something that must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Validation {
    /// Its name, for messages and exceptions.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// CEL that gives true where all is well.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
    /// What people are told where it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// CEL that gives that text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message_expression: Option<String>,
    /// A stable code in place of `CHECK_FAILED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[A-Z][A-Z0-9_]*$"))]
    pub reason: Option<String>,
    /// In place of the rule's `actions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub actions: Vec<Action>,
    /// What it is about.
    #[serde(default)]
    pub scope: Scope,
}

/// What a validation is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Each image that matches, for each platform. One that reads `container`, `expectation` or `findings` is not about image
    /// volumes: nothing of them is started.
    #[default]
    Image,
    /// The pod, once: it reads nothing of images.
    Pod,
}

/// What happens where something is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// It is only recorded.
    Audit,
    /// The user is warned.
    Warn,
    /// It is refused, where that is in force; else recorded.
    Deny,
}

/// Where `Deny` is more than told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// In namespaces with the label `mayfly.dev/enforce`.
    #[default]
    Namespaces,
    /// Everywhere.
    Always,
}

/// How a rule comes into force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// Until then it only audits, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub audit_until: Option<String>,
}
