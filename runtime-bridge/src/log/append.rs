//! The one thread that writes: all that waits goes out in one write and one fdatasync, then all are answered.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Durable, Error, Offset, Options, Recovery, Shared,
    frame::{Encoded, HEADER, Mark},
    locked,
    segment::{self, Active, Segment, Step, Torn, Walk},
};

/// A batch whose sender waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) encoded: Encoded,
    pub(super) answer: oneshot::Sender<Result<Offset, Error>>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// Batches in the order in which they came; bounded by the room that each holds.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<(VecDeque<Waiting>, bool)>,
    is_changed: Condvar,
}

impl Queue {
    /// # Errors
    /// [`Error::Closed`].
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), Error> {
        let mut queue = locked(&self.waiting);
        if queue.1 {
            return Err(Error::Closed);
        }
        queue.0.push_back(waiting);
        // Else the writer is told already, or busy: it looks again before it waits. Telling is a system call.
        if queue.0.len() == 1 {
            self.is_changed.notify_one();
        }
        Ok(())
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        locked(&self.waiting).1 = true;
        self.is_changed.notify_one();
    }

    /// What waits, up to the bytes of one commit; nothing for a while: an empty group. None: all is written, and no more will come.
    fn group(&self, patience: Duration) -> Option<Vec<Waiting>> {
        let queue = locked(&self.waiting);
        let waited = self.is_changed.wait_timeout_while(queue, patience, |queue| queue.0.is_empty() && !queue.1);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if queue.0.is_empty() && queue.1 {
            return None;
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while bytes < COMMIT_BYTES
            && let Some(waiting) = queue.0.pop_front()
        {
            bytes += waiting.encoded.len();
            group.push(waiting);
        }
        Some(group)
    }
}

/// Writes until the queue is closed.
pub(super) fn run(shared: &Shared, mut writer: Writer) {
    let mut cleaned = Instant::now();
    while let Some(group) = shared.queue.group(CLEAN) {
        if !group.is_empty() {
            writer.commit(shared, group);
        }
        if cleaned.elapsed() >= CLEAN || writer.has_rolled {
            (cleaned, writer.has_rolled) = (Instant::now(), false);
            clean(shared, writer.active.first, shared.options.keep);
        }
    }
}

/// What the thread knows.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    mark: Mark,
    next: u64,
    active: Active,
    /// The active segment cannot be relied on any more: the next group goes into another.
    is_spoiled: bool,
    has_rolled: bool,
    segments: BTreeMap<u64, Segment>,
    frames: Vec<u8>,
}

impl Writer {
    /// Looks at what the last process left. Offsets below `at_least` were given before, whatever is left of them.
    pub(super) fn recover(folder: &Path, segment_bytes: u64, at_least: u64) -> io::Result<(Self, Recovery)> {
        let mut segments: BTreeMap<u64, Segment> = segment::all(folder)?.into_iter().collect();
        let mut recovery = Recovery::default();
        let (mut next, mut mark, mut whole) = (0, None, None);
        if let Some((&first, &Segment { bytes, .. })) = segments.last_key_value() {
            let path = segment::path(folder, first);
            let mut walk = Walk::open(folder, first, bytes, None)?;
            mark = walk.mark();
            loop {
                match walk.step()? {
                    Step::Frame(..) => {}
                    Step::Damaged(damage) => recovery.damaged.push(damage),
                    Step::End => break,
                }
            }
            let (position, next_at_position) = walk.whole();
            next = next_at_position;
            if mark.is_some() {
                // What is damaged behind the last whole frame is what was being written.
                recovery.damaged.retain(|damage| damage.position < position);
                whole = Some((first, position));
            } else if bytes > HEADER as u64 {
                // Neither its header nor its first frame: nobody knows how many records there were, but each took four bytes.
                next = first.saturating_add(bytes);
                let lost = segment::Damage {
                    path: path.clone(),
                    position: 0,
                    bytes,
                    first: Offset(first),
                    records: next - first,
                };
                recovery.damaged.push(lost);
            } else {
                segments.remove(&first);
            }
            if mark.is_some() && position < bytes || mark.is_none() && bytes <= HEADER as u64 {
                recovery.torn = Some(Torn { path, position, bytes: bytes - position });
            }
        }
        let mark = match mark {
            Some(mark) => mark,
            None => new_mark()?,
        };
        let is_numbered_on = next >= at_least;
        next = next.max(at_least);
        let active = match whole.filter(|(_, length)| is_numbered_on && *length < segment_bytes) {
            Some((first, length)) => Active::reopen(folder, first, length)?,
            None => {
                if let Some((first, length)) = whole {
                    Active::reopen(folder, first, length)?;
                    segments.insert(first, Segment { bytes: length, written: SystemTime::now() });
                }
                Active::create(folder, next, mark)?
            }
        };
        segments.insert(active.first, Segment { bytes: active.length, written: SystemTime::now() });
        let folder = folder.to_owned();
        let (is_spoiled, has_rolled) = (false, true);
        Ok((Self { folder, mark, next, active, is_spoiled, has_rolled, segments, frames: Vec::new() }, recovery))
    }

    pub(super) fn durable(&self) -> Durable {
        Durable { next: self.next, segment: self.active.first, length: self.active.length }
    }

    pub(super) fn segments(&self) -> BTreeMap<u64, Segment> {
        self.segments.clone()
    }

    /// Writes a group and answers it: parts of it, where a segment ends within.
    fn commit(&mut self, shared: &Shared, group: Vec<Waiting>) {
        let mut group = VecDeque::from(group);
        while !group.is_empty() {
            let room = shared.options.segment_bytes.saturating_sub(self.active.length);
            let is_empty = self.active.length <= HEADER as u64;
            let mut first = self.next;
            let mut answers = Vec::new();
            self.frames.clear();
            while let Some(waiting) = group.pop_front_if(|waiting| {
                let length = self.frames.len() as u64 + waiting.encoded.len() as u64;
                length <= room || is_empty && self.frames.is_empty()
            }) {
                waiting.encoded.write(self.mark, first, &mut self.frames);
                answers.push((waiting.answer, first, waiting._room));
                first += u64::from(waiting.encoded.records());
            }
            if answers.is_empty() {
                // The next one does not fit any more.
                if let Err(error) = self.roll(shared) {
                    group.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(error.clone()))));
                    return;
                }
                continue;
            }
            let written = self.write(shared, first);
            for (answer, first, _room) in answers {
                // Whoever does not wait any more was not promised anything.
                let _ = answer.send(written.clone().map(|()| Offset(first)));
            }
        }
        if self.frames.capacity() > 2 * COMMIT_BYTES {
            self.frames = Vec::new();
        }
    }

    /// Writes the frames, all or none of them, up to the offset `next`.
    fn write(&mut self, shared: &Shared, next: u64) -> Result<(), Error> {
        if self.is_spoiled {
            self.roll(shared)?;
        }
        self.make_room(shared, self.frames.len() as u64)?;
        if let Err(source) = self.active.write(&self.frames) {
            // Bytes that are behind what is whole would be taken for records later.
            self.is_spoiled = self.active.cut().is_err();
            return Err(Error::write(&self.folder, source));
        }
        if let Err(source) = self.active.sync(self.frames.len() as u64) {
            // Nobody knows what a second sync of these pages is worth: another file goes on.
            let _ = self.active.cut();
            self.is_spoiled = true;
            return Err(Error::write(&self.folder, source));
        }
        self.next = next;
        self.tell(shared);
        Ok(())
    }

    /// Goes on in a new segment.
    fn roll(&mut self, shared: &Shared) -> Result<(), Error> {
        self.make_room(shared, HEADER as u64)?;
        let active = Active::create(&self.folder, self.next, self.mark);
        self.active = active.map_err(|source| Error::write(&self.folder, source))?;
        (self.is_spoiled, self.has_rolled) = (false, true);
        self.tell(shared);
        Ok(())
    }

    fn tell(&self, shared: &Shared) {
        let segment = Segment { bytes: self.active.length, written: SystemTime::now() };
        locked(&shared.segments).insert(self.active.first, segment);
        shared.durable.send_replace(self.durable());
    }

    /// Holds the limit on disk: what all have read goes first, however new.
    fn make_room(&self, shared: &Shared, more: u64) -> Result<(), Error> {
        let Options { max_bytes, .. } = shared.options;
        let is_over = || {
            let bytes: u64 = locked(&shared.segments).values().map(|segment| segment.bytes).sum();
            bytes.saturating_add(more) > max_bytes
        };
        if is_over() {
            clean(shared, self.active.first, Duration::ZERO);
            if is_over() {
                return Err(Error::Limit { path: self.folder.clone(), limit_bytes: max_bytes });
            }
        }
        Ok(())
    }
}

/// Removes segments that all cursors passed and that were not written for a while, the oldest first.
fn clean(shared: &Shared, active: u64, keep: Duration) {
    // Held, so that no cursor begins at what is just removed.
    let cursors = locked(&shared.cursors);
    let passed = cursors.values().min().copied().unwrap_or(0);
    let now = SystemTime::now();
    let mut segments = locked(&shared.segments);
    let ends: Vec<u64> = segments.keys().skip(1).copied().collect();
    let mut is_changed = false;
    for end in ends {
        let Some(entry) = segments.first_entry() else { break };
        // A clock that was put back keeps it longer.
        let is_old = now.duration_since(entry.get().written).is_ok_and(|age| age >= keep);
        if *entry.key() == active || end > passed || !is_old {
            break;
        }
        if let Err(error) = fs::remove_file(segment::path(&shared.folder, *entry.key()))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %shared.folder.display(), %error, "a segment that was read cannot be removed");
            break;
        }
        entry.remove();
        is_changed = true;
    }
    if is_changed && let Err(error) = segment::sync_folder(&shared.folder) {
        tracing::warn!(folder = %shared.folder.display(), %error, "removed segments may come back");
    }
}

fn new_mark() -> io::Result<Mark> {
    let mut mark = Mark::default();
    aws_lc_rs::rand::fill(&mut mark).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(mark)
}

/// Bytes of one commit: what is written while a disk syncs.
const COMMIT_BYTES: usize = 8 << 20;

/// How often it is looked for segments to remove.
const CLEAN: Duration = Duration::from_secs(30);
