//! Where proof of an image is kept in a registry, and in which format.

use dna::Digest;
use serde::Serialize;

/// A place where proof about a subject may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The registry's referrers API. Source: OCI distribution specification, "Listing Referrers".
    ReferrersApi,
    /// The index at tag `sha256-HEX`. Source: OCI distribution specification, "Referrers Tag Schema".
    ReferrersTag,
    /// cosign's tag `sha256-HEX.sig`. Source: cosign, `specs/SIGNATURE_SPEC.md`.
    SignatureTag,
    /// cosign's tag `sha256-HEX.att`.
    AttestationTag,
    /// A file that someone gave.
    File,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReferrersApi => "referrers API",
            Self::ReferrersTag => "referrers tag",
            Self::SignatureTag => "signature tag",
            Self::AttestationTag => "attestation tag",
            Self::File => "file",
        })
    }
}

/// How a proof is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Format {
    /// A Sigstore bundle, version 0.3, around a DSSE envelope: what cosign 3 writes.
    Bundle,
    /// A simple signing payload with annotations: cosign 1 and 2.
    SimpleSigning,
    /// A DSSE envelope with annotations: attestations of cosign 1 and 2.
    Envelope,
    /// Something else, that nothing here checks.
    Other,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bundle => "Sigstore bundle",
            Self::SimpleSigning => "simple signing",
            Self::Envelope => "DSSE envelope with annotations",
            Self::Other => "other",
        })
    }
}

/// Which of the things found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The digest it was found for: an index's or a manifest's.
    pub subject: Digest,
    /// Where.
    pub place: Place,
    /// The digest of the manifest or blob that carries it.
    pub carrier: Digest,
    /// How it is written.
    pub format: Format,
}
