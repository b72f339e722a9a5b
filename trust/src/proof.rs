//! What was verified. Only this crate makes a [`Verified`]: holding one is the proof that the check was made.

use std::ops::Deref;

use dna::Digest;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{evidence::Evidence, identity::Certificate, place::Origin, sigstore::RootFacts};

/// A fact that a check made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn by_check(fact: T) -> Self {
        Self(fact)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Who signed something about a subject, and what speaks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The name of the rule that it satisfies.
    pub signer: String,
    /// Who signed.
    pub by: By,
    /// What was found to hold; at least what the rule asks for.
    pub evidence: Evidence,
    /// Times that an authority or log signed, the earliest first; none for a signature alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Timestamp>,
    /// Entries in transparency logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogEntry>,
    /// Whether a log of certificates signed for the certificate.
    pub certificate_logged: bool,
    /// The trust root it rests on; none for a key alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootFacts>,
    /// Which of the things found carries it, and for which digest.
    pub origin: Origin,
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// The holder of a key: SHA-256 of its SubjectPublicKeyInfo.
    Key(Digest),
    /// Whom a certificate names.
    Certificate(Certificate),
}

/// An entry in a transparency log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// The log's id, in base64.
    pub log: String,
    /// The entry's index: over all shards where the log promised it, else in the tree of its proof.
    pub index: u64,
    /// When the log took it, where the log signed that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integrated: Option<Timestamp>,
}

/// Somebody signed the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// Who and how.
    #[serde(flatten)]
    pub proof: Proof,
    /// Annotations under the signature.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub annotations: Value,
}

/// Somebody made a statement about the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// Who and how.
    #[serde(flatten)]
    pub proof: Proof,
    /// The kind of statement: a URI.
    pub predicate_type: String,
    /// The statement's content.
    pub predicate: Value,
}
