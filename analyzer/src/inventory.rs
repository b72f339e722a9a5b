//! What is installed: the packages of an image, and which of them owns a file.
//!
//! In: the root file system. Out: an [`Inventory`], sorted, the same for equal input. Each catalog below knows one kind of
//! database and nothing of layers or registries; what one cannot read becomes an unknown, and the others go on. Versions are
//! taken as the databases state them; nothing is guessed from the contents of programs.
//!
//! ```text
//! Rootfs ─► Tree ─┬─ dpkg, apk, rpm                               the distribution's packages
//!                 ├─ python, npm, java, gem, composer, nuget      what languages' package managers put there
//!                 ├─ binary: golang, cargo                        what compilers wrote into programs
//!                 └─► a Catalog each ─► merge ─► Inventory
//! ```

use std::collections::{BTreeSet, HashMap};

use dna::{ImagePath, Limits, Subject, Unknown};

use crate::Rootfs;

mod apk;
mod binary;
mod cargo;
mod composer;
mod deb822;
mod distro;
mod dpkg;
mod gem;
mod golang;
mod java;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod mutations;
mod npm;
mod nuget;
mod package;
mod purl;
mod python;
mod rpm;
mod sections;
mod tree;

pub use distro::Distro;
pub use package::{Package, PackageKind};

pub(crate) use purl::Purl;
use tree::Tree;

/// The parsers, each over the bytes of one file and total: no bytes make one panic, loop or take more memory than a small
/// multiple of them. Open for fuzzing and for those who hold a database but no image.
pub mod formats {
    pub use super::{
        apk::{ApkRecord, parse_installed},
        cargo::{CrateRecord, parse_auditable},
        composer::{ComposerRecord, parse_installed_json},
        distro::parse as parse_os_release,
        dpkg::{DebRecord, parse_copyright, parse_status},
        gem::{GemRecord, parse_gemspec},
        golang::{GoBuild, GoModule, StringHeader, parse_build_info},
        java::{JavaContents, JavaRecord, parse_archive, parse_pom_properties},
        npm::{NpmRecord, parse_package_json},
        nuget::{NugetRecord, parse_deps_json},
        python::{PythonRecord, parse_metadata},
        rpm::{HeaderError, NdbError, RpmRecord, SqliteError, parse_header, parse_ndb, parse_sqlite},
    };
}

/// The packages of an image.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The distribution, where the image says.
    pub distro: Option<Distro>,
    /// The packages, sorted by kind, name, version and place; no two are equal.
    pub packages: Vec<Package>,
    /// Databases that could not be read, sorted.
    pub unknowns: Vec<Unknown>,
    /// File to the index of its package.
    owners: HashMap<ImagePath, usize>,
}

impl Inventory {
    /// The package that owns the file at `path`, which has no symbolic link in it. A distribution's package goes before one
    /// of a language, since it is the one that updates the file.
    pub fn owner(&self, path: &ImagePath) -> Option<&Package> {
        self.packages.get(*self.owners.get(path)?)
    }
}

/// Finds the packages of `rootfs`.
pub fn inventory(rootfs: &Rootfs, limits: &Limits) -> Inventory {
    let tree = Tree::new(rootfs, limits);
    let distro = distro::read(&tree);
    let catalogs = [
        dpkg::catalog(&tree, distro.as_ref()),
        apk::catalog(&tree, distro.as_ref()),
        rpm::catalog(&tree, distro.as_ref()),
        python::catalog(&tree),
        npm::catalog(&tree),
        java::catalog(&tree),
        binary::catalog(&tree),
        gem::catalog(&tree),
        composer::catalog(&tree),
        nuget::catalog(&tree),
    ];
    merge(catalogs, distro, limits)
}

/// What one catalog found.
#[derive(Debug, Default)]
struct Catalog {
    packages: Vec<Package>,
    unknowns: Vec<Unknown>,
    /// Unknowns that were counted only.
    omitted: u64,
}

impl Catalog {
    /// Notes that `place` could not be read, so that packages may be missing.
    fn unknown(&mut self, place: impl ToString, why: impl ToString) {
        if self.unknowns.len() >= MAX_UNKNOWNS {
            self.omitted = self.omitted.saturating_add(1);
            return;
        }
        self.unknowns.push(Unknown {
            place: place.to_string(),
            subject: Subject::Packages,
            why: dna::redact(&why.to_string()).into_owned(),
        });
    }
}

fn merge(catalogs: impl IntoIterator<Item = Catalog>, distro: Option<Distro>, limits: &Limits) -> Inventory {
    let mut packages = Vec::new();
    let mut unknowns = BTreeSet::new();
    let mut omitted = 0_u64;
    for catalog in catalogs {
        packages.extend(catalog.packages.into_iter().map(Package::redacted));
        unknowns.extend(catalog.unknowns);
        omitted = omitted.saturating_add(catalog.omitted);
    }
    if omitted > 0 {
        let why = format!("{omitted} more files of packages that could not be read");
        unknowns.insert(Unknown { place: "/".to_owned(), subject: Subject::Packages, why });
    }
    packages.sort_unstable();
    packages.dedup();
    let max = usize::try_from(limits.packages).unwrap_or(usize::MAX);
    if packages.len() > max {
        let why = format!("{} packages, more than the limit of {max}", packages.len());
        unknowns.insert(Unknown { place: "/".to_owned(), subject: Subject::Packages, why });
        packages.truncate(max);
    }
    let mut owners = HashMap::new();
    // Kinds sort with the distributions' first, so the first to name a file is its owner.
    for (index, package) in packages.iter().enumerate() {
        for file in &package.files {
            if !owners.contains_key(file) {
                owners.insert(file.clone(), index);
            }
        }
    }
    Inventory { distro, packages, unknowns: unknowns.into_iter().collect(), owners }
}

/// Unknowns of one catalog that are named; a broken image has as many as files.
const MAX_UNKNOWNS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknowns_without_end_are_counted() {
        let mut root = Rootfs::default();
        for number in 0..1_005 {
            root.put_file(&format!("/{number}/package.json"), 0o644, "{");
        }
        let found = inventory(&root, &Limits::default());
        assert_eq!(found.unknowns.len(), MAX_UNKNOWNS + 1);
        assert!(found.unknowns.iter().any(|unknown| unknown.why.starts_with("5 more")));
    }
}
