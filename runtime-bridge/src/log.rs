//! What sensors sent, on disk before it is answered: a log that is appended to by one process and read by cursors.
//!
//! ```text
//! FOLDER/lock                        held by the process that uses the folder
//! FOLDER/00000000000000000007.log    a segment, named by its first offset: header ‖ frame*       (`frame`)
//! FOLDER/cursors/NAME                how far a reader is done
//!
//! append ─► queue ─writer─► one write, one fdatasync for all that wait ─► answers
//!                                         └─durable─► Reader, Cursor
//! ```
//!
//! An offset numbers one record and is never given twice. What [`Log::append`] returned for is there after a kill and after a loss of power;
//! what it failed for may be there. Bytes that do not read are said, with their place and the records lost, and passed by
//! ([`Recovery`], [`Read::Damaged`]). Nothing is removed that some cursor has not passed: when the limit on disk is reached, appending
//! fails instead. Files are for their owner alone: bodies are as the sensor sent them, credentials included.

mod append;
mod cursor;
mod error;
mod frame;
mod read;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Semaphore, oneshot, watch};

use self::{
    append::{Queue, Waiting, Writer},
    frame::Encoded,
    segment::Segment,
};
pub use self::{
    cursor::Cursor,
    error::Error,
    frame::{MAX_BATCH_BYTES, Record},
    read::{Read, Reader},
    segment::{Damage, Torn},
};

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a segment: no more, but for a batch that is larger alone.
    pub segment_bytes: u64,
    /// Bytes on disk, all segments together. Reached by what is not read yet, it makes appending fail.
    pub max_bytes: u64,
    /// How long a segment stays after it was written last, also where all cursors passed it.
    pub keep: Duration,
    /// Bytes of batches that wait to be written; who comes then waits for room.
    pub waiting_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, max_bytes: 8 << 30, keep: Duration::from_secs(3600), waiting_bytes: 32 << 20 }
    }
}

/// The place of a record among all there ever were in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Items of one sensor that came together.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The sensor's id, as it is configured.
    pub sensor: &'a str,
    /// Its dialect's name.
    pub dialect: &'a str,
    /// When they came, to the microsecond.
    pub received: Timestamp,
    /// Whether the sensor sent more than it should.
    pub is_over_limit: bool,
    /// The items' bytes.
    pub items: &'a [&'a [u8]],
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The end of the last segment, where it was no whole frame: it is cut off.
    pub torn: Option<Torn>,
    /// Frames of the last segment that do not read; older segments are checked as they are read.
    pub damaged: Vec<Damage>,
}

/// A log. Clones append to the same; the last one to go waits until all is written.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
    _writing: Arc<Writing>,
}

impl Log {
    /// Opens a log, making its folder where it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`]: another process uses it. [`Error::Folder`]: it cannot be used. [`Error::Cursor`]: a cursor's file does not read.
    pub fn open(folder: &Path, options: Options) -> Result<(Self, Recovery), Error> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source: Arc::new(source) };
        let mut directory = fs::DirBuilder::new();
        directory.recursive(true).mode(0o700).create(folder.join(cursor::FOLDER)).map_err(unusable)?;
        let lock = lock(folder)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            segment::sync_folder(parent).map_err(unusable)?;
        }
        let cursors = cursor::all(folder)?;
        let (writer, recovery) =
            Writer::recover(folder, options.segment_bytes, cursors.values().max().copied().unwrap_or(0))
                .map_err(unusable)?;
        recovery.tell(folder);
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            durable: watch::Sender::new(writer.durable()),
            segments: Mutex::new(writer.segments()),
            cursors: Mutex::new(cursors),
            in_use: Mutex::default(),
            queue: Queue::default(),
            room: Arc::new(Semaphore::new(usize::try_from(options.waiting_bytes / KIB).unwrap_or(usize::MAX).max(1))),
            options,
            _lock: lock,
        });
        let writing = Writing::start(&shared, writer).map_err(unusable)?;
        Ok((Self { shared, _writing: Arc::new(writing) }, recovery))
    }

    /// Appends a batch, and resolves when it is on disk: the offset is that of its first record, the others follow. Dropping the future
    /// leaves open whether it is appended.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Limit`], [`Error::Write`]: nothing of it was promised; later ones may succeed. [`Error::TooLarge`].
    pub async fn append(&self, batch: &Batch<'_>) -> Result<Offset, Error> {
        let encoded = Encoded::new(batch)?;
        let whole = self.shared.options.waiting_bytes / KIB;
        let kib = u32::try_from(encoded.len().div_ceil(KIB as usize)).unwrap_or(whole).clamp(1, whole.max(1));
        let room = Arc::clone(&self.shared.room).acquire_many_owned(kib).await.map_err(|_| Error::Closed)?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Waiting { encoded, answer, _room: room })?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Reads from an offset on; from the oldest record there is where that is later.
    #[must_use]
    pub fn reader(&self, from: Offset) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// Reads as `name`, from where it was done; a new one from the oldest record. From now on, nothing is removed that it has not passed.
    ///
    /// # Errors
    /// [`Error::Cursor`]: this is no name, or it is in use, or its file cannot be written.
    pub fn cursor(&self, name: &str) -> Result<Cursor, Error> {
        Cursor::open(&self.shared, name)
    }

    /// Forgets a cursor, so that it holds nothing any more.
    ///
    /// # Errors
    /// [`Error::Cursor`]: there is none of that name, it is in use, or its file cannot be removed.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        cursor::forget(&self.shared, name)
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset(self.shared.durable.borrow().next)
    }

    /// Which part of the limit on disk is taken by segments that some cursor has not passed, from 0 to 1.
    #[must_use]
    pub fn unread_part(&self) -> f64 {
        let passed = self.shared.passed();
        let segments = locked(&self.shared.segments);
        let ends = segments.keys().skip(1).copied().chain([u64::MAX]);
        let unread: u64 =
            segments.values().zip(ends).filter(|(_, end)| *end > passed).map(|(segment, _)| segment.bytes).sum();
        #[expect(clippy::cast_precision_loss, reason = "a part of bytes on a disk")]
        let part = unread as f64 / self.shared.options.max_bytes.max(1) as f64;
        part.min(1.0)
    }
}

impl Recovery {
    fn tell(&self, folder: &Path) {
        if let Some(Torn { path, bytes, .. }) = &self.torn {
            tracing::warn!(segment = %path.display(), bytes, "the end of the log was not written whole; it is cut off");
        }
        for damage in &self.damaged {
            tracing::error!(folder = %folder.display(), %damage, "part of the log does not read");
        }
    }
}

/// What the writer, readers and cursors share.
#[derive(Debug)]
pub(crate) struct Shared {
    folder: PathBuf,
    options: Options,
    durable: watch::Sender<Durable>,
    /// By first offset. The writer changes it before it tells of what is durable.
    segments: Mutex<BTreeMap<u64, Segment>>,
    /// Every cursor there is, used or not, with what is on disk of it.
    cursors: Mutex<BTreeMap<String, u64>>,
    in_use: Mutex<BTreeSet<String>>,
    queue: Queue,
    room: Arc<Semaphore>,
    _lock: File,
}

impl Shared {
    /// The offset that all cursors have passed; none of them: nobody has read anything.
    fn passed(&self) -> u64 {
        locked(&self.cursors).values().min().copied().unwrap_or(0)
    }
}

/// How far the log is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Durable {
    next: u64,
    segment: u64,
    length: u64,
}

/// The writer's thread. Ends, all written, when it is dropped.
#[derive(Debug)]
struct Writing {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writing {
    fn start(shared: &Arc<Shared>, writer: Writer) -> std::io::Result<Self> {
        let for_writer = Arc::clone(shared);
        let thread =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || append::run(&for_writer, writer))?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.queue.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(folder = %self.shared.folder.display(), "the log's writer panicked");
        }
    }
}

/// Takes the folder for this process.
fn lock(folder: &Path) -> Result<File, Error> {
    let unusable = |source| Error::Folder { path: folder.to_owned(), source: Arc::new(source) };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(folder.join("lock")).map_err(unusable)?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // A process that was killed may hold it for a moment yet, and so may a child that is just being started.
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(32).read_to_string(&mut holder);
                return Err(Error::Locked { path: folder.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(unusable(source)),
        }
    }
    // For whoever is refused; on a full disk it may be missing.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// A thread that panicked left nothing half done under these locks: each holds one map, changed in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const KIB: u32 = 1024;
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
