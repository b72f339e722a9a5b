//! Where the pod is in an object: kind in, the pod's spec out.

use serde_json::Value;

use crate::{PodSpec, SpecError};

/// An object with a pod in it.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// The pod, or the template of one: an object with `metadata` and `spec`.
    pub pod: &'a Value,
    /// It is a template: the pods come later, from its controller.
    pub is_template: bool,
}

impl<'a> Workload<'a> {
    /// The pod in an object of a built-in kind, or at `path` (a JSON pointer to a pod template) in another.
    ///
    /// None where the kind has no pod and no path is given.
    #[must_use]
    pub fn of(group: &str, kind: &str, path: Option<&str>, object: &'a Value) -> Option<Self> {
        let pointer = Self::path(group, kind).or(path)?;
        let pod = object.pointer(pointer).unwrap_or(&Value::Null);
        Some(Self { pod, is_template: !pointer.is_empty() })
    }

    /// Where a built-in kind has its pod: a JSON pointer to an object with `metadata` and `spec`.
    #[must_use]
    pub fn path(group: &str, kind: &str) -> Option<&'static str> {
        PATHS.iter().find(|known| (known.0, known.1) == (group, kind)).map(|known| known.2)
    }

    /// The built-in kinds that have one.
    pub fn kinds() -> impl Iterator<Item = &'static str> + Clone {
        PATHS.iter().map(|known| known.1)
    }

    /// The built-in kinds that have one, each with its API group. All are of version `v1`.
    pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
        PATHS.iter().map(|known| (known.0, known.1))
    }

    /// The pod's spec.
    ///
    /// # Errors
    /// [`SpecError`] where it is not there, or no pod's spec.
    pub fn spec(&self) -> Result<PodSpec, SpecError> {
        PodSpec::read(self.pod.get("spec").unwrap_or(&Value::Null))
    }
}

/// Kinds with a pod, by API group and kind, and where it is. Source: Kubernetes API reference 1.36.
const PATHS: [(&str, &str, &str); 9] = [
    ("", "Pod", ""),
    ("", "PodTemplate", "/template"),
    ("", "ReplicationController", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_leads_to_its_pod() {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (group, kind, path) in PATHS {
            let mut object = pod.clone();
            for part in path.rsplit('/').filter(|part| !part.is_empty()) {
                object = json!({part: object});
            }
            let workload = Workload::of(group, kind, None, &object).expect("a workload");
            assert_eq!(workload.is_template, kind != "Pod");
            assert_eq!(workload.spec().expect("a spec").containers.len(), 1, "{kind}");
        }
    }

    #[test]
    fn a_kind_of_another_group_is_not_taken_for_it() {
        let object = json!({"spec": {"template": {"spec": {"containers": []}}}});
        assert!(Workload::of("example.org", "Deployment", None, &object).is_none());
        let rollout = Workload::of("argoproj.io", "Rollout", Some("/spec/template"), &object).expect("a declared path");
        assert!(rollout.spec().is_ok());
    }

    #[test]
    fn a_workload_without_a_pod_is_an_error() {
        let workload = Workload::of("apps", "Deployment", None, &Value::Null).expect("a kind with a pod");
        assert!(workload.spec().is_err());
    }
}
