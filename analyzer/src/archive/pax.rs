//! PAX records (POSIX.1-2024, pax, "Extended Header"): `LENGTH KEY=VALUE\n` each, in; overrides of header fields, out.

use std::{collections::BTreeMap, io::BufRead};

use super::{
    Fault,
    sparse::{self, Map},
};

/// What extension headers say of the next entry. An absent field leaves the header's own.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Box<[u8]>>,
    pub(super) link: Option<Box<[u8]>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    /// Extended attributes by full name. Only SCHILY's records count, as in Go; runtimes read no others.
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// The true name of a file in the sparse format 1.0, whose header has a made-up one.
    pub(super) sparse_name: Option<Box<[u8]>>,
    sparse: Sparse,
}

#[derive(Debug, Default)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    /// Offsets and lengths, in turn.
    numbers: Vec<u64>,
}

impl Overrides {
    /// Reads the records of one extended header; later ones win.
    pub(super) fn add_pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let length =
                records.get(..space).and_then(decimal).and_then(|n| usize::try_from(n).ok()).ok_or(MALFORMED)?;
            let start = space.checked_add(1).ok_or(MALFORMED)?;
            let record = records.get(start..length).and_then(|r| r.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (record.get(..equals), record.get(equals.saturating_add(1)..));
            self.set(key.unwrap_or_default(), value.unwrap_or_default())?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes a record back; for an attribute it is a value like any other.
        let bytes = || (!value.is_empty()).then(|| Box::from(value));
        let number = || match value {
            b"" => Ok(None),
            value => decimal(value).map(Some).ok_or("a number in a PAX record is malformed"),
        };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = seconds(value)?,
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse_name = bytes(),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.extend(number()?),
            b"GNU.sparse.map" => {
                self.sparse.numbers =
                    value.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>().ok_or(MALFORMED)?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.into(), value.into());
                }
            }
        }
        Ok(())
    }

    /// The sparse map of the next body of `stored` bytes, where these records make it a sparse one. In format 1.0 the map
    /// stands in front of the body and is read from there.
    pub(super) fn take_sparse<R: BufRead>(&mut self, input: &mut R, stored: u64) -> Result<Option<Map>, Fault> {
        let Sparse { major, minor, size, numbers } = std::mem::take(&mut self.sparse);
        match (major, minor) {
            (Some(1), Some(0)) => {
                let size = size.ok_or(Fault::Bad("a sparse file without its size"))?;
                sparse::read_pax(input, size, stored).map(Some)
            }
            _ if !numbers.is_empty() => {
                let size = size.ok_or(Fault::Bad("a sparse file without its size"))?;
                Map::new(&numbers, size, stored).map(Some)
            }
            _ => Ok(None),
        }
    }
}

const MALFORMED: &str = "a PAX record is malformed";

/// A decimal number without sign.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whole seconds of a time such as `1700000000.123456789` or `-1.5`, rounded down.
fn seconds(value: &[u8]) -> Result<Option<i64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().and_then(decimal).and_then(|n| i64::try_from(n).ok()).ok_or("a time is malformed")?;
    let fraction = parts.next().is_some_and(|rest| rest.iter().any(|digit| *digit != b'0'));
    Ok(Some(if negative { whole.saturating_neg().saturating_sub(i64::from(fraction)) } else { whole }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(list: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in list {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while format!("{length}{rest}").len() != length {
                length += 1;
            }
            bytes.extend_from_slice(format!("{length}{rest}").as_bytes());
        }
        bytes
    }

    #[test]
    fn records_override_header_fields() {
        let mut found = Overrides::default();
        let list = [("path", "a=b"), ("size", "8589934592"), ("mtime", "-1.5"), ("SCHILY.xattr.user.x", "1\n2")];
        found.add_pax(&records(&list)).expect("well formed");
        assert_eq!(found.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!((found.size, found.mtime), (Some(8_589_934_592), Some(-2)));
        assert_eq!(found.xattrs.get(&b"user.x"[..]).map(|value| &**value), Some(&b"1\n2"[..]));
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut found = Overrides::default();
        found.add_pax(&records(&[("path", "x"), ("path", "")])).expect("well formed");
        assert_eq!(found.path, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [&b"x"[..], b"5 a=b", b"99 path=x\n", b"0 a=b\n", b"7 path\n", b"18446744073709551615 a=b\n"] {
            assert!(Overrides::default().add_pax(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(Overrides::default().add_pax(&records(&[("size", "-1")])).is_err());
    }
}
