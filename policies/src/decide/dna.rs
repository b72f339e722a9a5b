//! Whose word about what an image does a rule takes.

use dna::{Cause, DnaSource, Fact, SubjectFacts};

use super::{Complaint, Judge};
use crate::{
    cel::Lack,
    kinds::{DnaFrom, MissingDna},
    rules::Rule,
};

impl Judge<'_> {
    pub(super) fn dna(&mut self, facts: &SubjectFacts) {
        let Some(required) = &self.rule.spec.require.dna else { return };
        let is_mild = required.on_missing == MissingDna::Warn;
        let complaint = Complaint { facts: Some(facts), ..Complaint::default() };
        match &facts.dna {
            Fact::Known(found) if takes(self.rule, &found.from) => {}
            Fact::Known(found) => self.complain(Complaint {
                code: "DNA_UNTRUSTED".into(),
                expected: "a DNA from a source that the rule takes".to_owned(),
                found: format!("one that is {}", whence(self.rule, &found.from)),
                remedy: "name its signers in `require.dna.signers`, or have the image analyzed here".into(),
                ..complaint
            }),
            Fact::Absent { tried } => {
                self.complain(Complaint {
                    code: "DNA_MISSING".into(),
                    expected: "a DNA of the image".to_owned(),
                    found: "none".to_owned(),
                    tried: tried.clone(),
                    remedy: "attest it: mayfly attest, or have the image analyzed here".into(),
                    is_mild,
                    ..complaint
                });
            }
            Fact::Unknown { cause, detail, .. } => {
                // `onMissing: Warn` says it for an image that is still being analyzed.
                if is_mild && matches!(cause, Cause::AnalysisPending { .. }) {
                    let found = format!("the DNA is not there yet: {detail}");
                    let code = super::code(*cause).into();
                    return self.complain(Complaint { code, found, is_mild, unknown: Some(*cause), ..complaint });
                }
                self.unknown("what the image does", &[(*cause, detail)], complaint);
            }
        }
    }
}

/// Why a rule's expressions may not read what is known of what an image does; none where they may.
pub(super) fn barred(rule: &Rule, facts: &SubjectFacts) -> Option<Lack> {
    match &facts.dna {
        Fact::Known(found) if takes(rule, &found.from) => None,
        Fact::Known(found) => Some(Lack::Absent {
            what: "a DNA from a source that the rule takes".to_owned(),
            tried: vec![whence(rule, &found.from)],
        }),
        other => Some(crate::documents::lacking("the DNA", other)),
    }
}

fn takes(rule: &Rule, source: &DnaSource) -> bool {
    let required = rule.spec.require.dna.as_ref();
    let from = required.map(|required| required.from.as_slice()).unwrap_or_default();
    let takes = |wanted: DnaFrom| from.is_empty() || from.contains(&wanted);
    match source {
        DnaSource::Analyzed => takes(DnaFrom::Analyzed),
        DnaSource::Ledger => takes(DnaFrom::Ledger),
        DnaSource::Attested { signers } => {
            let names = required.map(|required| required.signers.as_slice()).unwrap_or_default();
            takes(DnaFrom::Attested) && rule.ids(names).iter().any(|id| signers.contains(*id))
        }
    }
}

fn whence(rule: &Rule, source: &DnaSource) -> String {
    match source {
        DnaSource::Attested { signers } => {
            let names = signers.iter().map(|id| rule.signer_name(id).unwrap_or("someone the rule does not name"));
            format!("attested by {}", names.collect::<Vec<_>>().join(", "))
        }
        DnaSource::Analyzed => "analyzed here".to_owned(),
        DnaSource::Ledger => "kept from before".to_owned(),
    }
}
