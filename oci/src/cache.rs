//! A folder of blobs by digest, shared by all processes of a user: what was verified once is not fetched again.
//!
//! Files appear by rename, so none is ever seen half written; one that is removed stays readable to whoever opened it. A
//! blob is verified again when it is taken out, because disks and people change files. It holds no manifests: those are
//! asked for each time, so that a registry always decides who may have an image.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::Read as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use dna::Digest;
use tempfile::NamedTempFile;
use tracing::{debug, warn};

use crate::{Blob, Error, manifest::Descriptor, verify::Verifier};

/// A folder that keeps blobs, up to a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Size bound of a cache that was given none: 10 GiB.
    pub const DEFAULT_BYTES: u64 = 10 << 30;

    /// A cache in `folder`, made when it is first written to, of at most `max_bytes` bytes: the blobs that were not used
    /// for the longest time go first.
    pub fn new(folder: impl Into<PathBuf>, max_bytes: u64) -> Self {
        Self { folder: folder.into(), max_bytes }
    }

    /// `$XDG_CACHE_HOME/mayfly/blobs`, else `~/.cache/mayfly/blobs`; none where neither is set.
    pub fn default_folder() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        caches.map(|folder| folder.join("mayfly/blobs"))
    }

    /// The blob, if it is there and still what its digest says; a damaged one is removed.
    pub(crate) fn take(&self, descriptor: &Descriptor) -> Option<Blob> {
        let path = self.path(&descriptor.digest);
        let file = File::open(&path).ok()?;
        match check(&file, descriptor) {
            Ok(()) => {
                // Its time says when it was last used; where that cannot be set, it is only removed earlier.
                let _ = file.set_modified(SystemTime::now());
                Some(Blob::new(Arc::new(file), 0, descriptor.size))
            }
            Err(error) => {
                warn!(digest = %descriptor.digest, %error, "damaged blob removed from the cache");
                let _ = fs::remove_file(path);
                None
            }
        }
    }

    /// A new file to be filled and given to [`put`](Self::put).
    pub(crate) fn file(&self) -> Result<NamedTempFile, Error> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        let file = make.and_then(|()| tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&self.folder));
        file.map_err(|error| Error::write(format!("the cache folder {}", self.folder.display()), error))
    }

    /// Keeps a file whose bytes were verified, then makes room.
    pub(crate) fn put(&self, file: NamedTempFile, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        let failed = |error| Error::write(path.display().to_string(), error);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(failed)?;
        let file = file.persist(&path).map_err(|error| failed(error.error))?;
        // Writing stamps it by the kernel's coarse clock, which is behind that of `take`.
        let _ = file.set_modified(SystemTime::now());
        self.make_room();
        Ok(file)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.algorithm()).join(digest.hex())
    }

    /// Removes the longest unused blobs until the rest fits. Where another process is at it, or a file cannot be removed,
    /// the next one tries again.
    fn make_room(&self) {
        let Ok(lock) = File::create(self.folder.join("lock")) else { return };
        if !locked(&lock) {
            return;
        }
        let mut blobs: Vec<_> = ["sha256", "sha512"].iter().flat_map(|name| files(&self.folder.join(name))).collect();
        blobs.sort();
        let mut bytes = blobs.iter().fold(0u64, |sum, (_, len, _)| sum.saturating_add(*len));
        for (_, len, path) in blobs {
            if bytes <= self.max_bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(len);
            }
        }
        // Left behind by processes that were killed; none takes a day for one blob.
        let old = SystemTime::now().checked_sub(Duration::from_secs(24 * 3600));
        for (modified, _, path) in files(&self.folder) {
            let partial = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL));
            if partial && old.is_some_and(|old| modified < old) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Takes the lock, with little patience: a process that was stopped while it holds it must not stop all others.
fn locked(lock: &File) -> bool {
    for _ in 0..LOCK_ATTEMPTS {
        match lock.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => {
                debug!(%error, "the cache cannot be locked");
                return false;
            }
        }
    }
    false
}

/// Regular files of a folder: time, size, path.
fn files(folder: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let facts = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((metadata.modified().ok()?, metadata.len(), entry.path()))
    });
    facts.collect()
}

fn check(file: &File, descriptor: &Descriptor) -> Result<(), Error> {
    let mut verifier = Verifier::new(descriptor);
    let mut buffer = vec![0; 128 << 10];
    let mut file = file;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return verifier.finish("the cached blob"),
            Ok(count) => verifier.update(buffer.get(..count).unwrap_or_default(), "the cached blob")?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::read("the cached blob", error)),
        }
    }
}

const LOCK_ATTEMPTS: u32 = 50;
const PARTIAL: &str = ".partial-";

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn keep(cache: &Cache, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::new("", Digest::sha256(bytes), bytes.len() as u64);
        let mut file = cache.file().expect("a file");
        file.write_all(bytes).expect("written");
        cache.put(file, &descriptor.digest).expect("kept");
        descriptor
    }

    #[test]
    fn what_was_put_is_taken_out_and_damage_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("new"), 1000);
        let kept = keep(&cache, b"layer");
        assert_eq!(cache.take(&kept).map(|blob| blob.len()), Some(5));
        assert!(cache.take(&Descriptor { size: 4, ..kept.clone() }).is_none(), "of another size");
        let kept = keep(&cache, b"layer");
        fs::write(cache.path(&kept.digest), b"lay3r").expect("damaged");
        assert!(cache.take(&kept).is_none());
        assert!(!cache.path(&kept.digest).exists(), "the damaged file stays");
    }

    #[test]
    fn the_longest_unused_blob_makes_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path(), 10);
        let (old, used) = (keep(&cache, b"aaaaa"), keep(&cache, b"bbbbb"));
        for (descriptor, seconds) in [(&old, 10), (&used, 20)] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::open(cache.path(&descriptor.digest)).and_then(|file| file.set_modified(time)).expect("set");
        }
        let opened = cache.take(&old).expect("there; now it is the last used one");
        let new = keep(&cache, b"ccccc");
        assert!(cache.take(&used).is_none());
        assert!(cache.take(&old).is_some() && cache.take(&new).is_some());
        keep(&cache, &[7; 20]);
        assert!(cache.take(&old).is_none());
        let mut bytes = Vec::new();
        opened.reader().read_to_end(&mut bytes).expect("still readable after it was removed");
        assert_eq!(bytes, b"aaaaa");
    }
}
