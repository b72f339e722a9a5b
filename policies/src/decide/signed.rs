//! Signatures and attestations that a rule asks for.

use std::collections::BTreeSet;

use dna::{AttestationFact, Cause, Fact, SubjectFacts, Voucher};
use jiff::Timestamp;

use super::{Complaint, Judge};
use crate::{cel::MAX_ATTESTATIONS, kinds::RequireAttestation, rules::Rule};

impl Judge<'_> {
    pub(super) fn signatures(&mut self, facts: &SubjectFacts) {
        let Some(required) = &self.rule.spec.require.signatures else { return };
        let ids = self.rule.ids(&required.any_of);
        let signed = facts.signatures.known().map(Vec::as_slice).unwrap_or_default();
        let holds = |voucher: &Voucher| ids.contains(voucher.signer.as_str()) && is_about(voucher, facts);
        let by: BTreeSet<_> =
            signed.iter().map(|signature| &signature.by).filter(|by| holds(by)).map(|by| by.signer.as_str()).collect();
        if by.len() >= usize::try_from(required.threshold).unwrap_or(usize::MAX) {
            return;
        }
        let complaint = Complaint { facts: Some(facts), ..Complaint::default() };
        let causes = gaps(facts, &facts.signatures, &ids);
        if !causes.is_empty() {
            return self.unknown("who signed the image", &causes, complaint);
        }
        let expected = match required.threshold {
            1 => format!("a signature by {}", required.any_of.join(" or ")),
            more => format!("signatures by {more} of {}", required.any_of.join(", ")),
        };
        let others: Vec<_> = facts.refusals.iter().map(|refusal| refusal.detail.as_str()).take(MAX_TOLD).collect();
        let found = match (by.is_empty(), others.is_empty()) {
            (false, _) => {
                let names = by.iter().filter_map(|id| self.rule.signer_name(id));
                format!("one by {}", names.collect::<Vec<_>>().join(", "))
            }
            (true, false) => format!("others: {}", others.join("; ")),
            (true, true) => "none".to_owned(),
        };
        let is_unsigned = by.is_empty() && others.is_empty() && signed.is_empty();
        self.complain(Complaint {
            code: if is_unsigned { "IMG_UNSIGNED".into() } else { "SIGNER_MISMATCH".into() },
            expected,
            found,
            tried: tried(&facts.signatures),
            remedy: if is_unsigned {
                "sign the image: cosign sign".into()
            } else {
                "have it signed by whom the rule names".into()
            },
            ..complaint
        });
    }

    pub(super) fn attestations(&mut self, facts: &SubjectFacts) {
        let rule = self.rule;
        for required in &rule.spec.require.attestations {
            match attested(rule, required, facts) {
                Attested::Known(found) => self.age(required, &found, facts),
                Attested::Unknown(causes) => {
                    if !required.optional {
                        let complaint =
                            Complaint { facts: Some(facts), check: Some(&required.name), ..Complaint::default() };
                        self.unknown(&format!("the attestation `{}`", required.name), &causes, complaint);
                    }
                }
                Attested::Absent if required.optional => {}
                Attested::Absent => {
                    let others = facts.attestations.known().map(Vec::as_slice).unwrap_or_default();
                    let is_other = others.iter().any(|other| other.predicate_type == required.predicate_type);
                    let refused: Vec<_> =
                        facts.refusals.iter().map(|refusal| refusal.detail.as_str()).take(MAX_TOLD).collect();
                    let found = match (is_other, refused.is_empty()) {
                        (true, _) => "some, by signers that the rule does not name".to_owned(),
                        (false, false) => format!("none that holds: {}", refused.join("; ")),
                        (false, true) => "none".to_owned(),
                    };
                    self.complain(Complaint {
                        code: "ATT_MISSING".into(),
                        check: Some(&required.name),
                        facts: Some(facts),
                        expected: format!(
                            "an attestation {} by {}",
                            required.predicate_type,
                            required.from.join(" or ")
                        ),
                        found,
                        tried: tried(&facts.attestations),
                        remedy: "attest it: cosign attest".into(),
                        ..Complaint::default()
                    });
                }
            }
        }
    }

    /// How old the newest is.
    fn age(&mut self, required: &RequireAttestation, found: &[&AttestationFact], facts: &SubjectFacts) {
        let Some(max) = self.rule.max_ages.get(&required.name) else { return };
        let newest = found.iter().filter_map(|attestation| time(&attestation.by)).max();
        if newest.is_some_and(|time| self.now.duration_since(time) <= *max) {
            return;
        }
        let age = required.max_age.as_deref().unwrap_or_default();
        self.complain(Complaint {
            code: "ATT_STALE".into(),
            check: Some(&required.name),
            facts: Some(facts),
            expected: format!("an attestation {} not older than {age}", required.predicate_type),
            found: newest.map_or_else(|| "none with a signed time".to_owned(), |time| format!("the newest of {time}")),
            remedy: "attest it again".into(),
            ..Complaint::default()
        });
    }
}

/// What is known of one attestation that a rule names.
pub(super) enum Attested<'f> {
    /// The newest that hold, newest first.
    Known(Vec<&'f AttestationFact>),
    Absent,
    Unknown(Vec<(Cause, &'f str)>),
}

pub(super) fn attested<'f>(rule: &Rule, required: &RequireAttestation, facts: &'f SubjectFacts) -> Attested<'f> {
    let ids = rule.ids(&required.from);
    let all = facts.attestations.known().map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> = all
        .iter()
        .filter(|attestation| {
            attestation.predicate_type == required.predicate_type
                && ids.contains(attestation.by.signer.as_str())
                && is_about(&attestation.by, facts)
        })
        .collect();
    if found.is_empty() {
        let causes = gaps(facts, &facts.attestations, &ids);
        return if causes.is_empty() { Attested::Absent } else { Attested::Unknown(causes) };
    }
    found.sort_by(|a, b| (time(&b.by), &b.by.carrier).cmp(&(time(&a.by), &a.by.carrier)));
    found.truncate(MAX_ATTESTATIONS);
    Attested::Known(found)
}

/// Why what is not there cannot be said not to be there; empty where it can.
pub(super) fn gaps<'f, T>(facts: &'f SubjectFacts, fact: &'f Fact<T>, ids: &BTreeSet<&str>) -> Vec<(Cause, &'f str)> {
    let mut causes: Vec<(Cause, &str)> = facts.gaps.iter().map(|gap| (gap.cause, gap.detail.as_str())).collect();
    // What an image is that nobody can name has no signature that is known to be about it.
    if let Fact::Unknown { cause, detail, .. } = &facts.resolved {
        causes.push((*cause, detail));
    }
    if let Fact::Unknown { cause, detail, .. } = fact {
        causes.push((*cause, detail));
    }
    if ids.iter().any(|id| !facts.signers.contains(*id)) && !matches!(fact, Fact::Unknown { .. }) {
        causes.push((Cause::NotAsked, "nobody looked for this signer"));
    }
    causes
}

/// Whether it is about this image: by its own digest, or by that of the index it is in.
pub(super) fn is_about(voucher: &Voucher, facts: &SubjectFacts) -> bool {
    facts.resolved.known().is_some_and(|resolved| {
        voucher.about == resolved.digest
            || voucher.about == resolved.platform_digest
            || resolved.index_digest.as_ref() == Some(&voucher.about)
    })
}

/// When it was signed, by the earliest time that someone vouches for.
pub(super) fn time(voucher: &Voucher) -> Option<Timestamp> {
    voucher.times.first().and_then(|time| time.parse().ok())
}

fn tried<T>(fact: &Fact<T>) -> Vec<String> {
    match fact {
        Fact::Absent { tried } => tried.clone(),
        Fact::Known(_) | Fact::Unknown { .. } => Vec::new(),
    }
}

const MAX_TOLD: usize = 3;
