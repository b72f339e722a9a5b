//! One proof against one root: a bundle's signature, certificate, times and log entries.

use jiff::Timestamp;
use serde::Serialize;
use sigstore_bundle::Error as Shape;
use sigstore_crypto::VerificationKey;
use sigstore_types::{
    Artifact, Bundle, DsseEnvelope, HashAlgorithm, KindVersion, Sha256Hash, SignatureBytes, SignatureContent,
    bundle::{MediaType, TimestampVerificationData, TransparencyLogEntry, VerificationMaterialContent},
};
use sigstore_verify::{
    CertificateError, Error, PublicKeyVerificationPolicy, TimestampError, TransparencyLogError, VerificationPolicy,
};

use super::{certificate, intoto, keys::PublicKey, root::Root};
use crate::{
    evidence::Evidence,
    identity::Certificate,
    proof::LogEntry,
    refusal::{Reason, clean},
};

/// What was signed: bytes at hand, or bytes of which only the SHA-256 is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signed<'a> {
    Bytes(&'a [u8]),
    Sha256([u8; 32]),
}

impl<'a> From<Signed<'a>> for Artifact<'a> {
    fn from(signed: Signed<'a>) -> Self {
        match signed {
            Signed::Bytes(bytes) => Artifact::from_blob(bytes),
            Signed::Sha256(digest) => Artifact::from_digest(Sha256Hash::new(digest)),
        }
    }
}

/// What an attestation of cosign 1 and 2 has that a bundle cannot hold.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    /// The envelope's own bytes: its timestamp is over them, not over the signature.
    pub(crate) envelope: &'a [u8],
    /// A log entry of a kind that the verifier does not know.
    pub(crate) entry: Option<intoto::Entry>,
}

/// What a check found to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checked {
    pub(crate) evidence: Evidence,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) times: Vec<Timestamp>,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) sct: bool,
}

/// Reads a bundle.
///
/// # Errors
/// [`Reason::Malformed`], and [`Reason::FormatNotSupported`] for a version or entry kind that is unknown.
pub(crate) fn bundle(json: &[u8]) -> Result<Bundle, Reason> {
    let text = std::str::from_utf8(json).map_err(Reason::malformed)?;
    Bundle::from_json(text).map_err(|error| match error.to_string() {
        text if text.contains("unsupported Rekor entry format") || text.contains("media type") => {
            Reason::FormatNotSupported { found: clean(&text) }
        }
        text => Reason::malformed(text),
    })
}

/// The envelope of a bundle as found beside an image: version 0.3, whose log entries all have their proof. Nothing signs the
/// version, so that a bundle relabelled as an older one would pass with a promise alone.
///
/// # Errors
/// [`Reason::FormatNotAllowed`], [`Reason::EvidenceMissing`].
pub(crate) fn content(bundle: &Bundle) -> Result<&DsseEnvelope, Reason> {
    let allowed = MediaType::Bundle0_3.to_string();
    if bundle.media_type() != MediaType::Bundle0_3 {
        return Err(Reason::FormatNotAllowed { allowed, found: bundle.media_type().to_string() });
    }
    let SignatureContent::DsseEnvelope(envelope) = &bundle.content else {
        return Err(Reason::FormatNotAllowed {
            allowed: "a DSSE envelope".to_owned(),
            found: "a message signature".to_owned(),
        });
    };
    if bundle.verification_material.tlog_entries.iter().any(|entry| entry.inclusion_proof.is_none()) {
        return Err(Reason::BadProof { detail: "a log entry has no proof of inclusion".to_owned() });
    }
    Ok(envelope)
}

/// What a bundle of any version is about, by its own word.
pub(crate) enum About<'a> {
    /// An envelope, whose statement says it.
    Statement(&'a DsseEnvelope),
    /// A message, by its SHA-256 where that is given.
    Message(Option<String>),
}

/// Reads what a bundle is about.
pub(crate) fn about(bundle: &Bundle) -> About<'_> {
    match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) => About::Statement(envelope),
        SignatureContent::MessageSignature(message) => {
            let digest = message.message_digest.as_ref().filter(|digest| digest.algorithm == HashAlgorithm::Sha2256);
            let sha256 = digest.and_then(|digest| Sha256Hash::try_from(digest.digest.as_bytes()).ok());
            About::Message(sha256.map(|sha256| sha256.to_hex()))
        }
        _ => About::Message(None),
    }
}

/// A SHA-256 from hexadecimal.
pub(crate) fn sha256_of_hex(hex: &str) -> Option<[u8; 32]> {
    Sha256Hash::from_hex(hex).ok().map(|hash| *hash.as_bytes())
}

/// SHA-512, in hexadecimal.
pub(crate) fn sha512(bytes: &[u8]) -> String {
    sigstore_crypto::sha512(bytes).to_hex()
}

/// Who a bundle says made it, and what it says; neither is checked.
pub(crate) struct Made {
    pub(crate) by: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) evidence: Evidence,
}

impl Made {
    /// What [`made`] will read from a bundle by this key.
    pub(crate) fn with(key: &PublicKey, payload: &[u8], evidence: Evidence) -> Self {
        Self { by: format!("key {}", key.hint()), payload: payload.to_vec(), evidence }
    }

    /// Whether another bundle says the same by the same signer, on no less evidence.
    pub(crate) fn is_said_by(&self, other: &Self) -> bool {
        self.by == other.by && self.payload == other.payload && other.evidence >= self.evidence
    }
}

/// Reads what a bundle claims of itself.
///
/// # Errors
/// As [`bundle`] and [`content`].
pub(crate) fn made(json: &[u8]) -> Result<Made, Reason> {
    let bundle = bundle(json)?;
    let payload = content(&bundle)?.payload.as_bytes().to_vec();
    let by = match (&bundle.verification_material.content, bundle.signing_certificate()) {
        (VerificationMaterialContent::PublicKey(key), _) => format!("key {}", key.hint),
        (_, Some(der)) => {
            let info = sigstore_crypto::parse_certificate_info(der).map_err(Reason::malformed)?;
            certificate::read(&info).to_string()
        }
        _ => return Err(Reason::malformed("it names no signer")),
    };
    Ok(Made { by, payload, evidence: carried(&bundle) })
}

/// As what a bundle's evidence will count if it holds.
fn carried(bundle: &Bundle) -> Evidence {
    let material = &bundle.verification_material;
    match (material.tlog_entries.is_empty(), material.timestamp_verification_data.rfc3161_timestamps.is_empty()) {
        (false, _) => Evidence::Log,
        (true, false) => Evidence::Timestamp,
        (true, true) => Evidence::Signature,
    }
}

/// Verifies a bundle signed with a certificate of the root's authorities. Whose certificate it is, is for the caller to judge.
/// Log entries that are there must hold; where there are none, a signed timestamp must.
///
/// # Errors
/// The reason for what does not hold.
pub(crate) fn keyless(
    root: &Root,
    bundle: &Bundle,
    signed: Signed<'_>,
    beside: Option<&Beside<'_>>,
) -> Result<Checked, Reason> {
    if let VerificationMaterialContent::PublicKey(key) = &bundle.verification_material.content {
        let (expected, found) = ("a certificate".to_owned(), clean(&format!("key {}", key.hint)));
        return Err(Reason::WrongIdentity { expected, found });
    }
    let logged = !bundle.verification_material.tlog_entries.is_empty();
    let stamped = !bundle.verification_material.timestamp_verification_data.rfc3161_timestamps.is_empty();
    if beside.is_some() && !logged && stamped {
        // The verifier holds certificates against timestamps of signatures only.
        let found = "a certificate with a timestamp of the whole envelope and no log entry".to_owned();
        return Err(Reason::FormatNotSupported { found });
    }
    let mut policy = VerificationPolicy::any_identity();
    if !logged {
        policy = policy.skip_tlog_unsafe();
    }
    // A root without logs of certificates is of an instance that has none: its certificates carry no timestamps of them.
    let sct = !root.trusted().ctlogs.is_empty();
    if !sct {
        policy = policy.skip_sct();
    }
    let result =
        root.verifier().verify(Artifact::from(signed), bundle, &policy).map_err(|error| reason(error, bundle))?;
    let proved = result.certificate_verified()
        && result.sct_verified() == sct
        && result.tlog_verified() == logged
        && !result.verified_timestamps().is_empty();
    if !proved {
        return Err(Reason::BadProof { detail: "the verification left something out".to_owned() });
    }
    Ok(Checked {
        evidence: if logged { Evidence::Log } else { Evidence::Timestamp },
        certificate: result.certificate().map(certificate::read),
        times: result.verified_timestamps().to_vec(),
        log: entries(root, bundle)?,
        sct,
    })
}

/// Verifies a bundle signed by `key`, with as much evidence as `needed`: more that is there is not looked at. That an
/// envelope's statement is about the subject is for the caller to judge.
///
/// # Errors
/// The reason for what does not hold.
pub(crate) fn keyed(
    root: Option<&Root>,
    key: &PublicKey,
    needed: Evidence,
    bundle: &Bundle,
    signed: Signed<'_>,
    beside: Option<&Beside<'_>>,
) -> Result<Checked, Reason> {
    let VerificationMaterialContent::PublicKey(hint) = &bundle.verification_material.content else {
        let found = Some("a certificate's".to_owned());
        return Err(Reason::UnknownKey { expected: key.fingerprint().clone(), found });
    };
    let (message, signature) = match (&bundle.content, signed) {
        (SignatureContent::DsseEnvelope(envelope), _) => (Some(envelope.pae()), &envelope.signature.sig),
        (SignatureContent::MessageSignature(message), Signed::Bytes(bytes)) => {
            (Some(bytes.to_vec()), &message.signature)
        }
        (SignatureContent::MessageSignature(message), Signed::Sha256(_)) => (None, &message.signature),
        _ => return Err(Reason::malformed("it holds no signature")),
    };
    let verifies = message.is_some_and(|message| key.verifies(&message, signature));
    let by_another = || match hint.hint == key.hint() {
        true => Reason::BadSignature { detail: "it names this key, but the key does not verify it".to_owned() },
        false => {
            let found = (!hint.hint.is_empty()).then(|| clean(&hint.hint));
            Reason::UnknownKey { expected: key.fingerprint().clone(), found }
        }
    };
    let stamps = &bundle.verification_material.timestamp_verification_data;
    let entry = beside.and_then(|beside| beside.entry.as_ref());
    let found = if entry.is_some() { Evidence::Log } else { carried(bundle) };
    if (needed < Evidence::Log || entry.is_some()) && !verifies {
        return Err(by_another());
    }
    if found < needed {
        return Err(Reason::EvidenceMissing { expected: needed, found });
    }
    let mut checked = Checked { evidence: needed, certificate: None, times: Vec::new(), log: Vec::new(), sct: false };
    let root = || root.ok_or(Reason::NoTrustRoot { needed });
    match needed {
        Evidence::Signature => {}
        // An entry of a log has a time too; it counts as the log's word, which is more.
        Evidence::Timestamp if stamps.rfc3161_timestamps.is_empty() => {
            return keyed(Some(root()?), key, Evidence::Log, bundle, signed, beside);
        }
        Evidence::Timestamp => {
            let over = beside.map_or(signature.as_bytes(), |beside| beside.envelope);
            checked.times = timestamps(root()?, stamps, over)?;
        }
        Evidence::Log if let Some((entry, beside)) = entry.zip(beside) => {
            checked.log = vec![entry.check(root()?, key, beside.envelope)?];
            checked.times = checked.log.iter().filter_map(|entry| entry.integrated).collect();
        }
        Evidence::Log => {
            let policy = PublicKeyVerificationPolicy::new(key.der().clone());
            let root = root()?;
            let verified = root.verifier().verify(Artifact::from(signed), bundle, &policy);
            let verified = verified.map_err(|error| match error {
                // The verifier knows one scheme for each kind of key.
                Error::SignatureInvalid(_) if verifies => Reason::FormatNotSupported {
                    found: format!("a log entry of a signature by {} with another hash", key.algorithm()),
                },
                Error::SignatureInvalid(_) => by_another(),
                // It reads such entries with P-256 keys only.
                Error::TransparencyLog(TransparencyLogError::MalformedEntry(_)) if verifies && of_rekor_2(bundle) => {
                    let found = format!("an entry in a log of version 2 of a signature by {}", key.algorithm());
                    Reason::FormatNotSupported { found }
                }
                error => reason(error, bundle),
            })?;
            if !verified.tlog_verified() {
                return Err(Reason::BadProof { detail: "the verification left the log out".to_owned() });
            }
            checked.times = verified.verified_timestamps().to_vec();
            checked.log = entries(root, bundle)?;
        }
    }
    Ok(checked)
}

/// Every timestamp must be one of the root's authorities.
fn timestamps(root: &Root, stamps: &TimestampVerificationData, over: &[u8]) -> Result<Vec<Timestamp>, Reason> {
    let authorities = root.trusted().tsa_authorities();
    let over = SignatureBytes::from_bytes(over);
    let verified = stamps.rfc3161_timestamps.iter().map(|stamp| {
        let mut last = "the trust root names no timestamp authority".to_owned();
        for authority in &authorities {
            match sigstore_tsa::verify_timestamp_for_authority(&stamp.signed_timestamp, &over, authority) {
                Ok(time) => return Ok(time),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Reason::BadTime { detail: clean(&last) })
    });
    verified.collect()
}

fn of_rekor_2(bundle: &Bundle) -> bool {
    let entries = &bundle.verification_material.tlog_entries;
    entries.iter().any(|entry| entry.kind_version == KindVersion::HashedRekordV002)
}

/// The facts of entries that were verified, as far as the log signed them.
///
/// # Errors
/// [`Reason::BadProof`] for an entry that names another log than the one that signed its checkpoint.
fn entries(root: &Root, bundle: &Bundle) -> Result<Vec<LogEntry>, Reason> {
    let entry = |entry: &TransparencyLogEntry| {
        let log = entry.log_id.key_id.to_string();
        // A promise signs the log's name, index and time; a proof alone only where the entry is in the tree.
        if entry.inclusion_promise.is_some() {
            return Ok(LogEntry { log, index: entry.log_index.get(), integrated: entry.integrated_time });
        }
        let proof = entry.inclusion_proof.as_ref();
        let checkpoint = proof.and_then(|proof| proof.checkpoint.checkpoint());
        let key = root.trusted().rekor_key_for_log(&entry.log_id.key_id).ok();
        let key = key.and_then(|key| VerificationKey::from_spki(&key).ok());
        let signed = key.zip(checkpoint).is_some_and(|(key, checkpoint)| {
            let mut signatures = checkpoint.signatures().iter();
            signatures.any(|signature| key.verify(checkpoint.signed_data(), &signature.signature).is_ok())
        });
        if !signed {
            return Err(Reason::BadProof { detail: "the log that it names did not sign its checkpoint".to_owned() });
        }
        let of_version_2 = entry.kind_version == KindVersion::HashedRekordV002;
        let index = proof.filter(|_| !of_version_2).map_or(entry.log_index, |proof| proof.log_index);
        Ok(LogEntry { log, index: index.get(), integrated: None })
    };
    bundle.verification_material.tlog_entries.iter().map(entry).collect()
}

/// Our reason for what the verifier says.
fn reason(error: Error, bundle: &Bundle) -> Reason {
    let detail = clean(&error.to_string());
    let logged = !bundle.verification_material.tlog_entries.is_empty();
    match error {
        Error::SignatureInvalid(_) => Reason::BadSignature { detail },
        // The path is built first, as of the time of signing; a test holds these words to the pin.
        Error::Certificate(CertificateError::ChainInvalid(why))
            if why.contains("CertExpired") || why.contains("CertNotValidYet") =>
        {
            Reason::BadTime { detail }
        }
        Error::Certificate(
            CertificateError::NotYetValid { .. }
            | CertificateError::Expired { .. }
            | CertificateError::NoValidAuthority { .. },
        )
        | Error::Timestamp(TimestampError::Invalid(_) | TimestampError::OutsideAuthorityValidity { .. }) => {
            Reason::BadTime { detail }
        }
        // There is a log's word, but none of when.
        Error::Timestamp(_) if logged => Reason::BadTime { detail },
        Error::Timestamp(_) | Error::Bundle(Shape::MissingSigningTimeEvidence | Shape::MissingTimestamp) => {
            Reason::EvidenceMissing { expected: Evidence::Timestamp, found: Evidence::Signature }
        }
        Error::Bundle(Shape::MissingInclusionProof(_) | Shape::MissingInclusionPromise(_)) => {
            Reason::EvidenceMissing { expected: Evidence::Log, found: Evidence::Signature }
        }
        Error::Certificate(_) | Error::TrustedCertificate(_) => Reason::BadCertificate { detail },
        Error::TransparencyLog(TransparencyLogError::IntegratedTime(_)) => {
            let now = Timestamp::now();
            let times = bundle.verification_material.tlog_entries.iter().filter_map(|entry| entry.integrated_time);
            match times.max().filter(|time| *time > now) {
                Some(found) => Reason::ClockBehind { found, now },
                None => Reason::BadTime { detail },
            }
        }
        Error::TransparencyLog(_)
        | Error::Bundle(Shape::MissingCheckpoint | Shape::LogIndexOutOfRange { .. } | Shape::CheckpointRootMismatch) => {
            Reason::BadProof { detail }
        }
        // What the statement or message is about was compared before: here it is the log's entry.
        Error::ArtifactMismatch(_) => Reason::BadProof { detail },
        Error::UnsupportedBundle(_) | Error::UnsupportedArtifact(_) => Reason::FormatNotSupported { found: detail },
        _ => Reason::Malformed { detail },
    }
}
