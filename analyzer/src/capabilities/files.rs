//! Which files root may use without a capability: the owners and modes of the tree in, with what start scripts change of them,
//! and the file that stands in the way out.
//!
//! Source: Linux `fs/namei.c` `generic_permission`: the owner's bits count for the owner, the group's for its members, the others'
//! for everyone else, root too; only `CAP_DAC_OVERRIDE` (for reading and searching `CAP_DAC_READ_SEARCH` as well) goes over them.

use std::cell::Cell;

use dna::ImagePath;

use crate::{InodeId, InodeKind, Rootfs};

/// What a process does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads it, a folder with all that is below.
    Read,
    /// Writes, makes or removes it.
    Write,
}

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Owner {
    /// What root makes, by the usual umask.
    const OF_ROOT: Self = Self { uid: 0, gid: 0, mode: 0o755 };

    /// Whether root, by owner, group or as anyone, has these bits.
    fn lets_root(self, bits: u32) -> bool {
        let granted = match (self.uid, self.gid) {
            (0, _) => self.mode >> 6,
            (_, 0) => self.mode >> 3,
            _ => self.mode,
        };
        granted & bits == bits
    }
}

/// The tree, and what commands changed of it.
#[derive(Debug)]
pub(super) struct Files<'a> {
    rootfs: &'a Rootfs,
    /// In order: where, whether all below too, what.
    changes: Vec<(ImagePath, bool, Change)>,
    /// Files that may still be looked at.
    left: Cell<usize>,
}

/// What a command sets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: Option<u32>,
}

impl<'a> Files<'a> {
    pub(super) fn new(rootfs: &'a Rootfs) -> Self {
        Self { rootfs, changes: Vec::new(), left: Cell::new(MAX_FILES) }
    }

    /// Notes what a command changes; a start that changes more is followed no further.
    pub(super) fn change(&mut self, path: &ImagePath, is_recursive: bool, change: Change) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push((self.real(path), is_recursive, change));
        }
    }

    /// Whether a command gave something to another user.
    pub(super) fn gives_away(&self) -> bool {
        self.changes.iter().any(|(_, _, change)| change.uid.is_some_and(|uid| uid != 0))
    }

    /// Owner and mode of a file, where the image has it or a command made something of it.
    pub(super) fn owner(&self, path: &ImagePath) -> Option<Owner> {
        let real = self.real(path);
        let found = self.rootfs.resolve(path).ok().map(|found| of_inode(self.rootfs, found.inode));
        let named = self.changes.iter().any(|(changed, ..)| *changed == real);
        let own = found.or(named.then_some(Owner::OF_ROOT))?;
        Some(self.changed(&real, own))
    }

    /// The file that keeps root from doing this, if one does.
    pub(super) fn obstacle(&self, path: &ImagePath, access: Access) -> Option<ImagePath> {
        let real = self.real(path);
        if real.components().next().is_some_and(|first| matches!(first, b"dev" | b"proc" | b"sys")) {
            return None;
        }
        let mut here = ImagePath::root();
        let parts: Vec<&[u8]> = real.components().collect();
        for (index, part) in parts.iter().enumerate() {
            let owner = self.owner(&here)?;
            if !owner.lets_root(SEARCH) {
                return Some(here);
            }
            let next = here.join(part).ok()?;
            if self.owner(&next).is_none() {
                // It is missing: what makes it writes in the folder it is to be in; there is nothing to read.
                let makes = access == Access::Write && !owner.lets_root(WRITE);
                return makes.then_some(here);
            }
            let is_last = index.saturating_add(1) == parts.len();
            if is_last && access == Access::Write && self.is_folder(&next) {
                return None;
            }
            here = next;
        }
        let owner = self.owner(&here)?;
        match access {
            Access::Write => (!owner.lets_root(WRITE)).then_some(here),
            Access::Read if self.is_folder(&here) => self.closed_below(&here),
            Access::Read => (!owner.lets_root(READ)).then_some(here),
        }
    }

    /// The owners of a file and of all below it, up to a limit.
    pub(super) fn below(&self, path: &ImagePath) -> Vec<Owner> {
        let real = self.real(path);
        let Ok(found) = self.rootfs.resolve(&real) else {
            return self.owner(path).into_iter().collect();
        };
        let mut owners = Vec::new();
        let mut ahead = vec![(real, found.inode)];
        while let Some((path, inode)) = ahead.pop() {
            if !self.may_look() {
                break;
            }
            owners.push(self.changed(&path, of_inode(self.rootfs, inode)));
            let children = self.rootfs.children(inode);
            ahead.extend(children.filter_map(|(name, inode)| Some((path.join(name).ok()?, inode))));
        }
        owners
    }

    /// The first folder at or below this one that root may not list.
    fn closed_below(&self, path: &ImagePath) -> Option<ImagePath> {
        let Ok(found) = self.rootfs.resolve(path) else {
            return self.owner(path).filter(|owner| !owner.lets_root(READ | SEARCH)).map(|_| path.clone());
        };
        let mut ahead = vec![(found.path, found.inode)];
        while let Some((path, inode)) = ahead.pop() {
            if !self.may_look() {
                return None;
            }
            if !self.changed(&path, of_inode(self.rootfs, inode)).lets_root(READ | SEARCH) {
                return Some(path);
            }
            let folders = self.rootfs.children(inode).filter(|(_, inode)| is_folder(self.rootfs, *inode));
            ahead.extend(folders.filter_map(|(name, inode)| Some((path.join(name).ok()?, inode))));
        }
        None
    }

    fn may_look(&self) -> bool {
        self.left.set(self.left.get().saturating_sub(1));
        self.left.get() > 0
    }

    fn changed(&self, path: &ImagePath, own: Owner) -> Owner {
        let of_path =
            self.changes.iter().filter(|(at, below, _)| if *below { path.starts_with(at) } else { path == at });
        of_path.fold(own, |owner, (_, _, change)| Owner {
            uid: change.uid.unwrap_or(owner.uid),
            gid: change.gid.unwrap_or(owner.gid),
            mode: change.mode.unwrap_or(owner.mode),
        })
    }

    fn is_folder(&self, path: &ImagePath) -> bool {
        // What is missing and changed by a command was made as a folder: `mkdir -p`.
        self.rootfs.resolve(path).map_or(true, |found| is_folder(self.rootfs, found.inode))
    }

    /// The path with its symbolic links followed, as far as it exists.
    fn real(&self, path: &ImagePath) -> ImagePath {
        let mut rest: Vec<Vec<u8>> = Vec::new();
        let mut here = path.clone();
        loop {
            if let Ok(found) = self.rootfs.resolve(&here) {
                let joined = rest.iter().rev().try_fold(found.path, |path, part| path.join(part));
                return joined.unwrap_or_else(|_| path.clone());
            }
            let Some(parent) = here.parent() else { return path.clone() };
            rest.push(here.file_name().to_vec());
            here = parent;
        }
    }
}

fn of_inode(rootfs: &Rootfs, inode: InodeId) -> Owner {
    let meta = &rootfs.inode(inode).meta;
    Owner { uid: meta.uid, gid: meta.gid, mode: meta.mode }
}

fn is_folder(rootfs: &Rootfs, inode: InodeId) -> bool {
    matches!(rootfs.inode(inode).kind, InodeKind::Directory(_))
}

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// Changes of owners and modes that are kept: start scripts make a few, and each look-up goes through them.
const MAX_CHANGES: usize = 200;
/// Files looked at below the folders that commands name, all together: data folders of images are empty or small.
const MAX_FILES: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().expect("a path")
    }

    fn own(rootfs: &mut Rootfs, at: &str, uid: u32, gid: u32, mode: u32) {
        let inode = rootfs.resolve(&path(at)).expect(at).inode;
        let meta = &mut rootfs.inode_mut(inode).meta;
        (meta.uid, meta.gid, meta.mode) = (uid, gid, mode);
    }

    fn tree() -> Rootfs {
        let mut rootfs = Rootfs::default();
        for (folder, uid, gid, mode) in
            [("web", 33, 4, 0o755), ("open", 33, 33, 0o777), ("group", 33, 0, 0o775), ("closed", 33, 33, 0o700)]
        {
            rootfs.put_file(&format!("/var/{folder}/old"), 0o640, "");
            own(&mut rootfs, &format!("/var/{folder}"), uid, gid, mode);
        }
        own(&mut rootfs, "/var/web/old", 33, 4, 0o640);
        rootfs.put_link("/run/web", "/var/web");
        rootfs
    }

    #[test]
    fn a_foreign_folder_that_is_closed_stands_in_the_way() {
        let rootfs = tree();
        let files = Files::new(&rootfs);
        let obstacle = |at: &str, access| files.obstacle(&path(at), access).map(|path| path.to_string());
        assert_eq!(obstacle("/var/web/new", Access::Write).as_deref(), Some("/var/web"));
        assert_eq!(obstacle("/run/web/new", Access::Write).as_deref(), Some("/var/web"));
        assert_eq!(obstacle("/var/web/old", Access::Write).as_deref(), Some("/var/web/old"));
        assert_eq!(obstacle("/var/closed/x", Access::Read).as_deref(), Some("/var/closed"));
        assert_eq!(obstacle("/var/closed", Access::Read).as_deref(), Some("/var/closed"));
        assert_eq!(obstacle("/var", Access::Read).as_deref(), Some("/var/closed"));
    }

    #[test]
    fn what_lets_anyone_or_root_in_is_no_obstacle() {
        let rootfs = tree();
        let files = Files::new(&rootfs);
        for at in ["/var/open/new", "/var/group/new", "/var/new", "/new/a/b", "/dev/x", "/proc/self/x"] {
            assert_eq!(files.obstacle(&path(at), Access::Write), None, "{at}");
        }
        assert_eq!(files.obstacle(&path("/var/web"), Access::Read), None);
    }

    #[test]
    fn commands_change_owners_and_modes() {
        let rootfs = tree();
        let mut files = Files::new(&rootfs);
        files.change(&path("/var/open"), false, Change { mode: Some(0o700), ..Change::default() });
        files.change(&path("/srv"), true, Change { uid: Some(5), gid: None, mode: Some(0o700) });
        assert_eq!(files.obstacle(&path("/var/open"), Access::Read), Some(path("/var/open")));
        assert_eq!(files.obstacle(&path("/srv/x"), Access::Write), Some(path("/srv")));
        assert_eq!(files.owner(&path("/srv")).map(|owner| owner.uid), Some(5));
        assert_eq!(files.owner(&path("/none")), None);
        files.change(&path("/var/web"), true, Change { uid: Some(0), ..Change::default() });
        assert_eq!(files.obstacle(&path("/var/web/old"), Access::Write), None);
    }
}
