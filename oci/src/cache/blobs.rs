//! The cache's blobs, which registries give: each verified when it is taken out.

use std::{
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use dna::Digest;
use tempfile::NamedTempFile;
use tracing::warn;

use super::Cache;
use crate::{Blob, Error, manifest::Descriptor, verify::Verifier};

impl Cache {
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
        self.new_file().map_err(|error| Error::write(format!("the cache folder {}", self.folder.display()), error))
    }

    /// Keeps a file whose bytes were verified, then makes room.
    pub(crate) fn put(&self, file: NamedTempFile, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        let file = self.keep(file, &path).map_err(|error| Error::write(path.display().to_string(), error))?;
        self.make_room();
        Ok(file)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.algorithm()).join(digest.hex())
    }
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

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

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
