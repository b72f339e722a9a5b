//! Takes records without holding up who has them, and sees to it that each is in the ledger in the end, once.
//!
//! ```text
//! record() ──memory, bounded──► thread ──disk, bounded──► task ──transactions──► ledger
//! ```
//!
//! Every record goes through the spool, also while the ledger answers: so nothing but what is in memory (for less than a
//! millisecond, while the disk takes it) is lost when the process is killed, and recovery is no path of its own. The task repeats
//! what the ledger did not confirm, and the ledger takes a record twice as once. What is lost is counted, by cause.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    Error, Ledger, Record,
    spool::{self, Reader, Writer, Written},
};

/// Bounds of a [`Recorder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderOptions {
    /// Where records wait: a folder of this process alone.
    pub spool: PathBuf,
    /// Of records in memory.
    pub memory_bytes: u64,
    /// Of records on disk.
    pub spool_bytes: u64,
}

impl RecorderOptions {
    /// 16 MiB of memory and 256 MiB of disk: an hour without the ledger at 20 admissions a second of 3 KiB.
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        Self { spool: spool.into(), memory_bytes: 16 << 20, spool_bytes: 256 << 20 }
    }
}

/// What became of records since this process began; of those an earlier one left, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by [`Recorder::record`].
    pub accepted: u64,
    /// In the ledger.
    pub written: u64,
    /// Lost, as memory was full: the disk does not keep up.
    pub lost_memory_full: u64,
    /// Lost, as the spool was full: the ledger has been away for too long.
    pub lost_spool_full: u64,
    /// Lost, as the disk failed.
    pub lost_disk: u64,
    /// Lost, as the ledger will never take them.
    pub lost_refused: u64,
    /// Ends of segments that could not be read; how many records were in them is not known.
    pub damaged_segments: u64,
    /// Attempts to write that failed and are repeated.
    pub retries: u64,
    /// Bytes in memory now.
    pub memory_bytes: u64,
    /// Bytes on disk now, with what is in the ledger but not yet removed.
    pub spool_bytes: u64,
    /// Whether the last attempt to write failed.
    pub is_behind: bool,
}

impl Counts {
    /// All that was lost.
    pub fn lost(&self) -> u64 {
        self.lost_memory_full + self.lost_spool_full + self.lost_disk + self.lost_refused
    }
}

/// Takes records, and writes them behind their maker's back. Dropped without [`Recorder::shutdown`], it leaves on disk what it
/// took; the next one in the same folder goes on.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    ends: Mutex<Option<Ends>>,
}

#[derive(Debug)]
struct Ends {
    records: SyncSender<Record>,
    thread: thread::JoinHandle<()>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Begins, with what an earlier process left in the spool. The ledger need not answer yet.
    ///
    /// # Errors
    /// [`Error::Spool`].
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(ledger: Ledger, options: &RecorderOptions) -> Result<Self, Error> {
        Self::with(ledger, options)
    }

    fn with(sink: impl Sink, options: &RecorderOptions) -> Result<Self, Error> {
        let (writer, reader) = spool::open(&options.spool, options.spool_bytes)?;
        let shared = Arc::new(Shared::new(options));
        shared.spool_bytes.store(reader.left_bytes(), Ordering::Relaxed);
        let (written, seen) = watch::channel(writer.written());
        let (records, received) = sync_channel(CHANNEL_RECORDS);
        let thread = thread::Builder::new()
            .name("mayfly-spool".to_owned())
            .spawn({
                let shared = shared.clone();
                move || append(&received, writer, &written, &shared)
            })
            .map_err(|source| Error::Spool { path: options.spool.clone(), advice: "no thread for it", source })?;
        let task = tokio::spawn(ship(sink, reader, seen, shared.clone(), options.spool.clone()));
        Ok(Self { shared, ends: Mutex::new(Some(Ends { records, thread, task })) })
    }

    /// Takes a record, at once. Returns whether it was taken; where not, it is counted as lost. A dry run leaves no trace.
    pub fn record(&self, record: impl Into<Record>) -> bool {
        let record = record.into();
        if record.is_dry_run() {
            return true;
        }
        let bytes = record.bytes();
        let taken = self.shared.memory.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.shared.memory_limit)
        });
        let is_taken = taken.is_ok() && {
            let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = ends.as_ref().is_some_and(|ends| ends.records.try_send(record).is_ok());
            if !sent {
                self.shared.memory.fetch_sub(bytes, Ordering::AcqRel);
            }
            sent
        };
        let counter = if is_taken { &self.shared.accepted } else { &self.shared.lost_memory_full };
        counter.fetch_add(1, Ordering::Relaxed);
        is_taken
    }

    /// What became of records so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Takes no more, and writes what it has until `deadline`. What is not written by then waits on disk for the next process.
    pub async fn shutdown(&self, deadline: Duration) -> Counts {
        let end = Instant::now() + deadline;
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Ends { records, thread, mut task }) = ends {
            drop(records);
            // The thread puts what is in memory on disk; then the task knows that nothing follows.
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
            let flushed = async {
                let _ = joined.await;
                let _ = (&mut task).await;
            };
            if tokio::time::timeout_at(end, flushed).await.is_err() {
                task.abort();
                let counts = self.counts();
                tracing::warn!(
                    bytes = counts.spool_bytes,
                    "records wait in the spool: the ledger did not take them in time"
                );
            }
        }
        self.counts()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Ends { records, thread, task }) = ends {
            task.abort();
            drop(records);
            let _ = thread.join();
        }
    }
}

/// Where records end: the ledger, or what a test has in its place.
trait Sink: Send + Sync + 'static {
    /// Writes all, or none.
    fn write(&self, records: &[Record]) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Sink for Ledger {
    async fn write(&self, records: &[Record]) -> Result<(), Error> {
        Self::write(self, records, Timestamp::now()).await
    }
}

#[derive(Debug)]
struct Shared {
    memory: AtomicU64,
    memory_limit: u64,
    spool_bytes: AtomicU64,
    spool_limit: u64,
    accepted: AtomicU64,
    written: AtomicU64,
    lost_memory_full: AtomicU64,
    lost_spool_full: AtomicU64,
    lost_disk: AtomicU64,
    lost_refused: AtomicU64,
    damaged_segments: AtomicU64,
    retries: AtomicU64,
    is_behind: AtomicBool,
}

impl Shared {
    fn new(options: &RecorderOptions) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            memory: zero(),
            memory_limit: options.memory_bytes,
            spool_bytes: zero(),
            spool_limit: options.spool_bytes,
            accepted: zero(),
            written: zero(),
            lost_memory_full: zero(),
            lost_spool_full: zero(),
            lost_disk: zero(),
            lost_refused: zero(),
            damaged_segments: zero(),
            retries: zero(),
            is_behind: AtomicBool::new(false),
        }
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: read(&self.accepted),
            written: read(&self.written),
            lost_memory_full: read(&self.lost_memory_full),
            lost_spool_full: read(&self.lost_spool_full),
            lost_disk: read(&self.lost_disk),
            lost_refused: read(&self.lost_refused),
            damaged_segments: read(&self.damaged_segments),
            retries: read(&self.retries),
            memory_bytes: read(&self.memory),
            spool_bytes: read(&self.spool_bytes),
            is_behind: self.is_behind.load(Ordering::Relaxed),
        }
    }
}

/// The thread: memory to disk, until every sender is gone.
fn append(records: &Receiver<Record>, mut writer: Writer, written: &watch::Sender<Written>, shared: &Shared) {
    while let Ok(first) = records.recv() {
        let (mut frames, mut count, mut bytes) = (Vec::new(), 0_u64, 0);
        let mut next = Some(first);
        while let Some(record) = next {
            bytes += record.bytes();
            let framed = postcard::to_stdvec(&record).is_ok_and(|record| spool::frame(&record, &mut frames));
            count += u64::from(framed);
            shared.lost_refused.fetch_add(u64::from(!framed), Ordering::Relaxed);
            next = if frames.len() < APPEND_BYTES { records.try_recv().ok() } else { None };
        }
        let used = shared.spool_bytes.load(Ordering::Acquire);
        if used.saturating_add(frames.len() as u64) > shared.spool_limit {
            let before = shared.lost_spool_full.fetch_add(count, Ordering::Relaxed);
            if before == 0 {
                tracing::error!(
                    spool_bytes = used,
                    "the spool is full: decisions and bindings are lost until the ledger answers"
                );
            }
        } else {
            shared.spool_bytes.fetch_add(frames.len() as u64, Ordering::AcqRel);
            match writer.append(&frames) {
                Ok(now) => {
                    written.send_replace(now);
                }
                Err(error) => {
                    shared.spool_bytes.fetch_sub(frames.len() as u64, Ordering::AcqRel);
                    shared.lost_disk.fetch_add(count, Ordering::Relaxed);
                    tracing::error!(%error, records = count, "the spool cannot be written: records are lost");
                }
            }
        }
        shared.memory.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The task: disk to ledger, until the thread is gone and all is written.
async fn ship(
    sink: impl Sink,
    mut reader: Reader,
    mut seen: watch::Receiver<Written>,
    shared: Arc<Shared>,
    folder: PathBuf,
) {
    loop {
        // Looked at before reading: what is written later is seen by the next turn.
        let is_ended = seen.has_changed().is_err();
        let written = *seen.borrow_and_update();
        let (back, batch) = match read(reader, written).await {
            Some(read) => read,
            None => return,
        };
        reader = back;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(folder = %folder.display(), %error, "the spool cannot be read: records wait in it");
                tokio::time::sleep(LONGEST_PAUSE).await;
                continue;
            }
        };
        let removed = batch.removed_bytes;
        let _ = shared
            .spool_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(removed)));
        if batch.damaged > 0 {
            shared.damaged_segments.fetch_add(batch.damaged, Ordering::Relaxed);
            tracing::error!(folder = %folder.display(), "a part of the spool is damaged, or of another version: it is left out");
        }
        if batch.records.is_empty() {
            if is_ended {
                if let Err(error) = reader.end() {
                    tracing::warn!(folder = %folder.display(), %error, "the spool cannot be emptied");
                }
                shared.spool_bytes.store(0, Ordering::Release);
                return;
            }
            // An error is the thread's end: one more turn sees what it wrote last.
            let _ = seen.changed().await;
            continue;
        }
        let (records, unreadable) = decoded(batch.records);
        shared.lost_refused.fetch_add(unreadable, Ordering::Relaxed);
        write_all(&sink, &records, &shared, || reader.sync(written)).await;
    }
}

/// Reads off the runtime's threads. None where the runtime ends.
async fn read(mut reader: Reader, written: Written) -> Option<(Reader, std::io::Result<spool::Batch>)> {
    let reading = tokio::task::spawn_blocking(move || {
        let batch = reader.next(written, BATCH_RECORDS);
        (reader, batch)
    });
    reading.await.ok()
}

fn decoded(records: Vec<Vec<u8>>) -> (Vec<Record>, u64) {
    let count = records.len() as u64;
    let records: Vec<Record> = records.iter().filter_map(|bytes| postcard::from_bytes(bytes).ok()).collect();
    let unreadable = count - records.len() as u64;
    (records, unreadable)
}

/// Repeats until the ledger has all records, but those it refuses.
async fn write_all(sink: &impl Sink, records: &[Record], shared: &Shared, sync: impl Fn() -> std::io::Result<()>) {
    let mut parts = vec![records];
    let mut pause = FIRST_PAUSE;
    while let Some(part) = parts.pop() {
        let Err(error) = sink.write(part).await else {
            shared.written.fetch_add(part.len() as u64, Ordering::Relaxed);
            if shared.is_behind.swap(false, Ordering::Relaxed) {
                tracing::info!("the ledger takes records again");
            }
            pause = FIRST_PAUSE;
            continue;
        };
        if error.is_refusal() {
            // One of them is to blame: halves find it without holding up the others.
            match part.split_at_checked(part.len() / 2) {
                Some((first, second)) if !first.is_empty() => parts.extend([second, first]),
                _ => {
                    shared.lost_refused.fetch_add(part.len() as u64, Ordering::Relaxed);
                    tracing::error!(error = %chain(&error), "the ledger refuses a record: it is lost");
                }
            }
            continue;
        }
        shared.retries.fetch_add(1, Ordering::Relaxed);
        if !shared.is_behind.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = %chain(&error), "the ledger does not take records: they wait in the spool");
            if let Err(error) = sync() {
                tracing::warn!(%error, "the spool may not survive a loss of power");
            }
        }
        parts.push(part);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Records in memory, however small.
const CHANNEL_RECORDS: usize = 65_536;
/// Of one transaction.
const BATCH_RECORDS: usize = 500;
/// Of one write to disk.
const APPEND_BYTES: usize = 1 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use std::{collections::BTreeSet, sync::atomic::AtomicUsize};

    use uuid::Uuid;

    use super::*;
    use crate::{Decision, Document, Verdict};

    fn decision() -> Decision {
        Decision {
            id: Uuid::now_v7(),
            at: Timestamp::UNIX_EPOCH,
            cluster: "c".into(),
            namespace: "n".into(),
            kind: "Pod".into(),
            name: "p".into(),
            user: "u".into(),
            operation: "CREATE".into(),
            verdict: Verdict::Allow,
            is_dry_run: false,
            has_unknowns: false,
            images: Vec::new(),
            rules: Vec::new(),
            details: Document::pack(b"{}").expect("packed"),
        }
    }

    /// What a ledger may do to a transaction.
    #[derive(Clone, Copy, PartialEq)]
    enum Weather {
        Fine,
        /// Nothing is written.
        Down,
        /// It is written, and the answer is lost.
        Silent,
        /// No answer at all.
        Hung,
    }

    #[derive(Clone)]
    struct Moody {
        ledger: Ledger,
        weather: Arc<Mutex<Vec<Weather>>>,
        calls: Arc<AtomicUsize>,
    }

    impl Moody {
        fn new(ledger: &Ledger, weather: &[Weather]) -> Self {
            let weather = Arc::new(Mutex::new(weather.iter().rev().copied().collect()));
            Self { ledger: ledger.clone(), weather, calls: Arc::default() }
        }
    }

    impl Sink for Moody {
        async fn write(&self, records: &[Record]) -> Result<(), Error> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let weather = self.weather.lock().expect("no panic").pop().unwrap_or(Weather::Fine);
            match weather {
                Weather::Fine => return Sink::write(&self.ledger, records).await,
                Weather::Down => {}
                Weather::Silent => Sink::write(&self.ledger, records).await?,
                Weather::Hung => std::future::pending().await,
            }
            Err(Error::Deadline { what: "writing", ledger: "x".into(), limit: Duration::ZERO })
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        ledger: Ledger,
        accepted: BTreeSet<Uuid>,
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let ledger = Ledger::open(&format!("sqlite:{}", folder.path().join("l.db").display())).await;
            Self { ledger: ledger.expect("a ledger"), folder, accepted: BTreeSet::new() }
        }

        fn options(&self) -> RecorderOptions {
            RecorderOptions::new(self.folder.path().join("spool"))
        }

        fn start(&self, weather: &[Weather]) -> Recorder {
            Recorder::with(Moody::new(&self.ledger, weather), &self.options()).expect("a recorder")
        }

        fn record(&mut self, recorder: &Recorder, count: usize) {
            for _ in 0..count {
                let decision = decision();
                let id = decision.id;
                if recorder.record(decision) {
                    self.accepted.insert(id);
                }
            }
        }

        async fn kept(&self) -> BTreeSet<Uuid> {
            let mut query = crate::DecisionQuery { limit: 1000, ..Default::default() };
            let mut kept = BTreeSet::new();
            loop {
                let page = self.ledger.decisions(&query).await.expect("read");
                let Some(last) = page.last() else { return kept };
                query.before = Some(last.id);
                for row in page {
                    assert!(kept.insert(row.id), "twice");
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_accepted_is_in_the_ledger_once_whatever_happens() {
        use Weather::{Down, Fine, Hung, Silent};
        let mut bench = Bench::new().await;
        // Each run ends without a word, as a process that is killed does; the next has the same spool.
        for weather in
            [&[Down, Silent][..], &[Silent, Silent, Hung], &[Hung], &[Fine, Down, Fine, Silent], &[Fine, Hung], &[Down]]
        {
            let recorder = bench.start(weather);
            bench.record(&recorder, 300);
            tokio::time::sleep(Duration::from_millis(150)).await;
            bench.record(&recorder, 1);
            drop(recorder);
        }
        let recorder = bench.start(&[]);
        let counts = recorder.shutdown(Duration::from_secs(30)).await;
        assert_eq!((counts.lost(), counts.damaged_segments, counts.spool_bytes), (0, 0, 0), "{counts:?}");
        assert_eq!(bench.accepted.len(), 6 * 301);
        assert_eq!(bench.kept().await, bench.accepted);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_spool_loses_and_counts_what_is_new() {
        let mut bench = Bench::new().await;
        let options = RecorderOptions { spool_bytes: 40_000, ..bench.options() };
        let recorder = Recorder::with(Moody::new(&bench.ledger, &[Weather::Hung]), &options).expect("a recorder");
        for _ in 0..40 {
            bench.record(&recorder, 10);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(recorder);
        let recorder = bench.start(&[]);
        recorder.shutdown(Duration::from_secs(30)).await;
        let kept = bench.kept().await;
        assert!(kept.len() > 10 && kept.len() < 400 && kept.is_subset(&bench.accepted), "{}", kept.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_spool_is_used_again_and_again() {
        let mut bench = Bench::new().await;
        let options = RecorderOptions { spool_bytes: 40_000, ..bench.options() };
        let recorder = Recorder::with(Moody::new(&bench.ledger, &[]), &options).expect("a recorder");
        for round in 1..=20 {
            bench.record(&recorder, 50);
            while recorder.counts().written < 50 * round {
                assert_eq!(recorder.counts().lost(), 0, "{:?}", recorder.counts());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(recorder.shutdown(Duration::from_secs(30)).await.written, 1000);
        assert_eq!(bench.kept().await, bench.accepted);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_loss_is_counted() {
        let mut bench = Bench::new().await;
        let options = RecorderOptions { spool_bytes: 40_000, memory_bytes: 20_000, ..bench.options() };
        let moody = Moody::new(&bench.ledger, &[Weather::Down; 3]);
        let recorder = Recorder::with(moody.clone(), &options).expect("a recorder");
        bench.record(&recorder, 1000);
        let counts = recorder.shutdown(Duration::from_secs(30)).await;
        assert_eq!(counts.accepted + counts.lost_memory_full, 1000);
        assert_eq!(counts.written + counts.lost_spool_full, counts.accepted, "{counts:?}");
        assert!(counts.lost() > 0 && counts.retries > 0 && counts.memory_bytes == 0, "{counts:?}");
        assert_eq!(bench.kept().await.len() as u64, counts.written);
        assert!(moody.calls.load(Ordering::SeqCst) > 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_ledger_refuses_holds_up_nothing_else() {
        struct Picky(Ledger, Uuid);
        impl Sink for Picky {
            async fn write(&self, records: &[Record]) -> Result<(), Error> {
                if records.iter().any(|record| matches!(record, Record::Decision(decision) if decision.id == self.1)) {
                    return Err(Error::TooLarge { what: "a record", bytes: 2, limit: 1 });
                }
                Sink::write(&self.0, records).await
            }
        }
        let mut bench = Bench::new().await;
        let bad = decision();
        let recorder = Recorder::with(Picky(bench.ledger.clone(), bad.id), &bench.options()).expect("a recorder");
        bench.record(&recorder, 50);
        recorder.record(bad);
        bench.record(&recorder, 50);
        let counts = recorder.shutdown(Duration::from_secs(30)).await;
        assert_eq!((counts.written, counts.lost_refused), (100, 1), "{counts:?}");
        assert_eq!(bench.kept().await, bench.accepted);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_ends_in_time_and_says_what_waits() {
        let mut bench = Bench::new().await;
        let recorder = bench.start(&[Weather::Hung]);
        bench.record(&recorder, 20);
        let began = Instant::now();
        let counts = recorder.shutdown(Duration::from_millis(300)).await;
        assert!(
            began.elapsed() < Duration::from_secs(5) && counts.spool_bytes > 0 && counts.written == 0,
            "{counts:?}"
        );
        drop(recorder);
        bench.start(&[]).shutdown(Duration::from_secs(30)).await;
        assert_eq!(bench.kept().await, bench.accepted);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_damaged_spool_is_told_and_the_rest_is_read() {
        let mut bench = Bench::new().await;
        let recorder = bench.start(&[Weather::Hung]);
        bench.record(&recorder, 20);
        drop(recorder);
        let spool = bench.options().spool;
        let segment = std::fs::read_dir(&spool).expect("a folder").flatten().find(|e| e.file_name() != "lock");
        let path = segment.expect("a segment").path();
        let mut bytes = std::fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(&path, bytes).expect("written");
        let recorder = bench.start(&[]);
        bench.record(&recorder, 5);
        let counts = recorder.shutdown(Duration::from_secs(30)).await;
        assert_eq!(counts.damaged_segments, 1, "{counts:?}");
        let kept = bench.kept().await;
        assert!(kept.len() > 5 && kept.len() < 25 && kept.is_subset(&bench.accepted), "{}", kept.len());
    }
}
