//! Cases: this object, with these facts, and that decision. They stand in YAML beside rules.
//!
//! ```yaml
//! cases:
//! - name: a signed image is admitted
//!   pod: {containers: [{name: web, image: registry.example.com/web:1}]}
//!   images:
//!     web: {signedBy: [ci]}
//!   expect: {verdict: Allow}
//! ```
//!
//! Of rules of run time a case is a deviation, and what comes of it:
//!
//! ```yaml
//! runtime:
//! - name: a debug port is ignored until it is fixed
//!   deviation: {class: listen, subject: tcp/9000}
//!   place: {namespace: shop}
//!   expect: {ignored: true}
//! ```
//!
//! What is not written is the good case: the namespace enforces, every image is resolved and analyzed, and nothing is signed or
//! attested; of a deviation everything around it is known, and none of it is remarkable. Facts may be written out in their published JSON too: `images: {web: {signatures: {unknown: {cause: throttled, detail: ""}}}}`.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Digest, NamedImage, PodSpec, SubjectFacts};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

mod at_run_time;

pub use at_run_time::{CasePlace, Part, RuntimeCase, RuntimeExpect};

use crate::{
    decide::{ENFORCE_LABEL, decide},
    decision::{Decision, Effect, Verdict},
    review::{GroupVersionKind, Request, Review},
    rules::{Material, Rules, named},
    runtime,
};

/// A file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// Of rules about images.
    #[serde(default)]
    pub cases: Vec<Case>,
    /// Of rules of run time.
    #[serde(default)]
    pub runtime: Vec<RuntimeCase>,
}

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a sentence.
    pub name: String,
    /// The pod's specification.
    #[serde(default)]
    pub pod: Option<Value>,
    /// The whole object, in place of `pod`.
    #[serde(default)]
    pub object: Option<Value>,
    /// The object as it was, of an update.
    #[serde(default)]
    pub old_object: Option<Value>,
    /// The namespace's labels. Empty: it enforces all rules.
    #[serde(default)]
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// Parts of the request.
    #[serde(default)]
    pub request: Map<String, Value>,
    /// What is known of images, by the names of their containers or volumes.
    #[serde(default)]
    pub images: BTreeMap<String, CaseImage>,
    /// The time, RFC 3339.
    #[serde(default)]
    pub now: Option<String>,
    /// What must come of it.
    pub expect: Expect,
}

/// What is known of an image: short forms, and any of the facts in their JSON.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseImage {
    /// Names of signers, as a rule has them.
    #[serde(default)]
    pub signed_by: Vec<String>,
    /// Attestations.
    #[serde(default)]
    pub attested: Vec<CaseAttestation>,
    /// Findings: code, effect and subject each.
    #[serde(default)]
    pub findings: Vec<Map<String, Value>>,
    /// Parts of the expectation.
    #[serde(default)]
    pub expects: Map<String, Value>,
    /// Parts of what known images say of it.
    #[serde(default)]
    pub kin: Map<String, Value>,
    /// Facts as they are, in place of what the short forms give.
    #[serde(flatten)]
    pub facts: Map<String, Value>,
}

/// An attestation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseAttestation {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name of a signer.
    pub by: String,
    /// When, RFC 3339.
    #[serde(default)]
    pub time: Option<String>,
    /// What it says.
    #[serde(default)]
    pub predicate: Value,
}

/// What must come of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The verdict.
    pub verdict: Verdict,
    /// Codes, or names of checks, of all that denies or warns: exactly these. Absent: any.
    #[serde(default)]
    pub reasons: Option<BTreeSet<String>>,
    /// What the message says somewhere.
    #[serde(default)]
    pub message: Option<String>,
}

/// What came of a case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    /// The case.
    pub name: String,
    /// What is not as expected; empty where all is.
    pub failures: Vec<String>,
    /// The decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What comes of a deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<runtime::Verdict>,
}

/// Reads cases and runs them.
///
/// # Errors
/// Where the text is no cases: which line.
pub fn run(rules: &Rules, text: &str) -> Result<Vec<CaseResult>, CaseError> {
    let cases: Cases = serde_yaml_ng::from_str(text).map_err(|error| CaseError(error.to_string()))?;
    let images = cases.cases.iter().map(|case| result(rules, case));
    Ok(images.chain(cases.runtime.iter().map(|case| case.run(rules))).collect())
}

/// Cases that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CaseError(String);

fn result(rules: &Rules, case: &Case) -> CaseResult {
    let name = case.name.clone();
    let prepared = review(rules, case).and_then(|review| {
        let now = case.now.as_deref().unwrap_or(NOW);
        Ok((review, now.parse::<Timestamp>().map_err(|error| format!("now: {error}"))?))
    });
    match prepared {
        Err(why) => CaseResult { name, failures: vec![why], decision: None, verdict: None },
        Ok((review, now)) => {
            let decision = decide(&review, rules, now);
            CaseResult { name, failures: failures(&case.expect, &decision), decision: Some(decision), verdict: None }
        }
    }
}

fn failures(expect: &Expect, decision: &Decision) -> Vec<String> {
    let mut failures = Vec::new();
    let told =
        || decision.reasons.iter().map(|reason| format!("{:?} {}", reason.effect, reason.text())).collect::<Vec<_>>();
    if decision.verdict != expect.verdict {
        failures.push(format!("expected {:?}, decided {:?}: {}", expect.verdict, decision.verdict, told().join(" | ")));
    }
    if let Some(expected) = &expect.reasons {
        let told_of = decision.reasons.iter().filter(|reason| reason.effect != Effect::Audit);
        let found: BTreeSet<_> = told_of
            .map(|reason| match &reason.check {
                Some(check) if expected.contains(check) => check.clone(),
                _ => reason.code.clone(),
            })
            .collect();
        if found != *expected {
            failures.push(format!("expected reasons {expected:?}, found {found:?}: {}", told().join(" | ")));
        }
    }
    if let Some(part) = &expect.message
        && !decision.message().contains(part)
        && !decision.warnings().iter().any(|warning| warning.contains(part))
    {
        failures.push(format!("expected `{part}` in the message: {}", decision.message()));
    }
    failures
}

/// The review of a case.
///
/// # Errors
/// What is wrong with the case.
pub fn review(rules: &Rules, case: &Case) -> Result<Review, String> {
    let object = match (&case.object, &case.pod) {
        (Some(object), None) => object.clone(),
        (None, Some(pod)) => json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}),
        _ => return Err("write `pod` or `object`".to_owned()),
    };
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
    let kind = GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: text("kind").to_owned() };
    let mut request = json!({"operation": if case.old_object.is_some() { "UPDATE" } else { "CREATE" }, "namespace": "default", "kind": kind});
    merge(&mut request, &Value::Object(case.request.clone()));
    let request: Request = serde_json::from_value(request).map_err(|error| format!("request: {error}"))?;
    let enforced = || BTreeMap::from([(ENFORCE_LABEL.to_owned(), "true".to_owned())]);
    let labels = case.namespace_labels.clone().unwrap_or_else(enforced);
    let namespace_object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": request.namespace, "labels": labels}});
    let pod = rules.pod_spec(&request.kind, &object).and_then(|pod| PodSpec::read(pod).ok());
    let mut subjects = Vec::new();
    let mut left: BTreeSet<&String> = case.images.keys().collect();
    for used in pod.iter().flat_map(PodSpec::images) {
        left.remove(&used.name);
        let given = case.images.get(&used.name).cloned().unwrap_or_default();
        subjects.push(subject(rules, &named(used), &given)?);
    }
    if let Some(name) = left.first() {
        return Err(format!("images: there is no container or volume `{name}` with an image"));
    }
    let old_object = case.old_object.clone().unwrap_or_default();
    Ok(Review { request, object, old_object, namespace_object, audit_only: false, subjects })
}

fn subject(rules: &Rules, image: &NamedImage, given: &CaseImage) -> Result<SubjectFacts, String> {
    let digest = image.digest.clone().unwrap_or_else(|| Digest::sha256(image.used.reference.as_bytes()));
    let accepted = rules.signers(&Material::default());
    let names: BTreeMap<&str, &str> = rules
        .rules
        .iter()
        .flat_map(|rule| &rule.signers)
        .map(|signer| (signer.name.as_str(), signer.id.as_str()))
        .collect();
    let id = |name: &String| names.get(name.as_str()).copied().ok_or(format!("no rule has a signer `{name}`"));
    let voucher = |by: &String, time: &Option<String>| {
        Ok::<_, String>(json!({"signer": id(by)?, "times": time.as_ref().map_or_else(|| vec![NOW], |time| vec![time]),
            "evidence": "log", "about": digest, "format": "bundle", "place": "referrersApi", "carrier": Digest::sha256(b"")}))
    };
    let signatures = given.signed_by.iter().map(|by| voucher(by, &None)).collect::<Result<Vec<_>, _>>()?;
    let mut attestations = Vec::new();
    for attestation in &given.attested {
        let mut stated = voucher(&attestation.by, &attestation.time)?;
        merge(&mut stated, &json!({"predicateType": attestation.kind, "predicate": attestation.predicate}));
        attestations.push(stated);
    }
    let list = |list: Vec<Value>| {
        if list.is_empty() { json!({"absent": {"tried": ["referrers API"]}}) } else { json!({"known": list}) }
    };
    let findings = given.findings.iter().map(|finding| {
        let mut whole = json!({"subject": "", "effect": "none", "certainty": "certain", "message": ""});
        merge(&mut whole, &Value::Object(finding.clone()));
        whole
    });
    let mut expectation = plain_expectation(&digest);
    merge(&mut expectation, &Value::Object(given.expects.clone()));
    merge(&mut expectation, &json!({"findings": findings.collect::<Vec<_>>()}));
    let mut kinship = plain_kinship();
    merge(&mut kinship, &Value::Object(given.kin.clone()));
    let config = json!({"user": "", "entrypoint": [], "cmd": [], "labels": {}});
    let document = plain_dna(&digest);
    let mut facts = json!({
        "image": image,
        "resolved": {"known": {"digest": digest, "platformDigest": digest, "platform": "linux/amd64", "config": config}},
        "signers": accepted.keys().collect::<Vec<_>>(),
        "signatures": list(signatures),
        "attestations": list(attestations),
        "dna": {"known": {"digest": digest, "from": {"kind": "analyzed"}, "document": document}},
        "kinship": {"known": kinship},
        "expectation": {"known": expectation},
    });
    // A fact that is written out replaces what is made here.
    if let Value::Object(made) = &mut facts {
        made.extend(given.facts.clone());
    }
    serde_json::from_value(facts).map_err(|error| format!("image `{}`: {error}", image.used.name))
}

fn plain_expectation(dna: &Digest) -> Value {
    json!({"dna": dna, "argv": [], "granted": [], "privileged": false, "noNewPrivileges": false,
        "host": dna::HostNamespaces::default(), "readOnlyRoot": false, "writable": [], "behavior": complete(), "findings": []})
}

/// Of an image that is as others of its software are.
fn plain_kinship() -> Value {
    json!({"members": [], "isKnown": true, "nearest": [], "unlike": [], "weight": 0.0, "isUnlike": false, "borrowed": [],
        "summary": "It is as known builds are."})
}

fn plain_dna(digest: &Digest) -> Value {
    json!({"schema": dna::SCHEMA, "analyzer": {"name": "mayfly", "version": "0", "rules": digest},
        "image": {"platform": "linux/amd64"}, "layers": [], "start": {}, "programs": [],
        "accounts": dna::Accounts::default(), "folders": [], "behavior": complete(), "unknowns": []})
}

/// A behavior that does nothing, and is known to.
fn complete() -> Value {
    let dimensions = ["exec", "load", "syscalls", "capabilities", "listen", "connect", "write", "read"];
    let complete: Map<String, Value> =
        dimensions.into_iter().map(|name| (name.to_owned(), json!({"state": "complete"}))).collect();
    let mut behavior: Map<String, Value> = dimensions.into_iter().map(|name| (name.to_owned(), json!([]))).collect();
    behavior.insert("completeness".to_owned(), Value::Object(complete));
    Value::Object(behavior)
}

/// Lays one JSON over another: objects field by field.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// The time of cases that name none.
const NOW: &str = "2026-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load, shipped};

    #[test]
    fn shipped_rules_decide_their_cases() {
        let cases = [
            include_str!("../rules/tests/baseline.yaml"),
            include_str!("../rules/tests/restricted.yaml"),
            include_str!("../rules/tests/supply-chain.yaml"),
            include_str!("../rules/tests/audit.yaml"),
        ];
        for ((name, rules), cases) in shipped().into_iter().zip(cases) {
            let rules = load([(name, rules)]).unwrap_or_else(|errors| panic!("{errors:#?}"));
            let results = run(&rules, cases).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(results.len() > 1, "{name} has cases");
            let failed: Vec<_> = results.iter().filter(|result| !result.failures.is_empty()).collect();
            let told: Vec<_> =
                failed.iter().map(|result| format!("{}: {}", result.name, result.failures.join("\n  "))).collect();
            assert!(told.is_empty(), "{name}:\n{}", told.join("\n"));
        }
    }

    #[test]
    fn shipped_rules_can_be_in_force_together() {
        let rules = load(shipped()).unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert_eq!(rules.len(), 4);
    }

    #[test]
    fn a_case_that_does_not_come_out_as_expected_fails() {
        let rules = load([("baseline", shipped()[0].1)]).expect("rules");
        let run = |text: &str| run(&rules, text).expect("cases").remove(0).failures;
        let pod = "pod: {containers: [{name: a, image: nginx, securityContext: {privileged: true}}]}";
        let case = |expect: &str| format!("cases: [{{name: x, {pod}, expect: {expect}}}]");
        assert_eq!(run(&case("{verdict: Deny, reasons: [PRIVILEGED]}")), Vec::<String>::new());
        assert_eq!(run(&case("{verdict: Allow}")).len(), 1);
        assert_eq!(run(&case("{verdict: Deny, reasons: []}")).len(), 1);
        assert_eq!(run(&case("{verdict: Deny, message: elsewhere}")).len(), 1);
        assert!(super::run(&rules, "cases: [{nam: x}]").is_err());
    }
}
