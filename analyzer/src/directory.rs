//! An unpacked root file system: a folder of the host in, the same tree that layers would give, out. Links are not followed,
//! other file systems mounted below are left out, bodies stay where they are.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use dna::{Limits, Subject, Unknown};

use crate::{Content, Error, File, Inode, InodeId, InodeKind, Metadata, Progress, Rootfs, Squashed};

/// Reads the tree below `folder`.
///
/// # Errors
/// [`Error::Host`] where the folder itself cannot be read, [`Error::Time`]. A file below that cannot be read is an unknown.
pub(crate) fn read(folder: &Path, limits: &Limits, progress: &Progress) -> Result<Squashed, Error> {
    let host = |source| Error::Host { what: format!("read the folder {}", folder.display()), source };
    let top = fs::metadata(folder).map_err(host)?;
    fs::read_dir(folder).map_err(host)?;
    let mut rootfs = Rootfs::new(limits.symlinks);
    rootfs.inode_mut(InodeId::ROOT).meta = metadata(folder, &top);
    let mut walk = Walk { rootfs, unknowns: Vec::new(), linked: HashMap::new(), device: top.dev() };
    let mut ahead = vec![(folder.to_path_buf(), InodeId::ROOT)];
    while let Some((path, id)) = ahead.pop() {
        progress.check()?;
        if let Err(error) = walk.read_folder(&path, id, limits, progress, &mut ahead) {
            walk.unknown(folder, &path, error.to_string());
        }
    }
    Ok(Squashed { rootfs: walk.rootfs, layer_sizes: vec![None], unknowns: walk.unknowns })
}

struct Walk {
    rootfs: Rootfs,
    unknowns: Vec<Unknown>,
    /// Files with several names, by the host's inode number.
    linked: HashMap<u64, InodeId>,
    device: u64,
}

impl Walk {
    fn read_folder(
        &mut self,
        path: &Path,
        id: InodeId,
        limits: &Limits,
        progress: &Progress,
        ahead: &mut Vec<(std::path::PathBuf, InodeId)>,
    ) -> std::io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if progress.add_entries(1) > limits.total_entries {
                return Err(std::io::Error::other(format!("more than {} files", limits.total_entries)));
            }
            let (path, name) = (entry.path(), entry.file_name());
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) => {
                    self.unknown(Path::new("/"), &path, error.to_string());
                    continue;
                }
            };
            if let Some(known) = self.linked.get(&meta.ino()).filter(|_| meta.nlink() > 1 && !meta.is_dir()) {
                self.rootfs.name(id, name.as_bytes(), *known);
                continue;
            }
            let Some(kind) = kind(&path, &meta)? else { continue };
            let directory = matches!(kind, InodeKind::Directory(_));
            let made = self.rootfs.add(Inode { meta: metadata(&path, &meta), kind });
            self.rootfs.name(id, name.as_bytes(), made);
            if directory && meta.dev() == self.device {
                ahead.push((path, made));
            } else if meta.nlink() > 1 && !directory {
                self.linked.insert(meta.ino(), made);
            }
        }
        Ok(())
    }

    fn unknown(&mut self, folder: &Path, path: &Path, why: String) {
        let inside = path.strip_prefix(folder).unwrap_or(path);
        let place = format!("/{}", inside.as_os_str().as_bytes().escape_ascii());
        self.unknowns.push(Unknown { place, subject: Subject::File, why });
    }
}

fn kind(path: &Path, meta: &fs::Metadata) -> std::io::Result<Option<InodeKind>> {
    let sort = meta.file_type();
    Ok(Some(if sort.is_dir() {
        InodeKind::Directory(BTreeMap::new())
    } else if sort.is_file() {
        InodeKind::File(File { size: meta.len(), sha256: None, content: Content::Host(path.to_path_buf()) })
    } else if sort.is_symlink() {
        InodeKind::Symlink(fs::read_link(path)?.into_os_string().into_vec().into())
    } else if sort.is_fifo() {
        InodeKind::Fifo
    } else if sort.is_char_device() || sort.is_block_device() {
        let (major, minor) = device_numbers(meta.rdev());
        if sort.is_char_device() {
            InodeKind::CharDevice { major, minor }
        } else {
            InodeKind::BlockDevice { major, minor }
        }
    } else {
        // A socket: no image can hold one.
        return Ok(None);
    }))
}

/// Linux's encoding, glibc `gnu_dev_major` and `gnu_dev_minor`.
#[expect(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
fn device_numbers(device: u64) -> (u32, u32) {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000);
    let minor = (device & 0xff) | ((device >> 12) & 0xffff_ff00);
    (major as u32, minor as u32)
}

fn metadata(path: &Path, meta: &fs::Metadata) -> Metadata {
    let mut xattrs = BTreeMap::new();
    if !meta.file_type().is_symlink()
        && let Ok(Some(value)) = xattr::get(path, CAPABILITY)
    {
        xattrs.insert(CAPABILITY.as_bytes().into(), value.into());
    }
    Metadata { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), mtime: meta.mtime(), layer: 0, xattrs }
}

/// The one attribute that later steps read.
const CAPABILITY: &str = "security.capability";
