//! What the container runtime adds: facts of a cluster's nodes that decide what a container may do.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ContainerSpec, Seccomp};

/// Facts of the nodes. The defaults are those of containerd 2 with an unconfigured kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RuntimeFacts {
    /// `net.ipv4.ip_unprivileged_port_start` in a pod's own network namespace. containerd 2 sets it to 0
    /// (`enable_unprivileged_ports`); CRI-O leaves the kernel's 1024.
    pub unprivileged_port_start: u16,
    /// Capabilities of a container that asks for nothing.
    pub capabilities: BTreeSet<String>,
    /// The kubelet's `seccompDefault`: a pod that names no profile gets the runtime's.
    pub seccomp_default: bool,
    /// Folders that the image declares as volumes are writable even where the root is not: containerd mounts a folder of the
    /// node there, CRI-O's default does not.
    pub image_volumes_writable: bool,
}

impl Default for RuntimeFacts {
    fn default() -> Self {
        Self {
            unprivileged_port_start: 0,
            capabilities: DEFAULT_CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect(),
            seccomp_default: false,
            image_volumes_writable: true,
        }
    }
}

impl RuntimeFacts {
    /// The bounding set of a container, in the order the runtime applies what the pod asks: all if `ALL` is added, none if
    /// `ALL` is dropped, then what is added, then what is dropped. Source: containerd,
    /// `internal/cri/server/container_create_linux.go`.
    #[must_use]
    pub fn granted(&self, spec: &ContainerSpec) -> BTreeSet<String> {
        let security = &spec.security;
        let all = || CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>();
        if security.privileged {
            return all();
        }
        let mut set = if security.add.contains(ALL) { all() } else { self.capabilities.clone() };
        if security.drop.contains(ALL) {
            set.clear();
        }
        set.extend(security.add.iter().filter(|name| *name != ALL).cloned());
        set.retain(|name| !security.drop.contains(name));
        set
    }

    /// The first port that a process without capabilities may open in this container's network namespace.
    #[must_use]
    pub fn unprivileged_port_start(&self, spec: &ContainerSpec) -> u16 {
        let set = spec.security.sysctls.get("net.ipv4.ip_unprivileged_port_start").and_then(|text| text.parse().ok());
        let own = if spec.host.network { KERNEL_PORT_START } else { self.unprivileged_port_start };
        set.unwrap_or(own)
    }

    /// Whether the runtime's own seccomp profile applies.
    #[must_use]
    pub fn is_default_seccomp(&self, spec: &ContainerSpec) -> bool {
        !spec.security.privileged
            && match &spec.security.seccomp {
                Some(profile) => *profile == Seccomp::RuntimeDefault,
                None => self.seccomp_default,
            }
    }
}

/// Every capability by its bit, 0 to 40, without `CAP_`. Source: Linux 6.12, `include/uapi/linux/capability.h`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Source: containerd, `pkg/oci/spec.go`, `defaultUnixCaps`.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The pod's word for every capability.
const ALL: &str = "ALL";

/// `PROT_SOCK`, the kernel's default.
const KERNEL_PORT_START: u16 = 1024;
