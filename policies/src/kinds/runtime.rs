//! `RuntimeRule` and `ClusterRuntimeRule`: what comes of a step that a container was not expected to take.

use std::collections::BTreeMap;

use dna::Class;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::{Condition, Images, Variable};

/// What comes of deviations. A rule without `match`, `classes` and `when` is about all of them; it may not ignore.
///
/// A `RuntimeRule` is about its own namespace only. Where several rules are about one deviation: of severities the highest holds; sinks and
/// responses add up; it is ignored where any rule ignores it, but a `RuntimeRule` ignores nothing that a `ClusterRuntimeRule` gives a
/// severity, sinks or a response to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeRuleSpec {
    /// For people: what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Where. Empty: everywhere.
    #[serde(default, rename = "match")]
    pub matches: RuntimeMatch,
    /// What sort of deviations. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub classes: Vec<Class>,
    /// Values with names, for the expressions after them: `variables.NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub variables: Vec<Variable>,
    /// Expressions over `deviation`, `activity`, `place`, `pod`, `container`, `object`, `dna` and `expectation`: the rule is about a
    /// deviation where all of them are true. Where one cannot be evaluated, that is told, and the rule does nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub when: Vec<Condition>,
    /// What comes of it.
    pub then: Then,
}

/// Where deviations are: all of what is written must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeMatch {
    /// Which namespaces, by name; a `RuntimeRule` is for its own only.
    pub namespaces: RuntimeNamespaces,
    /// Globs over workloads: `Deployment/web`, `CronJob/**`. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 320)))]
    pub workloads: Vec<String>,
    /// Globs over names of containers. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub containers: Vec<String>,
    /// Labels that the pod has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 32))]
    pub pod_labels: BTreeMap<String, String>,
    /// Which images, as the pod names them.
    pub images: Images,
}

/// Which namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeNamespaces {
    /// Globs over names. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub names: Vec<String>,
    /// Globs over names that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub exclude: Vec<String>,
}

/// What comes of a deviation: at least one of these; `ignore` stands alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.severity) || has(self.ignore) || has(self.notify) || has(self.response)",
        "message": "say what comes of it: `severity`, `ignore`, `notify` or `response`"
    },
    {
        "rule": "!has(self.ignore) || !(has(self.severity) || has(self.notify) || has(self.response))",
        "message": "`ignore` stands alone: what is ignored is not told or answered"
    }
]))]
pub struct Then {
    /// How grave it is, in place of what was found: its risk is moved into that range, no further than needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// It is counted and kept, and nobody is told of it, until a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Ignore>,
    /// Names of the only sinks that are told, of those that the bridge has. `[]`: none is. Absent: all are, as they are set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub notify: Option<Vec<String>>,
    /// What is done about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub response: Vec<Response>,
}

/// That something is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ignore {
    /// When that ends, RFC 3339. Nothing is ignored for ever.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub until: String,
    /// Why, for those who read alerts: `INC-1234`.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// Something that is done about a deviation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    /// What.
    pub action: ResponseAction,
    /// It is only told what would be done; without a word about it, so it is.
    #[serde(default = "yes")]
    pub dry_run: bool,
}

const fn yes() -> bool {
    true
}

/// What can be done about a deviation, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ResponseAction {
    /// The pod is cut off by a NetworkPolicy.
    Isolate,
    /// The pod is deleted; whatever owns it makes another.
    DeletePod,
    /// What owns the pod is scaled to zero.
    ScaleToZero,
    /// The image's digest is admitted no more.
    QuarantineDigest,
}

/// How grave a deviation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Not told to anybody unless he asks for it: a risk below 0.5.
    Low,
    /// A risk from 0.5.
    Medium,
    /// A risk from 0.7.
    High,
    /// A risk from 0.9.
    Critical,
}

impl Severity {
    /// The lowest and the highest risk that is told so.
    #[must_use]
    pub const fn risks(self) -> (f64, f64) {
        match self {
            Self::Low => (0.0, 0.49),
            Self::Medium => (0.5, 0.69),
            Self::High => (0.7, 0.89),
            Self::Critical => (0.9, 1.0),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl ResponseAction {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolate => "Isolate",
            Self::DeletePod => "DeletePod",
            Self::ScaleToZero => "ScaleToZero",
            Self::QuarantineDigest => "QuarantineDigest",
        }
    }
}
