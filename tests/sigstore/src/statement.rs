//! in-toto statements, and the payload of cosign's legacy signatures.

use crate::fault::Fault;
use serde_json::{Map, Value, json};

/// A statement about subjects, before it is signed.
#[derive(Debug, Clone)]
pub struct Statement {
    of: StatementVersion,
    subjects: Vec<(Option<String>, Value)>,
    predicate_type: String,
    predicate: Option<Value>,
}

/// Version of the statement's own format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementVersion {
    /// `https://in-toto.io/Statement/v0.1`, what cosign writes.
    V0_1,
    /// `https://in-toto.io/Statement/v1`.
    V1,
}

impl Statement {
    /// A statement of version 1 without subjects.
    pub fn new(predicate_type: &str, predicate: Value) -> Self {
        Self {
            of: StatementVersion::V1,
            subjects: vec![],
            predicate_type: predicate_type.to_owned(),
            predicate: Some(predicate),
        }
    }

    /// What `cosign sign` 3 signs for an image: its digest, and no predicate.
    pub fn cosign_signature(sha256: &str) -> Self {
        let mut statement = Self::new(COSIGN_SIGN, Value::Null).unnamed_subject(sha256);
        statement.predicate = None;
        statement
    }

    /// Sets the version.
    pub fn version(mut self, of: StatementVersion) -> Self {
        self.of = of;
        self
    }

    /// Adds a subject with the hexadecimal digits of its SHA-256.
    pub fn subject(mut self, name: &str, sha256: &str) -> Self {
        self.subjects.push((Some(name.to_owned()), json!({ "sha256": bare(sha256) })));
        self
    }

    /// Adds a subject without a name.
    pub fn unnamed_subject(mut self, sha256: &str) -> Self {
        self.subjects.push((None, json!({ "sha256": bare(sha256) })));
        self
    }

    /// JSON as it is signed, with the fault if it concerns statements.
    pub(crate) fn bytes(&self, fault: Option<Fault>) -> Vec<u8> {
        let mut statement = self.clone();
        match fault {
            Some(Fault::EmptySubject) => statement.subjects.clear(),
            Some(Fault::SubjectOnlySha512) => {
                for (_, digest) in &mut statement.subjects {
                    *digest = json!({ "sha512": "cd".repeat(64) });
                }
            }
            Some(Fault::WrongSubject) => {
                for (_, digest) in &mut statement.subjects {
                    *digest = json!({ "sha256": OTHER_DIGEST });
                }
            }
            Some(Fault::WrongPredicateType) => statement.predicate_type = OTHER_PREDICATE.to_owned(),
            _ => {}
        }
        let subjects = statement.subjects.into_iter().map(|(name, digest)| {
            let mut subject = Map::from_iter([("digest".to_owned(), digest)]);
            subject.extend(name.map(|name| ("name".to_owned(), name.into())));
            Value::Object(subject)
        });
        let mut json = json!({
            "_type": match self.of {
                StatementVersion::V0_1 => "https://in-toto.io/Statement/v0.1",
                StatementVersion::V1 => "https://in-toto.io/Statement/v1",
            },
            "subject": subjects.collect::<Vec<_>>(),
            "predicateType": statement.predicate_type,
        });
        if let Some(predicate) = statement.predicate {
            json["predicate"] = predicate;
        }
        json.to_string().into_bytes()
    }

    /// The predicate type it claims, with the fault.
    pub(crate) fn predicate_type(&self, fault: Option<Fault>) -> &str {
        if fault == Some(Fault::WrongPredicateType) { OTHER_PREDICATE } else { &self.predicate_type }
    }
}

/// The payload of a legacy signature: `SimpleSigning` of containers/image with cosign's type.
pub(crate) fn simple_signing(reference: &str, sha256: &str, annotations: &Value, fault: Option<Fault>) -> Vec<u8> {
    let digest = if fault == Some(Fault::WrongSubject) { OTHER_DIGEST } else { bare(sha256) };
    let of = if fault == Some(Fault::WrongPayloadType) { "atomic container signature" } else { COSIGN_TYPE };
    json!({
        "critical": {
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": format!("sha256:{digest}") },
            "type": of,
        },
        "optional": annotations,
    })
    .to_string()
    .into_bytes()
}

/// Digits without the algorithm before them.
fn bare(sha256: &str) -> &str {
    sha256.strip_prefix("sha256:").unwrap_or(sha256)
}

/// Predicate type of the statements that `cosign sign` makes.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
/// `critical.type` of a legacy signature.
pub const COSIGN_TYPE: &str = "cosign container image signature";
/// The predicate type of [`Fault::WrongPredicateType`].
pub const OTHER_PREDICATE: &str = "https://example.com/another-predicate/v1";
/// The SHA-256 of [`Fault::WrongSubject`].
pub const OTHER_DIGEST: &str = "abababababababababababababababababababababababababababababababab";
