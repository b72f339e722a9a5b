//! A running pod's containers, bound to what they may do; and a sample of what others attest, worked out here too.

use std::collections::{BTreeMap, BTreeSet};

use dna::{Digest, DnaSource, Fact, Role, SubjectFacts};
use jiff::{SignedDuration, Timestamp};
use lineage::{Binding, BindingRow, DecisionImage, Document};
use policies::Needs;
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    USER, Worker,
    board::Sample,
    compare::{self, Disagreement},
    configuration,
    facts::Asked,
    running::{Cluster, Named, Workload},
};
use crate::service::{owner, platform};

impl Worker {
    /// Binds those containers of a pod that nobody bound, and those bound before whose ConfigMaps changed: whether one of these may do
    /// something else now. An error says why some stay unbound.
    pub(super) async fn cover(&self, cluster: &Cluster, named: &Named) -> Result<bool, String> {
        let (Some(ledger), Some(recorder)) = (&self.ledger, &self.service.recorder) else { return Ok(false) };
        let rows = ledger.bindings_of_pod(&self.service.settings.cluster, &named.bound).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let Some(asked) = self.asked(cluster, named).await? else { return Ok(false) };
        let mut open = open(&asked.pod.containers(), &rows);
        let mut is_other = false;
        open.extend(self.configured(&asked, &rows)?);
        if open.is_empty() {
            return Ok(false);
        }
        let mut needs = Needs { digest: true, dna: true, expectation: true, dna_analyzed: true, ..asked.needs.clone() };
        // Only what bears on the binding.
        (needs.signatures, needs.full_dna, needs.kinship) = (false, false, false);
        needs.signers.clear();
        needs.attestations.clear();
        needs.platforms.clear();
        let subjects = self.facts(&asked, &needs).await?;
        let mut gaps = BTreeMap::new();
        let mut bound = BTreeSet::new();
        for facts in &subjects {
            let used = &facts.image.used;
            if used.role == Role::Volume || !open.contains(&used.name) || !bound.insert(used.name.clone()) {
                continue;
            }
            self.choose_sample(named, facts);
            if facts.expectation.known().is_none() {
                gaps.insert(used.name.clone(), why_unknown(facts));
            }
            let Some(binding) = self.binding(&asked, named, facts, &rows) else { continue };
            let is_again = rows.iter().any(|row| row.container == used.name && row.expectation.is_some());
            if !recorder.record(binding) {
                gaps.insert(used.name.clone(), "the ledger takes no more now".to_owned());
            } else if is_again {
                is_other = true;
                metrics::counter!("mayfly_bound_again_total").increment(1);
                info!(
                    namespace = named.namespace,
                    pod = named.name,
                    container = used.name,
                    "bound again: its configuration changed"
                );
            }
        }
        if gaps.is_empty() { Ok(is_other) } else { Err(format!("{gaps:?}")) }
    }

    /// Containers that are bound, and rest on ConfigMaps that may have changed since.
    fn configured(&self, asked: &Asked, rows: &[BindingRow]) -> Result<BTreeSet<String>, String> {
        if !self.service.cluster.reads_config_maps() {
            return Ok(BTreeSet::new());
        }
        let (namespace, maps, started) = (&asked.review.request.namespace, self.maps.load(), asked.pod.started());
        let mut containers = super::facts::spec(&asked.pod)?.containers;
        containers.retain_mut(|container| {
            let row = rows.iter().filter(|row| row.container == container.name && row.expectation.is_some());
            let Some(bound) = row.map(|row| row.at).max() else { return false };
            let is_configured = analyzer::config_maps(container).next().is_some();
            let renewed = configuration::renewed(container);
            let versions: Vec<_> = renewed.iter().map(|name| maps.get(namespace, name)).collect();
            // Of a ConfigMap that is gone the kubelet leaves the files.
            if !is_configured || versions.iter().any(Option::is_none) {
                return false;
            }
            let modified = versions.into_iter().flatten().filter_map(|version| version.modified).max();
            let is_renewed = modified.is_some_and(|modified| bound.duration_since(modified) < CLOCKS_DIFFER);
            let started = started.get(container.name.as_str()).copied();
            let is_less = configuration::as_started(container, |name| maps.is_newer(namespace, name, started));
            // What it was started with was known when it was bound, and is not any more: only for what is new is that given up.
            !is_less || is_renewed
        });
        Ok(containers.into_iter().map(|container| container.name).collect())
    }

    /// What a container is held to from now on; none where that would say less than what is written.
    fn binding(&self, asked: &Asked, named: &Named, facts: &SubjectFacts, rows: &[BindingRow]) -> Option<Binding> {
        let platform = platform(facts);
        let of_container = || rows.iter().filter(|row| row.container == facts.image.used.name);
        let before = of_container().find(|row| row.platform == platform).or_else(|| of_container().next());
        let digest = facts.resolved.known().map(|resolved| resolved.platform_digest.clone());
        let expectation = facts.expectation.known().and_then(|expectation| self.service.packed.document(expectation));
        if expectation.is_none() && (before.is_some() || digest.is_none()) {
            return None;
        }
        let is_same = |row: &BindingRow| row.platform == platform && row.expectation.is_some();
        let bound = before.filter(|row| is_same(row)).and_then(|row| row.expectation.as_ref());
        if bound.is_some() && bound == expectation.as_ref().map(Document::digest) {
            return None;
        }
        Some(Binding {
            cluster: self.service.settings.cluster.clone(),
            pod_uid: named.bound.clone(),
            container: facts.image.used.name.clone(),
            platform,
            namespace: named.namespace.clone(),
            pod: named.name.clone(),
            owner: owner(&asked.pod.object),
            image: facts.image.used.reference.clone(),
            digest,
            expectation,
            decision: before.and_then(|row| row.decision),
            at: Timestamp::now(),
        })
    }

    /// Puts one of so many attested DNAs aside.
    pub(super) fn choose_sample(&self, named: &Named, facts: &SubjectFacts) {
        let (Fact::Known(dna), Fact::Known(resolved)) = (&facts.dna, &facts.resolved) else { return };
        let DnaSource::Attested { signers } = &dna.from else { return };
        let image = &resolved.platform_digest;
        if is_chosen(self.salt, image, &dna.digest, self.settings.sample) {
            self.board().sample(Sample {
                pod: named.clone(),
                container: facts.image.used.name.clone(),
                image: image.clone(),
                attested: dna.digest.clone(),
                document: dna.document.clone(),
                signers: signers.clone(),
            });
        }
    }

    /// Works out what somebody attests, and tells where the two disagree.
    pub(super) async fn sample(&self, cluster: &Cluster, sample: &Sample) -> Result<(), String> {
        let Some(asked) = self.asked(cluster, &sample.pod).await? else { return Ok(()) };
        let needs = Needs { digest: true, dna: true, dna_analyzed: true, ..Needs::default() };
        let subjects = self.facts(&asked, &needs).await?;
        let is_it = |facts: &&SubjectFacts| {
            facts.image.used.name == sample.container
                && facts.resolved.known().is_some_and(|resolved| resolved.platform_digest == sample.image)
        };
        let Some(facts) = subjects.iter().find(is_it) else { return Ok(()) };
        let Fact::Known(ours) = &facts.dna else { return Err(why_unknown(facts)) };
        metrics::counter!("mayfly_dna_samples_total").increment(1);
        if ours.digest == sample.attested {
            return Ok(());
        }
        let found = compare::compare(&sample.document.behavior, &ours.document.behavior);
        if !found.is_empty() {
            let is_same_rules = sample.document.analyzer.rules == ours.document.analyzer.rules;
            let workload = cluster.workload(&asked.pod).await;
            self.alert(sample, (facts, &workload), &ours.digest, (&found, is_same_rules));
        }
        Ok(())
    }

    /// Somebody signed what is not so, or works by other rules: a person should look.
    fn alert(
        &self,
        sample: &Sample,
        (facts, workload): (&SubjectFacts, &Workload),
        ours: &Digest,
        (found, is_same_rules): (&[Disagreement], bool),
    ) {
        let book = self.service.rulebook.load_full();
        let name = |id: &String| book.as_ref().map_or(id.as_str(), |book| book.name(id)).to_owned();
        let signers: Vec<String> = sample.signers.iter().map(name).collect();
        warn!(
            image = %sample.image, attested = %sample.attested, %ours, ?signers, is_same_rules,
            disagreements = ?found, "an attested DNA disagrees with the one worked out here"
        );
        for signer in &signers {
            metrics::counter!("mayfly_dna_disagreements_total", "signer" => signer.clone()).increment(1);
        }
        let details = json!({"dnaDisagreement": {
            "image": sample.image, "attested": sample.attested, "analyzed": ours, "signers": signers,
            "sameRules": is_same_rules, "disagreements": found,
        }});
        let Some(recorder) = &self.service.recorder else { return };
        let Ok(details) = Document::pack(details.to_string().as_bytes()) else { return };
        recorder.record(lineage::Decision {
            id: Uuid::now_v7(),
            at: Timestamp::now(),
            cluster: self.service.settings.cluster.clone(),
            namespace: workload.namespace.clone(),
            kind: workload.kind.clone(),
            name: workload.name.clone(),
            user: USER.to_owned(),
            operation: "COMPARE".to_owned(),
            verdict: lineage::Verdict::Warn,
            is_dry_run: false,
            has_unknowns: false,
            images: vec![DecisionImage {
                name: sample.container.clone(),
                reference: facts.image.used.reference.clone(),
                digest: Some(sample.image.clone()),
            }],
            rules: Vec::new(),
            details,
        });
    }
}

/// Containers that no binding says enough of: there is none, or it was written when nothing was known.
fn open(containers: &BTreeSet<&str>, rows: &[BindingRow]) -> BTreeSet<String> {
    let is_bound = |name: &str| rows.iter().any(|row| row.container == name && row.expectation.is_some());
    containers.iter().filter(|name| !is_bound(name)).map(|&name| name.to_owned()).collect()
}

/// Whether an attested DNA is one of the sample: one in `of`, and which nobody outside can tell.
fn is_chosen(salt: Uuid, image: &Digest, attested: &Digest, of: u32) -> bool {
    let drawn = Digest::sha256(format!("{salt} {image} {attested}").as_bytes());
    let number = drawn.hex().get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
    of > 0 && number.is_multiple_of(of)
}

/// Why a container stays unbound, or an image unjudged.
fn why_unknown(facts: &SubjectFacts) -> String {
    fn why<T>(fact: &Fact<T>) -> Option<String> {
        match fact {
            Fact::Known(_) => None,
            Fact::Absent { tried } => Some(format!("it is not in {}", tried.join(", "))),
            Fact::Unknown { cause, detail, .. } => Some(format!("{cause}: {detail}")),
        }
    }
    let known = "it is known".to_owned();
    why(&facts.resolved).or_else(|| why(&facts.dna)).or_else(|| why(&facts.expectation)).unwrap_or(known)
}

/// Between this machine and the API server's.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(container: &str, has_expectation: bool) -> BindingRow {
        BindingRow {
            cluster: "c".to_owned(),
            pod_uid: "u".to_owned(),
            container: container.to_owned(),
            platform: String::new(),
            namespace: "n".to_owned(),
            pod: "p".to_owned(),
            owner: None,
            image: "app".to_owned(),
            digest: None,
            expectation: has_expectation.then(|| Digest::sha256(b"e")),
            decision: None,
            at: Timestamp::UNIX_EPOCH,
            written_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_container_is_open_until_it_is_held_to_something() {
        let containers = BTreeSet::from(["app", "debug", "proxy"]);
        let rows = [row("app", true), row("proxy", false), row("gone", true)];
        assert_eq!(open(&containers, &rows), BTreeSet::from(["debug".to_owned(), "proxy".to_owned()]));
        assert!(open(&BTreeSet::from(["app"]), &rows).is_empty());
    }

    #[test]
    fn one_of_so_many_is_looked_at_and_another_one_by_another_replica() {
        let images: Vec<Digest> = (0..4_000_u32).map(|at| Digest::sha256(&at.to_le_bytes())).collect();
        let chosen = |salt: Uuid, of: u32| -> BTreeSet<&Digest> {
            images.iter().filter(|image| is_chosen(salt, image, image, of)).collect()
        };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!((120..280).contains(&chosen(one, 20).len()), "{}", chosen(one, 20).len());
        assert_ne!(chosen(one, 20), chosen(other, 20));
        assert_eq!(chosen(one, 1).len(), images.len());
        assert!(chosen(one, 0).is_empty());
    }
}
