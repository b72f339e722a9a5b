//! One layer, read: blob in, entries and spooled bodies out, both digests checked to the last byte.
//!
//! Three threads: one reads, hashes and decompresses the blob, one hashes the archive, one walks it. Chunks between them
//! are bounded by bytes and reused. Nothing of a layer leaves here before both digests match.
//!
//! Of a layer that matched before, its blob is hashed again, but not inflated: what unpacks to one archive does so for ever.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
};

use dna::{Digest, Limits};
use sha2::{Digest as _, Sha256, Sha512};

use crate::{
    Error, Progress,
    archive::{self, Entry, Spool},
    kept::Kept,
};

mod listing;

use listing::Listing;

/// A layer whose digests match.
#[derive(Debug)]
pub(crate) struct VerifiedLayer {
    /// Its entries, in the archive's order.
    pub(crate) entries: Vec<Entry>,
    /// Types of entries that no runtime unpacks, by path.
    pub(crate) skipped: Vec<(Box<[u8]>, u8)>,
    /// Bytes of the uncompressed archive.
    pub(crate) size: u64,
}

/// Reads a layer, or takes what was kept of it.
///
/// # Errors
/// Every variant of [`Error`] that names a layer, and [`Error::Time`]. Where several apply, the blob's digest comes first: a
/// damaged download explains whatever follows from it.
pub(crate) fn read(
    layer: &oci::Layer,
    blob: &oci::Blob,
    limits: &Limits,
    queue_bytes: u64,
    progress: &Progress,
    kept: &Kept,
) -> Result<VerifiedLayer, Error> {
    let name = kept.name("layer", &[&layer.digest.to_string(), &layer.diff_id.to_string()]);
    if let Some(known) = known(layer, blob, &name, limits, progress, kept)? {
        return Ok(known);
    }
    let host = |source| Error::Host { what: "make a temporary file (TMPDIR)".to_owned(), source };
    if let Some(spool) = kept.file().and_then(|file| Spool::keeping(file).ok()) {
        match unpack(layer, blob, spool, limits, queue_bytes, progress) {
            Ok((verified, spool)) => {
                if let Some((file, len, sums)) = spool.into_kept() {
                    kept.keep(&name, file, (len, &sums), &Listing::of(&verified));
                }
                return Ok(verified);
            }
            // The disk of the cache is full.
            Err(Error::Host { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    unpack(layer, blob, Spool::new().map_err(host)?, limits, queue_bytes, progress).map(|(verified, _)| verified)
}

/// A layer whose digests matched in an earlier analysis, once its blob is hashed again.
fn known(
    layer: &oci::Layer,
    blob: &oci::Blob,
    name: &Digest,
    limits: &Limits,
    progress: &Progress,
    kept: &Kept,
) -> Result<Option<VerifiedLayer>, Error> {
    let Some((listing, bodies)) = kept.load::<Listing>(name) else { return Ok(None) };
    let Some(known) = listing.into_layer(&Arc::new(bodies)) else { return Ok(None) };
    let mut raw = Hashing::new(layer, blob, progress);
    let mut buffer = vec![0; CHUNK_BYTES];
    let read = |source| Error::Decompress { layer: layer.digest.clone(), offset: 0, source };
    while raw.read(&mut buffer).map_err(read)? != 0 {
        progress.check()?;
    }
    let found = raw.hash.finish();
    if found != layer.digest {
        return Err(Error::BlobDigest { layer: layer.digest.clone(), found });
    }
    let limit = |limit, value| Err(Error::Limit { layer: layer.digest.clone(), limit, value });
    if progress.add_uncompressed(known.size) > limits.total_bytes {
        return limit("total_bytes", limits.total_bytes);
    }
    let entries = known.entries.len().saturating_add(known.skipped.len());
    if progress.add_entries(entries as u64) > limits.total_entries {
        return limit("total_entries", limits.total_entries);
    }
    Ok(Some(known))
}

/// Reads a layer, bodies into `spool`.
fn unpack(
    layer: &oci::Layer,
    blob: &oci::Blob,
    spool: Spool,
    limits: &Limits,
    queue_bytes: u64,
    progress: &Progress,
) -> Result<(VerifiedLayer, Spool), Error> {
    let chunks = usize::try_from(queue_bytes / CHUNK_BYTES as u64 / 2).unwrap_or(usize::MAX).clamp(1, 4096);
    let (inflated_out, inflated_in) = mpsc::sync_channel(chunks);
    let (hashed_out, hashed_in) = mpsc::sync_channel(chunks);
    let (empty, chunk_back) = mpsc::channel();
    let (inflated, found, walked) = thread::scope(|scope| {
        let inflate = scope.spawn(move || {
            let raw = Hashing::new(layer, blob, progress);
            inflate(layer, raw, limits, progress, inflated_out, &chunk_back)
        });
        let hash = scope.spawn(move || hash(&layer.diff_id, &inflated_in, &hashed_out));
        let walked = walk(layer, Chunks::new(hashed_in, empty), spool, limits, progress);
        (
            inflate.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            hash.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            walked,
        )
    });
    let size = inflated?;
    let (verified, spool) = walked?;
    if found != layer.diff_id {
        return Err(Error::DiffId { layer: layer.digest.clone(), expected: layer.diff_id.clone(), found });
    }
    Ok((VerifiedLayer { size, ..verified }, spool))
}

const CHUNK_BYTES: usize = 256 << 10;
/// Ratios mean nothing before this much came out: an archive of empty files compresses well.
const RATIO_FROM_BYTES: u64 = 64 << 20;

/// Decompresses into the channel; gives the uncompressed size. The whole blob is hashed, whatever else fails.
fn inflate(
    layer: &oci::Layer,
    raw: Hashing<'_>,
    limits: &Limits,
    progress: &Progress,
    full: SyncSender<Vec<u8>>,
    back: &Receiver<Vec<u8>>,
) -> Result<u64, Error> {
    let consumed = raw.consumed.clone();
    let mut raw = BufReader::with_capacity(CHUNK_BYTES, raw);
    let done = decompress(layer, &mut raw, |decoder| {
        let mut size = 0u64;
        loop {
            progress.check()?;
            let mut chunk = back.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES));
            chunk.clear();
            decoder.take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map_err(|source| Error::Decompress {
                layer: layer.digest.clone(),
                offset: size,
                source,
            })?;
            let read = chunk.len() as u64;
            if read == 0 {
                return Ok(size);
            }
            size = size.saturating_add(read);
            let limit = |limit, value| Err(Error::Limit { layer: layer.digest.clone(), limit, value });
            if size > limits.layer_bytes {
                return limit("layer_bytes", limits.layer_bytes);
            }
            if progress.add_uncompressed(read) > limits.total_bytes {
                return limit("total_bytes", limits.total_bytes);
            }
            if size > RATIO_FROM_BYTES
                && size / limits.layer_ratio.max(1)
                    > consumed.load(Ordering::Relaxed).saturating_add(CHUNK_BYTES as u64)
            {
                return limit("layer_ratio", limits.layer_ratio);
            }
            if full.send(chunk).is_err() {
                // The other side gave up; what it says counts, once the blob's digest is known.
                return Ok(size);
            }
        }
    });
    drop(full);
    let time_or_limit = matches!(done, Err(Error::Time { .. } | Error::Limit { .. }));
    if !time_or_limit {
        let read = |source| Error::Decompress { layer: layer.digest.clone(), offset: 0, source };
        io::copy(&mut raw, &mut io::sink()).map_err(read)?;
        let found = raw.into_inner().hash.finish();
        if found != layer.digest {
            return Err(Error::BlobDigest { layer: layer.digest.clone(), found });
        }
    }
    done
}

/// Hands `each` the decoder that the blob's first bytes call for; media types lie too often.
fn decompress<R: BufRead>(
    layer: &oci::Layer,
    raw: &mut R,
    each: impl FnOnce(&mut dyn Read) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let error = |source| Error::Decompress { layer: layer.digest.clone(), offset: 0, source };
    let head = raw.fill_buf().map_err(error)?;
    match head {
        // RFC 1952; several members in a row, as eStargz has, are one stream.
        [0x1f, 0x8b, ..] => each(&mut flate2::bufread::MultiGzDecoder::new(raw)),
        // RFC 8878: a frame, or a skippable frame first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(error)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(error)?;
            each(&mut decoder)
        }
        _ => each(raw),
    }
}

/// 128 MiB, what the zstd program itself accepts without being asked for more memory.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Hashes the archive as it passes on to whoever walks it; gives the diff id found.
fn hash(expected: &Digest, inflated: &Receiver<Vec<u8>>, hashed: &SyncSender<Vec<u8>>) -> Digest {
    let mut hash = Hasher::for_digest(expected);
    for chunk in inflated {
        hash.update(&chunk);
        if hashed.send(chunk).is_err() {
            // The other side gave up, and what it says counts.
            break;
        }
    }
    hash.finish()
}

/// Walks the archive and drains what follows it.
fn walk(
    layer: &oci::Layer,
    mut chunks: Chunks,
    spool: Spool,
    limits: &Limits,
    progress: &Progress,
) -> Result<(VerifiedLayer, Spool), Error> {
    let walked = archive::read(&mut chunks, spool, limits, progress)
        .map_err(|error| error.in_layer(&layer.digest, chunks.offset()))?;
    let read = |source| Error::Decompress { layer: layer.digest.clone(), offset: 0, source };
    io::copy(&mut chunks, &mut io::sink()).map_err(read)?;
    let size = chunks.offset();
    Ok((VerifiedLayer { entries: walked.entries, skipped: walked.skipped, size }, walked.spool))
}

/// A digest in the making, of either registered algorithm.
#[derive(Debug)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    fn for_digest(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha512" => Self::Sha512(Box::default()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::from_sha512(hash.finalize().into()),
        }
    }
}

/// The blob as stored, hashed and counted as it is read.
struct Hashing<'a> {
    inner: oci::BlobReader,
    hash: Hasher,
    progress: &'a Progress,
    consumed: Arc<AtomicU64>,
}

impl<'a> Hashing<'a> {
    fn new(layer: &oci::Layer, blob: &oci::Blob, progress: &'a Progress) -> Self {
        let hash = Hasher::for_digest(&layer.digest);
        Self { inner: blob.reader(), hash, progress, consumed: Arc::default() }
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.progress.add_bytes(read as u64);
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The archive as it comes out of the channel; used chunks go back to be filled again.
struct Chunks {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    before: u64,
}

impl Chunks {
    fn new(full: Receiver<Vec<u8>>, empty: Sender<Vec<u8>>) -> Self {
        Self { full, empty, chunk: Vec::new(), position: 0, before: 0 }
    }

    fn offset(&self) -> u64 {
        self.before.saturating_add(self.position as u64)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.len() {
            // A closed channel is the end: the sender's own result says whether it is the true one.
            if let Ok(next) = self.full.recv() {
                self.before = self.before.saturating_add(self.chunk.len() as u64);
                self.position = 0;
                let _ = self.empty.send(std::mem::replace(&mut self.chunk, next));
            }
        }
        Ok(self.chunk.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.position = self.position.saturating_add(amount).min(self.chunk.len());
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
