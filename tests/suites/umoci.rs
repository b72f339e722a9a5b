//! The squashed tree is byte for byte what `umoci unpack` makes of the same image: every image below `IMAGES`, one layout a
//! folder, as root.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use analyzer::{InodeKind, Progress, Rootfs};
use dna::{ImagePath, Limits};
use sha2::{Digest as _, Sha256};

/// What is compared of a file: kind with its facts, owner, mode, time; and which names share an inode.
type Tree = BTreeMap<ImagePath, String>;

fn ours(rootfs: &Rootfs) -> Tree {
    let mut first: BTreeMap<_, ImagePath> = BTreeMap::new();
    let mut tree = Tree::new();
    for found in rootfs.walk() {
        let inode = rootfs.inode(found.inode);
        let kind = match &inode.kind {
            InodeKind::File(file) => {
                let body = rootfs.read(found.inode, u64::MAX);
                let hash = body.map_or_else(|error| error.to_string(), |body| hex(&body));
                let name = first.entry(found.inode).or_insert_with(|| found.path.clone());
                format!("file {} {hash} same as {name:?}", file.size)
            }
            InodeKind::Directory(_) => "directory".to_owned(),
            InodeKind::Symlink(target) => format!("link to {}", target.escape_ascii()),
            InodeKind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
            InodeKind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
            InodeKind::Fifo => "fifo".to_owned(),
        };
        let meta = &inode.meta;
        let xattrs: Vec<_> =
            meta.xattrs.iter().map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii())).collect();
        let mode = if matches!(inode.kind, InodeKind::Symlink(_)) { 0o777 } else { meta.mode };
        tree.insert(found.path, format!("{kind} {mode:o} {}:{} {} {xattrs:?}", meta.uid, meta.gid, meta.mtime));
    }
    tree
}

fn theirs(root: &Path) -> Tree {
    let mut first: BTreeMap<u64, ImagePath> = BTreeMap::new();
    let mut tree = Tree::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(path) = ahead.pop() {
        let meta = fs::symlink_metadata(&path).expect("metadata");
        let inside =
            ImagePath::normalize(path.strip_prefix(root).expect("below").as_os_str().as_bytes()).expect("no NUL");
        let sort = meta.file_type();
        let kind = if sort.is_dir() {
            ahead.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            "directory".to_owned()
        } else if sort.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("a link").as_os_str().as_bytes().escape_ascii())
        } else if sort.is_file() {
            let hash = hex(&fs::read(&path).expect("a file"));
            first.entry(meta.ino()).or_insert_with(|| inside.clone());
            format!("file {} {hash} inode {}", meta.len(), meta.ino())
        } else {
            let major = (meta.rdev() >> 8) & 0xfff;
            let minor = (meta.rdev() & 0xff) | ((meta.rdev() >> 12) & 0xfff00);
            match std::os::unix::fs::FileTypeExt::is_char_device(&sort) {
                true => format!("character device {major}:{minor}"),
                false if std::os::unix::fs::FileTypeExt::is_fifo(&sort) => "fifo".to_owned(),
                false => format!("block device {major}:{minor}"),
            }
        };
        let mut names: Vec<_> = xattr::list(&path).expect("xattrs").collect();
        names.sort();
        let xattrs: Vec<_> = names
            .iter()
            .filter(|_| !sort.is_symlink())
            .map(|name| {
                let value = xattr::get(&path, name).expect("xattr").expect("there");
                format!("{}={}", name.as_bytes().escape_ascii(), value.escape_ascii())
            })
            .collect();
        let mode = if sort.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
        tree.insert(inside, format!("{kind} {mode:o} {}:{} {} {xattrs:?}", meta.uid(), meta.gid(), meta.mtime()));
    }
    // The first name of an inode in path order stands for it, as on our side.
    let mut names: BTreeMap<String, ImagePath> = BTreeMap::new();
    for (path, text) in &mut tree {
        if let Some((_, rest)) = text.split_once(" inode ") {
            let number = rest.split(' ').next().expect("a number").to_owned();
            let name = names.entry(number.clone()).or_insert_with(|| path.clone());
            *text = text.replace(&format!(" inode {number}"), &format!(" same as {name:?}"));
        }
    }
    tree
}

fn hex(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_tree_is_umoci_s() {
    let images = PathBuf::from(env::var_os("IMAGES").expect("IMAGES names the folder of image layouts: see .ci/run"));
    let limits = Limits { kept_file_bytes: u64::MAX, ..Limits::default() };
    let mut layouts: Vec<_> =
        fs::read_dir(images).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    layouts.sort();
    layouts.retain(|path| path.join("index.json").exists());
    assert!(!layouts.is_empty(), "no layout below IMAGES");
    for layout in layouts {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("copy");
        let name = layout.file_name().expect("a name").to_string_lossy().into_owned();
        let there = format!("oci:{}:truth/{name}:latest", layout.display());
        run("skopeo", &["copy", "--quiet", "--insecure-policy", &there, &format!("oci:{}:one", copy.display())]);
        let bundle = folder.path().join("bundle");
        run("umoci", &["unpack", "--image", &format!("{}:one", copy.display()), &bundle.display().to_string()]);
        let source = format!("oci:{}", layout.display()).parse().expect("a source");
        let image = oci::open(&source, &oci::Options::default()).expect("opens").remove(0);
        let squashed = analyzer::squash(&image, &limits, &Progress::start(&limits)).expect("squashes");
        assert_eq!(squashed.unknowns, [], "{name}");
        let (mut ours, mut theirs) = (ours(&squashed.rootfs), theirs(&bundle.join("rootfs")));
        // The root itself is in no layer: its time is that of the unpacking.
        ours.remove(&ImagePath::root());
        theirs.remove(&ImagePath::root());
        let wrong: Vec<_> =
            ours.keys().chain(theirs.keys()).filter(|path| ours.get(*path) != theirs.get(*path)).collect();
        let first = wrong.first().map(|path| (path, ours.get(*path), theirs.get(*path)));
        assert!(wrong.is_empty(), "{name}: {} paths differ, the first: {first:#?}", wrong.len());
        println!("{name:16} {:>6} paths, the same tree", ours.len());
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
