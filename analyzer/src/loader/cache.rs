//! `/etc/ld.so.cache`: its bytes in, names with the files they lead to out.
//!
//! Source: glibc, sysdeps/generic/dl-cache.h. Both formats are read: the old one (`ld.so-1.7.0`), which may have the new one
//! behind it, and the new one (`glibc-ld.so.cache1.1`), which glibc prefers. Counts and offsets are believed as far as the
//! bytes go.

use std::collections::BTreeMap;

/// The cache, by name; the entries of a name stand in the file's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cache {
    entries: BTreeMap<Vec<u8>, Vec<Entry>>,
}

/// A library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Kind of library and ABI.
    pub(super) flags: u32,
    /// Chosen only by a processor, or kernel, that has what it asks for.
    pub(super) is_special: bool,
    /// The file, as written.
    pub(super) path: Vec<u8>,
}

impl Cache {
    /// Reads a cache; none where it is of neither format, for which the loader takes it as absent.
    pub(super) fn parse(bytes: &[u8], is_little_endian: bool) -> Option<Self> {
        let word = |bytes: &[u8], at: usize| {
            let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
            let word = if is_little_endian { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
            usize::try_from(word).ok()
        };
        let (table, size, strings) = if let Some(rest) = bytes.strip_prefix(OLD_MAGIC) {
            let end = word(rest, 0)?.checked_mul(12)?.checked_add(16)?;
            match bytes.get(end.checked_next_multiple_of(8)?..).filter(|new| new.starts_with(NEW_MAGIC)) {
                Some(new) => return Self::parse(new, is_little_endian),
                None => (bytes.get(16..end)?, 12, bytes.get(end..)?),
            }
        } else if bytes.starts_with(NEW_MAGIC) {
            // The byte order is told since 2.33: 2 little, 3 big; the loader refuses the other.
            let order = *bytes.get(28)? & 3;
            if matches!((order, is_little_endian), (1, _) | (2, false) | (3, true)) {
                return None;
            }
            (bytes.get(48..word(bytes, 20)?.checked_mul(24)?.checked_add(48)?)?, 24, bytes)
        } else {
            return None;
        };
        // Cut first: every entry may point into one long string.
        let string = |at: usize| {
            let rest = strings.get(at..)?;
            Some(super::until_nul(rest.get(..PATH_BYTES).unwrap_or(rest)))
        };
        let mut cache = Self::default();
        for entry in table.chunks_exact(size) {
            let (Some(flags), Some(key), Some(value)) = (word(entry, 0), word(entry, 4), word(entry, 8)) else {
                continue;
            };
            let (Some(key), Some(path)) = (string(key), string(value)) else { continue };
            let is_special = entry.get(16..24).is_some_and(|hwcap| hwcap.iter().any(|byte| *byte != 0));
            let flags = u32::try_from(flags).unwrap_or_default();
            cache.entries.entry(key.to_vec()).or_default().push(Entry { flags, is_special, path: path.to_vec() });
        }
        Some(cache)
    }

    /// The entries of a name.
    pub(super) fn find(&self, name: &[u8]) -> &[Entry] {
        self.entries.get(name).map_or(&[], Vec::as_slice)
    }
}

/// PATH_MAX.
const PATH_BYTES: usize = 4_096;
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
pub(super) mod tests {
    use super::*;

    /// A cache of the new format: flags, hwcap, name, file.
    pub(in crate::loader) fn new_format(entries: &[(u32, u64, &str, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let base = 48 + 24 * entries.len();
        let mut put = |text: &str| {
            let at = u32::try_from(base + strings.len()).expect("small");
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        for (flags, hwcap, name, path) in entries {
            for word in [*flags, put(name), put(path), 0] {
                table.extend(word.to_le_bytes());
            }
            table.extend(hwcap.to_le_bytes());
        }
        let mut out = NEW_MAGIC.to_vec();
        out.extend(u32::try_from(entries.len()).expect("few").to_le_bytes());
        out.extend([0, 0, 0, 0, 2]);
        out.resize(48, 0);
        [out, table, strings].concat()
    }

    #[test]
    fn both_formats_are_read() {
        let new = new_format(&[(0x303, 0, "liba.so.1", "/lib/liba.so.1")]);
        let entry = Entry { flags: 0x303, is_special: false, path: b"/lib/liba.so.1".to_vec() };
        assert_eq!(Cache::parse(&new, true).expect("a cache").find(b"liba.so.1"), std::slice::from_ref(&entry));
        let mut old = OLD_MAGIC.to_vec();
        for word in [1u32, 0x303, 0, 10] {
            old.extend(word.to_le_bytes());
        }
        old.extend(b"liba.so.1\0/lib/liba.so.1\0");
        assert_eq!(Cache::parse(&old, true).expect("a cache").find(b"liba.so.1"), [entry]);
    }

    #[test]
    fn a_lying_count_or_byte_order_is_no_cache() {
        let good = new_format(&[(0x303, 0, "liba.so.1", "/lib/liba.so.1")]);
        let mut bad = good.clone();
        bad[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Cache::parse(&bad, true), None);
        let mut bad = good;
        bad[28] = 3;
        assert_eq!(Cache::parse(&bad, true), None);
        assert_eq!(Cache::parse(b"something else", true), None);
    }
}
