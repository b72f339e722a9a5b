//! One segment's file: made, appended to, and walked frame by frame.
//!
//! ```text
//! header = "mayflog1" ‖ mark: 8 ‖ first offset: u64 ‖ zero: u32 ‖ CRC-32 of these 28 bytes
//! ```

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;

use super::{
    Offset,
    frame::{HEADER, Header, Mark},
};

/// The end of a log that was cut off: no more than what was being written when its process or machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub path: PathBuf,
    /// Where it ends now.
    pub position: u64,
    /// How much was cut off.
    pub bytes: u64,
}

/// Bytes that do not read, and the records that are lost with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where in it.
    pub position: u64,
    /// How many bytes were passed by; zero where the records are missing altogether.
    pub bytes: u64,
    /// The first record lost.
    pub first: Offset,
    /// How many are lost.
    pub records: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, position, bytes, first, records } = self;
        write!(f, "{path} at {position}: {bytes} bytes, {records} records from {first}", path = path.display())
    }
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) written: SystemTime,
}

/// All segments of a folder by first offset.
pub(super) fn all(folder: &Path) -> io::Result<Vec<(u64, Segment)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
        let Some(first) = first else { continue };
        let metadata = entry.metadata()?;
        segments.push((first, Segment { bytes: metadata.len(), written: metadata.modified()? }));
    }
    segments.sort_unstable_by_key(|(first, _)| *first);
    Ok(segments)
}

pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}{SUFFIX}"))
}

/// Makes names that were given or removed in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A segment that is appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) first: u64,
    /// Bytes that are whole frames on disk.
    pub(super) length: u64,
    file: File,
    #[cfg(test)]
    faults: std::sync::Arc<faults::Faults>,
}

impl Active {
    /// Makes an empty one, durable by name. One of the same name holds no record that was promised, and goes.
    pub(super) fn create(folder: &Path, first: u64, mark: Mark) -> io::Result<Self> {
        let path = path(folder, first);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(mark);
        header.extend(first.to_le_bytes());
        header.extend([0; 4]);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        let made = file.write_all_at(&header, 0).and_then(|()| file.sync_all()).and_then(|()| sync_folder(folder));
        if let Err(error) = made {
            // Empty, it would be taken for the segment in which the log goes on.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            first,
            length: HEADER as u64,
            file,
            #[cfg(test)]
            faults: faults::of(folder),
        })
    }

    /// Goes on with one that is whole up to `length`.
    pub(super) fn reopen(folder: &Path, first: u64, length: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path(folder, first))?;
        let active = Self {
            first,
            length,
            file,
            #[cfg(test)]
            faults: faults::of(folder),
        };
        active.cut()?;
        active.file.sync_all()?;
        Ok(active)
    }

    /// Writes frames after what is whole.
    pub(super) fn write(&self, frames: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.faults.write(&self.file, frames, self.length)?;
        self.file.write_all_at(frames, self.length)
    }

    /// Waits until so many bytes that were written are on disk; then they are whole.
    pub(super) fn sync(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        self.file.sync_data()?;
        self.length += bytes;
        Ok(())
    }

    /// Takes away what is behind what is whole.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.length)
    }
}

/// Walks the frames of a segment, up to where it is known to end.
#[derive(Debug)]
pub(super) struct Walk {
    path: PathBuf,
    file: File,
    mark: Option<Mark>,
    /// Where the buffer begins.
    position: u64,
    buffer: BytesMut,
    end: u64,
    /// The offset after the last record up to `end`; none: not known.
    next_at_end: Option<u64>,
    /// The offset of the next record, if none is missing.
    next: u64,
    /// Where the last whole frame ended, and the offset after its last record.
    whole: (u64, u64),
    /// The header does not read, and that was not told yet.
    is_header_damaged: bool,
}

/// What a walk comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame whose sums are right.
    Frame(Header, Bytes),
    /// What does not read.
    Damaged(Damage),
    /// Nothing more up to the end.
    End,
}

impl Walk {
    pub(super) fn open(folder: &Path, first: u64, end: u64, next_at_end: Option<u64>) -> io::Result<Self> {
        let path = path(folder, first);
        let file = File::open(&path)?;
        let mut walk = Self {
            path,
            file,
            mark: None,
            position: 0,
            buffer: BytesMut::new(),
            end,
            next_at_end,
            next: first,
            whole: (0, first),
            is_header_damaged: false,
        };
        walk.fill(HEADER * 2)?;
        let bytes = walk.buffer.get(..HEADER).unwrap_or_default();
        walk.mark = read_header(bytes, first);
        if walk.mark.is_none() {
            walk.is_header_damaged = true;
            // The first frame has the mark too.
            let frame = walk.buffer.get(HEADER..).unwrap_or_default();
            let mark = frame.first_chunk().copied();
            walk.mark = mark.filter(|mark| Header::decode(*mark, frame).is_some());
        }
        if walk.mark.is_some() {
            walk.advance(HEADER);
            walk.whole = (walk.position, first);
        }
        Ok(walk)
    }

    /// What begins frames here; none where neither the header nor the first frame reads.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Where the last whole frame ended, and the offset after its last record.
    pub(super) fn whole(&self) -> (u64, u64) {
        self.whole
    }

    /// The segment is longer now.
    pub(super) fn extend(&mut self, end: u64, next_at_end: u64) {
        self.end = self.end.max(end);
        self.next_at_end = Some(next_at_end);
    }

    pub(super) fn step(&mut self) -> io::Result<Step> {
        if std::mem::take(&mut self.is_header_damaged) && self.mark.is_some() {
            return Ok(Step::Damaged(self.damage(0, HEADER as u64, self.next..self.next)));
        }
        let Some(mark) = self.mark else { return Ok(self.give_up(self.position)) };
        if self.position >= self.end {
            return Ok(self.give_up(self.position));
        }
        self.fill(HEADER)?;
        let Some(header) = Header::decode(mark, &self.buffer).filter(|header| header.first >= self.next) else {
            return self.search(mark);
        };
        if self.next_at_end.is_some_and(|end| header.first >= end) {
            // Written, but not promised; what came after went into the next segment.
            self.skip_to(self.end);
            return Ok(self.give_up(self.position));
        }
        if header.first > self.next {
            let lost = std::mem::replace(&mut self.next, header.first)..header.first;
            return Ok(Step::Damaged(self.damage(self.position, 0, lost)));
        }
        let bytes = header.frame_bytes();
        if bytes as u64 > self.end - self.position {
            return self.search(mark);
        }
        self.fill(bytes)?;
        if self.buffer.len() < bytes {
            return self.search(mark);
        }
        let position = self.position;
        let frame = self.buffer.split_to(bytes).freeze();
        self.position += bytes as u64;
        self.next = header.end();
        let body = frame.slice(HEADER.min(frame.len())..);
        if !header.is_whole(&body) {
            return Ok(Step::Damaged(self.damage(position, bytes as u64, header.first..header.end())));
        }
        self.whole = (self.position, self.next);
        Ok(Step::Frame(header, body))
    }

    /// A header here does not read: goes on to the next that does.
    fn search(&mut self, mark: Mark) -> io::Result<Step> {
        let from = self.position;
        self.advance(1);
        loop {
            self.fill(CHUNK)?;
            let Some(at) = memmem::find(&self.buffer, &mark) else {
                let passed = self.buffer.len().saturating_sub(mark.len() - 1);
                if passed == 0 || self.position + self.buffer.len() as u64 >= self.end {
                    self.skip_to(self.end);
                    return Ok(self.give_up(from));
                }
                self.advance(passed);
                continue;
            };
            self.advance(at);
            self.fill(HEADER)?;
            if let Some(header) = Header::decode(mark, &self.buffer).filter(|header| header.first >= self.next) {
                let first = self.next_at_end.map_or(header.first, |end| header.first.min(end));
                let lost = std::mem::replace(&mut self.next, first)..first;
                return Ok(Step::Damaged(self.damage(from, self.position - from, lost)));
            }
            self.advance(1);
        }
    }

    /// Nothing more reads from here to the end: what should be there is lost.
    fn give_up(&mut self, from: u64) -> Step {
        match self.next_at_end {
            Some(next) if next > self.next => {
                let lost = std::mem::replace(&mut self.next, next)..next;
                let damage = self.damage(from, self.end.saturating_sub(from), lost);
                self.skip_to(self.end);
                Step::Damaged(damage)
            }
            _ => Step::End,
        }
    }

    fn damage(&self, position: u64, bytes: u64, lost: Range<u64>) -> Damage {
        let (first, records) = (Offset(lost.start), lost.end - lost.start);
        Damage { path: self.path.clone(), position, bytes, first, records }
    }

    /// Has so many bytes in the buffer, or all there are.
    fn fill(&mut self, want: usize) -> io::Result<()> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if self.buffer.len() >= want.min(left) {
            return Ok(());
        }
        let mut have = self.buffer.len();
        self.buffer.resize(want.max(CHUNK).min(left), 0);
        while let Some(rest) = self.buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, self.position + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(have);
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(have);
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.buffer.len());
        self.buffer.advance(bytes);
        self.position += bytes as u64;
    }

    fn skip_to(&mut self, position: u64) {
        self.buffer.clear();
        self.position = position;
    }
}

/// The mark of a segment whose header reads.
fn read_header(bytes: &[u8], first: u64) -> Option<Mark> {
    let (summed, mut sum) = bytes.split_at_checked(HEADER - 4)?;
    let rest = summed.strip_prefix(MAGIC)?;
    let (mark, mut rest) = rest.split_first_chunk()?;
    let is_right = sum.try_get_u32_le().ok()? == crc32fast::hash(summed) && rest.try_get_u64_le().ok()? == first;
    is_right.then_some(*mark)
}

const MAGIC: &[u8; 8] = b"mayflog1";
const SUFFIX: &str = ".log";

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Disks that fail when a test says so.
#[cfg(test)]
pub(super) mod faults {
    use std::{
        collections::BTreeMap,
        fs::File,
        io,
        os::unix::fs::FileExt as _,
        path::{Path, PathBuf},
        sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    };

    #[derive(Debug, Default)]
    pub(crate) struct Faults {
        /// Writes that fail, their bytes written all the same.
        pub(crate) writes: AtomicUsize,
        /// Syncs that fail.
        pub(crate) syncs: AtomicUsize,
    }

    static ALL: Mutex<BTreeMap<PathBuf, Arc<Faults>>> = Mutex::new(BTreeMap::new());

    pub(crate) fn of(folder: &Path) -> Arc<Faults> {
        ALL.lock().expect("whole").entry(folder.to_owned()).or_default().clone()
    }

    impl Faults {
        pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
            if !take(&self.writes) {
                return Ok(());
            }
            file.write_all_at(bytes, at)?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        pub(super) fn sync(&self) -> io::Result<()> {
            if take(&self.syncs) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
        }
    }

    fn take(left: &AtomicUsize) -> bool {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}
