//! Rules that are ready: every expression compiled, every name looked up, once. Nothing of it is done again for a review.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use dna::{Digest, ImageUse, NamedImage, Workload, canonical_json};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

use crate::{
    cel::{self, Compiled, Expected, Names, Reads, glob},
    decision::RuleVersion,
    documents::Bounds,
    kinds::{
        Condition, Evidence, ImageRuleSpec, Key, Keyless, Metadata, ObjectRef, RegistryAccessSpec, RuleExceptionSpec,
        Scope, SignerSpec, SignerTrustSpec, Validation, Variable,
    },
    runtime::RuntimeRules,
};

/// All that is in force.
#[derive(Debug, Default)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
    pub(crate) exceptions: Vec<Exception>,
    trusts: BTreeMap<String, SignerTrustSpec>,
    access: Vec<(String, RegistryAccessSpec)>,
    /// What all rules together read of each name.
    pub(crate) reads: BTreeMap<String, Reads>,
    pub(crate) bounds: Bounds,
    pub(crate) runtime: RuntimeRules,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    pub(crate) name: String,
    /// Of a rule of one namespace.
    pub(crate) namespace: Option<String>,
    pub(crate) version: Digest,
    pub(crate) spec: ImageRuleSpec,
    pub(crate) conditions: Vec<(String, Compiled)>,
    pub(crate) variables: Vec<(String, Compiled)>,
    pub(crate) checks: Vec<Check>,
    pub(crate) signers: Vec<RuleSigner>,
    pub(crate) max_staleness: Option<SignedDuration>,
    pub(crate) max_ages: BTreeMap<String, SignedDuration>,
    pub(crate) audit_until: Option<Timestamp>,
    /// What its expressions read, those that say whether it applies apart.
    pub(crate) reads: BTreeMap<String, Reads>,
    disabled: AtomicBool,
}

/// One validation.
#[derive(Debug)]
pub(crate) struct Check {
    pub validation: Validation,
    pub expression: Compiled,
    pub message: Option<Compiled>,
    /// What it reads, through variables too.
    pub reads: BTreeMap<String, Reads>,
    /// Variables it needs, by their place.
    pub variables: BTreeSet<usize>,
    /// It is about a container's process: of an image volume nothing is started.
    pub is_of_process: bool,
}

/// A signer of a rule.
#[derive(Debug)]
pub(crate) struct RuleSigner {
    pub name: String,
    pub id: String,
}

/// An exception.
#[derive(Debug)]
pub(crate) struct Exception {
    pub name: String,
    pub spec: RuleExceptionSpec,
    pub expires: Timestamp,
}

/// A signer that rules accept, for whoever verifies. Signers of equal content are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedSigner {
    /// SHA-256 of what it is: facts name it so.
    pub id: String,
    /// Who, and on what evidence; its name is one of those that rules give it.
    pub spec: SignerSpec,
    /// The namespace that its Secrets and ConfigMaps are looked up in where they name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The key that [`Material`] brought for it, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What signers refer to and only whoever reaches the cluster can read. It is a part of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// SHA-256 of trust roots, by their names.
    pub roots: BTreeMap<String, Digest>,
    /// Public keys, PEM, by where they stand; the namespace filled in.
    pub keys: BTreeMap<ObjectRef, String>,
}

/// Something wrong in an object: the field, what is wrong with it, and the text it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub field: String,
    pub why: String,
    pub text: Option<String>,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into(), text: None }
    }
}

impl Rules {
    pub(crate) fn push_rule(&mut self, rule: Rule) {
        for (name, reads) in &rule.reads {
            self.reads.entry(name.clone()).or_default().add(reads);
        }
        for (_, condition) in &rule.conditions {
            for (name, reads) in condition.names() {
                self.reads.entry(name.clone()).or_default().add(reads);
            }
        }
        self.rules.push(rule);
    }

    pub(crate) fn push_exception(&mut self, exception: Exception) {
        self.exceptions.push(exception);
    }

    pub(crate) fn push_trust(&mut self, name: String, spec: SignerTrustSpec) {
        self.trusts.insert(name, spec);
    }

    pub(crate) fn push_access(&mut self, name: String, spec: RegistryAccessSpec) {
        self.access.push((name, spec));
    }

    /// Each rule and its version.
    pub fn versions(&self) -> impl Iterator<Item = RuleVersion> + '_ {
        self.rules.iter().map(Rule::version)
    }

    /// Each exception, by its name.
    pub fn exceptions(&self) -> impl Iterator<Item = (&str, &RuleExceptionSpec)> + '_ {
        self.exceptions.iter().map(|exception| (exception.name.as_str(), &exception.spec))
    }

    /// What is in force of rules of run time.
    #[must_use]
    pub const fn runtime(&self) -> &RuntimeRules {
        &self.runtime
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Trust roots that were declared, by name.
    #[must_use]
    pub fn trusts(&self) -> &BTreeMap<String, SignerTrustSpec> {
        &self.trusts
    }

    /// How registries are reached, by name.
    #[must_use]
    pub fn access(&self) -> &[(String, RegistryAccessSpec)] {
        &self.access
    }

    /// Whom all rules together accept, one of each content.
    #[must_use]
    pub fn signers(&self, material: &Material) -> BTreeMap<String, AcceptedSigner> {
        let mut signers = BTreeMap::new();
        for rule in &self.rules {
            for (signer, spec) in rule.signers.iter().zip(&rule.spec.signers) {
                signers.entry(signer.id.clone()).or_insert_with(|| AcceptedSigner {
                    id: signer.id.clone(),
                    spec: spec.clone(),
                    namespace: rule.namespace.clone(),
                    key: key_text(spec, rule.namespace.as_deref(), material),
                });
            }
        }
        signers
    }

    /// Where signers' keys stand that are not in the rules themselves.
    #[must_use]
    pub fn key_refs(&self) -> BTreeSet<ObjectRef> {
        let of = |rule: &Rule| {
            let namespace = rule.namespace.clone();
            let keys = rule.spec.signers.iter().filter_map(|signer| signer.key.as_ref());
            keys.filter_map(|key| located(key, namespace.as_deref())).collect::<Vec<_>>()
        };
        self.rules.iter().flat_map(of).collect()
    }

    /// Names the signers anew, by what they refer to. Facts by their former ids are then not asked for any more.
    pub fn refer(&mut self, material: &Material) {
        for rule in &mut self.rules {
            rule.signers = rule_signers(&rule.spec, rule.namespace.as_deref(), material);
        }
    }

    /// Takes a rule out of evaluation: what it would decide is an error from now on, which denies where it is in force. Whether there
    /// is such a rule and it was not taken out before.
    pub fn disable(&self, rule: &str) -> bool {
        let found = self.rules.iter().find(|known| known.id() == rule);
        found.is_some_and(|rule| !rule.disabled.swap(true, Ordering::Relaxed))
    }

    /// Rules that were taken out of evaluation.
    pub fn disabled(&self) -> impl Iterator<Item = String> + '_ {
        self.rules.iter().filter(|rule| rule.is_disabled()).map(Rule::id)
    }
}

impl Rule {
    pub(crate) fn new(metadata: &Metadata, spec: ImageRuleSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let version = version(metadata, &spec, &mut faults);
        let mut builder = Builder { faults, cost: 0 };
        builder.signers(&spec);
        builder.matches(&spec);
        let conditions = builder.conditions("spec.match.conditions", &spec.matches.conditions, &Names::of_request());
        let attestations: Vec<_> = spec.require.attestations.iter().map(|it| it.name.as_str()).collect();
        let names = |variables: &[(&str, cel::Shape)]| Names::of(&attestations, variables);
        let (variables, shapes) = builder.variables(&spec.variables, names);
        let checks = builder.checks(&spec, &variables, &shapes);
        let max_staleness = builder.span("spec.onUnknown.maxStaleness", spec.on_unknown.max_staleness.as_deref());
        let audit_until = builder.time("spec.rollout.auditUntil", spec.rollout.audit_until.as_deref());
        let mut max_ages = BTreeMap::new();
        for (at, attestation) in spec.require.attestations.iter().enumerate() {
            let field = format!("spec.require.attestations[{at}].maxAge");
            if let Some(age) = builder.span(&field, attestation.max_age.as_deref()) {
                max_ages.insert(attestation.name.clone(), age);
            }
        }
        builder.end()?;
        let mut reads: BTreeMap<String, Reads> = BTreeMap::new();
        for check in &checks {
            for (name, read) in &check.reads {
                reads.entry(name.clone()).or_default().add(read);
            }
        }
        let signers = rule_signers(&spec, metadata.namespace.as_deref(), &Material::default());
        Ok(Self {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            version,
            spec,
            conditions,
            variables,
            checks,
            signers,
            max_staleness,
            max_ages,
            audit_until,
            reads,
            disabled: AtomicBool::new(false),
        })
    }

    /// Its name; of a rule of a namespace `NAMESPACE/NAME`.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// What it says.
    #[must_use]
    pub fn spec(&self) -> &ImageRuleSpec {
        &self.spec
    }

    /// Its name and version.
    #[must_use]
    pub fn version(&self) -> RuleVersion {
        RuleVersion { rule: self.id(), version: self.version.clone() }
    }

    /// Whether it was taken out of evaluation.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed)
    }

    /// Ids of signers by their names in this rule.
    pub(crate) fn ids(&self, names: &[String]) -> BTreeSet<&str> {
        let named = self.signers.iter().filter(|signer| names.contains(&signer.name));
        named.map(|signer| signer.id.as_str()).collect()
    }

    /// What this rule calls a signer.
    pub(crate) fn signer_name(&self, id: &str) -> Option<&str> {
        self.signers.iter().find(|signer| signer.id == id).map(|signer| signer.name.as_str())
    }

    pub(crate) fn reads_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.reads.contains_key(*name))
    }
}

impl Exception {
    pub(crate) fn new(name: &str, spec: RuleExceptionSpec) -> Result<Self, Vec<Fault>> {
        let empty =
            |field: &str, is_empty: bool| is_empty.then(|| Fault::new(format!("spec.{field}"), "name at least one"));
        let mut faults: Vec<_> = [empty("rules", spec.rules.is_empty()), empty("images", spec.images.is_empty())]
            .into_iter()
            .flatten()
            .collect();
        let why = "it must be a time such as 2026-10-31T00:00:00Z";
        match spec.expires.parse() {
            Ok(expires) if faults.is_empty() => Ok(Self { name: name.to_owned(), spec, expires }),
            Ok(_) => Err(faults),
            Err(_) => {
                faults.push(Fault::new("spec.expires", why));
                Err(faults)
            }
        }
    }
}

pub(crate) fn version(metadata: &Metadata, spec: &impl Serialize, faults: &mut Vec<Fault>) -> Digest {
    match canonical_json(&json!({"metadata": metadata, "spec": spec})) {
        Ok(json) => Digest::sha256(&json),
        Err(error) => {
            faults.push(Fault::new("spec", error.to_string()));
            Digest::sha256(b"")
        }
    }
}

fn rule_signers(spec: &ImageRuleSpec, namespace: Option<&str>, material: &Material) -> Vec<RuleSigner> {
    let of = |signer: &SignerSpec| RuleSigner { name: signer.name.clone(), id: id(signer, namespace, material) };
    spec.signers.iter().map(of).collect()
}

/// SHA-256 of the canonical JSON of who is accepted, on what evidence, by which root.
fn id(signer: &SignerSpec, namespace: Option<&str>, material: &Material) -> String {
    let trust = match (&signer.keyless, &signer.key) {
        (Some(keyless), _) => Some(keyless.trust.as_str()),
        (None, Some(key)) => key.trust.as_deref(),
        (None, None) => None,
    };
    let root = trust.map(|name| material.roots.get(name).map_or_else(|| name.to_owned(), ToString::to_string));
    let identities = signer.keyless.as_ref().map(|keyless| &keyless.identities);
    let reference = signer.key.as_ref().and_then(|key| located(key, namespace));
    let key = key_text(signer, namespace, material);
    // Where it stands is no matter once it is known.
    let reference = reference.filter(|_| key.is_none());
    let who = json!({"identities": identities, "key": key, "reference": reference, "evidence": signer.evidence, "root": root});
    canonical_json(&who).map_or_else(|_| String::new(), |json| Digest::sha256(&json).to_string())
}

/// Where a key stands that is not in the rule.
fn located(key: &Key, namespace: Option<&str>) -> Option<ObjectRef> {
    let reference = key.secret_ref.as_ref().or(key.config_map_ref.as_ref())?;
    // A rule of a namespace reads nothing of another.
    let namespace = namespace.map(str::to_owned).or_else(|| reference.namespace.clone());
    Some(ObjectRef { namespace, ..reference.clone() })
}

fn key_text(signer: &SignerSpec, namespace: Option<&str>, material: &Material) -> Option<String> {
    let key = signer.key.as_ref()?;
    let located = || material.keys.get(&located(key, namespace)?).cloned();
    key.data.clone().or_else(located).map(|key| key.trim().to_owned())
}

/// What variables give, by name.
pub(crate) type Shapes = Vec<(String, cel::Shape)>;

/// What is found while a rule is made.
pub(crate) struct Builder {
    pub faults: Vec<Fault>,
    pub cost: u64,
}

impl Builder {
    pub(crate) fn fault(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.faults.push(Fault::new(field, why));
    }

    /// Everything that was found, where that is anything.
    pub(crate) fn end(&mut self) -> Result<(), Vec<Fault>> {
        if self.cost > MAX_RULE_COST {
            let why = format!("its expressions may cost {} units together, at most {MAX_RULE_COST}", self.cost);
            self.fault("spec", why);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.faults)) }
    }

    fn compile(&mut self, field: String, source: &str, names: &Names, expected: Expected) -> Option<Compiled> {
        match Compiled::new(source, names, expected) {
            Ok(compiled) => {
                self.cost = self.cost.saturating_add(compiled.cost());
                Some(compiled)
            }
            Err(error) => {
                self.faults.push(Fault { field, why: error.to_string(), text: Some(source.to_owned()) });
                None
            }
        }
    }

    fn span(&mut self, field: &str, text: Option<&str>) -> Option<SignedDuration> {
        let parsed = text?.parse::<SignedDuration>().ok().filter(|span| span.is_positive());
        if parsed.is_none() {
            self.fault(field, "it must be a span such as 24h or 90m");
        }
        parsed
    }

    pub(crate) fn time(&mut self, field: &str, text: Option<&str>) -> Option<Timestamp> {
        let parsed = text?.parse().ok();
        if parsed.is_none() {
            self.fault(field, "it must be a time such as 2026-10-31T00:00:00Z");
        }
        parsed
    }

    fn signers(&mut self, spec: &ImageRuleSpec) {
        let mut names = BTreeSet::new();
        for (at, signer) in spec.signers.iter().enumerate() {
            let field = format!("spec.signers[{at}]");
            if !names.insert(signer.name.as_str()) {
                self.fault(format!("{field}.name"), format!("there are two signers `{}`", signer.name));
            }
            match (&signer.keyless, &signer.key) {
                (Some(keyless), None) => self.keyless(&field, keyless, signer.evidence),
                (None, Some(key)) => self.key(&field, key),
                _ => self.fault(&field, "a signer is known by `keyless` or by `key`: write one of them"),
            }
        }
        let known = |name: &String| spec.signers.iter().any(|signer| signer.name == *name);
        let mut unknown = |field: String, wanted: &[String]| {
            for name in wanted.iter().filter(|name| !known(name)) {
                let meant = cel::meant(name, spec.signers.iter().map(|signer| signer.name.as_str()));
                self.faults.push(Fault::new(&field, format!("there is no signer `{name}` in this rule{meant}")));
            }
        };
        if let Some(signatures) = &spec.require.signatures {
            unknown("spec.require.signatures.anyOf".to_owned(), &signatures.any_of);
        }
        for (at, attestation) in spec.require.attestations.iter().enumerate() {
            unknown(format!("spec.require.attestations[{at}].from"), &attestation.from);
        }
        if let Some(dna) = &spec.require.dna {
            unknown("spec.require.dna.signers".to_owned(), &dna.signers);
        }
        if let Some(signatures) = &spec.require.signatures {
            let most = signatures.any_of.iter().collect::<BTreeSet<_>>().len();
            let threshold = usize::try_from(signatures.threshold).unwrap_or(usize::MAX);
            if threshold == 0 || threshold > most {
                self.fault("spec.require.signatures.threshold", format!("it must be 1 to {most}, the signers named"));
            }
        }
        let mut names = BTreeSet::new();
        for (at, attestation) in spec.require.attestations.iter().enumerate() {
            let field = format!("spec.require.attestations[{at}]");
            if !is_name(&attestation.name) || !names.insert(attestation.name.as_str()) {
                self.fault(
                    format!("{field}.name"),
                    "it must be a name of letters, digits and `_`, and the only such one",
                );
            }
            if attestation.from.is_empty() {
                self.fault(format!("{field}.from"), "name whose word counts");
            }
        }
    }

    fn keyless(&mut self, field: &str, keyless: &Keyless, evidence: Evidence) {
        if evidence == Evidence::Signature {
            self.fault(format!("{field}.evidence"), "a certificate outlives its use by minutes: Log or Timestamp");
        }
        if keyless.identities.is_empty() {
            self.fault(format!("{field}.keyless.identities"), "name at least one: anybody gets a certificate");
        }
        for (at, identity) in keyless.identities.iter().enumerate() {
            let field = format!("{field}.keyless.identities[{at}]");
            for (name, exact, pattern) in [
                ("issuer", &identity.issuer, &identity.issuer_reg_exp),
                ("subject", &identity.subject, &identity.subject_reg_exp),
            ] {
                match (exact, pattern) {
                    (Some(_), None) => {}
                    (None, Some(pattern)) => {
                        if let Err(error) = regex::Regex::new(pattern) {
                            let why = format!("`{pattern}` is no regular expression: {error}");
                            self.fault(format!("{field}.{name}RegExp"), why.lines().last().unwrap_or_default());
                        }
                    }
                    _ => {
                        self.fault(format!("{field}.{name}"), format!("write `{name}` or `{name}RegExp`, one of them"))
                    }
                }
            }
        }
    }

    fn key(&mut self, field: &str, key: &Key) {
        let ways = [key.data.is_some(), key.secret_ref.is_some(), key.config_map_ref.is_some()];
        if ways.into_iter().filter(|is| *is).count() != 1 {
            self.fault(format!("{field}.key"), "write one of `data`, `secretRef`, `configMapRef`");
        }
        if key.data.as_ref().is_some_and(|data| !data.contains("-----BEGIN PUBLIC KEY-----")) {
            self.fault(format!("{field}.key.data"), "it must be a public key, PEM: -----BEGIN PUBLIC KEY-----");
        }
    }

    fn matches(&mut self, spec: &ImageRuleSpec) {
        for (at, workload) in spec.matches.workloads.iter().enumerate() {
            let custom = spec.matches.custom_paths.iter().map(|path| path.kind.as_str());
            let mut known = Workload::kinds().map(|kind| -> &str { kind }).chain(custom.clone());
            if !known.any(|known| known == workload) {
                let meant = cel::meant(workload, Workload::kinds().map(|kind| -> &str { kind }).chain(custom));
                let why = format!("`{workload}` is no kind that holds a pod{meant}; declare others in `customPaths`");
                self.fault(format!("spec.match.workloads[{at}]"), why);
            }
        }
        for (at, path) in spec.matches.custom_paths.iter().enumerate() {
            if path.pod_template.split('.').any(str::is_empty) {
                let field = format!("spec.match.customPaths[{at}].podTemplate");
                self.fault(field, "it must be fields joined by dots, such as spec.template");
            }
        }
        for (at, platform) in spec.platforms.iter().enumerate() {
            if platform != "*" && platform.parse::<dna::Platform>().is_err() {
                self.fault(format!("spec.platforms[{at}]"), "it must be a platform such as linux/arm64, or `*`");
            }
        }
    }

    pub(crate) fn conditions(&mut self, list: &str, all: &[Condition], names: &Names) -> Vec<(String, Compiled)> {
        let mut conditions = Vec::new();
        for (at, condition) in all.iter().enumerate() {
            let field = format!("{list}[{at}].expression");
            if let Some(compiled) = self.compile(field, &condition.expression, names, Expected::Bool) {
                conditions.push((condition.name.clone(), compiled));
            }
        }
        conditions
    }

    /// `names`: what an expression may name, by the variables before it.
    pub(crate) fn variables(
        &mut self,
        all: &[Variable],
        names: impl Fn(&[(&str, cel::Shape)]) -> Names,
    ) -> (Vec<(String, Compiled)>, Shapes) {
        let (mut variables, mut shapes) = (Vec::<(String, Compiled)>::new(), Vec::<(String, cel::Shape)>::new());
        for (at, variable) in all.iter().enumerate() {
            if !is_name(&variable.name) || shapes.iter().any(|(known, _)| *known == variable.name) {
                let why = "it must be a name of letters, digits and `_`, and the only such one";
                self.fault(format!("spec.variables[{at}].name"), why);
            }
            let known: Vec<_> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
            let field = format!("spec.variables[{at}].expression");
            let compiled = self.compile(field, &variable.expression, &names(&known), Expected::Anything);
            let shape = compiled.as_ref().map_or(cel::Shape::Any, |compiled| compiled.shape().clone());
            shapes.push((variable.name.clone(), shape));
            if let Some(compiled) = compiled {
                variables.push((variable.name.clone(), compiled));
            }
        }
        (variables, shapes)
    }

    fn checks(
        &mut self,
        spec: &ImageRuleSpec,
        variables: &[(String, Compiled)],
        shapes: &[(String, cel::Shape)],
    ) -> Vec<Check> {
        let attestations: Vec<_> = spec.require.attestations.iter().map(|it| it.name.as_str()).collect();
        let known: Vec<_> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let names = Names::of(&attestations, &known);
        let mut checks = Vec::new();
        let mut used = BTreeSet::new();
        for (at, validation) in spec.validations.iter().enumerate() {
            let field = format!("spec.validations[{at}]");
            if !used.insert(validation.name.as_str()) {
                self.fault(format!("{field}.name"), format!("there are two validations `{}`", validation.name));
            }
            if validation.reason.as_ref().is_some_and(|reason| !is_code(reason)) {
                self.fault(format!("{field}.reason"), "a reason is a code such as NOT_FROM_CI");
            }
            let expression =
                self.compile(format!("{field}.expression"), &validation.expression, &names, Expected::Bool);
            let message = validation
                .message_expression
                .as_ref()
                .map(|message| self.compile(format!("{field}.messageExpression"), message, &names, Expected::Text));
            let (Some(expression), None | Some(Some(_))) = (expression, &message) else { continue };
            let mut check = Check {
                validation: validation.clone(),
                reads: expression.names().clone(),
                variables: BTreeSet::new(),
                is_of_process: false,
                expression,
                message: message.flatten(),
            };
            check.trace(variables);
            if validation.scope == Scope::Pod
                && let Some(name) = OF_IMAGES.iter().find(|name| check.reads.contains_key(**name))
            {
                let why = format!("`{name}` is one for each image: it has no value with `scope: Pod`");
                self.faults.push(Fault { field: format!("{field}.expression"), why, text: None });
            }
            checks.push(check);
        }
        checks
    }
}

impl Check {
    /// Adds what the variables read that it names.
    fn trace(&mut self, variables: &[(String, Compiled)]) {
        if let Some(message) = &self.message {
            for (name, reads) in message.names() {
                self.reads.entry(name.clone()).or_default().add(reads);
            }
        }
        self.variables = trace_variables(&mut self.reads, variables);
        self.is_of_process = OF_PROCESSES.iter().any(|name| self.reads.contains_key(*name));
    }
}

/// Adds what variables read that are named, and gives their places.
pub(crate) fn trace_variables(
    reads: &mut BTreeMap<String, Reads>,
    variables: &[(String, Compiled)],
) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    // A variable only names those before it, so one way back finds all.
    for (at, (name, compiled)) in variables.iter().enumerate().rev() {
        let is_named = reads.get(cel::VARIABLES).is_some_and(|reads| reads.fields.contains_key(name));
        if is_named {
            needed.insert(at);
            for (name, reads_more) in compiled.names() {
                reads.entry(name.clone()).or_default().add(reads_more);
            }
        }
    }
    needed
}

impl Rule {
    /// Whether an image is meant, by its normalized name.
    pub(crate) fn is_about(&self, registry: &str, repository: &str, tag: Option<&str>) -> bool {
        let images = &self.spec.matches.images;
        (images.include.is_empty() || any(&images.include, registry, repository, tag))
            && !any(&images.exclude, registry, repository, tag)
    }
}

/// Whether a glob stands for an image, with its tag or without.
pub(crate) fn any(globs: &[String], registry: &str, repository: &str, tag: Option<&str>) -> bool {
    if globs.is_empty() {
        return false;
    }
    let name = format!("{registry}/{repository}");
    let tagged = tag.map(|tag| format!("{name}:{tag}"));
    globs.iter().any(|pattern| glob(pattern, &name) || tagged.as_ref().is_some_and(|tagged| glob(pattern, tagged)))
}

/// A reference, normalized as Docker does.
pub(crate) fn named(used: ImageUse) -> NamedImage {
    let (rest, digest) = used.reference.split_once('@').unwrap_or((&used.reference, ""));
    let digest: Option<Digest> = digest.parse().ok();
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("docker.io", name),
    };
    let library = registry == "docker.io" && !path.contains('/');
    NamedImage {
        registry: registry.to_owned(),
        repository: if library { format!("library/{path}") } else { path.to_owned() },
        tag: tag.or(digest.is_none().then_some("latest")).map(str::to_owned),
        digest,
        used,
    }
}

fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn is_code(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Names that have a value for each image only.
pub(crate) const OF_IMAGES: [&str; 8] =
    ["image", "signatures", "attestations", "dna", "kinship", "expectation", "findings", "container"];
/// Those of them that are about what is started.
const OF_PROCESSES: [&str; 5] = ["dna", "kinship", "expectation", "findings", "container"];
/// Units of all expressions of a rule together, as Kubernetes allows.
const MAX_RULE_COST: u64 = 10_000_000;
