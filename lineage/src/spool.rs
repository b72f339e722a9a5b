//! Records on disk until the ledger has them: segments that are appended to by one thread, and read by one task.
//!
//! ```text
//! FOLDER/lock                   held by the process that uses the folder
//! FOLDER/00000000000000000007   MAGIC ‖ (length: u32 LE ‖ CRC-32 of the bytes: u32 LE ‖ bytes)*
//! ```
//!
//! What was appended survives the end of the process, however it ends; after a loss of power the end of the last segment may be
//! missing. A segment is never appended to by a later process, so its torn end harms nothing after it.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::Error;

/// How far has been written: a segment, and bytes in it that are whole records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// Makes both ends of a spool in a folder, which is made where it is not there. A segment is an eighth of the limit, so that a
/// full spool has room again soon after the ledger takes from it.
///
/// # Errors
/// [`Error::Spool`], also where another process uses the folder.
pub(crate) fn open(folder: &Path, limit_bytes: u64) -> Result<(Writer, Reader), Error> {
    let error = |advice| move |source| Error::Spool { path: folder.to_owned(), advice, source };
    let unusable = "give a folder that this user may write to";
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error(unusable))?;
    let lock = create(&folder.join("lock"), false).map_err(error(unusable))?;
    lock.try_lock().map_err(|locked| {
        error("another process uses it: give each process a folder of its own")(io::Error::from(locked))
    })?;

    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).map_err(error(unusable))? {
        let entry = entry.map_err(error(unusable))?;
        let Some(segment) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        segments.push((segment, entry.metadata().map_err(error(unusable))?.len()));
    }
    segments.sort_unstable();
    let next = segments.last().map_or(0, |(segment, _)| segment + 1);
    let bytes = segments.iter().map(|(_, bytes)| bytes).sum();
    let writer = Writer {
        folder: folder.to_owned(),
        file: None,
        written: Written { segment: next, offset: 0 },
        segment_bytes: (limit_bytes / 8).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES),
        _lock: lock,
    };
    let earlier = segments.into_iter().map(|(segment, _)| segment).collect();
    let reader = Reader { folder: folder.to_owned(), earlier, own: next, open: None, left_bytes: bytes };
    Ok((writer, reader))
}

/// The end that is appended to.
pub(crate) struct Writer {
    folder: PathBuf,
    file: Option<File>,
    written: Written,
    /// A segment is closed above this.
    segment_bytes: u64,
    _lock: File,
}

impl Writer {
    /// Appends records that are framed already ([`frame`]); all of them, or none. Returns how far has been written.
    pub(crate) fn append(&mut self, frames: &[u8]) -> io::Result<Written> {
        if self.written.offset >= self.segment_bytes {
            self.next();
        }
        let appended = self.try_append(frames);
        if appended.is_err() {
            // Part of it may be there: the segment ends where it was whole, and a new one goes on.
            if let Some(file) = &self.file {
                let _ = file.set_len(self.written.offset);
            }
            self.next();
        }
        appended
    }

    fn try_append(&mut self, frames: &[u8]) -> io::Result<Written> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&path(&self.folder, self.written.segment), true)?),
        };
        let mut offset = self.written.offset;
        if offset == 0 {
            file.write_all(MAGIC)?;
            offset = MAGIC.len() as u64;
        }
        file.write_all(frames)?;
        self.written.offset = offset + frames.len() as u64;
        Ok(self.written)
    }

    fn next(&mut self) {
        self.file = None;
        self.written = Written { segment: self.written.segment + 1, offset: 0 };
    }

    /// Where the next record goes; a reader that was told of it may read what is before it.
    pub(crate) fn written(&self) -> Written {
        self.written
    }
}

/// The end that is read from, and removed once the ledger has it.
pub(crate) struct Reader {
    folder: PathBuf,
    /// Segments of earlier processes that are still there.
    earlier: VecDeque<u64>,
    /// After those: the segment of this process that is read next.
    own: u64,
    open: Option<Open>,
    left_bytes: u64,
}

struct Open {
    file: File,
    offset: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The records' bytes, each with its sum right.
    pub(crate) records: Vec<Vec<u8>>,
    /// Segments whose rest could not be read: damaged, or of another version of this program.
    pub(crate) damaged: u64,
    /// Bytes of segments that were read to their end and removed.
    pub(crate) removed_bytes: u64,
}

impl Reader {
    /// Bytes that earlier processes left.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// The next records, at most `limit` of them, of what was written so far; none where all were read. What one call returned,
    /// a later one may remove: the ledger must have it by then.
    pub(crate) fn next(&mut self, written: Written, limit: usize) -> io::Result<Batch> {
        let mut batch = Batch::default();
        loop {
            let segment = self.segment();
            let is_last = segment >= written.segment;
            if is_last && written.offset == 0 {
                return Ok(batch);
            }
            self.read(is_last.then_some(written.offset), limit, &mut batch)?;
            if is_last || !batch.records.is_empty() {
                return Ok(batch);
            }
            batch.removed_bytes += self.remove()?;
            self.own += u64::from(self.earlier.pop_front().is_none());
        }
    }

    /// What was read is in the ledger, and nothing will be written any more: removes the last segment.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.remove().map(|_| ())
    }

    /// Asks the disk to have what was written, as the ledger will not for a while.
    pub(crate) fn sync(&self, written: Written) -> io::Result<()> {
        File::open(path(&self.folder, written.segment))?.sync_data()
    }

    fn segment(&self) -> u64 {
        self.earlier.front().copied().unwrap_or(self.own)
    }

    /// Reads records of the segment, up to `end` where it is still written.
    fn read(&mut self, end: Option<u64>, limit: usize, batch: &mut Batch) -> io::Result<()> {
        let segment = self.segment();
        let open = match &mut self.open {
            Some(open) => open,
            none => match File::open(path(&self.folder, segment)) {
                Ok(file) => none.insert(Open { file, offset: 0 }),
                // Never made, as the disk was full.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        let len = open.file.metadata()?.len();
        let end = end.map_or(len, |end| end.min(len));
        open.file.seek(SeekFrom::Start(open.offset))?;
        let mut file = io::BufReader::with_capacity(READ_BYTES, &open.file);
        if open.offset == 0 {
            let mut magic = [0; MAGIC.len()];
            // One that is shorter was being made when its process ended: nothing was in it.
            let is_whole = file.read_exact(&mut magic).is_ok();
            let is_ours = is_whole && magic == *MAGIC;
            batch.damaged += u64::from(is_whole && !is_ours);
            open.offset = if is_ours { MAGIC.len() as u64 } else { end };
        }
        let mut bytes = 0;
        while open.offset < end && batch.records.len() < limit && bytes < BATCH_BYTES {
            match record(&mut file, end - open.offset)? {
                Found::Record(record) => {
                    open.offset += (HEAD_BYTES + record.len()) as u64;
                    bytes += record.len();
                    batch.records.push(record);
                }
                // What is not whole was never said to be there.
                Found::TornEnd => open.offset = end,
                Found::Damage => {
                    batch.damaged += 1;
                    open.offset = end;
                }
            }
        }
        Ok(())
    }

    /// Removes the segment. Returns its bytes.
    fn remove(&mut self) -> io::Result<u64> {
        self.open = None;
        let path = path(&self.folder, self.segment());
        match fs::metadata(&path) {
            Ok(metadata) => fs::remove_file(path).map(|()| metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

enum Found {
    Record(Vec<u8>),
    TornEnd,
    Damage,
}

/// The record at the place of `file`, of which `left` bytes may be read.
fn record(file: &mut impl io::Read, left: u64) -> io::Result<Found> {
    if left < HEAD_BYTES as u64 {
        return Ok(Found::TornEnd);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head)?;
    let [l0, l1, l2, l3, s0, s1, s2, s3] = head;
    let (length, sum) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([s0, s1, s2, s3]));
    if length > MAX_RECORD_BYTES {
        return Ok(Found::Damage);
    }
    if left - (HEAD_BYTES as u64) < u64::from(length) {
        return Ok(Found::TornEnd);
    }
    let mut record = vec![0; length as usize];
    file.read_exact(&mut record)?;
    Ok(if crc32fast::hash(&record) == sum { Found::Record(record) } else { Found::Damage })
}

/// Appends a record with its length and sum to `frames`. Returns whether it is small enough.
pub(crate) fn frame(record: &[u8], frames: &mut Vec<u8>) -> bool {
    let Some(length) = u32::try_from(record.len()).ok().filter(|length| *length <= MAX_RECORD_BYTES) else {
        return false;
    };
    frames.extend(length.to_le_bytes());
    frames.extend(crc32fast::hash(record).to_le_bytes());
    frames.extend(record);
    true
}

fn create(path: &Path, is_new: bool) -> io::Result<File> {
    fs::OpenOptions::new().append(true).create(true).create_new(is_new).mode(0o600).open(path)
}

fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:020}"))
}

/// The last two digits are the version of what the records' bytes mean.
const MAGIC: &[u8; 16] = b"mayfly spool 01\n";
const HEAD_BYTES: usize = 8;
/// Of one record: a decision with its findings has some KiB, an expectation tens.
const MAX_RECORD_BYTES: u32 = 16 << 20;
const MIN_SEGMENT_BYTES: u64 = 4 << 10;
const MAX_SEGMENT_BYTES: u64 = 8 << 20;
/// Of records that are read at once.
const BATCH_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn frames(records: &[&[u8]]) -> Vec<u8> {
        let mut frames = Vec::new();
        assert!(records.iter().all(|record| frame(record, &mut frames)));
        frames
    }

    fn all(reader: &mut Reader, written: Written) -> (Vec<Vec<u8>>, u64) {
        let (mut records, mut damaged) = (Vec::new(), 0);
        loop {
            let batch = reader.next(written, 2).expect("read");
            damaged += batch.damaged;
            if batch.records.is_empty() {
                return (records, damaged);
            }
            records.extend(batch.records);
        }
    }

    #[test]
    fn records_come_back_in_order_now_and_by_a_later_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, mut reader) = open(folder.path(), u64::MAX).expect("a spool");
        writer.append(&frames(&[b"a", b"b", b"c"])).expect("appended");
        let written = writer.append(&frames(&[b"d"])).expect("appended");
        assert_eq!(all(&mut reader, written).0, [b"a", b"b", b"c", b"d"]);
        let written = writer.append(&frames(&[b"e"])).expect("appended");
        assert_eq!(all(&mut reader, written).0, [b"e"]);

        drop((writer, reader));
        let (writer, mut reader) = open(folder.path(), u64::MAX).expect("a spool");
        assert!(reader.left_bytes() > 0);
        assert_eq!(all(&mut reader, writer.written()), ([b"a", b"b", b"c", b"d", b"e"].map(|r| r.to_vec()).into(), 0));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "only the lock is left");
    }

    #[test]
    fn a_folder_has_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let _one = open(folder.path(), u64::MAX).expect("a spool");
        let error = open(folder.path(), u64::MAX).err().expect("a refusal").to_string();
        assert!(error.contains("another process"), "{error}");
    }

    #[test]
    fn a_torn_end_is_no_damage_and_a_flipped_bit_is() {
        let whole = [MAGIC.as_slice(), &frames(&[b"one", b"two"])].concat();
        for cut in 0..=whole.len() {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(path(folder.path(), 3), &whole[..cut]).expect("written");
            let (writer, mut reader) = open(folder.path(), u64::MAX).expect("a spool");
            let (records, damaged) = all(&mut reader, writer.written());
            let expected = [cut >= 27, cut >= 38].iter().filter(|is| **is).count();
            assert_eq!((records.len(), damaged), (expected, 0), "cut at {cut}");
        }
        for byte in 0..whole.len() {
            let folder = tempfile::tempdir().expect("a folder");
            let mut spoiled = whole.clone();
            spoiled[byte] ^= 0x80;
            fs::write(path(folder.path(), 3), &spoiled).expect("written");
            let (mut writer, mut reader) = open(folder.path(), u64::MAX).expect("a spool");
            let written = writer.append(&frames(&[b"three"])).expect("appended");
            let (records, damaged) = all(&mut reader, written);
            assert!(damaged == 1 || records.len() < 3, "byte {byte}");
            assert!(records.iter().all(|r| [b"one".as_slice(), b"two", b"three"].contains(&&**r)), "byte {byte}");
            assert_eq!(
                records.last().map(Vec::as_slice),
                Some(b"three".as_slice()),
                "what follows is read: byte {byte}"
            );
        }
    }

    #[test]
    fn segments_are_closed_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut writer, mut reader) = open(folder.path(), u64::MAX).expect("a spool");
        let large = frames(&[&vec![7; 5 << 20]]);
        let written = (0..5).map(|_| writer.append(&large).expect("appended")).last().expect("written");
        assert_eq!(written.segment, 2);
        let (records, damaged) = all(&mut reader, written);
        assert_eq!((records.len(), damaged), (5, 0));
        assert!(!path(folder.path(), 1).exists() && path(folder.path(), 2).exists());
        reader.end().expect("ended");
        assert!(!path(folder.path(), 2).exists());
    }
}
