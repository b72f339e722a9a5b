//! What is known of an image when somebody decides about it: plain values, three-valued, no proof in the types. `trust` and the
//! webhook make them, `policies` reads them. Facts may be cached by digest; verdicts never are.

use std::{collections::BTreeMap, collections::BTreeSet, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Dna, Expectation, ImageUse, Kinship, Platform};

/// A fact that was looked for.
///
/// In JSON one of `{"known": …}`, `{"absent": {"tried": […]}}`, `{"unknown": {"cause": …, "detail": …}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fact<T> {
    /// It is this.
    Known(T),
    /// Everything was asked, and it is not there.
    Absent {
        /// Where it was looked for.
        tried: Vec<String>,
    },
    /// Nobody can say: never to be read as "not there".
    Unknown {
        /// Why, for rules.
        cause: Cause,
        /// Why, for people.
        detail: String,
        /// What was known the last time, where that is kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<Last<T>>,
    },
}

/// What is not said was not asked.
impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::not_asked()
    }
}

/// What was known before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Last<T> {
    /// The fact.
    pub value: T,
    /// When it was established, RFC 3339.
    pub as_of: String,
}

impl<T> Fact<T> {
    /// Nobody looked.
    pub fn not_asked() -> Self {
        Self::unknown(Cause::NotAsked, "it was not looked for")
    }

    /// Unknown, without an earlier value.
    pub fn unknown(cause: Cause, detail: impl Into<String>) -> Self {
        Self::Unknown { cause, detail: detail.into(), last: None }
    }

    /// The fact, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent { .. } | Self::Unknown { .. } => None,
        }
    }

    /// The same absence or ignorance of something that follows from the fact; of a known one, that nobody looked.
    pub fn missing<U>(&self) -> Fact<U> {
        match self {
            Self::Known(_) => Fact::not_asked(),
            Self::Absent { tried } => Fact::Absent { tried: tried.clone() },
            Self::Unknown { cause, detail, .. } => Fact::unknown(*cause, detail.clone()),
        }
    }

    /// The same answer about something that follows from the fact.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(of(value)),
            Self::Absent { tried } => Fact::Absent { tried },
            Self::Unknown { cause, detail, last } => {
                let last = last.map(|last| Last { value: of(last.value), as_of: last.as_of });
                Fact::Unknown { cause, detail, last }
            }
        }
    }
}

/// Why a fact is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cause {
    /// The registry did not answer, or not sensibly.
    Registry,
    /// The registry asks to come back later.
    Throttled,
    /// The registry refuses the credentials at hand, or they cannot be read.
    Credentials,
    /// Time ran out.
    Deadline,
    /// The trust root is too old to judge by, or missing.
    TrustExpired,
    /// The image is being analyzed.
    AnalysisPending {
        /// Seconds after which asking again is worthwhile, where that can be estimated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_seconds: Option<u64>,
    },
    /// The analysis failed, or the image is of a kind that is not analyzed.
    AnalysisFailed,
    /// The ledger did not answer.
    Ledger,
    /// Nobody looked.
    NotAsked,
}

impl Cause {
    /// Its name, as rules and JSON spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Throttled => "throttled",
            Self::Credentials => "credentials",
            Self::Deadline => "deadline",
            Self::TrustExpired => "trustExpired",
            Self::AnalysisPending { .. } => "analysisPending",
            Self::AnalysisFailed => "analysisFailed",
            Self::Ledger => "ledger",
            Self::NotAsked => "notAsked",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything known of one image in one place of a pod, for one platform: what rules are held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectFacts {
    /// Where and how the pod names it.
    pub image: NamedImage,
    /// What the reference leads to.
    #[serde(default)]
    pub resolved: Fact<Resolved>,
    /// Ids of the signers whose signatures and attestations were looked for: what another one signed is not known.
    #[serde(default)]
    pub signers: BTreeSet<String>,
    /// Signatures that hold, by those signers.
    #[serde(default)]
    pub signatures: Fact<Vec<SignatureFact>>,
    /// Attestations that hold, by those signers.
    #[serde(default)]
    pub attestations: Fact<Vec<AttestationFact>>,
    /// Places of signatures and attestations that did not answer: what is known beside them is no less true, but what is
    /// missing may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// What was found and holds for no signer: why not, for messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<RefusalFact>,
    /// What a container of the image may do.
    #[serde(default)]
    pub dna: Fact<DnaFact>,
    /// What known images say of the DNA: whether it is like others of its software. It names none of them.
    #[serde(default)]
    pub kinship: Fact<Arc<Kinship>>,
    /// The DNA bound to this container of the pod, with its findings.
    #[serde(default)]
    pub expectation: Fact<Arc<Expectation>>,
}

/// An image as a pod names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedImage {
    /// Where the pod names it, and the reference as written.
    #[serde(flatten)]
    pub used: ImageUse,
    /// Host, and port where one is named, normalized: `docker.io`.
    pub registry: String,
    /// Path within the registry, normalized: `library/nginx`.
    pub repository: String,
    /// The tag, where one is written or implied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest, where one is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// What the reference names: an index or a manifest.
    pub digest: Digest,
    /// The index, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_digest: Option<Digest>,
    /// The manifest of the platform.
    pub platform_digest: Digest,
    /// The platform.
    pub platform: Platform,
    /// The configuration's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Digest>,
    /// Of the image config.
    #[serde(default)]
    pub config: ConfigFacts,
}

/// What rules may ask of an image config. Source: OCI image specification, `config.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigFacts {
    /// `User` as written; empty means root.
    pub user: String,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// When the image was made, RFC 3339, as the image claims it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// Who vouches for something, and on what evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voucher {
    /// The signer's id: SHA-256 of the canonical JSON of who is accepted on what evidence, so that equal signers of several
    /// rules are one.
    pub signer: String,
    /// The issuer that vouched for a certificate's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The certificate's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Claims of a build service in the certificate, by Fulcio's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// SHA-256 of the key's SubjectPublicKeyInfo, where a key signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Times that an authority or a log signed, RFC 3339, the earliest first.
    #[serde(default)]
    pub times: Vec<String>,
    /// What stands behind it: `signature`, `timestamp` or `log`.
    pub evidence: String,
    /// The digest that it is about: the index's or the platform's manifest's.
    pub about: Digest,
    /// How it is written: `bundle`, `simpleSigning`, `envelope`.
    pub format: String,
    /// Where it was found: `referrersApi`, `referrersTag`, `signatureTag`, `attestationTag`, `file`.
    pub place: String,
    /// Digest of what carries it.
    pub carrier: Digest,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignatureFact {
    /// Who signed.
    #[serde(flatten)]
    pub by: Voucher,
    /// Annotations under the signature.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub annotations: Value,
}

/// An attestation that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttestationFact {
    /// Who states it.
    #[serde(flatten)]
    pub by: Voucher,
    /// The kind of statement: a URI.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Arc<Value>,
}

/// What was verified of an image, in short: what is kept of it for those who ask later.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Vouched {
    /// Who signed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Voucher>,
    /// Who attests something of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Attested>,
    /// The commits that it was built from, as an attestation of its build says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commits: Vec<Commit>,
}

/// An attestation without what it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attested {
    /// Who states it.
    #[serde(flatten)]
    pub by: Voucher,
    /// The kind of statement: a URI.
    pub predicate_type: String,
}

/// A commit that an image was built from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// The repository, as the attestation names it.
    pub source: String,
    /// The commit, in hexadecimal.
    pub commit: String,
    /// Who built it: a URI.
    pub builder: String,
    /// The id of the signer who attests it.
    pub signer: String,
}

/// A place that did not say all it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Why, for rules.
    pub cause: Cause,
    /// Where and why, for people.
    pub detail: String,
}

/// Something that was found and proves nothing to a signer's rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusalFact {
    /// The signer's id; none where no rule could make it readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The kind of reason: `wrongIdentity`, `badSignature` …
    pub reason: String,
    /// For people: what was expected and what was found.
    pub detail: String,
    /// Digest of what carries it.
    pub carrier: Digest,
}

/// A DNA, and whose word it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnaFact {
    /// SHA-256 of its canonical JSON.
    pub digest: Digest,
    /// Where it came from.
    pub from: DnaSource,
    /// The DNA; a reader that holds many may have left out evidence and programs.
    pub document: Arc<Dna>,
    /// Programs and evidence are left out of `document`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abridged: bool,
}

/// Whose word a DNA is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DnaSource {
    /// These signers attest it.
    Attested {
        /// Their ids.
        signers: BTreeSet<String>,
    },
    /// It was worked out here.
    Analyzed,
    /// It was worked out here before, and kept.
    Ledger,
}

impl DnaSource {
    /// Its name, as JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Attested { .. } => "attested",
            Self::Analyzed => "analyzed",
            Self::Ledger => "ledger",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_say_in_json_which_of_three_they_are() {
        let known: Fact<Vec<u8>> = serde_json::from_value(json!({"known": []})).expect("known");
        assert_eq!(known, Fact::Known(Vec::new()));
        let unknown = Fact::<u8>::unknown(Cause::AnalysisPending { retry_seconds: Some(20) }, "queued");
        let written = json!({"unknown": {"cause": {"analysisPending": {"retrySeconds": 20}}, "detail": "queued"}});
        assert_eq!(serde_json::to_value(&unknown).ok(), Some(written.clone()));
        assert_eq!(serde_json::from_value::<Fact<u8>>(written).ok(), Some(unknown));
        assert!(serde_json::from_value::<Fact<Vec<u8>>>(json!([])).is_err(), "an empty list says nothing");
    }

    #[test]
    fn what_a_document_leaves_out_was_not_asked() {
        let image = json!({"reference": "nginx", "registry": "docker.io", "repository": "library/nginx",
            "role": "container", "name": "web"});
        let facts: SubjectFacts = serde_json::from_value(json!({"image": image})).expect("facts");
        assert_eq!(facts.signatures, Fact::not_asked());
        assert_eq!(facts.resolved, Fact::not_asked());
        let again: SubjectFacts =
            serde_json::from_value(serde_json::to_value(&facts).expect("JSON")).expect("the same facts");
        assert_eq!(again, facts);
    }

    #[test]
    fn what_follows_from_a_fact_is_as_known_as_it() {
        let last = Last { value: 1, as_of: "2026-01-01T00:00:00Z".to_owned() };
        let unknown = Fact::Unknown { cause: Cause::Registry, detail: String::new(), last: Some(last) };
        let Fact::Unknown { last: Some(last), .. } = unknown.map(|one| one + 1) else {
            panic!("unknown stays unknown")
        };
        assert_eq!(last.value, 2);
    }
}
