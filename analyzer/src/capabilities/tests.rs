//! Small images, one for each rule, and one that the rule leaves alone.

use dna::{Limits, Syscall};

use super::*;
use crate::{Rootfs, closure, closure::Launch, merge};

/// An image under test.
struct Case {
    rootfs: Rootfs,
    uid: u32,
    calls: Vec<(&'static str, &'static str)>,
    asked: Vec<(&'static str, &'static str)>,
    arguments: BTreeMap<&'static str, dna::Arguments>,
    libraries: Vec<(&'static str, &'static str)>,
}

impl Case {
    fn new() -> Self {
        let mut rootfs = Rootfs::default();
        let programs = [
            "sh",
            "gosu",
            "setpriv",
            "chown",
            "chmod",
            "find",
            "mkdir",
            "install",
            "nginx",
            "sshd",
            "app",
            "ip",
            "ping",
            "crond",
            "tini",
            "dnsmasq",
            "redis-server",
            "chroot",
            "httpd",
        ];
        for name in programs {
            rootfs.put_file(&format!("/bin/{name}"), 0o755, "\x7fELF");
        }
        rootfs.put_file(
            "/etc/passwd",
            0o644,
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\nsshd:x:99:99::/:\n",
        );
        rootfs.put_file("/etc/group", 0o644, "root:x:0:\nweb:x:33:\n");
        Self { rootfs, uid: 0, calls: Vec::new(), asked: Vec::new(), arguments: BTreeMap::new(), libraries: Vec::new() }
    }

    fn script(mut self, text: &str) -> Self {
        self.rootfs.put_file("/entry.sh", 0o755, format!("#!/bin/sh\n{text}\n"));
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.rootfs.put_file(path, 0o644, text);
        self
    }

    /// A file of another user; a folder is made with a file in it.
    fn own(mut self, at: &str, uid: u32, gid: u32, mode: u32) -> Self {
        let path: ImagePath = at.parse().expect("a path");
        let inode = match self.rootfs.resolve(&path) {
            Ok(found) => found.inode,
            Err(_) => self.rootfs.make_directories(&path, 0).expect("no file in the way"),
        };
        let meta = &mut self.rootfs.inode_mut(inode).meta;
        (meta.uid, meta.gid, meta.mode) = (uid, gid, mode);
        self
    }

    fn file_capability(mut self, at: &str, bits: u32, effective: bool) -> Self {
        let path: ImagePath = at.parse().expect("a path");
        let inode = self.rootfs.resolve(&path).expect(at).inode;
        let words = [0x0200_0000 | u32::from(effective), bits, 0, 0, 0];
        let value: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        self.rootfs.inode_mut(inode).meta.xattrs.insert(b"security.capability"[..].into(), value.into());
        self
    }

    fn needs(self, line: &str) -> Needed {
        let limits = Limits::default();
        let accounts = crate::accounts::read(&self.rootfs, &limits, &mut Vec::new());
        let world = World { rootfs: &self.rootfs, accounts: &accounts, text_bytes: limits.text_bytes };
        let launch = Launch {
            argv: line.split(' ').map(str::to_owned).collect(),
            env: Vec::new(),
            uid: Some(self.uid),
            cwd: ImagePath::root(),
            confidence: Confidence::Certain,
            evidence: Evidence::Config { key: "Cmd".to_owned() },
        };
        let closure = closure::reach(&[launch], world, &limits, &mut closure::Silent);
        let (configured, _) = merge::configured(&closure, world);
        let path = |program: &str| program.parse::<ImagePath>().expect("a path");
        let mut calls = Calls::default();
        for (program, call) in self.calls.iter().chain(&self.asked) {
            let arguments = self.arguments.get(call).cloned();
            let what = Syscall { name: (*call).to_owned(), arguments, phase: None };
            let item = Known {
                what,
                confidence: Confidence::Likely,
                probability: None,
                when: Vec::new(),
                evidence: vec![Evidence::Binary { path: path(program), offset: Some(1), layer: None, detail: None }],
            };
            calls.programs.entry(path(program)).or_default().push(item);
        }
        for (program, call) in &self.asked {
            calls.asked.entry(path(program)).or_default().insert((*call).to_owned());
        }
        let mut loads: BTreeMap<ImagePath, Vec<Known<Load>>> = BTreeMap::new();
        for (program, library) in &self.libraries {
            let what = Load { path: path(library) };
            let (when, evidence) = (Vec::new(), Vec::new());
            let item = Known { what, confidence: Confidence::Certain, probability: None, when, evidence };
            loads.entry(path(program)).or_default().push(item);
        }
        let seen = Seen {
            closure: &closure,
            loads: &loads,
            calls: &calls,
            configured: &configured,
            exposed: &[],
            folders: &[ImagePath::root()],
        };
        needed(seen, world)
    }
}

/// Names without prefix; `~` in front of a likely one, `?` of a possible one.
fn shown(needed: &Needed) -> Vec<String> {
    let name = |item: &Known<Capability>| {
        let mark = match item.confidence {
            Confidence::Certain => "",
            Confidence::Likely => "~",
            Confidence::Possible => "?",
        };
        format!("{mark}{}", item.what.name.trim_start_matches("CAP_"))
    };
    needed.all.iter().map(name).collect()
}

/// What a start script as root needs.
fn script(text: &str) -> Vec<String> {
    shown(&Case::new().script(text).needs("/entry.sh"))
}

const NONE: [&str; 0] = [];

#[test]
fn a_wrapper_that_switches_the_user_needs_both() {
    assert_eq!(script("exec gosu web app"), ["SETGID", "SETUID"]);
    assert_eq!(script("exec tini -- gosu web app"), ["SETGID", "SETUID"]);
    assert_eq!(script("exec setpriv --reuid=web --init-groups app"), ["SETGID", "SETUID"]);
    assert_eq!(script("exec setpriv --reuid=web app"), ["SETUID"]);
    // The kernel asks for groups even where root stays root.
    assert_eq!(script("exec gosu root app"), ["SETGID"]);
    assert_eq!(script("if [ \"$X\" = y ]; then exec gosu web app; fi; app"), ["?SETGID", "?SETUID"]);
    assert_eq!(script("exec gosu nobody-here app"), NONE);
    assert_eq!(script("exec tini -- app"), NONE);
}

#[test]
fn who_is_not_root_needs_none() {
    let mut case = Case::new().script("chown web /srv; exec app");
    case.uid = 33;
    case.asked = vec![("/bin/app", "setuid"), ("/bin/app", "chroot"), ("/bin/app", "bind")];
    let needed = case.needs("/entry.sh");
    assert_eq!(shown(&needed), NONE);
    assert_eq!(needed.completeness, Completeness::Complete);
}

#[test]
fn a_setuid_program_that_nobody_runs_leaves_it_open() {
    let mut case = Case::new().own("/bin/ping", 0, 0, 0o4755);
    case.uid = 33;
    let needed = case.needs("app");
    assert_eq!(shown(&needed), NONE);
    assert!(matches!(needed.completeness, Completeness::Partial { .. }));
}

#[test]
fn a_setuid_program_is_its_owners() {
    let mut case = Case::new().own("/bin/ping", 0, 0, 0o4755);
    case.uid = 33;
    assert_eq!(shown(&case.needs("ping x")), ["?NET_RAW"]);
    let mut case = Case::new().own("/bin/ping", 99, 0, 0o4755);
    case.uid = 33;
    assert_eq!(shown(&case.needs("ping x")), NONE);
}

#[test]
fn file_capabilities_count_for_everyone() {
    for uid in [0, 33] {
        let mut case = Case::new().file_capability("/bin/app", 1 << 10, true);
        case.uid = uid;
        assert_eq!(shown(&case.needs("app")), ["NET_BIND_SERVICE"], "{uid}");
    }
    let mut case = Case::new().file_capability("/bin/app", 1 << 13, false);
    case.uid = 33;
    assert_eq!(shown(&case.needs("app")), ["~NET_RAW"]);
    assert_eq!(shown(&Case::new().file_capability("/bin/app", 1 << 13, true).needs("tini -- ping")), ["?NET_RAW"]);
    // The kernel takes none of a script's.
    assert_eq!(shown(&Case::new().script("app").file_capability("/entry.sh", 1 << 10, true).needs("/entry.sh")), NONE);
}

#[test]
fn a_low_port_of_root_is_needed_where_the_kernel_keeps_it() {
    let served = |port: u32, uid: u32| {
        let config = format!("events {{}}\nhttp {{ server {{ listen {port}; }} }}\n");
        let mut case = Case::new().file("/etc/nginx/nginx.conf", &config);
        case.uid = uid;
        case.needs("nginx")
    };
    let needed = served(80, 0);
    assert_eq!(shown(&needed), ["NET_BIND_SERVICE"]);
    let sysctl = |exceeds| Condition::Sysctl { name: "net.ipv4.ip_unprivileged_port_start".to_owned(), exceeds };
    assert_eq!(needed.all.first().map(|item| item.when.clone()), Some(vec![sysctl(80)]));
    assert_eq!(shown(&served(8080, 0)), NONE);
    assert_eq!(shown(&served(80, 33)), NONE);
}

#[test]
fn of_several_ports_the_lowest_one_decides() {
    let config = "events {}\nhttp { server { listen 443; listen 80; } }\n";
    let needed = Case::new().file("/etc/nginx/nginx.conf", config).needs("nginx");
    let when = needed.all.first().and_then(|item| item.when.first());
    assert!(matches!(when, Some(Condition::Sysctl { exceeds: 80, .. })), "{when:?}");
}

#[test]
fn a_server_that_is_told_a_user_becomes_it() {
    let config = "user web;\nevents {}\nhttp { server { listen 8080; } }\n";
    assert_eq!(shown(&Case::new().file("/etc/nginx/nginx.conf", config).needs("nginx")), ["~SETGID", "~SETUID"]);
    let root = config.replace("web", "root");
    assert_eq!(shown(&Case::new().file("/etc/nginx/nginx.conf", &root).needs("nginx")), NONE);
}

#[test]
fn a_folder_that_a_server_gives_its_user_needs_chown() {
    let config = "user web;\nevents {}\nhttp { client_body_temp_path /var/spool/body; server { listen 8080; } }\n";
    let case = || Case::new().file("/etc/nginx/nginx.conf", config);
    assert_eq!(shown(&case().needs("nginx")), ["~CHOWN", "~SETGID", "~SETUID"]);
    assert_eq!(shown(&case().own("/var/spool/body", 0, 0, 0o755).needs("nginx")), ["~CHOWN", "~SETGID", "~SETUID"]);
    assert_eq!(shown(&case().own("/var/spool/body", 33, 33, 0o700).needs("nginx")), ["~SETGID", "~SETUID"]);
}

#[test]
fn chown_of_a_start_script_needs_it_where_something_changes_hands() {
    assert_eq!(script("mkdir -p /data; chown -R web:web /data; app"), ["~CHOWN"]);
    assert_eq!(script("chown root:root /bin/app; app"), NONE);
    // The kernel asks also where nothing changes: root is not the owner.
    assert_eq!(
        shown(&Case::new().own("/data", 33, 33, 0o755).script("chown web /data").needs("/entry.sh")),
        ["~CHOWN"]
    );
    assert_eq!(script("chown nobody-here /data"), NONE);
    assert_eq!(script("install -d -o web /data"), ["~CHOWN"]);
    assert_eq!(script("install -d /data"), NONE);
}

#[test]
fn find_gives_away_what_its_tests_let_through() {
    let text = "find /data \\! -user web -exec chown web '{}' +";
    assert_eq!(shown(&Case::new().own("/data", 33, 33, 0o755).script(text).needs("/entry.sh")), NONE);
    assert_eq!(shown(&Case::new().own("/data", 0, 0, 0o755).script(text).needs("/entry.sh")), ["~CHOWN"]);
    let all = "find /data -exec chown web '{}' +";
    assert_eq!(shown(&Case::new().own("/data", 33, 33, 0o755).script(all).needs("/entry.sh")), ["~CHOWN"]);
}

#[test]
fn what_is_closed_to_root_by_its_owner_needs_an_override() {
    let text = "find /data -type f";
    let with = |mode| shown(&Case::new().own("/data", 33, 33, mode).script(text).needs("/entry.sh"));
    assert_eq!(with(0o700), ["~DAC_OVERRIDE"]);
    assert_eq!(with(0o755), NONE);
    let text = "chmod 0700 /data; find /data -type f";
    assert_eq!(
        shown(&Case::new().own("/data", 33, 33, 0o777).script(text).needs("/entry.sh")),
        ["~DAC_OVERRIDE", "~FOWNER"]
    );
    assert_eq!(shown(&Case::new().own("/data", 0, 0, 0o777).script(text).needs("/entry.sh")), NONE);
}

#[test]
fn a_mode_of_a_foreign_file_needs_fowner_and_its_setgid_bit_fsetid() {
    let with = |text: &str| shown(&Case::new().own("/run/x", 33, 33, 0o755).script(text).needs("/entry.sh"));
    assert_eq!(with("chmod 2775 /run/x"), ["~FOWNER", "~FSETID"]);
    assert_eq!(with("chmod 755 /run/x"), ["~FOWNER"]);
    assert_eq!(with("chmod 755 /run"), NONE);
}

#[test]
fn a_log_in_a_foreign_folder_needs_an_override_before_the_drop_only() {
    let config = "user web;\nerror_log /var/log/n/error.log;\nevents {}\nhttp { server { listen 8080; } }\n";
    let case = |uid| Case::new().file("/etc/nginx/nginx.conf", config).own("/var/log/n", uid, 0, 0o755);
    assert_eq!(shown(&case(33).needs("nginx")), ["~DAC_OVERRIDE", "~SETGID", "~SETUID"]);
    assert_eq!(shown(&case(0).needs("nginx")), ["~SETGID", "~SETUID"]);
    let late = |line: &str| {
        let config = format!("port=5353\nlog-facility=/var/log/n/x.log\npid-file=/var/log/n/x.pid\n{line}");
        let case = Case::new().file("/etc/dnsmasq.conf", &config).own("/var/log/n", 33, 33, 0o755);
        shown(&case.needs("dnsmasq"))
    };
    assert!(!late("user=web").contains(&"~DAC_OVERRIDE".to_owned()));
}

#[test]
fn another_root_is_expected_where_code_and_configuration_agree() {
    let case = |calls: Vec<(&'static str, &'static str)>| {
        let mut case = Case::new().file("/etc/ssh/sshd_config", "Port 2222\n");
        case.calls = calls;
        let found = shown(&case.needs("/bin/sshd -D"));
        found.into_iter().find(|name| name.ends_with("SYS_CHROOT"))
    };
    assert_eq!(case(vec![("/bin/sshd", "chroot")]).as_deref(), Some("~SYS_CHROOT"));
    assert_eq!(case(vec![("/bin/sshd", "read")]).as_deref(), Some("?SYS_CHROOT"));
}

#[test]
fn programs_that_exist_to_use_a_privilege_need_it() {
    assert_eq!(script("ip link set eth0 up"), ["~NET_ADMIN"]);
    assert_eq!(script("ip addr show"), NONE);
    assert_eq!(script("crond -f"), ["?AUDIT_WRITE", "?DAC_OVERRIDE", "~SETGID", "~SETUID"]);
    assert_eq!(script("ping -c1 x"), ["?NET_RAW"]);
    assert_eq!(script("chroot /srv app"), ["~SYS_CHROOT"]);
}

#[test]
fn a_call_that_is_reached_leaves_it_possible() {
    let mut case = Case::new();
    case.calls = vec![("/bin/app", "setuid"), ("/bin/app", "mount"), ("/bin/app", "kill"), ("/bin/app", "bind")];
    assert_eq!(shown(&case.needs("app")), ["?NET_BIND_SERVICE", "?SETUID"]);
}

#[test]
fn calls_that_every_library_holds_count_where_the_program_asks() {
    let mut case = Case::new();
    case.asked = vec![("/bin/app", "mount"), ("/bin/app", "mlock")];
    assert_eq!(shown(&case.needs("app")), ["?IPC_LOCK", "?SYS_ADMIN"]);
    let mut shell = Case::new().script("app");
    shell.asked = vec![("/bin/sh", "mount")];
    assert_eq!(shown(&shell.needs("/entry.sh")), NONE);
}

#[test]
fn what_a_call_is_given_decides() {
    let case = |call: &'static str, values: &[&str], all_known| {
        let mut case = Case::new();
        case.asked = vec![("/bin/app", call)];
        let values = values
            .iter()
            .map(|value| vec![Some("AF_INET".to_owned()).filter(|_| call == "socket"), Some((*value).to_owned())]);
        let values = values.map(|row| if call == "socket" { row } else { row.into_iter().skip(1).collect() }).collect();
        case.arguments.insert(call, dna::Arguments { parameters: Vec::new(), values, all_known });
        shown(&case.needs("app"))
    };
    assert_eq!(case("socket", &["SOCK_STREAM"], true), NONE);
    assert_eq!(case("socket", &["SOCK_STREAM"], false), ["?NET_RAW"], "there may be others");
    assert_eq!(case("socket", &["SOCK_STREAM", "SOCK_RAW|SOCK_CLOEXEC"], true), ["?NET_RAW"]);
    assert_eq!(case("unshare", &["CLONE_FILES"], true), NONE);
    assert_eq!(case("unshare", &["CLONE_FS|CLONE_NEWNS"], true), ["?SYS_ADMIN"]);
    assert_eq!(case("unshare", &["CLONE_FILES"], false), ["?SYS_ADMIN"]);
    assert_eq!(case("prctl", &["PR_SET_NAME"], true), NONE);
    assert_eq!(case("prctl", &["PR_CAPBSET_DROP"], false), ["?SETPCAP"]);
}

#[test]
fn files_and_signals_of_others_count_where_there_are_others() {
    let case = |uid| {
        let mut case = Case::new().own("/", uid, 0, 0o755);
        case.calls = vec![("/bin/app", "openat"), ("/bin/app", "kill"), ("/bin/app", "fchmod")];
        shown(&case.needs("app"))
    };
    assert_eq!(case(33), ["?DAC_OVERRIDE", "?FOWNER", "?FSETID", "?KILL"]);
    assert_eq!(case(0), NONE);
}

#[test]
fn libraries_of_a_use_leave_it_possible() {
    let mut case = Case::new();
    case.libraries = vec![("/bin/app", "/lib/libpcap.so.0.8")];
    assert_eq!(shown(&case.needs("app")), ["?NET_RAW"]);
}

#[test]
fn a_program_keeps_its_own_list() {
    let needed = Case::new().script("gosu web app").needs("/entry.sh");
    let programs: Vec<_> = needed.programs.keys().map(ToString::to_string).collect();
    assert_eq!(programs, ["/bin/gosu"]);
    let evidence = needed.all.first().and_then(|item| item.evidence.first());
    assert!(
        matches!(evidence, Some(Evidence::Binary { detail: Some(why), .. }) if why == "gosu to user web"),
        "{evidence:?}"
    );
}
