//! Pods of a cluster as they come and go.
//!
//! In: the Kubernetes API. Out: [`Seen`], in order. A watch that breaks begins anew, with all pods there are; those that are gone by then
//! are told as gone.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{TryStreamExt as _, pin_mut};
use k8s_openapi::{api::core::v1, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::identity::{Pod, PodContainer};

/// What the cluster tells of pods.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A pod as it is now, with its whole object for who needs more.
    Pod(Arc<Pod>, Arc<v1::Pod>),
    /// A pod that is gone.
    Gone {
        /// Its cluster.
        cluster: String,
        /// Its uid.
        uid: String,
    },
}

/// Watches until nobody listens.
pub async fn pods(client: Client, cluster: String, told: mpsc::Sender<Seen>) {
    let api: Api<v1::Pod> = Api::all(client);
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(stream);
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut anew: Option<BTreeSet<String>> = None;
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "pods are not known anew; the watch goes on");
                continue;
            }
        };
        let mut out = Vec::new();
        match event {
            watcher::Event::Init => anew = Some(BTreeSet::new()),
            watcher::Event::InitApply(mut pod) | watcher::Event::Apply(mut pod) => {
                // Who set which field is half of a pod, and nobody asks for it.
                pod.metadata.managed_fields = None;
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(anew) = &mut anew {
                    anew.insert(uid.clone());
                }
                known.insert(uid);
                out.push(Seen::Pod(Arc::new(read(&cluster, &pod)), Arc::new(pod)));
            }
            watcher::Event::InitDone => {
                let there = anew.take().unwrap_or_default();
                out.extend(known.difference(&there).cloned().map(|uid| Seen::Gone { cluster: cluster.clone(), uid }));
                known = there;
            }
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                known.remove(&uid);
                out.push(Seen::Gone { cluster: cluster.clone(), uid });
            }
        }
        for seen in out {
            if told.send(seen).await.is_err() {
                return;
            }
        }
    }
}

/// What identity needs of a pod.
fn read(cluster: &str, pod: &v1::Pod) -> Pod {
    let status = pod.status.as_ref();
    let statuses = |of: fn(&v1::PodStatus) -> &Option<Vec<v1::ContainerStatus>>| {
        status.and_then(|status| of(status).as_deref()).unwrap_or_default().iter()
    };
    let all = statuses(|status| &status.container_statuses)
        .chain(statuses(|status| &status.init_container_statuses))
        .chain(statuses(|status| &status.ephemeral_container_statuses));
    let containers = all.map(|status| {
        let running = status.state.as_ref().and_then(|state| state.running.as_ref());
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let time = |time: &Time| time.0;
        let ids = [
            (status.container_id.clone(), running.and_then(|state| state.started_at.as_ref()).map(time)),
            (last.and_then(|last| last.container_id.clone()), last.and_then(|last| last.started_at.as_ref()).map(time)),
        ];
        PodContainer {
            name: status.name.clone(),
            image: status.image.clone(),
            image_id: status.image_id.clone(),
            ids: ids.into_iter().filter_map(|(id, at)| Some((id.filter(|id| !id.is_empty())?, at))).collect(),
        }
    });
    let mut containers: Vec<PodContainer> = containers.collect();
    let spec = pod.spec.as_ref();
    let named = spec.map(|spec| {
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
        let plain = spec.containers.iter().chain(init).map(|container| (&container.name, container.image.as_ref()));
        plain.chain(ephemeral.iter().map(|container| (&container.name, container.image.as_ref()))).collect::<Vec<_>>()
    });
    for (name, image) in named.into_iter().flatten() {
        let image = image.cloned().unwrap_or_default();
        match containers.iter_mut().find(|container| container.name == *name) {
            // The pod's own words: the status may name the image by another tag.
            Some(container) if !image.is_empty() => container.image = image,
            Some(_) => {}
            None => containers.push(PodContainer { name: name.clone(), image, ..PodContainer::default() }),
        }
    }
    let name = pod.metadata.name.clone().unwrap_or_default();
    Pod {
        cluster: cluster.to_owned(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        owner: owner(pod).unwrap_or_else(|| format!("Pod/{name}")),
        name,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        containers,
    }
}

/// The workload a person made: a Deployment rather than its ReplicaSet, a CronJob rather than its Job.
fn owner(pod: &v1::Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_deref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let labels = pod.metadata.labels.as_ref();
    // The ReplicaSet's name is the Deployment's with the hash that its pods carry as a label.
    let hash = labels.and_then(|labels| labels.get("pod-template-hash"));
    if owner.kind == "ReplicaSet"
        && let Some(name) = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
    {
        return Some(format!("Deployment/{name}"));
    }
    // The Job's name is the CronJob's with the minute it is for, counted from 1970.
    if owner.kind == "Job"
        && let Some((name, minute)) = owner.name.rsplit_once('-')
        && minute.len() == 8
        && minute.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(format!("CronJob/{name}"));
    }
    Some(format!("{}/{}", owner.kind, owner.name))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(kind: &str, name: &str) -> v1::Pod {
        let pod = json!({
            "metadata": {"name": "web-6d4cf56db6-x2x2x", "namespace": "shop", "uid": "u1", "labels": {"pod-template-hash": "6d4cf56db6"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o", "controller": true}]},
            "spec": {"containers": [{"name": "app", "image": "registry/app:1"}, {"name": "late", "image": "registry/late:1"}]},
            "status": {"containerStatuses": [{"name": "app", "image": "registry/app:2", "imageID": "registry/app@sha256:ab", "ready": true, "restartCount": 1,
                "containerID": "containerd://bb", "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}, "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://aa"}}}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_s_owner_is_what_a_person_made() {
        for (kind, name, wanted) in [
            ("ReplicaSet", "web-6d4cf56db6", "Deployment/web"),
            ("ReplicaSet", "alone", "ReplicaSet/alone"),
            ("Job", "backup-28912345", "CronJob/backup"),
            ("Job", "once", "Job/once"),
            ("StatefulSet", "db", "StatefulSet/db"),
        ] {
            assert_eq!(owner(&pod(kind, name)).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn containers_are_named_by_all_their_ids() {
        let read = read("one", &pod("StatefulSet", "db"));
        assert_eq!(read.containers.len(), 2);
        let ids = |at: usize| read.containers[0].ids[at].clone();
        let start = "2026-01-02T03:04:05Z".parse().expect("a time");
        assert_eq!(ids(0), ("containerd://bb".to_owned(), Some(start)));
        assert_eq!(ids(1), ("containerd://aa".to_owned(), None));
        assert_eq!(
            (read.containers[0].image.as_str(), read.containers[1].image.as_str()),
            ("registry/app:1", "registry/late:1")
        );
    }
}
