//! Kinds of programs, folders, system calls and addresses: facts of Linux and of well-known tools.

use std::net::IpAddr;

use crate::is_shell;

/// What a program is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Shell,
    /// It starts another program and is gone, or looks after it.
    Wrapper,
    Interpreter,
    /// It fetches files.
    Download,
    /// It opens connections for whoever starts it.
    Network,
    Compiler,
    Packages,
    Schedule,
}

impl Tool {
    pub(super) fn of(stem: &str) -> Option<Self> {
        Some(match stem {
            shell if is_shell(shell) => Self::Shell,
            "tini" | "dumb-init" | "catatonit" | "gosu" | "su-exec" | "setpriv" | "chpst" | "setuidgid" | "env"
            | "exec" | "nice" | "ionice" | "nohup" | "setsid" | "stdbuf" | "timeout" | "chroot" | "sudo" | "su"
            | "runuser" | "unshare" | "prlimit" => Self::Wrapper,
            "python" | "pypy" | "perl" | "ruby" | "node" | "nodejs" | "deno" | "bun" | "php" | "lua" | "luajit"
            | "java" | "jexec" | "tclsh" | "guile" | "Rscript" | "dotnet" | "mono" | "gawk" | "mawk" => {
                Self::Interpreter
            }
            "curl" | "wget" | "aria" | "axel" | "lftp" | "ftp" | "tftp" | "fetch" | "lwp-request" | "http" => {
                Self::Download
            }
            "nc" | "ncat" | "netcat" | "nc.openbsd" | "nc.traditional" | "socat" | "telnet" | "ssh" | "sshpass"
            | "scp" | "sftp" | "nmap" | "rsh" | "cryptcat" | "chisel" => Self::Network,
            "gcc" | "cc" | "c++" | "g++" | "clang" | "tcc" | "cpp" | "ld" | "as" | "go" | "rustc" | "cargo"
            | "make" | "javac" => Self::Compiler,
            "apt" | "apt-get" | "dpkg" | "apk" | "yum" | "dnf" | "microdnf" | "rpm" | "zypper" | "pip" | "npm"
            | "gem" | "pecl" | "cpan" => Self::Packages,
            "crontab" | "at" | "batch" | "systemctl" => Self::Schedule,
            _ => return None,
        })
    }
}

/// A name without folder, ending and version: `python3.11` is `python`, `liblua5.3.so.0` is `liblua`.
pub(super) fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.split(".so").next().unwrap_or_default();
    let ends = [".sh", ".py", ".pl", ".rb", ".js", ".mjs", ".php", ".jar", ".war", ".lua"];
    let name = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_'));
    // A name of digits alone is its own.
    if bare.is_empty() { name.to_owned() } else { bare.to_owned() }
}

/// Whether a library is an interpreter's: `libperl`.
pub(super) fn is_embedded_interpreter(stem: &str) -> bool {
    stem.strip_prefix("lib").is_some_and(|name| Tool::of(name) == Some(Tool::Interpreter))
}

/// What a folder is for, and whether a server seldom has business there.
pub(super) fn folder(path: &str) -> (&'static str, bool) {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    let name = path.rsplit('/').next().unwrap_or_default();
    // Each by its manual page: ld.so(8), passwd(5), crontab(5), sshd(8), bash(1), hier(7), proc(5).
    if path.starts_with("/etc/ld.so.") {
        ("what every program maps", true)
    } else if starts(&["/etc/cron", "/var/spool/cron"]) {
        ("schedules of commands", true)
    } else if path.contains("/.ssh") {
        ("keys that open a login", true)
    } else if matches!(name, ".bashrc" | ".profile" | ".bash_profile" | ".zshrc") || path.starts_with("/etc/profile") {
        ("what a shell runs at its start", true)
    } else if matches!(path, "/etc/passwd" | "/etc/shadow" | "/etc/group" | "/etc/gshadow")
        || path.starts_with("/etc/sudoers")
    {
        ("accounts", true)
    } else if starts(&[
        "/bin/",
        "/sbin/",
        "/lib",
        "/usr/bin/",
        "/usr/sbin/",
        "/usr/lib",
        "/usr/local/bin/",
        "/usr/local/sbin/",
    ]) {
        ("programs and libraries", true)
    } else if starts(&["/etc/systemd/", "/etc/init.d/"]) {
        ("what is started at boot", true)
    } else if starts(&["/proc/sys/", "/sys/"]) {
        ("settings of the kernel", true)
    } else if starts(&["/etc/"]) {
        ("configuration", false)
    } else if starts(&["/tmp/", "/var/tmp/", "/dev/shm/"]) {
        ("temporary files", false)
    } else if starts(&["/run/", "/var/run/"]) {
        ("run-time files", false)
    } else if starts(&["/var/log/"]) {
        ("logs", false)
    } else {
        ("data", false)
    }
}

/// A family of system calls that few servers need. Source: the manual page of each.
pub(super) fn asks_of_kernel(syscall: &str) -> Option<&'static str> {
    Some(match syscall {
        "ptrace" | "process_vm_readv" | "process_vm_writev" | "pidfd_getfd" | "kcmp" => "other processes' memory",
        "mount" | "umount2" | "move_mount" | "fsopen" | "fsmount" | "open_tree" | "pivot_root" | "mount_setattr" => {
            "mounts"
        }
        "setns" | "unshare" => "namespaces",
        "bpf" | "perf_event_open" => "programs in the kernel and its counters",
        "init_module" | "finit_module" | "delete_module" => "kernel modules",
        "kexec_load" | "kexec_file_load" | "reboot" | "swapon" | "swapoff" => "the machine's state",
        "keyctl" | "add_key" | "request_key" => "kernel keys",
        "memfd_create" | "memfd_secret" | "execveat" | "userfaultfd" => "files in memory alone",
        "open_by_handle_at" | "name_to_handle_at" => "files by handle",
        _ => return None,
    })
}

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The container itself.
    Own,
    /// A private network (RFC 1918, RFC 4193, RFC 6598), or link-local.
    Private,
    Public,
}

/// Of a host written as an address; none for a name.
pub(super) fn place(host: &str) -> Option<Place> {
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(match address {
        _ if address.is_loopback() || address.is_unspecified() => Place::Own,
        _ if address.is_multicast() => Place::Private,
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            if v4.is_private() || v4.is_link_local() || v4.is_broadcast() || shared {
                Place::Private
            } else {
                Place::Public
            }
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.octets();
            let unique_local = first & 0xfe == 0xfc;
            if unique_local || v6.segments().first().is_some_and(|one| one & 0xffc0 == 0xfe80) {
                Place::Private
            } else {
                Place::Public
            }
        }
    })
}
