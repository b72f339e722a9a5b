//! What cosign 1 and 2 wrote, re-expressed as a bundle of version 0.1 in memory, so that one verifier judges all. Source:
//! cosign, `specs/SIGNATURE_SPEC.md`, "Storage specification"; `pkg/oci/static/options.go` for the annotations.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Deserialize;
use sigstore_types::{
    Bundle, DerCertificate, DigestBytes, DsseEnvelope, HashAlgorithm, KindVersion, SignatureBytes, SignatureContent,
    SignedTimestamp, TimestampToken,
    bundle::{
        InclusionPromise, LogId, MediaType, MessageDigest, MessageSignature, PublicKeyIdentifier, Rfc3161Timestamp,
        TimestampVerificationData, TransparencyLogEntry, VerificationMaterial, VerificationMaterialContent,
        X509Certificate,
    },
};

use super::{check::Beside, intoto};
use crate::refusal::{Reason, clean};

/// A layer's annotations.
pub(crate) type Annotations = BTreeMap<String, String>;

/// The bundle of a signature over a simple signing payload.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::FormatNotSupported`] for a kind of log entry that is unknown.
pub(crate) fn simple_signing(payload: &[u8], annotations: &Annotations) -> Result<Bundle, Reason> {
    let signature =
        annotations.get(SIGNATURE).ok_or_else(|| Reason::malformed(format!("no annotation {SIGNATURE}")))?;
    let signature = SignatureBytes::from_base64(signature.trim()).map_err(Reason::malformed)?;
    let digest = sigstore_crypto::sha256(payload).as_bytes().to_vec().into();
    let message =
        MessageSignature::new(signature).with_message_digest(MessageDigest::new(HashAlgorithm::Sha2256, digest));
    match assembled(SignatureContent::MessageSignature(message), annotations)? {
        (bundle, None) => Ok(bundle),
        (_, Some(_)) => Err(Reason::FormatNotSupported { found: "log entry intoto 0.0.1 of a signature".to_owned() }),
    }
}

/// The bundle of an attestation: its envelope, what the annotations say, and what has no place in a bundle.
///
/// # Errors
/// As [`simple_signing`].
pub(crate) fn envelope<'a>(
    bytes: &'a [u8],
    annotations: &Annotations,
) -> Result<(DsseEnvelope, Bundle, Beside<'a>), Reason> {
    let envelope: DsseEnvelope = serde_json::from_slice(bytes).map_err(Reason::malformed)?;
    let (bundle, entry) = assembled(SignatureContent::DsseEnvelope(envelope.clone()), annotations)?;
    Ok((envelope, bundle, Beside { envelope: bytes, entry }))
}

fn assembled(content: SignatureContent, annotations: &Annotations) -> Result<(Bundle, Option<intoto::Entry>), Reason> {
    let signer = match annotations.get(CERTIFICATE).filter(|pem| !pem.is_empty()) {
        Some(pem) => {
            let certificate = DerCertificate::from_pem(pem.trim()).map_err(Reason::malformed)?;
            // The chain beside it is the signer's word; the authorities come from the trust root.
            VerificationMaterialContent::X509CertificateChain { certificates: vec![X509Certificate::new(certificate)] }
        }
        None => VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new("")),
    };
    let entry = annotations.get(BUNDLE).filter(|json| !json.is_empty()).map(|json| entry(json)).transpose()?;
    let (entry, other) = match entry {
        Some(Logged::Usual(entry)) => (Some(*entry), None),
        Some(Logged::Intoto(_)) if matches!(signer, VerificationMaterialContent::X509CertificateChain { .. }) => {
            let found = "log entry intoto 0.0.1 with a certificate, only with a key".to_owned();
            return Err(Reason::FormatNotSupported { found });
        }
        Some(Logged::Intoto(entry)) => (None, Some(entry)),
        None => (None, None),
    };
    // An attestation's is over its envelope, which the verifier does not expect; beside the log's word it is not needed.
    let needed = entry.is_none() || matches!(content, SignatureContent::MessageSignature(_));
    let stamp = annotations.get(TIMESTAMP).filter(|json| needed && !json.is_empty());
    let stamp = stamp.map(|json| self::stamp(json)).transpose()?;
    // Version 0.1 asks for a promise; where there is none, only a timestamp can speak for the time.
    let version = if entry.is_some() { MediaType::Bundle0_1 } else { MediaType::Bundle0_2 };
    let material = VerificationMaterial::new(signer)
        .with_tlog_entries(entry.into_iter().collect())
        .with_timestamp_verification_data(TimestampVerificationData::new(stamp.into_iter().collect()));
    Ok((Bundle::new(version, material, content), other))
}

enum Logged {
    /// Of a kind that the verifier knows.
    Usual(Box<TransparencyLogEntry>),
    /// `intoto` 0.0.1.
    Intoto(intoto::Entry),
}

/// The log's promise. Source: cosign, `pkg/cosign/bundle/rekor.go`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RekorBundle {
    signed_entry_timestamp: Option<String>,
    payload: RekorPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RekorPayload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
}

fn entry(json: &str) -> Result<Logged, Reason> {
    let bundle: RekorBundle = serde_json::from_str(json).map_err(Reason::malformed)?;
    let payload = bundle.payload;
    let body = STANDARD.decode(&payload.body).map_err(Reason::malformed)?;
    let kind: Kind = serde_json::from_slice(&body).map_err(Reason::malformed)?;
    let version = match (kind.kind.as_str(), kind.api_version.as_str()) {
        ("hashedrekord", "0.0.1") => Some(KindVersion::HashedRekordV001),
        ("dsse", "0.0.1") => Some(KindVersion::DsseV001),
        ("intoto", "0.0.2") => Some(KindVersion::IntotoV002),
        ("intoto", "0.0.1") => None,
        (kind, version) => {
            return Err(Reason::FormatNotSupported { found: clean(&format!("log entry {kind} {version}")) });
        }
    };
    let log = DigestBytes::from_hex(&payload.log_id);
    let log = log.map_err(|_| Reason::malformed("the log's id is not hexadecimal"))?;
    let log = LogId::new(log.as_bytes().into());
    let time = Timestamp::from_second(payload.integrated_time).map_err(Reason::malformed)?;
    let index = payload.log_index.try_into().map_err(Reason::malformed)?;
    let promise = bundle.signed_entry_timestamp.filter(|promise| !promise.is_empty());
    let promise = promise.ok_or_else(|| Reason::BadProof { detail: "the log entry has no promise".to_owned() })?;
    let promise = STANDARD.decode(promise).map_err(Reason::malformed)?;
    Ok(match version {
        None => Logged::Intoto(intoto::Entry { log: log.key_id, index, time, promise, body }),
        Some(version) => Logged::Usual(Box::new(
            TransparencyLogEntry::new(index, log, version, body.into())
                .with_integrated_time(time)
                .with_inclusion_promise(InclusionPromise::new(SignedTimestamp::new(promise))),
        )),
    })
}

/// Source: cosign, `pkg/cosign/bundle/rfc3161.go`.
fn stamp(json: &str) -> Result<Rfc3161Timestamp, Reason> {
    #[derive(Deserialize)]
    struct Stamp {
        #[serde(rename = "SignedRFC3161Timestamp")]
        signed: String,
    }
    let stamp: Stamp = serde_json::from_str(json).map_err(Reason::malformed)?;
    TimestampToken::from_base64(&stamp.signed).map(Rfc3161Timestamp::new).map_err(Reason::malformed)
}

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
