//! SPDX 2.3, JSON. Source: SPDX specification 2.3, clauses 6 to 11, and its schema `spdx-schema.json`.

use std::collections::BTreeMap;

use dna::Digest;
use serde_json::{Value, json};

use super::{SbomSubject, TOOL, TOOL_VERSION, Timestamp, license::License, place, references, uuid};
use crate::{Inventory, Package};

/// The bill of materials of `subject`. Where it has no time of making, `created`, which SPDX requires, is the start of 1970.
pub fn spdx(inventory: &Inventory, subject: &SbomSubject) -> Value {
    let mut texts = BTreeMap::new();
    let mut packages = vec![image(subject)];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    if let Some(distro) = &inventory.distro {
        packages.push(json!({
            "SPDXID": SYSTEM,
            "name": distro.id,
            "versionInfo": distro.version_id.as_deref().unwrap_or("NOASSERTION"),
            "summary": distro.name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "primaryPackagePurpose": "OPERATING_SYSTEM",
        }));
        relationships.push(relationship(IMAGE, "CONTAINS", SYSTEM));
    }
    for (reference, package) in references(inventory) {
        let id = format!("SPDXRef-{reference}");
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        packages.push(contained(&id, package, subject, &mut texts));
    }
    let unknowns: Vec<_> = inventory.unknowns.iter().map(|u| format!("{}: {}", u.place, u.why)).collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.display_name(),
        "creationInfo": {
            "created": subject.created.unwrap_or(Timestamp::EPOCH).to_string(),
            "creators": [format!("Tool: {TOOL}-{TOOL_VERSION}")],
        },
        "packages": packages,
        "relationships": relationships,
    });
    let extracted: Vec<_> =
        texts.into_iter().map(|(id, text)| json!({ "licenseId": id, "extractedText": text, "name": text })).collect();
    let comment = format!("Could not be read, so that packages may be missing:\n{}", unknowns.join("\n"));
    if let Some(fields) = document.as_object_mut() {
        if !extracted.is_empty() {
            fields.insert("hasExtractedLicensingInfos".to_owned(), extracted.into());
        }
        if !unknowns.is_empty() {
            fields.insert("comment".to_owned(), comment.into());
        }
    }
    let namespace = format!("https://mayfly.dev/spdx/{}", uuid(&document));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("documentNamespace".to_owned(), namespace.into());
    }
    document
}

fn image(subject: &SbomSubject) -> Value {
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": subject.display_name(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
    });
    if let (Some(fields), Some(digest)) = (image.as_object_mut(), &subject.digest) {
        let algorithm = digest.algorithm().to_ascii_uppercase();
        fields.insert("versionInfo".to_owned(), digest.as_str().into());
        fields.insert("checksums".to_owned(), json!([{ "algorithm": algorithm, "checksumValue": digest.hex() }]));
        fields.insert("externalRefs".to_owned(), subject.purl().map(|purl| json!([external(&purl)])).into());
    }
    image
}

fn contained(id: &str, package: &Package, subject: &SbomSubject, texts: &mut BTreeMap<String, String>) -> Value {
    let layer = subject.layer(package).map(|layer| format!(", layer {layer}")).unwrap_or_default();
    let version = if package.version.is_empty() { "NOASSERTION" } else { &package.version };
    json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "sourceInfo": format!("found in {}{layer}", place(package)),
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared(package, texts),
        "copyrightText": "NOASSERTION",
        "externalRefs": [external(&package.purl)],
    })
}

/// All that is stated, joined by `AND`; a text that is no expression gets an own identifier, and goes to `texts`.
fn declared(package: &Package, texts: &mut BTreeMap<String, String>) -> String {
    let mut terms: Vec<String> = Vec::new();
    for text in &package.licenses {
        terms.push(match License::of(text) {
            License::Identifier(id) => id,
            License::Expression(expression) if package.licenses.len() == 1 => expression,
            License::Expression(expression) => format!("({expression})"),
            License::Text(text) => {
                let digest = Digest::sha256(text.as_bytes());
                let id = format!("LicenseRef-{}", digest.hex().get(..16).unwrap_or_default());
                texts.insert(id.clone(), text);
                id
            }
        });
    }
    if terms.is_empty() { "NOASSERTION".to_owned() } else { terms.join(" AND ") }
}

fn external(purl: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

const IMAGE: &str = "SPDXRef-image";
const SYSTEM: &str = "SPDXRef-operating-system";
