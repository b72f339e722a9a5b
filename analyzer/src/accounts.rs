//! The account databases: `/etc/passwd` and `/etc/group` in, entries out, read as glibc reads them: a malformed line is passed
//! over, the first entry of a name wins. Password fields are never kept.

use dna::{Accounts, Group, ImagePath, Limits, Subject, Unknown, User};

use crate::{ReadError, ResolveError, Rootfs};

/// Reads both databases. One that is missing is empty; one that cannot be read is an unknown.
pub(crate) fn read(rootfs: &Rootfs, limits: &Limits, unknowns: &mut Vec<Unknown>) -> Accounts {
    let mut lines = |path: &str| -> Vec<String> {
        let Ok(at) = path.parse::<ImagePath>() else { return Vec::new() };
        match rootfs.read_path(&at, limits.text_bytes) {
            Ok(body) => String::from_utf8_lossy(&body).lines().map(str::to_owned).collect(),
            Err(ReadError::Resolve(ResolveError::NotFound(_) | ResolveError::NotDirectory(_))) => Vec::new(),
            Err(error) => {
                unknowns.push(Unknown { place: path.to_owned(), subject: Subject::Start, why: error.to_string() });
                Vec::new()
            }
        }
    };
    Accounts {
        users: lines("/etc/passwd").iter().filter_map(|line| user(line)).collect(),
        groups: lines("/etc/group").iter().filter_map(|line| group(line)).collect(),
    }
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?.to_owned();
    let _password = fields.next()?;
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let _comment = fields.next()?;
    let home = fields.next()?.to_owned();
    Some(User { name, uid, gid, home, shell: fields.next().unwrap_or_default().to_owned() })
}

fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?.to_owned();
    let _password = fields.next()?;
    let gid = fields.next()?.parse().ok()?;
    let members =
        fields.next().unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Group { name, gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_lines_are_passed_over() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file(
            "/etc/passwd",
            0o644,
            "root:secret:0:0:root:/root:/bin/sh\nbad\n#x:x:1:1:::\nweb:x:33:z::/:\nweb:x:33:33::/srv:\n",
        );
        rootfs.put_file("/etc/group", 0o644, "adm:x:4:web,root\n");
        let found = read(&rootfs, &Limits::default(), &mut Vec::new());
        let names: Vec<_> = found.users.iter().map(|user| (user.name.as_str(), user.uid, user.home.as_str())).collect();
        assert_eq!(names, [("root", 0, "/root"), ("web", 33, "/srv")]);
        assert_eq!(
            found.groups.first().map(|group| group.members.clone()),
            Some(vec!["web".to_owned(), "root".to_owned()])
        );
    }

    #[test]
    fn an_unreadable_database_is_an_unknown() {
        let mut rootfs = Rootfs::default();
        rootfs.put_file("/etc/passwd", 0o644, vec![b'x'; 100]);
        let mut unknowns = Vec::new();
        read(&rootfs, &Limits { text_bytes: 10, ..Limits::default() }, &mut unknowns);
        assert_eq!(unknowns.len(), 1);
    }
}
