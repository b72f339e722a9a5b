//! What the cluster knows that a review needs: labels of namespaces, platforms of nodes, secrets to pull with, ConfigMaps.
//!
//! Everything is kept for a short while, so that a burst of pods does not become a burst of requests; what the API server would
//! not say is never kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use analyzer::ConfigMaps;
use arc_swap::ArcSwap;
use dna::{ContainerSpec, Digest, Platform, PodSpec};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace, Node, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use moka::future::Cache;
use oci::registry::PullSecret;
use policies::{Rules, kinds::ObjectRef};
use serde_json::Value;

use crate::{gather::Keyring, rulebook::Beside};

/// A cluster, or what files say of one.
#[derive(Clone)]
pub struct Cluster {
    client: Option<Client>,
    given: Arc<Given>,
    may: Permissions,
    platforms: Arc<ArcSwap<Vec<Platform>>>,
    namespaces: Cache<String, Arc<Value>>,
    secrets: Cache<(String, String), Arc<Option<PullSecret>>>,
    accounts: Cache<(String, String), Arc<Vec<String>>>,
    maps: Cache<(String, String), Arc<Entries>>,
}

/// What is known of a cluster that is not asked.
#[derive(Debug, Default)]
pub struct Given {
    /// Namespaces, by name.
    pub namespaces: BTreeMap<String, Value>,
    /// ConfigMaps, whatever their namespace.
    pub config_maps: ConfigMaps,
}

/// What a ConfigMap holds, by key.
type Entries = BTreeMap<String, Vec<u8>>;

/// What may be read beyond namespaces and nodes: each needs a role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Image pull secrets and service accounts.
    pub secrets: bool,
    /// ConfigMaps, so that a mounted configuration is understood.
    pub config_maps: bool,
}

/// The API server did not say.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not give {what}: {reason}")]
pub struct Unanswered {
    what: String,
    reason: String,
    /// Time ran out.
    pub late: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("may", &self.may).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads through `client`; without one nothing is known of namespaces, and no secret is read.
    #[must_use]
    pub fn new(client: Option<Client>, may: Permissions) -> Self {
        let kept = |seconds: u64| Duration::from_secs(seconds);
        Self {
            client,
            given: Arc::default(),
            may,
            platforms: Arc::default(),
            namespaces: Cache::builder().max_capacity(20_000).time_to_live(kept(NAMESPACE_SECONDS)).build(),
            secrets: Cache::builder().max_capacity(20_000).time_to_live(kept(SECRET_SECONDS)).build(),
            accounts: Cache::builder().max_capacity(50_000).time_to_live(kept(SECRET_SECONDS)).build(),
            maps: Cache::builder()
                .max_capacity(MAP_BYTES)
                .weigher(|_, map: &Arc<Entries>| {
                    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len() + 100).sum();
                    u32::try_from(bytes).unwrap_or(u32::MAX)
                })
                .time_to_live(kept(MAP_SECONDS))
                .build(),
        }
    }

    /// What files say of one; nothing is asked.
    #[must_use]
    pub fn of_files(given: Given) -> Self {
        Self { given: Arc::new(given), ..Self::new(None, Permissions { secrets: false, config_maps: false }) }
    }

    /// The cluster of a kubeconfig, or without one of the environment: `KUBECONFIG`, `~/.kube/config`, the pod's own.
    ///
    /// # Errors
    /// Why it is not known how to reach it.
    pub async fn connect(file: Option<&Path>, context: Option<&str>, may: Permissions) -> Result<Self, String> {
        let config = match (file, context) {
            (None, None) => Config::infer().await.map_err(|error| error.to_string())?,
            (file, context) => {
                let read = file.map_or_else(Kubeconfig::read, Kubeconfig::read_from);
                let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
                let read = read.map_err(|error| error.to_string())?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(|error| error.to_string())?
            }
        };
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        Ok(Self::new(Some(client), may))
    }

    /// What rules refer to: keys of signers, trust roots, what registries are reached with; nothing where there is no cluster.
    ///
    /// # Errors
    /// What the API server would not say.
    pub async fn beside(&self, rules: &Rules, own_namespace: Option<&str>) -> Result<Beside, String> {
        let Some(client) = &self.client else { return Ok(Beside::default()) };
        let place = |reference: &ObjectRef| ObjectRef {
            namespace: reference.namespace.clone().or_else(|| own_namespace.map(str::to_owned)),
            ..reference.clone()
        };
        let mut beside = Beside::default();
        for reference in rules.key_refs() {
            if let Some(text) = text_of(client, &place(&reference)).await? {
                beside.keys.insert(reference, text);
            }
        }
        for (name, spec) in rules.trusts() {
            if let Some(reference) = &spec.config_map_ref
                && let Some(text) = text_of(client, &place(reference)).await?
            {
                beside.roots.insert(name.clone(), text);
            }
        }
        for (name, spec) in rules.access() {
            if let Some(reference) = &spec.ca_bundle
                && let Some(text) = text_of(client, &place(reference)).await?
            {
                beside.authorities.insert(name.clone(), text);
            }
            if let Some(reference) = &spec.pull_secret {
                let place = place(reference);
                let namespace = place.namespace.as_deref().unwrap_or("default");
                let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&place.name).await;
                let found = readable(found, namespace, &place)?;
                if let Some(secret) = found.and_then(|secret| pull_secret(secret, namespace, &place.name)) {
                    beside.secrets.insert(name.clone(), secret);
                }
            }
        }
        Ok(beside)
    }

    /// The client, where there is a cluster.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The namespace as an object; null where there is no cluster.
    ///
    /// # Errors
    /// [`Unanswered`]; the caller decides what that means, never that it has no labels.
    pub async fn namespace(&self, name: &str, deadline: Instant) -> Result<Arc<Value>, Unanswered> {
        let Some(client) = &self.client else {
            return Ok(Arc::new(self.given.namespaces.get(name).cloned().unwrap_or(Value::Null)));
        };
        if name.is_empty() {
            return Ok(Arc::new(Value::Null));
        }
        let api: Api<Namespace> = Api::all(client.clone());
        let what = format!("namespace {name}");
        let found = self.namespaces.try_get_with(name.to_owned(), async {
            let namespace = api.get(name).await?;
            let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "labels": namespace.labels(), "annotations": namespace.annotations(),
                "uid": namespace.uid(),
            }});
            Ok(Arc::new(object))
        });
        in_time(found, what, deadline).await
    }

    /// A namespace that the API server shows us being changed: what is kept of it no longer holds.
    pub async fn forget_namespace(&self, name: &str) {
        self.namespaces.invalidate(name).await;
    }

    /// Whether ConfigMaps of the cluster may be read.
    #[must_use]
    pub fn reads_config_maps(&self) -> bool {
        self.client.is_some() && self.may.config_maps
    }

    /// A ConfigMap that was changed: what is kept of it no longer holds.
    pub async fn forget_config_map(&self, namespace: &str, name: &str) {
        self.maps.invalidate(&(namespace.to_owned(), name.to_owned())).await;
    }

    /// Platforms that a pod may land on, by its node selector and affinity and by the nodes there are; none: not known.
    #[must_use]
    pub fn platforms(&self, pod: &PodSpec) -> Option<Vec<Platform>> {
        let nodes = self.platforms.load();
        let is_asked =
            |names: &Option<BTreeSet<String>>, name: &str| names.as_ref().is_none_or(|names| names.contains(name));
        let fits = |platform: &&Platform| {
            is_asked(&pod.operating_systems, platform.os()) && is_asked(&pod.architectures, platform.architecture())
        };
        let fitting: Vec<Platform> = nodes.iter().filter(fits).cloned().collect();
        match (&pod.operating_systems, &pod.architectures) {
            _ if !fitting.is_empty() => Some(fitting),
            // No such node yet: it may come. What the pod asks for is all there is to go by.
            (None, None) => None,
            (systems, architectures) => {
                let systems = systems.clone().unwrap_or_else(|| BTreeSet::from(["linux".to_owned()]));
                let architectures = architectures.clone()?;
                let each =
                    systems.iter().flat_map(|os| architectures.iter().map(move |name| Platform::new(os, name, None)));
                Some(each.collect())
            }
        }
    }

    /// Asks once more which platforms the nodes have.
    ///
    /// # Errors
    /// [`Unanswered`]; what was known before stays.
    pub async fn refresh_platforms(&self) -> Result<(), Unanswered> {
        let Some(client) = &self.client else { return Ok(()) };
        let api: Api<Node> = Api::all(client.clone());
        let mut found = BTreeSet::new();
        let mut page = ListParams::default().limit(500);
        loop {
            let nodes = api.list(&page).await.map_err(|error| unanswered("the nodes", &error, false))?;
            for node in &nodes.items {
                if let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) {
                    found.insert((info.operating_system.clone(), info.architecture.clone()));
                }
            }
            match nodes.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                _ => break,
            }
        }
        let platforms = found.iter().map(|(os, architecture)| Platform::new(os, architecture, None)).collect();
        self.platforms.store(Arc::new(platforms));
        Ok(())
    }

    /// What the registry is shown for a pod: its own secrets, then its service account's, in the kubelet's order. What is
    /// configured for everyone comes after.
    ///
    /// # Errors
    /// [`Unanswered`] where the API server does not answer: a secret that is not there, or holds nothing, is left out, as the
    /// kubelet does.
    pub async fn keyring(&self, namespace: &str, pod: &PodSpec, deadline: Instant) -> Result<Keyring, Unanswered> {
        if !self.may.secrets || self.client.is_none() {
            return Ok(Keyring::of_everyone());
        }
        let of_account = self.secrets_of(namespace, &pod.service_account, deadline).await?;
        let (of_pod, of_account) = futures_util::future::join(
            self.pull_secrets(namespace, &pod.pull_secrets, deadline),
            self.pull_secrets(namespace, &of_account, deadline),
        )
        .await;
        let (of_pod, mut of_account) = (of_pod?, of_account?);
        of_account.retain(|secret| !of_pod.contains(secret));
        if of_pod.is_empty() && of_account.is_empty() {
            return Ok(Keyring::of_everyone());
        }
        let fingerprints: Vec<_> = of_pod.iter().chain(&of_account).map(PullSecret::fingerprint).collect();
        Ok(Keyring { identity: Digest::sha256(&fingerprints.concat()), pod: of_pod, account: of_account })
    }

    async fn pull_secrets(
        &self,
        namespace: &str,
        names: &[String],
        deadline: Instant,
    ) -> Result<Vec<PullSecret>, Unanswered> {
        let mut secrets = Vec::new();
        for name in names.iter().filter(|name| !name.is_empty()) {
            if let Some(secret) = self.secret(namespace, name, deadline).await?.as_ref()
                && !secrets.contains(secret)
            {
                secrets.push(secret.clone());
            }
        }
        Ok(secrets)
    }

    /// What a container's ConfigMaps hold; those that are not there or may not be read are left out.
    ///
    /// # Errors
    /// [`Unanswered`] where the API server does not answer.
    pub async fn config_maps(
        &self,
        namespace: &str,
        containers: &[ContainerSpec],
        deadline: Instant,
    ) -> Result<ConfigMaps, Unanswered> {
        let names: BTreeSet<&str> = containers.iter().flat_map(analyzer::config_maps).collect();
        let Some(client) = self.client.as_ref().filter(|_| self.may.config_maps) else {
            let given = &self.given.config_maps;
            return Ok(names.iter().filter_map(|name| Some(((*name).to_owned(), given.get(*name)?.clone()))).collect());
        };
        let mut maps = ConfigMaps::new();
        for name in names {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let what = format!("ConfigMap {namespace}/{name}");
            let found = self.maps.try_get_with((namespace.to_owned(), name.to_owned()), async {
                let map = api.get_opt(name).await?.ok_or(Missing::There)?;
                let texts = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                let bytes = map.binary_data.into_iter().flatten().map(|(key, ByteString(value))| (key, value));
                Ok(Arc::new(texts.chain(bytes).collect()))
            });
            match in_time_or_missing(found, what, deadline).await? {
                Some(map) => maps.insert(name.to_owned(), map.as_ref().clone()),
                None => None,
            };
        }
        Ok(maps)
    }

    async fn secrets_of(&self, namespace: &str, account: &str, deadline: Instant) -> Result<Vec<String>, Unanswered> {
        let Some(client) = &self.client else { return Ok(Vec::new()) };
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let what = format!("service account {namespace}/{account}");
        let found = self.accounts.try_get_with((namespace.to_owned(), account.to_owned()), async {
            let account = api.get_opt(account).await?;
            let secrets = account.and_then(|account| account.image_pull_secrets).unwrap_or_default();
            Ok(Arc::new(secrets.into_iter().map(|secret| secret.name).collect::<Vec<_>>()))
        });
        in_time(found, what, deadline).await.map(|names| names.as_ref().clone())
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<Option<PullSecret>>, Unanswered> {
        let Some(client) = &self.client else { return Ok(Arc::new(None)) };
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let what = format!("secret {namespace}/{name}");
        let found = self.secrets.try_get_with((namespace.to_owned(), name.to_owned()), async {
            let secret = api.get_opt(name).await?;
            Ok(Arc::new(secret.and_then(|secret| pull_secret(secret, namespace, name))))
        });
        in_time(found, what, deadline).await
    }
}

/// The entry of a ConfigMap, or of a Secret. What may not be read is as if it were not there: one rule lacks it, and the others do not
/// wait for it.
async fn text_of(client: &Client, place: &ObjectRef) -> Result<Option<String>, String> {
    let namespace = place.namespace.as_deref().unwrap_or("default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = readable(maps.get_opt(&place.name).await, namespace, place)?;
    let mut entries: BTreeMap<String, String> = map.and_then(|map| map.data).unwrap_or_default();
    if entries.is_empty() {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = readable(secrets.get_opt(&place.name).await, namespace, place)?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        entries = data
            .into_iter()
            .filter_map(|(key, ByteString(value))| Some((key, String::from_utf8(value).ok()?)))
            .collect();
    }
    Ok(match &place.key {
        Some(key) => entries.remove(key),
        None if entries.len() == 1 => entries.into_values().next(),
        None => None,
    })
}

fn readable<T>(found: kube::Result<Option<T>>, namespace: &str, place: &ObjectRef) -> Result<Option<T>, String> {
    match found {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::debug!(namespace, name = place.name, why = status.message, "an object may not be read");
            Ok(None)
        }
        found => found.map_err(|error| format!("{namespace}/{}: {error}", place.name)),
    }
}

/// The credentials in a secret; none where it holds no such thing, which the kubelet passes over too.
fn pull_secret(secret: Secret, namespace: &str, name: &str) -> Option<PullSecret> {
    let (key, is_legacy) = match secret.type_.as_deref()? {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", false),
        "kubernetes.io/dockercfg" => (".dockercfg", true),
        _ => return None,
    };
    let ByteString(bytes) = secret.data?.remove(key)?;
    let parsed = PullSecret::parse(&bytes, is_legacy, &format!("{namespace}/{name}"));
    parsed.inspect_err(|error| tracing::warn!(%error, namespace, secret = name, "a pull secret cannot be read")).ok()
}

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("it is not there")]
    There,
    #[error(transparent)]
    Failed(#[from] kube::Error),
}

async fn in_time<T>(
    found: impl Future<Output = Result<T, Arc<kube::Error>>>,
    what: String,
    deadline: Instant,
) -> Result<T, Unanswered> {
    match tokio::time::timeout_at(deadline.into(), found).await {
        Ok(found) => found.map_err(|error| unanswered(&what, &error, false)),
        Err(late) => Err(unanswered(&what, &late, true)),
    }
}

async fn in_time_or_missing<T>(
    found: impl Future<Output = Result<T, Arc<Missing>>>,
    what: String,
    deadline: Instant,
) -> Result<Option<T>, Unanswered> {
    match tokio::time::timeout_at(deadline.into(), found).await {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(error)) if matches!(error.as_ref(), Missing::There) => Ok(None),
        Ok(Err(error)) if is_forbidden(&error) => Ok(None),
        Ok(Err(error)) => Err(unanswered(&what, &error, false)),
        Err(late) => Err(unanswered(&what, &late, true)),
    }
}

fn is_forbidden(error: &Missing) -> bool {
    matches!(error, Missing::Failed(kube::Error::Api(status)) if status.code == 403)
}

fn unanswered(what: &str, error: &dyn fmt::Display, late: bool) -> Unanswered {
    Unanswered { what: what.to_owned(), reason: error.to_string(), late }
}

/// How long what the API server said is believed.
const NAMESPACE_SECONDS: u64 = 5;
const SECRET_SECONDS: u64 = 60;
const MAP_SECONDS: u64 = 15;

/// ConfigMaps that are kept, together.
const MAP_BYTES: u64 = 16 << 20;
