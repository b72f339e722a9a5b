//! An rpm header as databases keep it: bytes in, the tags we use out.
//!
//! Source: rpm, "Header format" (`docs/manual/format_header.md`) and `lib/header.c`: two big-endian counts, an index of 16 bytes
//! per tag, then the data the index points into. Signatures are not checked: the database is not the package.

/// A package as its header tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpmRecord {
    /// `NAME`.
    pub name: String,
    /// `EPOCH`, where there is one.
    pub epoch: Option<u32>,
    /// `VERSION`.
    pub version: String,
    /// `RELEASE`.
    pub release: String,
    /// `ARCH`.
    pub architecture: Option<String>,
    /// `LICENSE`: an expression, by the distribution's rules.
    pub license: Option<String>,
    /// `SOURCERPM`: file name of the source package.
    pub source: Option<String>,
    /// `DIRNAMES` and `BASENAMES` joined: all files, whether on disk or not.
    pub files: Vec<Vec<u8>>,
}

/// The package `blob` is the header of; `None` for a key (`gpg-pubkey`), which rpm keeps as a package without files.
///
/// # Errors
/// [`HeaderError`].
pub fn parse_header(blob: &[u8]) -> Result<Option<RpmRecord>, HeaderError> {
    let header = Header::parse(blob)?;
    let name = header.text(NAME).ok_or(HeaderError::Missing("NAME"))?;
    if name == "gpg-pubkey" {
        return Ok(None);
    }
    Ok(Some(RpmRecord {
        epoch: header.numbers(EPOCH)?.next(),
        version: header.text(VERSION).ok_or(HeaderError::Missing("VERSION"))?,
        release: header.text(RELEASE).ok_or(HeaderError::Missing("RELEASE"))?,
        architecture: header.text(ARCH),
        license: header.text(LICENSE).filter(|text| !text.is_empty()),
        source: header.text(SOURCERPM).filter(|text| !text.is_empty()),
        files: header.files()?,
        name,
    }))
}

/// A header that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It ends before its own counts say.
    #[error("rpm header ends early")]
    Truncated,
    /// A count is above what rpm allows.
    #[error("rpm header claims more than rpm allows")]
    TooLarge,
    /// A tag's data lies outside, or has the wrong type.
    #[error("rpm header tag {0} is malformed")]
    Tag(u32),
    /// A tag that every package has is not there.
    #[error("rpm header has no {0}")]
    Missing(&'static str),
}

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

/// What the index says of a tag.
struct Entry {
    kind: u32,
    offset: usize,
    count: usize,
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, HeaderError> {
        let entries = u32_at(blob, 0).ok_or(HeaderError::Truncated)?;
        let bytes = u32_at(blob, 4).ok_or(HeaderError::Truncated)?;
        if entries > MAX_TAGS || bytes > MAX_DATA_BYTES {
            return Err(HeaderError::TooLarge);
        }
        let size = |number: u32| usize::try_from(number).map_err(|_| HeaderError::TooLarge);
        let (index, data) = blob
            .get(8..)
            .and_then(|rest| rest.split_at_checked(entries.checked_mul(16).and_then(|n| size(n).ok())?))
            .ok_or(HeaderError::Truncated)?;
        let data = data.get(..size(bytes)?).ok_or(HeaderError::Truncated)?;
        Ok(Self { index, data })
    }

    fn entry(&self, tag: u32) -> Option<Entry> {
        let entry = self.index.chunks_exact(16).find(|entry| u32_at(entry, 0) == Some(tag))?;
        Some(Entry {
            kind: u32_at(entry, 4)?,
            offset: u32_at(entry, 8)?.try_into().ok()?,
            count: u32_at(entry, 12)?.try_into().ok()?,
        })
    }

    /// The first text of a tag; bytes that are not UTF-8 become U+FFFD.
    fn text(&self, tag: u32) -> Option<String> {
        let entry = self.entry(tag).filter(|entry| matches!(entry.kind, STRING | STRING_ARRAY | I18N_STRING))?;
        let text = strings(self.data.get(entry.offset..)?).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn texts(&self, tag: u32) -> Result<Vec<&'a [u8]>, HeaderError> {
        let Some(entry) = self.entry(tag) else { return Ok(Vec::new()) };
        let data = self.data.get(entry.offset..).filter(|_| entry.kind == STRING_ARRAY).ok_or(HeaderError::Tag(tag))?;
        let texts: Vec<_> = strings(data).take(entry.count).collect();
        if texts.len() == entry.count { Ok(texts) } else { Err(HeaderError::Tag(tag)) }
    }

    fn numbers(&self, tag: u32) -> Result<impl Iterator<Item = u32>, HeaderError> {
        let bytes = match self.entry(tag) {
            Some(entry) if entry.kind == INT32 => {
                let end = entry.count.checked_mul(4).and_then(|len| entry.offset.checked_add(len));
                end.and_then(|end| self.data.get(entry.offset..end)).ok_or(HeaderError::Tag(tag))?
            }
            Some(_) => return Err(HeaderError::Tag(tag)),
            None => &[],
        };
        Ok(bytes.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0)))
    }

    fn files(&self) -> Result<Vec<Vec<u8>>, HeaderError> {
        let folders = self.texts(DIRNAMES)?;
        let names = self.texts(BASENAMES)?;
        let mut files = Vec::with_capacity(names.len());
        let mut bytes = 0_usize;
        for (name, folder) in names.iter().zip(self.numbers(DIRINDEXES)?) {
            let folder =
                usize::try_from(folder).ok().and_then(|at| folders.get(at)).ok_or(HeaderError::Tag(DIRINDEXES))?;
            // Many names may share one long folder: what is joined has its own limit.
            bytes = bytes.saturating_add(folder.len()).saturating_add(name.len());
            if bytes > MAX_NAMES_BYTES {
                return Err(HeaderError::TooLarge);
            }
            files.push([folder, *name].concat());
        }
        Ok(files)
    }
}

/// Texts that end with NUL each; what follows the last NUL is none.
fn strings(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (text, rest) = data.split_at_checked(memchr::memchr(0, data)?)?;
        data = rest.get(1..).unwrap_or_default();
        Some(text)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCERPM: u32 = 1044;
const DIRINDEXES: u32 = 1116;
const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;

const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// `HEADER_TAGS_MAX` and `HEADER_DATA_MAX` of rpm.
const MAX_TAGS: u32 = 0xffff;
const MAX_DATA_BYTES: u32 = 0x0fff_ffff;
/// The largest packages list some 100,000 files.
const MAX_NAMES_BYTES: usize = 64 << 20;

/// Headers made in memory, for tests here and of the databases.
#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    /// A header with `name`, version 1.0, release 2, epoch 3 and the file `/usr/bin/NAME`.
    pub(in crate::inventory) fn header(name: &str) -> Vec<u8> {
        let mut index = Vec::new();
        let mut data = Vec::new();
        let mut put = |tag: u32, kind: u32, bytes: &[u8]| {
            if kind == INT32 {
                data.resize(data.len().next_multiple_of(4), 0);
            }
            for number in [tag, kind, u32::try_from(data.len()).expect("small"), 1] {
                index.extend(number.to_be_bytes());
            }
            data.extend(bytes);
        };
        put(NAME, STRING, format!("{name}\0").as_bytes());
        put(VERSION, STRING, b"1.0\0");
        put(RELEASE, STRING, b"2\0");
        put(EPOCH, INT32, &[0, 0, 0, 3]);
        put(LICENSE, STRING, b"MIT\0");
        put(ARCH, STRING, b"x86_64\0");
        put(SOURCERPM, STRING, format!("{name}-1.0-2.src.rpm\0").as_bytes());
        put(DIRINDEXES, INT32, &[0; 4]);
        put(BASENAMES, STRING_ARRAY, format!("{name}\0").as_bytes());
        put(DIRNAMES, STRING_ARRAY, b"/usr/bin/\0");
        let counts = [index.len() / 16, data.len()].map(|count| u32::try_from(count).expect("small").to_be_bytes());
        [counts.concat(), index, data].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_make_a_record() {
        let record = parse_header(&fixture::header("zlib")).expect("valid").expect("a package");
        assert_eq!((record.name.as_str(), record.epoch, record.release.as_str()), ("zlib", Some(3), "2"));
        assert_eq!(record.files, [b"/usr/bin/zlib"]);
        assert_eq!(parse_header(&fixture::header("gpg-pubkey")), Ok(None));
    }

    #[test]
    fn spoiled_headers_are_refused() {
        let good = fixture::header("zlib");
        let spoil = |at: usize, byte: u8| {
            let mut blob = good.clone();
            *blob.get_mut(at).expect("inside") = byte;
            parse_header(&blob)
        };
        assert_eq!(parse_header(good.get(..good.len() - 1).expect("longer")), Err(HeaderError::Truncated));
        assert_eq!(parse_header(b""), Err(HeaderError::Truncated));
        assert_eq!(spoil(0, 1), Err(HeaderError::TooLarge));
        // The first entry's tag is no longer NAME.
        assert_eq!(spoil(11, 0), Err(HeaderError::Missing("NAME")));
        // The folder's number, the type and offset of DIRINDEXES, the count of DIRNAMES.
        let entry = |n: usize| 8 + n * 16;
        assert_eq!(spoil(entry(7) + 7, 6), Err(HeaderError::Tag(DIRINDEXES)));
        assert_eq!(spoil(entry(7) + 8, 1), Err(HeaderError::Tag(DIRINDEXES)));
        assert_eq!(spoil(entry(9) + 15, 9), Err(HeaderError::Tag(DIRNAMES)));
    }
}
