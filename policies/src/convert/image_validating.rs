//! Kyverno's `ImageValidatingPolicy`, v1alpha1, v1beta1 and v1. Source: kyverno/api, `api/policies.kyverno.io`; kyverno,
//! `pkg/cel/libs/imageverify/lib.go`.
//!
//! Its checks are expressions over functions that verify. Those of the usual forms become what a rule requires; others are kept where they
//! are expressions here too, and told where they are not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::Regex;
use serde_json::Value;

use super::{
    cel,
    fields::{Fields, Notes},
    images,
    kyverno_match::{covers, opened, selector},
    policy_controller::{kind, predicate_type},
    rule::{Draft, Need, Who, anybody, elsewhere, identities, object_name, refresh, tag_prefix, trust_to_bring},
};
use crate::kinds::{Action, Evidence, Keyless, Scope, Tags, Validation, Variable};

/// An attestor: the signer it became; none where nobody can be known by it. And what must stand under its signatures.
struct Attestor {
    signer: Option<String>,
    annotations: BTreeMap<String, String>,
}

/// What expressions ask for, gathered before anything is made of it.
#[derive(Default)]
struct Asked {
    signatures: Vec<Need>,
    /// Of each attestation who must have stated it.
    attested: BTreeMap<String, Vec<Need>>,
    /// What must hold of the predicate: attestation, expression over `a.predicate`, message, path.
    payloads: Vec<(String, String, String, String)>,
    used: BTreeSet<String>,
}

pub(super) fn convert(object: Fields, is_namespaced: bool, made: &mut Vec<Value>, notes: &mut Notes) {
    let Some((meta, namespace, mut spec)) = opened(object, is_namespaced, notes) else { return };
    let start = notes.all.len();
    let mut draft = Draft::new(meta.name, namespace, actions(&mut spec, notes), notes);
    draft.spec.description = meta.description;
    if !evaluation(&mut spec, &mut draft, notes) {
        notes.all.truncate(start);
        notes.weaker("spec.evaluation.mode", "it is about JSON that is no object of Kubernetes", "leave it in Kyverno");
        return;
    }
    aside(&mut spec, notes);
    let has_controllers = autogen(&mut spec, notes);
    constraints(&mut spec, &mut draft, has_controllers, notes);
    for mut condition in spec.parts("matchConditions", notes) {
        let name = condition.text("name", notes).unwrap_or_else(|| "condition".to_owned());
        if let Some(expression) = condition.text("expression", notes) {
            draft.condition(&name, expression, &condition.at("expression"));
        }
        condition.end(notes);
    }
    references(&mut spec, &mut draft, notes);
    digests(&mut spec, &mut draft, notes);
    let attestors = attestors(&mut spec, &mut draft, made, notes);
    let kinds = attestations(&mut spec, notes);
    for mut variable in spec.parts("variables", notes) {
        let name = variable.text("name", notes).unwrap_or_default();
        let expression = variable.text("expression", notes).unwrap_or_default();
        draft.spec.variables.push(Variable { name, expression });
        variable.end(notes);
    }
    let mut asked = Asked::default();
    for validation in spec.parts("validations", notes) {
        self::validation(validation, &attestors, &kinds, &mut asked, &mut draft, notes);
    }
    spec.end(notes);
    require(asked, &kinds, &mut draft, notes);
    draft.finish(made, notes);
}

fn actions(spec: &mut Fields, notes: &mut Notes) -> Vec<Action> {
    let path = spec.at("validationActions");
    let mut written = spec.texts("validationActions", notes);
    // v1alpha1 had another name for it.
    written.extend(spec.texts("validationAction", notes));
    let mut actions = Vec::new();
    for action in &written {
        match action.as_str() {
            "Deny" => actions.push(Action::Deny),
            "Warn" => actions.push(Action::Warn),
            "Audit" => actions.push(Action::Audit),
            other => notes.stricter(&path, format!("`{other}` is no action: it denies"), ""),
        }
    }
    if actions.is_empty() { vec![Action::Deny] } else { actions }
}

/// Whether it is for Kubernetes at all.
fn evaluation(spec: &mut Fields, draft: &mut Draft, notes: &mut Notes) -> bool {
    let Some(mut evaluation) = spec.part("evaluation", notes) else { return true };
    let mode = evaluation.text("mode", notes);
    if let Some(mut admission) = evaluation.part("admission", notes) {
        if admission.flag("enabled", notes) == Some(false) {
            draft.spec.actions = vec![Action::Audit];
            notes.same(admission.at("enabled"), "it is not for admission: the rule only records");
        }
        admission.end(notes);
    }
    if let Some(mut background) = evaluation.part("background", notes) {
        background.flag("enabled", notes);
        notes.same(background.here(), "what runs is always looked at");
        background.end(notes);
    }
    evaluation.end(notes);
    mode.is_none_or(|mode| mode != "JSON")
}

/// What decides nothing.
fn aside(spec: &mut Fields, notes: &mut Notes) {
    for (name, why) in [
        ("failurePolicy", "what happens while the webhook is away is said where it is registered"),
        ("auditAnnotations", "each decision is recorded with its reasons"),
    ] {
        if spec.take(name).is_some() {
            notes.same(spec.at(name), why);
        }
    }
    if let Some(mut webhook) = spec.part("webhookConfiguration", notes) {
        if webhook.take("timeoutSeconds").is_some() {
            notes.same(webhook.at("timeoutSeconds"), "it is said where the webhook is registered");
        }
        webhook.end(notes);
    }
    if let Some(mut credentials) = spec.part("credentials", notes) {
        for name in ["allowInsecureRegistry", "providers", "secrets"] {
            credentials.take(name);
        }
        let at = credentials.here().to_owned();
        credentials.end(notes);
        notes.beside(at, "the pod's own credentials are used", "where others are needed, write a RegistryAccess");
    }
    for mut extractor in spec.parts("images", notes) {
        for name in ["name", "expression"] {
            extractor.take(name);
        }
        notes.weaker(
            extractor.here(),
            "images are read from pods and templates of pods, not from any field",
            "where the kind holds a template of pods, declare it in spec.match.customPaths",
        );
        extractor.end(notes);
    }
}

/// Whether controllers of pods are meant where pods are.
fn autogen(spec: &mut Fields, notes: &mut Notes) -> bool {
    let Some(mut autogen) = spec.part("autogen", notes) else { return true };
    let mut is_all = true;
    if let Some(mut controllers) = autogen.part("podControllers", notes) {
        let path = controllers.at("controllers");
        if controllers.has("controllers") {
            let named = controllers.texts("controllers", notes);
            is_all = !named.is_empty();
            if is_all {
                notes.same(
                    path,
                    "the rule is about all kinds that make pods, and about the pods themselves in any case",
                );
            }
        }
        controllers.end(notes);
    }
    autogen.end(notes);
    is_all
}

fn constraints(spec: &mut Fields, draft: &mut Draft, has_controllers: bool, notes: &mut Notes) {
    let Some(mut constraints) = spec.part("matchConstraints", notes) else { return };
    if constraints.text("matchPolicy", notes).is_some() {
        notes.same(
            constraints.at("matchPolicy"),
            "which versions of an object are sent is said where the webhook is registered",
        );
    }
    for (name, of) in
        [("namespaceSelector", "namespaceObject.metadata.labels"), ("objectSelector", "object.metadata.labels")]
    {
        if let Some(labels) = constraints.part(name, notes) {
            let path = labels.here().to_owned();
            for expression in selector(labels, of, notes).unwrap_or_default() {
                draft.condition(name, expression, &path);
            }
        }
    }
    let path = constraints.at("resourceRules");
    let rules: Vec<_> = constraints
        .parts("resourceRules", notes)
        .into_iter()
        .map(|rule| resources(rule, has_controllers, notes))
        .collect();
    let excluded = constraints.at("excludeResourceRules");
    for rule in constraints.parts("excludeResourceRules", notes) {
        if let Some(expression) = resources(rule, false, notes).expression() {
            draft.condition("exclude", format!("!({expression})"), &excluded);
        }
    }
    constraints.end(notes);
    match rules.as_slice() {
        [] => {}
        [one] if one.names.is_empty() => {
            draft.spec.matches.workloads.clone_from(&one.kinds);
            if let Some(operations) = one.operation() {
                draft.condition("operations", operations, &path);
            }
        }
        several => {
            let ways: Option<Vec<_>> = several.iter().map(Resources::expression).collect();
            // One that says nothing is about everything.
            if let Some(expression) = ways.and_then(cel::any) {
                draft.condition("resources", expression, &path);
            }
        }
    }
}

/// Which kinds and operations. No kinds: all.
struct Resources {
    kinds: Vec<String>,
    operations: Vec<String>,
    names: Vec<String>,
}

impl Resources {
    fn operation(&self) -> Option<String> {
        let is_all =
            self.operations.is_empty() || covers(&self.operations) || self.operations.iter().any(|it| it == "*");
        (!is_all).then(|| format!("request.operation in {}", cel::list(&self.operations)))
    }

    fn expression(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.kinds.is_empty() {
            parts.push(format!("request.kind.kind in {}", cel::list(&self.kinds)));
        }
        if !self.names.is_empty() {
            parts.push(format!("request.name in {}", cel::list(&self.names)));
        }
        parts.extend(self.operation());
        cel::all(parts)
    }
}

fn resources(mut rule: Fields, has_controllers: bool, notes: &mut Notes) -> Resources {
    for name in ["apiGroups", "apiVersions", "scope"] {
        rule.take(name);
    }
    let (mut kinds, mut is_all) = (Vec::new(), false);
    let path = rule.at("resources");
    for resource in rule.texts("resources", notes) {
        match resource.split('/').next().unwrap_or_default() {
            "*" => is_all = true,
            "pods" if has_controllers => is_all = true,
            plural => match kind(plural) {
                Some(kind) => kinds.push(kind.to_owned()),
                None => notes.weaker(
                    &path,
                    format!("where `{plural}` hold a pod is not known"),
                    "if they hold a template of pods, declare it in spec.match.customPaths",
                ),
            },
        }
    }
    kinds.sort();
    kinds.dedup();
    if is_all {
        kinds.clear();
    }
    let operations = rule.texts("operations", notes);
    let names = rule.texts("resourceNames", notes);
    rule.end(notes);
    Resources { kinds, operations, names }
}

fn references(spec: &mut Fields, draft: &mut Draft, notes: &mut Notes) {
    let mut parts = spec.parts("matchImageReferences", notes);
    // v1alpha1 had other names for it.
    parts.extend(spec.parts("imageRules", notes));
    let mut is_all = parts.is_empty();
    for mut part in parts {
        let path = part.at("glob");
        if let Some(glob) = part.text("glob", notes) {
            draft.spec.matches.images.include.extend(images::of_kyverno(&glob, &path, notes));
        }
        for name in ["expression", "cel"] {
            if part.text(name, notes).is_some() {
                is_all = true;
                let why = "which images a rule is about is said by globs: this one is about all";
                notes.stricter(part.at(name), why, "write globs in spec.match.images");
            }
        }
        part.end(notes);
    }
    if is_all {
        draft.spec.matches.images.include.clear();
    }
}

fn digests(spec: &mut Fields, draft: &mut Draft, notes: &mut Notes) {
    let mut config = spec.part("validationConfigurations", notes);
    let mut flag =
        |name: &str, notes: &mut Notes| config.as_mut().and_then(|config| config.flag(name, notes)).unwrap_or(true);
    let (mutates, verifies, required) =
        (flag("mutateDigest", notes), flag("verifyDigest", notes), flag("required", notes));
    if mutates {
        notes.same(
            "spec.validationConfigurations.mutateDigest",
            "no object is changed; what a tag leads to is recorded for each pod, and compared with what runs",
        );
    } else if verifies {
        draft.spec.tags = Tags::RequireDigest;
    }
    if required {
        notes.same("spec.validationConfigurations.required", "every image that is meant is always verified");
    }
    if let Some(config) = config {
        config.end(notes);
    }
}

fn attestors(
    spec: &mut Fields,
    draft: &mut Draft,
    made: &mut Vec<Value>,
    notes: &mut Notes,
) -> BTreeMap<String, Attestor> {
    let mut attestors = BTreeMap::new();
    for mut one in spec.parts("attestors", notes) {
        let name = one.text("name", notes).unwrap_or_default();
        let mut attestor = Attestor { signer: None, annotations: BTreeMap::new() };
        if let Some(mut notary) = one.part("notary", notes) {
            for field in ["certs", "tsaCerts"] {
                notary.take(field);
            }
            notes.weaker(
                notary.here(),
                "signatures of Notation are not verified",
                "have the images signed by Sigstore's formats too",
            );
            notary.end(notes);
        }
        if let Some(cosign) = one.part("cosign", notes) {
            attestor = self::cosign(cosign, &name, draft, made, notes);
        }
        one.end(notes);
        attestors.insert(name, attestor);
    }
    attestors
}

fn cosign(mut cosign: Fields, name: &str, draft: &mut Draft, made: &mut Vec<Value>, notes: &mut Notes) -> Attestor {
    let path = cosign.here().to_owned();
    let annotations = cosign.pairs("annotations", notes);
    if let Some(mut source) = cosign.part("source", notes) {
        elsewhere(&mut source, "repository", notes);
        if source.take("PullSecrets").is_some() {
            notes.same(source.at("PullSecrets"), "the pod's own credentials are used");
        }
        tag_prefix(&mut source, notes);
        source.end(notes);
    }
    let (mut evidence, mut trust) = (Evidence::Log, "public-good".to_owned());
    if let Some(mut tuf) = cosign.part("tuf", notes) {
        let here = tuf.here().to_owned();
        let mirror = tuf.text("mirror", notes);
        let mut begins = None;
        if let Some(mut root) = tuf.part("root", notes) {
            root.take("path");
            begins = root.text("data", notes);
            root.end(notes);
        }
        tuf.end(notes);
        trust = object_name(&format!("{}-{name}-trust", draft.name));
        let refresh = refresh(mirror.as_deref(), begins.as_deref());
        let (object, told) = trust_to_bring(&trust, refresh);
        made.push(object);
        let url = mirror.unwrap_or_default();
        let why = "a TUF repository is asked by a person or in the background: until its root is brought, nobody is known by it";
        let fetch = format!("mayfly trust-root --tuf-url {url} --tuf-root root.json -o trusted_root.json; {told}");
        notes.stricter(here, why, fetch);
    }
    if let Some(mut log) = cosign.part("ctlog", notes) {
        let ignored = log.flag("insecureIgnoreTlog", notes) == Some(true);
        let url = log.text("url", notes);
        let is_other = url.is_some_and(|url| url.trim_end_matches('/') != PUBLIC_LOG);
        let mut owned = Vec::new();
        for field in ["rekorPubKey", "ctLogPubKey", "tsaCertChain"] {
            if log.text(field, notes).is_some() {
                owned.push(log.at(field));
            }
        }
        if log.flag("insecureIgnoreSCT", notes) == Some(true) {
            let why = "that a certificate is in its log is checked, unless the trust root names no such log; of a key there is nothing to check";
            notes.stricter(log.at("insecureIgnoreSCT"), why, "name a SignerTrust without logs of certificates");
        }
        if ignored {
            evidence = Evidence::Signature;
        }
        if is_other && owned.is_empty() && !ignored {
            owned.push(log.at("url"));
        }
        for at in owned {
            let why =
                "keys of logs and timestamp authorities are part of a trust root: by this one alone nothing is judged";
            notes.stricter(at, why, "make a trusted root: cosign trusted-root create, and a SignerTrust of it");
        }
        log.end(notes);
    }
    let who = if let Some(mut keyless) = cosign.part("keyless", notes) {
        if evidence == Evidence::Signature {
            evidence = Evidence::Log;
            let why = "a certificate is valid for minutes: that it was used then is shown by a log entry";
            notes.stricter(format!("{path}.ctlog.insecureIgnoreTlog"), why, "");
        }
        if keyless.text("roots", notes).is_some() {
            trust = object_name(&format!("{}-{name}-trust", draft.name));
            let (object, told) = trust_to_bring(&trust, None);
            if !made.contains(&object) {
                made.push(object);
            }
            let why = "a certificate authority alone is no trust root: its logs belong to it";
            notes.stricter(keyless.at("roots"), why, format!("cosign trusted-root create; {told}"));
        }
        let mut identities = identities(&mut keyless, notes);
        if identities.is_empty() {
            notes.beside(keyless.here(), "anybody with a certificate is accepted", "name who may sign");
            identities.push(anybody());
        }
        keyless.end(notes);
        Some(Who::Keyless(Keyless { trust, identities }))
    } else {
        let root = (evidence != Evidence::Signature).then_some(trust);
        self::key(&mut cosign, name, root, draft, notes)
    };
    cosign.end(notes);
    if who.is_none() {
        notes.weaker(&path, "none of `key`, `keyless` and `certificate` is in it", "correct it");
    }
    Attestor { signer: who.map(|who| draft.signer(name, who, evidence)), annotations }
}

fn key(cosign: &mut Fields, name: &str, trust: Option<String>, draft: &Draft, notes: &mut Notes) -> Option<Who> {
    let base = format!("{}-{name}", draft.name);
    if let Some(mut key) = cosign.part("key", notes) {
        if let Some(algorithm) = key.text("hashAlgorithm", notes).filter(|name| name != "sha256") {
            let why = format!("the key says which digest is signed; signatures with {algorithm} may not be taken");
            notes.stricter(key.at("hashAlgorithm"), why, "");
        }
        let who = if let Some(data) = key.text("data", notes) {
            Who::key(&data, trust)
        } else {
            let (who, told) = Who::to_bring(&base, trust);
            if let Some(kms) = key.text("kms", notes) {
                let why = "no key service is asked; until the key is brought, nobody is known by it";
                notes.stricter(key.at("kms"), why, format!("cosign public-key --key {kms}; {told}"));
            } else {
                key.take("expression");
                let why = "a key that an expression gives is not looked up; until it is brought, nobody is known by it";
                notes.stricter(key.at("expression"), why, told);
            }
            who
        };
        key.end(notes);
        return Some(who);
    }
    let mut certificate = cosign.part("certificate", notes)?;
    for field in ["cert", "certChain"] {
        certificate.take(field);
    }
    let (who, told) = Who::to_bring(&base, trust);
    let why = "a certificate of one's own is not judged; its key is: until it is brought, nobody is known by it";
    notes.stricter(certificate.here(), why, format!("openssl x509 -pubkey -noout; {told}"));
    certificate.end(notes);
    Some(who)
}

/// Predicate types by name; none for what cannot be verified.
fn attestations(spec: &mut Fields, notes: &mut Notes) -> BTreeMap<String, Option<String>> {
    let mut kinds = BTreeMap::new();
    for mut one in spec.parts("attestations", notes) {
        let name = one.text("name", notes).unwrap_or_default();
        let mut kind = None;
        if let Some(mut intoto) = one.part("intoto", notes) {
            let path = intoto.at("type");
            kind = intoto.text("type", notes).map(|kind| predicate_type(&kind, &path, notes));
            intoto.end(notes);
        }
        if let Some(mut referrer) = one.part("referrer", notes) {
            referrer.take("type");
            let why = "a referrer that is no signed statement proves nothing";
            notes.weaker(referrer.here(), why, "attest it: cosign attest");
            referrer.end(notes);
        }
        one.end(notes);
        kinds.insert(name, kind);
    }
    kinds
}

fn validation(
    mut fields: Fields,
    attestors: &BTreeMap<String, Attestor>,
    kinds: &BTreeMap<String, Option<String>>,
    asked: &mut Asked,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    let path = fields.at("expression");
    let expression = fields.text("expression", notes).unwrap_or_default();
    let message = fields.text("message", notes);
    let message_expression = fields.text("messageExpression", notes);
    if fields.text("reason", notes).is_some() {
        notes.same(fields.at("reason"), "the reason is a code here: CHECK_FAILED");
    }
    fields.end(notes);
    let told = message.clone().unwrap_or_default();
    let terms: Vec<Option<Term>> =
        conjuncts(&expression).into_iter().map(|part| term(part, attestors, kinds)).collect();
    if let Some(terms) = terms.into_iter().collect::<Option<Vec<_>>>() {
        for term in terms {
            asked.add(term, &told, &path);
        }
        return;
    }
    draft.validation(
        Validation {
            name: "validation".to_owned(),
            expression,
            message: message.map(|text| crate::decision::cut(&text, 500)),
            message_expression,
            scope: Scope::Pod,
            ..Validation::default()
        },
        &path,
    );
}

/// What one part of an expression asks for.
enum Term {
    Signed(Need),
    Attested(String, Need),
    Payload(String, String),
}

impl Asked {
    fn add(&mut self, term: Term, message: &str, path: &str) {
        match term {
            Term::Signed(need) => {
                if !self.signatures.contains(&need) {
                    self.signatures.push(need);
                }
            }
            Term::Attested(name, need) => {
                let needs = self.attested.entry(name).or_default();
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
            Term::Payload(name, rest) => {
                let payload = (name, rest, message.to_owned(), path.to_owned());
                if !self.payloads.iter().any(|known| (&known.0, &known.1) == (&payload.0, &payload.1)) {
                    self.payloads.push(payload);
                }
            }
        }
    }
}

/// Reads one part; none where it has none of the usual forms.
fn term(part: &str, attestors: &BTreeMap<String, Attestor>, kinds: &BTreeMap<String, Option<String>>) -> Option<Term> {
    let part = part.trim();
    if let Some(found) = captures(&MAPPED, part).or_else(|| captures(&ALL, part)) {
        if found.name("attestation").is_some() != part.contains("verifyAttestationSignatures") {
            return None;
        }
        let get = |name: &str| found.name(name).map(|found| found.as_str());
        if get("image")? != get("same")? || get("element") != get("again") {
            return None;
        }
        let count: usize = get("count")?.parse().ok()?;
        let count = if get("sign")? == ">" { count.checked_add(1)? } else { count };
        let names = get("attestors")?
            .split(',')
            .map(|name| captures(&REFERENCE, name.trim())?.get(1).map(|name| name.as_str()));
        let mut needs = Vec::new();
        for name in names {
            let attestor = attestors.get(name?)?;
            needs.push(Need::By { signer: attestor.signer.clone()?, annotations: attestor.annotations.clone() });
        }
        if count == 0 || count > needs.len() {
            return None;
        }
        let need = Need::Of(count, needs);
        return match get("attestation") {
            None => Some(Term::Signed(need)),
            Some(name) => kinds.get(name)?.as_ref().map(|_| Term::Attested(name.to_owned(), need)),
        };
    }
    let found = captures(&PAYLOAD, part).or_else(|| captures(&PAYLOAD_ALL, part))?;
    let get = |name: &str| found.name(name).map(|found| found.as_str());
    if get("image")? != get("same")? || get("element") != get("again") {
        return None;
    }
    let (name, rest) = (get("attestation")?, get("rest")?);
    // More than one look at a payload has no form here.
    (kinds.get(name)?.is_some() && !rest.contains("extractPayload"))
        .then(|| Term::Payload(name.to_owned(), rest.trim().to_owned()))
}

fn require(asked: Asked, kinds: &BTreeMap<String, Option<String>>, draft: &mut Draft, notes: &mut Notes) {
    if asked.signatures.is_empty() && asked.attested.is_empty() && draft.spec.validations.is_empty() {
        notes.beside(
            "spec.validations",
            "no validation verifies anything that can be carried over",
            "write what is required",
        );
    }
    draft.require_signatures(&asked.signatures, "spec.validations");
    let mut used: BTreeSet<String> = asked.used;
    let mut names = BTreeMap::new();
    for (name, needs) in &asked.attested {
        let Some(kind) = kinds.get(name).cloned().flatten() else { continue };
        used.extend(Need::signers(needs));
        names.insert(name.clone(), draft.attested(name, &kind, needs, "spec.validations"));
    }
    for (name, rest, message, path) in asked.payloads {
        match names.get(&name) {
            Some(ours) => {
                let expression = format!("attestations.{ours}.all(a, a.predicate.{rest})");
                draft.validate(ours, expression, &message, Some("ATTESTATION_REJECTED"), &path);
            }
            None => notes.weaker(
                path,
                format!("nothing verifies who states the attestation `{name}`"),
                "verify it first: verifyAttestationSignatures",
            ),
        }
    }
    used.extend(Need::signers(&asked.signatures));
    draft.spec.signers.retain(|signer| {
        let is_used = used.contains(&signer.name);
        if !is_used {
            notes.same(
                "spec.attestors",
                format!("`{}` is asked by no validation that could be carried over", signer.name),
            );
        }
        is_used
    });
}

/// Parts joined by `&&` outside of parentheses and texts.
fn conjuncts(expression: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0_i32, None, false);
    let bytes = expression.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth -= 1,
            // Of `a && b || c` no part holds by itself.
            (None, b'|' | b'?') if depth == 0 => return vec![expression],
            (None, b'&') if depth == 0 && bytes.get(at + 1) == Some(&b'&') => {
                parts.extend(expression.get(start..at));
                start = at + 2;
            }
            (None, _) => {}
        }
    }
    parts.extend(expression.get(start..));
    parts
}

/// A form that an expression may have. A test reads all of them.
fn form(expression: &str) -> Option<Regex> {
    Regex::new(expression).ok()
}

fn captures<'t>(form: &Option<Regex>, text: &'t str) -> Option<regex::Captures<'t>> {
    form.as_ref()?.captures(text)
}

const LIST: &str = r"\(?\s*images\.\w+(?:\s*\+\s*images\.\w+)*\s*\)?";
const CALL: &str = r#"verify(?:Image|Attestation)Signatures\(\s*(?P<same>\w+)\s*,\s*(?:attestations\.(?P<attestation>[\w-]+)\s*,\s*)?\[(?P<attestors>(?:[^\[\]]|\[['"][\w-]+['"]\])*)\]\s*\)"#;

static MAPPED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    form(&format!(
        r"^{LIST}\.map\(\s*(?P<image>\w+)\s*,\s*{CALL}\s*\)\s*\.all\(\s*(?P<element>\w+)\s*,\s*(?P<again>\w+)\s*(?P<sign>>=|>)\s*(?P<count>\d+)\s*\)$"
    ))
});
static ALL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    form(&format!(r"^{LIST}\.all\(\s*(?P<image>\w+)\s*,\s*{CALL}\s*(?P<sign>>=|>)\s*(?P<count>\d+)\s*\)$"))
});
static PAYLOAD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    form(&format!(
        r"(?s)^{LIST}\.map\(\s*(?P<image>\w+)\s*,\s*{EXTRACT}(?P<rest>.*)\)\s*\.all\(\s*(?P<element>\w+)\s*,\s*(?P<again>\w+)\s*\)$"
    ))
});
static PAYLOAD_ALL: LazyLock<Option<Regex>> =
    LazyLock::new(|| form(&format!(r"(?s)^{LIST}\.all\(\s*(?P<image>\w+)\s*,\s*{EXTRACT}(?P<rest>.*)\)$")));
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| form(r#"^attestors(?:\.|\[['"])([\w-]+)(?:['"]\])?$"#));

const EXTRACT: &str = r"extractPayload\(\s*(?P<same>\w+)\s*,\s*attestations\.(?P<attestation>[\w-]+)\s*\)\.predicate\.";

const PUBLIC_LOG: &str = "https://rekor.sigstore.dev";
