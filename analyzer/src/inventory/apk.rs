//! Alpine's packages: apk's database in, packages and their files out.
//!
//! Source: apk-tools, `apk-v2(5)` and `apk_db_fdb_read`: a stanza per package of lines `X:value`, `F:` a folder, `R:` a file in
//! it. The format's newer revision (apk 3) keeps the same text for what is installed.

use std::collections::BTreeSet;

use super::{
    Catalog, Distro, Package, PackageKind,
    purl::Purl,
    tree::{Lister, Tree},
};

/// A package as its stanza tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApkRecord {
    /// `P:`.
    pub name: String,
    /// `V:`.
    pub version: String,
    /// `A:`.
    pub architecture: String,
    /// `L:`, an SPDX expression for most.
    pub license: String,
    /// `o:`, the package it was built from.
    pub origin: String,
    /// `F:` and `R:`: files by folder, relative to the root.
    pub files: Vec<Vec<u8>>,
}

/// The packages of an `installed` file. A stanza without name or version is passed over.
pub fn parse_installed(bytes: &[u8]) -> Vec<ApkRecord> {
    let mut records = Vec::new();
    let mut record = ApkRecord::default();
    let mut folder: &[u8] = b"";
    for line in bytes.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        if line.is_empty() {
            let record = std::mem::take(&mut record);
            folder = b"";
            if !record.name.is_empty() && !record.version.is_empty() {
                records.push(record);
            }
            continue;
        }
        let Some((key, value)) = line.split_at_checked(2) else { continue };
        let text = || String::from_utf8_lossy(value).into_owned();
        match key {
            b"P:" => record.name = text(),
            b"V:" => record.version = text(),
            b"A:" => record.architecture = text(),
            b"L:" => record.license = text(),
            b"o:" => record.origin = text(),
            b"F:" => folder = value,
            b"R:" => record.files.push([folder, b"/", value].concat()),
            _ => {}
        }
    }
    records
}

/// The packages that apk knows of.
pub(super) fn catalog(tree: &Tree, distro: Option<&Distro>) -> Catalog {
    let mut catalog = Catalog::default();
    let mut lister = Lister::new(tree.rootfs);
    // apk 3 moved the database; a merged /usr may show one file under both names.
    let mut databases = Vec::new();
    for path in ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"] {
        let Some((found, body)) = tree.database(path) else { continue };
        if databases.contains(&found) {
            continue;
        }
        match body {
            Ok(bytes) => {
                for record in parse_installed(&bytes) {
                    let (files, layer) = lister.files_and_layer(record.files.iter().map(Vec::as_slice));
                    let upstream = Some(record.origin.as_str()).filter(|origin| *origin != record.name);
                    let purl = Purl::new(PackageKind::Apk, &record.name, &record.version)
                        .namespace(distro.map_or("alpine", |distro| &distro.id))
                        .qualifier("arch", Some(&record.architecture))
                        .qualifier("distro", distro.map(Distro::label).as_deref())
                        .qualifier("upstream", upstream)
                        .build();
                    catalog.packages.push(Package {
                        kind: PackageKind::Apk,
                        name: record.name,
                        version: record.version,
                        architecture: Some(record.architecture).filter(|text| !text.is_empty()),
                        location: found.path.clone(),
                        member: None,
                        purl,
                        licenses: Some(record.license)
                            .filter(|text| !text.is_empty())
                            .into_iter()
                            .collect::<BTreeSet<_>>(),
                        layer: layer.unwrap_or_else(|| tree.layer(found.inode)),
                        files,
                    });
                }
            }
            Err(error) => catalog.unknown(&found.path, error),
        }
        databases.push(found);
    }
    catalog
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use crate::{Rootfs, inventory::inventory};

    const INSTALLED: &str = "\
C:Q1abc=
P:busybox
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
o:busybox
F:bin
M:0:0:755
R:busybox
a:0:0:755
Z:Q1def=
F:etc

P:ssl_client
V:1.36.1-r5
A:x86_64
L:GPL-2.0-only
o:busybox
F:usr/bin
R:ssl_client

P:nameless-version
";

    #[test]
    fn stanzas_give_packages_and_their_files() {
        let mut root = Rootfs::default();
        root.put_file("/etc/os-release", 0o644, "ID=alpine\nVERSION_ID=3.19.1\n");
        root.put_file("/lib/apk/db/installed", 0o644, INSTALLED);
        root.put_file("/bin/busybox", 0o755, "");
        let found = inventory(&root, &Limits::default());
        let purls: Vec<_> = found.packages.iter().map(|p| p.purl.as_str()).collect();
        assert_eq!(
            purls,
            [
                "pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64&distro=alpine-3.19.1",
                "pkg:apk/alpine/ssl_client@1.36.1-r5?arch=x86_64&distro=alpine-3.19.1&upstream=busybox",
            ]
        );
        let owner = found.owner(&"/bin/busybox".parse().expect("no NUL"));
        assert_eq!(owner.map(|package| package.name.as_str()), Some("busybox"));
    }

    #[test]
    fn the_layer_is_that_of_most_files() {
        let mut root = Rootfs::default();
        root.put_file("/lib/apk/db/installed", 0o644, "P:a\nV:1\nF:x\nR:1\nR:2\nR:3\nR:4\n\nP:b\nV:1\n");
        for (name, layer) in [("1", 0), ("2", 1), ("3", 1), ("4", 2), ("5", 9)] {
            let file = root.put_file(&format!("/x/{name}"), 0o644, "");
            root.inode_mut(file).meta.layer = layer;
        }
        let database = root.resolve(&"/lib/apk/db/installed".parse().expect("no NUL")).expect("exists");
        root.inode_mut(database.inode).meta.layer = 3;
        let found = inventory(&root, &Limits::default());
        assert_eq!(found.packages.iter().map(|package| package.layer).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_merged_usr_shows_one_database() {
        let mut root = Rootfs::default();
        root.put_link("/lib", "usr/lib");
        root.put_file("/usr/lib/apk/db/installed", 0o644, INSTALLED);
        assert_eq!(inventory(&root, &Limits::default()).packages.len(), 2);
    }
}
