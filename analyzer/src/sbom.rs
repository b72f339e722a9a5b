//! The inventory as a bill of materials: packages in, a JSON document out, in the words of CycloneDX or SPDX.
//!
//! Both are deterministic: equal inventory and subject, equal document. Nothing in it is drawn at random or read from a clock; the
//! document's number is derived from its contents. What the inventory could not read is said in the document, since a bill that
//! misses something must not look complete.

mod cyclonedx;
mod license;
mod spdx;
mod timestamp;

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;
pub use timestamp::Timestamp;

use dna::{Digest, Platform};

use crate::{Inventory, Package, inventory::Purl};

/// The image a bill is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbomSubject {
    /// The reference or source it was asked for by.
    pub name: String,
    /// What identifies it: the manifest's digest, else the config's.
    pub digest: Option<Digest>,
    /// The platform it is for.
    pub platform: Option<Platform>,
    /// Digests of its uncompressed layers, lowest first; packages name theirs.
    pub layers: Vec<Digest>,
    /// When it was made, by its config or the environment's `SOURCE_DATE_EPOCH`.
    pub created: Option<Timestamp>,
}

impl SbomSubject {
    /// The name without credentials.
    fn display_name(&self) -> String {
        dna::redact(&self.name).into_owned()
    }

    /// Its package URL, `pkg:oci/NAME@DIGEST`, where it has a digest. Source: purl-spec, type `oci`.
    fn purl(&self) -> Option<String> {
        let digest = self.digest.as_ref()?;
        let name = self.display_name();
        let reference = name.strip_prefix("docker://").unwrap_or(&name);
        let file = FILE_TRANSPORTS.iter().find_map(|transport| reference.strip_prefix(transport));
        let named = file.unwrap_or(reference).split('@').next()?;
        let (folder, last) = named.rsplit_once('/').unwrap_or(("", named));
        let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
        // As in a reference: only a first part that looks like a host says where the image is to be had.
        let host = folder.split('/').next().filter(|_| file.is_none()).unwrap_or_default();
        let is_remote = host.contains(['.', ':']) || host == "localhost";
        let repository = is_remote.then(|| format!("{folder}/{last}"));
        let architecture = self.platform.as_ref().map(Platform::architecture);
        Some(
            Purl::of_type("oci", &last.to_ascii_lowercase(), digest.as_str())
                .qualifier("arch", architecture)
                .qualifier("repository_url", repository.as_deref())
                .qualifier("tag", tag)
                .build(),
        )
    }

    /// The digest of the layer that brought `package`.
    fn layer(&self, package: &Package) -> Option<&Digest> {
        self.layers.get(usize::try_from(package.layer).ok()?)
    }
}

/// A name for each package that is unique in its document and the same in every document of the image: its place in the world and
/// in the image, hashed.
fn references(inventory: &Inventory) -> impl Iterator<Item = (String, &Package)> {
    let mut seen = std::collections::BTreeMap::new();
    inventory.packages.iter().map(move |package| {
        let mut bytes = package.purl.clone().into_bytes();
        for part in [package.location.as_bytes(), package.member.as_deref().unwrap_or_default().as_bytes()] {
            bytes.push(0);
            bytes.extend(part);
        }
        let digest = Digest::sha256(&bytes);
        let reference = format!("{}-{}", package.kind.purl_type(), digest.hex().get(..16).unwrap_or_default());
        let again: &mut u32 = seen.entry(reference.clone()).or_default();
        *again = again.saturating_add(1);
        (if *again == 1 { reference } else { format!("{reference}-{again}") }, package)
    })
}

/// A UUID that follows from `document`: RFC 9562, version 8, of its SHA-256.
fn uuid(document: &serde_json::Value) -> String {
    // A `Value` has only text keys, so that it always has a canonical form.
    let bytes = dna::canonical_json(document).unwrap_or_default();
    let digest = Digest::sha256(&bytes);
    let hex: Vec<char> = digest.hex().chars().collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).into_iter().flatten().collect::<String>();
    format!("{}-{}-8{}-8{}-{}", part(0..8), part(8..12), part(12..15), part(15..18), part(18..30))
}

/// Where a package was found, for people.
fn place(package: &Package) -> String {
    match &package.member {
        Some(member) => format!("{}!/{member}", package.location),
        None => package.location.to_string(),
    }
}

/// Sources that are files, containers-transports(5): their paths name no registry.
const FILE_TRANSPORTS: [&str; 5] = ["oci:", "oci-archive:", "docker-archive:", "docker-daemon:", "dir:"];

const TOOL: &str = "mayfly";
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dna::Limits;

    use super::*;
    use crate::{Rootfs, inventory::inventory};

    fn subject() -> SbomSubject {
        SbomSubject {
            name: "docker://registry.example.com:5000/team/app:1.2".to_owned(),
            digest: Some(Digest::sha256(b"manifest")),
            platform: Some("linux/amd64".parse().expect("well formed")),
            layers: vec![Digest::sha256(b"layer")],
            created: Some("2024-01-02T03:04:05.678+01:00".parse().expect("well formed")),
        }
    }

    fn installed() -> Inventory {
        let mut root = Rootfs::default();
        root.put_file("/etc/os-release", 0o644, "ID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME=\"Alpine Linux v3.19\"\n");
        let apk = "P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:zlib\nV:1.3\nA:x86_64\nL:Zlib OR MIT\n";
        root.put_file("/lib/apk/db/installed", 0o644, apk);
        root.put_file("/s/x-1.dist-info/METADATA", 0o644, "Name: x\nVersion: 1\nLicense: BSD License\n");
        root.put_file(
            "/node_modules/y/package.json",
            0o644,
            r#"{"name":"y","version":"2","licenses":["MIT OR ISC","ours"]}"#,
        );
        root.put_file("/node_modules/z/package.json", 0o644, "no JSON");
        inventory(&root, &Limits::default())
    }

    #[test]
    fn a_small_image_as_cyclonedx() {
        insta::assert_json_snapshot!(cyclonedx(&installed(), &subject()));
    }

    #[test]
    fn a_small_image_as_spdx() {
        insta::assert_json_snapshot!(spdx(&installed(), &subject()));
    }

    #[test]
    fn the_number_follows_from_the_contents() {
        let (inventory, other) = (installed(), SbomSubject { digest: None, ..subject() });
        for make in [cyclonedx, spdx] {
            assert_eq!(make(&inventory, &subject()), make(&inventory, &subject()));
        }
        let number = |subject| cyclonedx(&inventory, subject).get("serialNumber").map(ToString::to_string);
        assert_ne!(number(&subject()), number(&other));
    }

    #[test]
    fn references_are_unique() {
        let mut inventory = installed();
        let again = inventory.packages.first().expect("some").clone();
        inventory.packages.push(again);
        let names: Vec<_> = references(&inventory).map(|(name, _)| name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), inventory.packages.len());
    }

    #[test]
    fn an_image_name_becomes_a_package_url() {
        let purl = |name: &str| {
            let subject = SbomSubject { name: name.to_owned(), platform: None, ..subject() };
            subject.purl().expect("a digest").replace(subject.digest.expect("one").as_str(), "D")
        };
        for (name, expected) in [
            (
                "docker://registry.example.com:5000/team/App:1.2",
                "pkg:oci/app@D?repository_url=registry.example.com:5000%2Fteam%2FApp&tag=1.2",
            ),
            ("docker.io/library/nginx", "pkg:oci/nginx@D?repository_url=docker.io%2Flibrary%2Fnginx"),
            ("localhost:5000/x@sha256:00", "pkg:oci/x@D?repository_url=localhost:5000%2Fx"),
            ("oci:some/folder:tag", "pkg:oci/folder@D?tag=tag"),
            ("oci:folder", "pkg:oci/folder@D"),
            ("-", "pkg:oci/-@D"),
        ] {
            assert_eq!(purl(name), expected, "{name}");
        }
    }
}
