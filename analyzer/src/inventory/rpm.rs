//! Red Hat's and SUSE's packages: rpm's database in, packages and their files out.
//!
//! ```text
//! rpmdb.sqlite ─► sqlite ─┐
//! Packages.db  ─► ndb    ─┴─► header blobs ─► header ─► packages
//! ```
//!
//! Databases of Berkeley DB (`Packages`), which distributions gave up by 2021, are not read; such a file is an unknown.

use std::collections::BTreeSet;

use dna::ImagePath;

use super::{
    Catalog, Distro, Package, PackageKind,
    purl::Purl,
    tree::{Body, Lister, Tree},
};
use crate::Resolved;

mod header;
mod ndb;
mod sqlite;

pub use header::{HeaderError, RpmRecord, parse_header};
pub use ndb::{NdbError, parse_ndb};
pub use sqlite::{SqliteError, parse_sqlite};

/// The packages that rpm knows of.
pub(super) fn catalog(tree: &Tree, distro: Option<&Distro>) -> Catalog {
    let mut catalog = Catalog::default();
    let mut lister = Lister::new(tree.rootfs);
    // One is often a link to another.
    let mut seen = BTreeSet::new();
    for (folder, (name, read)) in FOLDERS.iter().flat_map(|folder| DATABASES.iter().map(move |file| (folder, file))) {
        let path = format!("{folder}/{name}");
        let Ok(found) = tree.rootfs.resolve_from(&ImagePath::root(), path.as_bytes()) else { continue };
        if tree.rootfs.file(found.inode).is_none_or(|file| file.size == 0) || !seen.insert(found.inode) {
            continue;
        }
        if let Err(why) = read(tree, &found, &mut |blob| match parse_header(blob) {
            Ok(Some(record)) => catalog.packages.push(package(tree, &mut lister, record, distro, &found)),
            Ok(None) => {}
            Err(error) => catalog.unknown(&found.path, error),
        }) {
            catalog.unknown(&found.path, why);
        }
    }
    catalog
}

fn package(tree: &Tree, lister: &mut Lister, record: RpmRecord, distro: Option<&Distro>, found: &Resolved) -> Package {
    let (files, layer) = lister.files_and_layer(record.files.iter().map(Vec::as_slice));
    let release = format!("{}-{}", record.version, record.release);
    let epoch = record.epoch.map(|epoch| epoch.to_string());
    let purl = Purl::new(PackageKind::Rpm, &record.name, &release)
        .namespace(distro.map_or("", |distro| &distro.id))
        .qualifier("arch", record.architecture.as_deref())
        .qualifier("distro", distro.map(Distro::label).as_deref())
        .qualifier("epoch", epoch.as_deref())
        .qualifier("upstream", record.source.as_deref())
        .build();
    Package {
        kind: PackageKind::Rpm,
        name: record.name,
        version: epoch.map_or_else(|| release.clone(), |epoch| format!("{epoch}:{release}")),
        architecture: record.architecture,
        location: found.path.clone(),
        member: None,
        purl,
        licenses: record.license.into_iter().collect(),
        layer: layer.unwrap_or_else(|| tree.layer(found.inode)),
        files,
    }
}

/// Gives each header blob of a database to its last argument, or says why it cannot.
type ReadDatabase = fn(&Tree, &Resolved, &mut dyn FnMut(&[u8])) -> Result<(), String>;

fn read_sqlite(tree: &Tree, found: &Resolved, take: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let size = tree.rootfs.file(found.inode).map_or(0, |file| file.size);
    let limit = tree.limits.database_bytes;
    let size = usize::try_from(size).ok().filter(|_| size <= limit);
    let size = size.ok_or_else(|| format!("more than the limit of {limit} bytes"))?;
    parse_sqlite(Body::new(tree, found.inode), size, take).map_err(|error| error.to_string())?;
    // rpm empties its log into the database on closing; one that is not empty may hold packages.
    let log = ImagePath::normalize(&[found.path.as_bytes(), b"-wal"].concat()).map_err(|error| error.to_string())?;
    let log = tree.rootfs.resolve(&log).ok().and_then(|log| tree.rootfs.file(log.inode)).map_or(0, |file| file.size);
    if log > 0 { Err(format!("a write-ahead log of {log} bytes beside it is not read")) } else { Ok(()) }
}

fn read_ndb(tree: &Tree, found: &Resolved, take: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let bytes = tree.read_database(found.inode).map_err(|error| error.to_string())?;
    parse_ndb(&bytes, take).map_err(|error| error.to_string())
}

fn refuse_berkeley(_: &Tree, _: &Resolved, _: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    Err("rpm database in Berkeley DB form, which is not read".to_owned())
}

/// Where `%_dbpath` is: rpm's own default, SUSE's and Fedora's since 36, and that of images made by ostree.
const FOLDERS: [&str; 3] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm"];

const DATABASES: [(&str, ReadDatabase); 3] =
    [("rpmdb.sqlite", read_sqlite), ("Packages.db", read_ndb), ("Packages", refuse_berkeley)];

/// Databases made in memory, for tests here and of all catalogs.
#[cfg(test)]
pub(super) mod fixture {
    use super::{header, ndb};
    pub(in super::super) use header::fixture::header;
    pub(in super::super) use ndb::fixture::database as ndb;

    /// An `rpmdb.sqlite` with these blobs.
    pub(in super::super) fn sqlite(blobs: &[Vec<u8>]) -> Vec<u8> {
        super::sqlite::fixture::database(super::sqlite::fixture::RPM_TABLE, blobs)
    }
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::*;
    use crate::{Inventory, Rootfs, inventory::inventory};

    fn found(path: &str, database: Vec<u8>) -> Inventory {
        let mut root = Rootfs::default();
        root.put_file("/etc/os-release", 0o644, "ID=fedora\nVERSION_ID=40\n");
        root.put_file("/usr/bin/zlib", 0o755, "");
        root.put_file(path, 0o644, database);
        inventory(&root, &Limits::default())
    }

    #[test]
    fn both_databases_give_the_same() {
        let blobs = [fixture::header("zlib"), fixture::header("gpg-pubkey")];
        let sqlite = fixture::sqlite(&blobs);
        let ndb = fixture::ndb(&blobs);
        for found in [found("/var/lib/rpm/rpmdb.sqlite", sqlite), found("/usr/lib/sysimage/rpm/Packages.db", ndb)] {
            assert_eq!((found.packages.len(), found.unknowns.len()), (1, 0));
            let owner = found.owner(&"/usr/bin/zlib".parse().expect("no NUL")).expect("an owner");
            assert_eq!(owner.version, "3:1.0-2");
            let purl = "pkg:rpm/fedora/zlib@1.0-2?arch=x86_64&distro=fedora-40&epoch=3&upstream=zlib-1.0-2.src.rpm";
            assert_eq!(owner.purl, purl);
        }
    }

    #[test]
    fn berkeley_db_is_unknown() {
        let found = found("/var/lib/rpm/Packages", vec![0; 4096]);
        assert!(found.unknowns.first().is_some_and(|unknown| unknown.why.contains("Berkeley DB")));
    }

    #[test]
    fn one_spoiled_header_does_not_hide_the_others() {
        let found = found("/var/lib/rpm/Packages.db", fixture::ndb(&[vec![1; 40], fixture::header("zlib")]));
        assert_eq!((found.packages.len(), found.unknowns.len()), (1, 1));
    }
}
