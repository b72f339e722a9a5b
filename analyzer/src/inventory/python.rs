//! Python distributions: installed metadata in, packages and their files out.
//!
//! Read are `*.dist-info/METADATA` with `RECORD` and `*.egg-info` (a folder with `PKG-INFO`, or one file) with
//! `installed-files.txt`; where neither lists files, those of the modules in `top_level.txt`. Sources: PyPA specifications,
//! "Recording installed projects" and "Core metadata"; setuptools, "The internal structure of Python eggs". Wheels and eggs that
//! are still archives are not opened.

use std::collections::BTreeSet;

use dna::ImagePath;

use super::{
    Catalog, Package, PackageKind,
    deb822::stanzas,
    purl::Purl,
    tree::{Lister, Tree},
};
use crate::{InodeKind, Resolved};

/// A distribution as its metadata tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonRecord {
    /// `Name`, normalized as PyPA's "Names and normalization" says: the form that names are compared in.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `License-Expression`, else `License` where it is one line, else the license classifiers' last parts.
    pub licenses: BTreeSet<String>,
}

/// The distribution a `METADATA` or `PKG-INFO` file is about; `None` without name or version.
pub fn parse_metadata(bytes: &[u8]) -> Option<PythonRecord> {
    // The body after the first empty line is a description.
    let headers = stanzas(bytes).next()?;
    let one_line = |name| headers.text(name).filter(|text| !text.contains('\n') && text != "UNKNOWN");
    let mut licenses: BTreeSet<_> =
        one_line("License-Expression").or_else(|| one_line("License")).into_iter().collect();
    if licenses.is_empty() {
        let classifiers = headers.all("Classifier").map(String::from_utf8_lossy);
        licenses = classifiers
            .filter_map(|text| text.strip_prefix("License :: ").map(str::to_owned))
            .filter_map(|text| text.rsplit(" :: ").next().map(str::to_owned))
            .filter(|text| text != "OSI Approved")
            .collect();
    }
    let name = normalize(&headers.text("Name")?);
    Some(PythonRecord { name, version: headers.text("Version")?, licenses })
}

/// The distributions installed.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    let mut lister = Lister::new(tree.rootfs);
    for found in &tree.files {
        let Some(metadata) = Metadata::of(&found.path) else { continue };
        let bytes = match tree.read_text(found.inode) {
            Ok(bytes) => bytes,
            Err(error) => {
                catalog.unknown(&found.path, error);
                continue;
            }
        };
        let Some(record) = parse_metadata(&bytes) else {
            catalog.unknown(&found.path, "metadata without name or version");
            continue;
        };
        let mut files = files(tree, &mut lister, &metadata);
        if let Err(at) = files.binary_search(&found.path) {
            files.insert(at, found.path.clone());
        }
        catalog.packages.push(Package {
            kind: PackageKind::Python,
            purl: Purl::new(PackageKind::Python, &record.name, &record.version).build(),
            name: record.name,
            version: record.version,
            architecture: None,
            location: found.path.clone(),
            member: None,
            licenses: record.licenses,
            layer: tree.layer(found.inode),
            files,
        });
    }
    catalog
}

/// Where a distribution's records are.
struct Metadata {
    /// The folder of the metadata; `None` where that is a single file.
    records: Option<ImagePath>,
    /// The folder modules are imported from.
    site: ImagePath,
}

impl Metadata {
    fn of(path: &ImagePath) -> Option<Self> {
        let ends_with = |name: &[u8], end: &[u8]| {
            name.len().checked_sub(end.len()).and_then(|at| name.get(at..)).is_some_and(|e| e.eq_ignore_ascii_case(end))
        };
        let name = path.file_name();
        if !matches!(name, b"METADATA" | b"PKG-INFO") {
            let single = ends_with(name, b".egg-info");
            return single.then(|| path.parent().map(|site| Self { records: None, site })).flatten();
        }
        let records = path.parent()?;
        let end: &[u8] = if name == b"METADATA" { b"dist-info" } else { b"egg-info" };
        let site = records.parent()?;
        ends_with(records.file_name(), end).then_some(Self { records: Some(records), site })
    }
}

fn files(tree: &Tree, lister: &mut Lister, metadata: &Metadata) -> Vec<ImagePath> {
    let Some(records) = &metadata.records else { return Vec::new() };
    let read = |name: &[u8]| {
        let path = records.join(name).ok()?;
        tree.read_at(&path).ok()
    };
    let absolute = |base: &ImagePath, names: Vec<Vec<u8>>| -> Vec<ImagePath> {
        names.iter().filter(|name| !name.is_empty()).filter_map(|name| base.join(name).ok()).collect()
    };
    let listed = if let Some(record) = read(b"RECORD") {
        absolute(&metadata.site, lines(&record).map(first_field).collect())
    } else if let Some(installed) = read(b"installed-files.txt") {
        absolute(records, lines(&installed).map(<[u8]>::to_vec).collect())
    } else {
        let modules = read(b"top_level.txt").unwrap_or_default();
        let mut paths = Vec::new();
        for module in lines(&modules).collect::<BTreeSet<_>>() {
            module_files(tree, &metadata.site, module, &mut paths);
        }
        paths
    };
    lister.files(listed.iter().map(ImagePath::as_bytes))
}

/// The files of the module `name` in `site`: `name.py`, or all below the folder `name`.
fn module_files(tree: &Tree, site: &ImagePath, name: &[u8], paths: &mut Vec<ImagePath>) {
    paths.extend(site.join(&[name, b".py"].concat()).ok());
    let Some(folder) = site.join(name).ok().filter(|folder| folder != site && folder.starts_with(site)) else { return };
    let Ok(found) = tree.rootfs.lookup(&folder) else { return };
    let mut ahead = vec![found];
    while let Some(Resolved { path, inode }) = ahead.pop() {
        // Many eggs may claim one folder.
        if tree.charge(path.as_bytes().len() as u64).is_err() {
            return;
        }
        if matches!(tree.rootfs.inode(inode).kind, InodeKind::Directory(_)) {
            let below = tree.rootfs.children(inode);
            ahead.extend(below.filter_map(|(name, inode)| Some(Resolved { path: path.join(name).ok()?, inode })));
        } else {
            paths.push(path);
        }
    }
}

/// The first field of a line of comma-separated values (RFC 4180): quotes doubled inside quotes.
fn first_field(line: &[u8]) -> Vec<u8> {
    let Some(quoted) = line.strip_prefix(b"\"") else {
        return line.split(|byte| *byte == b',').next().unwrap_or_default().to_vec();
    };
    let mut field = Vec::new();
    let mut bytes = quoted.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if bytes.peek() == Some(&b'"') => field.extend(bytes.next()),
            b'"' => break,
            byte => field.push(byte),
        }
    }
    field
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Lower case, runs of `-`, `_` and `.` as one `-`.
fn normalize(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for char in name.trim().chars() {
        match char {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            char => normal.push(char.to_ascii_lowercase()),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::*;
    use crate::{Rootfs, inventory::inventory};

    fn owner(root: &Rootfs, path: &str) -> Option<String> {
        let found = inventory(root, &Limits::default());
        found.owner(&path.parse().expect("no NUL")).map(|package| package.purl.clone())
    }

    #[test]
    fn a_wheel_owns_what_its_record_lists() {
        let mut root = Rootfs::default();
        let site = "/usr/lib/python3/site-packages";
        root.put_file("/usr/bin/flask", 0o755, "");
        root.put_file(&format!("{site}/flask/a,b.py"), 0o644, "");
        root.put_file(
            &format!("{site}/Flask-3.0.dist-info/METADATA"),
            0o644,
            "Name: Flask_X\nVersion: 3.0\n\nName: no\n",
        );
        let record = "../../../bin/flask,sha256=x,1\n\"flask/a,b.py\",,\nFlask-3.0.dist-info/RECORD,,\n";
        root.put_file(&format!("{site}/Flask-3.0.dist-info/RECORD"), 0o644, record);
        assert_eq!(owner(&root, "/usr/bin/flask").as_deref(), Some("pkg:pypi/flask-x@3.0"));
        assert_eq!(owner(&root, &format!("{site}/flask/a,b.py")).as_deref(), Some("pkg:pypi/flask-x@3.0"));
    }

    #[test]
    fn an_egg_owns_its_top_level_modules() {
        let mut root = Rootfs::default();
        root.put_file("/s/click/core/a.py", 0o644, "");
        root.put_file("/s/six.py", 0o644, "");
        root.put_file("/s/click.egg-info/PKG-INFO", 0o644, "Metadata-Version: 2.1\nName: click\nVersion: 8\n");
        root.put_file("/s/click.egg-info/top_level.txt", 0o644, "click\n..\n/\n");
        root.put_file("/s/six-1.egg-info", 0o644, "Name: six\nVersion: 1\n");
        assert_eq!(owner(&root, "/s/click/core/a.py").as_deref(), Some("pkg:pypi/click@8"));
        assert_eq!(owner(&root, "/s/six.py"), None, "a single file lists nothing");
        assert_eq!(inventory(&root, &Limits::default()).packages.len(), 2);
    }

    #[test]
    fn metadata_without_a_version_is_unknown() {
        let mut root = Rootfs::default();
        root.put_file("/s/x.dist-info/METADATA", 0o644, "Name: x\n");
        let found = inventory(&root, &Limits::default());
        assert!(found.packages.is_empty() && found.unknowns.len() == 1);
    }

    #[test]
    fn an_expression_goes_before_classifiers() {
        let licenses = |text: &str| -> Vec<String> {
            let text = format!("Name: x\nVersion: 1\n{text}");
            parse_metadata(text.as_bytes()).expect("complete").licenses.into_iter().collect()
        };
        let classifier = "Classifier: License :: OSI Approved :: MIT License\n";
        assert_eq!(licenses(&format!("License-Expression: MIT\n{classifier}")), ["MIT"]);
        assert_eq!(licenses(classifier), ["MIT License"]);
        assert_eq!(licenses(&format!("License: UNKNOWN\n{classifier}")), ["MIT License"]);
    }
}
