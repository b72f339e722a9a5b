//! A reader whose place outlives the process.
//!
//! ```text
//! FOLDER/cursors/NAME = offset, 20 digits ‖ space ‖ CRC-32 of the digits, 8 hexadecimal digits ‖ newline
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use super::{Error, Offset, Read, Reader, Shared, error::is_full, locked, segment};
use crate::settings;

/// Reads a log from where it was done the last time. What was read but not committed is read again by the next process.
#[derive(Debug)]
pub struct Cursor {
    name: String,
    reader: Reader,
    committed: u64,
}

impl Cursor {
    pub(super) fn open(shared: &Arc<Shared>, name: &str) -> Result<Self, Error> {
        if !settings::is_name(name) {
            return Err(error(name, "no name of a cursor: up to 64 of a-z, 0-9 and -"));
        }
        if !locked(&shared.in_use).insert(name.to_owned()) {
            return Err(error(name, "it is in use already; one reader has one name"));
        }
        // From here on, dropping it sets the name free.
        let mut cursor =
            Self { name: name.to_owned(), reader: Reader::new(Arc::clone(shared), Offset(0)), committed: 0 };
        let mut cursors = locked(&shared.cursors);
        cursor.committed = match cursors.get(name) {
            Some(committed) => *committed,
            None => {
                let oldest = locked(&shared.segments).keys().next().copied().unwrap_or(0);
                write(&shared.folder, name, oldest).map_err(|source| error(name, source))?;
                cursors.insert(name.to_owned(), oldest);
                oldest
            }
        };
        cursor.reader.start_at(cursor.committed);
        Ok(cursor)
    }

    /// The next records, or what is lost instead; none: all was read.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read(&mut self) -> Result<Option<Read>, Error> {
        self.reader.read()
    }

    /// Waits until there is more than was read.
    pub async fn wait(&mut self) {
        self.reader.wait().await;
    }

    /// Notes, durably, that everything before an offset is done. What was not read yet stays not done.
    ///
    /// # Errors
    /// [`Error::Cursor`]: its file cannot be written; it stays where it was.
    pub fn commit(&mut self, done: Offset) -> Result<(), Error> {
        let done = done.0.min(self.reader.position().0);
        if done > self.committed {
            let shared = self.reader.shared();
            write(&shared.folder, &self.name, done).map_err(|source| error(&self.name, source))?;
            locked(&shared.cursors).insert(self.name.clone(), done);
            self.committed = done;
        }
        Ok(())
    }

    /// Everything before it is done.
    #[must_use]
    pub fn committed(&self) -> Offset {
        Offset(self.committed)
    }

    /// The next record that will be read.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.reader.position()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        locked(&self.reader.shared().in_use).remove(&self.name);
    }
}

/// All cursors of a folder.
pub(super) fn all(folder: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let unusable = |source| Error::Folder { path: folder.to_owned(), source: Arc::new(source) };
    let mut cursors = BTreeMap::new();
    for entry in fs::read_dir(folder.join(FOLDER)).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(NEW) {
            continue;
        }
        let text = fs::read(entry.path()).map_err(unusable)?;
        let offset = decode(&text).ok_or_else(|| {
            let path = entry.path();
            error(&name, format!("{} does not read; remove it, and all that is kept is read again", path.display()))
        })?;
        cursors.insert(name, offset);
    }
    Ok(cursors)
}

pub(super) fn forget(shared: &Shared, name: &str) -> Result<(), Error> {
    if locked(&shared.in_use).contains(name) {
        return Err(error(name, "it is in use"));
    }
    let mut cursors = locked(&shared.cursors);
    if !cursors.contains_key(name) {
        return Err(error(name, "there is none of this name"));
    }
    let folder = shared.folder.join(FOLDER);
    fs::remove_file(folder.join(name)).and_then(|()| segment::sync_folder(&folder)).map_err(|e| error(name, e))?;
    cursors.remove(name);
    Ok(())
}

/// Replaces a cursor's file whole. On a full disk there is no space for another one, and none would ever come back if readers could not
/// say what they are done with: then it is written over, which takes no space.
fn write(log: &Path, name: &str, offset: u64) -> io::Result<()> {
    let folder = log.join(FOLDER);
    let (path, new) = (folder.join(name), folder.join(format!("{name}{NEW}")));
    let text = encode(offset);
    let replaced = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| segment::sync_folder(&folder));
    match replaced {
        Err(error) if is_full(&error) => {
            let _ = fs::remove_file(&new);
            let file = File::options().write(true).open(&path)?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.sync_data()
        }
        replaced => replaced,
    }
}

fn encode(offset: u64) -> String {
    let digits = format!("{offset:020}");
    let sum = crc32fast::hash(digits.as_bytes());
    format!("{digits} {sum:08x}\n")
}

fn decode(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let offset = text.split(' ').next()?.parse().ok()?;
    (encode(offset) == text).then_some(offset)
}

fn error(name: &str, reason: impl ToString) -> Error {
    Error::Cursor { name: name.to_owned(), reason: reason.to_string() }
}

/// Where cursors are.
pub(super) const FOLDER: &str = "cursors";
const NEW: &str = ".new";
