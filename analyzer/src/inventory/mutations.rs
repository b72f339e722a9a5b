//! Spoiled databases: valid inputs of every parser, changed at random, must never make one panic; nor a tree that holds them.

use std::io::Cursor;

use dna::Limits;
use proptest::{prelude::*, sample::Index};

use super::{cargo, formats::*, golang, inventory, rpm, sections};
use crate::Rootfs;

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    /// Four bytes that are large, small or negative as a number.
    Number(Index, u32),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at().prop_map(Change::Cut),
        (at(), any::<u8>()).prop_map(|(at, len)| Change::Remove(at, len)),
        (at(), any::<u8>()).prop_map(|(at, len)| Change::Repeat(at, len)),
        (at(), prop::sample::select(vec![0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, u32::MAX]))
            .prop_map(|(at, number)| Change::Number(at, number)),
    ]
}

fn spoil(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let size = bytes.len();
        let range = |at: &Index, len: usize| {
            let start = at.index(size);
            start..size.min(start + len)
        };
        match change {
            Change::Set(at, byte) => bytes[range(at, 1)].fill(*byte),
            Change::Flip(at, bit) => bytes[range(at, 1)].iter_mut().for_each(|byte| *byte ^= 1 << bit),
            Change::Cut(at) => bytes.truncate(at.index(size)),
            Change::Remove(at, len) => drop(bytes.drain(range(at, usize::from(*len)))),
            Change::Repeat(at, len) => {
                let part = bytes[range(at, usize::from(*len))].to_vec();
                let start = at.index(size);
                bytes.splice(start..start, part);
            }
            Change::Number(at, number) => {
                let place = range(at, 4);
                let len = place.len();
                bytes[place].copy_from_slice(&number.to_le_bytes()[..len]);
            }
        }
    }
    bytes
}

/// A valid file for every parser, by the path it is found at.
fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let headers = [rpm::fixture::header("zlib"), rpm::fixture::header("gpg-pubkey")];
    let binary = [(".go.buildinfo", golang::fixture::inline()), (".dep-v0", cargo::fixture::section())];
    let inner = zip(&[("META-INF/maven/a/b/pom.properties", b"groupId=a\nartifactId=b\nversion=1\n")]);
    vec![
        ("/etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\nNAME='x'\n".to_vec()),
        (
            "/var/lib/dpkg/status",
            b"Package: a\nStatus: install ok installed\nVersion: 1\nSource: b (2)\n x\n\n".to_vec(),
        ),
        ("/var/lib/dpkg/info/a.list", b"/.\n/bin/x\n/etc/os-release\n".to_vec()),
        ("/var/lib/dpkg/diversions", b"/bin/x\n/bin/y\nc\n".to_vec()),
        ("/var/lib/dpkg/status.d/c", b"Package: c\nVersion: 1\n".to_vec()),
        ("/var/lib/dpkg/status.d/c.md5sums", b"d41d8cd98f00b204e9800998ecf8427e  bin/x\n".to_vec()),
        ("/usr/share/doc/a/copyright", b"Format: x\n\nLicense: MIT\n text\n\nLicense: x\n".to_vec()),
        ("/lib/apk/db/installed", b"P:a\nV:1\nF:bin\nR:x\n\n".to_vec()),
        ("/var/lib/rpm/rpmdb.sqlite", rpm::fixture::sqlite(&headers)),
        ("/var/lib/rpm/Packages.db", rpm::fixture::ndb(&headers)),
        (
            "/s/x.dist-info/METADATA",
            b"Name: x\nVersion: 1\nClassifier: License :: OSI Approved :: MIT\n\nbody".to_vec(),
        ),
        ("/s/x.dist-info/RECORD", b"../bin/x,sha256=a,1\n\"a\"\"b\",,\n".to_vec()),
        ("/s/y.egg-info/PKG-INFO", b"Name: y\nVersion: 1\n".to_vec()),
        ("/s/y.egg-info/top_level.txt", b"y\n".to_vec()),
        ("/node_modules/a/package.json", br#"{"name":"@s/a","version":"1","licenses":[{"type":"MIT"}]}"#.to_vec()),
        ("/app/a.jar", zip(&[("META-INF/MANIFEST.MF", b"Implementation-Version: 1\n 2\n"), ("lib/b.jar", &inner)])),
        ("/bin/x", sections::fixture::elf(&binary)),
        ("/r/specifications/a.gemspec", b"s.name = \"a\".freeze\ns.version = \"1\"\ns.licenses = [\"MIT\"]\n".to_vec()),
        (
            "/vendor/composer/installed.json",
            br#"{"packages":[{"name":"a/b","version":"1","license":["MIT"]}]}"#.to_vec(),
        ),
        ("/app/a.deps.json", br#"{"libraries":{"A/1":{"type":"package"}}}"#.to_vec()),
    ]
}

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, body) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("memory");
        zip.write_all(body).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

#[test]
fn the_valid_tree_is_read_whole() {
    let mut root = Rootfs::default();
    for (path, bytes) in valid() {
        root.put_file(path, 0o755, bytes);
    }
    let found = inventory(&root, &Limits::default());
    assert!(found.unknowns.is_empty(), "{:?}", found.unknowns);
    let kinds: std::collections::BTreeSet<_> = found.packages.iter().map(|package| package.kind).collect();
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_spoiled_tree_never_panics(
        which in any::<Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut files = valid();
        let which = which.index(files.len());
        files[which].1 = spoil(std::mem::take(&mut files[which].1), &changes);
        let mut root = Rootfs::default();
        for (path, bytes) in files {
            root.put_file(path, 0o755, bytes);
        }
        let limits = Limits { zip_entries: 100, nested_zip_bytes: 1 << 20, ..Limits::default() };
        let found = inventory(&root, &limits);
        // What other files say is still there.
        prop_assert!(found.packages.len() >= 10, "{:?}", found.packages);
    }

    #[test]
    fn spoiled_bytes_never_panic_a_parser(
        which in any::<Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut files = valid();
        files.push(("", rpm::fixture::header("zlib")));
        files.push(("", golang::fixture::inline()));
        files.push(("", cargo::fixture::section()));
        let which = which.index(files.len());
        let bytes = spoil(files.swap_remove(which).1, &changes);
        // Every parser sees every format: none may rely on being handed its own.
        parse_os_release(&bytes);
        parse_status(&bytes);
        parse_copyright(&bytes);
        parse_installed(&bytes);
        let _ = parse_header(&bytes);
        let _ = parse_ndb(&bytes, |blob| drop(parse_header(blob)));
        let _ = parse_sqlite(bytes.as_slice(), bytes.len(), &mut |blob| drop(parse_header(blob)));
        parse_metadata(&bytes);
        let _ = parse_package_json(&bytes);
        parse_archive(Cursor::new(&bytes), "a-1.jar", &Limits::default());
        parse_pom_properties(&bytes);
        parse_build_info(&bytes, |header| Some(bytes.get(..header.width)?.to_vec()));
        let _ = parse_auditable(&bytes, 1 << 20);
        parse_gemspec(&bytes);
        let _ = parse_installed_json(&bytes);
        let _ = parse_deps_json(&bytes);
    }
}
