//! `verifyImages` rules of Kyverno's `ClusterPolicy` and `Policy`. Source: kyverno, `api/kyverno/v1/image_verification_types.go`, `spec_types.go`.
//!
//! Of `attestors` every set must hold; of a set `count` of its entries, all where it does not say. Every attestation of a type must satisfy
//! the conditions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    cel,
    fields::{Fields, Notes},
    images,
    kyverno_match::{self, opened},
    policy_controller::predicate_type,
    rule::{Draft, Need, Who, elsewhere, identity, object_name, trust_to_bring},
};
use crate::kinds::{Action, CustomPath, Evidence, Keyless, Tags};

/// ConfigMaps that a rule calls by a name: namespace and name.
type Context = BTreeMap<String, (String, String)>;

pub(super) fn convert(object: Fields, is_namespaced: bool, made: &mut Vec<Value>, notes: &mut Notes) {
    let Some((meta, namespace, mut spec)) = opened(object, is_namespaced, notes) else { return };
    let action = spec.text("validationFailureAction", notes);
    let warns = spec.flag("auditWarning", notes).unwrap_or_default();
    let is_admission = spec.flag("admission", notes).unwrap_or(true);
    if !is_admission {
        notes.same(spec.at("admission"), "it is not for admission: the rule only records");
    }
    overrides(&mut spec, enforces(action.as_deref()), notes);
    if spec.text("applyRules", notes).is_some_and(|apply| apply == "One") {
        notes.stricter(
            spec.at("applyRules"),
            "of several rules that match all are asked, not only the first",
            "exclude in spec.match",
        );
    }
    for (name, why) in [
        ("background", "what runs is always looked at"),
        ("schemaValidation", "it is about Kyverno's own checks"),
        ("failurePolicy", "what happens while the webhook is away is said where it is registered"),
        ("webhookTimeoutSeconds", "how long the API server waits is said where the webhook is registered"),
        ("mutateExistingOnPolicyUpdate", "it is not about images"),
        ("generateExisting", "it is not about images"),
        ("generateExistingOnPolicyUpdate", "it is not about images"),
        ("useServerSideApply", "it is not about images"),
    ] {
        if spec.take(name).is_some() {
            notes.same(spec.at(name), why);
        }
    }
    let conditions = webhook(&mut spec, notes);
    let rules = spec.parts("rules", notes);
    spec.end(notes);
    let count = rules.len();
    for (at, mut rule) in rules.into_iter().enumerate() {
        let name = rule.text("name", notes).unwrap_or_else(|| format!("rule-{at}"));
        let images = rule.parts("verifyImages", notes);
        if images.is_empty() {
            notes.weaker(rule.here(), "the rule is not about images", "leave it in Kyverno");
            continue;
        }
        let context = context(&mut rule, notes);
        let extracted = extractors(&mut rule, notes);
        let base = if count == 1 { meta.name.clone() } else { format!("{}-{name}", meta.name) };
        let several = images.len() > 1;
        // `match` and the like are of the rule, and stand in each that is made of it.
        let shared = rule;
        for (number, image) in images.into_iter().enumerate() {
            let name = if several { format!("{base}-{}", number + 1) } else { base.clone() };
            let own = image.peek("failureAction").map(str::to_owned).or_else(|| action.clone());
            let actions = match (enforces(own.as_deref()) && is_admission, warns) {
                (true, _) => vec![Action::Deny],
                (false, true) => vec![Action::Audit, Action::Warn],
                (false, false) => vec![Action::Audit],
            };
            let mut draft = Draft::new(name, namespace.clone(), actions, notes);
            draft.spec.description = meta.description.clone();
            let before = notes.all.len();
            let mut rule = shared.again();
            kyverno_match::lay(&mut rule, &mut draft, meta.autogen.as_deref(), &extracted, notes);
            preconditions(&mut rule, notes);
            rule.end(notes);
            if number > 0 {
                // Told once: the same fields again.
                notes.forget_same(before);
            }
            for (name, expression, from) in &conditions {
                draft.condition(name, expression.clone(), from);
            }
            verify(image, &context, &mut draft, made, notes);
            draft.finish(made, notes);
        }
    }
}

fn enforces(action: Option<&str>) -> bool {
    action.is_some_and(|action| action.eq_ignore_ascii_case("enforce"))
}

/// Other actions in some namespaces.
fn overrides(spec: &mut Fields, is_enforced: bool, notes: &mut Notes) {
    for mut one in spec.parts("validationFailureActionOverrides", notes) {
        let action = one.text("action", notes);
        for part in ["namespaces", "namespaceSelector"] {
            one.take(part);
        }
        let instead = "write the rule twice, with other `match.namespaces` and `actions`";
        match (is_enforced, enforces(action.as_deref())) {
            (true, false) => notes.stricter(
                one.here(),
                "a rule has the same actions in all namespaces: it denies there too",
                instead,
            ),
            (false, true) => {
                notes.weaker(one.here(), "a rule has the same actions in all namespaces: it only audits there", instead)
            }
            _ => notes.same(one.here(), "the action is the same"),
        }
        one.end(notes);
    }
}

/// Conditions of the webhook, which are ours too.
fn webhook(spec: &mut Fields, notes: &mut Notes) -> Vec<(String, String, String)> {
    let mut conditions = Vec::new();
    if let Some(mut webhook) = spec.part("webhookConfiguration", notes) {
        for name in ["failurePolicy", "timeoutSeconds"] {
            if webhook.take(name).is_some() {
                notes.same(webhook.at(name), "it is said where the webhook is registered");
            }
        }
        for mut condition in webhook.parts("matchConditions", notes) {
            let name = condition.text("name", notes).unwrap_or_else(|| "condition".to_owned());
            if let Some(expression) = condition.text("expression", notes) {
                conditions.push((name, expression, condition.at("expression")));
            }
            condition.end(notes);
        }
        webhook.end(notes);
    }
    conditions
}

/// Variables that are ConfigMaps; what else there is may be missed where it is used.
fn context(rule: &mut Fields, notes: &mut Notes) -> Context {
    let mut context = Context::new();
    for mut entry in rule.parts("context", notes) {
        let name = entry.text("name", notes).unwrap_or_default();
        if let Some(mut map) = entry.part("configMap", notes) {
            let namespace = map.text("namespace", notes).unwrap_or_else(|| "default".to_owned());
            context.insert(name, (namespace, map.text("name", notes).unwrap_or_default()));
            map.end(notes);
        } else {
            for kind in ["apiCall", "imageRegistry", "variable", "globalReference"] {
                if entry.take(kind).is_some() {
                    notes.same(entry.at(kind), "a variable by itself decides nothing; where it is used, that is told");
                }
            }
        }
        entry.end(notes);
    }
    context
}

/// Kinds whose images are said by a path: where that leads through a template of pods, the template.
fn extractors(rule: &mut Fields, notes: &mut Notes) -> Vec<CustomPath> {
    if let Some(extractors) = rule.part("imageExtractors", notes) {
        notes.weaker(
            extractors.here(),
            "images are read from pods and templates of pods, not from any field",
            "where the kind holds a template of pods, declare it in spec.match.customPaths",
        );
    }
    Vec::new()
}

fn preconditions(rule: &mut Fields, notes: &mut Notes) {
    let Some(conditions) = rule.take("preconditions") else { return };
    let path = rule.at("preconditions");
    if kyverno_match::is_about_deletion(&conditions) {
        notes.same(path, "nothing is decided about deletions");
    } else {
        let why = "JMESPath is not translated: the rule applies whether they hold or not";
        notes.stricter(path, why, "write a condition in spec.match.conditions, in CEL");
    }
}

fn verify(mut image: Fields, context: &Context, draft: &mut Draft, made: &mut Vec<Value>, notes: &mut Notes) {
    image.take("failureAction");
    let (at, mut patterns) = (image.at("imageReferences"), image.texts("imageReferences", notes));
    patterns.extend(image.text("image", notes));
    for pattern in &patterns {
        let globs = images::of_kyverno(pattern, &at, notes);
        draft.spec.matches.images.include.extend(globs);
    }
    if patterns.is_empty() {
        notes.stricter(&at, "it names no images, and the rule is about all", "name them");
    }
    let at = image.at("skipImageReferences");
    for pattern in image.texts("skipImageReferences", notes) {
        draft.spec.matches.images.exclude.extend(images::left_out(&pattern, &at, notes));
    }
    let mutates = image.flag("mutateDigest", notes).unwrap_or(true);
    let digest = image.flag("verifyDigest", notes).unwrap_or(true);
    if mutates {
        notes.same(
            image.at("mutateDigest"),
            "no object is changed; what a tag leads to is recorded for each pod, and compared with what runs",
        );
    } else if digest {
        draft.spec.tags = Tags::RequireDigest;
    }
    for (name, why) in [
        ("required", "every image that is meant is always verified"),
        ("useCache", "facts are kept by digest, decisions never"),
        ("cosignOCI11", "signatures are looked for at all places"),
    ] {
        if image.flag(name, notes).is_some() {
            notes.same(image.at(name), why);
        }
    }
    elsewhere(&mut image, "repository", notes);
    if let Some(mut credentials) = image.part("imageRegistryCredentials", notes) {
        let at = credentials.here().to_owned();
        for name in ["allowInsecureRegistry", "providers", "secrets"] {
            credentials.take(name);
        }
        credentials.end(notes);
        notes.beside(at, "the pod's own credentials are used", "where others are needed, write a RegistryAccess");
    }
    if let Some(mut validate) = image.part("validate", notes) {
        for name in ["message", "deny"] {
            validate.take(name);
        }
        notes.weaker(validate.here(), "conditions over several attestations are not translated", "write a validation");
        validate.end(notes);
    }
    if image.text("type", notes).is_some_and(|kind| kind == "Notary") {
        notes.weaker(
            image.at("type"),
            "signatures of Notation are not verified",
            "have the images signed by Sigstore's formats too",
        );
        for name in ["attestors", "attestations"] {
            if image.take(name).is_some() {
                notes.same(image.at(name), "it is about signatures of Notation, which is told");
            }
        }
        return image.end(notes);
    }
    let path = image.at("attestors");
    let mut signatures = sets(&mut image, context, draft, made, notes);
    signatures.extend(old(&mut image, draft, notes));
    draft.require_signatures(&signatures, &path);
    for mut attestation in image.parts("attestations", notes) {
        let kind = attestation.text("type", notes).or_else(|| attestation.text("predicateType", notes));
        attestation.take("predicateType");
        let kind = predicate_type(&kind.unwrap_or_default(), &attestation.at("type"), notes);
        let name = attestation.text("name", notes).unwrap_or_else(|| short(&kind));
        let mut own = sets(&mut attestation, context, draft, made, notes);
        if own.is_empty() {
            own.clone_from(&signatures);
        }
        attested(&name, &kind, &own, attestation, draft, notes);
    }
    image.end(notes);
}

/// An attestation by signers, and what must hold of it.
fn attested(name: &str, kind: &str, own: &[Need], mut attestation: Fields, draft: &mut Draft, notes: &mut Notes) {
    if Need::signers(own).is_empty() {
        let why = "nobody is named whose word counts, and an attestation that nobody signed proves nothing";
        notes.weaker(attestation.at("attestors"), why, "name its attestors");
        attestation.take("conditions");
        return attestation.end(notes);
    }
    let name = draft.attested(name, kind, own, attestation.here());
    let list = format!("attestations.{name}");
    let path = attestation.at("conditions");
    for (at, conditions) in attestation.list("conditions", notes) {
        match condition(&conditions) {
            Some(expression) => {
                let message = format!("the attestation {kind} does not say what it should");
                draft.validate(&name, format!("{list}.all(a, {expression})"), &message, Some("ATTESTATION_REJECTED"), &path);
            }
            None => notes.weaker(
                at,
                "a condition by JMESPath is translated only where its key is a path of the predicate and its value is written out",
                format!("write a validation: {list}.all(a, a.predicate.… == …)"),
            ),
        }
    }
    attestation.end(notes);
}

/// `https://slsa.dev/provenance/v1` as `provenance`.
fn short(kind: &str) -> String {
    let mut parts = kind.rsplit('/').filter(|part| !part.is_empty());
    let last = parts.next().unwrap_or("attestation");
    let is_version = last.starts_with('v') && last.chars().skip(1).all(|c| c.is_ascii_digit() || c == '.');
    let name = if is_version { parts.next().unwrap_or(last) } else { last };
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Sets of attestors, all of which must hold.
fn sets(of: &mut Fields, context: &Context, draft: &mut Draft, made: &mut Vec<Value>, notes: &mut Notes) -> Vec<Need> {
    of.parts("attestors", notes).into_iter().filter_map(|one| set(one, context, draft, made, notes)).collect()
}

fn set(
    mut set: Fields,
    context: &Context,
    draft: &mut Draft,
    made: &mut Vec<Value>,
    notes: &mut Notes,
) -> Option<Need> {
    let count = set.number("count", notes).and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
    let mut needs = Vec::new();
    for entry in set.parts("entries", notes) {
        needs.extend(self::entry(entry, context, draft, made, notes));
    }
    set.end(notes);
    if needs.is_empty() {
        return None;
    }
    let count = count.unwrap_or(needs.len()).min(needs.len());
    Some(Need::Of(count, needs))
}

fn entry(
    mut entry: Fields,
    context: &Context,
    draft: &mut Draft,
    made: &mut Vec<Value>,
    notes: &mut Notes,
) -> Vec<Need> {
    elsewhere(&mut entry, "repository", notes);
    let annotations = entry.pairs("annotations", notes);
    let path = entry.here().to_owned();
    let mut needs = Vec::new();
    if let Some(keys) = entry.part("keys", notes) {
        needs.extend(self::keys(keys, context, draft, notes).into_iter().map(Need::by));
    } else if let Some(keyless) = entry.part("keyless", notes) {
        needs.push(Need::by(self::keyless(keyless, draft, made, notes)));
    } else if let Some(mut certificates) = entry.part("certificates", notes) {
        let at = certificates.here().to_owned();
        for name in ["cert", "certChain"] {
            certificates.take(name);
        }
        let (evidence, trust) = log(&mut certificates, "rekor", notes);
        ctlog(&mut certificates, notes);
        certificates.end(notes);
        let (who, told) = Who::to_bring(&format!("{}-certificate", draft.name), trust);
        let why = "a certificate of one's own is not judged; its key is: until it is brought, nobody is known by it";
        notes.stricter(at, why, format!("openssl x509 -pubkey -noout; {told}"));
        needs.push(Need::by(draft.signer("certificate", who, evidence)));
    } else if let Some(nested) = entry.part("attestor", notes) {
        needs.extend(set(nested, context, draft, made, notes));
    } else {
        notes.weaker(&path, "none of `keys`, `keyless`, `certificates` and `attestor` is in it", "correct it");
    }
    if !annotations.is_empty() {
        for need in &mut needs {
            match need {
                Need::By { annotations: own, .. } => own.clone_from(&annotations),
                Need::Of(..) => {
                    notes.weaker(
                        format!("{path}.annotations"),
                        "annotations of a nested attestor are not carried over",
                        "write a validation over `signatures`",
                    );
                }
            }
        }
    }
    entry.end(notes);
    needs
}

/// Each key is a signer.
fn keys(mut keys: Fields, context: &Context, draft: &mut Draft, notes: &mut Notes) -> Vec<String> {
    if let Some(algorithm) = keys.text("signatureAlgorithm", notes).filter(|name| name != "sha256") {
        let why = format!("the key says which digest is signed; signatures with {algorithm} may not be taken");
        notes.stricter(keys.at("signatureAlgorithm"), why, "");
    }
    let (evidence, trust) = log(&mut keys, "rekor", notes);
    ctlog(&mut keys, notes);
    let mut found = Vec::new();
    if let Some(text) = keys.text("publicKeys", notes) {
        let at = keys.at("publicKeys");
        let text = text.trim();
        let pems: Vec<String> = pems(text);
        let variable =
            text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).and_then(|path| map(path, context));
        if !pems.is_empty() {
            found.extend(pems.iter().map(|pem| ("key".to_owned(), Who::key(pem, trust.clone()))));
        } else if let Some((namespace, name)) = text.strip_prefix("k8s://").and_then(|place| place.split_once('/')) {
            let key = Some("cosign.pub".to_owned());
            found.push((name.to_owned(), Who::secret(name.to_owned(), Some(namespace.to_owned()), key, trust.clone())));
        } else if let Some(((namespace, name), key)) = variable {
            let who = Who::config_map(name.clone(), Some(namespace), Some(key), trust.clone());
            found.push((name, who));
        } else {
            let (who, told) = Who::to_bring(&draft.name, trust.clone());
            notes.stricter(
                at,
                "it is no key, PEM, that is known here: until one is brought, nobody is known by it",
                told,
            );
            found.push(("key".to_owned(), who));
        }
    }
    if let Some(kms) = keys.text("kms", notes) {
        let (who, told) = Who::to_bring(&draft.name, trust.clone());
        let why = "no key service is asked; until the key is brought, nobody is known by it";
        notes.stricter(keys.at("kms"), why, format!("cosign public-key --key {kms}; {told}"));
        found.push(("kms".to_owned(), who));
    }
    if let Some(mut secret) = keys.part("secret", notes) {
        let name = secret.text("name", notes).unwrap_or_default();
        let namespace = secret.text("namespace", notes);
        secret.end(notes);
        found.push((name.clone(), Who::secret(name, namespace, Some("cosign.pub".to_owned()), trust)));
    }
    if found.is_empty() {
        notes.weaker(keys.here(), "there is no key in it", "correct it");
    }
    keys.end(notes);
    found.into_iter().map(|(name, who)| draft.signer(&name, who, evidence)).collect()
}

/// `NAME.data.KEY` of a ConfigMap in the context.
fn map(path: &str, context: &Context) -> Option<((String, String), String)> {
    let (name, rest) = path.trim().split_once(".data.")?;
    let key = rest.trim().trim_matches('"');
    Some((context.get(name)?.clone(), key.to_owned()))
}

fn pems(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let bodies = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    bodies.map(|(body, _)| format!("{BEGIN}{body}{END}\n")).collect()
}

/// What stands behind a signature, and by which root.
fn log(fields: &mut Fields, name: &str, notes: &mut Notes) -> (Evidence, Option<String>) {
    let public = (Evidence::Log, Some("public-good".to_owned()));
    let Some(mut rekor) = fields.part(name, notes) else { return public };
    let ignored = rekor.flag("ignoreTlog", notes) == Some(true);
    let (url, key) = (rekor.text("url", notes), rekor.text("pubkey", notes));
    let is_other = key.is_some() || url.as_deref().is_some_and(|url| url.trim_end_matches('/') != PUBLIC_LOG);
    let here = rekor.here().to_owned();
    rekor.end(notes);
    if ignored {
        return (Evidence::Signature, None);
    }
    if is_other {
        let name = "rekor".to_owned();
        let why = format!(
            "a log of one's own is part of a trust root, here the SignerTrust {name}: without it nobody is known"
        );
        notes.stricter(here, why, "make a trusted root: cosign trusted-root create --rekor=…, and a SignerTrust of it");
        return (Evidence::Log, Some(name));
    }
    public
}

/// What is said of logs of certificates, and of timestamps.
fn ctlog(fields: &mut Fields, notes: &mut Notes) {
    let Some(mut log) = fields.part("ctlog", notes) else { return };
    if log.flag("ignoreSCT", notes) == Some(true) {
        let why = "that a certificate is in its log is checked, unless the trust root names no such log; of a key there is nothing to check";
        notes.stricter(log.at("ignoreSCT"), why, "name a SignerTrust without logs of certificates");
    }
    for name in ["pubkey", "tsaCertChain"] {
        if log.text(name, notes).is_some() {
            let why =
                "keys of logs and timestamp authorities are part of a trust root: by this one alone nothing is judged";
            notes.stricter(
                log.at(name),
                why,
                "make a trusted root: cosign trusted-root create, and a SignerTrust of it",
            );
        }
    }
    log.end(notes);
}

fn keyless(mut keyless: Fields, draft: &mut Draft, made: &mut Vec<Value>, notes: &mut Notes) -> String {
    let path = keyless.here().to_owned();
    let (mut evidence, log) = log(&mut keyless, "rekor", notes);
    if evidence == Evidence::Signature {
        evidence = Evidence::Log;
        let why = "a certificate is valid for minutes: that it was used then is shown by a log entry";
        notes.stricter(format!("{path}.rekor.ignoreTlog"), why, "");
    }
    ctlog(&mut keyless, notes);
    let mut trust = log.unwrap_or_else(|| "public-good".to_owned());
    if keyless.text("roots", notes).is_some() {
        trust = object_name(&format!("{}-trust", draft.name));
        let (object, told) = trust_to_bring(&trust, None);
        if !made.contains(&object) {
            made.push(object);
        }
        let why = "a certificate authority alone is no trust root: its logs belong to it";
        notes.stricter(keyless.at("roots"), why, format!("cosign trusted-root create; {told}"));
    }
    let exact = |text: &String| !cel::is_wild(text);
    let (issuer, subject) = (keyless.text("issuer", notes), keyless.text("subject", notes));
    let wild = |text: &Option<String>| {
        text.as_ref().filter(|text| cel::is_wild(text)).map(|text| format!("^{}$", cel::expression(text)))
    };
    let (issuer_wild, subject_wild) = (wild(&issuer), wild(&subject));
    let mut identity = identity(
        issuer.filter(exact),
        keyless.text("issuerRegExp", notes).or(issuer_wild),
        subject.filter(exact),
        keyless.text("subjectRegExp", notes).or(subject_wild),
        &path,
        notes,
    );
    let at = keyless.at("additionalExtensions");
    for (name, value) in keyless.pairs("additionalExtensions", notes) {
        match claim(&name).filter(|_| !cel::is_wild(&value)) {
            Some((claim, prefix)) => {
                identity.claims.insert(claim.to_owned(), format!("{prefix}{value}"));
            }
            None => notes.weaker(
                format!("{at}.{name}"),
                "this extension has no claim of the same meaning, or its value has wildcards",
                "write a validation over `signatures`: s.claims",
            ),
        }
    }
    keyless.end(notes);
    draft.signer("keyless", Who::Keyless(Keyless { trust, identities: vec![identity] }), evidence)
}

/// A claim of Fulcio's by the name that cosign has for the older extension. Source: fulcio, `docs/oid-info.md`.
fn claim(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "githubWorkflowRepository" => ("sourceRepositoryUri", "https://github.com/"),
        "githubWorkflowRef" => ("sourceRepositoryRef", ""),
        "githubWorkflowSha" => ("sourceRepositoryDigest", ""),
        "githubWorkflowTrigger" => ("buildTrigger", ""),
        _ => return None,
    })
}

/// Fields as they were before there were attestors.
fn old(image: &mut Fields, draft: &mut Draft, notes: &mut Notes) -> Vec<Need> {
    let annotations = image.pairs("annotations", notes);
    let extensions = image.pairs("additionalExtensions", notes);
    let (key, subject, issuer) = (image.text("key", notes), image.text("subject", notes), image.text("issuer", notes));
    if image.text("roots", notes).is_some() {
        let why = "a certificate authority alone is no trust root; the public instance's is taken";
        notes.stricter(
            image.at("roots"),
            why,
            "make a trusted root: cosign trusted-root create, and a SignerTrust of it",
        );
    }
    if !extensions.is_empty() {
        notes.weaker(
            image.at("additionalExtensions"),
            "they are read under `keyless` of an attestor only",
            "write them there",
        );
    }
    let mut entry = Map::new();
    if let Some(key) = key {
        entry.insert("publicKeys".to_owned(), key.into());
        let keys = Fields::new(image.at("key"), entry);
        let names = self::keys(keys, &Context::new(), draft, notes);
        return names.into_iter().map(|signer| Need::By { signer, annotations: annotations.clone() }).collect();
    }
    if subject.is_some() || issuer.is_some() {
        entry.extend(subject.map(|subject| ("subject".to_owned(), subject.into())));
        entry.extend(issuer.map(|issuer| ("issuer".to_owned(), issuer.into())));
        let signer = keyless(Fields::new(image.at("subject"), entry), draft, &mut Vec::new(), notes);
        return vec![Need::By { signer, annotations }];
    }
    if !annotations.is_empty() {
        notes.weaker(
            image.at("annotations"),
            "they are read beside `key` or under an attestor only",
            "write them there",
        );
    }
    Vec::new()
}

/// Conditions over a predicate, `a.predicate`; none where they cannot be said.
fn condition(conditions: &Value) -> Option<String> {
    let fields = conditions.as_object()?;
    if fields.keys().any(|name| name != "any" && name != "all") {
        return None;
    }
    let each = |name: &str| -> Option<Vec<String>> {
        fields.get(name).map_or(Some(Vec::new()), |list| list.as_array()?.iter().map(comparison).collect())
    };
    let mut parts = each("all")?;
    parts.extend(cel::any(each("any")?));
    cel::all(parts)
}

fn comparison(condition: &Value) -> Option<String> {
    let known = ["key", "operator", "value", "message"];
    let fields = condition.as_object().filter(|fields| fields.keys().all(|name| known.contains(&name.as_str())))?;
    let key = fields.get("key")?.as_str()?.trim();
    let path = key.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    if !path.split('.').all(cel::is_name) {
        return None;
    }
    let left = format!("a.predicate.{path}");
    let value = fields.get("value")?;
    let equals = |value: &Value| -> Option<String> {
        match value {
            // Kyverno compares wildcards too.
            Value::String(text) => Some(cel::like(&left, text)),
            Value::Number(number) if !number.is_f64() => Some(format!("{left} == {number}")),
            Value::Bool(flag) => Some(format!("{left} == {flag}")),
            _ => None,
        }
    };
    let within = |value: &Value| -> Option<String> {
        let values = match value {
            Value::Array(values) => values.clone(),
            one => vec![one.clone()],
        };
        cel::any(values.iter().map(equals).collect::<Option<_>>()?)
    };
    match fields.get("operator")?.as_str()? {
        "Equals" | "Equal" => equals(value),
        "NotEquals" | "NotEqual" => Some(format!("!({})", equals(value)?)),
        "In" | "AnyIn" => within(value),
        "NotIn" | "AllNotIn" => Some(format!("!({})", within(value)?)),
        operator => {
            let sign = match operator {
                "GreaterThan" => ">",
                "GreaterThanOrEquals" => ">=",
                "LessThan" => "<",
                "LessThanOrEquals" => "<=",
                _ => return None,
            };
            let number = value.as_i64()?;
            Some(format!("{left} {sign} {number}"))
        }
    }
}

const PUBLIC_LOG: &str = "https://rekor.sigstore.dev";
