//! What runs, decided by the rules of now: the same function that a review asks.

use dna::Digest;
use jiff::Timestamp;
use policies::Decision;
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    Worker,
    board::Decided,
    running::{Cluster, Named},
};

impl Worker {
    /// Decides about all pods of a variant, by one of them. An error says why nobody can.
    pub(super) async fn decide(&self, cluster: &Cluster, variant: &Digest, named: &Named) -> Result<Decided, String> {
        let mut asked = self.asked(cluster, named).await?.ok_or("it is gone")?;
        let needs = asked.needs.clone();
        asked.review.subjects = self.facts(&asked, &needs).await?;
        // A pod that was bound when it was admitted is not looked at again to bind it: here everything comes by that runs.
        for facts in &asked.review.subjects {
            self.choose_sample(named, facts);
        }
        let now = Timestamp::now();
        let decision = self.service.decide(&asked.review, &asked.book, now);
        let workload = cluster.workload(&asked.pod).await;
        let is_known = decision.unknown.is_empty() && decision.reasons.iter().all(|reason| reason.unknown.is_none());
        let book = asked.book.digest.clone();
        let before = self.board().decision(variant).cloned();
        let decided = Decided { book, at: now, workload, decision: clipped(decision), is_known };
        // What is only tried again, and still so, is not told again.
        if before.is_some_and(|before| before.book == decided.book && before.decision == decided.decision) {
            return Ok(decided);
        }
        self.tell(&decided);
        if let Some(recorder) = &self.service.recorder {
            let object = (decided.workload.kind.as_str(), decided.workload.name.as_str());
            let written = self.service.written(&asked.review, &decided.decision, object, Uuid::now_v7(), now);
            // The table here holds what is open; of what is in the ledger, only reviews are.
            if let Some(record) = written {
                recorder.record(lineage::Decision { has_unknowns: false, ..record });
            }
        }
        Ok(decided)
    }

    fn tell(&self, decided: &Decided) {
        let Decided { workload, decision, .. } = decided;
        let verdict = format!("{:?}", decision.verdict).to_lowercase();
        metrics::counter!("mayfly_decided_again_total", "verdict" => verdict.clone()).increment(1);
        if !decision.is_allowed() {
            let why = decision.message();
            warn!(
                namespace = workload.namespace,
                kind = workload.kind,
                name = workload.name,
                why,
                "it runs, and would not be admitted now"
            );
        } else {
            info!(namespace = workload.namespace, kind = workload.kind, name = workload.name, verdict, "decided again");
        }
    }
}

/// As much of a decision as is kept in memory, for as long as it stands.
fn clipped(mut decision: Decision) -> Decision {
    decision.reasons.truncate(MAX_REASONS);
    decision.unknown.truncate(MAX_REASONS);
    decision.exceptions.truncate(MAX_REASONS);
    decision
}

const MAX_REASONS: usize = 100;
