//! .NET packages: `*.deps.json`, which the build puts beside an application, in, packages out.
//!
//! Source: .NET, "Runtime configuration files" and `Microsoft.Extensions.DependencyModel`: `libraries` by `NAME/VERSION`, each of a type.
//! Packages and projects count; reference assemblies and the runtime's own files do not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Catalog, Package, PackageKind, purl::Purl, tree::Tree};

/// A library as a `deps.json` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NugetRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The packages and projects of a `deps.json`.
///
/// # Errors
/// What is wrong with the JSON.
pub fn parse_deps_json(bytes: &[u8]) -> Result<Vec<NugetRecord>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(default)]
        libraries: BTreeMap<String, Library>,
    }
    #[derive(Deserialize)]
    struct Library {
        #[serde(rename = "type")]
        kind: String,
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Json { libraries } = serde_json::from_slice(bytes)?;
    let counts = |library: &Library| matches!(library.kind.as_str(), "package" | "project");
    let named = libraries.into_iter().filter(|(_, library)| counts(library)).filter_map(|(key, _)| {
        let (name, version) = key.split_once('/')?;
        Some(NugetRecord { name: name.to_owned(), version: version.to_owned() })
    });
    Ok(named.collect())
}

/// The packages of the applications in the tree.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    for found in tree.files.iter().filter(|found| found.path.file_name().ends_with(b".deps.json")) {
        let records = match tree.read_text(found.inode) {
            Ok(bytes) => parse_deps_json(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match records {
            Ok(records) => catalog.packages.extend(records.into_iter().map(|record| Package {
                kind: PackageKind::Nuget,
                purl: Purl::new(PackageKind::Nuget, &record.name, &record.version).build(),
                name: record.name,
                version: record.version,
                architecture: None,
                location: found.path.clone(),
                member: None,
                licenses: BTreeSet::new(),
                layer: tree.layer(found.inode),
                files: Vec::new(),
            })),
            Err(why) => catalog.unknown(&found.path, why),
        }
    }
    catalog
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use crate::{Rootfs, inventory::inventory};

    const DEPS: &str = r#"{"runtimeTarget":{"name":".NETCoreApp,Version=v8.0"},"libraries":{
        "App/1.0.0":{"type":"project","serviceable":false},
        "Serilog/3.1.1":{"type":"package","sha512":"x"},
        "System.Private.CoreLib/8.0":{"type":"referenceassembly"}}}"#;

    #[test]
    fn packages_and_projects_count() {
        let mut root = Rootfs::default();
        root.put_file("/app/App.deps.json", 0o644, DEPS);
        let found = inventory(&root, &Limits::default());
        let packages: Vec<_> = found.packages.iter().map(|package| package.purl.as_str()).collect();
        assert_eq!(packages, ["pkg:nuget/App@1.0.0", "pkg:nuget/Serilog@3.1.1"]);
    }

    #[test]
    fn broken_json_is_unknown() {
        let mut root = Rootfs::default();
        root.put_file("/app/App.deps.json", 0o644, DEPS.replace("}}}", ""));
        let found = inventory(&root, &Limits::default());
        assert_eq!((found.packages.len(), found.unknowns.len()), (0, 1));
    }
}
