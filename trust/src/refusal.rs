//! Why something found is not taken: one reason for each cause, with what was expected and what was found.

use dna::Digest;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    evidence::Evidence,
    identity::{Identity, any_of},
    place::Origin,
};

/// Something that was found, and why it proves nothing to one signer's rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// What was found, and where.
    pub origin: Origin,
    /// The rule it was held against; none where no rule could make it readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why a candidate is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Reason {
    /// Bytes that are not what their media type says.
    #[error("it cannot be read: {detail}")]
    Malformed {
        /// What is wrong.
        detail: String,
    },
    /// A kind of signature that nothing here can check, such as Notation's.
    #[error("the format {found} is not supported")]
    FormatNotSupported {
        /// The format.
        found: String,
    },
    /// A format that could be checked, but that is not accepted where it was found.
    #[error("the format {found} is not allowed here, only {allowed}")]
    FormatNotAllowed {
        /// What would be.
        allowed: String,
        /// The format.
        found: String,
    },
    /// Not as much proof of when and where it was signed as the rule asks for.
    #[error("the rule asks for {expected}, but there is only {found}")]
    EvidenceMissing {
        /// What the rule needs.
        expected: Evidence,
        /// What there is.
        found: Evidence,
    },
    /// Signed by another key, or not by any key.
    #[error("it is not signed by key {expected}{}", by(found.as_deref()))]
    UnknownKey {
        /// SHA-256 of the key's SubjectPublicKeyInfo.
        expected: Digest,
        /// The key that is named in it, as it is named.
        found: Option<String>,
    },
    /// A signature by the right kind of signer that does not verify.
    #[error("the signature does not verify: {detail}")]
    BadSignature {
        /// What failed.
        detail: String,
    },
    /// A certificate that is not one of the trust root's authorities, or not for signing.
    #[error("the signing certificate is not accepted: {detail}")]
    BadCertificate {
        /// What failed.
        detail: String,
    },
    /// A certificate for somebody else.
    #[error("it is signed by {found}, not by {expected}")]
    WrongIdentity {
        /// Who the rule names.
        expected: String,
        /// Who the certificate names.
        found: String,
    },
    /// A time that is missing, outside a validity, or not signed.
    #[error("the time of signing is not accepted: {detail}")]
    BadTime {
        /// What failed.
        detail: String,
    },
    /// A log entry from the future: this machine's clock is behind.
    #[error("this machine's clock ({now}) is behind the log's ({found}): set the clock")]
    ClockBehind {
        /// The log's time.
        found: Timestamp,
        /// This machine's.
        now: Timestamp,
    },
    /// A proof of the transparency log that does not hold, or is about something else.
    #[error("the proof of the transparency log does not hold: {detail}")]
    BadProof {
        /// What failed.
        detail: String,
    },
    /// A statement about something else.
    #[error("it is about {}, not about {expected}", list(found))]
    WrongSubject {
        /// The digest that was asked about.
        expected: Digest,
        /// The digests it names, some of them.
        found: Vec<String>,
    },
    /// Another predicate type than the one asked for.
    #[error("its predicate type is {found}, not {expected}")]
    WrongPredicate {
        /// Asked for.
        expected: String,
        /// Found.
        found: String,
    },
    /// A claim of the signed payload with another value.
    #[error("its {claim} is {found}, not {expected}")]
    WrongClaim {
        /// The claim.
        claim: String,
        /// Asked for.
        expected: String,
        /// Found.
        found: String,
    },
    /// The rule needs a trust root and has none.
    #[error("no trust root is given that could prove {needed}")]
    NoTrustRoot {
        /// What it is needed for.
        needed: Evidence,
    },
}

impl Reason {
    pub(crate) fn malformed(detail: impl ToString) -> Self {
        Self::Malformed { detail: clean(&detail.to_string()) }
    }

    /// Another kind of signer than a certificate: not whom the rule names.
    pub(crate) fn expecting(self, identities: &[Identity]) -> Self {
        match self {
            Self::WrongIdentity { found, .. } => Self::WrongIdentity { expected: any_of(identities), found },
            other => other,
        }
    }
}

fn by(found: Option<&str>) -> String {
    found.map_or_else(String::new, |found| format!(" but by {}", clean(found)))
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "nothing with a SHA-256 digest".to_owned() } else { found.join(", ") }
}

/// Outside text, fit for a message: no control characters, not long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_OUTSIDE_CHARS).collect()
}

const MAX_OUTSIDE_CHARS: usize = 240;
