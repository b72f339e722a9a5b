//! Node.js packages: `package.json` files in, packages out.
//!
//! A `package.json` with a name and a version is a package, wherever it lies: below `node_modules`, in Debian's
//! `/usr/share/nodejs`, or an application's own. A package in a folder of packages owns what is below its folder, up to the
//! next package; an application's does not, since its folder may be the root. Source: npm, "package.json". Lock files are not
//! read: they say what was wanted, not what is there.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{Catalog, Package, PackageKind, purl::Purl, tree::Tree};

/// A package as its `package.json` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpmRecord {
    /// `name`, with its scope.
    pub name: String,
    /// `version`.
    pub version: String,
    /// `license`, `licenses`: expressions or names.
    pub licenses: BTreeSet<String>,
}

/// The package a `package.json` is of; `None` where it names none, as those that only set options for a folder.
///
/// # Errors
/// What is wrong with the JSON.
pub fn parse_package_json(bytes: &[u8]) -> Result<Option<NpmRecord>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Json {
        name: Option<Value>,
        version: Option<Value>,
        license: Option<Value>,
        licenses: Option<Value>,
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let json: Json = serde_json::from_slice(bytes)?;
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    let licenses = [json.license, json.licenses].into_iter().flatten().flat_map(licenses).collect();
    Ok(text(json.name).zip(text(json.version)).map(|(name, version)| NpmRecord { name, version, licenses }))
}

/// The packages installed.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    // Folders that hold a package which owns what is below.
    let mut folders: HashMap<&[u8], usize> = HashMap::new();
    for found in tree.files.iter().filter(|found| found.path.file_name() == b"package.json") {
        let record = match tree.read_text(found.inode) {
            Ok(bytes) => parse_package_json(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(why) => {
                catalog.unknown(&found.path, why);
                continue;
            }
        };
        let folder = found.path.as_bytes().strip_suffix(b"/package.json").unwrap_or_default();
        if in_package_folder(folder) {
            folders.insert(folder, catalog.packages.len());
        }
        let (scope, name) = record.name.rsplit_once('/').unwrap_or(("", &record.name));
        catalog.packages.push(Package {
            kind: PackageKind::Npm,
            purl: Purl::new(PackageKind::Npm, name, &record.version).namespace(scope).build(),
            name: record.name,
            version: record.version,
            architecture: None,
            location: found.path.clone(),
            member: None,
            licenses: record.licenses,
            layer: tree.layer(found.inode),
            files: Vec::new(),
        });
    }
    if folders.is_empty() {
        return catalog;
    }
    let mut owners = HashMap::new();
    for found in &tree.files {
        let owner = owner_of(parent(found.path.as_bytes()), &folders, &mut owners);
        if let Some(package) = owner.and_then(|index| catalog.packages.get_mut(index)) {
            package.files.push(found.path.clone());
        }
    }
    for package in &mut catalog.packages {
        package.files.sort_unstable();
    }
    catalog
}

/// The package that owns what is in `folder`: its own, or that of the closest folder above. What was found is remembered in
/// `known`, so that no folder is asked for twice.
fn owner_of<'a>(
    folder: &'a [u8],
    packages: &HashMap<&'a [u8], usize>,
    known: &mut HashMap<&'a [u8], Option<usize>>,
) -> Option<usize> {
    let mut climbed = Vec::new();
    let mut here = folder;
    let owner = loop {
        if let Some(owner) = known.get(here) {
            break *owner;
        }
        climbed.push(here);
        if let Some(package) = packages.get(here) {
            break Some(*package);
        }
        if here.is_empty() {
            break None;
        }
        here = parent(here);
    };
    known.extend(climbed.into_iter().map(|folder| (folder, owner)));
    owner
}

/// The folder a path is in; empty for the root.
fn parent(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path).and_then(|at| path.get(..at)).unwrap_or_default()
}

/// Whether `folder` stands where package managers put packages: `node_modules/NAME`, `node_modules/@SCOPE/NAME`, and the same
/// below Debian's `nodejs`.
fn in_package_folder(folder: &[u8]) -> bool {
    let mut above = folder.rsplit(|byte| *byte == b'/').skip(1).skip_while(|part| part.starts_with(b"@"));
    matches!(above.next(), Some(b"node_modules" | b"nodejs"))
}

fn licenses(value: Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.into_iter().flat_map(licenses).collect(),
        Value::Object(mut fields) => fields.remove("type").map(licenses).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::*;
    use crate::{Rootfs, inventory::inventory};

    #[test]
    fn a_package_owns_its_folder_up_to_the_next_package() {
        let mut root = Rootfs::default();
        root.put_file("/app/package.json", 0o644, r#"{"name": "app", "version": "1.0.0", "private": true}"#);
        root.put_file("/app/index.js", 0o644, "");
        root.put_file(
            "/app/node_modules/@s/a/package.json",
            0o644,
            r#"{"name":"@s/a","version":"1.2.3","license":"MIT"}"#,
        );
        root.put_file("/app/node_modules/@s/a/lib/x.js", 0o644, "");
        root.put_file("/app/node_modules/@s/a/esm/package.json", 0o644, r#"{"type":"module"}"#);
        root.put_file("/app/node_modules/@s/a/node_modules/b/package.json", 0o644, r#"{"name":"b","version":"2.0.0"}"#);
        root.put_file("/app/node_modules/@s/a/node_modules/b/y.js", 0o644, "");
        let found = inventory(&root, &Limits::default());
        assert_eq!((found.packages.len(), found.unknowns.len()), (3, 0));
        let owner = |path: &str| found.owner(&path.parse().expect("no NUL")).map(|package| package.purl.as_str());
        assert_eq!(owner("/app/node_modules/@s/a/lib/x.js"), Some("pkg:npm/%40s/a@1.2.3"));
        assert_eq!(owner("/app/node_modules/@s/a/node_modules/b/y.js"), Some("pkg:npm/b@2.0.0"));
        assert_eq!(owner("/app/index.js"), None);
    }

    #[test]
    fn licenses_have_many_shapes() {
        let of = |license: &str| -> Vec<String> {
            let json = format!(r#"{{"name":"a","version":"1","{license}}}"#);
            parse_package_json(json.as_bytes()).expect("JSON").expect("a package").licenses.into_iter().collect()
        };
        assert_eq!(of(r#"license":{"type":"MIT","url":"u"}"#), ["MIT"]);
        assert_eq!(of(r#"licenses":[{"type":"MIT"},"ISC"]"#), ["ISC", "MIT"]);
    }

    #[test]
    fn broken_json_is_unknown() {
        let mut root = Rootfs::default();
        root.put_file("/node_modules/a/package.json", 0o644, "{");
        let found = inventory(&root, &Limits::default());
        assert!(found.packages.is_empty() && found.unknowns.len() == 1);
    }
}
