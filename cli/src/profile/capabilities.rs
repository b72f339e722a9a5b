//! The capabilities a container needs: a behavior in; Kubernetes' and Docker's way to say it out.

use std::collections::BTreeSet;

use dna::{Behavior, Confidence};
use serde_json::{Value, json};

/// The capabilities to grant: all that are expected, and those merely possible that containers have anyway. Nothing that is
/// only possible widens what a container has today.
pub(crate) fn needed(behavior: &Behavior) -> BTreeSet<String> {
    let items = behavior.capabilities.iter();
    let granted =
        items.filter(|item| item.confidence < Confidence::Possible || DEFAULT.contains(&bare(&item.what.name)));
    granted.map(|item| item.what.name.clone()).collect()
}

/// The container's part of a pod: `securityContext`.
pub(crate) fn security_context(add: &BTreeSet<String>) -> Value {
    let add: Vec<&str> = add.iter().map(|name| bare(name)).collect();
    json!({ "securityContext": { "capabilities": { "drop": ["ALL"], "add": add } } })
}

/// Options of `docker run`, `podman run` and `nerdctl run`.
pub(crate) fn docker_run(add: &BTreeSet<String>) -> String {
    let add = add.iter().map(|name| format!(" --cap-add={}", bare(name)));
    format!("--cap-drop=ALL{}\n", add.collect::<String>())
}

/// Kubernetes and Docker name capabilities without their prefix.
fn bare(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}

/// What Docker grants by default, as containerd and CRI-O do or less. Source: moby `oci/caps/defaults.go`.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

#[cfg(test)]
mod tests {
    use dna::{Capability, Known};

    use super::*;

    fn behavior(items: &[(&str, Confidence)]) -> Behavior {
        let item = |(name, confidence): &(&str, Confidence)| Known {
            what: Capability { name: (*name).to_owned() },
            confidence: *confidence,
            probability: None,
            when: Vec::new(),
            evidence: Vec::new(),
        };
        Behavior { capabilities: items.iter().map(item).collect(), ..Behavior::default() }
    }

    #[test]
    fn what_is_only_possible_widens_nothing() {
        let behavior = behavior(&[
            ("CAP_CHOWN", Confidence::Possible),
            ("CAP_SYS_ADMIN", Confidence::Possible),
            ("CAP_NET_ADMIN", Confidence::Likely),
        ]);
        let add = needed(&behavior);
        assert_eq!(docker_run(&add), "--cap-drop=ALL --cap-add=CHOWN --cap-add=NET_ADMIN\n");
        let context = r#"{"securityContext":{"capabilities":{"add":["CHOWN","NET_ADMIN"],"drop":["ALL"]}}}"#;
        assert_eq!(security_context(&add).to_string(), context);
    }

    #[test]
    fn a_workload_that_needs_none_drops_all() {
        assert_eq!(docker_run(&needed(&Behavior::default())), "--cap-drop=ALL\n");
    }
}
