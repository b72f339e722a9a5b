//! in-toto statements: bytes in, subjects and predicate out. Sources: in-toto attestation framework, `spec/v1/statement.md`
//! and `spec/v0.1.0/README.md`.

use std::collections::BTreeMap;

use dna::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::{Reason, clean};

/// A statement about subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// The version.
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// What it says, by type: a URI.
    pub predicate_type: String,
    /// What it says; absent from signatures of cosign before 3.0.5.
    #[serde(default = "nothing")]
    pub predicate: Value,
}

/// Something that a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A name; nobody relies on it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Digests by algorithm, in hexadecimal.
    pub digest: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub annotations: Value,
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

impl Statement {
    /// A statement of version 1 about one digest.
    #[must_use]
    pub fn about(subject: &Digest, predicate_type: &str, predicate: Value) -> Self {
        let digest = BTreeMap::from([("sha256".to_owned(), subject.hex().to_owned())]);
        let subject = Subject { name: String::new(), digest, annotations: Value::Null };
        Self { kind: V1.to_owned(), subject: vec![subject], predicate_type: predicate_type.to_owned(), predicate }
    }

    /// Reads the payload of an envelope.
    ///
    /// # Errors
    /// [`Reason::FormatNotSupported`] for another payload type or version, [`Reason::Malformed`].
    pub(crate) fn read(payload_type: &str, payload: &[u8]) -> Result<Self, Reason> {
        if payload_type != PAYLOAD_TYPE {
            return Err(Reason::FormatNotSupported { found: clean(&format!("payload {payload_type}")) });
        }
        let statement: Self = serde_json::from_slice(payload).map_err(Reason::malformed)?;
        if statement.kind != V1 && statement.kind != V0_1 {
            return Err(Reason::FormatNotSupported { found: clean(&format!("statement {}", statement.kind)) });
        }
        if statement.subject.len() > MAX_SUBJECTS {
            return Err(Reason::malformed(format!("it names more than {MAX_SUBJECTS} subjects")));
        }
        Ok(statement)
    }

    /// Whether a subject has this SHA-512, in hexadecimal: files may be named by it alone, images never are.
    pub(crate) fn names_sha512(&self, hex: &str) -> bool {
        let mut digests = self.subject.iter().filter_map(|subject| subject.digest.get("sha512"));
        digests.any(|sha512| sha512.eq_ignore_ascii_case(hex))
    }

    /// # Errors
    /// [`Reason::WrongSubject`] where no subject has this SHA-256.
    pub(crate) fn is_about(&self, digest: &Digest) -> Result<&Subject, Reason> {
        let digests = || self.subject.iter().filter_map(|subject| Some((subject, subject.digest.get("sha256")?)));
        let found = digests().find(|(_, sha256)| sha256.eq_ignore_ascii_case(digest.hex()));
        found.map(|(subject, _)| subject).ok_or_else(|| Reason::WrongSubject {
            expected: digest.clone(),
            found: digests().take(MAX_SHOWN).map(|(_, sha256)| clean(&format!("sha256:{sha256}"))).collect(),
        })
    }
}

/// The payload type of an envelope around a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The predicate type by which cosign 3 signs an image.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const V1: &str = "https://in-toto.io/Statement/v1";
const V0_1: &str = "https://in-toto.io/Statement/v0.1";
/// As sigstore-go has it.
const MAX_SUBJECTS: usize = 1024;
const MAX_SHOWN: usize = 5;
