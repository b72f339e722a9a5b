//! What was decided of a workload that runs, as a PolicyReport beside it: other tools show and count these.
//!
//! [`policies::report`] has the form.

use std::collections::{BTreeMap, BTreeSet};

use dna::Digest;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use policies::{
    Decision, Effect, Reason,
    report::{self, Entry, Subject},
};
use serde_json::Value;

use super::running::Workload;

/// The report of a workload, whose pods were decided on one by one.
pub(super) fn report(workload: &Workload, decisions: &[Decision]) -> Value {
    let reasons: BTreeSet<&Reason> = decisions.iter().flat_map(|decision| &decision.reasons).collect();
    let asked: BTreeSet<&str> =
        decisions.iter().flat_map(|decision| &decision.rules).map(|rule| rule.rule.as_str()).collect();
    let complained: BTreeSet<&str> = reasons.iter().map(|reason| reason.rule.as_str()).collect();
    // The gravest first, as reasons are sorted.
    let entries: Vec<Entry> = reasons.iter().map(|reason| entry(reason)).collect();
    let subject = Subject {
        namespace: &workload.namespace,
        api_version: &workload.api_version,
        kind: &workload.kind,
        name: &workload.name,
        uid: Some(&workload.uid),
    };
    report::report(&name(workload), subject, asked.difference(&complained).count(), &entries)
}

/// The report's name: of its workload's kind and name.
fn name(workload: &Workload) -> String {
    report::name("mayfly", &workload.kind, &workload.name)
}

fn entry(reason: &Reason) -> Entry {
    let mut properties = BTreeMap::from([("effect", format!("{:?}", reason.effect))]);
    if let Some(image) = &reason.image {
        properties.insert("container", image.name.clone());
        properties.extend(image.digest.as_ref().map(|digest| ("digest", digest.to_string())));
    }
    Entry {
        policy: reason.rule.clone(),
        rule: reason.code.clone(),
        // What is only recorded is a failure too: a report is where it is seen.
        result: match (&reason.unknown, reason.effect) {
            (Some(_), _) => "error",
            (None, Effect::Deny | Effect::Audit) => "fail",
            (None, Effect::Warn) => "warn",
        },
        message: reason.text(),
        properties,
        ..Entry::default()
    }
}

/// Where reports are written.
pub(super) struct Reports {
    client: Client,
    /// Whether the cluster has such objects, as far as it was asked.
    is_there: Option<bool>,
    /// What each report was written as.
    written: BTreeMap<String, Digest>,
    told: String,
}

impl Reports {
    pub(super) fn new(client: Client) -> Self {
        Self { client, is_there: None, written: BTreeMap::new(), told: String::new() }
    }

    /// Looks whether the cluster has such objects.
    pub(super) async fn discover(&mut self) {
        let is_there = match self.client.list_api_group_resources("wgpolicyk8s.io/v1alpha2").await {
            Ok(list) => list.resources.iter().any(|resource| resource.kind == "PolicyReport"),
            Err(kube::Error::Api(status)) if status.is_not_found() => false,
            Err(error) => return tracing::debug!(%error, "whether there are PolicyReports is not known"),
        };
        if self.is_there != Some(is_there) {
            match is_there {
                true => tracing::info!("what is decided of running workloads is written to PolicyReports"),
                false => tracing::info!("the cluster has no PolicyReports (wgpolicyk8s.io/v1alpha2): none are written"),
            }
        }
        if !is_there {
            self.written.clear();
        }
        self.is_there = Some(is_there);
        metrics::gauge!("mayfly_policy_reports_available").set(f64::from(u8::from(is_there)));
    }

    /// Writes a report where it says something new. Whether it stands as it should.
    pub(super) async fn write(&mut self, report: &Value) -> bool {
        if self.is_there != Some(true) {
            return false;
        }
        let text = |pointer: &str| report.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let (key, digest) = (format!("{namespace}/{name}"), Digest::sha256(report.to_string().as_bytes()));
        if self.written.get(&key) == Some(&digest) {
            return true;
        }
        let api = self.api(&namespace);
        match api.patch(&name, &PatchParams::apply("mayfly").force(), &Patch::Apply(report)).await {
            Ok(_) => {
                metrics::counter!("mayfly_policy_reports_written_total").increment(1);
                self.written.insert(key, digest);
                self.told.clear();
                true
            }
            // What runs there goes too.
            Err(error) if is_of_the_end(&error) => false,
            Err(error) => {
                metrics::counter!("mayfly_policy_reports_failed_total").increment(1);
                // Of one sort of refusal once: its words name the report.
                let sort = match &error {
                    kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
                    error => error.to_string(),
                };
                if self.told != sort {
                    tracing::warn!(%error, namespace, report = name, "a PolicyReport cannot be written");
                }
                self.told = sort;
                false
            }
        }
    }

    /// Whether a report of this workload was written.
    pub(super) fn is_written(&self, workload: &Workload) -> bool {
        self.written.contains_key(&format!("{}/{}", workload.namespace, name(workload)))
    }

    /// Removes the report of a workload of which nothing runs any more.
    pub(super) async fn remove(&mut self, workload: &Workload) {
        let key = format!("{}/{}", workload.namespace, name(workload));
        if self.written.remove(&key).is_none() {
            return;
        }
        let removed = self.api(&workload.namespace).delete(&name(workload), &DeleteParams::default()).await;
        match removed {
            Ok(_) => {}
            // With its owner.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => tracing::debug!(%error, report = key, "a PolicyReport of what no longer runs stays"),
        }
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("wgpolicyk8s.io", "v1alpha2", "PolicyReport"));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Forgets the reports of workloads that are gone.
    pub(super) fn keep(&mut self, workloads: &BTreeSet<Workload>) {
        let names: BTreeSet<String> =
            workloads.iter().map(|workload| format!("{}/{}", workload.namespace, name(workload))).collect();
        self.written.retain(|key, _| names.contains(key));
    }
}

/// Whether a namespace that ends takes no more.
fn is_of_the_end(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use policies::report::{MAX_BYTES, MAX_NAME};
    use serde_json::json;

    use policies::{RuleVersion, Verdict};

    use super::*;
    use crate::worker::fake::Fake;

    fn workload(name: &str) -> Workload {
        Workload {
            namespace: "shop".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
            uid: "d-1".to_owned(),
        }
    }

    fn reason(effect: Effect, code: &str, found: &str) -> Reason {
        Reason {
            effect,
            rule: "baseline".to_owned(),
            check: None,
            code: code.to_owned(),
            image: None,
            expected: String::new(),
            found: found.to_owned(),
            tried: Vec::new(),
            remedy: String::new(),
            unknown: None,
        }
    }

    fn decision(reasons: Vec<Reason>) -> Decision {
        let rule = |name: &str| RuleVersion { rule: name.to_owned(), version: Digest::sha256(name.as_bytes()) };
        Decision {
            verdict: Verdict::Deny,
            reasons,
            unknown: Vec::new(),
            exceptions: Vec::new(),
            rules: vec![rule("baseline"), rule("restricted")],
            retry_seconds: None,
        }
    }

    #[test]
    fn a_report_counts_and_names_what_is_wrong_the_gravest_first() {
        let unknown = Reason { unknown: Some("registry".to_owned()), ..reason(Effect::Deny, "IMG_UNSIGNED", "?") };
        let one = decision(vec![reason(Effect::Audit, "PRIVILEGED", "it is"), reason(Effect::Warn, "TAG", "a tag")]);
        let other = decision(vec![unknown, reason(Effect::Audit, "PRIVILEGED", "it is")]);
        let report = report(&workload("web"), &[one, other]);
        assert_eq!(report["summary"], json!({"pass": 1, "fail": 1, "warn": 1, "error": 1, "skip": 0}));
        assert_eq!(report["results"][0]["rule"], "IMG_UNSIGNED");
        assert_eq!(report["metadata"]["name"], "mayfly-deployment-web");
        assert_eq!(report["metadata"]["ownerReferences"][0]["uid"], "d-1");
    }

    #[test]
    fn a_report_is_small_whatever_is_wrong_and_whatever_it_is_called() {
        let many = (0..500).map(|at| reason(Effect::Deny, &format!("CODE_{at}"), &"ü\u{7}".repeat(5_000))).collect();
        let report = report(&workload(&"n".repeat(253)), &[decision(many)]);
        assert!(report.to_string().len() <= MAX_BYTES, "{}", report.to_string().len());
        assert_eq!(report["summary"]["fail"], 500);
        assert!(!report["results"].as_array().expect("results").is_empty());
        assert!(!report.to_string().contains("\\u0007"));
        let other = name(&workload(&format!("{}x", "n".repeat(252))));
        assert!(other.len() <= MAX_NAME && report["metadata"]["name"] != other);
    }

    #[test]
    fn only_a_namespace_that_ends_refuses_without_a_word() {
        let refused = |status: Value| kube::Error::Api(Box::new(serde_json::from_value(status).expect("a status")));
        let ends = json!({"code": 403, "reason": "Forbidden", "message": "it is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "x", "field": "metadata.namespace"}]}});
        assert!(is_of_the_end(&refused(ends)));
        assert!(!is_of_the_end(&refused(json!({"code": 403, "reason": "Forbidden", "message": "no right"}))));
    }

    #[tokio::test]
    async fn reports_are_written_where_there_are_such_objects_and_once() {
        let fake = Fake::default();
        let mut reports = Reports::new(fake.client());
        let report = report(&workload("web"), &[decision(Vec::new())]);
        let path = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/mayfly-deployment-web";
        let writes =
            || fake.state().asked.iter().filter(|asked| asked.starts_with("PATCH")).cloned().collect::<Vec<_>>();
        reports.discover().await;
        reports.write(&report).await;
        assert_eq!(writes().len(), 0);

        let resource = json!({"name": "policyreports", "singularName": "", "namespaced": true, "kind": "PolicyReport",
            "verbs": ["patch"]});
        let list = json!({"groupVersion": "wgpolicyk8s.io/v1alpha2", "resources": [resource]});
        fake.put("/apis/wgpolicyk8s.io/v1alpha2", list);
        reports.discover().await;
        reports.write(&report).await;
        reports.write(&report).await;
        let asked = writes();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].contains("fieldManager=mayfly"), "{asked:?}");
        assert_eq!(fake.state().objects[path]["summary"]["pass"], 2);
        // The workload is gone, and its report with it: one of the same name is written anew.
        reports.keep(&BTreeSet::new());
        reports.write(&report).await;
        assert_eq!(writes().len(), 2);
    }
}
