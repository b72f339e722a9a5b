//! Responses as the API gives them, and whoever asks it reads them.

use jiff::Timestamp;
use lineage::{ResponseRow, ResponseState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseList {
    /// The latest first.
    pub responses: Vec<ResponseView>,
    /// There may be more than are looked at.
    pub is_cut: bool,
}

/// What rules had done about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Response")]
pub struct ResponseView {
    /// Its name.
    pub id: String,
    /// The alert.
    pub alert: String,
    /// The cluster's name.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// `Isolate`, `DeletePod`, `ScaleToZero`, `QuarantineDigest`.
    pub action: String,
    /// The pod, the workload, or the digest.
    pub target: String,
    /// The rules that ask for it.
    pub rules: Vec<String>,
    /// What became of it.
    pub state: ResponseState,
    /// Why it is so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When it was asked for first.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// When its state changed last.
    #[schemars(with = "String")]
    pub changed_at: Timestamp,
    /// Who took it back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl From<ResponseRow> for ResponseView {
    fn from(row: ResponseRow) -> Self {
        Self {
            id: row.id,
            alert: row.alert,
            cluster: row.cluster,
            namespace: row.namespace,
            action: row.action,
            target: row.target,
            rules: row.rules.into_iter().collect(),
            state: row.state,
            note: row.note,
            at: row.at,
            changed_at: row.changed_at,
            actor: row.actor,
            reason: row.reason,
        }
    }
}
