//! Which container an event is of, whatever its sensor calls it.
//!
//! In: pods as the cluster tells of them. Out, for what a sensor names: one [`Container`]. Containers that ended are kept for an hour,
//! since their events may come late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use dna::SeenContainer;
use jiff::{SignedDuration, Timestamp};

use crate::alert::Place;

/// How long a container that ended is known.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// The digits of an id that every sensor has.
const DIGITS: usize = 12;

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its workload and image.
    pub place: Place,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// Its own id, by which the sensor names it; empty where it does not.
    pub id: String,
    /// When it was started, as far as is known.
    pub started: Option<Timestamp>,
}

impl Container {
    /// What names it for good: the pod's uid, the container's name and, since one that is started again is another, its id.
    #[must_use]
    pub fn key(&self) -> String {
        if self.pod_uid.is_empty() {
            return format!("id/{}/{}", self.place.cluster, short(&self.id));
        }
        format!("{}/{}/{}/{}", self.place.cluster, self.pod_uid, self.place.container, short(&self.id))
    }

    /// What a sensor says of a container of which nothing else is known.
    #[must_use]
    pub fn of_sensor(cluster: &str, seen: &SeenContainer) -> Self {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Self {
            place: Place {
                cluster: cluster.to_owned(),
                namespace: text(&seen.namespace),
                owner: seen.pod.as_deref().map(|pod| format!("Pod/{pod}")).unwrap_or_default(),
                container: text(&seen.name),
                image: text(&seen.image),
                digest: text(&seen.digest),
            },
            pod: text(&seen.pod),
            pod_uid: text(&seen.pod_uid),
            id: text(&seen.id),
            started: None,
        }
    }
}

/// A pod, as the API server tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// The cluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its workload, `Deployment/web`.
    pub owner: String,
    /// Its containers, init and ephemeral ones too.
    pub containers: Vec<PodContainer>,
}

/// A container of a pod's status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodContainer {
    /// Its name.
    pub name: String,
    /// The image as the pod names it.
    pub image: String,
    /// `imageID` of its status: a digest of the image as the runtime has it; empty until it is pulled.
    pub image_id: String,
    /// `containerID` of its status, and of its last state, since it may have been started again; with the time of its start.
    pub ids: Vec<(String, Option<Timestamp>)>,
}

/// What is known of containers.
#[derive(Debug, Default)]
pub struct Identity {
    by_id: HashMap<(String, String), Arc<Container>>,
    by_pod: HashMap<(String, String), BTreeMap<String, Arc<Container>>>,
    by_name: HashMap<(String, String, String), String>,
    ended: BTreeSet<(Timestamp, String, String)>,
}

impl Identity {
    /// Takes in a pod as it is now; says whether that changes whose any event is.
    pub fn pod(&mut self, pod: &Pod) -> bool {
        let mut is_changed = false;
        let names = (pod.cluster.clone(), pod.namespace.clone(), pod.name.clone());
        is_changed |= self.by_name.insert(names, pod.uid.clone()).as_ref() != Some(&pod.uid);
        let containers = self.by_pod.entry((pod.cluster.clone(), pod.uid.clone())).or_default();
        for container in &pod.containers {
            let known = Container {
                place: Place {
                    cluster: pod.cluster.clone(),
                    namespace: pod.namespace.clone(),
                    owner: pod.owner.clone(),
                    container: container.name.clone(),
                    image: container.image.clone(),
                    digest: digest(&container.image_id),
                },
                pod: pod.name.clone(),
                pod_uid: pod.uid.clone(),
                id: String::new(),
                started: None,
            };
            for (id, started) in container.ids.iter().map(|(id, started)| (bare(id), *started)) {
                let named = Arc::new(Container { id: id.to_owned(), started, ..known.clone() });
                let before = self.by_id.insert((pod.cluster.clone(), short(id).to_owned()), Arc::clone(&named));
                is_changed |= before.as_ref() != Some(&named);
            }
            let known = Arc::new(known);
            let before = containers.insert(container.name.clone(), Arc::clone(&known));
            is_changed |= before.as_ref() != Some(&known);
        }
        is_changed
    }

    /// A pod is gone.
    pub fn gone(&mut self, cluster: &str, uid: &str, now: Timestamp) {
        self.ended.insert((now, cluster.to_owned(), uid.to_owned()));
    }

    /// Forgets pods that ended long ago. Returns their uids.
    pub fn forget(&mut self, now: Timestamp) -> Vec<(String, String)> {
        let mut forgotten = Vec::new();
        while self.ended.first().is_some_and(|(at, ..)| now.duration_since(*at) > KEPT)
            && let Some((_, cluster, uid)) = self.ended.pop_first()
        {
            let pod = (cluster, uid);
            self.by_pod.remove(&pod);
            forgotten.push(pod);
        }
        if !forgotten.is_empty() {
            let by_pod = &self.by_pod;
            self.by_id
                .retain(|(cluster, _), container| by_pod.contains_key(&(cluster.clone(), container.pod_uid.clone())));
            self.by_name.retain(|(cluster, ..), uid| by_pod.contains_key(&(cluster.clone(), uid.clone())));
        }
        forgotten
    }

    /// A container of a pod.
    #[must_use]
    pub fn container(&self, cluster: &str, pod_uid: &str, name: &str) -> Option<Arc<Container>> {
        self.by_pod.get(&(cluster.to_owned(), pod_uid.to_owned()))?.get(name).cloned()
    }

    /// The container that a sensor names.
    #[must_use]
    pub fn find(&self, cluster: &str, seen: &SeenContainer) -> Option<Arc<Container>> {
        if let Some(id) = &seen.id
            && let Some(container) = self.by_id.get(&(cluster.to_owned(), short(id).to_owned()))
        {
            return Some(Arc::clone(container));
        }
        let uid = seen.pod_uid.clone().or_else(|| {
            let (namespace, pod) = (seen.namespace.clone()?, seen.pod.clone()?);
            self.by_name.get(&(cluster.to_owned(), namespace, pod)).cloned()
        })?;
        let containers = self.by_pod.get(&(cluster.to_owned(), uid))?;
        match &seen.name {
            Some(name) => containers.get(name).cloned(),
            // A sensor that does not name the container can only mean the one there is.
            None if containers.len() == 1 => containers.values().next().cloned(),
            None => None,
        }
    }
}

/// The digest in a status' `imageID`: behind `@` that of an index or a manifest; alone, perhaps behind a scheme, that of the configuration,
/// which CRI-O writes without its algorithm. Empty where there is none.
fn digest(image_id: &str) -> String {
    let text = image_id.rsplit_once('@').map_or_else(|| bare(image_id), |(_, digest)| digest);
    let is_hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.strip_prefix("sha256:") {
        Some(_) => text.to_owned(),
        None if is_hex(text) => format!("sha256:{text}"),
        None => String::new(),
    }
}

/// An id without its scheme.
fn bare(id: &str) -> &str {
    id.rsplit_once("://").map_or(id, |(_, id)| id)
}

/// The part of an id that every sensor has.
pub(crate) fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let container = |name: &str, id: &str| PodContainer {
            name: name.to_owned(),
            image: "registry/app:1".to_owned(),
            image_id: format!("registry/app@sha256:{}", "a".repeat(64)),
            ids: vec![(format!("containerd://{}", id.repeat(16)), None)],
        };
        Pod {
            cluster: "one".to_owned(),
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            uid: "u1".to_owned(),
            owner: "Deployment/web".to_owned(),
            containers: vec![container("app", "0123"), container("side", "4567")],
        }
    }

    fn seen(change: impl FnOnce(&mut SeenContainer)) -> SeenContainer {
        let mut seen = SeenContainer::default();
        change(&mut seen);
        seen
    }

    #[test]
    fn whatever_a_sensor_calls_a_container_it_is_one() {
        let mut identity = Identity::default();
        identity.pod(&pod());
        let own = |text: &str| Some(text.to_owned());
        for named in [
            seen(|seen| seen.id = own("012301230123")),
            seen(|seen| seen.id = own(&"0123".repeat(16))),
            seen(|seen| seen.id = own("0123012301230123012301230123012")),
            seen(|seen| (seen.pod_uid, seen.name) = (own("u1"), own("app"))),
            seen(|seen| (seen.namespace, seen.pod, seen.name) = (own("shop"), own("web-1"), own("app"))),
        ] {
            let found = identity.find("one", &named).expect("known");
            assert_eq!(
                (found.place.owner.as_str(), found.place.container.as_str()),
                ("Deployment/web", "app"),
                "{named:?}"
            );
            assert!(found.place.digest.starts_with("sha256:"));
            assert_eq!(found.id.is_empty(), named.id.is_none(), "{named:?}");
            assert_eq!(identity.find("two", &named), None, "of another cluster");
        }
        let ambiguous = seen(|seen| (seen.namespace, seen.pod) = (own("shop"), own("web-1")));
        assert_eq!(identity.find("one", &ambiguous), None);
    }

    #[test]
    fn a_container_that_is_started_again_is_another() {
        let mut identity = Identity::default();
        let mut pod = pod();
        let old = pod.containers[0].ids[0].clone();
        pod.containers[0].ids = vec![(format!("containerd://{}", "89ab".repeat(16)), None), old];
        identity.pod(&pod);
        let find = |id: &str| identity.find("one", &seen(|seen| seen.id = Some(id.to_owned()))).expect("known");
        let (now, before) = (find("89ab89ab89ab"), find("012301230123"));
        assert_eq!(now.place, before.place);
        assert_ne!(now.key(), before.key());
    }

    #[test]
    fn a_digest_is_read_as_each_runtime_writes_it() {
        let hex = "a".repeat(64);
        let wanted = format!("sha256:{hex}");
        for image_id in [
            format!("registry/app@sha256:{hex}"),
            format!("docker-pullable://registry/app@sha256:{hex}"),
            format!("docker://sha256:{hex}"),
            wanted.clone(),
            hex,
        ] {
            assert_eq!(digest(&image_id), wanted, "{image_id}");
        }
        assert_eq!((digest(""), digest("registry/app:1"), digest("docker://app")), Default::default());
    }

    #[test]
    fn a_container_that_ended_is_known_for_an_hour() {
        let mut identity = Identity::default();
        identity.pod(&pod());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        identity.gone("one", "u1", now);
        let named = seen(|seen| seen.id = Some("012301230123".to_owned()));
        assert!(identity.forget(now + SignedDuration::from_mins(59)).is_empty());
        assert!(identity.find("one", &named).is_some());
        assert_eq!(identity.forget(now + SignedDuration::from_mins(61)), [("one".to_owned(), "u1".to_owned())]);
        assert_eq!(identity.find("one", &named), None);
    }
}
