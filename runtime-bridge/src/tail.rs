//! A file that a sensor writes and something else rotates, into the log, line by line.
//!
//! ```text
//! FILE ─lines, whole─► log::append ─durable─► FOLDER/NAME.json: which file, how far
//! ```
//!
//! A line counts as read once it is on disk in the log, and only then is the place noted: after a kill some lines come twice, none is
//! missing. Renamed, the old file is read to its end first, and those that came between, also by the next process, which finds them beside
//! the new one. Copied and truncated, the copy is read to its end first. Where neither is there any more, lines are said to be missed. A
//! file is known by its inode and by the last bytes that were read, since inodes are used again and files grow again.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{log::Batch, stream::Stream};

/// What is tailed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file: it need not be there yet.
    pub path: PathBuf,
    /// The sensor's id.
    pub sensor: String,
    /// Its dialect's name.
    pub dialect: String,
    /// A folder for the place that was read to; the file there has the sensor's name.
    pub places: PathBuf,
    /// Bytes of a line: what is longer is passed by and counted.
    pub max_line_bytes: usize,
    /// How often it is looked.
    pub every: Duration,
}

impl Options {
    /// With limits that fit every sensor known.
    #[must_use]
    pub fn new(path: &Path, sensor: &str, dialect: &str, places: &Path) -> Self {
        Self {
            path: path.to_owned(),
            sensor: sensor.to_owned(),
            dialect: dialect.to_owned(),
            places: places.to_owned(),
            max_line_bytes: 1 << 20,
            every: Duration::from_millis(250),
        }
    }
}

/// A place that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {advice}", path = path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What to do.
    pub advice: &'static str,
    /// Why.
    pub source: io::Error,
}

/// A file that is read as it grows.
#[derive(Debug)]
pub struct Tail {
    options: Options,
    open: Option<(File, Place)>,
    /// Where the process before was, until its file is found.
    earlier: Option<Place>,
}

/// How far which file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    device: u64,
    inode: u64,
    /// The begin of the first line that is not in the log.
    offset: u64,
    /// CRC-32 of the bytes before it, [`KNOWN_BY`] at most.
    before: u32,
    /// In a line that is too long, up to the offset.
    #[serde(default)]
    is_in_long_line: bool,
}

/// Lines, and the place after them.
struct Lines {
    lines: Vec<Bytes>,
    too_long: u64,
    place: Place,
}

impl Tail {
    /// Goes on where the process before was; a file that was never read begins at its first line.
    ///
    /// # Errors
    /// [`Error`]: the place cannot be read, or is no place.
    pub fn open(options: Options) -> Result<Self, Error> {
        let path = place_path(&options);
        let error = |advice| {
            let path = path.clone();
            move |source| Error { path, advice, source }
        };
        let unusable = "give a folder that this user may write to";
        fs::create_dir_all(&options.places).map_err(error(unusable))?;
        let earlier = match fs::read(&path) {
            Ok(text) => {
                let wrong = error("it does not read; remove it, and the file is read from its begin");
                Some(serde_json::from_slice(&text).map_err(|why| wrong(why.into()))?)
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(error(unusable)(source)),
        };
        Ok(Self { options, open: None, earlier })
    }

    /// Reads until `shutdown`. What goes wrong is tried again: the file waits.
    pub async fn run(mut self, stream: impl Into<Stream>, shutdown: impl Future<Output = ()>) {
        let stream = stream.into();
        tokio::pin!(shutdown);
        let mut is_failing = false;
        loop {
            let step = async {
                let looked = tokio::task::spawn_blocking(move || {
                    let lines = self.look();
                    (self, lines)
                });
                let (mut tail, lines) = looked.await?;
                let moved = match lines {
                    Ok(Some(lines)) => tail.take(&stream, lines).await.map(|()| true),
                    Ok(None) => Ok(false),
                    Err(error) => Err(error),
                };
                Ok::<_, tokio::task::JoinError>((tail, moved))
            };
            let (tail, moved) = match step.await {
                Ok(step) => step,
                Err(panicked) => {
                    tracing::error!(%panicked, "a file is not read any more");
                    return;
                }
            };
            self = tail;
            match &moved {
                Ok(true) => is_failing = false,
                Ok(false) => {}
                Err(error) if !is_failing => {
                    let (path, sensor) = (self.options.path.display(), &self.options.sensor);
                    tracing::warn!(%path, sensor, %error, "a sensor's file is not read now; it is tried again");
                    is_failing = true;
                }
                Err(_) => {}
            }
            let pause = if matches!(moved, Ok(true)) { Duration::ZERO } else { self.options.every };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Appends lines, then notes that they are done.
    async fn take(&mut self, stream: &Stream, read: Lines) -> io::Result<()> {
        let Options { sensor, dialect, .. } = &self.options;
        if read.too_long > 0 {
            metrics::counter!("mayfly_lines_too_long_total", "sensor" => sensor.clone()).increment(read.too_long);
            tracing::warn!(sensor, lines = read.too_long, limit = self.options.max_line_bytes, "lines are too long");
        }
        let items: Vec<&[u8]> = read.lines.iter().map(|line| &**line).collect();
        if !items.is_empty() {
            let received = Timestamp::now();
            let batch = Batch { sensor, dialect, received, is_over_limit: false, items: &items };
            stream.append(&batch).await.map_err(io::Error::other)?;
            let bytes: usize = items.iter().map(|item| item.len()).sum();
            metrics::counter!("mayfly_events_received_total", "sensor" => sensor.clone()).increment(items.len() as u64);
            metrics::counter!("mayfly_event_bytes_total", "sensor" => sensor.clone()).increment(bytes as u64);
        }
        self.note(&read.place)?;
        if let Some((_, place)) = &mut self.open {
            *place = read.place;
        }
        Ok(())
    }

    /// The next lines that are whole; none: nothing new.
    fn look(&mut self) -> io::Result<Option<Lines>> {
        loop {
            if self.open.is_none() && !self.find()? {
                return Ok(None);
            }
            let Some((file, place)) = &self.open else { return Ok(None) };
            let metadata = file.metadata()?;
            if metadata.len() < place.offset || before(file, place.offset)? != place.before {
                self.earlier = self.open.take().map(|(_, place)| place);
                continue;
            }
            // Renamed, it may still be written to by who holds it, until that one opens the new file.
            let current = File::open(&self.options.path).and_then(|file| file.metadata()).ok();
            let is_left = current.is_some_and(|current| id(&current) != (place.device, place.inode))
                && metadata.modified()?.elapsed().is_ok_and(|age| age >= GRACE);
            if metadata.len() > place.offset
                && let Some(lines) = lines(file, place, self.options.max_line_bytes, is_left)?
            {
                return Ok(Some(lines));
            }
            if !is_left {
                return Ok(None);
            }
            let Some(next) = next_after(&self.options.path, &metadata)? else { return Ok(None) };
            self.begin(next)?;
        }
    }

    /// Opens what to read: the file that was being read, under whatever name; where there is none, the current one.
    fn find(&mut self) -> io::Result<bool> {
        if let Some(place) = self.earlier.clone() {
            self.open = find_by_place(&self.options.path, &place)?;
            self.earlier = None;
            if self.open.is_some() {
                return Ok(true);
            }
            missed(&self.options, "what was being read is gone, or was truncated and not copied");
        }
        match File::open(&self.options.path) {
            Ok(file) => self.begin(file).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a file from its begin; noted, so that the one before is not looked for any more.
    fn begin(&mut self, file: File) -> io::Result<()> {
        let (device, inode) = id(&file.metadata()?);
        let place = Place { device, inode, offset: 0, before: before(&file, 0)?, is_in_long_line: false };
        self.note(&place)?;
        self.open = Some((file, place));
        Ok(())
    }

    /// Writes a place down: whole, or as it was.
    fn note(&self, place: &Place) -> io::Result<()> {
        let path = place_path(&self.options);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(place)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.options.places)?.sync_all()
    }
}

/// Lines from a place on, whole ones, or in a file that is not written any more also the last.
fn lines(file: &File, place: &Place, max_line_bytes: usize, is_final: bool) -> io::Result<Option<Lines>> {
    // More than a line may have, so that what is too long shows.
    let mut buffer = vec![0; (max_line_bytes + 1).max(READ)];
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, place.offset + have as u64) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let is_all = have < buffer.len();
    buffer.truncate(have);
    let buffer = Bytes::from(buffer);
    let mut read = Lines { lines: Vec::new(), too_long: 0, place: place.clone() };
    let mut at = 0;
    let line = |begin: usize, end: usize, read: &mut Lines| {
        let line = buffer.slice(begin..end);
        if std::mem::take(&mut read.place.is_in_long_line) {
            // Its begin was counted already.
        } else if line.len() > max_line_bytes {
            read.too_long += 1;
        } else if !line.trim_ascii().is_empty() {
            read.lines.push(line);
        }
    };
    for end in memchr::memchr_iter(b'\n', &buffer) {
        line(at, end, &mut read);
        at = end + 1;
    }
    if is_final && is_all && at < have {
        line(at, have, &mut read);
        at = have;
    } else if have - at > max_line_bytes || read.place.is_in_long_line && at < have {
        read.too_long += u64::from(!read.place.is_in_long_line);
        read.place.is_in_long_line = true;
        at = have;
    }
    if at == 0 {
        return Ok(None);
    }
    read.place.offset += at as u64;
    read.place.before = before(file, read.place.offset)?;
    Ok(Some(read))
}

/// The file of a place: under the path, or beside it under the name that a rotation gave it; or a copy of it, where it was truncated.
fn find_by_place(path: &Path, place: &Place) -> io::Result<Option<(File, Place)>> {
    let mut copy = None;
    for candidate in rotated(path)?.into_iter().chain([path.to_owned()]) {
        let Ok(file) = File::open(&candidate) else { continue };
        let metadata = file.metadata()?;
        if metadata.len() < place.offset || before(&file, place.offset)? != place.before {
            continue;
        }
        let (device, inode) = id(&metadata);
        let found = Some((file, Place { device, inode, ..place.clone() }));
        if (device, inode) == (place.device, place.inode) {
            return Ok(found);
        }
        if place.offset > 0 {
            copy = found;
        }
    }
    Ok(copy)
}

/// The file that was begun next after one that was left: the one of those written later that was left first.
fn next_after(path: &Path, left: &Metadata) -> io::Result<Option<File>> {
    let mut next: Option<(File, SystemTime)> = None;
    for candidate in rotated(path)?.into_iter().chain([path.to_owned()]) {
        let Ok(file) = File::open(&candidate) else { continue };
        let metadata = file.metadata()?;
        let written = metadata.modified()?;
        if id(&metadata) == id(left) || written < left.modified()? && candidate != path {
            continue;
        }
        if next.as_ref().is_none_or(|(_, earliest)| written < *earliest) {
            next = Some((file, written));
        }
    }
    Ok(next.map(|(file, _)| file))
}

/// What a rotation made of a file, not compressed: `x.log.1`, `x.log-20260101` (logrotate), `x-2026-01-01T00-00-00.000.log` (lumberjack).
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let part = |part: Option<&OsStr>| part.unwrap_or_default().as_encoded_bytes().to_owned();
    let (name, stem, extension) = (part(path.file_name()), part(path.file_stem()), part(path.extension()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut rotated = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.path();
        let begins = |with: &[u8], then: fn(&[u8]) -> bool| {
            entry.file_name().as_encoded_bytes().strip_prefix(with).is_some_and(then)
        };
        let is_rotated = begins(&name, |rest| matches!(rest.first(), Some(b'.' | b'-')))
            || begins(&stem, |rest| matches!(rest, [b'-', b'0'..=b'9', ..])) && part(other.extension()) == extension;
        let is_packed = other.extension().is_some_and(|end| PACKED.iter().any(|packed| end == *packed));
        if is_rotated && !is_packed && entry.file_type()?.is_file() {
            rotated.push(other);
        }
    }
    Ok(rotated)
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// CRC-32 of the bytes before an offset.
fn before(file: &File, offset: u64) -> io::Result<u32> {
    let from = offset.saturating_sub(KNOWN_BY);
    let mut bytes = vec![0; usize::try_from(offset - from).unwrap_or_default()];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => Ok(crc32fast::hash(&bytes)),
        // Shorter than it was.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(!crc32fast::hash(&bytes)),
        Err(error) => Err(error),
    }
}

fn missed(options: &Options, why: &str) {
    metrics::counter!("mayfly_tail_missed_total", "sensor" => options.sensor.clone()).increment(1);
    tracing::warn!(path = %options.path.display(), sensor = options.sensor, why, "lines of a sensor's file may be missed");
}

fn place_path(options: &Options) -> PathBuf {
    options.places.join(format!("{}.json", options.sensor))
}

/// Bytes by which a file is known again.
const KNOWN_BY: u64 = 64;

/// Names of packed files end so: what was not read before is missed.
const PACKED: [&str; 5] = ["gz", "zst", "bz2", "xz", "lz4"];

/// Bytes that are read at once.
const READ: usize = 1 << 20;

/// How long who holds a renamed file may still write to it.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use tempfile::TempDir;
    use tokio::sync::oneshot;

    use super::*;
    use crate::log::{Log, Offset, Read};

    /// A file that grows, a log, and who reads the one into the other.
    struct Scene {
        folder: TempDir,
        path: PathBuf,
        log: Log,
    }

    struct Running(oneshot::Sender<()>, tokio::task::JoinHandle<()>);

    impl Scene {
        fn new() -> Self {
            let folder = TempDir::new().expect("a folder");
            let (log, _) = Log::open(&folder.path().join("log"), crate::log::Options::default()).expect("a log");
            let path = folder.path().join("tetragon.log");
            Self { folder, path, log }
        }

        fn start(&self) -> Running {
            let options = Options {
                max_line_bytes: 100,
                every: Duration::from_millis(5),
                ..Options::new(&self.path, "tetragon", "falco", &self.folder.path().join("places"))
            };
            let tail = Tail::open(options).expect("a place");
            let (end, ended) = oneshot::channel();
            Running(end, tokio::spawn(tail.run(self.log.clone(), async { drop(ended.await) })))
        }

        fn write(&self, text: &str) {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path).expect("a file");
            file.write_all(text.as_bytes()).expect("written");
        }

        fn rename(&self, to: &str) {
            fs::rename(&self.path, self.folder.path().join(to)).expect("renamed");
        }

        fn lines(&self) -> Vec<String> {
            let mut reader = self.log.reader(Offset(0));
            let mut lines = Vec::new();
            while let Some(Read::Records(read)) = reader.read().expect("reads") {
                lines.extend(read.iter().map(|record| String::from_utf8(record.body.to_vec()).expect("text")));
            }
            lines
        }

        /// Waits until these are the lines.
        async fn expect(&self, expected: &[&str]) {
            let begin = std::time::Instant::now();
            while self.lines() != expected {
                assert!(begin.elapsed() < Duration::from_secs(20), "{:?} in place of {expected:?}", self.lines());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    impl Running {
        async fn end(self) {
            drop(self.0);
            self.1.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn whole_lines_are_read_and_a_partial_one_waits() {
        let scene = Scene::new();
        let tail = scene.start();
        scene.write("a\nb\n\nc");
        scene.expect(&["a", "b"]).await;
        scene.write("c\n");
        scene.expect(&["a", "b", "cc"]).await;
        tail.end().await;
        scene.write("d\n");
        let tail = scene.start();
        scene.write("e\n");
        scene.expect(&["a", "b", "cc", "d", "e"]).await;
        tail.end().await;
    }

    #[tokio::test]
    async fn a_renamed_file_is_read_to_its_end_first() {
        let scene = Scene::new();
        let tail = scene.start();
        scene.write("a\n");
        scene.expect(&["a"]).await;
        scene.rename("tetragon.log.1");
        fs::write(&scene.path, "c\n").expect("written");
        // Who holds the old one writes on.
        let mut old = OpenOptions::new().append(true).open(scene.folder.path().join("tetragon.log.1")).expect("a file");
        old.write_all(b"b\nno newline").expect("written");
        scene.expect(&["a", "b", "no newline", "c"]).await;
        scene.write("d\n");
        scene.expect(&["a", "b", "no newline", "c", "d"]).await;
        tail.end().await;
    }

    #[tokio::test]
    async fn rotations_while_nobody_looked_are_caught_up_with() {
        let scene = Scene::new();
        let tail = scene.start();
        scene.write("a\n");
        scene.expect(&["a"]).await;
        tail.end().await;
        let pause = || tokio::time::sleep(Duration::from_millis(20));
        scene.write("b\n");
        scene.rename("tetragon-2026-01-01T00-00-00.000.log");
        pause().await;
        scene.write("c\n");
        scene.rename("tetragon-2026-01-01T00-00-01.000.log");
        pause().await;
        fs::write(scene.folder.path().join("tetragon-other.log"), "another file's\n").expect("written");
        scene.write("d\n");
        let tail = scene.start();
        scene.expect(&["a", "b", "c", "d"]).await;
        tail.end().await;
        let tail = scene.start();
        scene.write("e\n");
        scene.expect(&["a", "b", "c", "d", "e"]).await;
        tail.end().await;
    }

    #[tokio::test]
    async fn a_truncated_file_begins_anew_after_its_copy() {
        let scene = Scene::new();
        let tail = scene.start();
        scene.write("a\n");
        scene.expect(&["a"]).await;
        tail.end().await;
        scene.write("b\n");
        fs::copy(&scene.path, scene.folder.path().join("tetragon.log.1")).expect("copied");
        // Longer than it was: only what stands before the place says that it is another one.
        fs::write(&scene.path, "cccc\ndddd\n").expect("written");
        let tail = scene.start();
        scene.expect(&["a", "b", "cccc", "dddd"]).await;
        // Without a copy there is nothing to go back to.
        fs::write(&scene.path, "e\n").expect("written");
        scene.expect(&["a", "b", "cccc", "dddd", "e"]).await;
        // Between two looks, and longer again by the second.
        fs::write(&scene.path, "ffff\ngggg\n").expect("written");
        scene.expect(&["a", "b", "cccc", "dddd", "e", "ffff", "gggg"]).await;
        tail.end().await;
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_by() {
        let scene = Scene::new();
        let tail = scene.start();
        scene.write(&format!("a\n{}\nb\n{}", "x".repeat(101), "y".repeat(3 << 20)));
        scene.expect(&["a", "b"]).await;
        scene.write("yy\nc\n");
        scene.expect(&["a", "b", "c"]).await;
        tail.end().await;
    }

    #[tokio::test]
    async fn a_log_that_is_full_lets_the_file_wait() {
        let mut scene = Scene::new();
        let full = crate::log::Options { max_bytes: 1, ..crate::log::Options::default() };
        let folder = scene.folder.path().join("small");
        scene.log = Log::open(&folder, full).expect("a log").0;
        let tail = scene.start();
        scene.write("a\n");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(scene.lines(), [""; 0]);
        tail.end().await;
        scene.log = Log::open(&scene.folder.path().join("large"), crate::log::Options::default()).expect("a log").0;
        let tail = scene.start();
        scene.expect(&["a"]).await;
        tail.end().await;
    }

    #[test]
    fn a_place_that_does_not_read_is_refused() {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("s.json"), "{}").expect("written");
        let error = Tail::open(Options::new(Path::new("/x"), "s", "falco", folder.path())).expect_err("no place");
        assert!(error.to_string().contains("s.json: it does not read; remove it"), "{error}");
    }
}
