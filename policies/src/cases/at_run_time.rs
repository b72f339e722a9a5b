//! Cases of rules of run time: this deviation, seen there, and that verdict.

use std::collections::BTreeSet;

use dna::{Activity, Deviation, Digest, Dna, Expectation};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{CaseResult, NOW, merge, plain_dna, plain_expectation};
use crate::{
    kinds::{Response, Severity},
    rules::Rules,
    runtime::{Seen, Verdict, Where},
};

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeCase {
    /// What it shows, in a sentence.
    pub name: String,
    /// The deviation: its class, and any of the rest.
    pub deviation: Map<String, Value>,
    /// Parts of the act.
    #[serde(default)]
    pub activity: Map<String, Value>,
    /// Where.
    #[serde(default)]
    pub place: CasePlace,
    /// Parts of the pod, as an object: `metadata`, `spec`.
    #[serde(default)]
    pub pod: Map<String, Value>,
    /// Parts of the image's DNA.
    #[serde(default)]
    pub dna: Map<String, Value>,
    /// Parts of what the container is bound to.
    #[serde(default)]
    pub expectation: Map<String, Value>,
    /// What is not known: `pod`, `dna`, `expectation`.
    #[serde(default)]
    pub unknown: BTreeSet<Part>,
    /// When the act was, RFC 3339.
    #[serde(default)]
    pub now: Option<String>,
    /// What must come of it.
    pub expect: RuntimeExpect,
}

/// Something that may not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// The pod.
    Pod,
    /// The image's DNA.
    Dna,
    /// What the container is bound to.
    Expectation,
}

/// Where a deviation was seen.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CasePlace {
    /// The cluster's name.
    pub cluster: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The workload.
    pub owner: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The image as the pod names it.
    pub image: String,
    /// The image's digest.
    pub digest: String,
}

impl Default for CasePlace {
    fn default() -> Self {
        let of = |text: &str| text.to_owned();
        Self {
            cluster: of("default"),
            namespace: of("default"),
            owner: of("Deployment/web"),
            pod: of("web-0"),
            container: of("web"),
            image: of("registry.example.com/web:1"),
            digest: Digest::sha256(b"web").to_string(),
        }
    }
}

/// What must come of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeExpect {
    /// It is ignored.
    #[serde(default)]
    pub ignored: bool,
    /// How grave rules say it is. Absent: any.
    #[serde(default)]
    pub severity: Option<Severity>,
    /// The only sinks that are told: exactly these. Absent: any.
    #[serde(default)]
    pub notify: Option<BTreeSet<String>>,
    /// What is done: exactly this. Absent: any.
    #[serde(default)]
    pub response: Option<Vec<Response>>,
    /// Rules that are about it: exactly these. Absent: any.
    #[serde(default)]
    pub rules: Option<BTreeSet<String>>,
    /// Rules that cannot be evaluated: exactly these.
    #[serde(default)]
    pub failed: BTreeSet<String>,
}

impl RuntimeCase {
    pub(super) fn run(&self, rules: &Rules) -> CaseResult {
        let name = self.name.clone();
        match self.decide(rules) {
            Err(why) => CaseResult { name, failures: vec![why], decision: None, verdict: None },
            Ok(verdict) => {
                CaseResult { name, failures: self.expect.failures(&verdict), decision: None, verdict: Some(verdict) }
            }
        }
    }

    fn decide(&self, rules: &Rules) -> Result<Verdict, String> {
        let place = &self.place;
        let digest = Digest::sha256(place.image.as_bytes());
        let now = self.now.as_deref().unwrap_or(NOW);
        let deviation: Deviation =
            laid("deviation", json!({"subject": "", "message": "", "risk": 0.5, "technique": ""}), &self.deviation)?;
        let activity = json!({"at": now, "sensor": "case", "container": {"name": place.container}, "process": {},
            "act": {"kind": "exec"}});
        let activity: Activity = laid("activity", activity, &self.activity)?;
        let dna: Dna = laid("dna", plain_dna(&digest), &self.dna)?;
        let expectation: Expectation = laid("expectation", plain_expectation(&digest), &self.expectation)?;
        let plain = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": place.pod, "namespace": place.namespace},
            "spec": {"containers": [{"name": place.container, "image": place.image}]}});
        let pod: Value = laid("pod", plain, &self.pod)?;
        let knows = |part: Part| !self.unknown.contains(&part);
        Ok(rules.runtime().decide(&Seen {
            deviation: &deviation,
            activity: &activity,
            place: Where {
                cluster: &place.cluster,
                namespace: &place.namespace,
                owner: &place.owner,
                pod: &place.pod,
                container: &place.container,
                image: &place.image,
                digest: &place.digest,
            },
            pod: &|| knows(Part::Pod).then(|| pod.clone()),
            dna: &|| knows(Part::Dna).then(|| dna.clone()),
            expectation: &|| knows(Part::Expectation).then(|| expectation.clone()),
        }))
    }
}

/// A value of what is plain, and of what a case says of it.
fn laid<T: DeserializeOwned>(what: &str, mut plain: Value, over: &Map<String, Value>) -> Result<T, String> {
    merge(&mut plain, &Value::Object(over.clone()));
    serde_json::from_value(plain).map_err(|error| format!("{what}: {error}"))
}

impl RuntimeExpect {
    fn failures(&self, verdict: &Verdict) -> Vec<String> {
        let mut failures = Vec::new();
        let told = || verdict.rules.iter().map(|applied| applied.told()).collect::<Vec<_>>().join(" | ");
        let mut held = |what: &str, expected: String, found: String| {
            if expected != found {
                failures.push(format!("expected {what} {expected}, found {found}: {}", told()));
            }
        };
        held("ignored", self.ignored.to_string(), verdict.ignored.is_some().to_string());
        if let Some(severity) = self.severity {
            let found = verdict.severity.map_or("none", Severity::name);
            held("severity", severity.name().to_owned(), found.to_owned());
        }
        if let Some(notify) = &self.notify {
            held("notify", format!("{notify:?}"), format!("{:?}", verdict.notify.clone().unwrap_or_default()));
        }
        if let Some(response) = &self.response {
            let mut wanted: Vec<_> = response.iter().map(|one| (one.action, one.dry_run)).collect();
            wanted.sort_unstable();
            let found: Vec<_> = verdict.responses.iter().map(|one| (one.action, one.dry_run)).collect();
            held("response", format!("{wanted:?}"), format!("{found:?}"));
        }
        let named = |is_failed: bool| -> BTreeSet<String> {
            let named = verdict.rules.iter().filter(|applied| applied.failed == is_failed);
            named.map(|applied| applied.rule.rule.clone()).collect()
        };
        if let Some(rules) = &self.rules {
            held("rules", format!("{rules:?}"), format!("{:?}", named(false)));
        }
        held("failed", format!("{:?}", self.failed), format!("{:?}", named(true)));
        failures
    }
}
