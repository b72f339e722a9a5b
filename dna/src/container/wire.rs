//! The pod's JSON, as far as it is read, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use super::{
    Action, ConfigMapFiles, ContainerSpec, DeclaredPort, EnvFrom, HostNamespaces, ImageUse, Mount, PodSpec, Probe,
    Role, Seccomp, Security, Setting, SpecError, Volume,
};
use crate::{ImagePath, Protocol};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    #[serde(default, deserialize_with = "list")]
    init_containers: Vec<Container>,
    #[serde(default, deserialize_with = "list")]
    containers: Vec<Container>,
    #[serde(default, deserialize_with = "list")]
    ephemeral_containers: Vec<Container>,
    #[serde(default, deserialize_with = "list")]
    volumes: Vec<PodVolume>,
    #[serde(default)]
    security_context: Option<Context>,
    #[serde(default, deserialize_with = "list")]
    image_pull_secrets: Vec<Named>,
    #[serde(default)]
    service_account_name: Option<String>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    node_selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    affinity: Option<Affinity>,
    #[serde(default)]
    os: Option<Named>,
    #[serde(default)]
    host_network: Option<bool>,
    #[serde(default, rename = "hostPID")]
    host_pid: Option<bool>,
    #[serde(default, rename = "hostIPC")]
    host_ipc: Option<bool>,
    #[serde(default)]
    host_users: Option<bool>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    command: Option<Vec<String>>,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default, deserialize_with = "list")]
    env: Vec<Variable>,
    #[serde(default, deserialize_with = "list")]
    env_from: Vec<Source>,
    #[serde(default)]
    security_context: Option<Context>,
    #[serde(default, deserialize_with = "list")]
    ports: Vec<Port>,
    #[serde(default, deserialize_with = "list")]
    volume_mounts: Vec<VolumeMount>,
    #[serde(default)]
    restart_policy: Option<String>,
    #[serde(default)]
    liveness_probe: Option<Handler>,
    #[serde(default)]
    readiness_probe: Option<Handler>,
    #[serde(default)]
    startup_probe: Option<Handler>,
    #[serde(default)]
    lifecycle: Option<Lifecycle>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value_from: Option<ValueFrom>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValueFrom {
    #[serde(default)]
    config_map_key_ref: Option<Key>,
    #[serde(default)]
    secret_key_ref: Option<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    name: String,
    #[serde(default)]
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    config_map_ref: Option<Named>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase")]
struct Context {
    #[serde(default)]
    run_as_user: Option<u32>,
    #[serde(default)]
    run_as_group: Option<u32>,
    #[serde(default)]
    run_as_non_root: Option<bool>,
    #[serde(default)]
    supplemental_groups: Option<BTreeSet<u32>>,
    #[serde(default)]
    fs_group: Option<u32>,
    #[serde(default)]
    privileged: Option<bool>,
    #[serde(default)]
    allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    read_only_root_filesystem: Option<bool>,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default)]
    seccomp_profile: Option<Profile>,
    #[serde(default)]
    sysctls: Option<Vec<Sysctl>>,
}

#[derive(Deserialize, Default, Clone)]
struct Capabilities {
    #[serde(default, deserialize_with = "list")]
    add: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    drop: Vec<String>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    localhost_profile: Option<String>,
}

#[derive(Deserialize, Clone)]
struct Sysctl {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: u16,
    #[serde(default)]
    host_port: Option<u16>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(default)]
    sub_path: Option<String>,
    #[serde(default)]
    sub_path_expr: Option<String>,
    #[serde(default)]
    read_only: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handler {
    #[serde(default)]
    exec: Option<Exec>,
    #[serde(default)]
    http_get: Option<OfPort>,
    #[serde(default)]
    tcp_socket: Option<OfPort>,
    #[serde(default)]
    grpc: Option<OfPort>,
}

#[derive(Deserialize)]
struct Exec {
    #[serde(default, deserialize_with = "list")]
    command: Vec<String>,
}

#[derive(Deserialize)]
struct OfPort {
    port: NumberOrName,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(u16),
    Name(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    #[serde(default)]
    post_start: Option<Handler>,
    #[serde(default)]
    pre_stop: Option<Handler>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodVolume {
    name: String,
    #[serde(default)]
    config_map: Option<ConfigMap>,
    #[serde(default)]
    secret: Option<Ignored>,
    #[serde(default, rename = "downwardAPI")]
    downward_api: Option<Ignored>,
    #[serde(default)]
    projected: Option<Projected>,
    #[serde(default)]
    empty_dir: Option<Ignored>,
    #[serde(default)]
    host_path: Option<HostPath>,
    #[serde(default)]
    image: Option<Image>,
    /// Every other source: any one says that the volume is not the empty one that a volume without a source is.
    #[serde(flatten)]
    other: BTreeMap<String, serde::de::IgnoredAny>,
}

/// An object whose presence is all that counts.
#[derive(Deserialize)]
struct Ignored {}

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    name: String,
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    key: String,
    path: String,
}

#[derive(Deserialize)]
struct Projected {
    #[serde(default, deserialize_with = "list")]
    sources: Vec<Projection>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Projection {
    #[serde(default)]
    config_map: Option<ConfigMap>,
}

#[derive(Deserialize)]
struct HostPath {
    path: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    #[serde(default)]
    node_affinity: Option<NodeAffinity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity {
    #[serde(default)]
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector {
    #[serde(default, deserialize_with = "list")]
    node_selector_terms: Vec<Term>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    #[serde(default, deserialize_with = "list")]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default, deserialize_with = "list")]
    values: Vec<String>,
}

impl Pod {
    pub(super) fn containers(self) -> Result<PodSpec, SpecError> {
        let operating_systems = self.narrowed(OS, self.os.as_ref().map(|os| os.name.clone()));
        let architectures = self.narrowed(ARCHITECTURE, None);
        let host = HostNamespaces {
            network: self.host_network.unwrap_or_default(),
            pid: self.host_pid.unwrap_or_default(),
            ipc: self.host_ipc.unwrap_or_default(),
        };
        let own_users = self.host_users == Some(false);
        let of_pod = self.security_context.unwrap_or_default();
        let lists = [&self.init_containers, &self.containers, &self.ephemeral_containers];
        let mounted = lists.into_iter().flatten().flat_map(|container| {
            container.volume_mounts.iter().map(|mount| mount.name.as_str()).collect::<BTreeSet<_>>()
        });
        let mounted: Vec<&str> = mounted.collect();
        let is_shared = |name: &str| mounted.iter().filter(|mounted| **mounted == name).count() > 1;
        let volumes = self.volumes.iter().map(|volume| {
            let kind = (volume.kind(), is_shared(&volume.name));
            (volume.name.clone(), kind)
        });
        let volumes: BTreeMap<String, (Volume, bool)> = volumes.collect();
        let image_volumes = self.volumes.iter().filter_map(|volume| {
            let reference = volume.image.as_ref()?.reference.clone();
            Some(ImageUse { role: Role::Volume, name: volume.name.clone(), reference })
        });
        let image_volumes = image_volumes.collect();
        let roles = [
            (Role::Init, self.init_containers),
            (Role::Container, self.containers),
            (Role::Ephemeral, self.ephemeral_containers),
        ];
        let all = roles.into_iter().flat_map(|(role, list)| list.into_iter().map(move |one| (role, one)));
        let containers: Result<_, SpecError> =
            all.map(|(role, container)| container.spec(role, &of_pod, own_users, &volumes, host)).collect();
        Ok(PodSpec {
            containers: containers?,
            image_volumes,
            pull_secrets: self.image_pull_secrets.into_iter().map(|secret| secret.name).collect(),
            service_account: self
                .service_account_name
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            node: self.node_name.filter(|name| !name.is_empty()),
            operating_systems,
            architectures,
        })
    }

    /// The values a node's label may have: by selector, by every required term, by the pod's own word.
    fn narrowed(&self, labels: [&str; 2], own: Option<String>) -> Option<BTreeSet<String>> {
        let selector = self.node_selector.iter().flatten().find(|(key, _)| labels.contains(&key.as_str()));
        let selected = own.or_else(|| selector.map(|(_, value)| value.clone()));
        if let Some(value) = selected {
            return Some(BTreeSet::from([value]));
        }
        let affinity = self.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let of = |term: &Term| {
            let is_meant = |one: &&Expression| labels.contains(&one.key.as_str()) && one.operator == "In";
            term.match_expressions.iter().find(is_meant).map(|one| one.values.clone())
        };
        // Any one term suffices for the scheduler.
        let sets: Option<Vec<Vec<String>>> = terms.iter().map(of).collect();
        sets.filter(|sets| !sets.is_empty()).map(|sets| sets.into_iter().flatten().collect())
    }
}

impl Container {
    fn spec(
        self,
        role: Role,
        of_pod: &Context,
        own_users: bool,
        volumes: &BTreeMap<String, (Volume, bool)>,
        host: HostNamespaces,
    ) -> Result<ContainerSpec, SpecError> {
        let role = match self.restart_policy.as_deref() {
            Some("Always") if role == Role::Init => Role::Sidecar,
            _ => role,
        };
        let name = self.name.clone();
        let wrong = |field: &str, why: String| SpecError(format!("container {name}: {field}: {why}"));
        let path = |field: &str, text: &str| {
            ImagePath::normalize(text.as_bytes()).map_err(|error| wrong(field, error.to_string()))
        };
        let workdir = self.working_dir.as_deref().filter(|text| !text.is_empty());
        let workdir = workdir.map(|text| path("workingDir", text)).transpose()?;
        let probes = self.probes();
        let mounts: Result<Vec<Mount>, SpecError> = self
            .volume_mounts
            .iter()
            .map(|mount| {
                let (volume, shared) = volumes.get(&mount.name).cloned().unwrap_or((Volume::Other, false));
                Ok(Mount {
                    path: path("mountPath", &mount.mount_path)?,
                    name: mount.name.clone(),
                    sub_path: mount.sub_path.clone().or_else(|| mount.sub_path_expr.clone()).unwrap_or_default(),
                    read_only: mount.read_only.unwrap_or_default(),
                    shared,
                    volume,
                })
            })
            .collect();
        let ports: Result<Vec<DeclaredPort>, SpecError> = self
            .ports
            .iter()
            .map(|port| {
                let protocol = protocol(port.protocol.as_deref());
                let protocol =
                    protocol.ok_or_else(|| wrong("ports.protocol", "neither TCP, UDP nor SCTP".to_owned()))?;
                Ok(DeclaredPort { port: port.container_port, protocol, host_port: port.host_port })
            })
            .collect();
        Ok(ContainerSpec {
            role,
            image: self.image,
            command: self.command.filter(|words| !words.is_empty()),
            args: self.args.filter(|words| !words.is_empty()),
            workdir,
            env: self.env.into_iter().map(Variable::setting).collect(),
            env_from: self.env_from.into_iter().map(Source::named).collect(),
            security: security(of_pod, self.security_context.unwrap_or_default(), own_users),
            ports: ports?,
            mounts: mounts?,
            probes,
            host,
            name: self.name,
        })
    }

    fn probes(&self) -> Vec<Probe> {
        let hooks = self.lifecycle.as_ref();
        let all = [
            ("livenessProbe", self.liveness_probe.as_ref()),
            ("readinessProbe", self.readiness_probe.as_ref()),
            ("startupProbe", self.startup_probe.as_ref()),
            ("postStart", hooks.and_then(|hooks| hooks.post_start.as_ref())),
            ("preStop", hooks.and_then(|hooks| hooks.pre_stop.as_ref())),
        ];
        let named = all.into_iter().filter_map(|(name, handler)| Some((name, handler?)));
        named.map(|(name, handler)| Probe { name: name.to_owned(), action: handler.action(&self.ports) }).collect()
    }
}

impl Variable {
    fn setting(self) -> (String, Setting) {
        let setting = match (self.value, self.value_from) {
            (_, Some(ValueFrom { config_map_key_ref: Some(Key { name, key }), .. })) => {
                Setting::ConfigMap { name, key }
            }
            (_, Some(ValueFrom { secret_key_ref: Some(_), .. })) => Setting::Secret,
            (_, Some(_)) => Setting::Field,
            (value, None) => Setting::Value(value.unwrap_or_default()),
        };
        (self.name, setting)
    }
}

impl Source {
    fn named(self) -> EnvFrom {
        EnvFrom { prefix: self.prefix.unwrap_or_default(), config_map: self.config_map_ref.map(|named| named.name) }
    }
}

impl Handler {
    fn action(&self, ports: &[Port]) -> Action {
        if let Some(exec) = &self.exec {
            return Action::Exec(exec.command.clone());
        }
        let port = [&self.http_get, &self.tcp_socket, &self.grpc].into_iter().flatten().next();
        let number = port.and_then(|port| match &port.port {
            NumberOrName::Number(number) => Some(*number),
            NumberOrName::Name(name) => {
                let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
                named.map(|port| port.container_port).or_else(|| name.parse().ok())
            }
        });
        number.map_or(Action::Other, Action::Connect)
    }
}

impl PodVolume {
    fn kind(&self) -> Volume {
        let files = |map: &ConfigMap| ConfigMapFiles {
            name: map.name.clone(),
            items: map
                .items
                .as_ref()
                .map(|items| items.iter().map(|item| (item.key.clone(), item.path.clone())).collect()),
        };
        if let Some(map) = &self.config_map {
            return Volume::ConfigMaps(vec![files(map)]);
        }
        if let Some(projected) = &self.projected {
            let maps: Option<Vec<_>> =
                projected.sources.iter().map(|source| source.config_map.as_ref().map(files)).collect();
            // One source that cannot be read makes the folder unknown.
            return maps.map_or(Volume::Secret, Volume::ConfigMaps);
        }
        if let Some(host) = &self.host_path {
            return Volume::HostPath(host.path.clone());
        }
        if let Some(image) = &self.image {
            return Volume::Image(image.reference.clone());
        }
        match (&self.secret, &self.downward_api, &self.empty_dir) {
            (Some(_), _, _) | (_, Some(_), _) => Volume::Secret,
            (_, _, Some(_)) => Volume::EmptyDir,
            _ if self.other.is_empty() => Volume::EmptyDir,
            _ => Volume::Other,
        }
    }
}

fn security(pod: &Context, own: Context, own_users: bool) -> Security {
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
    let fs_group = pod.fs_group;
    Security {
        user: own.run_as_user.or(pod.run_as_user),
        group: own.run_as_group.or(pod.run_as_group),
        groups: pod.supplemental_groups.iter().flatten().copied().chain(fs_group).collect(),
        fs_group,
        run_as_non_root: own.run_as_non_root.or(pod.run_as_non_root).unwrap_or_default(),
        privileged: own.privileged.unwrap_or_default(),
        allow_privilege_escalation: own.allow_privilege_escalation,
        read_only_root: own.read_only_root_filesystem.unwrap_or_default(),
        add: capabilities.add.iter().map(|name| capability(name)).collect(),
        drop: capabilities.drop.iter().map(|name| capability(name)).collect(),
        seccomp: seccomp.and_then(|profile| match profile.kind.as_str() {
            "RuntimeDefault" => Some(Seccomp::RuntimeDefault),
            "Unconfined" => Some(Seccomp::Unconfined),
            "Localhost" => Some(Seccomp::Localhost(profile.localhost_profile.clone().unwrap_or_default())),
            _ => None,
        }),
        own_users,
        sysctls: pod.sysctls.iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect(),
    }
}

/// `CAP_NET_ADMIN` for `NET_ADMIN`, `net_admin` and `CAP_NET_ADMIN`; `ALL` stays.
fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" | "" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The API server writes `null` where a list is empty.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Labels every node carries, and their names before Kubernetes 1.14.
const OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
const ARCHITECTURE: [&str; 2] = ["kubernetes.io/arch", "beta.kubernetes.io/arch"];
