//! Reading what is on disk, in order, from any offset.

use std::{fs, io, sync::Arc};

use tokio::sync::watch;

use super::{
    Durable, Error, Offset, Shared,
    frame::Record,
    locked,
    segment::{self, Damage, Step, Walk},
};

/// What is read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Records that came together, never none.
    Records(Vec<Record>),
    /// Records that are lost: the reader goes on behind them.
    Damaged(Damage),
}

/// Reads a log. It sees what is durable only. Reading blocks for as long as a disk takes.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    durable: watch::Receiver<Durable>,
    /// The next record that is wanted.
    next: u64,
    open: Option<(u64, Walk)>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Offset) -> Self {
        let oldest = locked(&shared.segments).keys().next().copied().unwrap_or(0);
        let durable = shared.durable.subscribe();
        Self { shared, durable, next: from.0.max(oldest), open: None }
    }

    /// The next records, or what is lost instead; none: all was read.
    ///
    /// # Errors
    /// [`Error::Read`]; trying again goes on at the same place.
    pub fn read(&mut self) -> Result<Option<Read>, Error> {
        loop {
            let durable = *self.durable.borrow_and_update();
            let Some((first, walk)) = &mut self.open else {
                if self.next >= durable.next {
                    return Ok(None);
                }
                if let Some(lost) = self.open_next(durable)? {
                    return Ok(Some(lost));
                }
                continue;
            };
            let first = *first;
            let path = segment::path(&self.shared.folder, first);
            let unreadable = |source| Error::Read { path: path.clone(), source: Arc::new(source) };
            let next_at_end = match extent(&self.shared, durable, first) {
                Some((end, next)) => {
                    walk.extend(end, next);
                    next
                }
                None => durable.next,
            };
            match walk.step().map_err(unreadable)? {
                Step::Frame(header, body) => {
                    if header.end() <= self.next {
                        continue;
                    }
                    let length = body.len() as u64;
                    let Some(mut records) = header.decode_body(body) else {
                        // Its sum is right: it was written by a later version of this program.
                        let (first, position) = (self.next, walk.whole().0.saturating_sub(length));
                        self.next = header.end();
                        let records = self.next - first;
                        let damage = Damage { path, position, bytes: length, first: Offset(first), records };
                        return Ok(Some(Read::Damaged(damage)));
                    };
                    records.retain(|record| record.offset.0 >= self.next);
                    self.next = header.end();
                    if !records.is_empty() {
                        return Ok(Some(Read::Records(records)));
                    }
                }
                Step::Damaged(damage) => {
                    let end = damage.first.0 + damage.records;
                    if damage.records > 0 && end <= self.next {
                        continue;
                    }
                    self.next = self.next.max(end);
                    return Ok(Some(Read::Damaged(damage)));
                }
                Step::End if first == durable.segment => return Ok(None),
                Step::End => {
                    self.next = self.next.max(next_at_end);
                    self.open = None;
                }
            }
        }
    }

    /// Waits until there is more than was read.
    pub async fn wait(&mut self) {
        let next = self.next;
        // The sender lives as long as this reader.
        let _ = self.durable.wait_for(|durable| durable.next > next).await;
    }

    /// The next record that will be read.
    #[must_use]
    pub fn position(&self) -> Offset {
        Offset(self.next)
    }

    pub(super) fn start_at(&mut self, next: u64) {
        (self.next, self.open) = (next, None);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Opens the segment that has the next record; where there is none, says what is missing.
    fn open_next(&mut self, durable: Durable) -> Result<Option<Read>, Error> {
        let (before, after) = {
            let segments = locked(&self.shared.segments);
            let before = segments.range(..=self.next).next_back().map(|(first, _)| *first);
            (before, segments.range(self.next..).next().map(|(first, _)| *first))
        };
        let lost = |from: u64, to: u64| {
            let path = segment::path(&self.shared.folder, to);
            Read::Damaged(Damage { path, position: 0, bytes: 0, first: Offset(from), records: to - from })
        };
        let extent = before.and_then(|first| Some((first, extent(&self.shared, durable, first)?)));
        let Some((first, (end, next_at_end))) = extent else {
            let next = after.unwrap_or(durable.next);
            let lost = lost(self.next, next);
            self.next = next;
            return Ok(Some(lost));
        };
        match Walk::open(&self.shared.folder, first, end, Some(next_at_end)) {
            Ok(walk) => self.open = Some((first, walk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Removed by hand, or by the writer just now.
                let lost = lost(self.next, next_at_end);
                self.next = next_at_end;
                return Ok(Some(lost));
            }
            Err(source) => {
                let path = segment::path(&self.shared.folder, first);
                return Err(Error::Read { path, source: Arc::new(source) });
            }
        }
        Ok(None)
    }
}

/// Where a segment ends, and the offset after its last record. None: it is not there any more.
fn extent(shared: &Shared, durable: Durable, first: u64) -> Option<(u64, u64)> {
    if first == durable.segment {
        return Some((durable.length, durable.next));
    }
    let segments = locked(&shared.segments);
    let next = segments.range(first + 1..).next().map(|(next, _)| *next)?;
    match segments.get(&first) {
        Some(segment) => Some((segment.bytes, next)),
        // Removed while it is read: the file is open still.
        None => fs::metadata(segment::path(&shared.folder, first)).ok().map(|metadata| (metadata.len(), next)),
    }
}
