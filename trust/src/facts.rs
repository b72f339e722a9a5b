//! What was verified, as the plain facts that rules read. The way back does not exist: a fact proves nothing, its maker does.

use dna::{
    AttestationFact, Attested, Cause, Commit, Fact, Gap, RefusalFact, SignatureFact, SubjectFacts, Vouched, Voucher,
};
use oci::Error;
use serde::Serialize;

use crate::{
    discover::{Answer, Discovery},
    predicate::Predicate,
    proof::{By, Proof},
    refusal::Reason,
    verify::Findings,
};

/// What is known of who vouches for an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Proofs {
    /// Signatures: known where there is one, absent only where every place answered.
    pub signatures: Fact<Vec<SignatureFact>>,
    /// Attestations, likewise.
    pub attestations: Fact<Vec<AttestationFact>>,
    /// Places that did not answer.
    pub gaps: Vec<Gap>,
    /// What was found and holds for nobody, the first of it.
    pub refusals: Vec<RefusalFact>,
}

/// What the candidates of `discovery` prove. Signers are told by the names of the rules that `findings` was made with, so that
/// whoever wants ids names the rules by them.
#[must_use]
pub fn proofs(findings: &Findings, discovery: &Discovery) -> Proofs {
    let gaps = gaps(discovery);
    let signatures = findings
        .signatures
        .iter()
        .map(|signature| SignatureFact { by: voucher(&signature.proof), annotations: signature.annotations.clone() });
    let attestations = findings.attestations.iter().map(|attestation| AttestationFact {
        by: voucher(&attestation.proof),
        predicate_type: attestation.predicate_type.clone(),
        predicate: attestation.predicate.clone().into(),
    });
    Proofs {
        signatures: found(signatures.collect(), discovery, &gaps),
        attestations: found(attestations.collect(), discovery, &gaps),
        refusals: findings.refusals.iter().take(MAX_REFUSALS).map(refusal).collect(),
        gaps,
    }
}

/// What is known of who vouches for an image, in short; none where nobody looked, or not everywhere.
#[must_use]
pub fn vouched(facts: &SubjectFacts) -> Option<Vouched> {
    fn found<T>(fact: &Fact<Vec<T>>) -> Option<&[T]> {
        match fact {
            Fact::Known(found) => Some(found),
            Fact::Absent { .. } => Some(&[]),
            Fact::Unknown { .. } => None,
        }
    }
    let (signatures, attestations) = (found(&facts.signatures)?, found(&facts.attestations)?);
    let mut commits: Vec<Commit> = attestations.iter().flat_map(commits).take(MAX_KEPT).collect();
    commits.sort();
    commits.dedup();
    let attested = |one: &AttestationFact| Attested { by: one.by.clone(), predicate_type: one.predicate_type.clone() };
    Some(Vouched {
        signatures: signatures.iter().map(|one| one.by.clone()).take(MAX_KEPT).collect(),
        attestations: attestations.iter().map(attested).take(MAX_KEPT).collect(),
        commits,
    })
}

/// The commits that an attestation of a build names. SLSA 1 has them as `gitCommit`, 0.2 as `sha1`.
fn commits(fact: &AttestationFact) -> Vec<Commit> {
    let Predicate::Provenance(build) = Predicate::read(&fact.predicate_type, &fact.predicate) else {
        return Vec::new();
    };
    let is_commit = |hex: &str| matches!(hex.len(), 40 | 64) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let named = build.sources.iter().flat_map(|source| source.digests.iter().map(move |digest| (source, digest)));
    named
        .filter_map(|(source, digest)| {
            let (algorithm, hex) = digest.split_once(':')?;
            (matches!(algorithm, "gitCommit" | "sha1") && is_commit(hex)).then(|| Commit {
                source: clipped(&source.uri),
                commit: hex.to_owned(),
                builder: clipped(&build.builder),
                signer: fact.by.signer.clone(),
            })
        })
        .take(MAX_KEPT)
        .collect()
}

/// An attested text, without credentials and of a length that can be shown.
fn clipped(text: &str) -> String {
    dna::redact(text).chars().take(MAX_TEXT).collect()
}

/// Why a registry's error leaves something unknown.
#[must_use]
pub fn cause(error: &Error) -> Cause {
    match error {
        Error::Throttled { .. } => Cause::Throttled,
        Error::Denied { .. } | Error::Credentials { .. } => Cause::Credentials,
        Error::Timeout { .. } => Cause::Deadline,
        _ => Cause::Registry,
    }
}

fn found<T>(found: Vec<T>, discovery: &Discovery, gaps: &[Gap]) -> Fact<Vec<T>> {
    match gaps.first() {
        _ if !found.is_empty() => Fact::Known(found),
        Some(gap) => Fact::unknown(gap.cause, gap.detail.clone()),
        None => Fact::Absent {
            tried: discovery.sources.iter().map(|source| format!("{} of {}", source.place, source.subject)).collect(),
        },
    }
}

fn gaps(discovery: &Discovery) -> Vec<Gap> {
    let silent = discovery.sources.iter().filter_map(|source| match &source.answer {
        Answer::Unknown { cause, reason } => {
            Some(Gap { cause: *cause, detail: format!("{} of {}: {reason}", source.place, source.subject) })
        }
        Answer::Present { .. } | Answer::Absent => None,
    });
    let unread = discovery.unread.iter().map(|unread| {
        let detail = format!("{} of {}, {}: {}", unread.place, unread.subject, unread.digest, unread.reason);
        Gap { cause: unread.cause, detail }
    });
    let capped = discovery.capped.iter().map(|capped| {
        let more = format!("{} of {} {} were looked at", capped.taken, capped.found, capped.what);
        Gap { cause: Cause::Registry, detail: format!("{} of {}: {more}", capped.place, capped.subject) }
    });
    silent.chain(unread).chain(capped).take(MAX_GAPS).collect()
}

fn voucher(proof: &Proof) -> Voucher {
    let (key, certificate) = match &proof.by {
        By::Key(fingerprint) => (Some(fingerprint.clone()), None),
        By::Certificate(certificate) => (None, Some(certificate)),
    };
    let claims = certificate.map(|certificate| &certificate.claims).into_iter().flatten();
    Voucher {
        signer: proof.signer.clone(),
        issuer: certificate.and_then(|certificate| certificate.issuer.clone()),
        subject: certificate.and_then(|certificate| certificate.subject.clone()),
        claims: claims.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        key,
        times: proof.times.iter().map(ToString::to_string).collect(),
        evidence: name(&proof.evidence),
        about: proof.origin.subject.clone(),
        format: name(&proof.origin.format),
        place: name(&proof.origin.place),
        carrier: proof.origin.carrier.clone(),
    }
}

fn refusal(refusal: &crate::refusal::Refusal) -> RefusalFact {
    RefusalFact {
        signer: refusal.signer.clone(),
        reason: kind(&refusal.reason),
        detail: refusal.reason.to_string(),
        carrier: refusal.origin.carrier.clone(),
    }
}

/// The reason's kind, as its JSON names it.
fn kind(reason: &Reason) -> String {
    let json = serde_json::to_value(reason).ok();
    let kind = json.as_ref().and_then(|json| json.get("reason")?.as_str());
    kind.unwrap_or("other").to_owned()
}

/// A unit variant's name, as its JSON has it.
fn name(variant: &impl Serialize) -> String {
    let json = serde_json::to_value(variant).ok();
    json.as_ref().and_then(|json| json.as_str()).unwrap_or("other").to_owned()
}

/// Refusals that are told: what an image collects of strangers' signatures is without end.
const MAX_REFUSALS: usize = 20;
const MAX_GAPS: usize = 20;
/// Vouchers, attestations and commits that are kept of an image.
const MAX_KEPT: usize = 32;
const MAX_TEXT: usize = 400;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dna::Digest;
    use serde_json::json;

    use super::*;
    use crate::{
        discover::{Capped, Source},
        evidence::Evidence,
        identity::Certificate,
        place::{Format, Origin, Place},
        proof::{Attestation, Signature, Verified},
        refusal::Refusal,
    };

    fn origin() -> Origin {
        let (subject, carrier) = (Digest::sha256(b"image"), Digest::sha256(b"carrier"));
        Origin { subject, place: Place::SignatureTag, carrier, format: Format::SimpleSigning }
    }

    fn proof(by: By) -> Proof {
        let times = vec!["2026-01-02T03:04:05Z".parse().expect("a time")];
        let (signer, evidence, log) = ("ci".to_owned(), Evidence::Log, Vec::new());
        Proof { signer, by, evidence, times, log, certificate_logged: true, root: None, origin: origin() }
    }

    fn silent(cause: Cause) -> Discovery {
        let answer = Answer::Unknown { cause, reason: "too many requests".to_owned() };
        let source = Source { subject: Digest::sha256(b"image"), place: Place::ReferrersApi, answer };
        Discovery { sources: vec![source], ..Discovery::default() }
    }

    #[test]
    fn a_place_that_did_not_answer_leaves_unknown_what_is_missing_and_keeps_what_is_found() {
        let certificate = Certificate {
            subject: Some("https://example.com/build".to_owned()),
            issuer: Some("https://issuer.example".to_owned()),
            claims: BTreeMap::from([("sourceRepositoryUri", "https://example.com/x".to_owned())]),
        };
        let proof = proof(By::Certificate(certificate));
        let attestation = Attestation {
            proof: proof.clone(),
            predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
            predicate: json!({"a": 1}),
        };
        let findings = Findings { attestations: vec![Verified::by_check(attestation)], ..Findings::default() };
        let proofs = proofs(&findings, &silent(Cause::Throttled));
        assert!(matches!(proofs.signatures, Fact::Unknown { cause: Cause::Throttled, .. }), "{proofs:?}");
        assert_eq!(proofs.gaps.len(), 1);
        let found = proofs.attestations.known().and_then(|found| found.first()).expect("it holds all the same");
        assert_eq!(found.by.signer, "ci");
        assert_eq!(found.by.subject.as_deref(), Some("https://example.com/build"));
        assert_eq!((found.by.evidence.as_str(), found.by.format.as_str()), ("log", "simpleSigning"));
        assert_eq!(found.by.place, "signatureTag");
        assert_eq!(found.by.times, ["2026-01-02T03:04:05Z"]);
        assert_eq!(found.by.claims.len(), 1);
    }

    #[test]
    fn absent_is_said_only_where_every_place_answered() {
        let subject = Digest::sha256(b"image");
        let source = Source { subject: subject.clone(), place: Place::SignatureTag, answer: Answer::Absent };
        let mut discovery = Discovery { sources: vec![source], ..Discovery::default() };
        let absent = proofs(&Findings::default(), &discovery);
        assert_eq!(absent.signatures, Fact::Absent { tried: vec![format!("signature tag of {subject}")] });
        let capped =
            Capped { subject, place: Place::ReferrersApi, what: "referrers".to_owned(), found: 500, taken: 400 };
        discovery.capped.push(capped);
        let unknown = proofs(&Findings::default(), &discovery);
        assert!(matches!(unknown.attestations, Fact::Unknown { cause: Cause::Registry, .. }), "{unknown:?}");
    }

    #[test]
    fn signatures_by_keys_and_refusals_are_told() {
        let key = Digest::sha256(b"key");
        let signature = Signature { proof: proof(By::Key(key.clone())), annotations: json!({"env": "prod"}) };
        let reason = Reason::WrongIdentity { expected: "a".to_owned(), found: "b".to_owned() };
        let refusal = Refusal { origin: origin(), signer: Some("ci".to_owned()), reason };
        let findings = Findings {
            signatures: vec![Verified::by_check(signature)],
            refusals: vec![refusal],
            ..Findings::default()
        };
        let proofs = proofs(&findings, &Discovery::default());
        let found = proofs.signatures.known().and_then(|found| found.first()).expect("it holds");
        assert_eq!((found.by.key.as_ref(), found.by.subject.as_ref()), (Some(&key), None));
        assert_eq!(found.annotations, json!({"env": "prod"}));
        let [refused] = proofs.refusals.as_slice() else { panic!("one refusal") };
        assert_eq!(
            (refused.reason.as_str(), refused.detail.as_str()),
            ("wrongIdentity", "it is signed by b, not by a")
        );
    }

    #[test]
    fn the_commits_of_an_image_are_those_its_provenance_names() {
        let commit = "9b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c";
        let slsa = json!({
            "buildDefinition": {"buildType": "https://actions.github.io/buildtypes/workflow/v1", "resolvedDependencies": [
                {"uri": "git+https://user:hunter2@git.example/app@refs/heads/main", "digest": {"gitCommit": commit}},
                {"uri": "pkg:docker/debian@12", "digest": {"sha256": "00".repeat(32)}},
                {"uri": "git+https://git.example/b", "digest": {"gitCommit": "no commit"}},
            ]},
            "runDetails": {"builder": {"id": "https://ci.example/builder"}},
        });
        let attestation = |predicate_type: &str, predicate: serde_json::Value| AttestationFact {
            by: voucher(&proof(By::Key(Digest::sha256(b"key")))),
            predicate_type: predicate_type.to_owned(),
            predicate: predicate.into(),
        };
        let image = json!({"reference": "app", "registry": "r", "repository": "app", "role": "container", "name": "c"});
        let mut facts: SubjectFacts = serde_json::from_value(json!({ "image": image })).expect("facts");
        assert_eq!(vouched(&facts), None, "nobody looked");
        facts.signatures = Fact::Absent { tried: Vec::new() };
        assert_eq!(vouched(&facts), None, "nor everywhere");
        facts.attestations = Fact::Known(vec![
            attestation("https://slsa.dev/provenance/v1", slsa.clone()),
            attestation("https://example.com/other", slsa),
        ]);
        let vouched = vouched(&facts).expect("everywhere");
        let [found] = vouched.commits.as_slice() else { panic!("one commit: {vouched:?}") };
        assert_eq!(
            (found.commit.as_str(), found.builder.as_str(), found.signer.as_str()),
            (commit, "https://ci.example/builder", "ci")
        );
        assert!(found.source.contains("git.example/app") && !found.source.contains("hunter2"), "{}", found.source);
        assert_eq!((vouched.attestations.len(), vouched.signatures.len()), (2, 0));
    }
}
