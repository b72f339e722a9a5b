//! PHP packages: Composer's `vendor/composer/installed.json` in, packages and their files out.
//!
//! Source: Composer, `InstalledFilesystemRepository`: since version 2 an object with `packages`, before that the list itself. Lock files
//! are not read: they say what was wanted, not what is there.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::{Catalog, Package, PackageKind, purl::Purl, tree::Tree};

/// A package as Composer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComposerRecord {
    /// `vendor/name`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licenses.
    pub licenses: BTreeSet<String>,
}

/// The packages of an `installed.json`.
///
/// # Errors
/// What is wrong with the JSON.
pub fn parse_installed_json(bytes: &[u8]) -> Result<Vec<ComposerRecord>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Two { packages: Vec<Json> },
        One(Vec<Json>),
    }
    #[derive(Deserialize)]
    struct Json {
        name: String,
        version: String,
        #[serde(default)]
        license: Value,
    }
    let (Form::Two { packages } | Form::One(packages)) = serde_json::from_slice(bytes)?;
    let texts = |value: Value| match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let record = |json: Json| ComposerRecord {
        name: json.name,
        version: json.version,
        licenses: texts(json.license).into_iter().collect(),
    };
    Ok(packages.into_iter().map(record).collect())
}

/// The packages installed.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    for found in tree.files.iter().filter(|found| found.path.as_bytes().ends_with(b"/composer/installed.json")) {
        let records = match tree.read_text(found.inode) {
            Ok(bytes) => parse_installed_json(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match records {
            Ok(records) => catalog.packages.extend(records.into_iter().map(|record| {
                let (vendor, name) = record.name.split_once('/').unwrap_or(("", &record.name));
                Package {
                    kind: PackageKind::Composer,
                    purl: Purl::new(PackageKind::Composer, name, &record.version).namespace(vendor).build(),
                    name: record.name,
                    version: record.version,
                    architecture: None,
                    location: found.path.clone(),
                    member: None,
                    licenses: record.licenses,
                    layer: tree.layer(found.inode),
                    files: Vec::new(),
                }
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

    #[test]
    fn both_forms_are_read() {
        let list = r#"[{"name":"psr/log","version":"3.0.0","license":["MIT"],"source":{"url":"u"}}]"#;
        for text in [list.to_owned(), format!(r#"{{"packages":{list},"dev":false}}"#)] {
            let mut root = Rootfs::default();
            root.put_file("/var/www/vendor/composer/installed.json", 0o644, &text);
            let found = inventory(&root, &Limits::default());
            let packages: Vec<_> = found.packages.iter().map(|package| package.purl.as_str()).collect();
            assert_eq!(packages, ["pkg:composer/psr/log@3.0.0"], "{text}");
        }
    }

    #[test]
    fn another_form_is_unknown() {
        let mut root = Rootfs::default();
        root.put_file("/vendor/composer/installed.json", 0o644, r#"{"a":1}"#);
        let found = inventory(&root, &Limits::default());
        assert_eq!((found.packages.len(), found.unknowns.len()), (0, 1));
    }
}
