//! Go's build information: the bytes of `.go.buildinfo` in, toolchain and modules out.
//!
//! Source: Go's `debug/buildinfo`. Since 1.18 the strings follow the header; before, it points to strings in memory.

/// What Go's linker wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoBuildInfo {
    /// `go1.22.1`.
    pub go_version: String,
    /// The package that was built.
    pub path: String,
    /// Its module; empty for a build without modules.
    pub main: GoModule,
}

/// A module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoModule {
    /// `github.com/x/y/v2`.
    pub path: String,
    /// `v2.0.1`, or `(devel)`.
    pub version: String,
}

/// Reads the build information in `blob`; `memory` gives at most so many bytes from an address of the program.
pub(crate) fn go_buildinfo(blob: &[u8], memory: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Option<GoBuildInfo> {
    let at = memchr::memmem::find_iter(blob, MAGIC).find(|at| at % 16 == 0)?;
    let blob = blob.get(at..)?;
    let (width, flags) = (usize::from(*blob.get(14)?), *blob.get(15)?);
    let (version, modules) = if flags & 2 != 0 {
        let (version, rest) = inline(blob.get(32..)?)?;
        (version.to_vec(), inline(rest).map(|(modules, _)| modules.to_vec()).unwrap_or_default())
    } else {
        let is_big = flags & 1 != 0;
        let pointer = |at: usize| integer(blob.get(at..at.checked_add(width)?)?, is_big);
        let string = |at: usize| {
            let header = memory(pointer(at)?, (width as u64).checked_mul(2)?)?;
            let (data, len) = header.split_at_checked(width)?;
            let len = integer(len, is_big).filter(|len| *len <= STRING_BYTES)?;
            memory(integer(data, is_big)?, len)
        };
        (string(16)?, string(16usize.checked_add(width)?).unwrap_or_default())
    };
    let go_version =
        String::from_utf8(version).ok().filter(|text| text.starts_with("go") || text.starts_with("devel"))?;
    let mut info = GoBuildInfo { go_version, ..GoBuildInfo::default() };
    // The text stands between two marks of 16 bytes.
    let text = modules.len().checked_sub(16).and_then(|end| modules.get(16..end)).unwrap_or_default();
    for line in String::from_utf8_lossy(text).lines() {
        let mut fields = line.split('\t');
        match fields.next() {
            Some("path") => fields.next().unwrap_or_default().clone_into(&mut info.path),
            Some("mod") => {
                let mut field = || fields.next().unwrap_or_default().to_owned();
                info.main = GoModule { path: field(), version: field() };
            }
            _ => {}
        }
    }
    Some(info)
}

/// A string after its length as a variable-length integer.
fn inline(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut len, mut shift) = (0u64, 0u32);
    for (at, byte) in bytes.iter().enumerate().take(9) {
        len |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift = shift.checked_add(7)?;
        if byte & 0x80 == 0 {
            return bytes.get(at.checked_add(1)?..)?.split_at_checked(usize::try_from(len).ok()?);
        }
    }
    None
}

fn integer(bytes: &[u8], is_big: bool) -> Option<u64> {
    let fold = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    match bytes.len() {
        4 | 8 if is_big => Some(bytes.iter().fold(0, fold)),
        4 | 8 => Some(bytes.iter().rev().fold(0, fold)),
        _ => None,
    }
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
const STRING_BYTES: u64 = 1 << 20;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;

    fn blob(flags: u8) -> Vec<u8> {
        let mut blob = MAGIC.to_vec();
        blob.extend([8, flags]);
        blob.resize(32, 0);
        blob
    }

    fn modules() -> Vec<u8> {
        [&[b'<'; 16][..], b"path\texample.org/a/cmd\nmod\texample.org/a\tv1.2.3\th1:x=\n", &[b'>'; 16]].concat()
    }

    #[test]
    fn inline_strings_give_toolchain_and_module() {
        let mut bytes = blob(2);
        for text in [b"go1.22.1".to_vec(), modules()] {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend(text);
        }
        let info = go_buildinfo(&bytes, |_, _| None).expect("build information");
        assert_eq!((info.go_version.as_str(), info.path.as_str()), ("go1.22.1", "example.org/a/cmd"));
        assert_eq!(info.main, GoModule { path: "example.org/a".to_owned(), version: "v1.2.3".to_owned() });
    }

    #[test]
    fn pointers_are_followed_into_memory() {
        let mut bytes = blob(0);
        bytes[16..24].copy_from_slice(&100u64.to_le_bytes());
        let mut memory = [0; 200];
        memory[100..108].copy_from_slice(&150u64.to_le_bytes());
        memory[108..116].copy_from_slice(&6u64.to_le_bytes());
        memory[150..156].copy_from_slice(b"go1.17");
        let read = |at: u64, len: u64| {
            let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
            memory.get(at..at.checked_add(len)?).map(<[u8]>::to_vec)
        };
        assert_eq!(go_buildinfo(&bytes, read).expect("build information").go_version, "go1.17");
    }

    #[test]
    fn a_length_beyond_the_blob_is_refused() {
        let mut bytes = blob(2);
        bytes.extend([0xff, 0xff, 0x7f]);
        assert_eq!(go_buildinfo(&bytes, |_, _| None), None);
    }
}
