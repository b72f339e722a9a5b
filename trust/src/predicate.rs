//! Predicates that policies ask about, typed as far as they do: the DNA, provenance, bills of materials, scans. Everything else
//! stays JSON.

use dna::{Digest, Dna};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{proof::Attestation, refusal::clean};

/// What an attestation says, by its type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Predicate {
    /// What a container of the image may do.
    Dna(Box<DnaPredicate>),
    /// How it was built.
    Provenance(Provenance),
    /// What is in it.
    Sbom(Sbom),
    /// What a scanner found.
    Scan(Scan),
    /// Another type, or one of these that is not as its specification says.
    Other,
}

/// The predicate of type [`DNA_PREDICATE`]: of an image the DNA itself or its digest, of an index those of its images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnaPredicate {
    /// The DNA's format.
    pub schema: String,
    /// SHA-256 of the DNA as canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The DNA; absent where it is too large for a statement: then it is a blob of that digest in the image's repository, and
    /// a referrer of the image by [`DNA_MEDIA_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
    /// An index' images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<PlatformDna>,
}

/// One image of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformDna {
    /// `OS/ARCH[/VARIANT]`.
    pub platform: String,
    /// Its manifest.
    pub manifest: Digest,
    /// SHA-256 of its DNA as canonical JSON.
    pub dna: Digest,
}

impl DnaPredicate {
    /// The predicate for one DNA, with the document where it is small enough.
    ///
    /// # Errors
    /// Where the DNA cannot be written.
    pub fn of(dna: &Dna) -> Result<Self, dna::DnaError> {
        let json = dna.to_canonical_json()?;
        let document = (json.len() <= MAX_INLINE_BYTES).then(|| serde_json::from_slice(&json).ok()).flatten();
        Ok(Self { schema: dna.schema.clone(), digest: Some(dna.digest()?), document, platforms: Vec::new() })
    }

    /// The DNA that stands in the predicate.
    ///
    /// # Errors
    /// Where it is not the one that `digest` names, or in no format that is known.
    pub fn document(&self) -> Result<Option<Dna>, String> {
        let Some(document) = &self.document else { return Ok(None) };
        let json = serde_json::to_vec(document).map_err(|error| error.to_string())?;
        let dna = Dna::from_json(&json).map_err(|error| clean(&error.to_string()))?;
        let digest = dna.digest().map_err(|error| error.to_string())?;
        match &self.digest {
            Some(named) if *named == digest => Ok(Some(dna)),
            named => Err(format!("the DNA has digest {digest}, the statement names {named:?}")),
        }
    }
}

/// SLSA provenance, versions 0.2 and 1. Source: slsa.dev.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// Who built it: a URI.
    pub builder: String,
    /// How: a URI.
    pub build_type: String,
    /// From what.
    pub sources: Vec<Source>,
}

/// Something a build was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Where it is.
    pub uri: String,
    /// Its digests, `ALGORITHM:HEX`; of Git a commit.
    pub digests: Vec<String>,
}

/// A bill of materials: CycloneDX or SPDX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sbom {
    /// `CycloneDX` or `SPDX`, and the version.
    pub format: String,
    /// Packages.
    pub packages: Vec<Package>,
}

/// A package of a bill of materials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version; may be empty.
    pub version: String,
    /// Its package URL; may be empty.
    pub purl: String,
}

/// A scan for vulnerabilities. Source: cosign, `specs/COSIGN_VULN_ATTESTATION_SPEC.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// The scanner: a URI.
    pub scanner: String,
    /// Its version; may be empty.
    pub version: String,
    /// When it ended, as it says: RFC 3339.
    pub finished: String,
}

impl Attestation {
    /// What it says, typed where its type is known.
    #[must_use]
    pub fn typed(&self) -> Predicate {
        Predicate::read(&self.predicate_type, &self.predicate)
    }
}

impl Predicate {
    /// What a statement of a type says, typed where that type is known.
    pub(crate) fn read(predicate_type: &str, value: &Value) -> Self {
        let typed = match predicate_type {
            DNA_PREDICATE => DnaPredicate::deserialize(value).ok().map(|dna| Predicate::Dna(Box::new(dna))),
            "https://slsa.dev/provenance/v1" => provenance_1(value).map(Predicate::Provenance),
            "https://slsa.dev/provenance/v0.2" => provenance_0_2(value).map(Predicate::Provenance),
            "https://cyclonedx.org/bom" => cyclonedx(value).map(Predicate::Sbom),
            "https://spdx.dev/Document" => spdx(value).map(Predicate::Sbom),
            "https://cosign.sigstore.dev/attestation/vuln/v1" => scan(value).map(Predicate::Scan),
            _ => None,
        };
        typed.unwrap_or(Predicate::Other)
    }
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().take(MAX_ITEMS)
}

fn source(value: &Value) -> Option<Source> {
    let digests = value.get("digest").and_then(Value::as_object).into_iter().flatten();
    let digests = digests.filter_map(|(algorithm, hex)| Some(format!("{algorithm}:{}", hex.as_str()?))).collect();
    Some(Source { uri: text(value, "/uri")?, digests })
}

fn provenance_1(value: &Value) -> Option<Provenance> {
    Some(Provenance {
        builder: text(value, "/runDetails/builder/id")?,
        build_type: text(value, "/buildDefinition/buildType")?,
        sources: list(value, "/buildDefinition/resolvedDependencies").filter_map(source).collect(),
    })
}

fn provenance_0_2(value: &Value) -> Option<Provenance> {
    Some(Provenance {
        builder: text(value, "/builder/id")?,
        build_type: text(value, "/buildType")?,
        sources: list(value, "/materials").filter_map(source).collect(),
    })
}

fn cyclonedx(value: &Value) -> Option<Sbom> {
    let package = |value: &Value| {
        let [version, purl] = ["/version", "/purl"].map(|pointer| text(value, pointer).unwrap_or_default());
        Some(Package { name: text(value, "/name")?, version, purl })
    };
    let format = format!("CycloneDX {}", text(value, "/specVersion")?);
    Some(Sbom { format, packages: list(value, "/components").filter_map(package).collect() })
}

fn spdx(value: &Value) -> Option<Sbom> {
    let package = |value: &Value| {
        let purl = list(value, "/externalRefs").find(|other| text(other, "/referenceType").as_deref() == Some("purl"));
        let purl = purl.and_then(|purl| text(purl, "/referenceLocator")).unwrap_or_default();
        Some(Package { name: text(value, "/name")?, version: text(value, "/versionInfo").unwrap_or_default(), purl })
    };
    Some(Sbom {
        format: text(value, "/spdxVersion")?,
        packages: list(value, "/packages").filter_map(package).collect(),
    })
}

fn scan(value: &Value) -> Option<Scan> {
    Some(Scan {
        scanner: text(value, "/scanner/uri")?,
        version: text(value, "/scanner/version").unwrap_or_default(),
        finished: text(value, "/metadata/scanFinishedOn")?,
    })
}

/// The predicate type of a DNA.
pub const DNA_PREDICATE: &str = "https://mayfly.dev/dna/v1";
/// The media type of a DNA as a blob.
pub const DNA_MEDIA_TYPE: &str = "application/vnd.mayfly.dna.v1+json";
/// A statement is read as a whole, and signed twice as long: base64 in JSON.
const MAX_INLINE_BYTES: usize = 1 << 20;
/// Packages and sources that are kept; image bills have some thousands.
const MAX_ITEMS: usize = 50_000;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use dna::Digest;
    use serde_json::json;

    use super::*;
    use crate::{
        evidence::Evidence,
        place::{Format, Origin, Place},
        proof::{By, Proof},
    };

    fn typed(predicate_type: &str, predicate: Value) -> Predicate {
        let digest = Digest::sha256(b"");
        let (subject, carrier) = (digest.clone(), digest.clone());
        let origin = Origin { subject, place: Place::File, carrier, format: Format::Bundle };
        let (times, log, root) = Default::default();
        let (signer, evidence) = ("x".to_owned(), Evidence::Signature);
        let proof =
            Proof { signer, by: By::Key(digest), evidence, times, log, certificate_logged: false, root, origin };
        Attestation { proof, predicate_type: predicate_type.to_owned(), predicate }.typed()
    }

    /// As the generators of SLSA's GitHub workflows, BuildKit and others write them, shortened.
    #[test]
    fn provenance_of_both_versions_names_builder_and_sources() {
        let commit = "9b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c";
        let one = json!({
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {"workflow": {"ref": "refs/heads/main"}},
                "resolvedDependencies": [{"uri": "git+https://github.com/team/app@refs/heads/main", "digest": {"gitCommit": commit}}],
            },
            "runDetails": {"builder": {"id": "https://github.com/actions/runner/github-hosted"}},
        });
        let two = json!({
            "builder": {"id": "https://github.com/team/app/.github/workflows/build.yml@refs/tags/v1"},
            "buildType": "https://mobyproject.org/buildkit@v1",
            "materials": [{"uri": "pkg:docker/debian@12", "digest": {"sha256": "00"}}, {"no": "uri"}],
        });
        let Predicate::Provenance(one) = typed("https://slsa.dev/provenance/v1", one) else { panic!("provenance") };
        assert_eq!(one.builder, "https://github.com/actions/runner/github-hosted");
        assert_eq!(one.sources[0].digests, [format!("gitCommit:{commit}")]);
        let Predicate::Provenance(two) = typed("https://slsa.dev/provenance/v0.2", two) else { panic!("provenance") };
        assert_eq!((two.build_type.as_str(), two.sources.len()), ("https://mobyproject.org/buildkit@v1", 1));
        assert_eq!(typed("https://slsa.dev/provenance/v1", json!({"runDetails": 7})), Predicate::Other);
    }

    #[test]
    fn bills_of_materials_give_packages_and_scans_their_end() {
        let cyclonedx = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [
            {"type": "library", "name": "openssl", "version": "3.0", "purl": "pkg:deb/debian/openssl@3.0"}, {"type": "file"}]});
        let spdx = json!({"spdxVersion": "SPDX-2.3", "packages": [{"name": "openssl", "versionInfo": "3.0", "externalRefs": [
            {"referenceType": "cpe23Type", "referenceLocator": "cpe"},
            {"referenceType": "purl", "referenceLocator": "pkg:deb/debian/openssl@3.0"}]}]});
        let package = Package {
            name: "openssl".to_owned(),
            version: "3.0".to_owned(),
            purl: "pkg:deb/debian/openssl@3.0".to_owned(),
        };
        for (kind, document) in [("https://cyclonedx.org/bom", cyclonedx), ("https://spdx.dev/Document", spdx)] {
            let Predicate::Sbom(sbom) = typed(kind, document) else { panic!("{kind}") };
            assert_eq!(sbom.packages, std::slice::from_ref(&package), "{kind}");
        }
        let scan = json!({"invocation": {}, "scanner": {"uri": "pkg:github/aquasecurity/trivy@0.50", "version": "0.50",
            "result": {}}, "metadata": {"scanFinishedOn": "2026-01-02T03:04:05Z"}});
        let Predicate::Scan(scan) = typed("https://cosign.sigstore.dev/attestation/vuln/v1", scan) else {
            panic!("a scan")
        };
        assert_eq!(scan.finished, "2026-01-02T03:04:05Z");
        assert_eq!(typed("https://example.com/x", json!({})), Predicate::Other);
    }

    #[test]
    fn a_dna_that_is_not_the_one_named_is_refused() {
        let named = DnaPredicate {
            schema: dna::SCHEMA.to_owned(),
            digest: Some(Digest::sha256(b"another")),
            document: Some(json!({"schema": dna::SCHEMA})),
            platforms: Vec::new(),
        };
        let Predicate::Dna(read) = typed(DNA_PREDICATE, serde_json::to_value(&named).expect("JSON")) else {
            panic!("a DNA")
        };
        assert_eq!(*read, named);
        assert!(read.document().is_err());
    }
}
