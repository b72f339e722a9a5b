//! Capabilities and system calls: granted against needed.

use std::collections::BTreeSet;

use super::{Bound, failure, is_expected};
use crate::{Capability, Completeness, Confidence, Effect, Finding, FindingCode, Kind, Known};

pub(super) fn check(bound: &Bound<'_>) -> Vec<Finding> {
    let mut found = not_needed(bound);
    found.extend(bound.behavior.capabilities.iter().filter(is_expected).filter_map(|item| missing(bound, item)));
    found.extend(cannot_gain(bound));
    found.extend(denied(bound));
    found
}

/// What the pod asks for beyond the runtime's own set, and nothing in the image can use.
fn not_needed(bound: &Bound<'_>) -> Vec<Finding> {
    if matches!(bound.behavior.completeness.capabilities, Completeness::None) {
        return Vec::new();
    }
    let security = &bound.spec.security;
    let needed: BTreeSet<&str> = bound.behavior.capabilities.iter().map(|item| item.what.name.as_str()).collect();
    let of = |code, subject: &str, message: String, remedy: String| Finding {
        code,
        subject: subject.to_owned(),
        effect: Effect::None,
        certainty: Confidence::Likely,
        message,
        remedy: Some(remedy),
        evidence: Vec::new(),
    };
    if security.privileged {
        let asked =
            if needed.is_empty() { "none".to_owned() } else { needed.iter().copied().collect::<Vec<_>>().join(", ") };
        return vec![of(
            FindingCode::PrivilegedNotNeeded,
            "privileged",
            format!("privileged gives every right on the node; the image can use these capabilities: {asked}"),
            "remove privileged and add the capabilities that the workload needs".to_owned(),
        )];
    }
    // Without a right to keep, a user other than root has nothing of it.
    let is_useless =
        |name: &str| bound.identity.uid.is_some_and(|uid| uid != 0) && bound.no_new_privileges() && name != "ALL";
    let unused = security.add.iter().filter(|name| !needed.contains(name.as_str()) || is_useless(name));
    unused
        .map(|name| {
            let short = name.trim_start_matches("CAP_");
            let message = match name.as_str() {
                "ALL" => format!("every capability is added; the image can use {} of them", needed.len()),
                _ => format!("nothing in the image is predicted to need {name}"),
            };
            of(FindingCode::CapabilityNotNeeded, name, message, format!("remove {short} from capabilities.add"))
        })
        .collect()
}

/// Needed, and root does not have it here. Another user has none at all: what it then cannot do is told by files and ports.
fn missing(bound: &Bound<'_>, item: &Known<Capability>) -> Option<Finding> {
    let name = &item.what.name;
    if bound.identity.uid != Some(0) || bound.holds(name) {
        return None;
    }
    let call = call_of(name);
    let short = name.trim_start_matches("CAP_");
    Some(Finding {
        code: FindingCode::CapabilityMissing,
        subject: name.clone(),
        effect: failure(item.confidence),
        certainty: item.confidence,
        message: format!("{name} is needed and not granted: {call} will fail with EPERM"),
        remedy: Some(format!("add {short} to capabilities.add")),
        evidence: item.evidence.clone(),
    })
}

/// Programs with rights of their own, where none can be gained.
fn cannot_gain(bound: &Bound<'_>) -> Vec<Finding> {
    if !bound.no_new_privileges() || bound.identity.uid == Some(0) {
        return Vec::new();
    }
    let run = |item: &&Known<crate::Exec>| {
        bound.dna.programs.iter().find(|program| program.path == item.what.path).filter(|program| {
            matches!(program.kind, Kind::Elf(_)) && (program.mode & 0o4000 != 0 || program.capabilities.is_some())
        })
    };
    let gaining = bound.behavior.exec.iter().filter(is_expected).filter_map(|item| Some((item, run(&item)?)));
    gaining
        .map(|(item, program)| Finding {
            code: FindingCode::NoNewPrivileges,
            subject: program.path.to_string(),
            effect: if program.capabilities.is_some() {
                Effect::MayFail
            } else {
                failure(item.confidence).max(Effect::MayFail)
            },
            certainty: item.confidence,
            message: format!(
                "{} gains rights by its file, which allowPrivilegeEscalation: false takes away",
                program.path
            ),
            remedy: Some("run as the user that has these rights, or allow privilege escalation".to_owned()),
            evidence: item.evidence.clone(),
        })
        .collect()
}

/// Expected system calls that the runtime's own profile does not allow.
fn denied(bound: &Bound<'_>) -> Vec<Finding> {
    if !bound.runtime.is_default_seccomp(bound.spec) {
        return Vec::new();
    }
    let calls = bound.behavior.syscalls.iter().filter(is_expected);
    let denied = calls.filter_map(|item| {
        let (_, unless) = DENIED.iter().find(|(names, _)| names.split(' ').any(|name| name == item.what.name))?;
        let granted = unless.split(' ').any(|name| bound.granted.contains(&format!("CAP_{name}")));
        (!granted).then_some(item)
    });
    denied
        .map(|item| Finding {
            code: FindingCode::SeccompDenies,
            subject: item.what.name.clone(),
            // Most programs take the refusal for "not available".
            effect: failure(item.confidence).max(Effect::MayFail),
            certainty: item.confidence,
            message: format!("the runtime's seccomp profile denies {}, which is predicted", item.what.name),
            remedy: Some("use a profile made for this image: mayfly profile seccomp".to_owned()),
            evidence: item.evidence.clone(),
        })
        .collect()
}

/// The call that fails first without a capability. Source: capabilities(7).
fn call_of(capability: &str) -> &'static str {
    match capability.trim_start_matches("CAP_") {
        "CHOWN" => "chown(2)",
        "DAC_OVERRIDE" | "DAC_READ_SEARCH" => "open(2) of others' files",
        "FOWNER" => "chmod(2) of others' files",
        "FSETID" => "chmod(2) with setgid",
        "KILL" => "kill(2) of others' processes",
        "SETGID" => "setgid(2) or setgroups(2)",
        "SETUID" => "setuid(2)",
        "NET_BIND_SERVICE" => "bind(2) to a port below 1024",
        "NET_ADMIN" => "ioctl(2) on network devices",
        "NET_RAW" => "socket(2) of type SOCK_RAW",
        "SYS_CHROOT" => "chroot(2)",
        "SYS_ADMIN" => "mount(2), setns(2) and others",
        "SYS_PTRACE" => "ptrace(2)",
        "SYS_NICE" => "setpriority(2) and sched_setscheduler(2)",
        "SYS_RESOURCE" => "setrlimit(2)",
        "SYS_TIME" => "clock_settime(2)",
        "IPC_LOCK" => "mlock(2)",
        "MKNOD" => "mknod(2)",
        "AUDIT_WRITE" => "writing to the audit log",
        "SETFCAP" => "setting file capabilities",
        "SETPCAP" => "changing capability sets",
        "BPF" => "bpf(2)",
        "PERFMON" => "perf_event_open(2)",
        _ => "the call that needs it",
    }
}

/// System calls that the default profile of containerd and Docker denies, unless one of these capabilities is granted; a
/// call with a capability that cannot be had here is denied to all. Source: containerd, `contrib/seccomp/seccomp_default.go`.
const DENIED: [(&str, &str); 13] = [
    ("bpf", "SYS_ADMIN BPF"),
    ("perf_event_open", "SYS_ADMIN PERFMON"),
    ("mount umount umount2 move_mount open_tree fsconfig fsmount fsopen fspick mount_setattr pivot_root", "SYS_ADMIN"),
    ("setns unshare quotactl quotactl_fd lookup_dcookie fanotify_init setdomainname sethostname syslog", "SYS_ADMIN"),
    ("chroot", "SYS_CHROOT"),
    ("reboot", "SYS_BOOT"),
    ("delete_module init_module finit_module", "SYS_MODULE"),
    ("acct", "SYS_PACCT"),
    ("iopl ioperm", "SYS_RAWIO"),
    ("settimeofday stime clock_settime clock_settime64", "SYS_TIME"),
    ("vhangup", "SYS_TTY_CONFIG"),
    ("open_by_handle_at", "DAC_READ_SEARCH"),
    (
        "io_uring_setup io_uring_enter io_uring_register userfaultfd kexec_load kexec_file_load add_key request_key keyctl nfsservctl swapon swapoff",
        "NONE",
    ),
];
