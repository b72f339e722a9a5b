//! What an admission leaves: what a container is bound to, and what was decided.

use dna::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Document;

/// What a container of a pod is held to: the image that was verified, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The cluster's name.
    pub cluster: String,
    /// The pod's `metadata.uid`.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// The platform whose image it is, `linux/amd64`: where a pod may land on several, each has a binding. Empty: not known.
    pub platform: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name; empty where the API server was yet to make one.
    pub pod: String,
    /// The controller, as `Kind/name`.
    pub owner: Option<String>,
    /// The image as the pod names it.
    pub image: String,
    /// The platform's manifest digest that was verified; absent where it was admitted without.
    pub digest: Option<Digest>,
    /// What the container may do, as JSON; absent where it was not known.
    pub expectation: Option<Document>,
    /// The decision that admitted it.
    pub decision: Option<Uuid>,
    /// When it was admitted.
    pub at: Timestamp,
}

/// What was decided about an object, a refusal too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its name: a UUID of version 7, so that names sort by time.
    pub id: Uuid,
    /// When it was made.
    pub at: Timestamp,
    /// The cluster's name.
    pub cluster: String,
    /// The object's namespace; empty for one of the cluster.
    pub namespace: String,
    /// The object's kind, such as `Deployment`.
    pub kind: String,
    /// The object's name, or what its name begins with.
    pub name: String,
    /// Who asked.
    pub user: String,
    /// `CREATE`, `UPDATE` or `CONNECT`.
    pub operation: String,
    /// What was decided.
    pub verdict: Verdict,
    /// Whether it was a dry run: the ledger keeps none.
    pub is_dry_run: bool,
    /// Whether it was admitted though some facts were unknown: it is to be decided again.
    pub has_unknowns: bool,
    /// The images it was about.
    pub images: Vec<DecisionImage>,
    /// The rules that were asked.
    pub rules: Vec<RuleVersion>,
    /// Reasons and findings, as JSON.
    pub details: Document,
}

/// An image of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionImage {
    /// The container or volume.
    pub name: String,
    /// The image as the object names it.
    pub reference: String,
    /// The platform's manifest digest, where it was known.
    pub digest: Option<Digest>,
}

/// An image that somebody resolved, in one repository: the digests it goes by, and what was verified of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The platform's manifest digest.
    pub digest: Digest,
    /// `registry/repository`.
    pub repository: String,
    /// The platform it is for.
    pub platform: String,
    /// The index that it was found by.
    pub index: Option<Digest>,
    /// Its configuration's digest.
    pub config: Option<Digest>,
    /// Who vouches for it and what it was built from, as JSON; absent where nobody looked, and then what is kept stays.
    pub facts: Option<Document>,
    /// When it was seen.
    pub at: Timestamp,
}

/// A rule as it was when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleVersion {
    /// The rule's name.
    pub name: String,
    /// Its version, such as uid and generation, or the digest of its text.
    pub version: String,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Admitted.
    Allow,
    /// Admitted, with warnings.
    Warn,
    /// Refused.
    Deny,
}

impl Verdict {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }

    pub(crate) fn read(word: &str) -> Self {
        match word {
            "allow" => Self::Allow,
            "warn" => Self::Warn,
            _ => Self::Deny,
        }
    }
}

/// What a [`crate::Recorder`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// What a container is bound to.
    Binding(Box<Binding>),
    /// What was decided.
    Decision(Box<Decision>),
    /// What is one image.
    Image(Box<Image>),
}

impl Record {
    /// About the bytes it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Binding(binding) => {
                let texts = [
                    &binding.cluster,
                    &binding.pod_uid,
                    &binding.container,
                    &binding.platform,
                    &binding.namespace,
                    &binding.pod,
                ];
                let texts = texts.iter().map(|text| text.len()).sum::<usize>() + binding.image.len();
                texts + binding.expectation.as_ref().map_or(0, |document| document.packed().len()) + ROW_BYTES
            }
            Self::Decision(decision) => {
                let texts = [&decision.cluster, &decision.namespace, &decision.kind, &decision.name, &decision.user];
                let images = decision.images.iter().map(|image| image.name.len() + image.reference.len() + ROW_BYTES);
                let rules = decision.rules.iter().map(|rule| rule.name.len() + rule.version.len() + ROW_BYTES);
                let texts = texts.iter().map(|text| text.len()).sum::<usize>();
                texts + images.sum::<usize>() + rules.sum::<usize>() + decision.details.packed().len() + ROW_BYTES
            }
            Self::Image(image) => {
                let facts = image.facts.as_ref().map_or(0, |document| document.packed().len());
                image.repository.len() + image.platform.len() + facts + 2 * ROW_BYTES
            }
        };
        bytes as u64
    }

    /// Whether the ledger keeps no trace of it.
    pub(crate) fn is_dry_run(&self) -> bool {
        matches!(self, Self::Decision(decision) if decision.is_dry_run)
    }
}

impl From<Binding> for Record {
    fn from(binding: Binding) -> Self {
        Self::Binding(Box::new(binding))
    }
}

impl From<Decision> for Record {
    fn from(decision: Decision) -> Self {
        Self::Decision(Box::new(decision))
    }
}

impl From<Image> for Record {
    fn from(image: Image) -> Self {
        Self::Image(Box::new(image))
    }
}

/// What a row takes beside its longer texts.
const ROW_BYTES: usize = 256;
