//! What runs: the pods of all namespaces, page by page, and the workloads they belong to.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Digest, Platform};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Node, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use moka::future::Cache;
use serde_json::Value;

use super::configuration::{self, Maps, Version};

/// A pod as the API server has it: only its JSON, read where it is asked.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// `apiVersion`, `kind` and all else.
    pub(super) object: Value,
}

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The API server's.
    pub(super) uid: String,
    /// What the kubelet and the container runtime know the pod by, under which it is bound. Of a mirror pod it is that of the pod
    /// in the kubelet's own file. Source: kubelet, `pkg/kubelet/config/common.go`, `applyDefaults`; `pod/mirror_client.go`.
    pub(super) bound: String,
}

/// An object that pods belong to; of a pod that belongs to none, the pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Running {
    pub(super) fn new(mut object: Value) -> Self {
        // Items of a list do not say what they are.
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), "v1".into());
            fields.insert("kind".to_owned(), "Pod".into());
        }
        Self { object }
    }

    fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn named(&self) -> Named {
        let text = |field: &str| self.text(field).to_owned();
        let (namespace, name, uid) = (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/uid"));
        let bound = self.mirrors().filter(|own| !own.is_empty()).map_or_else(|| uid.clone(), str::to_owned);
        Named { namespace, name, uid, bound }
    }

    /// Whether none of its containers will run again.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.text("/status/phase"), "Succeeded" | "Failed")
    }

    /// Whether the kubelet runs it from a file of its own.
    pub(super) fn is_mirror(&self) -> bool {
        self.mirrors().is_some()
    }

    /// The uid of the kubelet's own pod.
    fn mirrors(&self) -> Option<&str> {
        self.object
            .pointer("/metadata/annotations")?
            .get(crate::service::MIRROR)
            .map(|own| own.as_str().unwrap_or_default())
    }

    /// The node it was given to; empty where it was not yet.
    pub(super) fn node(&self) -> &str {
        self.text("/spec/nodeName")
    }

    /// Names of its containers, of all kinds.
    pub(super) fn containers(&self) -> BTreeSet<&str> {
        ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .filter_map(|list| self.object.pointer("/spec")?.get(*list)?.as_array())
            .flatten()
            .filter_map(|container| container.get("name")?.as_str())
            .collect()
    }

    /// By container the image that the kubelet runs.
    pub(super) fn image_ids(&self) -> BTreeMap<&str, &str> {
        self.statuses()
            .filter_map(|status| Some((status.get("name")?.as_str()?, status.get("imageID")?.as_str()?)))
            .filter(|(_, id)| !id.is_empty())
            .collect()
    }

    /// What the kubelet says of its containers, of all kinds.
    fn statuses(&self) -> impl Iterator<Item = &Value> {
        ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"]
            .iter()
            .filter_map(|list| self.object.pointer("/status")?.get(*list)?.as_array())
            .flatten()
    }

    /// The controller: its API version, kind, name and uid.
    fn controller(&self) -> Option<Workload> {
        controller(&self.object)
    }

    /// Changes with its containers and with the images they run; where it rests on ConfigMaps, with those it mounts, and with each start
    /// of a container.
    pub(super) fn face(&self, maps: &Maps) -> Digest {
        let images = self.image_ids();
        let mut lines: Vec<String> = self
            .containers()
            .iter()
            .map(|name| format!("{name} {}", images.get(name).copied().unwrap_or_default()))
            .collect();
        if let Some(mounted) = configuration::mounted(&self.object) {
            let namespace = self.text("/metadata/namespace");
            let version = |name| maps.get(namespace, name).map_or("", |version| version.resource.as_str());
            lines.extend(mounted.into_iter().map(|name| format!("map {name} {}", version(name))));
            lines.extend(self.statuses().filter_map(|status| Some(status.get("containerID")?.as_str()?.to_owned())));
        }
        Digest::sha256(lines.join("\n").as_bytes())
    }

    /// By container when it was started last, of those that were.
    pub(super) fn started(&self) -> BTreeMap<&str, Timestamp> {
        let started = |status: &Value| {
            let state = status.get("state")?;
            let running = state.get("running").or_else(|| state.get("terminated"))?;
            running.get("startedAt")?.as_str()?.parse().ok()
        };
        self.statuses().filter_map(|status| Some((status.get("name")?.as_str()?, started(status)?))).collect()
    }

    /// Whether it was made only now: what was decided of it may be on its way to the ledger.
    pub(super) fn is_new(&self, now: Timestamp) -> bool {
        let made: Option<Timestamp> = self.text("/metadata/creationTimestamp").parse().ok();
        made.is_some_and(|made| now.duration_since(made) < SignedDuration::from_secs(NEW_SECONDS))
    }

    /// What makes a decision about this pod one about its like: who made it, from which revision, and the images it runs.
    pub(super) fn variant(&self) -> Digest {
        let made = self.controller().map_or_else(|| self.text("/metadata/uid").to_owned(), |controller| controller.uid);
        let revision = self.text("/metadata/labels/controller-revision-hash");
        let images = self.image_ids();
        let images = images.iter().map(|(name, id)| format!("{name} {id}"));
        let known = [made, revision.to_owned()].into_iter().chain(images).collect::<Vec<_>>().join("\n");
        Digest::sha256(known.as_bytes())
    }
}

/// The digest of what the kubelet calls an image by, where that is one a registry knows: `docker.io/library/nginx@sha256:…`. A bare
/// `sha256:…` names the config of an image, which no registry is asked for.
pub(super) fn pulled(image_id: &str) -> Option<Digest> {
    image_id.rsplit_once('@')?.1.parse().ok()
}

fn controller(object: &Value) -> Option<Workload> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    let text = |field: &str| Some(owner.get(field)?.as_str()?.to_owned());
    Some(Workload {
        namespace: object.pointer("/metadata/namespace")?.as_str()?.to_owned(),
        api_version: text("apiVersion")?,
        kind: text("kind")?,
        name: text("name")?,
        uid: text("uid")?,
    })
}

/// Reads what runs.
pub(super) struct Cluster {
    client: Client,
    /// Who made a maker of pods, by its uid.
    makers: Cache<String, Option<Workload>>,
}

impl Cluster {
    pub(super) fn new(client: Client) -> Self {
        Self { client, makers: Cache::builder().max_capacity(MAX_MAKERS).time_to_live(MAKER_HOLDS).build() }
    }

    /// Hands out every pod, page by page.
    ///
    /// # Errors
    /// The API server's; then some pods may not have been handed out.
    pub(super) async fn pods(&self, mut each: impl FnMut(Running) + Send) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<Pod>(&()));
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let pods = api.list(&page).await?;
            for pod in pods.items {
                let Ok(object) = serde_json::to_value(pod) else { continue };
                each(Running::new(object));
            }
            match pods.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => return Ok(()),
            }
        }
    }

    /// A pod as it is now; none where it is gone, or another has its name.
    ///
    /// # Errors
    /// The API server's.
    pub(super) async fn pod(&self, named: &Named) -> Result<Option<Running>, kube::Error> {
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &named.namespace, &resource);
        let found = api.get_opt(&named.name).await?.and_then(|pod| serde_json::to_value(pod).ok()).map(Running::new);
        Ok(found.filter(|pod| pod.text("/metadata/uid") == named.uid))
    }

    /// The platform of each node.
    ///
    /// # Errors
    /// The API server's.
    pub(super) async fn nodes(&self) -> Result<BTreeMap<String, Platform>, kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let (mut nodes, mut page) = (BTreeMap::new(), ListParams::default().limit(PAGE));
        loop {
            let listed = api.list(&page).await?;
            nodes.extend(listed.items.into_iter().filter_map(|node| {
                let info = node.status?.node_info?;
                Some((node.metadata.name?, Platform::new(&info.operating_system, &info.architecture, None)))
            }));
            match listed.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => return Ok(nodes),
            }
        }
    }

    /// The ConfigMaps of all namespaces, without what is in them.
    ///
    /// # Errors
    /// The API server's.
    pub(super) async fn config_maps(&self) -> Result<Maps, kube::Error> {
        let api: Api<ConfigMap> = Api::all(self.client.clone());
        let (mut maps, mut page) = (Maps::default(), ListParams::default().limit(NAMES_PAGE));
        loop {
            let listed = api.list_metadata(&page).await?;
            for ObjectMeta { namespace, name, resource_version, creation_timestamp, managed_fields, .. } in
                listed.items.into_iter().map(|map| map.metadata)
            {
                let writes = managed_fields.into_iter().flatten().filter_map(|fields| fields.time);
                let modified = writes.chain(creation_timestamp).map(|Time(time)| time).max();
                let version = Version { resource: resource_version.unwrap_or_default(), modified };
                maps.insert(namespace.unwrap_or_default(), name.unwrap_or_default(), version);
            }
            match listed.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => return Ok(maps),
            }
        }
    }

    /// What a pod belongs to: its controller, or of a ReplicaSet or Job the one who made that.
    pub(super) async fn workload(&self, pod: &Running) -> Workload {
        let Named { namespace, name, uid, .. } = pod.named();
        let itself = || Workload { namespace, api_version: "v1".to_owned(), kind: "Pod".to_owned(), name, uid };
        // A mirror pod is its node's, which is no workload.
        let Some(controller) = pod.controller().filter(|controller| controller.kind != "Node") else { return itself() };
        let group = match (controller.api_version.as_str(), controller.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => "apps",
            ("batch/v1", "Job") => "batch",
            _ => return controller,
        };
        let gvk = GroupVersionKind::gvk(group, "v1", &controller.kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &controller.namespace, &ApiResource::from_gvk(&gvk));
        let maker = self.makers.try_get_with(controller.uid.clone(), async {
            let found = api.get_metadata_opt(&controller.name).await?;
            let found = found.filter(|made| made.metadata.uid.as_deref() == Some(&controller.uid));
            let found = found.and_then(|made| serde_json::to_value(made).ok());
            Ok::<_, kube::Error>(found.as_ref().and_then(self::controller))
        });
        match maker.await {
            Ok(maker) => maker.unwrap_or(controller),
            Err(error) => {
                tracing::debug!(%error, kind = controller.kind, name = controller.name, "its owner is not known");
                controller
            }
        }
    }
}

/// Objects in one answer of the API server: a pod takes some 10 KiB, at most 1.5 MiB.
const PAGE: u32 = 200;
/// Of objects without their contents.
const NAMES_PAGE: u32 = 500;

const NEW_SECONDS: i64 = 20;
const MAX_MAKERS: u64 = 20_000;
const MAKER_HOLDS: std::time::Duration = std::time::Duration::from_secs(600);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::fake::Fake;

    fn pod(name: &str, owner: &Value, image_id: &str) -> Value {
        let owners: Vec<&Value> = Some(owner).filter(|owner| !owner.is_null()).into_iter().collect();
        json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "ownerReferences": owners},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "app:1"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "imageID": image_id}]}})
    }

    fn owner(api_version: &str, kind: &str, name: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true})
    }

    #[test]
    fn an_image_is_known_by_its_digest_in_a_registry_only() {
        let hex = "a".repeat(64);
        let digest: Digest = format!("sha256:{hex}").parse().expect("a digest");
        assert_eq!(pulled(&format!("docker.io/library/nginx@sha256:{hex}")), Some(digest.clone()));
        assert_eq!(pulled(&format!("docker-pullable://nginx@sha256:{hex}")), Some(digest));
        for other in [&format!("sha256:{hex}"), "", "nginx@", "nginx@sha256:zz"] {
            assert_eq!(pulled(other), None, "{other}");
        }
    }

    #[test]
    fn pods_of_one_maker_and_image_are_decided_once() {
        let made = owner("apps/v1", "ReplicaSet", "web-1");
        let variant = |name: &str, owner: &Value, id: &str| Running::new(pod(name, owner, id)).variant();
        assert_eq!(variant("a", &made, "i"), variant("b", &made, "i"));
        assert_ne!(variant("a", &made, "i"), variant("a", &made, "j"));
        assert_ne!(variant("a", &made, "i"), variant("a", &owner("apps/v1", "ReplicaSet", "web-2"), "i"));
        assert_ne!(variant("a", &Value::Null, "i"), variant("b", &Value::Null, "i"), "nobody made them");
        let mut revised = pod("a", &made, "i");
        revised["metadata"]["labels"] = json!({"controller-revision-hash": "2"});
        assert_ne!(Running::new(revised).variant(), variant("a", &made, "i"));
    }

    #[test]
    fn a_mirror_pod_is_bound_under_the_name_that_its_containers_have() {
        let mut mirror = pod("etcd-node-1", &owner("v1", "Node", "node-1"), "i");
        assert_eq!(Running::new(mirror.clone()).named().bound, "uid-etcd-node-1");
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0f1e"});
        let mirror = Running::new(mirror);
        let named = mirror.named();
        assert!(mirror.is_mirror());
        assert_eq!((named.uid.as_str(), named.bound.as_str()), ("uid-etcd-node-1", "0f1e"));
    }

    #[tokio::test]
    async fn a_pod_belongs_to_whoever_made_its_maker() {
        let fake = Fake::default();
        let cluster = Cluster::new(fake.client());
        let set = |uid: &str| {
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web-1",
            "namespace": "shop", "uid": uid, "ownerReferences": [owner("apps/v1", "Deployment", "web")]}})
        };
        fake.put("/apis/apps/v1/namespaces/shop/replicasets/web-1", set("uid-web-1"));
        let of = async |owner: &Value| {
            let workload = cluster.workload(&Running::new(pod("p", owner, "i"))).await;
            format!("{}/{}", workload.kind, workload.name)
        };
        assert_eq!(of(&owner("apps/v1", "ReplicaSet", "web-1")).await, "Deployment/web");
        assert_eq!(of(&owner("apps/v1", "StatefulSet", "db")).await, "StatefulSet/db");
        assert_eq!(of(&owner("v1", "Node", "node-1")).await, "Pod/p");
        assert_eq!(of(&Value::Null).await, "Pod/p");
        // Its maker is gone, or another has its name.
        assert_eq!(of(&owner("batch/v1", "Job", "once")).await, "Job/once");
        fake.put("/apis/apps/v1/namespaces/shop/replicasets/other", set("another"));
        assert_eq!(of(&owner("apps/v1", "ReplicaSet", "other")).await, "ReplicaSet/other");
    }

    #[tokio::test]
    async fn every_page_is_read_and_one_that_is_too_old_is_an_error() {
        let fake = Fake::default();
        for at in 0..450 {
            let name = format!("p{at:03}");
            fake.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod(&name, &Value::Null, "i"));
        }
        let cluster = Cluster::new(fake.client());
        let mut names = BTreeSet::new();
        let keep = |pod: Running| {
            names.insert(pod.named().name);
        };
        cluster.pods(keep).await.expect("pods");
        assert_eq!(names.len(), 450);
        fake.state().gone = 1;
        assert!(cluster.pods(|_| {}).await.is_err());
    }
}
