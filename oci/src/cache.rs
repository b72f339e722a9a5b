//! A folder of blobs by digest, and of facts worked out of them, shared by all processes of a user: what was verified once is
//! not fetched again, what was worked out once is not worked out again.
//!
//! Files appear by rename, so none is ever seen half written; one that is removed stays readable to whoever opened it. A
//! blob is verified again when it is taken out, because disks and people change files. It holds no manifests: those are
//! asked for each time, so that a registry always decides who may have an image.
//!
//! Facts have no digest to be verified by. They are read only where the user who reads them wrote them and nobody else can
//! write to them; whoever writes them seals them against damage.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use dna::Digest;
use tempfile::NamedTempFile;
use tracing::debug;

#[cfg(feature = "registry")]
mod blobs;

/// A folder that keeps blobs and facts, up to a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Size bound of a cache that was given none: 10 GiB.
    pub const DEFAULT_BYTES: u64 = 10 << 30;

    /// A cache in `folder`, made when it is first written to, of at most `max_bytes` bytes: the blobs that were not used
    /// for the longest time go first, and so with facts.
    pub fn new(folder: impl Into<PathBuf>, max_bytes: u64) -> Self {
        Self { folder: folder.into(), max_bytes }
    }

    /// `$XDG_CACHE_HOME/mayfly/blobs`, else `~/.cache/mayfly/blobs`; none where neither is set.
    pub fn default_folder() -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        caches.map(|folder| folder.join("mayfly/blobs"))
    }

    /// The facts of this name, where they are there and only the user who asks can have written them.
    pub fn facts(&self, name: &Digest) -> Option<File> {
        let path = self.facts_path(name);
        let is_own = |metadata: &fs::Metadata| metadata.is_file() && Some(metadata.uid()) == user();
        // A pipe in the place of a file would be waited for.
        fs::symlink_metadata(&path).ok().filter(is_own)?;
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        if !is_own(&metadata) || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return None;
        }
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// A new file to be filled and given to [`keep_facts`](Self::keep_facts), or else removed when it is dropped.
    ///
    /// # Errors
    /// The folder cannot be made or written to.
    pub fn new_file(&self) -> io::Result<NamedTempFile> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&self.folder)
    }

    /// Keeps facts under a name, which says all that they depend on.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn keep_facts(&self, file: NamedTempFile, name: &Digest) -> io::Result<File> {
        self.keep(file, &self.facts_path(name))
    }

    /// Forgets facts, which turned out to be damaged.
    pub fn forget_facts(&self, name: &Digest) {
        let _ = fs::remove_file(self.facts_path(name));
    }

    fn keep(&self, file: NamedTempFile, path: &Path) -> io::Result<File> {
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        let file = file.persist(path).map_err(|error| error.error)?;
        // Writing stamps it by the kernel's coarse clock, which is behind that of reading.
        let _ = file.set_modified(SystemTime::now());
        Ok(file)
    }

    fn facts_path(&self, name: &Digest) -> PathBuf {
        self.folder.join(FACTS).join(name.hex())
    }

    /// Removes what was not used for the longest time until the rest fits. Where another process is at it, or a file cannot
    /// be removed, the next one tries again.
    pub fn make_room(&self) {
        let Ok(lock) = File::create(self.folder.join("lock")) else { return };
        if !locked(&lock) {
            return;
        }
        let mut kept: Vec<_> =
            ["sha256", "sha512", FACTS].iter().flat_map(|name| files(&self.folder.join(name))).collect();
        kept.sort();
        let mut bytes = kept.iter().fold(0u64, |sum, (_, len, _)| sum.saturating_add(*len));
        for (_, len, path) in kept {
            if bytes <= self.max_bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(len);
            }
        }
        // Left behind by processes that were killed; none takes a day for one file.
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

/// The user who runs this, by the files the system makes for it.
fn user() -> Option<u32> {
    let own = fs::metadata("/proc/self").or_else(|_| tempfile::tempfile()?.metadata());
    own.ok().map(|metadata| metadata.uid())
}

/// Group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const FACTS: &str = "facts";
const LOCK_ATTEMPTS: u32 = 50;
const PARTIAL: &str = ".partial-";

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn facts_that_others_can_write_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("new"), 1000);
        let name = Digest::sha256(b"name");
        assert!(cache.facts(&name).is_none());
        let mut file = cache.new_file().expect("a file");
        file.write_all(b"facts").expect("written");
        let kept = cache.keep_facts(file, &name).expect("kept");
        assert!(cache.facts(&name).is_some());
        kept.set_permissions(fs::Permissions::from_mode(0o620)).expect("set");
        assert!(cache.facts(&name).is_none());
        kept.set_permissions(fs::Permissions::from_mode(0o600)).expect("set");
        cache.forget_facts(&name);
        assert!(cache.facts(&name).is_none());
        std::os::unix::fs::symlink("/etc/passwd", cache.facts_path(&name)).expect("linked");
        assert!(cache.facts(&name).is_none());
    }

    #[test]
    fn facts_make_room_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path(), 3);
        let name = Digest::sha256(b"name");
        let mut file = cache.new_file().expect("a file");
        file.write_all(b"facts").expect("written");
        cache.keep_facts(file, &name).expect("kept");
        cache.make_room();
        assert!(cache.facts(&name).is_none());
    }
}
