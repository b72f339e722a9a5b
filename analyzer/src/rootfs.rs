//! The root file system a container of the image would see: inodes, names, bodies.
//!
//! In: what [`crate`]'s earlier steps squashed. Out: look-ups that resolve symbolic links inside the root only, and bodies,
//! each read with a limit. Inodes are numbered; a hard link is a second name of the same number. Nothing here writes to the
//! host.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
};

use dna::ImagePath;

pub(crate) mod bodies;

pub use bodies::Bodies;

/// A file's number, stable for the life of its [`Rootfs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);
}

/// A file of any kind.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Owner, mode, origin.
    pub meta: Metadata,
    /// What sort of file, and what is in it.
    pub kind: InodeKind,
}

/// What every kind of file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Index of the layer that brought this version of the file.
    pub layer: u32,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// What sort of file an inode is.
#[derive(Debug, Clone)]
pub enum InodeKind {
    /// A regular file.
    File(File),
    /// A directory: names to inodes, sorted by bytes.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A symbolic link with its target as written.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A regular file.
#[derive(Debug, Clone)]
pub struct File {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the body, where it was hashed on the way in.
    pub sha256: Option<[u8; 32]>,
    /// Where the body is.
    pub content: Content,
}

/// Where a file's body is.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a spool file, from `offset` on.
    Spooled {
        /// The file: unlinked, so that it vanishes with its last user, or one that is kept for later analyses.
        spool: Arc<Bodies>,
        /// Where the body starts.
        offset: u64,
    },
    /// A file of the host, below the directory being analyzed.
    Host(PathBuf),
    /// Not kept; the text says why.
    Dropped(&'static str),
}

/// The tree.
#[derive(Debug, Clone)]
pub struct Rootfs {
    inodes: Vec<Inode>,
    max_symlinks: u64,
}

/// A path that led to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The file's own path: no symbolic link in it.
    pub path: ImagePath,
    /// The file.
    pub inode: InodeId,
}

impl Default for Rootfs {
    fn default() -> Self {
        Self::new(dna::Limits::default().symlinks)
    }
}

impl Rootfs {
    /// An empty root directory; look-ups follow at most `max_symlinks` links.
    pub fn new(max_symlinks: u64) -> Self {
        let meta = Metadata { mode: 0o755, ..Metadata::default() };
        Self { inodes: vec![Inode { meta, kind: InodeKind::Directory(BTreeMap::new()) }], max_symlinks }
    }

    /// The file with this number.
    ///
    /// # Panics
    /// When `id` is another tree's.
    pub fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(id.0 as usize).expect("an InodeId is made by its own Rootfs only")
    }

    /// Every file ever named, in no order that means something.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.iter()
    }

    /// The file with this number, to change it.
    ///
    /// # Panics
    /// When `id` is another tree's.
    pub(crate) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(id.0 as usize).expect("an InodeId is made by its own Rootfs only")
    }

    /// The regular file with this number, where it is one.
    pub fn file(&self, id: InodeId) -> Option<&File> {
        match &self.inode(id).kind {
            InodeKind::File(file) => Some(file),
            _ => None,
        }
    }

    /// The names in a directory, sorted by bytes; none for another kind of file.
    pub fn children(&self, id: InodeId) -> impl Iterator<Item = (&[u8], InodeId)> {
        let entries = match &self.inode(id).kind {
            InodeKind::Directory(entries) => Some(entries),
            _ => None,
        };
        entries.into_iter().flatten().map(|(name, id)| (&**name, *id))
    }

    /// The file of this name in a directory, itself: no symbolic link followed.
    pub(crate) fn child(&self, id: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inode(id).kind {
            InodeKind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// The names in a directory that start with `prefix`.
    pub(crate) fn names_from(&self, id: InodeId, prefix: &[u8]) -> impl Iterator<Item = &[u8]> {
        let entries = match &self.inode(id).kind {
            InodeKind::Directory(entries) => {
                Some(entries.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)))
            }
            _ => None,
        };
        let prefix = prefix.to_vec();
        entries.into_iter().flatten().map(|(name, _)| &**name).take_while(move |name| name.starts_with(&prefix))
    }

    /// The file `path` leads to, every symbolic link followed, inside this root only: `..` at the root stays there.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, path: &ImagePath) -> Result<Resolved, ResolveError> {
        self.walk_to(path.as_bytes(), &ImagePath::root(), true)
    }

    /// The file `path` names, its last component *not* followed where that is a symbolic link; as lstat(2).
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn lookup(&self, path: &ImagePath) -> Result<Resolved, ResolveError> {
        self.walk_to(path.as_bytes(), &ImagePath::root(), false)
    }

    /// The file that the text `path`, as a process in directory `base` would use it, leads to. Unlike joining by text,
    /// this takes `link/..` as the kernel does.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve_from(&self, base: &ImagePath, path: &[u8]) -> Result<Resolved, ResolveError> {
        self.walk_to(path, base, true)
    }

    /// Every file, parents before children, siblings sorted by bytes. Symbolic links are not followed.
    pub fn walk(&self) -> impl Iterator<Item = Resolved> {
        let mut stack = vec![Resolved { path: ImagePath::root(), inode: InodeId::ROOT }];
        std::iter::from_fn(move || {
            let next = stack.pop()?;
            let first = stack.len();
            for (name, inode) in self.children(next.inode) {
                if let Ok(path) = next.path.join(name) {
                    stack.push(Resolved { path, inode });
                }
            }
            stack.get_mut(first..)?.reverse();
            Some(next)
        })
    }

    /// A file's body, whole.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] above `max_bytes`, [`ReadError::NotKept`] and [`ReadError::NotFile`] where there is none,
    /// [`ReadError::Io`] when the spool or the host fails.
    pub fn read(&self, id: InodeId, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let file = self.file(id).ok_or(ReadError::NotFile)?;
        if file.size > max_bytes {
            return Err(ReadError::TooLarge { size: file.size, limit: max_bytes });
        }
        self.read_range(id, 0, file.size)
    }

    /// At most `len` bytes of a file's body from `offset` on; fewer where the file ends.
    ///
    /// # Errors
    /// As [`Rootfs::read`], but for `TooLarge`.
    pub fn read_range(&self, id: InodeId, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let file = self.file(id).ok_or(ReadError::NotFile)?;
        let len = len.min(file.size.saturating_sub(offset));
        let length = usize::try_from(len).map_err(|_| ReadError::TooLarge { size: file.size, limit: len })?;
        match &file.content {
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.get(start..).unwrap_or_default().iter().copied().take(length).collect())
            }
            Content::Spooled { spool, offset: start } => {
                let start = start.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
                Ok(spool.read(start, length)?)
            }
            Content::Host(path) => {
                // A link put in the file's place after the walk must not lead out of the directory.
                let host = fs::OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
                let mut body = Vec::new();
                io::Seek::seek(&mut &host, io::SeekFrom::Start(offset))?;
                host.take(len).read_to_end(&mut body)?;
                Ok(body)
            }
            Content::Dropped(why) => Err(ReadError::NotKept(why)),
        }
    }

    /// The body of the file `path` leads to.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Resolve`] where the path leads nowhere.
    pub fn read_path(&self, path: &ImagePath, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        self.read(self.resolve(path)?.inode, max_bytes)
    }

    /// The layer that brought a file, a symbolic link not followed.
    pub(crate) fn layer_of(&self, path: &ImagePath) -> Option<u32> {
        Some(self.inode(self.lookup(path).ok()?.inode).meta.layer)
    }

    /// An image of nothing but one file without a name, for fuzzing.
    pub(crate) fn of_bytes(bytes: &[u8]) -> (Self, InodeId) {
        let mut rootfs = Self::default();
        let file = File { size: bytes.len() as u64, sha256: None, content: Content::Memory(bytes.into()) };
        let inode = rootfs.add(Inode { meta: Metadata::default(), kind: InodeKind::File(file) });
        (rootfs, inode)
    }

    /// A new inode without a name yet.
    pub(crate) fn add(&mut self, inode: Inode) -> InodeId {
        let id = u32::try_from(self.inodes.len()).expect("entries are limited far below 2^32");
        self.inodes.push(inode);
        InodeId(id)
    }

    /// Gives an inode a name in a directory; a file of that name is replaced.
    pub(crate) fn name(&mut self, directory: InodeId, name: &[u8], id: InodeId) {
        if let InodeKind::Directory(entries) = &mut self.inode_mut(directory).kind {
            entries.insert(name.into(), id);
        }
    }

    /// The directory at `path`, links followed inside the root; what is missing is made, owned by root with mode 0755.
    ///
    /// # Errors
    /// What stands in the way: a file that is no directory, or too many links.
    pub(crate) fn make_directories(&mut self, path: &ImagePath, layer: u32) -> Result<InodeId, &'static str> {
        let mut links = 0;
        let mut ahead = parts_reversed(path.as_bytes());
        let mut trail = vec![InodeId::ROOT];
        while let Some(part) = ahead.pop() {
            let here = trail.last().copied().unwrap_or(InodeId::ROOT);
            let InodeKind::Directory(entries) = &self.inode(here).kind else {
                return Err("a file is where a directory has to be");
            };
            if part == b".." {
                trail.truncate(trail.len().saturating_sub(1).max(1));
                continue;
            }
            let known = entries.get(part.as_slice()).copied();
            match known.map(|id| (id, &self.inode(id).kind)) {
                None => {
                    let meta = Metadata { mode: 0o755, layer, ..Metadata::default() };
                    let made = self.add(Inode { meta, kind: InodeKind::Directory(BTreeMap::new()) });
                    self.name(here, &part, made);
                    trail.push(made);
                }
                Some((_, InodeKind::Symlink(target))) => {
                    links += 1;
                    if links > self.max_symlinks {
                        return Err("too many symbolic links on the way");
                    }
                    if target.first() == Some(&b'/') {
                        trail.truncate(1);
                    }
                    ahead.extend(parts_reversed(target));
                }
                Some((id, _)) => trail.push(id),
            }
        }
        let last = trail.last().copied().unwrap_or(InodeId::ROOT);
        match self.inode(last).kind {
            InodeKind::Directory(_) => Ok(last),
            _ => Err("a file is where a directory has to be"),
        }
    }

    fn walk_to(&self, path: &[u8], base: &ImagePath, follow_last: bool) -> Result<Resolved, ResolveError> {
        let mut links = 0;
        // Components still to go, last first; the ones gone, with their inodes.
        let mut ahead: Vec<Vec<u8>> = parts_reversed(path);
        if path.first() != Some(&b'/') {
            ahead.extend(parts_reversed(base.as_bytes()));
        }
        let mut trail: Vec<(Vec<u8>, InodeId)> = Vec::new();
        let here = |trail: &[(Vec<u8>, InodeId)]| trail.last().map_or(InodeId::ROOT, |(_, id)| *id);
        while let Some(part) = ahead.pop() {
            let InodeKind::Directory(entries) = &self.inode(here(&trail)).kind else {
                return Err(ResolveError::NotDirectory(path_of(&trail)));
            };
            if part == b".." {
                trail.pop();
                continue;
            }
            let missing = || ResolveError::NotFound(join(&path_of(&trail), &part));
            let id = *entries.get(part.as_slice()).ok_or_else(missing)?;
            match &self.inode(id).kind {
                InodeKind::Symlink(target) if follow_last || !ahead.is_empty() => {
                    links += 1;
                    if links > self.max_symlinks {
                        return Err(ResolveError::Loop(join(&path_of(&trail), &part)));
                    }
                    if target.first() == Some(&b'/') {
                        trail.clear();
                    }
                    ahead.extend(parts_reversed(target));
                }
                _ => trail.push((part, id)),
            }
        }
        Ok(Resolved { path: path_of(&trail), inode: here(&trail) })
    }
}

/// A path that leads to no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A component does not exist.
    #[error("{0} does not exist")]
    NotFound(ImagePath),
    /// A component before the last is no directory.
    #[error("{0} is not a directory")]
    NotDirectory(ImagePath),
    /// Too many symbolic links.
    #[error("too many symbolic links at {0}")]
    Loop(ImagePath),
}

/// A body that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Larger than the limit for its use.
    #[error("{size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Size of the file.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Its body was not kept.
    #[error("not kept: {0}")]
    NotKept(&'static str),
    /// A directory, device or link.
    #[error("not a regular file")]
    NotFile,
    /// No such file.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The spool or the host failed.
    #[error("cannot read the stored body")]
    Io(#[source] io::Error),
}

impl<E: Into<io::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

fn parts_reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).rev().collect()
}

fn path_of(trail: &[(Vec<u8>, InodeId)]) -> ImagePath {
    let text: Vec<u8> = trail.iter().flat_map(|(part, _)| [b"/", part.as_slice()].concat()).collect();
    ImagePath::normalize(&text).unwrap_or_else(|_| ImagePath::root())
}

fn join(base: &ImagePath, part: &[u8]) -> ImagePath {
    base.join(part).unwrap_or_else(|_| base.clone())
}

/// open(2) flags, Linux on x86-64 and aarch64 differ in the first.
#[cfg(target_arch = "aarch64")]
const O_NOFOLLOW: i32 = 0o100_000;
#[cfg(not(target_arch = "aarch64"))]
const O_NOFOLLOW: i32 = 0o400_000;
const O_NONBLOCK: i32 = 0o4_000;

/// Trees built in memory, for tests of every later step.
#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    impl Rootfs {
        /// Puts `inode` at `path`, making directories above it; an existing name is replaced.
        pub(crate) fn put(&mut self, path: &str, mode: u32, kind: InodeKind) -> InodeId {
            let path: ImagePath = path.parse().expect("no NUL");
            let meta = Metadata { mode, ..Metadata::default() };
            let id = self.add(Inode { meta, kind });
            let parent = path.parent().expect("not the root");
            let folder = self.make_directories(&parent, 0).expect("no file in the way");
            self.name(folder, path.file_name(), id);
            id
        }

        /// A regular file.
        pub(crate) fn put_file(&mut self, path: &str, mode: u32, body: impl AsRef<[u8]>) -> InodeId {
            let body = body.as_ref();
            let file = File { size: body.len() as u64, sha256: None, content: Content::Memory(body.into()) };
            self.put(path, mode, InodeKind::File(file))
        }

        /// A symbolic link.
        pub(crate) fn put_link(&mut self, path: &str, target: &str) -> InodeId {
            self.put(path, 0o777, InodeKind::Symlink(target.as_bytes().into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().expect("no NUL")
    }

    fn tree() -> Rootfs {
        let mut root = Rootfs::default();
        root.put_file("/usr/bin/dash", 0o755, "dash");
        root.put_link("/usr/bin/sh", "dash");
        root.put_link("/bin", "usr/bin");
        root.put_link("/up", "../../../usr");
        root.put_link("/loop", "/loop");
        root
    }

    #[test]
    fn links_resolve_inside_the_root() {
        let root = tree();
        for name in ["/bin/sh", "/up/bin/sh", "/usr/bin/../../bin/./sh", "/../../bin/sh"] {
            let found = root.resolve_from(&ImagePath::root(), name.as_bytes()).expect(name);
            assert_eq!(found.path, path("/usr/bin/dash"), "{name}");
        }
    }

    #[test]
    fn lookup_does_not_follow_the_last_link() {
        let root = tree();
        assert_eq!(root.lookup(&path("/bin/sh")).expect("exists").path, path("/usr/bin/sh"));
    }

    #[test]
    fn a_link_cycle_is_an_error() {
        assert_eq!(tree().resolve(&path("/loop")), Err(ResolveError::Loop(path("/loop"))));
    }

    #[test]
    fn a_file_is_no_directory() {
        assert_eq!(tree().resolve(&path("/bin/sh/x")), Err(ResolveError::NotDirectory(path("/usr/bin/dash"))));
        assert_eq!(tree().resolve(&path("/bin/no")), Err(ResolveError::NotFound(path("/usr/bin/no"))));
    }

    #[test]
    fn reading_above_the_limit_is_refused() {
        let root = tree();
        assert_eq!(root.read_path(&path("/bin/sh"), 4).expect("fits"), b"dash");
        assert!(matches!(root.read_path(&path("/bin/sh"), 3), Err(ReadError::TooLarge { size: 4, limit: 3 })));
    }

    #[test]
    fn walk_gives_parents_first_and_follows_no_link() {
        let root = tree();
        let paths: Vec<_> = root.walk().map(|found| found.path.to_string()).collect();
        assert_eq!(paths, ["/", "/bin", "/loop", "/up", "/usr", "/usr/bin", "/usr/bin/dash", "/usr/bin/sh"]);
    }
}
