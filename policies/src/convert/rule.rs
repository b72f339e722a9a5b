//! A rule as it is put together: signers under names of their own, who must have signed, and what of it loads.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{
    cel,
    fields::{Fields, Notes},
};
use crate::{
    kinds::{
        API_VERSION, Action, Condition, Enforcement, Evidence, Identity, ImageRuleSpec, Key, Keyless, Metadata,
        ObjectRef, Refresh, RequireAttestation, RequireSignatures, SignerSpec, SignerTrustSpec, Templates, Validation,
    },
    rules::{Fault, Rule},
};

/// A rule, and where its expressions come from.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) spec: ImageRuleSpec,
    conditions: Vec<String>,
    validations: Vec<String>,
    /// Notes that were there before.
    start: usize,
}

/// Who must have signed or stated something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// A signer, and what stands under the signature.
    By { signer: String, annotations: BTreeMap<String, String> },
    /// So many of these.
    Of(usize, Vec<Self>),
}

impl Draft {
    pub(super) fn new(name: String, namespace: Option<String>, actions: Vec<Action>, notes: &Notes) -> Self {
        let spec = ImageRuleSpec {
            actions,
            // Both products refuse templates as they refuse pods.
            templates: Templates::Enforce,
            enforcement: Enforcement::Always,
            ..ImageRuleSpec::default()
        };
        let start = notes.all.len();
        Self { name, namespace, spec, conditions: Vec::new(), validations: Vec::new(), start }
    }

    /// Adds a signer and gives the name it has in this rule. One that is there already is not added again.
    pub(super) fn signer(&mut self, wanted: &str, who: Who, evidence: Evidence) -> String {
        let (keyless, key) = match who {
            Who::Keyless(keyless) => (Some(keyless), None),
            Who::Key(key) => (None, Some(key)),
        };
        let same = |known: &&SignerSpec| known.keyless == keyless && known.key == key && known.evidence == evidence;
        if let Some(known) = self.spec.signers.iter().find(same) {
            return known.name.clone();
        }
        let base = name(wanted, '-', 60);
        let is_used = |name: &str| self.spec.signers.iter().any(|signer| signer.name == name);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !is_used(name)).unwrap_or(base);
        self.spec.signers.push(SignerSpec { name: name.clone(), keyless, key, evidence });
        name
    }

    /// Asks for an attestation and gives the name that expressions use.
    pub(super) fn attestation(
        &mut self,
        wanted: &str,
        predicate_type: &str,
        from: Vec<String>,
        optional: bool,
    ) -> String {
        let base = name(wanted, '_', 60);
        let is_used = |name: &str| self.spec.require.attestations.iter().any(|known| known.name == name);
        let numbered = (2..).map(|number| format!("{base}_{number}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !is_used(name)).unwrap_or(base);
        self.spec.require.attestations.push(RequireAttestation {
            name: name.clone(),
            predicate_type: predicate_type.to_owned(),
            from,
            max_age: None,
            optional,
        });
        name
    }

    /// All of these must have signed.
    pub(super) fn require_signatures(&mut self, needs: &[Need], from: &str) {
        for need in needs {
            match need.threshold() {
                Some((count, names)) if self.spec.require.signatures.is_none() => {
                    let threshold = u32::try_from(count).unwrap_or(u32::MAX);
                    self.spec.require.signatures = Some(RequireSignatures { any_of: names, threshold });
                }
                _ => {
                    let message = "the signatures that are asked for are not there";
                    self.validate("signatures", need.expression("signatures"), message, Some("SIGNER_MISMATCH"), from);
                }
            }
        }
    }

    pub(super) fn condition(&mut self, name: &str, expression: String, from: &str) {
        let name = free(name, self.spec.matches.conditions.iter().map(|condition| condition.name.as_str()));
        self.spec.matches.conditions.push(Condition { name, expression });
        self.conditions.push(from.to_owned());
    }

    /// An attestation that these must have stated, under a name of its own; that name.
    pub(super) fn attested(&mut self, wanted: &str, predicate_type: &str, needs: &[Need], from: &str) -> String {
        let name = self.attestation(wanted, predicate_type, Need::signers(needs), false);
        for need in needs {
            // That any of them stated it is asked already.
            let is_any = needs.len() == 1 && need.threshold().is_some_and(|(count, _)| count == 1);
            if !is_any {
                let message = format!("the attestation {predicate_type} is not signed by all who should");
                let expression = need.expression(&format!("attestations.{name}"));
                self.validate(&format!("{name}-signers"), expression, &message, Some("SIGNER_MISMATCH"), from);
            }
        }
        name
    }

    pub(super) fn validate(&mut self, name: &str, expression: String, message: &str, reason: Option<&str>, from: &str) {
        self.validation(
            Validation {
                name: name.to_owned(),
                expression,
                message: Some(crate::decision::cut(message, 500)).filter(|message| !message.is_empty()),
                reason: reason.map(str::to_owned),
                ..Validation::default()
            },
            from,
        );
    }

    pub(super) fn validation(&mut self, validation: Validation, from: &str) {
        let name = free(&validation.name, self.spec.validations.iter().map(|known| known.name.as_str()));
        self.spec.validations.push(Validation { name, ..validation });
        self.validations.push(from.to_owned());
    }

    /// The object. An expression that is none of ours is taken out and told.
    pub(super) fn finish(mut self, made: &mut Vec<Value>, notes: &mut Notes) {
        let metadata = Metadata { name: object_name(&self.name), namespace: self.namespace.clone() };
        while let Err(faults) = Rule::new(&metadata, self.spec.clone()) {
            if !faults.first().is_some_and(|fault| self.without(fault, notes)) {
                let told: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.why)).collect();
                notes.weaker(
                    "",
                    format!("what was made of it does not load: {}", told.join("; ")),
                    "write the rule by hand",
                );
                return;
            }
        }
        let missing = notes.missing(self.start);
        if !missing.is_empty() {
            let is_told = self.spec.actions.iter().any(|action| *action != Action::Audit);
            let mut paths: Vec<String> = Vec::new();
            for path in missing {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
            let message = format!("this rule lacks what its source says at {}", paths.join(", "));
            self.validation(
                Validation {
                    name: NOT_CARRIED_OVER.to_owned(),
                    expression: "false".to_owned(),
                    message: Some(crate::decision::cut(&message, 500)),
                    reason: Some("NOT_CARRIED_OVER".to_owned()),
                    actions: vec![if is_told { Action::Warn } else { Action::Audit }],
                    ..Validation::default()
                },
                "",
            );
        }
        let kind = if self.namespace.is_some() { "ImageRule" } else { "ClusterImageRule" };
        made.push(object(kind, &metadata, &lean(&self.spec, &ImageRuleSpec::default())));
    }

    /// Takes out what a fault is about; whether it could be.
    fn without(&mut self, fault: &Fault, notes: &mut Notes) -> bool {
        let at = |list: &str| -> Option<usize> { fault.field.strip_prefix(list)?.split(']').next()?.parse().ok() };
        let why = format!("it is no expression here: {}", fault.why);
        if let Some(at) = at("spec.match.conditions[").filter(|at| *at < self.conditions.len()) {
            self.spec.matches.conditions.remove(at);
            notes.stricter(
                self.conditions.remove(at),
                why,
                "write a condition over `object`, `request` or `namespaceObject`",
            );
            return true;
        }
        if let Some(at) = at("spec.validations[").filter(|at| *at < self.validations.len()) {
            self.spec.validations.remove(at);
            notes.weaker(self.validations.remove(at), why, "write the validation by the names of docs/policies.md");
            return true;
        }
        if let Some(at) = at("spec.variables[").filter(|at| *at < self.spec.variables.len()) {
            let variable = self.spec.variables.remove(at);
            notes.same(format!("spec.variables[{}]", variable.name), format!("{why}; what reads it is told apart"));
            return true;
        }
        false
    }
}

impl Need {
    pub(super) fn by(signer: String) -> Self {
        Self::By { signer, annotations: BTreeMap::new() }
    }

    /// All who are named, each once.
    pub(super) fn signers(needs: &[Self]) -> Vec<String> {
        fn add(need: &Need, names: &mut Vec<String>) {
            match need {
                Need::By { signer, .. } if !names.contains(signer) => names.push(signer.clone()),
                Need::By { .. } => {}
                Need::Of(_, needs) => needs.iter().for_each(|need| add(need, names)),
            }
        }
        let mut names = Vec::new();
        needs.iter().for_each(|need| add(need, &mut names));
        names
    }

    /// How many of which signers, where no more is asked than that.
    pub(super) fn threshold(&self) -> Option<(usize, Vec<String>)> {
        let name = |need: &Self| match need {
            Self::By { signer, annotations } if annotations.is_empty() => Some(signer.clone()),
            _ => None,
        };
        match self {
            Self::By { .. } => Some((1, vec![name(self)?])),
            Self::Of(count, needs) => {
                let names: Vec<_> = needs.iter().map(name).collect::<Option<_>>()?;
                let different: BTreeSet<_> = names.iter().collect();
                // One who is named twice would count once here.
                (different.len() == names.len()).then_some((*count, names))
            }
        }
    }

    /// The same as an expression over a list of vouchers: `signatures`, `attestations.NAME`.
    pub(super) fn expression(&self, list: &str) -> String {
        match self {
            Self::By { signer, annotations } => {
                let mut parts = vec![format!("s.signer == {}", cel::quoted(signer))];
                parts.extend(
                    annotations
                        .iter()
                        .map(|(key, value)| cel::like(&format!("s.annotations[{}]", cel::quoted(key)), value)),
                );
                format!("{list}.exists(s, {})", parts.join(" && "))
            }
            Self::Of(count, needs) => {
                let parts: Vec<_> = needs.iter().map(|need| need.expression(list)).collect();
                match *count {
                    1 => cel::any(parts).unwrap_or_default(),
                    count if count == parts.len() => cel::all(parts).unwrap_or_default(),
                    count => format!("[{}].filter(x, x).size() >= {count}", parts.join(", ")),
                }
            }
        }
    }
}

/// How a signer is known.
#[derive(Debug, Clone)]
pub(super) enum Who {
    Keyless(Keyless),
    Key(Key),
}

impl Who {
    pub(super) fn key(data: &str, trust: Option<String>) -> Self {
        let data = format!("{}\n", data.trim());
        Self::Key(Key { data: Some(data), secret_ref: None, config_map_ref: None, trust })
    }

    pub(super) fn secret(name: String, namespace: Option<String>, key: Option<String>, trust: Option<String>) -> Self {
        let reference = ObjectRef { name, namespace, key };
        Self::Key(Key { data: None, secret_ref: Some(reference), config_map_ref: None, trust })
    }

    pub(super) fn config_map(
        name: String,
        namespace: Option<String>,
        key: Option<String>,
        trust: Option<String>,
    ) -> Self {
        let reference = ObjectRef { name, namespace, key };
        Self::Key(Key { data: None, secret_ref: None, config_map_ref: Some(reference), trust })
    }

    /// A key that must be brought first: until then nobody is known by it, and everything is refused.
    pub(super) fn to_bring(signer: &str, trust: Option<String>) -> (Self, String) {
        let map = format!("{}-public-key", object_name(signer));
        let told = format!("put the public key, PEM, into the ConfigMap {map} of Mayfly's namespace, entry cosign.pub");
        (Self::config_map(map, None, Some("cosign.pub".to_owned()), trust), told)
    }
}

/// Who may sign, as Sigstore's projects write it.
pub(super) fn identities(keyless: &mut Fields, notes: &mut Notes) -> Vec<Identity> {
    let mut identities = Vec::new();
    for mut one in keyless.parts("identities", notes) {
        let (issuer, issuer_expression) = (one.text("issuer", notes), one.text("issuerRegExp", notes));
        let (subject, subject_expression) = (one.text("subject", notes), one.text("subjectRegExp", notes));
        identities.push(identity(issuer, issuer_expression, subject, subject_expression, one.here(), notes));
        one.end(notes);
    }
    identities
}

/// Everybody who has a certificate.
pub(super) fn anybody() -> Identity {
    let any = Some(".*".to_owned());
    Identity { issuer_reg_exp: any.clone(), subject_reg_exp: any, ..Identity::default() }
}

/// An identity as cosign takes it: what is empty is anybody, and expressions are looked for anywhere.
pub(super) fn identity(
    issuer: Option<String>,
    issuer_expression: Option<String>,
    subject: Option<String>,
    subject_expression: Option<String>,
    path: &str,
    notes: &mut Notes,
) -> Identity {
    let mut pair = |name: &str, exact: Option<String>, expression: Option<String>| match (exact, expression) {
        (Some(exact), None) => (Some(exact), None),
        (Some(exact), Some(_)) => {
            notes.same(format!("{path}.{name}RegExp"), format!("`{name}` is written too, and says more"));
            (Some(exact), None)
        }
        (None, Some(expression)) => (None, Some(cel::whole(&expression))),
        (None, None) => (None, Some(".*".to_owned())),
    };
    let (issuer, issuer_reg_exp) = pair("issuer", issuer, issuer_expression);
    let (subject, subject_reg_exp) = pair("subject", subject, subject_expression);
    Identity { issuer, issuer_reg_exp, subject, subject_reg_exp, claims: BTreeMap::new() }
}

/// Signatures in another repository, which a field names.
pub(super) fn elsewhere(fields: &mut Fields, field: &str, notes: &mut Notes) {
    if fields.text(field, notes).is_some() {
        let why = "signatures are looked for beside the image only: those elsewhere are not found, and it is refused";
        notes.stricter(fields.at(field), why, "copy them to the image's repository: cosign copy");
    }
}

/// Signatures at tags of another form.
pub(super) fn tag_prefix(source: &mut Fields, notes: &mut Notes) {
    if source.text("tagPrefix", notes).is_some() {
        notes.stricter(source.at("tagPrefix"), "signatures at tags with a prefix are not found", "attach them anew");
    }
}

/// Where a trust root is renewed from: a repository, and the `root.json` that trust begins with, base64.
pub(super) fn refresh(mirror: Option<&str>, root: Option<&str>) -> Option<Refresh> {
    let root = BASE64_STANDARD.decode(root?.trim()).ok()?;
    Some(Refresh { tuf: mirror?.to_owned(), root: String::from_utf8(root).ok()?, every: None })
}

/// A trust root of ours that must be brought first.
pub(super) fn trust_to_bring(name: &str, refresh: Option<Refresh>) -> (Value, String) {
    let map = format!("{name}-trusted-root");
    let told = format!("put the trusted root into the ConfigMap {map} of Mayfly's namespace, entry trusted_root.json");
    let reference = ObjectRef { name: map, namespace: None, key: Some("trusted_root.json".to_owned()) };
    let spec = SignerTrustSpec { trusted_root: None, config_map_ref: Some(reference), refresh, max_age: None };
    (trust(name, &spec), told)
}

/// A trust root of ours.
pub(super) fn trust(name: &str, spec: &SignerTrustSpec) -> Value {
    let spec = serde_json::to_value(spec).unwrap_or_default();
    object("SignerTrust", &Metadata { name: name.to_owned(), namespace: None }, &spec)
}

fn object(kind: &str, metadata: &Metadata, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})
}

/// What differs from what would be taken anyway.
fn lean<T: serde::Serialize>(spec: &T, usual: &T) -> Value {
    let (Ok(Value::Object(spec)), Ok(usual)) = (serde_json::to_value(spec), serde_json::to_value(usual)) else {
        return Value::Null;
    };
    let fields = spec.into_iter().filter(|(name, value)| usual.get(name) != Some(value));
    Value::Object(fields.map(|(name, value)| (name, pruned(value))).collect())
}

/// Without objects that say nothing.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, pruned(value)));
            let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(pruned).collect()),
        other => other,
    }
}

/// A name that is not used yet.
fn free<'a>(wanted: &str, used: impl Iterator<Item = &'a str> + Clone) -> String {
    let wanted = crate::decision::cut(wanted, 58);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut all = std::iter::once(wanted.clone()).chain(numbered);
    all.find(|name| !used.clone().any(|known| known == name)).unwrap_or(wanted)
}

/// A name of letters, digits and `other`, which begins with a letter.
fn name(wanted: &str, other: char, most: usize) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == other { c } else { other };
    let name: String = wanted.chars().map(clean).take(most).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { name } else { format!("_{name}") }
}

/// A name that the API server takes.
pub(super) fn object_name(wanted: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = wanted.chars().map(clean).take(200).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

const NOT_CARRIED_OVER: &str = "not-carried-over";
