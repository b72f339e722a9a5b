//! Ruby gems: installed specifications (`specifications/NAME-VERSION.gemspec`) in, packages out.
//!
//! A specification is Ruby, which is not run: RubyGems writes it itself, one `s.field = value` a line, and those lines are read.
//! Source: RubyGems, `Gem::Specification#to_ruby`.

use std::collections::BTreeSet;

use super::{Catalog, Package, PackageKind, purl::Purl, tree::Tree};

/// A gem as its specification tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GemRecord {
    /// `name`.
    pub name: String,
    /// `version`.
    pub version: String,
    /// `licenses`.
    pub licenses: BTreeSet<String>,
}

/// The gem a specification is of; `None` where it has no literal name or version.
pub fn parse_gemspec(bytes: &[u8]) -> Option<GemRecord> {
    let text = String::from_utf8_lossy(bytes);
    let mut record = GemRecord::default();
    for line in text.lines() {
        let Some((field, value)) = line.trim().split_once(" = ") else { continue };
        let mut literals = literals(value);
        match field.rsplit_once('.') {
            Some((_, "name")) if record.name.is_empty() => record.name = literals.next().unwrap_or_default(),
            Some((_, "version")) if record.version.is_empty() => record.version = literals.next().unwrap_or_default(),
            Some((_, "license" | "licenses")) => record.licenses.extend(literals),
            _ => {}
        }
    }
    (!record.name.is_empty() && !record.version.is_empty()).then_some(record)
}

/// The gems installed.
pub(super) fn catalog(tree: &Tree) -> Catalog {
    let mut catalog = Catalog::default();
    for found in tree.files.iter().filter(|found| is_specification(found.path.as_bytes())) {
        match tree.read_text(found.inode).map(|bytes| parse_gemspec(&bytes)) {
            Ok(Some(record)) => catalog.packages.push(Package {
                kind: PackageKind::Gem,
                purl: Purl::new(PackageKind::Gem, &record.name, &record.version).build(),
                name: record.name,
                version: record.version,
                architecture: None,
                location: found.path.clone(),
                member: None,
                licenses: record.licenses,
                layer: tree.layer(found.inode),
                files: vec![found.path.clone()],
            }),
            Ok(None) => catalog.unknown(&found.path, "specification without literal name and version"),
            Err(error) => catalog.unknown(&found.path, error),
        }
    }
    catalog
}

/// `…/specifications/x.gemspec` or `…/specifications/default/x.gemspec`: those of gems under development lie elsewhere.
fn is_specification(path: &[u8]) -> bool {
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let is_named = parts.next().is_some_and(|name| name.ends_with(b".gemspec"));
    is_named && parts.find(|part| *part != b"default") == Some(b"specifications")
}

/// The quoted texts of a line: `"a".freeze`, `["a".freeze, "b".freeze]`.
fn literals(value: &str) -> impl Iterator<Item = String> {
    let quote = if value.contains('"') { '"' } else { '\'' };
    value.split(quote).skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use dna::Limits;

    use super::*;
    use crate::{Rootfs, inventory::inventory};

    const SPECIFICATION: &str = "# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\n\nGem::Specification.new do |s|\n  \
        s.name = \"rake\".freeze\n  s.version = \"13.0.6\"\n\n  s.licenses = [\"MIT\".freeze, \"ISC\".freeze]\n  \
        s.required_ruby_version = Gem::Requirement.new(\">= 2.2\".freeze)\nend\n";

    #[test]
    fn rubygems_own_lines_are_read() {
        let mut root = Rootfs::default();
        root.put_file("/usr/lib/ruby/gems/3.1.0/specifications/default/rake-13.0.6.gemspec", 0o644, SPECIFICATION);
        root.put_file("/src/rake.gemspec", 0o644, SPECIFICATION);
        let found = inventory(&root, &Limits::default());
        let packages: Vec<_> = found.packages.iter().map(|package| package.purl.as_str()).collect();
        assert_eq!(packages, ["pkg:gem/rake@13.0.6"]);
        let licenses = parse_gemspec(SPECIFICATION.as_bytes()).expect("complete").licenses;
        assert_eq!(licenses.into_iter().collect::<Vec<_>>(), ["ISC", "MIT"]);
    }

    #[test]
    fn a_computed_version_is_unknown() {
        let mut root = Rootfs::default();
        let text = SPECIFICATION.replace("\"13.0.6\"", "Rake::VERSION");
        root.put_file("/usr/share/rubygems-integration/all/specifications/rake.gemspec", 0o644, text);
        let found = inventory(&root, &Limits::default());
        assert_eq!((found.packages.len(), found.unknowns.len()), (0, 1));
    }
}
