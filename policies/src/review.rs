//! What a decision is about: a request, its objects, and what is known of each image.

use std::collections::BTreeMap;

use dna::SubjectFacts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request, and all that was gathered for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Review {
    /// Who asks for what.
    pub request: Request,
    /// The object as it would be.
    pub object: Value,
    /// As it was, of an update.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub old_object: Value,
    /// Its namespace. Without it every namespace's labels fit, and rules are in force.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub namespace_object: Value,
    /// Refusing would change nothing, as of a mirror pod: everything is only recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit_only: bool,
    /// What is known of each image, for each platform.
    pub subjects: Vec<SubjectFacts>,
}

/// Who asks for what, under the names that expressions know from ValidatingAdmissionPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The request's id.
    pub uid: String,
    /// The kind of the object.
    pub kind: GroupVersionKind,
    /// What is written to.
    pub resource: GroupVersionResource,
    /// `ephemeralcontainers` …; empty for the object itself.
    pub sub_resource: String,
    /// The object's name; may be empty where it is to be generated.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// `CREATE`, `UPDATE` …
    pub operation: String,
    /// Who asks.
    pub user_info: UserInfo,
    /// Nothing will come of it.
    pub dry_run: bool,
}

/// A kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupVersionKind {
    /// `apps`; empty of the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
}

/// A resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupVersionResource {
    /// `apps`; empty of the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `deployments`.
    pub resource: String,
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct UserInfo {
    /// The user's name.
    pub username: String,
    /// The user's id.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Review {
    /// Labels of the namespace.
    pub(crate) fn namespace_label(&self, name: &str) -> Option<&str> {
        self.namespace_object.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// Whether it is about a namespace that nobody could look up.
    pub(crate) fn is_namespace_unknown(&self) -> bool {
        !self.request.namespace.is_empty() && self.namespace_object.is_null()
    }

    /// Whether it is about a pod itself, not about a template.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.request.kind.group.is_empty() && self.request.kind.kind == "Pod"
    }
}
