//! Layers to a tree: what each rule of layers does, what each hostile archive is answered with, and random layers against a
//! naive model.

#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    sync::Arc,
};

use analyzer::{Content, Error, InodeKind, Progress, Rootfs, Squashed, squash, squash_layer};
use dna::{Digest, ImagePath, Limits};
use oci::{Blob, Config, Contents, Digests, Image, Layer, LayerBody};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

/// An archive in the making.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry with its path written raw into the header, so that hostile ones pass.
    fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(body.len() as u64);
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name.iter_mut().zip(path.bytes()).for_each(|(to, byte)| *to = byte);
        gnu.linkname.iter_mut().zip(link.bytes()).for_each(|(to, byte)| *to = byte);
        header.set_cksum();
        self.0.append(&header, body).expect("in memory");
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.entry(EntryType::Regular, path, "", 0o644, body.as_bytes())
    }

    fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hard(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    /// PAX records for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = [b" ".as_slice(), key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = rest.len() + 1;
            while length.to_string().len() + rest.len() != length {
                length += 1;
            }
            body.extend_from_slice(length.to_string().as_bytes());
            body.extend_from_slice(&rest);
        }
        self.entry(EntryType::XHeader, "pax", "", 0o644, &body)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("in memory")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn layer(blob: &[u8], archive: &[u8]) -> Layer {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(blob).expect("written");
    Layer {
        digest: Digest::sha256(blob),
        media_type: String::new(),
        diff_id: Digest::sha256(archive),
        annotations: BTreeMap::new(),
        body: LayerBody::Present(Blob::new(Arc::new(file), 0, blob.len() as u64)),
    }
}

fn image(layers: Vec<Layer>) -> Image {
    Image {
        name: "test".to_owned(),
        digests: Digests::default(),
        platform: "linux/amd64".parse().expect("a platform"),
        config: Config::default(),
        contents: Contents::Layers(layers),
    }
}

fn try_squash(archives: Vec<Archive>, limits: &Limits) -> Result<Squashed, Error> {
    let layers = archives.into_iter().map(|archive| {
        let bytes = archive.bytes();
        layer(&gzip(&bytes), &bytes)
    });
    squash(&image(layers.collect()), limits, &Progress::start(limits))
}

fn squashed(archives: Vec<Archive>) -> Rootfs {
    try_squash(archives, &Limits::default()).expect("squashes").rootfs
}

/// Every path with what stands there: `/` behind a directory, `=body` of a file, `->target` of a link.
fn tree(rootfs: &Rootfs) -> Vec<String> {
    let mut lines = Vec::new();
    for found in rootfs.walk().filter(|found| !found.path.is_root()) {
        let what = match &rootfs.inode(found.inode).kind {
            InodeKind::Directory(_) => "/".to_owned(),
            InodeKind::File(_) => format!("={}", rootfs.read(found.inode, 1 << 20).expect("a body").escape_ascii()),
            InodeKind::Symlink(target) => format!("->{}", target.escape_ascii()),
            InodeKind::CharDevice { major, minor } => format!(" c{major}:{minor}"),
            InodeKind::BlockDevice { major, minor } => format!(" b{major}:{minor}"),
            InodeKind::Fifo => " p".to_owned(),
        };
        lines.push(format!("{}{what}", found.path.as_bytes().escape_ascii()));
    }
    lines
}

fn path(text: &str) -> ImagePath {
    text.parse().expect("no NUL")
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers_only() {
    let lower = || Archive::new().folder("d").file("d/a", "1").file("d/b", "1").file("x", "1");
    let one = Archive::new().file("d/.wh.a", "").file("d/.wh.nosuch", "").file(".wh..wh.plnk", "");
    assert_eq!(tree(&squashed(vec![lower(), one])), ["/d/", "/d/b=1", "/x=1"]);
    // The marker stands after the layer's own file, and spares it all the same.
    let opaque = Archive::new().file("d/new", "2").file("d/.wh..wh..opq", "");
    assert_eq!(tree(&squashed(vec![lower(), opaque])), ["/d/", "/d/new=2", "/x=1"]);
    let own = Archive::new().file("x", "2").file(".wh.x", "");
    assert_eq!(tree(&squashed(vec![lower(), own])).last().map(String::as_str), Some("/x=2"));
    let whole = Archive::new().file(".wh.d", "");
    assert_eq!(tree(&squashed(vec![lower(), whole])), ["/x=1"]);
}

#[test]
fn names_stay_inside_the_root() {
    let archive = Archive::new()
        .file("../../etc/a", "1")
        .file("/abs", "2")
        .link("up", "../../..")
        .file("up/under", "3")
        .folder("./");
    assert_eq!(tree(&squashed(vec![archive])), ["/abs=2", "/etc/", "/etc/a=1", "/under=3", "/up->../../.."]);
}

#[test]
fn a_link_as_parent_is_followed_and_as_name_replaced() {
    let lower = Archive::new().folder("usr").folder("usr/bin").link("bin", "usr/bin");
    let upper = Archive::new().file("bin/sh", "x");
    assert_eq!(tree(&squashed(vec![lower, upper])), ["/bin->usr/bin", "/usr/", "/usr/bin/", "/usr/bin/sh=x"]);
    let lower = Archive::new().file("t", "1").link("f", "t");
    assert_eq!(tree(&squashed(vec![lower, Archive::new().file("f", "2")])), ["/f=2", "/t=1"]);
}

#[test]
fn files_and_directories_replace_each_other() {
    let lower = || Archive::new().folder("d").file("d/a", "1").file("f", "1");
    assert_eq!(tree(&squashed(vec![lower(), Archive::new().file("d", "2").folder("f")])), ["/d=2", "/f/"]);
    let listed = Archive::new().entry(EntryType::Directory, "d", "", 0o1777, b"");
    let rootfs = squashed(vec![lower(), listed]);
    let meta = &rootfs.inode(rootfs.resolve(&path("/d")).expect("there").inode).meta;
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime, meta.layer), (0o1777, 7, 8, 9, 1));
    assert_eq!(tree(&rootfs), ["/d/", "/d/a=1", "/f=1"]);
}

#[test]
fn hard_links_share_their_file_across_layers() {
    let rootfs = squashed(vec![Archive::new().hard("early", "a").file("a", "1"), Archive::new().hard("b", "a")]);
    let inode = |name: &str| rootfs.resolve(&path(name)).expect("there").inode;
    assert!(inode("/a") == inode("/b") && inode("/a") == inode("/early"));
    // A new file of one name leaves the other alone.
    let rootfs = squashed(vec![Archive::new().file("a", "1").hard("b", "a"), Archive::new().file("a", "2")]);
    assert_eq!(tree(&rootfs), ["/a=2", "/b=1"]);
}

#[test]
fn every_sort_of_name_and_field_is_read() {
    let long = "d/".repeat(60) + "name";
    let archive = Archive::new()
        .entry(EntryType::GNULongName, "././@LongLink", "", 0o644, format!("{long}\0").as_bytes())
        .file("short", "1")
        .pax(&[
            ("path", b"p\xffx"),
            ("uid", b"3000000"),
            ("mtime", b"12.5"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ])
        .file("short", "2")
        .pax(&[("linkpath", b"far/away")])
        .link("l", "short")
        .entry(EntryType::Fifo, "fifo", "", 0o600, b"");
    let rootfs = squashed(vec![archive]);
    assert!(tree(&rootfs).contains(&format!("/{long}=1")) && tree(&rootfs).contains(&"/l->far/away".to_owned()));
    let odd = rootfs.resolve(&ImagePath::normalize(b"/p\xffx").expect("no NUL")).expect("there");
    let meta = &rootfs.inode(odd.inode).meta;
    assert_eq!((meta.uid, meta.mtime), (3_000_000, 12));
    assert_eq!(meta.xattrs.get(&b"security.capability"[..]).map(|value| &**value), Some(&b"\x01\0\0\x02"[..]));
}

#[test]
fn sparse_files_are_filled_in() {
    // PAX 1.0: the map in front of the body.
    let mut body = b"2\n1\n2\n6\n1\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(b"abc");
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"8"),
    ];
    let one = Archive::new()
        .pax(&records)
        .entry(EntryType::Regular, "GNUSparseFile.0/s", "", 0o644, &body)
        .file("after", "x");
    assert_eq!(tree(&squashed(vec![one])), ["/after=x", "/s=\\x00ab\\x00\\x00\\x00c\\x00"]);
    // PAX 0.1: the map in a record.
    let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"4"), ("GNU.sparse.map", b"2,2")];
    let other = Archive::new().pax(&records).file("s", "xy").file("after", "x");
    assert_eq!(tree(&squashed(vec![other])), ["/after=x", "/s=\\x00\\x00xy"]);
}

#[test]
fn a_sparse_file_of_terabytes_costs_nothing() {
    let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"99999999999"), ("GNU.sparse.map", b"99999999997,2")];
    let rootfs = squashed(vec![Archive::new().pax(&records).entry(EntryType::Regular, "s", "", 0o755, b"xy")]);
    let file = rootfs.file(rootfs.resolve(&path("/s")).expect("there").inode).expect("a file").clone();
    assert!(matches!(file.content, Content::Dropped(_)) && file.size == 99_999_999_999);
    let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"9999999999999"), ("GNU.sparse.map", b"0,2")];
    let refused = try_squash(vec![Archive::new().pax(&records).file("s", "xy")], &Limits::default());
    assert!(matches!(refused, Err(Error::Limit { limit: "layer_bytes", .. })));
}

#[test]
fn every_compression_is_told_by_its_first_bytes() {
    let archive = Archive::new().file("a", "1").bytes();
    let (head, tail) = archive.split_at(700);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("in memory");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    for blob in [
        archive.clone(),
        gzip(&archive),
        [gzip(head), gzip(tail)].concat(),
        zstd(&archive),
        [skippable.clone(), zstd(head), zstd(tail), skippable].concat(),
    ] {
        let found = squash_layer(&blob, Some(Digest::sha256(&archive)), &Limits::default()).expect("squashes");
        assert_eq!(tree(&found.rootfs), ["/a=1"]);
    }
}

#[test]
fn unreadable_layers_and_other_systems_are_unknown() {
    let mut foreign = layer(b"", b"");
    foreign.body = LayerBody::Unreadable("a foreign layer".to_owned());
    let limits = Limits::default();
    let found = squash(&image(vec![foreign]), &limits, &Progress::start(&limits)).expect("no error");
    assert_eq!(found.unknowns.first().map(|unknown| unknown.why.as_str()), Some("a foreign layer"));
    let mut windows = image(vec![]);
    windows.platform = "windows/amd64".parse().expect("a platform");
    let found = squash(&windows, &limits, &Progress::start(&limits)).expect("no error");
    assert_eq!(found.unknowns.first().map(|unknown| unknown.subject), Some(dna::Subject::Platform));
    let odd = Archive::new().entry(EntryType::new(b'Q'), "odd", "", 0o644, b"body").file("a", "1");
    let found = try_squash(vec![odd], &limits).expect("no error");
    assert_eq!((tree(&found.rootfs), found.unknowns.len()), (vec!["/a=1".to_owned()], 1));
}

#[test]
fn damaged_and_lying_layers_are_refused() {
    let limits = Limits::default();
    let archive = Archive::new().file("a", "1").bytes();
    let blob = gzip(&archive);
    let run = |layer: Layer| squash(&image(vec![layer]), &limits, &Progress::start(&limits)).map(|_| ());
    let mut wrong = layer(&blob, &archive);
    wrong.digest = Digest::sha256(b"other");
    assert!(matches!(run(wrong), Err(Error::BlobDigest { .. })));
    assert!(matches!(run(layer(&blob, b"other")), Err(Error::DiffId { .. })));
    assert!(matches!(run(layer(&blob[..blob.len() / 2], &archive)), Err(Error::Decompress { .. })));
    assert!(matches!(run(layer(&[&blob[..], b"garbage"].concat(), &archive)), Err(Error::Decompress { .. })));
    assert!(matches!(run(layer(&archive[..600], &archive[..600])), Err(Error::Archive { .. })));
    let mut spoiled = archive.clone();
    spoiled[0] ^= 1;
    assert!(matches!(
        run(layer(&spoiled, &spoiled)),
        Err(Error::Archive { reason: "header checksum does not match", .. })
    ));
    // Bytes after the end of the archive count too.
    let longer = [&archive[..], b"hidden"].concat();
    assert!(matches!(run(layer(&gzip(&longer), &archive)), Err(Error::DiffId { .. })));
}

#[test]
fn entries_that_no_runtime_can_place_are_refused() {
    for archive in [
        Archive::new().hard("a", "nosuch"),
        Archive::new().folder("d").hard("a", "d"),
        Archive::new().file("f", "").file("f/under", ""),
        Archive::new().link("a", "b").link("b", "a").file("a/x", ""),
        Archive::new().file("/", "root"),
    ] {
        assert!(matches!(try_squash(vec![archive], &Limits::default()), Err(Error::Entry { .. })));
    }
}

#[test]
fn every_limit_is_named_when_it_is_reached() {
    let zeros = "0".repeat(200 << 20);
    let limit = |limits: Limits, archive: Archive| match try_squash(vec![archive], &limits) {
        Err(Error::Limit { limit, .. }) => limit,
        other => panic!("{:?}", other.map(|_| ())),
    };
    let limits = Limits::default;
    assert_eq!(limit(Limits { layer_ratio: 20, ..limits() }, Archive::new().file("bomb", &zeros)), "layer_ratio");
    assert_eq!(limit(Limits { layer_bytes: 1 << 20, ..limits() }, Archive::new().file("bomb", &zeros)), "layer_bytes");
    assert_eq!(limit(Limits { total_bytes: 1 << 20, ..limits() }, Archive::new().file("bomb", &zeros)), "total_bytes");
    assert_eq!(
        limit(Limits { layer_entries: 1, ..limits() }, Archive::new().file("a", "").file("b", "")),
        "layer_entries"
    );
    assert_eq!(
        limit(Limits { total_entries: 1, ..limits() }, Archive::new().file("a", "").file("b", "")),
        "total_entries"
    );
    assert_eq!(limit(Limits { path_bytes: 5, ..limits() }, Archive::new().file("a/long/name", "")), "path_bytes");
    assert_eq!(limit(Limits { path_depth: 2, ..limits() }, Archive::new().file("a/b/c", "")), "path_depth");
    let huge = Archive::new().entry(EntryType::GNULongName, "x", "", 0o644, zeros.as_bytes());
    assert_eq!(limit(limits(), huge), "tar_header_bytes");
    assert!(matches!(
        try_squash(vec![Archive::new(), Archive::new()], &Limits { layers: 1, ..limits() }),
        Err(Error::Layers { .. })
    ));
    let late = Limits { analysis_seconds: 0, ..limits() };
    let progress = Progress::start(&late);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let bytes = Archive::new().file("a", "").bytes();
    assert!(matches!(squash(&image(vec![layer(&bytes, &bytes)]), &late, &progress), Err(Error::Time { seconds: 0 })));
}

#[test]
fn a_folder_gives_the_tree_of_its_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("d")).expect("made");
    std::fs::write(at("d/a"), "1").expect("written");
    std::fs::hard_link(at("d/a"), at("b")).expect("linked");
    std::os::unix::fs::symlink("/etc/passwd", at("l")).expect("linked");
    let mut opened = image(vec![]);
    opened.contents = Contents::Directory(folder.path().to_path_buf());
    let limits = Limits::default();
    let rootfs = squash(&opened, &limits, &Progress::start(&limits)).expect("reads").rootfs;
    assert_eq!(tree(&rootfs), ["/b=1", "/d/", "/d/a=1", "/l->/etc/passwd"]);
    let inode = |name: &str| rootfs.resolve(&path(name)).expect("there").inode;
    assert_eq!(inode("/b"), inode("/d/a"));
}

/// One random entry: what it is, and where.
#[derive(Debug, Clone)]
enum Step {
    File(String, u8),
    Folder(String),
    Whiteout(String),
    Opaque(String),
}

fn step() -> impl Strategy<Value = Step> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"));
    prop_oneof![
        4 => (path.clone(), 0u8..10).prop_map(|(path, body)| Step::File(path, body)),
        3 => path.clone().prop_map(Step::Folder),
        2 => path.clone().prop_map(Step::Whiteout),
        1 => path.prop_map(Step::Opaque),
    ]
}

/// The rules, the plainest way: a map from path to body (none for a directory). `None` where a file stands in the way.
fn model(layers: &[Vec<Step>]) -> Option<BTreeMap<String, Option<u8>>> {
    let mut tree: BTreeMap<String, Option<u8>> = BTreeMap::new();
    let below = |path: &str, other: &str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    for steps in layers {
        for step in steps {
            match step {
                Step::Whiteout(path) => tree.retain(|other, _| other != path && !below(path, other)),
                Step::Opaque(path) => tree.retain(|other, _| !below(path, other)),
                _ => {}
            }
        }
        for step in steps {
            let (Step::File(path, _) | Step::Folder(path)) = step else { continue };
            let parents: Vec<String> = path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect();
            for parent in parents {
                if tree.get(&parent).is_some_and(Option::is_some) {
                    return None;
                }
                tree.insert(parent, None);
            }
            match step {
                Step::File(_, body) => {
                    tree.retain(|other, _| !below(path, other));
                    tree.insert(path.clone(), Some(*body));
                }
                _ => {
                    tree.insert(path.clone(), None);
                }
            }
        }
    }
    Some(tree)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_layers_give_the_model_s_tree(layers in prop::collection::vec(prop::collection::vec(step(), 0..8), 1..4)) {
        let archives = layers.iter().map(|steps| {
            let marker = |path: &str, name: &str| match path.rsplit_once('/') {
                Some((parent, _)) => format!("{parent}/{name}"),
                None => name.to_owned(),
            };
            steps.iter().fold(Archive::new(), |archive, step| match step {
                Step::File(path, body) => archive.file(path, &body.to_string()),
                Step::Folder(path) => archive.folder(path),
                Step::Whiteout(path) => archive.file(&marker(path, &format!(".wh.{}", path.rsplit('/').next().unwrap_or(path))), ""),
                Step::Opaque(path) => archive.file(&format!("{path}/.wh..wh..opq"), ""),
            })
        });
        let found = try_squash(archives.collect(), &Limits::default()).map(|found| tree(&found.rootfs));
        match (model(&layers), found) {
            (Some(model), Ok(found)) => {
                let want: BTreeSet<String> = model.iter().map(|(path, body)| match body {
                    Some(body) => format!("/{path}={body}"),
                    None => format!("/{path}/"),
                }).collect();
                prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), want);
            }
            (None, Err(Error::Entry { .. })) => {}
            (model, found) => prop_assert!(false, "{model:?} but {found:?}"),
        }
    }

    #[test]
    fn spoiled_archives_never_panic(at in 0usize..3000, byte in any::<u8>(), cut in 0usize..4000) {
        let mut bytes = Archive::new().pax(&[("path", b"x"), ("size", b"1")]).file("a", "1").hard("b", "a").link("l", "a").folder("d").bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let _ = squash_layer(&bytes, None, &Limits { layer_bytes: 1 << 20, ..Limits::default() });
    }
}
