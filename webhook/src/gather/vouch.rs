//! Who vouches for an image: everything a registry has about it, held against everybody whom rules accept.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use dna::{Digest, Fact, SubjectFacts};
use trust::{Findings, Formats, Proofs, Signer};

use super::{flight::Answer, resolve::Place};

/// Whom rules accept, all of them together.
#[derive(Debug)]
pub struct Signers {
    /// Their ids, by which facts name them.
    pub ids: BTreeSet<String>,
    /// The rules for them, each under its id.
    pub rules: Vec<Signer>,
    /// Changes with any of them, and with their trust roots.
    pub digest: Digest,
}

/// What is vouched for.
#[derive(Debug)]
pub(super) struct Vouched {
    pub(super) proofs: Proofs,
    pub(super) findings: Findings,
}

impl Vouched {
    pub(super) fn weight(&self) -> u32 {
        let said = |value: &serde_json::Value| u32::try_from(value.to_string().len()).unwrap_or(u32::MAX);
        let attested = self.findings.attestations.iter().map(|one| said(&one.predicate).saturating_mul(3));
        let signed = self.findings.signatures.iter().map(|_| 1_000);
        let refused = self.findings.refusals.iter().map(|_| 400);
        attested.chain(signed).chain(refused).fold(400, u32::saturating_add)
    }
}

/// Looks in every place of the registry, for the index and for the image.
pub(super) async fn vouch(place: &Place, subjects: &[Digest], signers: &Arc<Signers>) -> Answer<Vouched> {
    let discovery = trust::discover(&place.ask(), subjects).await;
    let signers = Arc::clone(signers);
    let verified = tokio::task::spawn_blocking(move || {
        let findings = trust::verify(&discovery.candidates, &signers.rules, Formats::default());
        let proofs = trust::proofs(&findings, &discovery);
        (Vouched { proofs, findings }, discovery.is_complete(), signers)
    });
    let Ok((vouched, is_complete, signers)) = verified.await else {
        return Answer::unknown(dna::Cause::Registry, "a verification panicked; the log has more");
    };
    let has = |id: &String| {
        vouched.findings.signatures.iter().any(|one| one.proof.signer == *id)
            || vouched.findings.attestations.iter().any(|one| one.proof.signer == *id)
    };
    let holds = match (is_complete, signers.ids.iter().all(has)) {
        // A place that did not answer is asked again the next time.
        (false, _) => Duration::ZERO,
        (true, true) => HOLDS,
        (true, false) => super::flight::ABSENT,
    };
    Answer { fact: Fact::Known(vouched), holds }
}

/// Puts it among the facts.
pub(super) fn tell(vouched: &Fact<Arc<Vouched>>, facts: &mut SubjectFacts) {
    match vouched {
        Fact::Known(vouched) => {
            let Proofs { signatures, attestations, gaps, refusals } = vouched.proofs.clone();
            (facts.signatures, facts.attestations) = (signatures, attestations);
            (facts.gaps, facts.refusals) = (gaps, refusals);
        }
        other => (facts.signatures, facts.attestations) = (other.missing(), other.missing()),
    }
}

/// A signature does not go away; a further attestation is seen after so long.
const HOLDS: Duration = Duration::from_secs(600);
