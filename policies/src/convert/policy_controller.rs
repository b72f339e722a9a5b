//! `ClusterImagePolicy`, v1alpha1 and v1beta1. Source: sigstore/policy-controller, `pkg/apis/policy`, `pkg/webhook/validator.go`.
//!
//! All policies that match must be satisfied, as all rules must; of a policy any of its authorities. An authority with attestations asks
//! for all of them and for no signature.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    cel,
    fields::{Fields, Notes},
    images,
    kyverno_match::{metadata, selector},
    rule::{Draft, Need, Who, anybody, elsewhere, identities, tag_prefix, trust_to_bring},
};
use crate::kinds::{Action, Evidence, Keyless};

/// What an authority asks for.
struct Authority {
    name: String,
    signer: String,
    /// Name, predicate type.
    attestations: Vec<(String, String)>,
}

pub(super) fn convert(mut object: Fields, roots: &BTreeSet<String>, made: &mut Vec<Value>, notes: &mut Notes) {
    let meta = metadata(&mut object, notes);
    let Some(mut spec) = object.part("spec", notes) else {
        notes.weaker("spec", "there is none", "");
        return object.end(notes);
    };
    object.end(notes);
    let actions = match spec.text("mode", notes).as_deref() {
        None | Some("enforce") => vec![Action::Deny],
        Some("warn") => vec![Action::Warn],
        Some(other) => {
            notes.stricter(spec.at("mode"), format!("`{other}` is neither `enforce` nor `warn`: it denies"), "");
            vec![Action::Deny]
        }
    };
    let mut draft = Draft::new(meta.name, None, actions, notes);
    draft.spec.description = meta.description;
    draft.spec.matches.namespaces.match_labels.insert(INCLUDED.to_owned(), "true".to_owned());
    notes.beside(
        "spec",
        format!("the policy controller looks at namespaces with the label {INCLUDED}=true, and so does the rule"),
        "where it is installed to look at others, change spec.match.namespaces; images that no policy is about are refused there unless no-match-policy says otherwise: write a rule for those",
    );
    for mut image in spec.parts("images", notes) {
        let path = image.at("glob");
        if let Some(glob) = image.text("glob", notes) {
            draft.spec.matches.images.include.push(images::of_policy_controller(&glob, &path, notes));
        }
        image.end(notes);
    }
    if draft.spec.matches.images.include.is_empty() {
        notes.stricter(spec.at("images"), "it names no images, and the rule is about all", "name them");
    }
    workloads(&mut spec, &mut draft, notes);
    let mut authorities = Vec::new();
    let (mut passes, mut fails) = (Vec::new(), Vec::new());
    let written = spec.parts("authorities", notes);
    let at_authorities = spec.at("authorities");
    for (at, mut authority) in written.into_iter().enumerate() {
        let name = authority.text("name", notes).unwrap_or_else(|| format!("authority-{at}"));
        match authority.part("static", notes) {
            None => authorities.extend(read(authority, name, roots, &mut draft, made, notes)),
            Some(mut fixed) => {
                match fixed.text("action", notes).as_deref() {
                    Some("pass") => passes.push(fixed.here().to_owned()),
                    _ => fails.push((fixed.here().to_owned(), fixed.text("message", notes))),
                }
                fixed.text("message", notes);
                fixed.end(notes);
                authority.end(notes);
            }
        }
    }
    policy(&mut spec, "policy", "of the images' authorities together", notes);
    spec.end(notes);
    if let Some(path) = passes.first() {
        let why = "whatever else is written, these images pass: no rule says the same";
        notes.beside(path, why, "where another rule is about all images, exclude these in its spec.match.images");
        if notes.missing(0).is_empty() {
            return;
        }
        draft.spec.signers.clear();
    } else if authorities.is_empty() {
        let (path, message) = fails.into_iter().next().unwrap_or((at_authorities, None));
        let message = message.unwrap_or_else(|| "these images are not allowed".to_owned());
        draft.validate("not-allowed", "false".to_owned(), &message, Some("NOT_ALLOWED"), &path);
    } else {
        for (path, _) in fails {
            notes.same(path, "an authority that fails beside others changes nothing");
        }
        require(&mut draft, &authorities, &at_authorities);
    }
    draft.finish(made, notes);
}

/// What any of the authorities asks for.
fn require(draft: &mut Draft, authorities: &[Authority], from: &str) {
    let signers = |of: &[&Authority]| of.iter().map(|authority| authority.signer.clone()).collect::<Vec<_>>();
    let (signing, attesting): (Vec<_>, Vec<_>) =
        authorities.iter().partition(|authority| authority.attestations.is_empty());
    match (signing.as_slice(), attesting.as_slice()) {
        (signing, []) => {
            let mut names = signers(signing);
            names.sort();
            names.dedup();
            draft.require_signatures(&[Need::Of(1, names.into_iter().map(Need::by).collect())], from);
        }
        ([], [one]) => {
            for (name, predicate_type) in &one.attestations {
                draft.attestation(name, predicate_type, vec![one.signer.clone()], false);
            }
        }
        _ => {
            let mut ways = Vec::new();
            for authority in attesting {
                let mut parts = Vec::new();
                for (name, predicate_type) in &authority.attestations {
                    let name = draft.attestation(
                        &format!("{}_{name}", authority.name),
                        predicate_type,
                        vec![authority.signer.clone()],
                        true,
                    );
                    parts.push(format!("has(attestations.{name})"));
                }
                ways.extend(cel::all(parts));
            }
            // Last: where there is no signature at all, the expression ends here.
            if !signing.is_empty() {
                let needs = signers(&signing).into_iter().map(Need::by).collect();
                ways.push(Need::Of(1, needs).expression("signatures"));
            }
            if let Some(expression) = cel::any(ways) {
                let message = "none of the authorities has signed or attested as is asked";
                draft.validate("authorities", expression, message, Some("SIGNER_MISMATCH"), from);
            }
        }
    }
}

fn read(
    mut authority: Fields,
    name: String,
    roots: &BTreeSet<String>,
    draft: &mut Draft,
    made: &mut Vec<Value>,
    notes: &mut Notes,
) -> Option<Authority> {
    let path = authority.here().to_owned();
    let (mut evidence, mut trust) = (Evidence::Signature, None);
    if let Some(mut log) = authority.part("ctlog", notes) {
        let (url, root) = (log.text("url", notes), log.text("trustRootRef", notes));
        match (root, url) {
            (Some(root), url) => {
                if url.is_some() {
                    notes.same(log.at("url"), "a log entry comes with its proof: no log is asked");
                }
                known(&root, &log.at("trustRootRef"), roots, notes);
                (evidence, trust) = (Evidence::Log, Some(root));
            }
            (None, Some(url)) => {
                let is_public = url.trim_end_matches('/') == PUBLIC_LOG;
                (evidence, trust) = (Evidence::Log, Some("public-good".to_owned()));
                if !is_public {
                    let why = "log entries are held against the public instance's keys, as they are there";
                    notes.beside(log.at("url"), why, "name a SignerTrust of that instance in `trust`");
                }
            }
            (None, None) => {}
        }
        log.end(notes);
    }
    if let Some(mut stamp) = authority.part("rfc3161timestamp", notes) {
        if let Some(root) = stamp.text("trustRootRef", notes) {
            known(&root, &stamp.at("trustRootRef"), roots, notes);
            if trust.as_ref().is_some_and(|trust| *trust != root) {
                notes.same(authority.at("ctlog"), "with `rfc3161timestamp` no log entry is looked for");
            }
            (evidence, trust) = (Evidence::Timestamp, Some(root));
        }
        stamp.end(notes);
    }
    let who = match (authority.part("key", notes), authority.part("keyless", notes)) {
        (Some(key), None) => Some(self::key(key, &format!("{}-{name}", draft.name), trust, notes)),
        (None, Some(keyless)) => {
            let (who, asked) = self::keyless(keyless, &draft.name, trust, roots, made, notes);
            if evidence == Evidence::Signature {
                evidence = Evidence::Log;
                let why = "a certificate is valid for minutes: that it was used then is shown by a log entry";
                notes.stricter(asked, why, "");
            }
            Some(who)
        }
        _ => {
            notes.stricter(&path, "it has neither `key` nor `keyless`, or both: nobody is known by it", "correct it");
            None
        }
    };
    for mut source in authority.parts("source", notes) {
        elsewhere(&mut source, "oci", notes);
        if !source.list("signaturePullSecrets", notes).is_empty() {
            notes.same(source.at("signaturePullSecrets"), "the pod's own credentials are used");
        }
        tag_prefix(&mut source, notes);
        source.end(notes);
    }
    if authority.text("signatureFormat", notes).is_some() {
        notes.same(authority.at("signatureFormat"), "all formats are looked for");
    }
    let mut attestations = Vec::new();
    for mut attestation in authority.parts("attestations", notes) {
        let kind = attestation.text("predicateType", notes).unwrap_or_default();
        let name = attestation.text("name", notes).unwrap_or_else(|| "attestation".to_owned());
        if !kind.is_empty() {
            attestations.push((name.clone(), predicate_type(&kind, &attestation.at("predicateType"), notes)));
        }
        policy(&mut attestation, "policy", &format!("of the attestation `{name}`"), notes);
        attestation.end(notes);
    }
    authority.end(notes);
    let signer = draft.signer(&name, who?, evidence);
    Some(Authority { name, signer, attestations })
}

fn key(mut key: Fields, name: &str, trust: Option<String>, notes: &mut Notes) -> Who {
    if let Some(algorithm) = key.text("hashAlgorithm", notes).filter(|name| name != "sha256") {
        let why = format!("the key says which digest is signed; signatures with {algorithm} may not be taken");
        notes.stricter(key.at("hashAlgorithm"), why, "");
    }
    let who = if let Some(data) = key.text("data", notes) {
        Who::key(&data, trust)
    } else if let Some(mut secret) = key.part("secretRef", notes) {
        let name = secret.text("name", notes).unwrap_or_default();
        let namespace = secret.text("namespace", notes).unwrap_or_else(|| "cosign-system".to_owned());
        secret.end(notes);
        Who::secret(name, Some(namespace), None, trust)
    } else {
        let (who, told) = Who::to_bring(name, trust);
        match key.text("kms", notes) {
            Some(kms) => {
                let why = "no key service is asked; until the key is brought, nobody is known by it";
                notes.stricter(key.at("kms"), why, format!("cosign public-key --key {kms}; {told}"));
            }
            None => notes.stricter(key.here(), "no key is in it: nobody is known by it", told),
        }
        who
    };
    key.end(notes);
    who
}

/// The signer, and the field that says so.
fn keyless(
    mut keyless: Fields,
    policy: &str,
    log: Option<String>,
    roots: &BTreeSet<String>,
    made: &mut Vec<Value>,
    notes: &mut Notes,
) -> (Who, String) {
    let path = keyless.here().to_owned();
    let (url, root) = (keyless.text("url", notes), keyless.text("trustRootRef", notes));
    let is_public = url.as_deref().is_none_or(|url| url.trim_end_matches('/') == PUBLIC_AUTHORITY);
    let trust = match (root, keyless.part("ca-cert", notes)) {
        (Some(root), authority) => {
            if authority.is_some() {
                notes.same(keyless.at("ca-cert"), "`trustRootRef` is written too, and counts");
            }
            if url.is_some() && !is_public {
                notes.same(keyless.at("url"), "a certificate is judged by the trust root: no authority is asked");
            }
            known(&root, &keyless.at("trustRootRef"), roots, notes);
            root
        }
        (None, None) if is_public => "public-good".to_owned(),
        (None, authority) => {
            let name = super::rule::object_name(&format!("{policy}-trust"));
            let (object, told) = trust_to_bring(&name, None);
            if !made.contains(&object) {
                made.push(object);
            }
            let at = keyless.at(if authority.is_some() { "ca-cert" } else { "url" });
            let why = "a certificate authority alone is no trust root: its logs belong to it";
            notes.stricter(at, why, format!("cosign trusted-root create; {told}"));
            name
        }
    };
    if log.as_ref().is_some_and(|log| *log != trust) {
        let why = format!("the log's entries are held against the root of the certificate, {trust}");
        notes.stricter(&path, why, "make one trusted root of both: cosign trusted-root create");
    }
    if keyless.flag("insecureIgnoreSCT", notes) == Some(true) {
        let why = "that a certificate is in its log is checked, unless the trust root names no such log";
        notes.stricter(keyless.at("insecureIgnoreSCT"), why, "name a SignerTrust without logs of certificates");
    }
    let mut identities = identities(&mut keyless, notes);
    if identities.is_empty() {
        notes.beside(
            keyless.at("identities"),
            "anybody with a certificate is accepted, as there",
            "name who may sign: everybody gets a certificate",
        );
        identities.push(anybody());
    }
    keyless.end(notes);
    (Who::Keyless(Keyless { trust, identities }), path)
}

/// A root that is referred to and is not among what is converted.
fn known(root: &str, path: &str, roots: &BTreeSet<String>, notes: &mut Notes) {
    if !roots.contains(root) {
        let why = format!("the TrustRoot {root} is not among the files: its signers prove nothing until there is one");
        notes.stricter(path, why, format!("convert the TrustRoot with it, or write a SignerTrust {root}"));
    }
}

/// CUE and Rego are other languages.
fn policy(fields: &mut Fields, name: &str, what: &str, notes: &mut Notes) {
    let Some(mut policy) = fields.part(name, notes) else { return };
    let kind = policy.text("type", notes).unwrap_or_else(|| "cue".to_owned());
    for part in [
        "data",
        "url",
        "remote",
        "configMapRef",
        "fetchConfigFile",
        "includeSpec",
        "includeObjectMeta",
        "includeTypeMeta",
    ] {
        policy.take(part);
    }
    notes.weaker(
        policy.here(),
        format!("a policy {what}, in {kind}, is not translated"),
        "write a validation: attestations.NAME.all(a, a.predicate.… == …), image.config, pod, object",
    );
    policy.end(notes);
}

/// Which objects: any of these.
fn workloads(spec: &mut Fields, draft: &mut Draft, notes: &mut Notes) {
    let (mut kinds, mut ways, mut has_selector) = (Vec::new(), Vec::new(), false);
    let path = spec.at("match");
    for mut resource in spec.parts("match", notes) {
        resource.text("group", notes);
        resource.text("version", notes);
        let mut parts = Vec::new();
        if let Some(plural) = resource.text("resource", notes) {
            match kind(&plural) {
                Some(kind) => {
                    parts.push(format!("request.kind.kind == {}", cel::quoted(kind)));
                    kinds.push(kind.to_owned());
                }
                None => {
                    notes.same(resource.at("resource"), format!("`{plural}` holds no pods"));
                    resource.take("selector");
                    resource.end(notes);
                    continue;
                }
            }
        } else {
            has_selector = true;
        }
        if let Some(labels) = resource.part("selector", notes) {
            has_selector = true;
            parts.extend(selector(labels, "object.metadata.labels", notes).unwrap_or_default());
        }
        resource.end(notes);
        ways.push(cel::all(parts).unwrap_or_else(|| "true".to_owned()));
    }
    if ways.is_empty() {
        return;
    }
    kinds.sort();
    kinds.dedup();
    if has_selector {
        if let Some(expression) = cel::any(ways) {
            draft.condition("match", expression, &path);
        }
    } else {
        draft.spec.matches.workloads = kinds;
    }
}

/// The kind of a resource with pods.
pub(super) fn kind(plural: &str) -> Option<&'static str> {
    dna::Workload::kinds().find(|kind| format!("{}s", kind.to_ascii_lowercase()) == plural)
}

/// A predicate type by cosign's short names. Source: cosign, `pkg/cosign/attestation` and `cmd/cosign/cli/options/predicate.go`.
pub(super) fn predicate_type(name: &str, path: &str, notes: &mut Notes) -> String {
    let known = match name {
        "slsaprovenance" | "slsaprovenance02" => "https://slsa.dev/provenance/v0.2",
        "slsaprovenance1" => "https://slsa.dev/provenance/v1",
        "spdx" | "spdxjson" => "https://spdx.dev/Document",
        "cyclonedx" => "https://cyclonedx.org/bom",
        "link" => "https://in-toto.io/Link/v1",
        "vuln" => "https://cosign.sigstore.dev/attestation/vuln/v1",
        "openvex" => "https://openvex.dev/ns",
        "custom" => "https://cosign.sigstore.dev/attestation/v1",
        other => {
            if !other.contains(':') {
                let why = format!("`{other}` is no short name that is known, and is compared as it is");
                notes.stricter(path, why, "write the predicate type as a URI");
            }
            other
        }
    };
    known.to_owned()
}

/// The namespaces that the policy controller looks at, as it is installed.
const INCLUDED: &str = "policy.sigstore.dev/include";
const PUBLIC_LOG: &str = "https://rekor.sigstore.dev";
const PUBLIC_AUTHORITY: &str = "https://fulcio.sigstore.dev";
