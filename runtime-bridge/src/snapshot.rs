//! What a workload really did against what was predicted of it, dimension by dimension.
//!
//! In: the predicted [`Behavior`], what the ledger has of the workload ([`UsedRow`]), its alerts. Out: a [`Snapshot`]. That something was
//! never used says as much as the time it was looked at, and only where a sensor tells of such acts at all (`isObserved`).

use std::collections::{BTreeMap, BTreeSet};

use dna::{Behavior, Completeness, Confidence, ImagePath, Known};
use jiff::Timestamp;
use lineage::{AlertHead, UsedRow, WorkloadRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Class,
    alert::State,
    expected::{glob, peer_name},
    stored,
    used::{Dimension, port_name},
};

/// A workload's container of one image, held against its prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The workload.
    #[serde(flatten)]
    pub workload: Workload,
    /// What it did, by dimension of behavior.
    pub dimensions: BTreeMap<String, View>,
}

/// A workload's container of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The workload, `Deployment/web`.
    pub owner: String,
    /// The container's name.
    pub container: String,
    /// The image's digest.
    pub digest: String,
    /// The DNA that it is compared with.
    pub dna: String,
    /// What the webhook bound it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expectation: Option<String>,
    /// Containers that were seen; those again that a bridge met anew after its own start.
    pub starts: u64,
    /// When the first was.
    #[schemars(with = "String")]
    pub first_seen: Timestamp,
    /// When anything was seen of it last, within an hour.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
}

/// One dimension of behavior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// How far the prediction was worked out.
    pub completeness: Completeness,
    /// Whether any act of this dimension was seen: else that something was never used says nothing.
    pub is_observed: bool,
    /// What was predicted and done.
    pub confirmed: Vec<Seen>,
    /// What was predicted and never seen.
    pub never_used: Vec<Predicted>,
    /// What was done and is not predicted, and nobody is alerted of.
    pub not_predicted: Vec<Seen>,
    /// What was done and is not predicted, as alerts tell it.
    pub alerts: Vec<Alerted>,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// What.
    pub item: String,
    /// How sure the prediction is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// When it was first seen.
    #[schemars(with = "String")]
    pub first_seen: Timestamp,
    /// When it was last seen, within an hour.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
}

/// Something that was predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Predicted {
    /// What.
    pub item: String,
    /// How sure the prediction is.
    pub confidence: Confidence,
}

/// An alert of a dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alerted {
    /// The alert's name.
    pub alert: String,
    /// Its class.
    pub class: String,
    /// What it is about.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What became of it.
    pub state: State,
    /// 0 to 1.
    pub risk: f64,
    /// How often.
    pub count: u64,
    /// When it was last seen.
    #[schemars(with = "String")]
    pub last_seen: Timestamp,
}

impl From<WorkloadRow> for Workload {
    fn from(row: WorkloadRow) -> Self {
        Self {
            id: row.id,
            cluster: row.cluster,
            namespace: row.namespace,
            owner: row.owner,
            container: row.container,
            digest: row.digest,
            dna: row.dna.to_string(),
            expectation: row.expectation.map(|name| name.to_string()),
            starts: row.starts,
            first_seen: row.first_seen,
            last_seen: row.last_seen,
        }
    }
}

/// Holds a workload against its prediction.
#[must_use]
pub fn snapshot(workload: WorkloadRow, behavior: &Behavior, used: &[UsedRow], alerts: &[AlertHead]) -> Snapshot {
    let view = |dimension: Dimension| {
        let (completeness, predicted) = predicted(behavior, dimension);
        let used: Vec<&UsedRow> = used.iter().filter(|row| row.dimension == dimension.name()).collect();
        let alerts: Vec<Alerted> =
            alerts.iter().filter(|head| of(&head.class) == Some(dimension)).map(alerted).collect();
        let seen = |row: &&UsedRow| Seen {
            item: row.item.clone(),
            confidence: predicted.get(&row.item).copied(),
            first_seen: row.first_seen,
            last_seen: row.last_seen,
        };
        let items: BTreeSet<&str> = used.iter().map(|row| row.item.as_str()).collect();
        let unused = predicted.iter().filter(|(item, _)| !items.contains(item.as_str()));
        let never_used =
            unused.map(|(item, confidence)| Predicted { item: item.clone(), confidence: *confidence }).collect();
        View {
            completeness,
            is_observed: !used.is_empty() || !alerts.is_empty(),
            // An item of a program that the container's own list lacks is predicted too.
            confirmed: used.iter().filter(|row| row.is_predicted).map(seen).collect(),
            never_used,
            not_predicted: used.iter().filter(|row| !row.is_predicted).map(seen).collect(),
            alerts,
        }
    };
    let dimensions =
        Dimension::ALL.into_iter().map(|dimension| (dimension.name().to_owned(), view(dimension))).collect();
    Snapshot { workload: workload.into(), dimensions }
}

fn alerted(head: &AlertHead) -> Alerted {
    Alerted {
        alert: head.id.clone(),
        class: head.class.clone(),
        subject: head.subject.clone(),
        message: head.message.clone(),
        state: stored::shown(head),
        risk: head.risk,
        count: head.count,
        last_seen: head.last_seen,
    }
}

/// The dimension that an alert's class is of.
fn of(class: &str) -> Option<Dimension> {
    let class = Class::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(class)).ok()?;
    Some(match class {
        Class::ProgramNotInImage | Class::ProgramNotReachable | Class::StepNotPredicted | Class::CommandFromOutside => {
            Dimension::Exec
        }
        Class::Listen => Dimension::Listen,
        Class::Connect => Dimension::Connect,
        Class::Write => Dimension::Write,
        Class::SensitiveRead => Dimension::Read,
        Class::Syscall => Dimension::Syscalls,
        Class::Identity | Class::Capability => Dimension::Capabilities,
        // They say nothing of acts.
        Class::BindingMismatch | Class::NoDna => return None,
    })
}

/// What is predicted in a dimension, by the names that [`crate::used`] gives, with the most that it is sure of each.
fn predicted(behavior: &Behavior, dimension: Dimension) -> (Completeness, BTreeMap<String, Confidence>) {
    fn all<T>(items: &[Known<T>], name: impl Fn(&T) -> String) -> BTreeMap<String, Confidence> {
        let mut all = BTreeMap::new();
        for known in items {
            let confidence = all.entry(name(&known.what)).or_insert(known.confidence);
            *confidence = (*confidence).max(known.confidence);
        }
        all
    }
    let path = |path: &ImagePath| path.to_string_lossy().into_owned();
    let completeness = &behavior.completeness;
    match dimension {
        Dimension::Exec => (completeness.exec.clone(), all(&behavior.exec, |exec| path(&exec.path))),
        Dimension::Listen => {
            (completeness.listen.clone(), all(&behavior.listen, |listen| port_name(listen.protocol, listen.port)))
        }
        Dimension::Connect => {
            (completeness.connect.clone(), all(&behavior.connect, |connect| peer_name(&connect.host, connect.port)))
        }
        Dimension::Write => (completeness.write.clone(), all(&behavior.write, |write| glob(&path(&write.path)))),
        Dimension::Read => (completeness.read.clone(), all(&behavior.read, |read| glob(&path(&read.path)))),
        Dimension::Syscalls => (completeness.syscalls.clone(), all(&behavior.syscalls, |call| call.name.clone())),
        Dimension::Capabilities => {
            (completeness.capabilities.clone(), all(&behavior.capabilities, |one| one.name.clone()))
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn behavior() -> Behavior {
        let partial = json!({"state": "partial", "reason": "a test"});
        let known = |mut value: serde_json::Value, confidence: &str| {
            value["confidence"] = confidence.into();
            value["evidence"] = json!([]);
            value
        };
        let json = json!({
            "exec": [known(json!({"path": "/usr/sbin/served"}), "certain"), known(json!({"path": "/usr/bin/helper"}), "possible")],
            "listen": [known(json!({"protocol": "tcp", "port": 80}), "certain")],
            "connect": [known(json!({"host": "db", "port": 5432, "protocol": "tcp"}), "likely")],
            "write": [known(json!({"path": "/tmp/s-XXXXXX"}), "likely")],
            "load": [], "syscalls": [], "capabilities": [], "read": [],
            "completeness": {"exec": partial, "listen": partial, "connect": partial, "write": partial, "read": partial,
                "syscalls": partial, "capabilities": partial, "load": partial},
        });
        serde_json::from_value(json).expect("a behavior")
    }

    #[test]
    fn what_was_done_is_held_against_what_was_predicted() {
        let at = Timestamp::UNIX_EPOCH;
        let workload = WorkloadRow {
            id: "w".to_owned(),
            cluster: "c".to_owned(),
            namespace: "shop".to_owned(),
            owner: "Deployment/web".to_owned(),
            container: "app".to_owned(),
            digest: "sha256:aa".to_owned(),
            dna: dna::Digest::sha256(b"dna"),
            expectation: None,
            starts: 3,
            first_seen: at,
            last_seen: at,
        };
        let used = |dimension: Dimension, item: &str, is_predicted| UsedRow {
            workload: "w".to_owned(),
            dimension: dimension.name().to_owned(),
            item: item.to_owned(),
            is_predicted,
            first_seen: at,
            last_seen: at,
        };
        let used = [
            used(Dimension::Exec, "/usr/sbin/served", true),
            used(Dimension::Write, "/tmp/s-*", true),
            used(Dimension::Write, "/srv/*", false),
            used(Dimension::Connect, "private:tcp/6379", false),
        ];
        let snapshot = snapshot(workload, &behavior(), &used, &[]);
        let told = |dimension: Dimension| {
            let view = &snapshot.dimensions[dimension.name()];
            let seen = |all: &[Seen]| all.iter().map(|seen| seen.item.clone()).collect::<Vec<_>>().join(" ");
            let unused = view.never_used.iter().map(|one| one.item.clone()).collect::<Vec<_>>().join(" ");
            (view.is_observed, seen(&view.confirmed), unused, seen(&view.not_predicted))
        };
        let of = |is_observed, confirmed: &str, unused: &str, strange: &str| {
            (is_observed, confirmed.to_owned(), unused.to_owned(), strange.to_owned())
        };
        assert_eq!(told(Dimension::Exec), of(true, "/usr/sbin/served", "/usr/bin/helper", ""));
        assert_eq!(told(Dimension::Write), of(true, "/tmp/s-*", "", "/srv/*"));
        assert_eq!(told(Dimension::Connect), of(true, "", "db:5432", "private:tcp/6379"));
        assert_eq!(told(Dimension::Listen), of(false, "", "tcp/80", ""));
    }

    #[test]
    fn a_class_is_known_by_its_name() {
        for (class, dimension) in [
            (Class::StepNotPredicted, Some(Dimension::Exec)),
            (Class::SensitiveRead, Some(Dimension::Read)),
            (Class::Identity, Some(Dimension::Capabilities)),
            (Class::NoDna, None),
        ] {
            assert_eq!(of(class.name()), dimension);
        }
        assert_eq!(of("of a later version"), None);
    }
}
