//! What users of a login service bring with them: the account database and the service's configuration in; shells, subsystems,
//! homes and the programs within a shell's reach out.

use std::collections::BTreeSet;

use dna::{Evidence, ImagePath};

use crate::{
    InodeKind,
    shell::{DEFAULT_PATH, World},
};

/// What sessions may bring about.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) shells: Vec<Shell>,
    /// Commands that clients ask for by a name.
    pub(crate) subsystems: Vec<(Vec<String>, Evidence)>,
    /// Folders of users other than root.
    pub(crate) homes: BTreeSet<ImagePath>,
    /// Programs on the path of a shell.
    pub(crate) programs: BTreeSet<ImagePath>,
}

/// The shell of someone who may log in.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) path: String,
    pub(crate) uid: u32,
    pub(crate) evidence: Evidence,
}

/// What sessions may bring about in an image.
pub(crate) fn of(world: World<'_>) -> Sessions {
    let mut sessions = Sessions::default();
    let root = ImagePath::root();
    let layer = |path: &str| path.parse().ok().and_then(|path| world.rootfs.layer_of(&path));
    let users = world.accounts.users.iter().filter(|user| may_log_in(user.uid, &user.shell));
    for user in users.take(MAX_USERS) {
        let Ok(path) = "/etc/passwd".parse::<ImagePath>() else { break };
        let detail = Some(format!("shell of {}", dna::redact(&user.name)));
        let evidence = Evidence::File { path, line: None, layer: layer("/etc/passwd"), detail };
        let shell = if user.shell.is_empty() { "/bin/sh" } else { user.shell.as_str() };
        if !sessions.shells.iter().any(|known| known.path == shell) {
            sessions.shells.push(Shell { path: shell.to_owned(), uid: user.uid, evidence });
        }
        if user.uid != 0
            && let Ok(home) = world.resolve(&root, &user.home)
            && !home.path.is_root()
        {
            sessions.homes.insert(home.path);
        }
    }
    if sessions.shells.is_empty() {
        return sessions;
    }
    for file in SUBSYSTEM_FILES {
        let Ok(found) = world.resolve(&root, file) else { continue };
        let Ok(text) = world.rootfs.read(found.inode, world.text_bytes) else { continue };
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let mut words = line.split_whitespace();
            if !words.next().is_some_and(|key| key.eq_ignore_ascii_case("Subsystem")) {
                continue;
            }
            let argv: Vec<String> = words.skip(1).map(str::to_owned).collect();
            // What is built in runs nothing.
            if argv.first().is_some_and(|program| program.starts_with('/')) && sessions.subsystems.len() < MAX_USERS {
                let line = u32::try_from(number.saturating_add(1)).ok();
                let (path, layer, detail) = (found.path.clone(), layer(file), Some("Subsystem".to_owned()));
                sessions.subsystems.push((argv, Evidence::File { path, line, layer, detail }));
            }
        }
    }
    for folder in DEFAULT_PATH.split(':') {
        let Ok(found) = world.resolve(&root, folder) else { continue };
        for (name, _) in world.rootfs.children(found.inode) {
            let Ok(program) = found.path.join(name).map(|path| world.rootfs.resolve(&path)) else { continue };
            let Ok(program) = program else { continue };
            let inode = world.rootfs.inode(program.inode);
            if matches!(inode.kind, InodeKind::File(_)) && inode.meta.mode & 0o111 != 0 {
                sessions.programs.insert(program.path);
            }
        }
    }
    sessions
}

/// Accounts of people, and root; services have no shell, or one that refuses.
fn may_log_in(uid: u32, shell: &str) -> bool {
    let refuses = ["nologin", "false", "true", "sync", "shutdown", "halt"];
    let name = shell.rsplit('/').next().unwrap_or_default();
    (uid == 0 || (FIRST_USER..NOBODY).contains(&uid)) && !refuses.contains(&name)
}

/// login.defs(5), `UID_MIN`.
const FIRST_USER: u32 = 1000;
const NOBODY: u32 = 65_534;
/// sshd_config(5).
const SUBSYSTEM_FILES: [&str; 2] = ["/etc/ssh/sshd_config", "/usr/local/etc/ssh/sshd_config"];
/// Accounts looked at.
const MAX_USERS: usize = 100;

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::*;
    use crate::Rootfs;

    #[test]
    fn who_may_log_in_brings_a_shell_and_a_home() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file(
            "/etc/passwd",
            0o644,
            "root:x:0:0::/root:/bin/bash\nweb:x:33:33::/var/www:/usr/sbin/nologin\nann:x:1000:1000::/home/ann:/bin/sh\n",
        );
        rootfs.put_file(
            "/etc/ssh/sshd_config",
            0o644,
            "#Subsystem no /x\nSubsystem sftp /usr/lib/sftp-server -l INFO\n",
        );
        rootfs.put_file("/home/ann/.profile", 0o644, "");
        rootfs.put_file("/usr/bin/ls", 0o755, "");
        rootfs.put_file("/usr/bin/readme", 0o644, "");
        let accounts = crate::accounts::read(&rootfs, &Limits::default(), &mut Vec::new());
        let found = of(World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 });
        let shells: Vec<_> = found.shells.iter().map(|shell| shell.path.as_str()).collect();
        assert_eq!(shells, ["/bin/bash", "/bin/sh"]);
        assert_eq!(found.homes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/home/ann"]);
        assert_eq!(found.programs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/usr/bin/ls"]);
        assert_eq!(
            found.subsystems.iter().map(|(argv, _)| argv.join(" ")).collect::<Vec<_>>(),
            ["/usr/lib/sftp-server -l INFO"]
        );
    }
}
