//! Rust crates: the section that `cargo auditable` adds to a program in, its crates out.
//!
//! Source: rust-secure-code, cargo-auditable `PARSING.md`: section `.dep-v0` holds a zlib stream of JSON. Only crates that are part
//! of the program are taken, not those that only built it.

use std::{collections::BTreeSet, io::Read as _};

use serde::Deserialize;

use super::{
    Catalog, Package, PackageKind,
    purl::Purl,
    sections::{Range, Sections},
    tree::Tree,
};
use crate::{ReadError, Resolved};

/// A crate of a program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CrateRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it came from: `crates.io`, `git`, `local`, `registry`.
    pub source: String,
    /// Whether it only built the program.
    #[serde(default)]
    kind: Use,
    /// Whether it is the program itself.
    #[serde(default)]
    pub root: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Use {
    #[default]
    Runtime,
    Build,
}

/// The crates in `section`, inflated to at most `max_bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_auditable(section: &[u8], max_bytes: u64) -> Result<Vec<CrateRecord>, String> {
    #[derive(Deserialize)]
    struct Json {
        packages: Vec<CrateRecord>,
    }
    let mut json = Vec::new();
    let inflated = flate2::read::ZlibDecoder::new(section).take(max_bytes.saturating_add(1));
    std::io::BufReader::new(inflated).read_to_end(&mut json).map_err(|error| error.to_string())?;
    if json.len() as u64 > max_bytes {
        return Err(format!("inflates to more than the limit of {max_bytes} bytes"));
    }
    let Json { mut packages } = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    packages.retain(|record| record.kind == Use::Runtime);
    Ok(packages)
}

/// The crates of a program.
pub(super) fn catalog(
    tree: &Tree,
    found: &Resolved,
    sections: &Sections,
    catalog: &mut Catalog,
) -> Result<(), ReadError> {
    let Some(Range { offset, len }) = sections.named(b".dep-v0") else { return Ok(()) };
    let section = tree.read_range(found.inode, offset, len.min(tree.limits.text_bytes))?;
    // What it inflates to is work as well.
    tree.charge(tree.limits.text_bytes.min(section.len() as u64 * MAX_DEFLATE_RATIO))?;
    match parse_auditable(&section, tree.limits.text_bytes) {
        Ok(records) => catalog.packages.extend(records.into_iter().map(|record| Package {
            kind: PackageKind::Cargo,
            purl: Purl::new(PackageKind::Cargo, &record.name, &record.version).build(),
            name: record.name,
            version: record.version,
            architecture: None,
            location: found.path.clone(),
            member: None,
            licenses: BTreeSet::new(),
            layer: tree.layer(found.inode),
            files: if record.root { vec![found.path.clone()] } else { Vec::new() },
        })),
        Err(why) => catalog.unknown(&found.path, format!("section .dep-v0: {why}")),
    }
    Ok(())
}

/// Deflate cannot do better.
const MAX_DEFLATE_RATIO: u64 = 1_032;

/// Sections made in memory, for tests here and of programs.
#[cfg(test)]
pub(super) mod fixture {
    use std::io::Write as _;

    /// Two crates of a program and one that only built it.
    pub(in super::super) fn section() -> Vec<u8> {
        deflate(
            r#"{"packages":[
                {"name":"app","version":"0.1.0","source":"local","dependencies":[1,2],"root":true},
                {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},
                {"name":"serde","version":"1.0.200","source":"crates.io"}]}"#,
        )
    }

    /// `json` as a section holds it.
    pub(in super::super) fn deflate(json: &str) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(json.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::{fixture::*, *};

    #[test]
    fn crates_that_only_built_it_are_left_out() {
        let records = parse_auditable(&section(), 1 << 20).expect("valid");
        let names: Vec<_> = records.iter().map(|r| (r.name.as_str(), r.root)).collect();
        assert_eq!(names, [("app", true), ("serde", false)]);
    }

    #[test]
    fn spoiled_sections_are_refused() {
        let good = section();
        assert!(parse_auditable(&good, 100).expect_err("too large").contains("limit of 100"));
        assert!(parse_auditable(&good[..good.len() / 2], 1 << 20).is_err());
        assert!(parse_auditable(&deflate("{}"), 1 << 20).is_err());
    }
}
