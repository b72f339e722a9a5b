//! Go modules: what the Go linker writes into a program in, its modules out.
//!
//! Source: Go's `debug/buildinfo` and `runtime/debug.ParseBuildInfo`. Both forms are read: strings that follow the header (1.18 and
//! later) and pointers to strings in memory (before). Programs whose build left the information out hold no package here.

use std::collections::BTreeSet;

use super::{
    Catalog, Package, PackageKind,
    purl::Purl,
    sections::{Range, Sections},
    tree::Tree,
};
use crate::{InodeId, ReadError, Resolved};

/// What Go's linker wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoBuild {
    /// The toolchain: `go1.22.1`.
    pub toolchain: String,
    /// The main module; for a build without modules, the package that was built.
    pub main: Option<GoModule>,
    /// What it was built with; a replaced module stands as what replaced it.
    pub dependencies: Vec<GoModule>,
    /// `build` lines: `vcs.revision`, `-ldflags` … to their values.
    pub settings: Vec<(String, String)>,
}

/// A module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoModule {
    /// Its path: `github.com/x/y/v2`.
    pub path: String,
    /// Its version with the leading `v`; empty where it was built from a working copy.
    pub version: String,
}

/// The build information in `section`, the bytes of `.go.buildinfo` (or of the data segment); strings that are elsewhere in the
/// file are asked of `string`, by address of a Go string header: pointer and length, each `pointer` bytes wide.
pub fn parse_build_info(section: &[u8], mut string: impl FnMut(StringHeader) -> Option<Vec<u8>>) -> Option<GoBuild> {
    let at = find_magic(section)?;
    let blob = section.get(at..)?;
    let (pointer, flags) = (*blob.get(14)?, *blob.get(15)?);
    let (toolchain, modules) = if flags & FLAG_INLINE != 0 {
        let (toolchain, rest) = split_string(blob.get(32..)?)?;
        let modules = split_string(rest).map_or(&b""[..], |(modules, _)| modules);
        (toolchain.to_vec(), modules.to_vec())
    } else {
        let big_endian = flags & FLAG_BIG_ENDIAN != 0;
        let width = usize::from(pointer);
        let header = |at: usize| {
            let address = integer(blob.get(at..at.checked_add(width)?)?, big_endian)?;
            Some(StringHeader { address, width, big_endian })
        };
        let toolchain = string(header(16)?)?;
        (toolchain, header(16 + width).and_then(&mut string).unwrap_or_default())
    };
    let mut build = GoBuild { toolchain: printable(&toolchain), ..GoBuild::default() };
    if !build.toolchain.starts_with("go") && !build.toolchain.starts_with("devel") {
        return None;
    }
    // The text stands between two marks of 16 bytes.
    let text = modules.len().checked_sub(16).and_then(|end| modules.get(16..end)).unwrap_or_default();
    read_modules(&String::from_utf8_lossy(text), &mut build);
    Some(build)
}

/// Where a Go string header is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StringHeader {
    /// Its address.
    pub address: u64,
    /// Bytes of a pointer, 4 or 8.
    pub width: usize,
    /// Its integers are big-endian.
    pub big_endian: bool,
}

impl StringHeader {
    /// The string, of at most `max_bytes`; `memory` gives so many bytes from an address of the program.
    pub(crate) fn string(self, max_bytes: u64, memory: impl Fn(u64, u64) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let bytes = memory(self.address, (self.width as u64).checked_mul(2)?)?;
        let (address, len) = bytes.split_at_checked(self.width)?;
        let (address, len) = (integer(address, self.big_endian)?, integer(len, self.big_endian)?);
        memory(address, Some(len).filter(|len| *len <= max_bytes)?)
    }
}

/// The modules of a program.
pub(super) fn catalog(
    tree: &Tree,
    found: &Resolved,
    sections: &Sections,
    catalog: &mut Catalog,
) -> Result<(), ReadError> {
    let Some(build) = read(tree, found.inode, sections)? else { return Ok(()) };
    let place = |module: &GoModule, is_main: bool| package(tree, found, module, is_main);
    if let Some(main) = &build.main {
        catalog.packages.push(place(main, true));
    }
    catalog.packages.extend(build.dependencies.iter().map(|module| place(module, false)));
    let version = build.toolchain.split(' ').next().unwrap_or_default().to_owned();
    catalog.packages.push(place(&GoModule { path: "stdlib".to_owned(), version }, false));
    Ok(())
}

/// The build information of an ELF file, where it has any.
pub(super) fn read(tree: &Tree, inode: InodeId, sections: &Sections) -> Result<Option<GoBuild>, ReadError> {
    let (range, limit) = match sections.named(b".go.buildinfo") {
        Some(section) => (section, MAX_SECTION_BYTES),
        // Without section headers it is at the start of the data segment, on a multiple of 16.
        None if sections.is_empty() => match sections.data() {
            Some(data) => (data, SEARCHED_BYTES),
            None => return Ok(None),
        },
        None => return Ok(None),
    };
    let read = |range: Range| tree.read_range(inode, range.offset, range.len);
    let section = read(Range { len: range.len.min(limit), ..range })?;
    let string =
        |header: StringHeader| header.string(MAX_SECTION_BYTES, |address, len| read(sections.at(address, len)?).ok());
    Ok(parse_build_info(&section, string))
}

fn package(tree: &Tree, found: &Resolved, module: &GoModule, is_main: bool) -> Package {
    // The standard library's versions are Go's own: `go1.22.1`, of which its package URL has the number.
    let version = if module.path == "stdlib" { module.version.trim_start_matches("go") } else { &module.version };
    // purl-spec: golang names are lower case.
    let path = module.path.to_ascii_lowercase();
    let (namespace, name) = path.rsplit_once('/').unwrap_or(("", &path));
    Package {
        kind: PackageKind::Go,
        name: module.path.clone(),
        version: module.version.clone(),
        architecture: None,
        location: found.path.clone(),
        member: None,
        purl: Purl::new(PackageKind::Go, name, version).namespace(namespace).build(),
        licenses: BTreeSet::new(),
        layer: tree.layer(found.inode),
        files: if is_main { vec![found.path.clone()] } else { Vec::new() },
    }
}

/// Reads the lines of `runtime/debug.BuildInfo`'s text form.
fn read_modules(text: &str, build: &mut GoBuild) {
    for line in text.lines() {
        let mut fields = line.split('\t');
        let key = fields.next().unwrap_or_default();
        let path = fields.next().unwrap_or_default();
        let version = fields.next().unwrap_or_default();
        let module = || GoModule { path: path.to_owned(), version: known_version(version) };
        match key {
            // The package that was built; its module is the same where a `mod` line does not say otherwise.
            "path" if !path.is_empty() => build.main = Some(GoModule { path: path.to_owned(), version: String::new() }),
            "mod" if !path.is_empty() => build.main = Some(module()),
            "dep" if !path.is_empty() => build.dependencies.push(module()),
            "=>" if !path.is_empty() => match build.dependencies.last_mut() {
                // A folder that replaces a module has no version of its own.
                Some(last) if is_folder(path) => last.version.clear(),
                Some(last) => *last = module(),
                None => {}
            },
            "build" => {
                if let Some((name, value)) = path.split_once('=') {
                    build.settings.push((name.to_owned(), unquote(value)));
                }
            }
            _ => {}
        }
    }
    let settings = std::mem::take(&mut build.settings);
    if let Some(main) = build.main.as_mut().filter(|main| main.version.is_empty()) {
        let version = stamped_version(&settings).or_else(|| flag_version(&settings));
        main.version = version.unwrap_or_default();
    }
    build.settings = settings;
}

fn known_version(version: &str) -> String {
    if version == "(devel)" { String::new() } else { version.to_owned() }
}

fn is_folder(path: &str) -> bool {
    path.starts_with("./") || path.starts_with("../") || path.starts_with('/')
}

/// The pseudo-version of the commit that version control stamped: what `go` itself writes since 1.24. Source: Go modules
/// reference, "Pseudo-versions".
fn stamped_version(settings: &[(String, String)]) -> Option<String> {
    let get = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let revision = get("vcs.revision")?.get(..12)?;
    // RFC 3339 in UTC: `2024-02-29T12:30:00Z`.
    let digits: String = get("vcs.time")?.strip_suffix('Z')?.chars().filter(char::is_ascii_digit).collect();
    (digits.len() == 14).then(|| format!("v0.0.0-{digits}-{revision}"))
}

/// The version that the linker was told to set: `-X main.version=1.2.3`, a custom common enough to trust.
fn flag_version(settings: &[(String, String)]) -> Option<String> {
    let (_, flags) = settings.iter().find(|(name, _)| name == "-ldflags")?;
    flags.split(|char: char| char.is_whitespace() || matches!(char, '"' | '\'')).find_map(|word| {
        let (variable, value) = word.split_once('=')?;
        let variable = variable.rsplit('.').next()?.to_ascii_lowercase();
        let number = value.strip_prefix('v').unwrap_or(value);
        let parts = number.split(['.', '-', '+']).take(3);
        let is_version = parts.filter(|part| part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty()).count() == 3;
        let is_named =
            matches!(variable.as_str(), "version" | "gitversion" | "buildversion" | "gitbuildversion" | "tag");
        (is_named && is_version).then(|| format!("v{number}"))
    })
}

/// Takes Go's quoting away where a value has it.
fn unquote(value: &str) -> String {
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned()),
        Some(b'`') => value.trim_matches('`').to_owned(),
        _ => value.to_owned(),
    }
}

fn find_magic(section: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(section, MAGIC).find(|at| at.is_multiple_of(16))
}

/// A string with its length in front, as unsigned LEB128.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len: u64 = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let shift = u32::try_from(index).ok()?.checked_mul(7)?;
        len |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..)?.split_at_checked(usize::try_from(len).ok()?);
        }
    }
    None
}

fn integer(bytes: &[u8], big_endian: bool) -> Option<u64> {
    let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    matches!(bytes.len(), 4 | 8).then(|| match big_endian {
        true => bytes.iter().fold(0, fold),
        false => bytes.iter().rev().fold(0, fold),
    })
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|char| !char.is_control()).take(128).collect()
}

const MAGIC: &[u8] = b"\xff Go buildinf:";
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_INLINE: u8 = 2;

/// The largest lists of modules are below 100 KiB.
const MAX_SECTION_BYTES: u64 = 4 << 20;
/// How far into the data segment Go's own reader looks.
const SEARCHED_BYTES: u64 = 64 << 10;

/// Build information made in memory, for tests here and of programs.
#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    /// The text form of build information.
    const TEXT: &str = "path\tx.org/cmd\nmod\tx.org/Main\t(devel)\t\ndep\ta.org/b\tv1.0.0\th1:x\ndep\tc.org/d\tv2.0.0\n\
        =>\te.org/f\tv2.0.1\th1:y\ndep\tg.org/h\tv3.0.0\n=>\t./local\t\nbuild\t-ldflags=\"-s -X main.version=1.2.3\"\n";

    /// The same between its two marks.
    pub(in super::super) fn modules() -> Vec<u8> {
        [&[1; 16], TEXT.as_bytes(), &[2; 16]].concat()
    }

    /// The form since 1.18: a main module and three others, two of them replaced.
    pub(in super::super) fn inline() -> Vec<u8> {
        let mut blob = [MAGIC, &[8, FLAG_INLINE], &[0; 16]].concat();
        for part in [b"go1.22.1".as_slice(), &modules()] {
            let mut len = part.len();
            while len >= 0x80 {
                blob.push(u8::try_from(len & 0x7f).expect("7 bits") | 0x80);
                len >>= 7;
            }
            blob.push(u8::try_from(len).expect("7 bits"));
            blob.extend(part);
        }
        blob
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::{fixture::*, *};

    fn check(build: &GoBuild) {
        assert_eq!(build.toolchain, "go1.22.1");
        let main = build.main.as_ref().expect("a main module");
        assert_eq!((main.path.as_str(), main.version.as_str()), ("x.org/Main", "v1.2.3"));
        let versions: Vec<_> = build.dependencies.iter().map(|m| (m.path.as_str(), m.version.as_str())).collect();
        assert_eq!(versions, [("a.org/b", "v1.0.0"), ("e.org/f", "v2.0.1"), ("g.org/h", "")]);
    }

    #[test]
    fn strings_that_follow_the_header_are_read() {
        check(&parse_build_info(&inline(), |_| None).expect("build information"));
        let moved = [vec![0; 32], inline()].concat();
        assert!(parse_build_info(&moved, |_| None).is_some());
    }

    #[test]
    fn strings_behind_pointers_are_read() {
        for (flags, width) in [(0, 8), (FLAG_BIG_ENDIAN, 4)] {
            let number = |value: u64| match flags {
                0 => value.to_le_bytes().to_vec(),
                _ => u32::try_from(value).expect("small").to_be_bytes().to_vec(),
            };
            let blob = [MAGIC, &[width, flags], &number(0x1000), &number(0x2000)].concat();
            let build = parse_build_info(&blob, |header| {
                assert_eq!((header.width, header.big_endian), (usize::from(width), flags != 0));
                Some(if header.address == 0x1000 { b"go1.22.1".to_vec() } else { modules() })
            });
            check(&build.expect("build information"));
        }
    }

    #[test]
    fn spoiled_blobs_hold_nothing() {
        let good = inline();
        assert_eq!(parse_build_info(&good[..40], |_| None), None);
        assert_eq!(parse_build_info(&good[1..], |_| None), None);
        let mut unaligned = vec![0; 8];
        unaligned.extend(&good);
        assert_eq!(parse_build_info(&unaligned, |_| None), None);
    }

    #[test]
    fn a_build_without_modules_is_its_package() {
        let mut build = GoBuild::default();
        read_modules("path\tgo.etcd.io/etcd\nbuild\tCGO_ENABLED=1\n", &mut build);
        let expected = GoModule { path: "go.etcd.io/etcd".to_owned(), version: String::new() };
        assert_eq!((build.main, build.dependencies.len()), (Some(expected), 0));
    }

    #[test]
    fn a_commit_makes_a_pseudo_version() {
        let settings = [
            ("vcs.revision".to_owned(), "72dd0fb067f6aaaaaaaa".to_owned()),
            ("vcs.time".to_owned(), "2026-10-03T05:06:18Z".to_owned()),
        ];
        assert_eq!(stamped_version(&settings).as_deref(), Some("v0.0.0-20261003050618-72dd0fb067f6"));
    }
}
