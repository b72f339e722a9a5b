//! Digests that no new pod may have: what runtime rules had quarantined, by the bridge, in the ledger.
//!
//! Of a pod that is new, or gets another image. It is asked for in every namespace that is reviewed, whatever rules are there; where an image cannot be
//! resolved and no rule asks for it, nobody knows, and the pod is let in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use dna::{Fact, SubjectFacts};
use lineage::Ledger;
use policies::{About, Decision, Effect, Reason, Verdict};
use tracing::{info, warn};

/// What is quarantined now. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Quarantine(Arc<ArcSwap<BTreeMap<String, Why>>>);

/// Why a digest is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The response's name, by which it is taken back.
    response: String,
    /// The alert.
    alert: String,
    /// The rules that asked for it.
    rules: String,
}

impl Quarantine {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Follows the ledger until `ended`. What was read stays while it does not answer.
    pub async fn follow(self, ledger: Ledger, ended: impl Future<Output = ()>) {
        let follow = async {
            let mut is_failing = false;
            loop {
                match ledger.quarantined().await {
                    Ok(rows) => {
                        is_failing = false;
                        let why = rows.into_iter().map(|row| {
                            let rules = row.rules.into_iter().collect::<Vec<_>>().join(", ");
                            (row.target, Why { response: row.id, alert: row.alert, rules })
                        });
                        self.put(why.collect());
                    }
                    Err(error) if !is_failing => {
                        is_failing = true;
                        warn!(%error, "which digests are quarantined is not known anew; those of before stay so");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(READ_AGAIN).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = ended => {}
        }
    }

    fn put(&self, now: BTreeMap<String, Why>) {
        let before = self.0.load();
        if **before != now {
            info!(digests = now.len(), "quarantined digests");
            self.0.store(Arc::new(now));
        }
    }

    /// The reasons against images that are quarantined.
    #[must_use]
    pub fn reasons(&self, subjects: &[SubjectFacts]) -> Vec<Reason> {
        let known = self.0.load();
        let reason = |subject: &SubjectFacts| {
            let (digest, why) = digests(subject).find_map(|digest| known.get_key_value(&digest))?;
            let used = &subject.image.used;
            Some(Reason {
                effect: Effect::Deny,
                rule: "quarantine".to_owned(),
                check: None,
                code: "IMG_QUARANTINED".to_owned(),
                image: Some(About {
                    reference: used.reference.clone(),
                    name: used.name.clone(),
                    role: used.role,
                    digest: digest.parse().ok(),
                    platform: None,
                }),
                expected: "an image that is not quarantined".to_owned(),
                found: format!("{digest}, quarantined by {} for the alert {}", why.rules, why.alert),
                tried: Vec::new(),
                remedy: format!("use another image; `mayfly response undo {}` takes it back", why.response),
                unknown: None,
            })
        };
        subjects.iter().filter_map(reason).collect()
    }
}

/// Makes a denial of a decision; what is only audited stays so.
pub fn deny(decision: &mut Decision, reasons: Vec<Reason>) {
    if reasons.is_empty() {
        return;
    }
    decision.verdict = Verdict::Deny;
    decision.retry_seconds = None;
    decision.reasons.splice(0..0, reasons);
}

/// The digests that an image goes by.
fn digests(subject: &SubjectFacts) -> impl Iterator<Item = String> {
    let named = subject.image.used.reference.split_once('@').map(|(_, digest)| digest.to_owned());
    let resolved = match &subject.resolved {
        Fact::Known(resolved) => {
            let all = [
                Some(&resolved.digest),
                resolved.index_digest.as_ref(),
                Some(&resolved.platform_digest),
                resolved.config_digest.as_ref(),
            ];
            all.into_iter().flatten().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    named.into_iter().chain(resolved)
}

/// Between looks at the ledger.
const READ_AGAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject(reference: &str) -> SubjectFacts {
        let json = json!({"image": {"role": "container", "name": "app", "reference": reference, "registry": "r", "repository": "a"}});
        serde_json::from_value(json).expect("facts")
    }

    #[test]
    fn an_image_is_known_by_any_of_its_digests() {
        let quarantine = Quarantine::default();
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let why = Why { response: "r1".into(), alert: "a1".into(), rules: "miner".into() };
        quarantine.put([(digest("a"), why)].into());
        let mut resolved = subject("r/a:1");
        assert!(quarantine.reasons(std::slice::from_ref(&resolved)).is_empty());
        resolved.resolved = Fact::Known(
            serde_json::from_value(
                json!({"digest": digest("b"), "indexDigest": digest("b"), "platformDigest": digest("a"),
                "platform": "linux/amd64"}),
            )
            .expect("resolved"),
        );
        for subject in [resolved, subject(&format!("r/a@{}", digest("a")))] {
            let reasons = quarantine.reasons(&[subject]);
            assert_eq!((reasons.len(), reasons[0].code.as_str()), (1, "IMG_QUARANTINED"));
            assert!(reasons[0].remedy.contains("response undo r1"));
        }
    }
}
