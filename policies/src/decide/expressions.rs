//! The validations of a rule, evaluated for a pod or for one of its images.

use std::collections::BTreeSet;

use dna::{Cause, Fact, Role, SubjectFacts};
use serde::Serialize;

use super::{
    Complaint, EVALUATION_ERROR, Judge,
    dna::barred,
    signed::{self, Attested, attested},
};
use crate::{
    cel::{self, Frame, Given, Lack, Made, Outcome, Reads},
    documents::Documents,
    kinds::Scope,
    rules::{Check, Rule},
};

impl<'a> Judge<'a> {
    pub(super) fn expressions(&mut self, facts: Option<&SubjectFacts>, documents: &Documents<'_>, scope: Scope) {
        let rule = self.rule;
        let is_volume = facts.is_some_and(|facts| facts.image.used.role == Role::Volume);
        let checks =
            rule.checks.iter().filter(|check| check.validation.scope == scope && !(is_volume && check.is_of_process));
        let given = Given::new(documents);
        let mut frame = Frame::new(&given);
        if let Some(facts) = facts {
            bind(&mut frame, rule, facts);
        }
        let mut evaluated = BTreeSet::<usize>::new();
        for check in checks {
            for at in check.variables.iter().filter(|at| !evaluated.contains(*at)) {
                let Some((name, compiled)) = rule.variables.get(*at) else { continue };
                let name = format!("{}.{name}", cel::VARIABLES);
                match frame.evaluate(compiled) {
                    Outcome::Value(value) => frame.bind(name, value),
                    Outcome::Lacks(lacks) => lacks.into_iter().for_each(|lack| frame.lack(name.clone(), lack)),
                    Outcome::Error(error) => frame.lack(name.clone(), Lack::Error(format!("`{name}`: {error}"))),
                }
            }
            evaluated.extend(&check.variables);
            self.check(check, &frame, facts);
        }
    }

    fn check(&mut self, check: &Check, frame: &Frame<'_>, facts: Option<&SubjectFacts>) {
        let complaint = Complaint {
            check: Some(&check.validation.name),
            facts,
            actions: &check.validation.actions,
            ..Complaint::default()
        };
        match frame.evaluate(&check.expression) {
            Outcome::Value(value) => match cel::as_bool(&*value) {
                Some(true) => {}
                // What is missing may be what would have made it true.
                Some(false) => match facts.map(|facts| missing(check, facts)) {
                    Some(causes) if !causes.is_empty() => self.unknown("whether it holds", &causes, complaint),
                    _ => self.failed(check, frame, complaint),
                },
                None => self.error("it gives neither true nor false".to_owned(), complaint),
            },
            Outcome::Lacks(lacks) => self.lacks(&lacks, check, complaint),
            Outcome::Error(error) => self.error(error, complaint),
        }
    }

    fn failed(&mut self, check: &Check, frame: &Frame<'_>, complaint: Complaint<'_>) {
        let validation = &check.validation;
        let told = check.message.as_ref().and_then(|message| match frame.evaluate(message) {
            Outcome::Value(value) => cel::as_text(&*value),
            Outcome::Lacks(_) | Outcome::Error(_) => None,
        });
        let found = told
            .or_else(|| validation.message.clone())
            .unwrap_or_else(|| format!("it does not hold that {}", check.expression.source()));
        let code = validation.reason.clone().unwrap_or_else(|| "CHECK_FAILED".to_owned());
        self.complain(Complaint { code: code.into(), found, ..complaint });
    }

    fn error(&mut self, why: String, complaint: Complaint<'_>) {
        self.complain(Complaint {
            code: EVALUATION_ERROR.into(),
            found: format!("the expression cannot be evaluated: {why}"),
            remedy: "what may be missing is asked for by `has(…)` or `.?`".into(),
            ..complaint
        });
    }

    /// The expression turned on what there is no value of.
    fn lacks(&mut self, lacks: &[Lack], check: &Check, complaint: Complaint<'_>) {
        let unknown: Vec<_> = lacks
            .iter()
            .filter_map(|lack| match lack {
                Lack::Unknown { what, cause, detail } => Some((what.as_str(), *cause, detail.as_str())),
                Lack::Absent { .. } | Lack::Error(_) => None,
            })
            .collect();
        if let Some((what, ..)) = unknown.first() {
            let causes: Vec<_> = unknown.iter().map(|(_, cause, detail)| (*cause, *detail)).collect();
            return self.unknown(what, &causes, complaint);
        }
        if let Some(Lack::Error(why)) = lacks.iter().find(|lack| matches!(lack, Lack::Error(_))) {
            return self.error(why.clone(), complaint);
        }
        let Some(Lack::Absent { what, tried }) = lacks.first() else {
            return self.error("it has no value".to_owned(), complaint);
        };
        let is_attestation = what.starts_with(ATTESTATION);
        if is_attestation && check.validation.actions.is_empty() && self.is_required(what) {
            // Told already, as what the rule requires.
            return;
        }
        let code = match what.as_str() {
            _ if is_attestation => "ATT_MISSING",
            what if what.contains("DNA") => "DNA_MISSING",
            what if what.contains("signature") => "IMG_UNSIGNED",
            _ => "FACT_MISSING",
        };
        self.complain(Complaint {
            code: code.into(),
            found: format!("{what} is not there"),
            tried: tried.clone(),
            ..complaint
        });
    }

    fn is_required(&self, what: &str) -> bool {
        let mut required = self.rule.spec.require.attestations.iter().filter(|required| !required.optional);
        required.any(|required| what == attestation(&required.name))
    }
}

/// What of an image has a value of its own for each rule: its signers' signatures and attestations, and a DNA it takes.
fn bind<'g>(frame: &mut Frame<'g>, rule: &Rule, facts: &SubjectFacts) {
    if rule.reads_any(&["dna", "kinship", "expectation", "findings"])
        && let Some(lack) = barred(rule, facts)
    {
        for name in ["dna", "kinship", "expectation", "findings"] {
            frame.lack(name, lack.clone());
        }
    }
    if let Some(reads) = rule.reads.get("signatures") {
        match signatures(rule, facts, reads) {
            Ok(value) => frame.bind("signatures", value),
            Err(lacks) => lacks.into_iter().for_each(|lack| frame.lack("signatures", lack)),
        }
    }
    let Some(reads) = rule.reads.get(cel::ATTESTATIONS) else { return };
    for required in &rule.spec.require.attestations {
        let Some(reads) = reads.fields.get(&required.name) else { continue };
        let names = [".", ".?"].map(|way| format!("{}{way}{}", cel::ATTESTATIONS, required.name));
        let [plain, optional] = names;
        let has = format!("{plain}?");
        let lacks = |frame: &mut Frame<'g>, lack: &Lack| {
            for name in [&plain, &optional, &has] {
                frame.lack(name.clone(), lack.clone());
            }
        };
        let what = attestation(&required.name);
        match attested(rule, required, facts) {
            Attested::Known(found) => match list(found.iter().map(|one| (*one, &one.by.signer)), rule, reads) {
                Ok(value) => {
                    frame.bind(optional, cel::some(value.clone()));
                    frame.bind(plain, value);
                    frame.bind(has, cel::truth(true));
                }
                Err(error) => lacks(frame, &Lack::Error(error)),
            },
            Attested::Unknown(causes) => {
                for (cause, detail) in causes {
                    lacks(frame, &Lack::Unknown { what: what.clone(), cause, detail: detail.to_owned() });
                }
            }
            Attested::Absent if required.optional => {
                let tried = Vec::new();
                frame.lack(plain, Lack::Absent { what, tried });
                frame.bind(optional, cel::none());
                frame.bind(has, cel::truth(false));
            }
            Attested::Absent => lacks(frame, &Lack::Absent { what, tried: Vec::new() }),
        }
    }
}

fn signatures(rule: &Rule, facts: &SubjectFacts, reads: &Reads) -> Result<Made, Vec<Lack>> {
    let ids: BTreeSet<&str> = rule.signers.iter().map(|signer| signer.id.as_str()).collect();
    let all = facts.signatures.known().map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> = all
        .iter()
        .filter(|signature| ids.contains(signature.by.signer.as_str()) && signed::is_about(&signature.by, facts))
        .collect();
    if found.is_empty() {
        let what = "a signature by a signer of the rule".to_owned();
        let causes = signed::gaps(facts, &facts.signatures, &ids);
        let unknown = |(cause, detail): (Cause, &str)| Lack::Unknown {
            what: "who signed the image".to_owned(),
            cause,
            detail: detail.to_owned(),
        };
        let tried = match &facts.signatures {
            Fact::Absent { tried } => tried.clone(),
            Fact::Known(_) | Fact::Unknown { .. } => Vec::new(),
        };
        return Err(match causes.is_empty() {
            true => vec![Lack::Absent { what, tried }],
            false => causes.into_iter().map(unknown).collect(),
        });
    }
    found.sort_by(|a, b| (signed::time(&b.by), &b.by.carrier).cmp(&(signed::time(&a.by), &a.by.carrier)));
    found.truncate(cel::MAX_SIGNATURES);
    list(found.into_iter().map(|one| (one, &one.by.signer)), rule, reads).map_err(|error| vec![Lack::Error(error)])
}

/// A list of what signers vouch for, each signer under the name that the rule has for it.
fn list<'f, T: Serialize + 'f>(
    entries: impl Iterator<Item = (&'f T, &'f String)>,
    rule: &Rule,
    reads: &Reads,
) -> Result<Made, String> {
    let everything = Reads::everything();
    let item = match &reads.items {
        Some(items) if !reads.whole => items,
        _ => &everything,
    };
    let made = entries.map(|(entry, id)| {
        let made = cel::make(entry, item, cel::attestation()).map_err(|error| error.to_string())?;
        Ok(cel::with_text(made, "signer", rule.signer_name(id).unwrap_or_default()))
    });
    Ok(cel::list(made.collect::<Result<_, String>>()?))
}

/// Places that did not answer and may hold what an expression about signatures or attestations did not see.
fn missing<'f>(check: &Check, facts: &'f SubjectFacts) -> Vec<(Cause, &'f str)> {
    if !check.reads.contains_key("signatures") && !check.reads.contains_key(cel::ATTESTATIONS) {
        return Vec::new();
    }
    facts.gaps.iter().map(|gap| (gap.cause, gap.detail.as_str())).collect()
}

fn attestation(name: &str) -> String {
    format!("{ATTESTATION}{name}`")
}

const ATTESTATION: &str = "the attestation `";
