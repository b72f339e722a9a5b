//! What logs store of a signature: the canonical bodies of Rekor's entry types.

use crate::{
    key::{Digest, Key, pem},
    log::{LogVersion, hex},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The type of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `hashedrekord` 0.0.1: digest of what was signed, signature, verifier.
    HashedRekord,
    /// `dsse` 0.0.1: digests of envelope and payload, signatures with verifiers.
    Dsse,
    /// `intoto` 0.0.1: digests of envelope and payload, verifier, no signature. What Tekton Chains still writes.
    IntotoV001,
    /// `intoto` 0.0.2: the envelope without its payload, and digests.
    IntotoV002,
    /// `hashedrekord` 0.0.2 of Rekor v2; of a DSSE envelope it holds the digest of the pre-authentication encoding.
    HashedRekordV2,
    /// `dsse` 0.0.2 of Rekor v2, which no log writes any more.
    DsseV2,
}

impl Entry {
    /// The log that takes such entries.
    pub fn log(self) -> LogVersion {
        match self {
            Self::HashedRekord | Self::Dsse | Self::IntotoV001 | Self::IntotoV002 => LogVersion::V1,
            Self::HashedRekordV2 | Self::DsseV2 => LogVersion::V2,
        }
    }

    /// Kind and version as in a bundle's `kindVersion`.
    pub fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::HashedRekord => ("hashedrekord", "0.0.1"),
            Self::Dsse => ("dsse", "0.0.1"),
            Self::IntotoV001 => ("intoto", "0.0.1"),
            Self::IntotoV002 => ("intoto", "0.0.2"),
            Self::HashedRekordV2 => ("hashedrekord", "0.0.2"),
            Self::DsseV2 => ("dsse", "0.0.2"),
        }
    }

    /// The canonical body (RFC 8785) for a signature.
    ///
    /// # Panics
    /// Where an entry type for envelopes is asked of a signature over plain bytes.
    pub(crate) fn body(self, of: &Subject<'_>) -> Vec<u8> {
        let spec = match self {
            Self::HashedRekord => json!({
                "data": { "hash": { "algorithm": of.digest.rekor_name(), "value": hex(of.digest.bytes()) } },
                "signature": {
                    "content": BASE64_STANDARD.encode(of.signature),
                    "publicKey": { "content": of.verifier.base64_pem() },
                },
            }),
            Self::Dsse => json!({
                "envelopeHash": sha256(&Sha256::digest(of.envelope().json)),
                "payloadHash": sha256(&Sha256::digest(of.envelope().payload)),
                "signatures": [{
                    "signature": BASE64_STANDARD.encode(of.signature),
                    "verifier": of.verifier.base64_pem(),
                }],
            }),
            Self::IntotoV001 => json!({
                "content": {
                    "hash": sha256(&Sha256::digest(of.envelope().json)),
                    "payloadHash": sha256(&Sha256::digest(of.envelope().payload)),
                },
                "publicKey": of.verifier.base64_pem(),
            }),
            Self::IntotoV002 => json!({ "content": {
                "envelope": {
                    "payloadType": of.envelope().payload_type,
                    "signatures": [{
                        // Encoded twice, as the log does.
                        "sig": BASE64_STANDARD.encode(BASE64_STANDARD.encode(of.signature)),
                        "publicKey": of.verifier.base64_pem(),
                    }],
                },
                "hash": sha256(&Sha256::digest(of.envelope().json)),
                "payloadHash": sha256(&Sha256::digest(of.envelope().payload)),
            }}),
            Self::HashedRekordV2 => json!({ "hashedRekordV002": {
                "data": of.digest.json(),
                "signature": {
                    "content": BASE64_STANDARD.encode(of.signature),
                    "verifier": of.verifier.json(),
                },
            }}),
            Self::DsseV2 => json!({ "dsseV002": {
                "payloadHash": {
                    "algorithm": "SHA2_256",
                    "digest": BASE64_STANDARD.encode(Sha256::digest(of.envelope().payload)),
                },
                "signatures": [{
                    "content": BASE64_STANDARD.encode(of.signature),
                    "verifier": of.verifier.json(),
                }],
            }}),
        };
        let (kind, version) = self.kind();
        let body = json!({ "apiVersion": version, "kind": kind, "spec": spec });
        serde_json_canonicalizer::to_vec(&body).expect("JSON")
    }
}

/// What an entry is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject<'a> {
    /// Digest of the bytes that were signed, by the key's own hash.
    pub(crate) digest: Digest,
    pub(crate) signature: &'a [u8],
    pub(crate) verifier: Verifier,
    pub(crate) envelope: Option<Envelope<'a>>,
}

/// A DSSE envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) json: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) payload_type: &'a str,
}

/// What verifies a signature.
#[derive(Debug, Clone)]
pub(crate) enum Verifier {
    /// A certificate for a P-256 key, as DER.
    Certificate(Vec<u8>),
    /// A key, as DER, and its name in `PublicKeyDetails`.
    Key(Vec<u8>, String),
}

impl<'a> Subject<'a> {
    fn envelope(&self) -> Envelope<'a> {
        self.envelope.expect("entries of this type are about envelopes")
    }
}

impl Verifier {
    pub(crate) fn of_key(key: &Key) -> Self {
        Self::Key(key.public_der(), key.details().to_owned())
    }

    fn base64_pem(&self) -> String {
        BASE64_STANDARD.encode(match self {
            Self::Certificate(der) => pem("CERTIFICATE", der),
            Self::Key(der, _) => pem("PUBLIC KEY", der),
        })
    }

    fn json(&self) -> Value {
        match self {
            Self::Certificate(der) => json!({
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "x509Certificate": { "rawBytes": BASE64_STANDARD.encode(der) },
            }),
            Self::Key(der, details) => {
                json!({ "keyDetails": details, "publicKey": { "rawBytes": BASE64_STANDARD.encode(der) } })
            }
        }
    }
}

fn sha256(digest: &[u8]) -> Value {
    json!({ "algorithm": "sha256", "value": hex(digest) })
}
