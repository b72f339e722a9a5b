//! What the runtime starts: image config and tree in, the start command as runc and containerd would take it, out.
//!
//! Sources: OCI image specification `config.md`, runtime specification `config.md` (process), containerd `oci.WithUser`.

use std::collections::BTreeSet;

use dna::{Accounts, EnvVar, ExposedPort, Healthcheck, ImagePath, Protocol, Start, Subject, Unknown};
use oci::RunConfig;

use crate::shell::{DEFAULT_PATH, World};

/// The start command with its environment: values stay here, the DNA gets what [`publish`] lets through.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) start: Start,
    /// Environment variables with their values, `HOME` as the runtime sets it.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: ImagePath,
}

/// Reads the start command.
pub(crate) fn read(config: &RunConfig, world: World<'_>, unknowns: &mut Vec<Unknown>) -> Started {
    let mut unknown = |key: &str, why: String| {
        unknowns.push(Unknown { place: format!("config {key}"), subject: Subject::Start, why });
    };
    let mut env: Vec<(String, String)> = Vec::new();
    for entry in &config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    }
    let get =
        |env: &[(String, String)], name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let path = get(&env, "PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let workdir = match config.working_dir.as_str() {
        "" => None,
        text => ImagePath::normalize(text.as_bytes()).ok(),
    };
    let cwd = workdir.clone().unwrap_or_else(ImagePath::root);
    let argv: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
    let user = user(&config.user, world.accounts);
    if let Err(why) = &user {
        unknown("User", why.clone());
    }
    let user = user.unwrap_or_default();
    if get(&env, "HOME").is_none() {
        let home =
            world.accounts.users.iter().find(|known| Some(known.uid) == user.uid).map(|known| known.home.clone());
        env.push(("HOME".to_owned(), home.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())));
    }
    let mut program = None;
    match argv.first() {
        None => unknown("Entrypoint", "the image names no command: a container of it must be given one".to_owned()),
        Some(name) => match world.find_program(&cwd, name, &path) {
            Some(found) => program = Some(found.path),
            None if name.contains('/') => {
                unknown("Entrypoint", format!("exec {}: no such executable file in the image", dna::redact(name)));
            }
            None => unknown("Entrypoint", format!("exec {}: executable file not found in PATH", dna::redact(name))),
        },
    }
    let mut exposed = BTreeSet::new();
    for key in config.exposed_ports.keys() {
        match ports(key) {
            Some(found) => exposed.extend(found),
            None => unknown("ExposedPorts", format!("`{}` is no port", dna::redact(key).escape_debug())),
        }
    }
    let volumes = config.volumes.keys().filter_map(|path| ImagePath::normalize(path.as_bytes()).ok()).collect();
    let start = Start {
        argv: dna::redact_argv(&argv),
        entrypoint: u32::try_from(config.entrypoint.len()).unwrap_or(u32::MAX),
        program,
        user: config.user.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        workdir,
        env: Vec::new(),
        exposed,
        volumes,
        stop_signal: config.stop_signal.clone().filter(|signal| !signal.is_empty()),
        healthcheck: healthcheck(config).map(|argv| Healthcheck { argv: dna::redact_argv(&argv) }),
    };
    Started { start, env, cwd }
}

/// The health check's command, where there is one.
pub(crate) fn healthcheck(config: &RunConfig) -> Option<Vec<String>> {
    let test = &config.healthcheck.as_ref()?.test;
    match test.split_first()? {
        (kind, rest) if kind == "CMD" => Some(rest.to_vec()),
        (kind, [line, ..]) if kind == "CMD-SHELL" => {
            let mut argv = if config.shell.is_empty() {
                vec!["/bin/sh".to_owned(), "-c".to_owned()]
            } else {
                config.shell.clone()
            };
            argv.push(line.clone());
            Some(argv)
        }
        _ => None,
    }
}

/// The environment for the DNA: names always; values of those that `read` names or that the loader and the runtime read,
/// unless they look like credentials.
pub(crate) fn publish(env: &[(String, String)], read: &BTreeSet<String>) -> Vec<EnvVar> {
    const ALWAYS: [&str; 7] = ["PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PWD", "TERM", "LANG"];
    let shown = |name: &str, value: &str| {
        (ALWAYS.contains(&name) || name.ends_with("PORT") || read.contains(name))
            && !dna::is_secret_name(name)
            && dna::redact(value) == value
    };
    env.iter()
        .map(|(name, value)| EnvVar { name: name.clone(), value: shown(name, value).then(|| value.clone()) })
        .collect()
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Identity {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: BTreeSet<u32>,
}

/// `user`, `uid`, `user:group`, `uid:gid` … against the image's accounts.
fn user(text: &str, accounts: &Accounts) -> Result<Identity, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let by_name = accounts.users.iter().find(|known| known.name == user);
    let number = user.parse::<u32>().ok();
    let known = by_name.or_else(|| accounts.users.iter().find(|known| Some(known.uid) == number));
    let uid = known
        .map(|known| known.uid)
        .or(number)
        .ok_or_else(|| format!("user `{}` is not in /etc/passwd", user.escape_debug()))?;
    let gid = match group.filter(|group| !group.is_empty()) {
        None => known.map_or(0, |known| known.gid),
        Some(group) => {
            let by_name = accounts.groups.iter().find(|known| known.name == group).map(|known| known.gid);
            by_name
                .or_else(|| group.parse().ok())
                .ok_or_else(|| format!("group `{}` is not in /etc/group", group.escape_debug()))?
        }
    };
    // With an explicit group the runtimes leave the supplementary ones out.
    let groups = match (group, known) {
        (None, Some(known)) => {
            accounts.groups.iter().filter(|group| group.members.contains(&known.name)).map(|group| group.gid).collect()
        }
        _ => BTreeSet::new(),
    };
    Ok(Identity { uid: Some(uid), gid: Some(gid), groups })
}

/// The user number that a wrapper's argument names: `redis`, `999`, `redis:redis`.
pub(crate) fn uid_of(text: &str, accounts: &Accounts) -> Option<u32> {
    user(text, accounts).ok()?.uid
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn ports(key: &str) -> Option<Vec<ExposedPort>> {
    let (range, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().ok().filter(|port| *port > 0)?, last.parse().ok()?);
    (first <= last).then(|| (first..=last).map(|port| ExposedPort { port, protocol }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rootfs;

    fn accounts() -> Accounts {
        let user = |name: &str, id| dna::User {
            name: name.into(),
            uid: id,
            gid: id + 1,
            home: "/".into(),
            shell: String::new(),
        };
        let group = |name: &str, gid, members: &[&str]| dna::Group {
            name: name.into(),
            gid,
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        };
        Accounts {
            users: vec![user("root", 0), user("web", 33)],
            groups: vec![group("adm", 4, &["web"]), group("tty", 5, &[])],
        }
    }

    #[test]
    fn users_resolve_as_the_runtime_does() {
        let identity = |text: &str| user(text, &accounts()).map(|found| (found.uid, found.gid, found.groups.len()));
        assert_eq!(identity(""), Ok((Some(0), Some(1), 0)));
        assert_eq!(identity("web"), Ok((Some(33), Some(34), 1)));
        assert_eq!(identity("33:tty"), Ok((Some(33), Some(5), 0)));
        assert_eq!(identity("1000"), Ok((Some(1000), Some(0), 0)));
        assert!(identity("nobody").is_err() && identity("web:none").is_err());
    }

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(ports("80").map(|found| found.len()), Some(1));
        assert_eq!(ports("8000-8010/udp").map(|found| found.len()), Some(11));
        for key in ["", "0", "x/tcp", "80/xyz", "9-8", "70000"] {
            assert_eq!(ports(key), None, "{key}");
        }
    }

    #[test]
    fn the_command_is_looked_up_in_path() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/opt/bin/app", 0o755, "");
        rootfs.put_file("/usr/bin/data", 0o644, "");
        let accounts = Accounts::default();
        let world = World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 };
        let read = |path: &str, argv: &[&str]| {
            let mut unknowns = Vec::new();
            let config = RunConfig {
                env: vec![format!("PATH={path}")],
                cmd: argv.iter().map(|word| (*word).to_owned()).collect(),
                ..RunConfig::default()
            };
            (read(&config, world, &mut unknowns).start.program, unknowns.len())
        };
        assert_eq!(read("/usr/bin:/opt/bin", &["app"]), (Some("/opt/bin/app".parse().expect("a path")), 0));
        assert_eq!(read("/usr/bin", &["app"]), (None, 1));
        assert_eq!(read("/usr/bin", &["data"]), (None, 1));
        assert_eq!(read("/usr/bin", &[]), (None, 1));
    }

    #[test]
    fn values_that_look_like_credentials_are_not_published() {
        let env =
            [("PATH", "/bin"), ("DB_PASSWORD", "hunter2"), ("OTHER", "x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let read = BTreeSet::from(["DB_PASSWORD".to_owned()]);
        let values: Vec<_> = publish(&env, &read).into_iter().map(|var| var.value).collect();
        assert_eq!(values, [Some("/bin".to_owned()), None, None]);
    }
}
