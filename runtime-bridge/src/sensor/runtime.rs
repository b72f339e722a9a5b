//! What the container's runtime does itself, in the container's name.
//!
//! Before the container's program runs, runc and its like are in its cgroup and its namespaces already: they mount, open, change
//! users and use capabilities that no image asked for. So does the `pause` program that holds a pod's namespaces. None of it is
//! the image's, so it is left out, here and nowhere else.
//!
//! A process may give itself any name (prctl(2)), and root in a container may write a `/usr/bin/runc`. So one sign is never
//! enough, a sign that speaks against it decides, and a connection, a port or another program is never the runtime's: an
//! intruder who dresses up as runc hides little.

use dna::{Act, Activity, Process};

/// Names that low-level runtimes give themselves between clone(2) and execve(2).
const STAGES: [&str; 5] = ["runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]", "youki:[1:INTER]", "youki:[2:INIT]"];
/// Low-level runtimes.
const RUNTIMES: [&str; 4] = ["runc", "crun", "youki", "runsc"];
/// Who starts them, and stays beside the container.
const MONITORS: [&str; 5] =
    ["containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2", "conmon", "conmonrs"];
/// Who starts those.
const MANAGERS: [&str; 2] = ["crio", "dockerd"];
/// Who starts a container's program from within: the agent in a virtual machine, and an init that Docker puts before it.
const INNER: [&str; 2] = ["kata-agent", "docker-init"];

/// Whether a process is one of those that start a container's first program, and commands from outside.
pub(crate) fn starts_programs(process: &Process) -> bool {
    let is_one = |name: &str| {
        let (name, _) = name.split_once(':').unwrap_or((name, ""));
        let all = RUNTIMES.iter().chain(&MONITORS).chain(&INNER);
        // A `comm` has 15 bytes, and other shims have other ends.
        all.into_iter().any(|starter| *starter == name) || name.starts_with("containerd-shim")
    };
    [process.name.as_deref(), process.exe.as_deref().map(base)].into_iter().flatten().any(is_one)
}
/// How a runtime runs itself from memory, so that the container cannot overwrite it.
const COPIES: [&str; 6] =
    ["/proc/self/exe", "/proc/self/fd/", "/dev/fd/", "memfd:runc_cloned:", "/memfd:runc_cloned:", "/memfd:crun"];

/// Whether the container's runtime did this, not the container's program; or the `pause` program of its pod.
#[must_use]
pub fn is_runtimes_own(activity: &Activity) -> bool {
    is_pause(activity) || is_in_bundle(activity) || (may_be_runtimes(&activity.act) && is_runtime(activity))
}

/// A runtime that prepares a container neither connects over a network nor serves.
fn may_be_runtimes(act: &Act) -> bool {
    !matches!(act, Act::Listen { .. } | Act::Accept { .. } | Act::Connect { .. })
}

fn is_runtime(activity: &Activity) -> bool {
    let process = &activity.process;
    let is_stage = process.name.as_deref().is_some_and(|name| STAGES.contains(&name));
    let exe = process.exe.as_deref().map(|exe| is_runtimes_file(exe, process));
    let parent = activity.ancestors.first().and_then(parent_starts);
    if exe == Some(false) || parent == Some(false) {
        return false;
    }
    let signs = usize::from(is_stage) + usize::from(exe == Some(true)) + usize::from(parent == Some(true));
    // The first process of any container has such a parent.
    signs >= 2 && (is_stage || exe == Some(true))
}

/// `runc init`: the runtime's own file, or the copy of it in memory, which then is told by its argument.
fn is_runtimes_file(exe: &str, process: &Process) -> bool {
    let is_init = process.argv.get(1).is_some_and(|word| word == "init");
    let is_copy = COPIES.iter().any(|copy| exe.starts_with(copy));
    let is_stage = process.name.as_deref().is_some_and(|name| STAGES.contains(&name));
    RUNTIMES.contains(&base(exe)) || (is_copy && (is_init || is_stage))
}

/// Whether this process starts containers; `None` where it is not told what it is.
fn parent_starts(parent: &Process) -> Option<bool> {
    let starters = || MONITORS.iter().chain(&MANAGERS);
    let is_one =
        |name: &str| starters().any(|starter| *starter == name) || RUNTIMES.contains(&name) || STAGES.contains(&name);
    // A `comm` has 15 bytes.
    let is_name = |name: &str| is_one(name) || starters().any(|starter| starter.get(..15) == Some(name));
    match (parent.exe.as_deref(), parent.name.as_deref()) {
        (None, None) => None,
        (Some(exe), _) if COPIES.iter().any(|copy| exe.starts_with(copy)) => parent.name.as_deref().map(is_name),
        (Some(exe), _) => Some(is_one(base(exe))),
        (None, Some(name)) => Some(is_name(name)),
    }
}

/// A file of the container by its path on the node, from a process that the sensor cannot name: devices and mount points made
/// before the container has a root of its own.
fn is_in_bundle(activity: &Activity) -> bool {
    let (Act::Write { path, .. } | Act::Read { path }) = &activity.act else { return false };
    let is_nameless = activity.process.exe.is_none() && activity.process.name.is_none();
    is_nameless && path.starts_with("/run/containerd/io.containerd.runtime.v2.task/") && path.contains("/rootfs/")
}

/// `/pause` of an image called so, while it does what it is for: to start, to wait, to end.
fn is_pause(activity: &Activity) -> bool {
    let image = activity.container.image.as_deref().unwrap_or_default();
    let name = base(image).split([':', '@']).next().unwrap_or_default();
    activity.process.exe.as_deref() == Some("/pause")
        && matches!(name, "pause" | "pause-amd64" | "pause-arm64")
        && matches!(activity.act, Act::Exec { .. } | Act::Exit)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use dna::{Outcome, Protocol, SeenContainer};
    use jiff::Timestamp;

    use super::*;

    fn activity(name: Option<&str>, exe: Option<&str>, argv: &[&str], parent: Option<&str>, act: Act) -> Activity {
        Activity {
            at: Timestamp::UNIX_EPOCH,
            sensor: "falco".to_owned(),
            node: None,
            container: SeenContainer::default(),
            process: Process {
                name: name.map(str::to_owned),
                exe: exe.map(str::to_owned),
                argv: argv.iter().map(|word| (*word).to_owned()).collect(),
                ..Process::default()
            },
            ancestors: parent
                .map(|exe| Process { exe: Some(exe.to_owned()), ..Process::default() })
                .into_iter()
                .collect(),
            act,
            outcome: Outcome::Done,
            rule: None,
        }
    }

    fn capability() -> Act {
        Act::Capability { name: "CAP_SYS_ADMIN".to_owned() }
    }

    #[test]
    fn runc_before_the_program() {
        let shim = Some("/usr/bin/containerd-shim-runc-v2");
        for (name, exe, argv, parent) in [
            (Some("runc:[2:INIT]"), Some("/usr/bin/runc"), &["runc", "init"][..], None),
            (Some("runc:[2:INIT]"), Some("/memfd:runc_cloned:/proc/self/exe (deleted)"), &[], shim),
            (Some("runc:[1:CHILD]"), None, &[], shim),
            (None, Some("/usr/local/sbin/runc"), &["/usr/local/sbin/runc", "init"], shim),
            (None, Some("/proc/self/fd/7"), &["/proc/self/fd/7", "init"], Some("/usr/bin/runc")),
            (Some("crun"), Some("/usr/bin/crun"), &[], Some("/usr/bin/conmon")),
        ] {
            assert!(is_runtimes_own(&activity(name, exe, argv, parent, capability())), "{name:?} {exe:?}");
        }
    }

    #[test]
    fn who_dresses_up_is_seen() {
        let shim = Some("/usr/bin/containerd-shim-runc-v2");
        for (name, exe, argv, parent) in [
            // A name alone, taken by prctl.
            (Some("runc:[2:INIT]"), None, &[][..], None),
            // A name over another file, or under a shell.
            (Some("runc:[2:INIT]"), Some("/tmp/miner"), &[], shim),
            (Some("runc:[2:INIT]"), Some("/usr/bin/runc"), &[], Some("/bin/sh")),
            // The container's own first process, and one that runs itself again.
            (Some("nginx"), Some("/usr/sbin/nginx"), &["nginx"], shim),
            (Some("server"), Some("/proc/self/exe"), &["server", "worker"], shim),
            (None, Some("/usr/bin/runc"), &["runc", "init"], None),
        ] {
            assert!(!is_runtimes_own(&activity(name, exe, argv, parent, capability())), "{name:?} {exe:?}");
        }
    }

    #[test]
    fn a_runtime_has_no_peers() {
        let connect = Act::Connect { protocol: Protocol::Tcp, address: None, host: None, port: 443 };
        let activity = activity(Some("runc:[2:INIT]"), Some("/usr/bin/runc"), &["runc", "init"], None, connect);
        assert!(!is_runtimes_own(&activity));
    }

    #[test]
    fn a_device_made_through_the_bundle() {
        let path = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/cc23/rootfs/dev/random".to_owned();
        let made = Act::Write { path, change: dna::Change::Create };
        assert!(is_runtimes_own(&activity(None, None, &[], None, made.clone())));
        assert!(!is_runtimes_own(&activity(Some("sh"), Some("/bin/sh"), &[], None, made)));
    }

    #[test]
    fn pause_waits_and_does_nothing_else() {
        let mut pause = activity(Some("pause"), Some("/pause"), &["/pause"], None, Act::Exec { file: None });
        assert!(!is_runtimes_own(&pause), "of an image that is not told");
        pause.container.image = Some("registry.k8s.io/pause:3.9".to_owned());
        assert!(is_runtimes_own(&pause));
        pause.act = capability();
        assert!(!is_runtimes_own(&pause));
        pause.container.image = Some("mallory/not-pause:3.9".to_owned());
        pause.act = Act::Exit;
        assert!(!is_runtimes_own(&pause));
    }
}
