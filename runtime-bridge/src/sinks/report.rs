//! The PolicyReport of a workload: its alerts as they are when it is written, whichever of them was news.
//!
//! One report for each workload, beside that of the webhook; it is updated, and removed where no alert is left. It is owned by the workload
//! where the API server tells that one's uid, and goes with it.

use std::collections::BTreeMap;

use lineage::AlertHead;
use policies::report::{self, Entry, Subject};
use serde_json::Value;

use super::{
    body::severity,
    text::{self, plain},
};
use crate::alert::{NOTIFY, Place};

/// Where a report stands, as paths of the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    /// Of the report.
    pub(super) report: String,
    /// Of the workload; none where its kind is not known.
    pub(super) workload: Option<String>,
}

/// Where the report of a workload stands; what is wrong with its names, which a sensor may have chosen.
pub(super) fn paths(place: &Place) -> Result<Paths, String> {
    let is_name = |text: &str| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        !text.is_empty() && text.len() <= report::MAX_NAME && text.bytes().all(is_letter) && !text.starts_with('.')
    };
    let (kind, name) = owner(place);
    if !is_name(&place.namespace) || place.namespace.contains('.') || !is_name(name) {
        return Err("its namespace or workload is no name of Kubernetes".to_owned());
    }
    let namespace = &place.namespace;
    let (group, plural) = match kind {
        "Deployment" => ("apis/apps/v1", "deployments"),
        "StatefulSet" => ("apis/apps/v1", "statefulsets"),
        "DaemonSet" => ("apis/apps/v1", "daemonsets"),
        "ReplicaSet" => ("apis/apps/v1", "replicasets"),
        "Job" => ("apis/batch/v1", "jobs"),
        "CronJob" => ("apis/batch/v1", "cronjobs"),
        "Pod" => ("api/v1", "pods"),
        _ => ("", ""),
    };
    let workload = (!group.is_empty()).then(|| format!("/{group}/namespaces/{namespace}/{plural}/{name}"));
    let report = report_name(place);
    if !is_name(&report) {
        return Err("its workload's kind is no name of Kubernetes".to_owned());
    }
    let reports = format!("/apis/wgpolicyk8s.io/v1alpha2/namespaces/{namespace}/policyreports");
    Ok(Paths { report: format!("{reports}/{report}"), workload })
}

/// The report of a workload with these alerts, the gravest first; none where there are none.
pub(super) fn report(place: &Place, uid: Option<&str>, alerts: &[AlertHead]) -> Option<String> {
    if alerts.is_empty() {
        return None;
    }
    let (kind, name) = owner(place);
    let api_version = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => "apps/v1",
        "Job" | "CronJob" => "batch/v1",
        _ => "v1",
    };
    let subject = Subject { namespace: &place.namespace, api_version, kind, name, uid };
    let entries: Vec<Entry> = alerts.iter().map(entry).collect();
    let report: Value = report::report(&report_name(place), subject, 0, &entries);
    Some(text::json(&report))
}

fn entry(alert: &AlertHead) -> Entry {
    let result = match alert.risk {
        _ if alert.is_suppressed => "skip",
        risk if risk >= NOTIFY => "fail",
        _ => "warn",
    };
    Entry {
        policy: "mayfly-runtime".to_owned(),
        rule: alert.class.clone(),
        result,
        message: plain(&alert.message, MAX_MESSAGE),
        severity: Some(severity(alert.risk).name()),
        seconds: Some(alert.last_seen.as_second()),
        properties: BTreeMap::from([
            ("alert", alert.id.clone()),
            ("container", plain(&alert.container, MAX_VALUE)),
            ("count", alert.count.to_string()),
            ("digest", plain(&alert.digest, MAX_VALUE)),
            ("state", alert.state.as_str().to_owned()),
            ("subject", plain(&alert.subject, MAX_VALUE)),
        ]),
    }
}

/// Another than the webhook's, which says what was decided.
fn report_name(place: &Place) -> String {
    let (kind, name) = owner(place);
    report::name("mayfly-runtime", kind, name)
}

fn owner(place: &Place) -> (&str, &str) {
    place.owner.split_once('/').unwrap_or(("Pod", &place.owner))
}

const MAX_MESSAGE: usize = 600;
const MAX_VALUE: usize = 100;
