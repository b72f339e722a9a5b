//! Layers on top of each other: an opened image in, the tree a container would see, out.
//!
//! Layers are read in parallel, the largest first, and applied in order. The rules are those of the OCI image specification
//! (`layer.md`) as the runtimes follow them: whiteouts and opaque directories hide lower layers only, parents resolve inside
//! the root only, a directory over a directory keeps its contents and takes the new owner and mode.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

use dna::{Digest, ImagePath, Limits, Subject, Unknown};
use oci::{Contents, Image, LayerBody};

use crate::{
    Error, Inode, InodeId, InodeKind, Metadata, Progress, Rootfs,
    archive::{Entry, EntryKind},
    directory,
    kept::Kept,
    layer::{self, VerifiedLayer},
};

/// An image's files, and what was learned on the way.
#[derive(Debug)]
pub struct Squashed {
    /// The tree.
    pub rootfs: Rootfs,
    /// Uncompressed bytes of each layer, lowest first; none for one that could not be read.
    pub layer_sizes: Vec<Option<u64>>,
    /// What could not be read.
    pub unknowns: Vec<Unknown>,
}

/// Reads and squashes an image.
///
/// # Errors
/// [`Error`]: a layer that is damaged, lies, or passes a limit; the host's temporary folder; time.
pub fn squash(image: &Image, limits: &Limits, progress: &Progress) -> Result<Squashed, Error> {
    squash_with(image, limits, progress, &Kept::default())
}

/// The same, where layers that were verified before are not unpacked again.
pub(crate) fn squash_with(image: &Image, limits: &Limits, progress: &Progress, kept: &Kept) -> Result<Squashed, Error> {
    if image.platform.os() != "linux" {
        let why = format!("an image for {}: only Linux images are analyzed", image.platform);
        let unknown = Unknown { place: "config os".to_owned(), subject: Subject::Platform, why };
        return Ok(Squashed { rootfs: Rootfs::new(limits.symlinks), layer_sizes: Vec::new(), unknowns: vec![unknown] });
    }
    match &image.contents {
        Contents::Layers(layers) => squash_layers(layers, limits, progress, kept),
        Contents::Directory(folder) => directory::read(folder, limits, progress),
    }
}

fn squash_layers(layers: &[oci::Layer], limits: &Limits, progress: &Progress, kept: &Kept) -> Result<Squashed, Error> {
    if layers.len() as u64 > limits.layers {
        return Err(Error::Layers { found: layers.len(), limit: limits.layers });
    }
    let mut rootfs = Rootfs::new(limits.symlinks);
    let (mut layer_sizes, mut unknowns) = (Vec::new(), Vec::new());
    for (number, (layer, read)) in (0u32..).zip(layers.iter().zip(read_all(layers, limits, progress, kept)?)) {
        let unknown = |why: String| Unknown { place: layer.digest.to_string(), subject: Subject::Layer, why };
        let Some(verified) = read else {
            if let LayerBody::Unreadable(why) = &layer.body {
                unknowns.push(unknown(why.clone()));
            }
            layer_sizes.push(None);
            continue;
        };
        layer_sizes.push(Some(verified.size));
        for (path, flag) in &verified.skipped {
            let place = path.escape_ascii().to_string();
            let why = format!("tar entry of type {:?}, which no runtime unpacks", char::from(*flag));
            unknowns.push(Unknown { place, subject: Subject::File, why });
        }
        apply(&mut rootfs, verified.entries, number).map_err(|(path, reason)| Error::Entry {
            layer: layer.digest.clone(),
            path,
            reason,
        })?;
        progress.check()?;
    }
    Ok(Squashed { rootfs, layer_sizes, unknowns })
}

/// Reads every readable layer, as many at once as there are processors, the largest first: it bounds the whole.
fn read_all(
    layers: &[oci::Layer],
    limits: &Limits,
    progress: &Progress,
    kept: &Kept,
) -> Result<Vec<Option<VerifiedLayer>>, Error> {
    let mut work: Vec<(usize, &oci::Layer, &oci::Blob)> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        if let LayerBody::Present(blob) = &layer.body {
            work.push((index, layer, blob));
        }
    }
    work.sort_by_key(|(index, _, blob)| (blob.len(), *index));
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(work.len()).max(1);
    let queue_bytes = limits.queue_bytes / workers as u64;
    let work = Mutex::new(work);
    let done: Mutex<BTreeMap<usize, Result<VerifiedLayer, Error>>> = Mutex::new(BTreeMap::new());
    let failed = || lock(&done).values().any(Result::is_err);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while !failed()
                    && let Some((index, layer, blob)) = next(&work)
                {
                    let read = layer::read(layer, blob, limits, queue_bytes, progress, kept);
                    lock(&done).insert(index, read);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = done.iter().find(|(_, read)| read.is_err()).map(|(index, _)| *index)
        && let Some(Err(error)) = done.remove(&index)
    {
        return Err(error);
    }
    Ok((0..layers.len()).map(|index| done.remove(&index).and_then(Result::ok)).collect())
}

fn next<T>(work: &Mutex<Vec<T>>) -> Option<T> {
    lock(work).pop()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an entry cannot be placed: its path, and the reason.
type Misplaced = (ImagePath, &'static str);

/// Applies one layer. Whiteouts go first, so that they hide lower layers only, wherever they stand in the archive.
fn apply(rootfs: &mut Rootfs, entries: Vec<Entry>, layer: u32) -> Result<(), Misplaced> {
    let (whiteouts, entries): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.path.file_name().starts_with(WHITEOUT));
    if !whiteouts.is_empty() {
        // A folder that this layer makes where a lower one has a link is not that link's target.
        let made: HashSet<&ImagePath> = entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Directory))
            .map(|entry| &entry.path)
            .collect();
        for whiteout in &whiteouts {
            hide(rootfs, &whiteout.path, &made);
        }
    }
    // Hard links may name a file that stands later in the archive.
    let mut links = Vec::new();
    for entry in entries {
        match entry.kind {
            EntryKind::HardLink(ref target) if !place_link(rootfs, &entry.path, target)? => links.push(entry),
            EntryKind::HardLink(_) => {}
            _ => place(rootfs, entry, layer)?,
        }
    }
    for entry in links {
        if let EntryKind::HardLink(target) = &entry.kind
            && !place_link(rootfs, &entry.path, target)?
        {
            return Err((entry.path, "a hard link to a file that does not exist"));
        }
    }
    Ok(())
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Takes away what a whiteout names. One that names nothing is harmless.
fn hide(rootfs: &mut Rootfs, whiteout: &ImagePath, made: &HashSet<&ImagePath>) {
    let Some(parent) = whiteout.parent() else { return };
    let Ok(found) = rootfs.resolve(&parent) else { return };
    if found.path != parent && made.contains(&parent) {
        return;
    }
    let name = whiteout.file_name();
    let InodeKind::Directory(names) = &mut rootfs.inode_mut(found.inode).kind else { return };
    if name == OPAQUE {
        names.clear();
    } else if let Some(hidden) = name.strip_prefix(WHITEOUT)
        && !hidden.starts_with(WHITEOUT)
    {
        names.remove(hidden);
    }
}

/// Puts an entry at its path.
fn place(rootfs: &mut Rootfs, entry: Entry, layer: u32) -> Result<(), Misplaced> {
    let Entry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
    let meta = Metadata { mode, uid, gid, mtime, layer, xattrs };
    if path.is_root() {
        if let EntryKind::Directory = kind {
            rootfs.inode_mut(InodeId::ROOT).meta = meta;
            return Ok(());
        }
        return Err((path, "the root is a directory"));
    }
    let parent = make_parent(rootfs, &path, layer)?;
    let name = path.file_name();
    let kind = match kind {
        EntryKind::Directory => {
            let there = rootfs.children(parent).find(|(n, _)| *n == name).map(|(_, id)| id);
            if let Some(id) = there
                && matches!(rootfs.inode(id).kind, InodeKind::Directory(_))
            {
                rootfs.inode_mut(id).meta = meta;
                return Ok(());
            }
            InodeKind::Directory(BTreeMap::new())
        }
        EntryKind::File(file) => InodeKind::File(file),
        EntryKind::Symlink(target) => InodeKind::Symlink(target),
        EntryKind::CharDevice { major, minor } => InodeKind::CharDevice { major, minor },
        EntryKind::BlockDevice { major, minor } => InodeKind::BlockDevice { major, minor },
        EntryKind::Fifo => InodeKind::Fifo,
        EntryKind::HardLink(_) => return Ok(()),
    };
    let id = rootfs.add(Inode { meta, kind });
    rootfs.name(parent, name, id);
    Ok(())
}

/// Gives the file at `target` a second name; false where there is none (yet).
fn place_link(rootfs: &mut Rootfs, path: &ImagePath, target: &ImagePath) -> Result<bool, Misplaced> {
    let Ok(found) = rootfs.lookup(target) else { return Ok(false) };
    if matches!(rootfs.inode(found.inode).kind, InodeKind::Directory(_)) {
        return Err((path.clone(), "a hard link to a directory"));
    }
    if path.is_root() {
        return Err((path.clone(), "the root is a directory"));
    }
    let layer = rootfs.inode(found.inode).meta.layer;
    let parent = make_parent(rootfs, path, layer)?;
    rootfs.name(parent, path.file_name(), found.inode);
    Ok(true)
}

/// The directory a path's last component goes into: links resolved inside the root, missing parts made.
fn make_parent(rootfs: &mut Rootfs, path: &ImagePath, layer: u32) -> Result<InodeId, Misplaced> {
    let parent = path.parent().unwrap_or_else(ImagePath::root);
    rootfs.make_directories(&parent, layer).map_err(|reason| (path.clone(), reason))
}

/// Reads one layer from memory and applies it to an empty tree: the whole way of a layer's bytes, for tests and fuzzing.
///
/// # Errors
/// As [`squash`].
pub fn squash_layer(blob: &[u8], diff_id: Option<Digest>, limits: &Limits) -> Result<Squashed, Error> {
    let host = |source| Error::Host { what: "make a temporary file".to_owned(), source };
    let mut file = tempfile::tempfile().map_err(host)?;
    std::io::Write::write_all(&mut file, blob).map_err(host)?;
    let digest = Digest::sha256(blob);
    let layer = oci::Layer {
        diff_id: diff_id.unwrap_or_else(|| digest.clone()),
        digest,
        media_type: String::new(),
        annotations: BTreeMap::new(),
        body: LayerBody::Present(oci::Blob::new(std::sync::Arc::new(file), 0, blob.len() as u64)),
    };
    squash_layers(&[layer], limits, &Progress::start(limits), &Kept::default())
}
