//! Files whose reading or writing tells of more than the program that does it: facts of Linux and its distributions.

/// What is at stake when a file is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stake {
    /// In a few words.
    pub(crate) what: &'static str,
    /// MITRE ATT&CK technique.
    pub(crate) technique: &'static str,
    /// How much it weighs.
    pub(crate) risk: f64,
    /// It is no matter while the container starts: entry points write configuration.
    pub(crate) is_usual_at_start: bool,
}

const fn stake(what: &'static str, technique: &'static str, risk: f64, is_usual_at_start: bool) -> Option<Stake> {
    Some(Stake { what, technique, risk, is_usual_at_start })
}

/// What is at stake in a write to this path; none where any program may write there.
#[must_use]
pub(crate) fn written(path: &str) -> Option<Stake> {
    let name = path.rsplit('/').next().unwrap_or_default();
    // ld.so(8)
    if path == "/etc/ld.so.preload" {
        return stake("code that every program maps", "T1574.006", 0.95, false);
    }
    // passwd(5), shadow(5), group(5), sudoers(5)
    if matches!(path, "/etc/passwd" | "/etc/shadow" | "/etc/group" | "/etc/gshadow" | "/etc/sudoers")
        || path.starts_with("/etc/sudoers.d/")
    {
        return stake("accounts and their rights", "T1136", 0.8, true);
    }
    if path.starts_with("/etc/pam.d/") || path == "/etc/ld.so.conf" || path.starts_with("/etc/ld.so.conf.d/") {
        return stake("how programs start", "T1556", 0.8, true);
    }
    // crontab(5), cron(8)
    if path.starts_with("/etc/cron") || path.starts_with("/var/spool/cron") || path == "/etc/crontab" {
        return stake("a schedule of commands", "T1053.003", 0.85, true);
    }
    // sshd(8), FILES
    if path.contains("/.ssh/") || path.ends_with("/.ssh") {
        return stake("keys that open a login", "T1098.004", 0.85, true);
    }
    // bash(1), FILES
    if matches!(name, ".bash_history" | ".ash_history" | ".zsh_history" | ".sh_history") {
        return stake("the shell's history", "T1070.003", 0.6, true);
    }
    if matches!(name, ".bashrc" | ".profile" | ".bash_profile" | ".bash_login" | ".zshrc")
        || path.starts_with("/etc/profile")
    {
        return stake("what a shell runs at its start", "T1546.004", 0.6, true);
    }
    // hier(7)
    let code = [
        "/bin/",
        "/sbin/",
        "/usr/bin/",
        "/usr/sbin/",
        "/usr/local/bin/",
        "/usr/local/sbin/",
        "/lib/",
        "/lib64/",
        "/usr/lib/",
        "/usr/local/lib/",
    ];
    if code.iter().any(|folder| path.starts_with(folder)) {
        return stake("a folder of programs and libraries", "T1554", 0.7, true);
    }
    // proc(5), core(5), cgroups(7)
    if path == "/proc/sys/kernel/core_pattern" || name == "release_agent" || path == "/sys/kernel/uevent_helper" {
        return stake("a program that the node would run", "T1611", 0.95, false);
    }
    if path.starts_with("/proc/sys/") || path.starts_with("/sys/") {
        return stake("the kernel's settings", "T1611", 0.6, true);
    }
    if path.starts_with("/etc/systemd/") || path.starts_with("/etc/init.d/") {
        return stake("what is started at boot", "T1543", 0.6, true);
    }
    if is_program_text(name)
        && !path.starts_with("/tmp/")
        && !path.starts_with("/var/tmp/")
        && !path.starts_with("/proc/")
    {
        return stake("program text that a server may run", "T1505.003", 0.7, true);
    }
    if path.starts_with("/etc/") {
        return stake("configuration", "T1565.001", 0.4, true);
    }
    None
}

/// Names of files that servers and interpreters run. Source: default handlers of PHP, CGI, JSP containers; module names of interpreters.
fn is_program_text(name: &str) -> bool {
    const ENDINGS: [&str; 14] =
        ["php", "phtml", "phar", "php5", "php7", "jsp", "jspx", "war", "cgi", "pl", "asp", "aspx", "ashx", "so"];
    name.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && ENDINGS.contains(&ending))
}

/// What a removal or a cut of this path hides.
#[must_use]
pub(crate) fn removed(path: &str) -> Option<Stake> {
    let is_log = path.starts_with("/var/log/");
    if is_log { stake("logs", "T1070.002", 0.5, true) } else { written(path) }
}

/// What is read from this path; none where it is no secret.
#[must_use]
pub(crate) fn read(path: &str) -> Option<Stake> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if matches!(path, "/etc/shadow" | "/etc/gshadow" | "/etc/shadow-") {
        return stake("password hashes", "T1003.008", 0.8, false);
    }
    // proc(5)
    if path.starts_with("/proc/") && matches!(name, "environ" | "mem") {
        return stake("another process' variables or memory", "T1552.007", 0.7, false);
    }
    // The kubelet's projected service account token.
    if path.contains("/secrets/kubernetes.io/serviceaccount")
        || path.contains("/secrets/eks.amazonaws.com/serviceaccount")
    {
        return stake("the pod's token for the Kubernetes API", "T1528", 0.6, false);
    }
    if path.ends_with("/.aws/credentials")
        || path.ends_with("/.kube/config")
        || path.ends_with("/.docker/config.json")
        || path.contains("/.config/gcloud/")
        || path.contains("/.azure/")
    {
        return stake("credentials of a cloud", "T1552.001", 0.8, false);
    }
    if path.contains("/.ssh/") || (name.starts_with("id_") && !name.ends_with(".pub")) {
        return stake("SSH keys", "T1552.004", 0.8, false);
    }
    if matches!(
        path,
        "/run/docker.sock" | "/var/run/docker.sock" | "/run/containerd/containerd.sock" | "/var/run/crio/crio.sock"
    ) {
        return stake("the node's container runtime", "T1611", 0.9, false);
    }
    None
}

/// System calls that few programs make and many attacks do. Source: man pages of section 2; the docker seccomp profile's list of what it
/// keeps from containers.
#[must_use]
pub(crate) fn system_call(name: &str) -> Option<(&'static str, f64)> {
    let technique = match name {
        "ptrace" | "process_vm_readv" | "process_vm_writev" => ("T1055.008", 0.8),
        "mount" | "umount" | "umount2" | "pivot_root" | "move_mount" | "fsopen" | "fsmount" | "open_tree"
        | "open_by_handle_at" => ("T1611", 0.7),
        "unshare" | "setns" => ("T1611", 0.6),
        "init_module" | "finit_module" | "delete_module" | "kexec_load" | "kexec_file_load" => ("T1547.006", 0.95),
        "bpf" | "perf_event_open" | "userfaultfd" => ("T1611", 0.7),
        "memfd_create" => ("T1620", 0.5),
        "chroot" => ("T1611", 0.4),
        "swapon" | "swapoff" | "reboot" | "settimeofday" | "clock_settime" | "acct" | "quotactl" => ("T1499", 0.6),
        _ => return None,
    };
    Some(technique)
}
