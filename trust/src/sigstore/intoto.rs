//! Log entries of kind `intoto` 0.0.1, which Tekton Chains still has made for the attestations of its key, and which the
//! verifier's types do not know. The entry holds no signature: key and payload bind it. Source: Rekor,
//! `pkg/types/intoto/v0.0.1/intoto_v0_0_1_schema.json`; `pkg/api/entries.go` for the promise.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sigstore_crypto::VerificationKey;
use sigstore_types::{DerPublicKey, DsseEnvelope, LogIndex, LogKeyId, Sha256Hash, SignatureBytes};

use super::{keys::PublicKey, root::Root};
use crate::{
    proof::LogEntry,
    refusal::{Reason, clean},
};

/// An entry with its log's promise, neither yet believed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) log: LogKeyId,
    pub(super) index: LogIndex,
    pub(super) time: Timestamp,
    pub(super) promise: Vec<u8>,
    pub(super) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Body {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    content: Content,
    public_key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    hash: Option<Hash>,
    payload_hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

/// What a promise signs, its keys in the order of canonical JSON (RFC 8785).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Promised<'a> {
    body: &'a str,
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    log_index: u64,
}

impl Entry {
    /// Holds it against one root, and against the envelope that `key` signed, as it is stored.
    ///
    /// # Errors
    /// [`Reason::BadProof`] for a promise that is not the log's, or an entry about something else; [`Reason::ClockBehind`];
    /// [`Reason::Malformed`].
    pub(super) fn check(&self, root: &Root, key: &PublicKey, envelope: &[u8]) -> Result<LogEntry, Reason> {
        let bad = |detail: &str| Reason::BadProof { detail: clean(detail) };
        let log = root.trusted().rekor_key_for_log_at(&self.log, self.time);
        let log =
            log.map_err(|error| bad(&format!("no log of the trust root promised it at {}: {error}", self.time)))?;
        let log = VerificationKey::from_spki(&log).map_err(|error| bad(&error.to_string()))?;
        let promise = SignatureBytes::from_bytes(&self.promise);
        log.verify(&self.promised()?, &promise).map_err(|error| bad(&format!("the log's promise: {error}")))?;
        let now = Timestamp::now();
        if self.time > now {
            return Err(Reason::ClockBehind { found: self.time, now });
        }

        let Body { spec } = serde_json::from_slice(&self.body).map_err(Reason::malformed)?;
        let pem = STANDARD.decode(&spec.public_key).map_err(Reason::malformed)?;
        let pem = String::from_utf8(pem).map_err(Reason::malformed)?;
        if DerPublicKey::from_pem(pem.trim()).map_err(Reason::malformed)? != *key.der() {
            return Err(bad("the entry is about another key"));
        }
        let signed: DsseEnvelope = serde_json::from_slice(envelope).map_err(Reason::malformed)?;
        if !spec.content.payload_hash.is_of(signed.payload.as_bytes()) {
            return Err(bad("the entry is about another payload"));
        }
        if spec.content.hash.is_some_and(|hash| !hash.is_of(envelope)) {
            return Err(bad("the entry is about another envelope"));
        }
        Ok(LogEntry { log: self.log.to_string(), index: self.index.get(), integrated: Some(self.time) })
    }

    fn promised(&self) -> Result<Vec<u8>, Reason> {
        let id = Sha256Hash::try_from(self.log.as_bytes()).map_err(Reason::malformed)?;
        let promised = Promised {
            body: &STANDARD.encode(&self.body),
            integrated_time: self.time.as_second(),
            log_id: id.to_hex(),
            log_index: self.index.get(),
        };
        serde_json::to_vec(&promised).map_err(Reason::malformed)
    }
}

impl Hash {
    fn is_of(&self, bytes: &[u8]) -> bool {
        self.algorithm == "sha256" && self.value == sigstore_crypto::sha256(bytes).to_hex()
    }
}
