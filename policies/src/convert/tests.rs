//! Samples of each product: what comes of them, that it loads and decides as they do, and that nothing is dropped silently.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    cases,
    kinds::{Action, Enforcement, Evidence, Tags},
    load,
    rules::Rules,
};

const POLICY_CONTROLLER: &str = include_str!("samples/policy-controller.yaml");
const KYVERNO: &str = include_str!("samples/kyverno.yaml");
const IMAGE_VALIDATING: &str = include_str!("samples/image-validating.yaml");

fn objects(text: &str) -> Vec<(String, Value)> {
    let documents =
        serde_yaml_ng::Deserializer::from_str(text).map(|document| Value::deserialize(document).expect("YAML"));
    documents.map(|object| ("sample.yaml".to_owned(), object)).collect()
}

fn converted(text: &str) -> (Converted, Rules) {
    let converted = convert(&objects(text));
    let rules = load([("made.yaml", converted.yaml().as_str())]);
    (converted.clone(), rules.unwrap_or_else(|errors| panic!("{errors:#?}\n{}", converted.yaml())))
}

fn paths(converted: &Converted, object: &str, effect: Effect) -> Vec<String> {
    let notes = converted.notes.iter().filter(|note| note.object == object && note.effect == effect);
    notes.map(|note| note.path.clone()).collect()
}

/// The rules decide these cases as they should.
fn assert_decides(rules: &Rules, cases: &str) {
    for result in cases::run(rules, cases).expect("cases") {
        assert!(result.failures.is_empty(), "{}: {:#?}", result.name, result.failures);
    }
}

fn spec<'r>(rules: &'r Rules, name: &str) -> &'r crate::kinds::ImageRuleSpec {
    rules.rules.iter().find(|rule| rule.id() == name).unwrap_or_else(|| panic!("no rule {name}")).spec()
}

#[test]
fn authorities_become_signers_any_of_whom_may_sign() {
    let (_, rules) = converted(POLICY_CONTROLLER);
    let spec = spec(&rules, "release-images");
    assert_eq!(spec.matches.images.include, ["docker.io/library/nginx", "ghcr.io/example/**"]);
    assert_eq!(
        spec.matches.namespaces.match_labels.get("policy.sigstore.dev/include").map(String::as_str),
        Some("true")
    );
    assert_eq!((spec.enforcement, spec.actions.as_slice()), (Enforcement::Always, [Action::Deny].as_slice()));
    let by: Vec<_> = spec.signers.iter().map(|signer| (signer.name.as_str(), signer.evidence)).collect();
    assert_eq!(by, [("build", Evidence::Log), ("release-key", Evidence::Signature)]);
    let keyless = spec.signers.first().and_then(|signer| signer.keyless.as_ref()).expect("keyless");
    let subject = keyless.identities.first().and_then(|identity| identity.subject_reg_exp.as_deref());
    assert_eq!(subject, Some("https://github.com/example/.+@refs/tags/v.*"));
    assert_decides(
        &rules,
        r#"
cases:
- name: either may sign
  object: {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {env: prod}}, spec: {containers: [{name: c, image: "ghcr.io/example/a/b:1"}]}}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  images: {c: {signedBy: [release-key]}}
  expect: {verdict: Allow}
- name: nobody did
  object: {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {env: prod}}, spec: {containers: [{name: c, image: "nginx:1"}]}}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  expect: {verdict: Deny, reasons: [IMG_UNSIGNED]}
- name: another environment is not meant
  object: {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {env: dev}}, spec: {containers: [{name: c, image: "nginx:1"}]}}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  expect: {verdict: Allow}
- name: nor another namespace
  object: {apiVersion: v1, kind: Pod, metadata: {name: p, labels: {env: prod}}, spec: {containers: [{name: c, image: "nginx:1"}]}}
  namespaceLabels: {team: a}
  expect: {verdict: Allow}
- name: a static failure warns where the policy does
  pod: {containers: [{name: c, image: "docker.io/evil/x:1"}]}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  expect: {verdict: Warn, reasons: [NOT_ALLOWED]}
"#,
    );
}

#[test]
fn attestations_of_one_authority_and_another_s_signature_are_alternatives() {
    let (converted, rules) = converted(POLICY_CONTROLLER);
    let object = "ClusterImagePolicy attested";
    assert_eq!(
        paths(&converted, object, Effect::Weaker),
        ["spec.authorities[0].attestations[0].policy", "spec.policy"]
    );
    let stricter = paths(&converted, object, Effect::Stricter);
    for path in
        ["spec.authorities[1].key.kms", "spec.authorities[1].source[0].oci", "spec.authorities[2].key.hashAlgorithm"]
    {
        assert!(stricter.iter().any(|told| told == path), "{path}: {stricter:?}");
    }
    assert_decides(
        &rules,
        r#"
cases:
- name: both attestations, but what the policies in CUE and Rego say is missing, and told
  pod: {containers: [{name: c, image: "registry.example.com/team/a:1"}]}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  images: {c: {attested: [{by: ci, type: "https://cosign.sigstore.dev/attestation/vuln/v1", predicate: {}}, {by: ci, type: "https://slsa.dev/provenance/v1", predicate: {}}]}}
  expect: {verdict: Warn, reasons: [NOT_CARRIED_OVER]}
- name: one of two attestations is not enough
  pod: {containers: [{name: c, image: "registry.example.com/team/a:1"}]}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  images: {c: {attested: [{by: ci, type: "https://slsa.dev/provenance/v1", predicate: {}}]}}
  expect: {verdict: Deny}
- name: a signature by another authority
  pod: {containers: [{name: c, image: "registry.example.com/team/a:1"}]}
  namespaceLabels: {policy.sigstore.dev/include: "true"}
  images: {c: {signedBy: [in-cluster]}}
  expect: {verdict: Warn, reasons: [NOT_CARRIED_OVER]}
"#,
    );
    let key = |name: &str| spec(&rules, "attested").signers.iter().find(|signer| signer.name == name)?.key.clone();
    let kms = key("kms").and_then(|key| key.config_map_ref).expect("a key that must be brought");
    assert_eq!(kms.name, "attested-kms-public-key");
    let secret = key("in-cluster").expect("a key");
    assert_eq!(secret.secret_ref.and_then(|secret| secret.namespace).as_deref(), Some("cosign-system"));
    assert_eq!(secret.trust.as_deref(), Some("private"));
}

#[test]
fn what_passes_anyway_is_no_rule_and_trust_roots_are_carried_over() {
    let (converted, rules) = converted(POLICY_CONTROLLER);
    assert!(!rules.rules.iter().any(|rule| rule.id() == "trusted-base"));
    assert!(
        converted
            .notes
            .iter()
            .any(|note| note.object == "ClusterImagePolicy trusted-base" && note.path.ends_with("static"))
    );
    let root = rules.trusts().get("private").and_then(|spec| spec.trusted_root.as_ref()).expect("a root");
    let root: Value = serde_json::from_str(root).expect("JSON");
    assert_eq!(root.pointer("/tlogs/0/publicKey/keyDetails"), Some(&json!("PKIX_ECDSA_P256_SHA_256")));
    assert_eq!(root.pointer("/tlogs/0/logId/keyId").and_then(Value::as_str).map(str::len), Some(44));
    assert_eq!(root.pointer("/certificateAuthorities/0/certChain/certificates/0/rawBytes"), Some(&json!("MIIB")));
    let mirrored = rules.trusts().get("mirrored").expect("a root");
    assert_eq!(mirrored.refresh.as_ref().map(|refresh| refresh.tuf.as_str()), Some("https://tuf.example.com"));
    assert!(mirrored.config_map_ref.is_some());
}

#[test]
fn attestors_count_as_they_do_in_kyverno() {
    let (converted, rules) = converted(KYVERNO);
    let rule = spec(&rules, "check-image-two-of-three");
    assert_eq!((rule.tags, rule.actions.as_slice()), (Tags::RequireDigest, [Action::Deny].as_slice()));
    assert_eq!(rule.matches.images.include, ["ghcr.io/example/**"]);
    assert_eq!(rule.matches.images.exclude, ["ghcr.io/example/scratch:**"]);
    assert_eq!(rule.matches.namespaces.exclude, ["sandbox"]);
    let signatures = rule.require.signatures.as_ref().expect("signatures");
    assert_eq!((signatures.threshold, signatures.any_of.len()), (2, 3));
    assert_eq!(rule.description.as_deref(), Some("Images are signed."));
    assert_eq!(
        paths(&converted, "ClusterPolicy check-image", Effect::Weaker),
        ["spec.rules[0].verifyImages[0].attestations[0].conditions[1]", "spec.rules[1]"]
    );
    let digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000001";
    assert_decides(
        &rules,
        &format!(
            r#"
cases:
- name: two of three are not enough without the auditor
  object: {{apiVersion: v1, kind: Pod, metadata: {{name: web-1, labels: {{app: website}}}}, spec: {{containers: [{{name: c, image: "ghcr.io/example/a/b:1{digest}"}}]}}}}
  request: {{namespace: shop-eu}}
  images: {{c: {{signedBy: [key, keyless], attested: [{{by: keyless-2, type: "https://slsa.dev/provenance/v1", predicate: {{buildDefinition: {{buildType: "https://actions.github.io/x/y", externalParameters: {{retries: 1}}}}}}}}]}}}}
  expect: {{verdict: Deny, reasons: [SIGNER_MISMATCH, NOT_CARRIED_OVER]}}
- name: one of three is not enough
  object: {{apiVersion: v1, kind: Pod, metadata: {{name: web-1, labels: {{app: website}}}}, spec: {{containers: [{{name: c, image: "ghcr.io/example/a/b:1{digest}"}}]}}}}
  request: {{namespace: shop-eu}}
  images: {{c: {{signedBy: [key], attested: [{{by: keyless-2, type: "https://slsa.dev/provenance/v1", predicate: {{buildDefinition: {{buildType: other, externalParameters: {{retries: 1}}}}}}}}]}}}}
  expect: {{verdict: Deny, reasons: [SIGNER_MISMATCH, ATTESTATION_REJECTED, NOT_CARRIED_OVER]}}
- name: an excluded name is not meant
  object: {{apiVersion: v1, kind: Pod, metadata: {{name: debug-1, labels: {{app: website}}}}, spec: {{containers: [{{name: c, image: "ghcr.io/example/a/b:1"}}]}}}}
  request: {{namespace: shop-eu}}
  expect: {{verdict: Allow}}
- name: nor another namespace
  object: {{apiVersion: v1, kind: Pod, metadata: {{name: web, labels: {{app: website}}}}, spec: {{containers: [{{name: c, image: "ghcr.io/example/a/b:1"}}]}}}}
  request: {{namespace: other}}
  expect: {{verdict: Allow}}
- name: a Deployment by the service account is
  object: {{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{template: {{spec: {{containers: [{{name: c, image: "ghcr.io/example/a/b:1{digest}"}}]}}}}}}}}
  request: {{namespace: other, operation: CREATE, userInfo: {{username: "system:serviceaccount:ops:deployer"}}}}
  expect: {{verdict: Deny}}
"#
        ),
    );
}

#[test]
fn policies_of_a_namespace_and_what_cannot_be_known() {
    let (converted, rules) = converted(KYVERNO);
    let first = spec(&rules, "shop/own-1");
    assert_eq!(first.actions, [Action::Audit, Action::Warn]);
    let object = "Policy shop/own";
    assert_eq!(paths(&converted, object, Effect::Weaker), ["spec.rules[0].verifyImages[1].type"]);
    let stricter = paths(&converted, object, Effect::Stricter);
    for path in [
        "spec.rules[0].exclude.any[0].clusterRoles",
        "spec.rules[0].verifyImages[0].repository",
        "spec.rules[0].verifyImages[0].attestors[0].entries[0].keys.kms",
        "spec.rules[0].verifyImages[0].attestors[0].entries[1].attestor.entries[0].certificates",
    ] {
        assert!(stricter.iter().any(|told| told == path), "{path}: {stricter:?}");
    }
    // Of Notation nothing is left but the warning that it is missing.
    let second = spec(&rules, "shop/own-2");
    assert_eq!(second.validations.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["not-carried-over"]);
    assert!(second.require.signatures.is_none());
}

#[test]
fn expressions_that_verify_become_what_is_required() {
    let (converted, rules) = converted(IMAGE_VALIDATING);
    let rule = spec(&rules, "verified");
    assert_eq!(rule.tags, Tags::RequireDigest);
    assert_eq!(rule.matches.images.include, ["ghcr.io/example/**"]);
    let attestation = rule.require.attestations.first().expect("an attestation");
    assert_eq!(
        (attestation.predicate_type.as_str(), attestation.from.as_slice()),
        ("https://slsa.dev/provenance/v1", ["cosign".to_owned()].as_slice())
    );
    let expressions: Vec<_> = rule.validations.iter().map(|it| it.expression.as_str()).collect();
    assert_eq!(
        expressions,
        [
            "object.metadata.name != 'forbidden'",
            "signatures.exists(s, s.signer == \"cosign\") && (signatures.exists(s, s.signer == \"key\" && s.annotations[\"stage\"] == \"prod\"))",
            "attestations.prov.all(a, a.predicate.buildDefinition.buildType == 'x')",
            "false",
        ]
    );
    let object = "ImageValidatingPolicy verified";
    assert_eq!(
        paths(&converted, object, Effect::Weaker),
        ["spec.attestors[2].notary", "spec.attestations[1].referrer", "spec.validations[3].expression"]
    );
    assert_eq!(
        paths(&converted, object, Effect::Stricter),
        ["spec.attestors[1].cosign.ctlog.insecureIgnoreSCT", "spec.matchConditions[1].expression"]
    );
    assert_eq!(rule.variables.len(), 1, "one that is no expression here is told and left out");
    let own = spec(&rules, "shop/own");
    assert_eq!(own.require.signatures.as_ref().map(|it| it.any_of.clone()), Some(vec!["tufed".to_owned()]));
    assert_eq!(own.actions, [Action::Audit]);
    assert!(rules.trusts().contains_key("own-tufed-trust"));
}

#[test]
fn forms_of_expressions_are_read_and_others_are_not() {
    let policy = |expression: &str| {
        format!(
            "apiVersion: policies.kyverno.io/v1\nkind: ImageValidatingPolicy\nmetadata: {{name: p}}\nspec:\n  attestors:\n  - {{name: a, cosign: {{keyless: {{identities: [{{issuer: i, subject: s}}]}}}}}}\n  - {{name: b, cosign: {{keyless: {{identities: [{{issuer: i, subject: t}}]}}}}}}\n  validations:\n  - expression: >-\n      {expression}\n"
        )
    };
    for (expression, threshold) in [
        ("images.containers.map(i, verifyImageSignatures(i, [attestors.a])).all(e, e > 0)", 1),
        ("images.containers.all(i, verifyImageSignatures(i, [attestors.a, attestors['b']]) >= 2)", 2),
        (
            "(images.containers + images.initContainers).map(i, verifyImageSignatures(i, [attestors.a, attestors.b])).all(n, n > 1)",
            2,
        ),
    ] {
        let (converted, rules) = converted(&policy(expression));
        assert!(!converted.is_weaker(), "{expression}: {:#?}", converted.notes);
        let signatures = spec(&rules, "p").require.signatures.clone().expect(expression);
        assert_eq!(signatures.threshold, threshold, "{expression}");
    }
    for expression in [
        "images.containers.map(i, verifyImageSignatures(i, [attestors.a])).exists(e, e > 0)",
        "images.containers.map(i, verifyImageSignatures(i, [attestors.a])).all(e, e >= 0)",
        "images.containers.map(i, verifyImageSignatures(j, [attestors.a])).all(e, e > 0)",
        "images.containers.map(i, verifyImageSignatures(i, [attestors.c])).all(e, e > 0)",
        "images.containers.map(i, verifyImageSignatures(i, [attestors.a])).all(e, f > 0)",
        "true || images.containers.map(i, verifyImageSignatures(i, [attestors.a])).all(e, e > 0)",
        "images.containers.map(i, verifyImageSignatures(i, [attestors.a])).all(e, e > 0) || true",
    ] {
        let (converted, _) = converted(&policy(expression));
        assert!(converted.is_weaker(), "{expression} is told");
    }
}

/// Puts a field that nobody knows into every object, one at a time: each is told.
#[test]
fn no_field_is_dropped_silently() {
    for text in [POLICY_CONTROLLER, KYVERNO, IMAGE_VALIDATING] {
        for (_, object) in &objects(text) {
            let mut places = Vec::new();
            walk(object, String::new(), &mut places);
            for place in places {
                let mut all = vec![("sample.yaml".to_owned(), object.clone())];
                let (_, changed) = all.first_mut().expect("the object");
                let parent = changed.pointer_mut(&place).and_then(Value::as_object_mut).expect("an object");
                parent.insert("zzUnknown".to_owned(), json!("x"));
                let converted = convert(&all);
                let is_told = converted.notes.iter().any(|note| {
                    note.effect != Effect::Same && note.path.contains("zzUnknown") || covers(&note.path, &place)
                });
                assert!(is_told, "{place} of {object:#}");
                let loaded = load([("made.yaml", converted.yaml().as_str())]);
                assert!(loaded.is_ok(), "{place}: {loaded:?}");
            }
        }
    }
}

/// Whether a note is about a part as a whole, so that what is in it is told with it.
fn covers(path: &str, pointer: &str) -> bool {
    let mut shown = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        let part = part.replace("~1", "/");
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            shown.push_str(&format!("[{part}]"));
        } else {
            shown.push_str(if shown.is_empty() { "" } else { "." });
            shown.push_str(&part);
        }
    }
    // What is told of the whole spec says nothing of its parts.
    path.len() > "spec".len()
        && (shown == path || shown.starts_with(&format!("{path}.")) || shown.starts_with(&format!("{path}[")))
}

/// Pointers of all objects whose fields have names of their own: no labels, annotations and the like.
fn walk(value: &Value, pointer: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let is_free = ["labels", "annotations", "matchLabels", "additionalExtensions"]
                .iter()
                .any(|name| pointer.ends_with(name));
            if !is_free {
                places.push(pointer.clone());
            }
            for (name, value) in fields.iter().filter(|_| !is_free) {
                walk(value, format!("{pointer}/{}", name.replace('/', "~1")), places);
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| walk(value, format!("{pointer}/{at}"), places));
        }
        _ => {}
    }
}

#[test]
fn wrong_values_are_told_and_nothing_panics() {
    for text in [POLICY_CONTROLLER, KYVERNO, IMAGE_VALIDATING] {
        for (_, object) in &objects(text) {
            let mut places = Vec::new();
            walk(object, String::new(), &mut places);
            for place in places.iter().filter(|place| !place.is_empty()) {
                for wrong in [json!(7), json!("x"), json!([7]), Value::Null] {
                    let mut all = vec![("sample.yaml".to_owned(), object.clone())];
                    let (_, changed) = all.first_mut().expect("the object");
                    *changed.pointer_mut(place).expect("a place") = wrong.clone();
                    let converted = convert(&all);
                    let loaded = load([("made.yaml", converted.yaml().as_str())]);
                    assert!(loaded.is_ok(), "{place} = {wrong}: {loaded:?}\n{}", converted.yaml());
                }
            }
        }
    }
}
