//! The kernel's own numbers and names, as sensors write them: errors, flags of open(2), capabilities, protocols, calls.

use dna::{Act, CAPABILITIES, Change, Outcome, Protocol};

/// How a call ended, by what it returned: below zero is an error.
pub(crate) fn returned(number: Option<i64>) -> Outcome {
    match number {
        // A connection that does not wait is on its way.
        Some(-115) | None => Outcome::Done,
        Some(number) if number < 0 => Outcome::Failed { error: error_name(number) },
        Some(_) => Outcome::Done,
    }
}

/// How a call ended, by the name of its error; an empty one is none.
pub(crate) fn failed(error: Option<&str>) -> Outcome {
    match error {
        None | Some("" | "0" | "EINPROGRESS") => Outcome::Done,
        Some(error) => match error.parse::<i64>() {
            Ok(number) => returned(Some(-number.saturating_abs())),
            Err(_) => Outcome::Failed { error: error.to_owned() },
        },
    }
}

/// errno(3) of the calls that are compared; another one stays a number.
fn error_name(number: i64) -> String {
    let name = match number {
        -1 => "EPERM",
        -2 => "ENOENT",
        -3 => "ESRCH",
        -4 => "EINTR",
        -5 => "EIO",
        -6 => "ENXIO",
        -7 => "E2BIG",
        -8 => "ENOEXEC",
        -9 => "EBADF",
        -11 => "EAGAIN",
        -12 => "ENOMEM",
        -13 => "EACCES",
        -14 => "EFAULT",
        -16 => "EBUSY",
        -17 => "EEXIST",
        -20 => "ENOTDIR",
        -21 => "EISDIR",
        -22 => "EINVAL",
        -26 => "ETXTBSY",
        -28 => "ENOSPC",
        -30 => "EROFS",
        -36 => "ENAMETOOLONG",
        -38 => "ENOSYS",
        -40 => "ELOOP",
        -98 => "EADDRINUSE",
        -99 => "EADDRNOTAVAIL",
        -101 => "ENETUNREACH",
        -110 => "ETIMEDOUT",
        -111 => "ECONNREFUSED",
        -113 => "EHOSTUNREACH",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// open(2) of `path`, by its flags as a text: `O_WRONLY|O_CREAT`.
pub(crate) fn opened(path: String, flags: &str) -> Option<Act> {
    if flags.contains("O_WRONLY") || flags.contains("O_RDWR") {
        return Some(Act::Write { path, change: Change::Open });
    }
    flags.contains("O_RDONLY").then_some(Act::Read { path })
}

/// open(2) of `path`, by its flags as a number: the lowest two bits say what for.
pub(crate) fn opened_by_number(path: String, flags: i64) -> Act {
    if flags & 0o3 == 0 { Act::Read { path } } else { Act::Write { path, change: Change::Open } }
}

/// A capability by its name in any spelling, or by its number: `CAP_NET_RAW`, `net_raw`, `13`.
pub(crate) fn capability(text: &str) -> Option<String> {
    if let Ok(number) = text.parse::<usize>() {
        return CAPABILITIES.get(number).map(|name| format!("CAP_{name}"));
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITIES.contains(&name).then(|| format!("CAP_{name}"))
}

/// A transport protocol by its name, or by its number in an IP header.
pub(crate) fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "6" | "TCP" | "tcp" | "IPPROTO_TCP" | "SOCK_STREAM" => Some(Protocol::Tcp),
        "17" | "UDP" | "udp" | "IPPROTO_UDP" | "SOCK_DGRAM" => Some(Protocol::Udp),
        "132" | "SCTP" | "sctp" | "IPPROTO_SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Whether a call switches users or groups.
pub(crate) fn is_identity(call: &str) -> bool {
    const CALLS: [&str; 9] =
        ["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups"];
    CALLS.contains(&call)
}

/// What a call, or the hook of a security module under another name, does to a file; `None` where it does nothing to one.
pub(crate) fn change(call: &str) -> Option<Change> {
    let change = match call {
        "unlink" | "unlinkat" | "rmdir" | "path_unlink" | "path_rmdir" | "inode_unlink" | "inode_rmdir" => {
            Change::Remove
        }
        "rename" | "renameat" | "renameat2" | "path_rename" | "inode_rename" => Change::Rename,
        "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "link" | "linkat" | "mknod" | "mknodat" | "path_mkdir"
        | "path_symlink" | "path_link" | "path_mknod" | "inode_create" | "inode_mkdir" | "inode_symlink"
        | "inode_link" | "inode_mknod" => Change::Create,
        "truncate" | "ftruncate" | "path_truncate" | "file_truncate" => Change::Truncate,
        "chmod" | "fchmod" | "fchmodat" | "fchmodat2" | "path_chmod" | "chmod_common" => Change::Mode,
        "chown" | "fchown" | "lchown" | "fchownat" | "path_chown" | "chown_common" => Change::Owner,
        _ => return None,
    };
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_name() {
        assert_eq!(returned(Some(-2)), Outcome::Failed { error: "ENOENT".to_owned() });
        assert_eq!(returned(Some(-1000)), Outcome::Failed { error: "-1000".to_owned() });
        assert_eq!(returned(Some(32768)), Outcome::Done);
        assert_eq!(failed(Some("2")), Outcome::Failed { error: "ENOENT".to_owned() });
        assert_eq!(failed(Some("")), Outcome::Done);
    }

    #[test]
    fn a_capability_is_known_by_name_and_number() {
        assert_eq!(capability("net_raw").as_deref(), Some("CAP_NET_RAW"));
        assert_eq!(capability("CAP_SYS_ADMIN").as_deref(), Some("CAP_SYS_ADMIN"));
        assert_eq!(capability("34").as_deref(), Some("CAP_SYSLOG"));
        assert_eq!(capability("64"), None);
        assert_eq!(capability("CAP_FLY"), None);
    }
}
