//! The root file system as the catalogs see it: walked once, with look-ups by name that never list a directory twice.
//!
//! In: a [`Rootfs`]. Out: its regular files in order, their bodies with a limit, and the files that a package database's names
//! lead to. It follows symbolic links in the folders of such a name (Debian's `/bin` is one), never at its end.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    io::{self, Read, Seek, SeekFrom},
};

use dna::{ImagePath, Limits};

use crate::{InodeId, InodeKind, ReadError, Resolved, Rootfs};

/// A root file system, walked.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// The file system.
    pub(super) rootfs: &'a Rootfs,
    /// The limits to keep.
    pub(super) limits: &'a Limits,
    /// Every regular file, parents first, siblings sorted.
    pub(super) files: Vec<Resolved>,
    /// Bytes read so far: a file may have a million names, so that limits on one file do not bound the work.
    read: Cell<u64>,
}

impl<'a> Tree<'a> {
    /// Walks `rootfs`.
    pub(super) fn new(rootfs: &'a Rootfs, limits: &'a Limits) -> Self {
        let files = rootfs.walk().filter(|found| rootfs.file(found.inode).is_some()).collect();
        Self { rootfs, limits, files, read: Cell::new(0) }
    }

    /// Counts work, in bytes or what costs as much, against [`Limits::inventory_bytes`].
    pub(super) fn charge(&self, bytes: u64) -> Result<(), ReadError> {
        let size = self.read.get().saturating_add(bytes);
        self.read.set(size);
        let limit = self.limits.inventory_bytes;
        if size > limit { Err(ReadError::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// At most `len` bytes of a file from `offset` on.
    pub(super) fn read_range(&self, inode: InodeId, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let size = self.rootfs.file(inode).map_or(0, |file| file.size);
        self.charge(len.min(size.saturating_sub(offset)))?;
        self.rootfs.read_range(inode, offset, len)
    }

    /// A text of at most [`Limits::text_bytes`].
    pub(super) fn read_text(&self, inode: InodeId) -> Result<Vec<u8>, ReadError> {
        self.read_whole(inode, self.limits.text_bytes)
    }

    fn read_whole(&self, inode: InodeId, limit: u64) -> Result<Vec<u8>, ReadError> {
        self.charge(self.rootfs.file(inode).map_or(0, |file| file.size.min(limit)))?;
        self.rootfs.read(inode, limit)
    }

    /// The text that `path`, which has no NUL, leads to.
    pub(super) fn read_path(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        self.read_text(self.rootfs.resolve_from(&ImagePath::root(), path.as_bytes())?.inode)
    }

    /// The text that `path` leads to.
    pub(super) fn read_at(&self, path: &ImagePath) -> Result<Vec<u8>, ReadError> {
        self.read_text(self.rootfs.resolve(path)?.inode)
    }

    /// A database of at most [`Limits::database_bytes`] at `path`; `None` where there is no such file.
    pub(super) fn database(&self, path: &str) -> Option<(Resolved, Result<Vec<u8>, ReadError>)> {
        let found = self.rootfs.resolve_from(&ImagePath::root(), path.as_bytes()).ok()?;
        let body = self.read_database(found.inode);
        Some((found, body))
    }

    /// A database of at most [`Limits::database_bytes`].
    pub(super) fn read_database(&self, inode: InodeId) -> Result<Vec<u8>, ReadError> {
        self.read_whole(inode, self.limits.database_bytes)
    }

    /// The entries of the directory `path` leads to; none where it is no directory.
    pub(super) fn directory(&self, path: &str) -> impl Iterator<Item = (Resolved, &'a [u8])> {
        let rootfs = self.rootfs;
        let found = rootfs.resolve_from(&ImagePath::root(), path.as_bytes()).ok();
        found.into_iter().flat_map(move |directory| {
            rootfs.children(directory.inode).filter_map(move |(name, inode)| {
                Some((Resolved { path: directory.path.join(name).ok()?, inode }, name))
            })
        })
    }

    /// The layer that brought a file.
    pub(super) fn layer(&self, inode: InodeId) -> u32 {
        self.rootfs.inode(inode).meta.layer
    }
}

/// Finds the files that names in a package database lead to. Such names come folder by folder, so the last folders are
/// remembered.
#[derive(Debug)]
pub(super) struct Lister<'a> {
    rootfs: &'a Rootfs,
    folders: HashMap<Vec<u8>, Option<Resolved>>,
}

impl<'a> Lister<'a> {
    /// A lister that has seen nothing.
    pub(super) fn new(rootfs: &'a Rootfs) -> Self {
        Self { rootfs, folders: HashMap::new() }
    }

    /// The file called `name` in `folder`; none where there is none or it is a directory.
    pub(super) fn find(&mut self, folder: &[u8], name: &[u8]) -> Option<Resolved> {
        let rootfs = self.rootfs;
        let directory = match self.folders.get(folder) {
            Some(known) => known.as_ref()?,
            None => {
                if self.folders.len() >= MAX_FOLDERS {
                    self.folders.clear();
                }
                let found = rootfs.resolve_from(&ImagePath::root(), folder).ok();
                self.folders.entry(folder.to_vec()).or_insert(found).as_ref()?
            }
        };
        let InodeKind::Directory(entries) = &rootfs.inode(directory.inode).kind else { return None };
        let inode = *entries.get(name)?;
        if matches!(rootfs.inode(inode).kind, InodeKind::Directory(_)) {
            return None;
        }
        Some(Resolved { path: directory.path.join(name).ok()?, inode })
    }

    /// The files that `names`, whole paths relative to the root, lead to: sorted, each once.
    pub(super) fn files<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) -> Vec<ImagePath> {
        self.files_and_layer(names).0
    }

    /// The same with the layer that most of them are from, the upper one of equals. An installation or upgrade writes nearly
    /// all files of a package, and leaves few behind; a later step that touches one changes little.
    pub(super) fn files_and_layer<'n>(
        &mut self,
        names: impl Iterator<Item = &'n [u8]>,
    ) -> (Vec<ImagePath>, Option<u32>) {
        let mut files = Vec::new();
        let mut layers: BTreeMap<u32, u64> = BTreeMap::new();
        for path in names {
            let slash = memchr::memrchr(b'/', path);
            let (folder, name) = slash.and_then(|at| path.split_at_checked(at)).unwrap_or((b"", path));
            let name = name.strip_prefix(b"/").unwrap_or(name);
            if let Some(found) = self.find(folder, name) {
                let count = layers.entry(self.rootfs.inode(found.inode).meta.layer).or_default();
                *count = count.saturating_add(1);
                files.push(found.path);
            }
        }
        files.sort_unstable();
        files.dedup();
        let layer = layers.into_iter().max_by_key(|(layer, count)| (*count, *layer)).map(|(layer, _)| layer);
        (files, layer)
    }
}

/// A file's body to read from and seek in. Seeking costs nothing; a window of the body is kept, so that small reads close to one
/// another do not reach the store.
#[derive(Debug)]
pub(super) struct Body<'a> {
    tree: &'a Tree<'a>,
    inode: InodeId,
    size: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Body<'a> {
    /// The body of `inode`, at its start.
    pub(super) fn new(tree: &'a Tree<'a>, inode: InodeId) -> Self {
        let size = tree.rootfs.file(inode).map_or(0, |file| file.size);
        Self { tree, inode, size, position: 0, window: Vec::new(), window_start: 0 }
    }

    fn in_window(&self) -> Option<&[u8]> {
        let into = usize::try_from(self.position.checked_sub(self.window_start)?).ok()?;
        self.window.get(into..).filter(|rest| !rest.is_empty())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.in_window().is_none() {
            self.window = self.tree.read_range(self.inode, self.position, WINDOW_BYTES).map_err(io::Error::other)?;
            self.window_start = self.position;
        }
        let read = self.in_window().unwrap_or_default().read(buffer)?;
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Seek for Body<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

const WINDOW_BYTES: u64 = 64 << 10;
/// Folders remembered: more than any image has, and some ten megabytes.
const MAX_FOLDERS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_over_all_files() {
        let mut root = Rootfs::default();
        let file = root.put_file("/x", 0o644, "1234567890");
        let limits = Limits { inventory_bytes: 25, ..Limits::default() };
        let tree = Tree::new(&root, &limits);
        assert_eq!(tree.read_range(file, 8, 100).expect("two bytes"), b"90");
        assert!(tree.read_text(file).is_ok() && tree.read_text(file).is_ok());
        assert!(matches!(tree.read_text(file), Err(ReadError::TooLarge { size: 32, limit: 25 })));
    }

    #[test]
    fn a_body_reads_and_seeks_as_a_file_does() {
        let mut root = Rootfs::default();
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let inode = root.put_file("/x", 0o644, &bytes);
        let limits = Limits::default();
        let tree = Tree::new(&root, &limits);
        let mut body = Body::new(&tree, inode);
        for (to, at) in
            [(SeekFrom::Start(65_530), 65_530), (SeekFrom::Current(-20), 65_520), (SeekFrom::End(-7), 199_993)]
        {
            assert_eq!(body.seek(to).expect("inside"), at);
            let mut read = Vec::new();
            (&mut body).take(10).read_to_end(&mut read).expect("in memory");
            let at = usize::try_from(at).expect("small");
            assert_eq!(read, bytes.get(at..bytes.len().min(at + 10)).expect("inside"));
        }
        assert!(body.seek(SeekFrom::Start(0)).is_ok() && body.seek(SeekFrom::Current(-1)).is_err());
    }
}
