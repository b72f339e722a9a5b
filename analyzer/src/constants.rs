//! The names of what the kernel is asked for by numbers, as in the Linux headers; a number without a name stays a number.

use dna::Arguments;

use crate::code::Asked;

/// How an argument is written.
#[derive(Debug, Clone, Copy)]
enum Naming {
    /// One of these.
    One(&'static [(u64, &'static str)]),
    /// One of the first, in the lowest bits, with any of the second.
    Kind(u64, &'static [(u64, &'static str)], &'static [(u64, &'static str)]),
    /// Any of these.
    Flags(&'static [(u64, &'static str)]),
    /// A user or group; -1 leaves it.
    Id,
    /// A number.
    Plain,
}

/// The sensitive parameters of a system call.
fn parameters(call: &str) -> &'static [(&'static str, Naming)] {
    use Naming::{Flags, Id, Kind, One, Plain};
    match call {
        "socket" => &[("domain", One(DOMAINS)), ("type", Kind(0xf, TYPES, TYPE_FLAGS)), ("protocol", Plain)],
        "socketpair" => &[("domain", One(DOMAINS)), ("type", Kind(0xf, TYPES, TYPE_FLAGS))],
        "clone" => &[("flags", Kind(0xff, SIGNALS, CLONE))],
        "unshare" => &[("flags", Flags(CLONE))],
        "setns" => &[("nstype", Flags(CLONE))],
        "prctl" => &[("option", One(PRCTL))],
        "ioctl" => &[("request", One(IOCTL))],
        "mount" => &[("flags", Flags(MOUNT))],
        "personality" => &[("persona", Plain)],
        "setuid" | "setgid" => &[("id", Id)],
        "setreuid" | "setregid" => &[("real", Id), ("effective", Id)],
        "setresuid" | "setresgid" => &[("real", Id), ("effective", Id), ("saved", Id)],
        _ => &[],
    }
}

/// What is known of a system call's arguments; none where nothing is.
pub(crate) fn arguments(call: &str, asked: &Asked) -> Option<Arguments> {
    let parameters = parameters(call);
    if parameters.is_empty() || asked.values.is_empty() {
        return None;
    }
    let mut values: Vec<Vec<Option<String>>> = Vec::new();
    for place in &asked.values {
        let mut rows: Vec<Vec<Option<String>>> = vec![Vec::new()];
        for ((_, naming), known) in parameters.iter().zip(place) {
            let shown: Vec<Option<String>> = match known {
                Some(numbers) => numbers.iter().map(|number| Some(name(*naming, *number))).collect(),
                None => vec![None],
            };
            rows = rows
                .iter()
                .flat_map(|row| shown.iter().map(|value| [row.as_slice(), std::slice::from_ref(value)].concat()))
                .collect();
        }
        values.extend(rows);
    }
    values.sort();
    values.dedup();
    let all_known = !asked.is_open && values.len() <= MAX_ROWS;
    values.truncate(MAX_ROWS);
    Some(Arguments { parameters: parameters.iter().map(|(name, _)| (*name).to_owned()).collect(), values, all_known })
}

fn name(naming: Naming, number: u64) -> String {
    // The kernel takes 32 bits of these.
    let number = number & 0xffff_ffff;
    let find = |names: &[(u64, &str)], number: u64| {
        names.iter().find(|(value, _)| *value == number).map(|(_, name)| (*name).to_owned())
    };
    match naming {
        Naming::One(names) => find(names, number).unwrap_or_else(|| plain(number)),
        Naming::Kind(mask, kinds, names) => {
            let kind = number & mask;
            let kind = find(kinds, kind).or_else(|| (kind != 0 || number == 0).then(|| plain(kind)));
            kind.into_iter()
                .chain(Some(flags(names, number & !mask)).filter(|text| text != "0"))
                .collect::<Vec<_>>()
                .join("|")
        }
        Naming::Flags(names) => flags(names, number),
        Naming::Id if number == 0xffff_ffff => "-1".to_owned(),
        Naming::Id | Naming::Plain => number.to_string(),
    }
}

fn flags(names: &[(u64, &str)], number: u64) -> String {
    let mut rest = number;
    let mut shown: Vec<String> = Vec::new();
    for (value, name) in names {
        if rest & value == *value {
            rest &= !value;
            shown.push((*name).to_owned());
        }
    }
    if rest != 0 || shown.is_empty() {
        shown.push(plain(rest));
    }
    shown.join("|")
}

fn plain(number: u64) -> String {
    if number < 1024 { number.to_string() } else { format!("{number:#x}") }
}

/// Rows kept of one call.
const MAX_ROWS: usize = 100;

/// include/linux/socket.h
const DOMAINS: &[(u64, &str)] = &[
    (0, "AF_UNSPEC"),
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (10, "AF_INET6"),
    (15, "AF_KEY"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (29, "AF_CAN"),
    (30, "AF_TIPC"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (40, "AF_VSOCK"),
    (44, "AF_XDP"),
];
/// include/linux/net.h
const TYPES: &[(u64, &str)] = &[
    (1, "SOCK_STREAM"),
    (2, "SOCK_DGRAM"),
    (3, "SOCK_RAW"),
    (4, "SOCK_RDM"),
    (5, "SOCK_SEQPACKET"),
    (6, "SOCK_DCCP"),
    (10, "SOCK_PACKET"),
];
const TYPE_FLAGS: &[(u64, &str)] = &[(0x800, "SOCK_NONBLOCK"), (0x8_0000, "SOCK_CLOEXEC")];
const SIGNALS: &[(u64, &str)] = &[(17, "SIGCHLD")];
/// include/uapi/linux/sched.h
const CLONE: &[(u64, &str)] = &[
    (0x80, "CLONE_NEWTIME"),
    (0x100, "CLONE_VM"),
    (0x200, "CLONE_FS"),
    (0x400, "CLONE_FILES"),
    (0x800, "CLONE_SIGHAND"),
    (0x1000, "CLONE_PIDFD"),
    (0x2000, "CLONE_PTRACE"),
    (0x4000, "CLONE_VFORK"),
    (0x8000, "CLONE_PARENT"),
    (0x1_0000, "CLONE_THREAD"),
    (0x2_0000, "CLONE_NEWNS"),
    (0x4_0000, "CLONE_SYSVSEM"),
    (0x8_0000, "CLONE_SETTLS"),
    (0x10_0000, "CLONE_PARENT_SETTID"),
    (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x40_0000, "CLONE_DETACHED"),
    (0x80_0000, "CLONE_UNTRACED"),
    (0x100_0000, "CLONE_CHILD_SETTID"),
    (0x200_0000, "CLONE_NEWCGROUP"),
    (0x400_0000, "CLONE_NEWUTS"),
    (0x800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
    (0x8000_0000, "CLONE_IO"),
];
/// include/uapi/linux/prctl.h
const PRCTL: &[(u64, &str)] = &[
    (1, "PR_SET_PDEATHSIG"),
    (2, "PR_GET_PDEATHSIG"),
    (3, "PR_GET_DUMPABLE"),
    (4, "PR_SET_DUMPABLE"),
    (7, "PR_GET_KEEPCAPS"),
    (8, "PR_SET_KEEPCAPS"),
    (15, "PR_SET_NAME"),
    (16, "PR_GET_NAME"),
    (21, "PR_GET_SECCOMP"),
    (22, "PR_SET_SECCOMP"),
    (23, "PR_CAPBSET_READ"),
    (24, "PR_CAPBSET_DROP"),
    (25, "PR_GET_TSC"),
    (26, "PR_SET_TSC"),
    (27, "PR_GET_SECUREBITS"),
    (28, "PR_SET_SECUREBITS"),
    (29, "PR_SET_TIMERSLACK"),
    (30, "PR_GET_TIMERSLACK"),
    (35, "PR_SET_MM"),
    (36, "PR_SET_CHILD_SUBREAPER"),
    (37, "PR_GET_CHILD_SUBREAPER"),
    (38, "PR_SET_NO_NEW_PRIVS"),
    (39, "PR_GET_NO_NEW_PRIVS"),
    (41, "PR_SET_THP_DISABLE"),
    (42, "PR_GET_THP_DISABLE"),
    (47, "PR_CAP_AMBIENT"),
    (52, "PR_SET_SPECULATION_CTRL"),
    (53, "PR_GET_SPECULATION_CTRL"),
    (55, "PR_SET_TAGGED_ADDR_CTRL"),
    (56, "PR_GET_TAGGED_ADDR_CTRL"),
    (57, "PR_SET_IO_FLUSHER"),
    (0x5961_6d61, "PR_SET_PTRACER"),
    (0x5356_4d41, "PR_SET_VMA"),
];
/// include/uapi/asm-generic/ioctls.h, include/uapi/linux/sockios.h, if_tun.h, fs.h, random.h
const IOCTL: &[(u64, &str)] = &[
    (0x5401, "TCGETS"),
    (0x5402, "TCSETS"),
    (0x5403, "TCSETSW"),
    (0x5404, "TCSETSF"),
    (0x540b, "TCFLSH"),
    (0x540e, "TIOCSCTTY"),
    (0x540f, "TIOCGPGRP"),
    (0x5410, "TIOCSPGRP"),
    (0x5412, "TIOCSTI"),
    (0x5413, "TIOCGWINSZ"),
    (0x5414, "TIOCSWINSZ"),
    (0x541b, "FIONREAD"),
    (0x5421, "FIONBIO"),
    (0x5422, "TIOCNOTTY"),
    (0x5450, "FIONCLEX"),
    (0x5451, "FIOCLEX"),
    (0x5452, "FIOASYNC"),
    (0x8004_5430, "TIOCGPTN"),
    (0x4004_5431, "TIOCSPTLCK"),
    (0x4004_9409, "FICLONE"),
    (0x8910, "SIOCGIFNAME"),
    (0x8912, "SIOCGIFCONF"),
    (0x8913, "SIOCGIFFLAGS"),
    (0x8914, "SIOCSIFFLAGS"),
    (0x8915, "SIOCGIFADDR"),
    (0x8916, "SIOCSIFADDR"),
    (0x891b, "SIOCGIFNETMASK"),
    (0x8921, "SIOCGIFMTU"),
    (0x8922, "SIOCSIFMTU"),
    (0x8927, "SIOCGIFHWADDR"),
    (0x8924, "SIOCSIFHWADDR"),
    (0x8933, "SIOCGIFINDEX"),
    (0x8946, "SIOCETHTOOL"),
    (0x8955, "SIOCSARP"),
    (0x89a0, "SIOCBRADDBR"),
    (0x4004_54ca, "TUNSETIFF"),
];
/// include/uapi/linux/mount.h
const MOUNT: &[(u64, &str)] = &[
    (0x1, "MS_RDONLY"),
    (0x2, "MS_NOSUID"),
    (0x4, "MS_NODEV"),
    (0x8, "MS_NOEXEC"),
    (0x10, "MS_SYNCHRONOUS"),
    (0x20, "MS_REMOUNT"),
    (0x400, "MS_NOATIME"),
    (0x1000, "MS_BIND"),
    (0x2000, "MS_MOVE"),
    (0x4000, "MS_REC"),
    (0x2_0000, "MS_UNBINDABLE"),
    (0x4_0000, "MS_PRIVATE"),
    (0x8_0000, "MS_SLAVE"),
    (0x10_0000, "MS_SHARED"),
    (0x20_0000, "MS_RELATIME"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named_as_in_the_headers() {
        let asked = Asked {
            values: [
                vec![Some(vec![2, 10]), Some(vec![0x8_0001]), Some(vec![0])],
                vec![Some(vec![16]), Some(vec![3]), None],
            ]
            .into(),
            is_open: true,
        };
        let arguments = arguments("socket", &asked).expect("something is known");
        let shown = |row: &Vec<Option<String>>| {
            row.iter().map(|value| value.clone().unwrap_or("?".into())).collect::<Vec<_>>().join(" ")
        };
        let rows: Vec<String> = arguments.values.iter().map(shown).collect();
        assert_eq!(
            rows,
            ["AF_INET SOCK_STREAM|SOCK_CLOEXEC 0", "AF_INET6 SOCK_STREAM|SOCK_CLOEXEC 0", "AF_NETLINK SOCK_RAW ?"]
        );
        assert!(!arguments.all_known);
        assert_eq!(flags(CLONE, 0x2002_0000), "CLONE_NEWNS|CLONE_NEWPID");
        assert_eq!(name(Naming::Kind(0xff, SIGNALS, CLONE), 0x4111), "SIGCHLD|CLONE_VM|CLONE_VFORK");
        assert_eq!(name(Naming::Id, u64::MAX), "-1");
        assert_eq!(name(Naming::One(IOCTL), 0x1234), "0x1234");
    }

    #[test]
    fn of_other_calls_nothing_is_told() {
        assert_eq!(arguments("read", &Asked::default()), None);
        assert_eq!(arguments("socket", &Asked { is_open: true, ..Asked::default() }), None);
    }
}
