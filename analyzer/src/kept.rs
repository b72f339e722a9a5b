//! What earlier analyses worked out, and what this one keeps for later ones: verified layers, summaries of code.
//!
//! A fact's name is a digest of all that it depends on: digests of the bytes it was worked out of, the rules and limits, and
//! this analyzer's own sources. So a name is never given to other facts, and nothing needs to be kept up to date.
//!
//! ```text
//! bodies ‖ document ‖ check values of the bodies ‖ lengths ‖ SHA-256 of all but the bodies, and of the name
//! ```
//!
//! What is damaged is noticed before it is used, forgotten, and worked out anew. Whoever can write as the user who reads, can
//! make facts up, as he can exchange this program: [`oci::Cache`] reads no file that anybody else could have written. No
//! failure of the disk fails an analysis.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dna::Digest;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::rootfs::bodies::{Bodies, PIECE_BYTES, Seal};

/// The facts that may be read and kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    cache: Option<oci::Cache>,
    is_read: bool,
    /// The rules and limits.
    rules: String,
    is_damaged: Arc<AtomicBool>,
    is_written: Arc<AtomicBool>,
}

impl Kept {
    /// Facts by these rules, in a cache where there is one.
    pub(crate) fn new(cache: Option<&oci::Cache>, rules: &Digest) -> Self {
        Self { cache: cache.cloned(), is_read: true, rules: rules.to_string(), ..Self::default() }
    }

    /// The same, but nothing is read.
    pub(crate) fn anew(&self) -> Self {
        Self { is_read: false, is_damaged: Arc::default(), ..self.clone() }
    }

    /// Whether something that was read turned out to be damaged after its use began.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// The name of facts of a kind, worked out of these bytes.
    pub(crate) fn name(&self, kind: &str, of: &[&str]) -> Digest {
        let parts = [kind, env!("MAYFLY_SOURCES"), &self.rules];
        Digest::sha256(parts.iter().chain(of).copied().collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// The facts of this name, with the bodies they speak of; none where they are not there, or damaged.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &Digest) -> Option<(T, Bodies)> {
        let cache = self.cache.as_ref().filter(|_| self.is_read)?;
        let file = cache.facts(name)?;
        match self.open(cache, name, file) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(%name, %error, "damaged facts removed from the cache");
                cache.forget_facts(name);
                None
            }
        }
    }

    fn open<T: DeserializeOwned>(&self, cache: &oci::Cache, name: &Digest, file: fs::File) -> io::Result<(T, Bodies)> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its check values do not match");
        let len = file.metadata()?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let end = len.checked_sub(trailer.len() as u64).ok_or_else(damaged)?;
        file.read_exact_at(&mut trailer, end)?;
        let (lengths, digest) = trailer.split_at(LENGTHS_BYTES);
        let [bodies, document] = [0, 8].map(|at| lengths.get(at..).and_then(<[u8]>::first_chunk).copied());
        let (bodies, document) = bodies.zip(document).ok_or_else(damaged)?;
        let (bodies, document) = (u64::from_le_bytes(bodies), u64::from_le_bytes(document));
        let sums = bodies.div_ceil(PIECE_BYTES as u64).checked_mul(4);
        let expected = sums.and_then(|sums| bodies.checked_add(document)?.checked_add(sums));
        if expected != Some(end) {
            return Err(damaged());
        }
        let mut facts = vec![0; usize::try_from(end.saturating_sub(bodies)).map_err(|_| damaged())?];
        file.read_exact_at(&mut facts, bodies)?;
        let mut hash = Sha256::new_with_prefix(name.hex());
        hash.update(&facts);
        hash.update(lengths);
        if hash.finalize().as_slice() != digest {
            return Err(damaged());
        }
        let (document, sums) =
            facts.split_at_checked(usize::try_from(document).unwrap_or(usize::MAX)).ok_or_else(damaged)?;
        let value = postcard::from_bytes(document).map_err(io::Error::other)?;
        let (cache, name) = (cache.clone(), name.clone());
        let seal = Seal {
            len: bodies,
            sums: sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect(),
            is_damaged: self.is_damaged.clone(),
            forget: Box::new(move || cache.forget_facts(&name)),
        };
        Ok((value, Bodies::sealed(file, seal)))
    }

    /// A file for bodies that are to be kept; none where nothing is kept, or it cannot be.
    pub(crate) fn file(&self) -> Option<NamedTempFile> {
        self.cache.as_ref()?.new_file().inspect_err(|error| tracing::debug!(%error, "nothing is kept")).ok()
    }

    /// Keeps facts, after the bodies in their file, `len` bytes with these check values.
    pub(crate) fn keep<T: Serialize>(&self, name: &Digest, file: NamedTempFile, (len, sums): (u64, &[u32]), value: &T) {
        let Some(cache) = &self.cache else { return };
        let done = seal(name, &file, len, sums, value).and_then(|()| cache.keep_facts(file, name));
        match done {
            Ok(_) => self.is_written.store(true, Ordering::Relaxed),
            Err(error) => tracing::debug!(%name, %error, "facts are not kept"),
        }
    }

    /// Ends an analysis: what it kept may have to make room.
    pub(crate) fn close(&self) {
        if let Some(cache) = self.cache.as_ref().filter(|_| self.is_written.swap(false, Ordering::Relaxed)) {
            cache.make_room();
        }
    }
}

/// Writes all that follows the bodies.
fn seal<T: Serialize>(name: &Digest, file: &NamedTempFile, len: u64, sums: &[u32], value: &T) -> io::Result<()> {
    let hash = Sha256::new_with_prefix(name.hex());
    let mut sink = Sink { file: io::BufWriter::with_capacity(BUFFER_BYTES, file.as_file()), hash, written: 0 };
    postcard::to_io(value, &mut sink).map_err(io::Error::other)?;
    let document = sink.written;
    for sum in sums {
        sink.write_all(&sum.to_le_bytes())?;
    }
    for length in [len, document] {
        sink.write_all(&length.to_le_bytes())?;
    }
    sink.file.write_all(&sink.hash.finalize())?;
    sink.file.flush()
}

/// Hashes what is written.
struct Sink<'a> {
    file: io::BufWriter<&'a fs::File>,
    hash: Sha256,
    written: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written = self.written.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

const LENGTHS_BYTES: usize = 16;
const TRAILER_BYTES: usize = LENGTHS_BYTES + 32;
const BUFFER_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(kept: &Kept, name: &Digest, bodies: &[u8], value: &str) {
        let mut file = kept.file().expect("a file");
        file.write_all(bodies).expect("written");
        let mut sums = crate::rootfs::bodies::Sums::default();
        sums.update(bodies);
        kept.keep(name, file, (bodies.len() as u64, &sums.finish()), &value);
    }

    #[test]
    fn what_was_kept_is_found_and_any_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = oci::Cache::new(folder.path(), 1 << 20);
        let kept = Kept::new(Some(&cache), &Digest::sha256(b"rules"));
        let name = kept.name("layer", &["a", "b"]);
        assert!(kept.load::<String>(&name).is_none());
        keep(&kept, &name, b"bodies", "facts");
        let (value, bodies) = kept.load::<String>(&name).expect("kept");
        assert_eq!((value.as_str(), bodies.read(1, 4).expect("whole").as_slice()), ("facts", &b"odie"[..]));
        assert!(kept.anew().load::<String>(&name).is_none());
        assert!(
            Kept::new(Some(&cache), &Digest::sha256(b"others")).load::<String>(&kept.name("code", &["a"])).is_none()
        );
        let path = folder.path().join("facts").join(name.hex());
        let whole = fs::read(&path).expect("there");
        for at in 0..whole.len() {
            let mut spoilt = whole.clone();
            if let Some(byte) = spoilt.get_mut(at) {
                *byte ^= 1;
            }
            fs::write(&path, spoilt).expect("spoilt");
            let kept = kept.clone();
            let is_found = kept.load::<String>(&name).is_some_and(|(_, bodies)| bodies.read(0, 6).is_ok());
            assert!(!is_found && !path.exists(), "byte {at}");
        }
        for len in 0..whole.len() {
            fs::write(&path, whole.get(..len).unwrap_or_default()).expect("cut");
            assert!(kept.load::<String>(&name).is_none(), "{len} bytes");
        }
    }

    #[test]
    fn facts_under_another_name_are_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = oci::Cache::new(folder.path(), 1 << 20);
        let kept = Kept::new(Some(&cache), &Digest::sha256(b"rules"));
        let [one, other] = ["one", "other"].map(|of| kept.name("code", &[of]));
        keep(&kept, &one, b"", "facts");
        fs::rename(folder.path().join("facts").join(one.hex()), folder.path().join("facts").join(other.hex()))
            .expect("moved");
        assert!(kept.load::<String>(&other).is_none());
    }

    #[test]
    fn a_cache_that_cannot_be_written_to_keeps_nothing() {
        let kept = Kept::new(Some(&oci::Cache::new("/proc/none", 1 << 20)), &Digest::sha256(b"rules"));
        assert!(kept.file().is_none());
        assert!(kept.load::<String>(&kept.name("code", &[])).is_none());
        kept.close();
    }
}
