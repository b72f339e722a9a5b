//! Signed material of the instance as candidates, and rules for who signs there.

use std::{collections::BTreeMap, str::FromStr};

use dna::Digest;
use serde_json::{Value, json};
use sigstore_instance::{Identity as San, Instance, Key, Layer, Layout, LogVersion, Signing, Statement};
use trust::{
    Candidate, Evidence, Findings, Format, Formats, Identity, Material, Origin, Place, PublicKey, Reason, Root, Signer,
    Text, Who, verify,
};

/// An image's digest: nothing is behind it.
pub(crate) fn image() -> Digest {
    Digest::sha256(b"an image")
}

pub(crate) fn root(instance: &Instance) -> Root {
    Root::from_json("instance", instance.trusted_root().as_bytes(), None).expect("a root")
}

/// A rule for a key.
pub(crate) fn holder(key: &Key, evidence: Evidence, roots: &[Root]) -> Signer {
    let key = PublicKey::from_pem(&key.public_pem()).expect("a key");
    Signer { name: "holder".to_owned(), who: Who::Key(key), evidence, roots: roots.to_vec() }
}

/// A rule for [`alice`].
pub(crate) fn named(evidence: Evidence, roots: &[Root]) -> Signer {
    let [subject, issuer] = [ALICE, ISSUER].map(|text| Text::Exact(text.to_owned()));
    let alice = Identity { subject, issuer, claims: BTreeMap::new() };
    Signer { name: "alice".to_owned(), who: Who::Identities(vec![alice]), evidence, roots: roots.to_vec() }
}

/// Someone with an identity, without log and timestamp.
pub(crate) fn alice(instance: &Instance) -> Signing<'_> {
    instance.keyless(San::Email(ALICE.to_owned()), ISSUER).without_log()
}

pub(crate) fn statement() -> Statement {
    Statement::new(PREDICATE, json!({ "made": "well" })).subject("app", image().hex())
}

/// What the signer makes in a layout, as it is found beside [`image`].
pub(crate) fn candidate(signer: &Signing<'_>, layout: Layout) -> Candidate {
    match layout {
        Layout::Attestation => bundle(signer.attest(&statement())),
        Layout::LegacySignature => {
            layer(signer.legacy_signature("registry.test/app:1", image().hex(), &json!({ "env": "test" })))
        }
        Layout::LegacyAttestation => layer(signer.legacy_attestation(&statement())),
        Layout::Blob => panic!("signatures of files are not found beside images"),
    }
}

pub(crate) fn bundle(json: Vec<u8>) -> Candidate {
    let (place, carrier) = (Place::ReferrersApi, Digest::sha256(b"a referrer"));
    let origin = Origin { subject: image(), place, carrier, format: Format::Bundle };
    Candidate { origin, material: Material::Bundle(json) }
}

pub(crate) fn layer(layer: Layer) -> Candidate {
    let carrier = Digest::sha256(&layer.bytes);
    let (place, format, material) = match layer.media_type {
        "application/vnd.dsse.envelope.v1+json" => {
            (Place::AttestationTag, Format::Envelope, Material::Envelope(layer.bytes, layer.annotations))
        }
        _ => (Place::SignatureTag, Format::SimpleSigning, Material::SimpleSigning(layer.bytes, layer.annotations)),
    };
    Candidate { origin: Origin { subject: image(), place, carrier, format }, material }
}

/// What one rule makes of one candidate.
pub(crate) fn judged(candidate: &Candidate, signer: &Signer) -> Findings {
    verify(std::slice::from_ref(candidate), std::slice::from_ref(signer), Formats::default())
}

/// The one reason for which the candidate is refused; none where it is taken.
pub(crate) fn refusal(findings: &Findings) -> Option<&Reason> {
    let taken = findings.signatures.len() + findings.attestations.len();
    assert_eq!(taken + findings.refusals.len(), 1, "{findings:?}");
    findings.refusals.first().map(|refusal| &refusal.reason)
}

/// The reason's variant, by its name in JSON.
pub(crate) fn variant(reason: &Reason) -> String {
    let json = serde_json::to_value(reason).expect("JSON");
    json.get("reason").and_then(Value::as_str).expect("a tag").to_owned()
}

/// What log and authority add to a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    Nothing,
    V1,
    V2,
    Time,
    V1Time,
    V2Time,
}

impl Added {
    pub(crate) fn to<'a>(self, signer: Signing<'a>) -> Signing<'a> {
        match self {
            Self::Nothing => signer,
            Self::V1 => signer.log(LogVersion::V1),
            Self::V2 => signer.log(LogVersion::V2),
            Self::Time => signer.timestamped(),
            Self::V1Time => signer.log(LogVersion::V1).timestamped(),
            Self::V2Time => signer.log(LogVersion::V2).timestamped(),
        }
    }

    pub(crate) const ALL: [Self; 6] = [Self::Nothing, Self::V1, Self::V2, Self::Time, Self::V1Time, Self::V2Time];

    /// The most that it can prove.
    pub(crate) fn evidence(self) -> Evidence {
        match self {
            Self::Nothing => Evidence::Signature,
            Self::Time => Evidence::Timestamp,
            Self::V1 | Self::V2 | Self::V1Time | Self::V2Time => Evidence::Log,
        }
    }
}

impl FromStr for Added {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "nothing" => Self::Nothing,
            "v1" => Self::V1,
            "v2" => Self::V2,
            "time" => Self::Time,
            "v1+time" => Self::V1Time,
            "v2+time" => Self::V2Time,
            other => return Err(format!("{other} is nothing that is added")),
        })
    }
}

pub(crate) const ALICE: &str = "alice@example.com";
pub(crate) const ISSUER: &str = "https://accounts.example.com";
pub(crate) const PREDICATE: &str = "https://example.com/predicate/v1";
