//! ConfigMaps that running containers rest on: which of their changes reach a container while it runs, and which only the next start.
//!
//! The kubelet renews the files of a mounted ConfigMap in a running container; variables, and files mounted by `subPath`, stay as they
//! were when it was started. Source: Kubernetes, "ConfigMaps", "Mounted ConfigMaps are updated automatically".

use std::collections::{BTreeMap, BTreeSet};

use dna::{ContainerSpec, Setting, Volume};
use jiff::Timestamp;
use serde_json::Value;

/// The ConfigMaps there are, by namespace and name: when each changed, not what is in it.
#[derive(Debug, Default)]
pub(super) struct Maps(BTreeMap<String, BTreeMap<String, Version>>);

/// A ConfigMap as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// The API server's name of this version.
    pub(super) resource: String,
    /// When somebody last wrote it.
    pub(super) modified: Option<Timestamp>,
}

impl Maps {
    pub(super) fn insert(&mut self, namespace: String, name: String, version: Version) {
        self.0.entry(namespace).or_default().insert(name, version);
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Version> {
        self.0.get(namespace)?.get(name)
    }

    /// Those that are not as they were, or are gone: namespace and name.
    pub(super) fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = |maps: &'a Self| {
            maps.0.iter().flat_map(|(space, maps)| maps.keys().map(|name| (space.as_str(), name.as_str())))
        };
        let gone = all(before).filter(|(space, name)| self.get(space, name).is_none());
        all(self).filter(|(space, name)| self.get(space, name) != before.get(space, name)).chain(gone)
    }

    /// Whether a ConfigMap is no longer what a container was started with, at this time; none: it is yet to start.
    pub(super) fn is_newer(&self, namespace: &str, name: &str, started: Option<Timestamp>) -> bool {
        let Some(started) = started else { return false };
        let version = self.get(namespace, name);
        // Both times are whole seconds.
        version.is_none_or(|version| version.modified.is_some_and(|modified| modified >= started))
    }
}

/// Names of the ConfigMaps whose files are renewed in a running container.
pub(super) fn renewed(spec: &ContainerSpec) -> BTreeSet<&str> {
    let whole = spec.mounts.iter().filter(|mount| mount.sub_path.is_empty());
    let files = whole.flat_map(|mount| match &mount.volume {
        Volume::ConfigMaps(files) => files.as_slice(),
        _ => &[],
    });
    files.map(|files| files.name.as_str()).collect()
}

/// Takes out of a container's settings what it was started with and nobody knows any more, as `is_newer` says of a ConfigMap; whether
/// there was any.
pub(super) fn as_started(spec: &mut ContainerSpec, is_newer: impl Fn(&str) -> bool) -> bool {
    let mut is_any = false;
    for (_, setting) in &mut spec.env {
        if matches!(&*setting, Setting::ConfigMap { name, .. } if is_newer(name)) {
            (*setting, is_any) = (Setting::Field, true);
        }
    }
    for from in &mut spec.env_from {
        if from.config_map.as_deref().is_some_and(&is_newer) {
            (from.config_map, is_any) = (None, true);
        }
    }
    for mount in spec.mounts.iter_mut().filter(|mount| !mount.sub_path.is_empty()) {
        if matches!(&mount.volume, Volume::ConfigMaps(files) if files.iter().any(|files| is_newer(&files.name))) {
            (mount.volume, is_any) = (Volume::Other, true);
        }
    }
    is_any
}

/// ConfigMaps that a pod mounts; none where no setting of it is a ConfigMap's. It is asked of every pod at every look, and so reads no
/// more than it must.
pub(super) fn mounted(pod: &Value) -> Option<BTreeSet<&str>> {
    let list = |field: &str| pod.pointer("/spec")?.get(field)?.as_array();
    // A folder that has other sources too is never read.
    let maps = |volume| -> Option<Vec<&str>> {
        let sources = Value::pointer(volume, "/projected/sources").and_then(Value::as_array);
        let sources = sources.map_or(std::slice::from_ref(volume), Vec::as_slice);
        sources.iter().map(|source| source.get("configMap")?.get("name")?.as_str()).collect()
    };
    let names: BTreeSet<&str> = list("volumes").into_iter().flatten().filter_map(maps).flatten().collect();
    let has_variables = |container: &Value| {
        let all = |field: &str| container.get(field).and_then(Value::as_array).into_iter().flatten();
        all("envFrom").any(|from| from.get("configMapRef").is_some())
            || all("env").any(|variable| variable.pointer("/valueFrom/configMapKeyRef").is_some())
    };
    let mut containers =
        ["initContainers", "containers", "ephemeralContainers"].iter().filter_map(|kind| list(kind)).flatten();
    (!names.is_empty() || containers.any(has_variables)).then_some(names)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use dna::PodSpec;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn maps(of: &[(&str, &str, i64)]) -> Maps {
        let mut maps = Maps::default();
        for (name, resource, modified) in of {
            let version = Version { resource: (*resource).to_owned(), modified: Some(at(*modified)) };
            maps.insert("shop".to_owned(), (*name).to_owned(), version);
        }
        maps
    }

    fn pod() -> Value {
        json!({"spec": {
            "volumes": [{"name": "whole", "configMap": {"name": "files"}}, {"name": "one", "configMap": {"name": "one"}},
                {"name": "two", "projected": {"sources": [{"configMap": {"name": "a"}}, {"configMap": {"name": "b"}}]}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "containers": [
                {"name": "web", "image": "app", "volumeMounts": [{"name": "whole", "mountPath": "/etc/web"},
                    {"name": "one", "mountPath": "/etc/one.conf", "subPath": "one.conf"}, {"name": "two", "mountPath": "/two"},
                    {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                    "env": [{"name": "PORT", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "port"}}},
                        {"name": "MODE", "value": "fast"}],
                    "envFrom": [{"configMapRef": {"name": "all"}}]},
                {"name": "beside", "image": "app"}]}})
    }

    #[test]
    fn files_are_renewed_in_a_running_container_and_variables_and_single_files_are_not() {
        let pod = pod();
        assert_eq!(mounted(&pod), Some(BTreeSet::from(["files", "one", "a", "b"])));
        let spec = PodSpec::read(&pod["spec"]).expect("a spec");
        let web = &spec.containers[0];
        assert_eq!(renewed(web), BTreeSet::from(["files", "a", "b"]));
        assert!(renewed(&spec.containers[1]).is_empty());
        let with = |newer: &[&str]| {
            let mut web = web.clone();
            let is_any = as_started(&mut web, |name| newer.contains(&name));
            assert_eq!(is_any, web != spec.containers[0]);
            web
        };
        assert_eq!(&with(&["files", "a", "b"]), web, "they are known as they are now");
        assert_eq!(with(&["env"]).env[0].1, Setting::Field);
        assert_eq!(with(&["all"]).env_from[0].config_map, None);
        let one = |web: &ContainerSpec| web.mounts.iter().find(|mount| mount.name == "one").cloned().expect("a mount");
        assert_eq!(one(&with(&["one"])).volume, Volume::Other);
        assert_eq!(one(&with(&["files"])), one(web));
    }

    #[test]
    fn a_pod_rests_on_no_config_map_or_on_variables_alone() {
        let of = |container: Value| json!({"spec": {"containers": [container]}});
        assert_eq!(mounted(&of(json!({"name": "c", "env": [{"name": "A", "value": "b"}]}))), None);
        for container in [
            json!({"envFrom": [{"configMapRef": {"name": "m"}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}}]}),
        ] {
            assert_eq!(mounted(&of(container)), Some(BTreeSet::new()));
        }
        assert_eq!(mounted(&of(json!({"envFrom": [{"secretRef": {"name": "m"}}]}))), None);
        assert_eq!(mounted(&json!({})), None);
    }

    #[test]
    fn what_changed_is_told_by_version_and_what_is_newer_by_time() {
        let before = maps(&[("same", "1", 10), ("other", "2", 10), ("gone", "3", 10)]);
        let now = maps(&[("same", "1", 10), ("other", "4", 20), ("new", "5", 20)]);
        let changed: BTreeSet<_> = now.changed_since(&before).collect();
        assert_eq!(changed, [("shop", "gone"), ("shop", "new"), ("shop", "other")].into());
        assert!(!now.is_newer("shop", "other", None), "it starts with what is there");
        assert!(!now.is_newer("shop", "other", Some(at(21))));
        assert!(now.is_newer("shop", "other", Some(at(20))), "within one second nobody can tell");
        assert!(now.is_newer("shop", "gone", Some(at(21))));
    }
}
