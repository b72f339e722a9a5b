//! Package URLs: parts in, text out. Source: purl-spec (ECMA-427), `PURL-SPECIFICATION` and `PURL-TYPES`. It does not parse.

use std::fmt::Write as _;

use super::PackageKind;

/// The parts of a package URL, collected until [`Purl::build`].
#[derive(Debug)]
pub(crate) struct Purl<'a> {
    kind: &'a str,
    namespace: String,
    name: String,
    version: String,
    qualifiers: Vec<(&'static str, String)>,
    subpath: String,
}

impl<'a> Purl<'a> {
    /// A package of `kind`.
    pub(crate) fn new(kind: PackageKind, name: &str, version: &str) -> Self {
        Self::of_type(kind.purl_type(), name, version)
    }

    /// A package of a type that no catalog has, such as `oci`.
    pub(crate) fn of_type(kind: &'a str, name: &str, version: &str) -> Self {
        Self {
            kind,
            namespace: String::new(),
            name: name.to_owned(),
            version: version.to_owned(),
            qualifiers: Vec::new(),
            subpath: String::new(),
        }
    }

    /// Sets the namespace, its segments separated by slashes.
    pub(crate) fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Adds a qualifier where it has a value: the specification knows no empty ones.
    pub(crate) fn qualifier(mut self, key: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.qualifiers.push((key, value.to_owned()));
        }
        self
    }

    /// The text: `pkg:type/namespace/name@version?qualifiers`, keys sorted.
    pub(crate) fn build(mut self) -> String {
        let mut text = format!("pkg:{}", self.kind);
        for segment in self.namespace.split('/').chain([self.name.as_str()]).filter(|segment| !segment.is_empty()) {
            text.push('/');
            encode(&mut text, segment);
        }
        if !self.version.is_empty() {
            text.push('@');
            encode(&mut text, &self.version);
        }
        self.qualifiers.sort_unstable();
        for (index, (key, value)) in self.qualifiers.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            encode(&mut text, value);
        }
        for (index, segment) in self.subpath.split('/').filter(|s| !matches!(*s, "" | "." | "..")).enumerate() {
            text.push(if index == 0 { '#' } else { '/' });
            encode(&mut text, segment);
        }
        text
    }
}

/// Percent-encodes all but letters, digits, `.`, `-`, `_`, `~` and `:`, as the specification's "Character encoding" asks.
/// Credentials are taken out before, since afterwards they no longer look like any.
fn encode(text: &mut String, part: &str) {
    for byte in dna::redact(part).bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':') {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_encoded_and_qualifiers_sorted() {
        let purl = Purl::new(PackageKind::Deb, "libstdc++6", "12.2.0-14+deb12u1")
            .namespace("debian")
            .qualifier("distro", Some("debian-12"))
            .qualifier("arch", Some("amd64"))
            .qualifier("epoch", None);
        assert_eq!(purl.build(), "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12");
    }

    #[test]
    fn a_scope_is_a_namespace() {
        let purl = Purl::new(PackageKind::Npm, "animation", "12.3.1").namespace("@angular");
        assert_eq!(purl.build(), "pkg:npm/%40angular/animation@12.3.1");
    }
}
