//! What a pod says about its containers: the JSON of a pod's `spec` in, one [`ContainerSpec`] for each container and one
//! [`ImageUse`] for each image out. Only fields that bear on behavior are read; of those, a wrong shape is an error.
//!
//! Source: Kubernetes API reference, core/v1 `PodSpec`, `Container`, `EphemeralContainer`, `Volume`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ImagePath, Protocol, Start};

mod wire;

/// What a pod says about its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// Init containers, containers, ephemeral containers, in that order, as written.
    pub containers: Vec<ContainerSpec>,
    /// Volumes whose contents are an image.
    pub image_volumes: Vec<ImageUse>,
    /// Secrets to pull with, by name.
    pub pull_secrets: Vec<String>,
    /// The service account; `default` where none is named.
    pub service_account: String,
    /// The name of the node, where the pod is bound to one.
    pub node: Option<String>,
    /// Operating systems that may be chosen by node selector, required affinity or `os`; none: all.
    pub operating_systems: Option<BTreeSet<String>>,
    /// Architectures, likewise.
    pub architectures: Option<BTreeSet<String>>,
}

impl PodSpec {
    /// Reads the `spec` of a pod or of a pod template.
    ///
    /// # Errors
    /// [`SpecError`] where a field has another shape than the API's.
    pub fn read(spec: &Value) -> Result<Self, SpecError> {
        if !spec.is_object() {
            return Err(SpecError("it is no object".to_owned()));
        }
        let pod = wire::Pod::deserialize(spec).map_err(|error| SpecError(error.to_string()))?;
        pod.containers()
    }

    /// Every image the pod brings, in the order it names them.
    pub fn images(&self) -> impl Iterator<Item = ImageUse> + '_ {
        let of = |container: &ContainerSpec| ImageUse {
            role: container.role,
            name: container.name.clone(),
            reference: container.image.clone(),
        };
        self.containers.iter().map(of).chain(self.image_volumes.iter().cloned())
    }
}

/// A pod that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pod's spec cannot be read: {0}")]
pub struct SpecError(pub(crate) String);

/// A place of a pod that brings an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageUse {
    /// What it is used for.
    pub role: Role,
    /// The container's or volume's name.
    pub name: String,
    /// The reference as written.
    pub reference: String,
}

/// What a pod uses an image for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// A container that runs before the others and ends.
    Init,
    /// An init container with `restartPolicy: Always`, which stays.
    Sidecar,
    /// A container.
    Container,
    /// A container added to a running pod, `kubectl debug`.
    Ephemeral,
    /// A volume: its files are mounted, nothing of it is started.
    Volume,
}

impl Role {
    /// Its name, as JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Sidecar => "sidecar",
            Self::Container => "container",
            Self::Ephemeral => "ephemeral",
            Self::Volume => "volume",
        }
    }
}

/// What a pod says about one container, the pod's own settings applied where the container has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// What it is.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// The image reference as written.
    pub image: String,
    /// In place of the image's entrypoint and command.
    pub command: Option<Vec<String>>,
    /// In place of the image's command.
    pub args: Option<Vec<String>>,
    /// `workingDir`.
    pub workdir: Option<ImagePath>,
    /// Environment variables in the order they take effect.
    pub env: Vec<(String, Setting)>,
    /// ConfigMaps and Secrets all of whose keys become variables, in order: they come before `env`.
    pub env_from: Vec<EnvFrom>,
    /// Who it runs as and what it may do.
    pub security: Security,
    /// `ports`.
    pub ports: Vec<DeclaredPort>,
    /// `volumeMounts`, with what is mounted.
    pub mounts: Vec<Mount>,
    /// Probes and hooks.
    pub probes: Vec<Probe>,
    /// Namespaces of the node it shares.
    pub host: HostNamespaces,
}

impl ContainerSpec {
    /// The command line: the image's, with what the container says in its place, and `$(NAME)` filled in from variables
    /// whose value is known. Source: Kubernetes, "Define a Command and Arguments for a Container".
    #[must_use]
    pub fn argv(&self, start: &Start, env: &BTreeMap<String, String>) -> Vec<String> {
        let entrypoint = start.argv.get(..start.entrypoint as usize).unwrap_or(&start.argv);
        let given = |words: &[String]| words.iter().map(|word| expand(word, env)).collect::<Vec<_>>();
        match (&self.command, &self.args) {
            (None, None) => start.argv.clone(),
            (None, Some(args)) => [entrypoint.to_vec(), given(args)].concat(),
            (Some(command), None) => given(command),
            (Some(command), Some(args)) => [given(command), given(args)].concat(),
        }
    }

    /// Whether the container replaces the image's start command.
    #[must_use]
    pub fn changes_command(&self) -> bool {
        self.command.is_some() || self.args.is_some()
    }
}

/// The value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Setting {
    /// This text.
    Value(String),
    /// A key of a ConfigMap.
    ConfigMap {
        /// The ConfigMap's name.
        name: String,
        /// The key.
        key: String,
    },
    /// A key of a Secret; never read.
    Secret,
    /// A field of the pod or its resources, known once it is placed.
    Field,
}

/// All keys of an object as variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// What stands before each key.
    pub prefix: String,
    /// The ConfigMap; none for a Secret.
    pub config_map: Option<String>,
}

/// Who a container runs as and what it may do: its `securityContext`, the pod's where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// `runAsUser`.
    pub user: Option<u32>,
    /// `runAsGroup`.
    pub group: Option<u32>,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: BTreeSet<u32>,
    /// `fsGroup`: volumes that support it belong to this group and are writable to it.
    pub fs_group: Option<u32>,
    /// `runAsNonRoot`.
    pub run_as_non_root: bool,
    /// `privileged`.
    pub privileged: bool,
    /// `allowPrivilegeEscalation`; absent means yes.
    pub allow_privilege_escalation: Option<bool>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `capabilities.add`, as `CAP_…`, or `ALL`.
    pub add: BTreeSet<String>,
    /// `capabilities.drop`, likewise.
    pub drop: BTreeSet<String>,
    /// `seccompProfile`; absent leaves it to the kubelet.
    pub seccomp: Option<Seccomp>,
    /// The pod's own user namespace: `hostUsers: false`.
    pub own_users: bool,
    /// `sysctls` of the pod.
    pub sysctls: BTreeMap<String, String>,
}

/// A seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// The container runtime's own.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A file on the node.
    Localhost(String),
}

/// A port that the pod declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredPort {
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The node's port, where it takes one.
    pub host_port: Option<u16>,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where.
    pub path: ImagePath,
    /// The volume's name.
    pub name: String,
    /// The part of the volume that is mounted; empty: all.
    pub sub_path: String,
    /// It cannot be written.
    pub read_only: bool,
    /// Another container of the pod has it too, and may fill it.
    pub shared: bool,
    /// What it is.
    pub volume: Volume,
}

/// What a volume holds, as far as it bears on behavior.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Volume {
    /// Empty at first.
    EmptyDir,
    /// Keys of ConfigMaps as files: every one, or those that are listed with their paths.
    ConfigMaps(Vec<ConfigMapFiles>),
    /// Credentials and facts of the cluster: a Secret, a service account's token, the downward API. Never read.
    Secret,
    /// Files of the node.
    HostPath(String),
    /// An image's files.
    Image(String),
    /// Filled at run time: a claim, a driver's volume.
    Other,
}

/// Files out of one ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapFiles {
    /// The ConfigMap's name.
    pub name: String,
    /// Key and relative path of each file; none: every key under its own name.
    pub items: Option<Vec<(String, String)>>,
}

/// A probe or a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Its field: `livenessProbe`, `readinessProbe`, `startupProbe`, `postStart`, `preStop`.
    pub name: String,
    /// What it does.
    pub action: Action,
}

/// What a probe or a hook does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Runs a command in the container.
    Exec(Vec<String>),
    /// Connects to a port of the container.
    Connect(u16),
    /// Anything else.
    Other,
}

/// Namespaces of the node that a container shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNamespaces {
    /// `hostNetwork`.
    pub network: bool,
    /// `hostPID`.
    pub pid: bool,
    /// `hostIPC`.
    pub ipc: bool,
}

/// `$(NAME)` becomes the variable's value where it is known; `$$` is a `$`; what is not known stays as written.
///
/// Source: Kubernetes, `third_party/forked/golang/expansion`.
#[must_use]
pub fn expand(word: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match (after.strip_prefix('$'), name) {
            (Some(after), _) => {
                out.push('$');
                after
            }
            (None, Some((name, after))) if env.contains_key(name) => {
                out.push_str(env.get(name).map_or("", String::as_str));
                after
            }
            _ => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &Value) -> PodSpec {
        PodSpec::read(spec).expect("a pod")
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_carrier_of_an_image_is_named() {
        let spec = pod(&json!({
            "initContainers": [{"name": "a", "image": "i/a"}, {"name": "b", "image": "i/b", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "image": "i/c"}],
            "ephemeralContainers": [{"name": "d", "image": "i/d", "targetContainerName": "c"}],
            "volumes": [{"name": "v", "image": {"reference": "i/v", "pullPolicy": "Always"}}, {"name": "w", "emptyDir": {}}],
        }));
        let images: Vec<_> = spec.images().map(|one| (one.role, one.name, one.reference)).collect();
        let expected = [
            (Role::Init, "a", "i/a"),
            (Role::Sidecar, "b", "i/b"),
            (Role::Container, "c", "i/c"),
            (Role::Ephemeral, "d", "i/d"),
            (Role::Volume, "v", "i/v"),
        ];
        let expected: Vec<_> = expected.map(|(role, name, image)| (role, name.to_owned(), image.to_owned())).to_vec();
        assert_eq!(images, expected);
    }

    #[test]
    fn a_container_s_setting_stands_before_the_pod_s() {
        let spec = pod(&json!({
            "securityContext": {"runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "fsGroup": 3,
                "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "a", "image": "i", "securityContext": {"runAsUser": 5, "runAsNonRoot": false,
                    "capabilities": {"add": ["net_admin", "CAP_SYS_TIME"], "drop": ["all"]}}},
                {"name": "b", "image": "i"},
            ],
        }));
        let [a, b] = spec.containers.as_slice() else { panic!("two containers") };
        assert_eq!((a.security.user, a.security.group, a.security.run_as_non_root), (Some(5), Some(2), false));
        assert_eq!(a.security.add, BTreeSet::from(["CAP_NET_ADMIN".to_owned(), "CAP_SYS_TIME".to_owned()]));
        assert_eq!(a.security.drop, BTreeSet::from(["ALL".to_owned()]));
        assert_eq!((b.security.user, b.security.run_as_non_root), (Some(1), true));
        assert_eq!(b.security.groups, BTreeSet::from([3, 4]));
        assert_eq!(b.security.seccomp, Some(Seccomp::RuntimeDefault));
    }

    #[test]
    fn the_command_line_is_the_kubelet_s() {
        let start = Start { argv: words("/entry run -x"), entrypoint: 1, ..Start::default() };
        let env = BTreeMap::from([("PORT".to_owned(), "80".to_owned())]);
        let line = |container: Value| {
            let spec = pod(&json!({"containers": [container]}));
            spec.containers.first().expect("one").argv(&start, &env).join(" ")
        };
        assert_eq!(line(json!({"name": "a", "image": "i"})), "/entry run -x");
        assert_eq!(line(json!({"name": "a", "image": "i", "args": ["-p", "$(PORT)"]})), "/entry -p 80");
        assert_eq!(
            line(json!({"name": "a", "image": "i", "command": ["sh", "$$(PORT) $(NO) $"]})),
            "sh $(PORT) $(NO) $"
        );
        assert_eq!(line(json!({"name": "a", "image": "i", "command": ["sh"], "args": ["-c"]})), "sh -c");
    }

    #[test]
    fn what_is_mounted_is_told_by_its_volume() {
        let spec = pod(&json!({
            "volumes": [
                {"name": "conf", "configMap": {"name": "c", "items": [{"key": "k", "path": "sub/f"}]}},
                {"name": "all", "projected": {"sources": [{"configMap": {"name": "d"}}]}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": "x"}},
                {"name": "tmp"},
            ],
            "containers": [{"name": "a", "image": "i", "volumeMounts": [
                {"name": "conf", "mountPath": "/etc/app/"}, {"name": "all", "mountPath": "/all", "subPath": "x"},
                {"name": "token", "mountPath": "/var/run/t", "readOnly": true}, {"name": "claim", "mountPath": "/data"},
                {"name": "tmp", "mountPath": "/tmp"},
            ]}],
        }));
        let mounts = &spec.containers.first().expect("one").mounts;
        let kinds: Vec<_> = mounts.iter().map(|mount| (mount.path.to_string(), mount.volume.clone())).collect();
        let files = |name: &str, items: Option<Vec<(String, String)>>| {
            Volume::ConfigMaps(vec![ConfigMapFiles { name: name.to_owned(), items }])
        };
        let expected = [
            ("/etc/app", files("c", Some(vec![("k".to_owned(), "sub/f".to_owned())]))),
            ("/all", files("d", None)),
            ("/var/run/t", Volume::Secret),
            ("/data", Volume::Other),
            ("/tmp", Volume::EmptyDir),
        ];
        assert_eq!(kinds, expected.map(|(path, volume)| (path.to_owned(), volume)).to_vec());
        assert_eq!(mounts.get(1).map(|mount| mount.sub_path.as_str()), Some("x"));
    }

    #[test]
    fn the_platform_is_narrowed_by_what_must_hold() {
        let of = |spec: Value| {
            let spec = pod(&spec);
            (spec.operating_systems, spec.architectures)
        };
        let set = |name: &str| Some(BTreeSet::from([name.to_owned()]));
        let arch = json!({"containers": [], "nodeSelector": {"kubernetes.io/arch": "arm64"}, "os": {"name": "linux"}});
        assert_eq!(of(arch), (set("linux"), set("arm64")));
        let term = |values: Value| json!({"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": values}]});
        let affinity = |terms: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        assert_eq!(of(affinity(json!([term(json!(["arm64"]))]))), (None, set("arm64")));
        let both = Some(BTreeSet::from(["amd64".to_owned(), "arm64".to_owned()]));
        assert_eq!(of(affinity(json!([term(json!(["arm64"])), term(json!(["amd64"]))]))), (None, both));
        assert_eq!(of(affinity(json!([term(json!(["arm64"])), {}]))), (None, None), "one term leaves it open");
    }

    #[test]
    fn a_wrong_shape_is_an_error() {
        for spec in [json!(null), json!([]), json!({"containers": "x"}), json!({"containers": [{"image": 1}]})] {
            assert!(PodSpec::read(&spec).is_err(), "{spec}");
        }
        let path = json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 70000}]}]});
        assert!(PodSpec::read(&path).is_err());
    }
}
