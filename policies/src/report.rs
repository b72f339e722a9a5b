//! A PolicyReport: what is wrong with a workload, in the form that other tools show and count.
//!
//! Source: Kubernetes Policy WG, `wgpolicyk8s.io/v1alpha2`. One report for each workload, owned by it, so that it goes when the workload does;
//! small, as the API server's store holds all of them.

use std::collections::BTreeMap;

use dna::Digest;
use serde_json::{Map, Value, json};

/// The object that a report is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its namespace, which is the report's.
    pub namespace: &'a str,
    /// Its version, `apps/v1`.
    pub api_version: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid; without it, the report is nobody's.
    pub uid: Option<&'a str>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// The rule's name, or what stands for it.
    pub policy: String,
    /// What of the rule.
    pub rule: String,
    /// `error`, `fail`, `warn` or `skip`.
    pub result: &'static str,
    /// For people.
    pub message: String,
    /// `critical`, `high`, `medium` or `low`, where that is known.
    pub severity: Option<&'static str>,
    /// Seconds since 1970, where that is known.
    pub seconds: Option<i64>,
    /// What else is to be known.
    pub properties: BTreeMap<&'static str, String>,
}

/// The report of a subject, of that name: the first of `entries` in full, all of them counted.
#[must_use]
pub fn report(name: &str, subject: Subject<'_>, pass: usize, entries: &[Entry]) -> Value {
    let mut counts: BTreeMap<&str, usize> = ["error", "fail", "pass", "skip", "warn"].map(|word| (word, 0)).into();
    counts.insert("pass", pass);
    for entry in entries {
        *counts.entry(entry.result).or_default() += 1;
    }
    let Subject { namespace, api_version, kind, name: of, uid } = subject;
    let mut results: Vec<Value> = entries.iter().take(MAX_RESULTS).map(result).collect();
    let mut metadata = json!({
        "name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "mayfly"},
    });
    let mut scope = json!({"apiVersion": api_version, "kind": kind, "name": of, "namespace": namespace});
    if let Some(uid) = uid {
        let owner = json!([{"apiVersion": api_version, "kind": kind, "name": of, "uid": uid}]);
        put(&mut metadata, "ownerReferences", owner);
        put(&mut scope, "uid", uid.into());
    }
    let mut report = json!({
        "apiVersion": "wgpolicyk8s.io/v1alpha2",
        "kind": "PolicyReport",
        "metadata": metadata,
        "scope": scope,
        "summary": counts,
        "results": results,
    });
    // Names in Kubernetes are at most 253 characters: without results it fits.
    while report.to_string().len() > MAX_BYTES && results.pop().is_some() {
        put(&mut report, "results", results.clone().into());
    }
    report
}

/// A report's name: of what it begins with and its subject's kind and name, cut and made unique where that is too long.
#[must_use]
pub fn name(beginning: &str, kind: &str, name: &str) -> String {
    let full = format!("{beginning}-{}-{name}", kind.to_lowercase());
    match full.char_indices().nth(MAX_NAME) {
        None => full,
        Some((end, _)) => {
            let hash: String = Digest::sha256(full.as_bytes()).hex().chars().take(8).collect();
            let start = full.get(..end.saturating_sub(9)).unwrap_or(beginning).trim_end_matches(['-', '.']);
            format!("{start}-{hash}")
        }
    }
}

fn result(entry: &Entry) -> Value {
    let clean = |text: &str, most: usize| -> String {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
    };
    let properties: Map<String, Value> = entry
        .properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), clean(value, MAX_PROPERTY_CHARS).into()))
        .collect();
    let mut result = json!({
        "source": "mayfly", "policy": clean(&entry.policy, 120), "rule": clean(&entry.rule, 60),
        "result": entry.result, "scored": true, "message": clean(&entry.message, MAX_MESSAGE_CHARS),
        "properties": properties,
    });
    if let Some(severity) = entry.severity {
        put(&mut result, "severity", severity.into());
    }
    if let Some(seconds) = entry.seconds {
        put(&mut result, "timestamp", json!({"seconds": seconds, "nanos": 0}));
    }
    result
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// Of a report, as JSON.
pub const MAX_BYTES: usize = 2 << 10;
/// Results in full.
pub const MAX_RESULTS: usize = 10;
const MAX_MESSAGE_CHARS: usize = 240;
const MAX_PROPERTY_CHARS: usize = 100;
/// A name's limit in Kubernetes.
pub const MAX_NAME: usize = 253;
