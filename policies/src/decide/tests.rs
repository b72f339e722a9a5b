//! What must hold of every decision.

use std::collections::BTreeMap;

use ::dna::{Cause, Digest, Fact, Gap, SubjectFacts};
use jiff::Timestamp;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::decide;
use crate::{
    cases::{Case, review},
    decision::{Decision, Effect, Verdict},
    load::load,
    review::Review,
    rules::Rules,
};

fn rules(specs: &[String]) -> Rules {
    let documents: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(at, spec)| {
            format!(
                "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {{name: rule{at}}}\nspec: {spec}\n"
            )
        })
        .collect();
    load([("rules", documents.join("---\n").as_str())]).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn case(json: Value) -> Case {
    serde_json::from_value(json).expect("a case")
}

fn decided(rules: &Rules, json: Value) -> Decision {
    let review = review(rules, &case(json)).expect("a review");
    decide(&review, rules, now())
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn codes(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

const CI: &str = "signers: [{name: ci, keyless: {identities: [{issuer: i, subject: s}]}}]";

#[test]
fn the_example_of_families_comes_to_what_its_cases_say() {
    let rules = load([("families.yaml", include_str!("../../examples/families.yaml"))]).expect("rules");
    let results = crate::cases::run(&rules, include_str!("../../examples/families.cases.yaml")).expect("cases");
    let failed: Vec<_> = results.iter().filter(|result| !result.failures.is_empty()).collect();
    assert!(results.len() == 5 && failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_rule_is_not_told_which_other_images_there_are() {
    for name in ["members", "nearest"] {
        let text = format!(
            "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {{name: r}}\n\
            spec: {{validations: [{{name: x, expression: 'kinship.{name}.size() == 0'}}]}}"
        );
        let errors = load([("rule", text.as_str())]).expect_err("a name that there is not");
        assert!(errors.iter().any(|error| error.to_string().contains(&format!("no field `{name}`"))), "{errors:#?}");
    }
}

#[test]
fn nothing_is_refused_until_it_is_in_force() {
    let by_digest = |more: &str| rules(&[format!("{{tags: RequireDigest, {more}}}")]);
    let pod = |labels: Value| {
        json!({"name": "", "pod": {"containers": [{"name": "a", "image": "nginx"}]},
        "namespaceLabels": labels, "expect": {"verdict": "Allow"}})
    };
    let verdict = |rules: &Rules, labels: Value| decided(rules, pod(labels)).verdict;
    let enforce = |value: &str| json!({"mayfly.dev/enforce": value});
    let plain = by_digest("");
    assert_eq!(verdict(&plain, json!({})), Verdict::Allow);
    assert_eq!(codes(&decided(&plain, pod(json!({})))), ["TAG_NOT_DIGEST"], "it is recorded");
    assert_eq!(verdict(&plain, enforce("false")), Verdict::Allow);
    assert_eq!(verdict(&plain, enforce("true")), Verdict::Deny);
    assert_eq!(verdict(&plain, enforce("rule0")), Verdict::Deny);
    assert_eq!(verdict(&plain, enforce("other.rule0")), Verdict::Deny);
    assert_eq!(verdict(&plain, enforce("other")), Verdict::Allow);
    assert_eq!(verdict(&by_digest("enforcement: Always"), json!({})), Verdict::Deny);
    assert_eq!(verdict(&by_digest("actions: [Warn]"), json!({})), Verdict::Warn);
    assert_eq!(verdict(&by_digest("rollout: {auditUntil: 2027-01-01T00:00:00Z}"), enforce("true")), Verdict::Allow);
    assert_eq!(verdict(&by_digest("rollout: {auditUntil: 2025-01-01T00:00:00Z}"), enforce("true")), Verdict::Deny);
}

#[test]
fn a_mirror_pod_is_only_recorded() {
    let rules = rules(&["{tags: RequireDigest, enforcement: Always}".to_owned()]);
    let case = case(
        json!({"name": "", "pod": {"containers": [{"name": "a", "image": "nginx"}]}, "expect": {"verdict": "Allow"}}),
    );
    let mut review = review(&rules, &case).expect("a review");
    assert_eq!(decide(&review, &rules, now()).verdict, Verdict::Deny);
    review.audit_only = true;
    let decision = decide(&review, &rules, now());
    assert_eq!((decision.verdict, codes(&decision)), (Verdict::Allow, vec!["TAG_NOT_DIGEST"]));
}

#[test]
fn an_image_that_nobody_asked_about_denies() {
    let rules = rules(&["{enforcement: Always, actions: [Deny]}".to_owned()]);
    let pods = [
        json!({"containers": [{"name": "a", "image": "nginx"}]}),
        json!({"containers": [], "ephemeralContainers": [{"name": "a", "image": "nginx"}]}),
        json!({"containers": [], "volumes": [{"name": "a", "image": {"reference": "nginx"}}]}),
        json!({"containers": "none"}),
        json!("none"),
    ];
    for pod in pods {
        let case = case(json!({"name": "", "pod": pod, "expect": {"verdict": "Deny"}}));
        let mut review = review(&rules, &case).expect("a review");
        review.subjects.clear();
        assert_eq!(decide(&review, &rules, now()).verdict, Verdict::Deny, "{pod}");
    }
}

#[test]
fn a_volume_s_image_is_not_covered_by_what_is_known_of_a_container_of_its_name() {
    let rules = rules(&["{enforcement: Always}".to_owned()]);
    let pod = json!({"containers": [{"name": "a", "image": "nginx"}], "volumes": [{"name": "a", "image": {"reference": "redis"}}]});
    let case = case(json!({"name": "", "pod": pod, "expect": {"verdict": "Allow"}}));
    let mut review = review(&rules, &case).expect("a review");
    assert_eq!(decide(&review, &rules, now()).verdict, Verdict::Allow);
    review.subjects.retain(|facts| facts.image.used.role != ::dna::Role::Volume);
    assert_eq!(codes(&decide(&review, &rules, now())), ["NOT_ASKED"]);
}

#[test]
fn a_namespace_that_cannot_be_looked_up_is_not_left_out() {
    let rules = rules(&["{tags: RequireDigest, match: {namespaces: {matchLabels: {tier: prod}}}}".to_owned()]);
    let case = case(
        json!({"name": "", "pod": {"containers": [{"name": "a", "image": "nginx"}]}, "expect": {"verdict": "Allow"}}),
    );
    let mut review = review(&rules, &case).expect("a review");
    assert_eq!(decide(&review, &rules, now()).verdict, Verdict::Allow, "another tier");
    review.namespace_object = Value::Null;
    assert_eq!(decide(&review, &rules, now()).verdict, Verdict::Deny);
}

#[test]
fn exceptions_let_pass_what_they_name_until_they_end() {
    let rule = "apiVersion: mayfly.dev/v1alpha1\nkind: ClusterImageRule\nmetadata: {name: a}\nspec: {tags: RequireDigest, enforcement: Always}\n";
    let exception = |spec: &str| {
        format!(
            "{rule}---\napiVersion: mayfly.dev/v1alpha1\nkind: RuleException\nmetadata: {{name: e}}\nspec: {{reason: INC-1, {spec}}}\n"
        )
    };
    let decision = |spec: &str| {
        let rules = load([("x", exception(spec).as_str())]).unwrap_or_else(|errors| panic!("{errors:#?}"));
        decided(
            &rules,
            json!({"name": "", "pod": {"containers": [{"name": "a", "image": "nginx"}]}, "expect": {"verdict": "Allow"}}),
        )
    };
    let good = "rules: [a], images: ['docker.io/library/nginx'], expires: 2026-06-01T00:00:00Z";
    let passed = decision(good);
    assert_eq!((passed.verdict, passed.exceptions.len()), (Verdict::Allow, 1));
    assert_eq!(passed.exceptions.first().map(|used| used.reason.as_str()), Some("INC-1"));
    assert_eq!(decision(&format!("{good}, checks: [TAG_NOT_DIGEST], namespaces: [default]")).verdict, Verdict::Allow);
    for other in [
        good.replace("2026-06", "2025-06"),
        good.replace("[a]", "[b]"),
        good.replace("nginx", "redis"),
        format!("{good}, checks: [IMG_UNSIGNED]"),
        format!("{good}, namespaces: [other]"),
    ] {
        assert_eq!(decision(&other).verdict, Verdict::Deny, "{other}");
    }
}

#[test]
fn signatures_count_by_signer_and_only_of_this_image() {
    let signers = "signers: [{name: a, keyless: {identities: [{issuer: i, subject: a}]}}, {name: b, keyless: {identities: [{issuer: i, subject: b}]}}]";
    let rules = rules(&[format!(
        "{{{signers}, enforcement: Always, require: {{signatures: {{anyOf: [a, b], threshold: 2}}}}}}"
    )]);
    let pod = json!({"containers": [{"name": "x", "image": "nginx"}]});
    let decision = |image: Value| {
        decided(&rules, json!({"name": "", "pod": pod, "images": {"x": image}, "expect": {"verdict": "Allow"}}))
    };
    assert_eq!(decision(json!({"signedBy": ["a", "b"]})).verdict, Verdict::Allow);
    assert_eq!(codes(&decision(json!({"signedBy": ["a", "a"]}))), ["SIGNER_MISMATCH"], "one signer twice");
    assert_eq!(codes(&decision(json!({}))), ["IMG_UNSIGNED"]);
    let refused = json!({"refusals": [{"reason": "wrongIdentity", "detail": "it is signed by c", "carrier": Digest::sha256(b"")}]});
    let told = decision(refused);
    assert_eq!(codes(&told), ["SIGNER_MISMATCH"]);
    assert!(told.message().contains("it is signed by c"), "{}", told.message());
    let other = json!({"signedBy": ["a", "b"], "resolved": {"known": {"digest": Digest::sha256(b"other"),
        "platformDigest": Digest::sha256(b"other"), "platform": "linux/amd64"}}});
    assert_eq!(decision(other).verdict, Verdict::Deny, "signatures of another digest");
    let not_asked = json!({"signedBy": ["a"], "signers": []});
    assert_eq!(codes(&decision(not_asked)), ["NOT_ASKED"]);
}

#[test]
fn a_missing_attestation_is_never_an_empty_list() {
    let validations = [
        "attestations.scan.all(s, s.predicate.ok)",
        "attestations.?scan.orValue([]).all(s, s.predicate.ok)",
        "!attestations.?scan.hasValue()",
        "!has(attestations.scan)",
        "attestations.scan.size() == 0",
        "signatures.all(s, s.issuer == 'i')",
    ];
    for validation in validations {
        let rules = rules(&[format!(
            "{{{CI}, enforcement: Always, require: {{attestations: [{{name: scan, predicateType: t, from: [ci]}}]}}, \
             validations: [{{name: v, actions: [Deny], expression: \"{validation}\"}}]}}"
        )]);
        let pod = json!({"containers": [{"name": "x", "image": "nginx"}]});
        let decision = decided(&rules, json!({"name": "", "pod": pod, "expect": {"verdict": "Deny"}}));
        assert_eq!(decision.verdict, Verdict::Deny, "{validation}");
        assert!(
            decision.reasons.iter().any(|reason| reason.check.as_deref() == Some("v")),
            "{validation}: {decision:#?}"
        );
    }
}

#[test]
fn conditions_say_whether_a_rule_applies_and_one_that_fails_applies_it() {
    let verdict = |expression: &str| {
        let rules = rules(&[format!(
            "{{tags: RequireDigest, enforcement: Always, match: {{conditions: [{{name: c, expression: \"{expression}\"}}]}}}}"
        )]);
        let decision = decided(
            &rules,
            json!({"name": "", "expect": {"verdict": "Deny"},
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "x", "image": "nginx@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}}}),
        );
        (decision.verdict, codes(&decision).iter().map(|code| (*code).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(verdict("object.metadata.labels.a == 'b'"), (Verdict::Allow, vec![]));
    assert_eq!(verdict("object.metadata.labels.a != 'b'"), (Verdict::Allow, vec![]));
    assert_eq!(verdict("object.metadata.labels.c == 'b'"), (Verdict::Deny, vec!["EVALUATION_ERROR".to_owned()]));
    assert_eq!(verdict("request.namespace == 'default' && request.operation == 'CREATE'"), (Verdict::Allow, vec![]));
}

#[test]
fn a_rule_that_was_taken_out_denies() {
    let rules = rules(&["{enforcement: Always, validations: [{name: a, expression: 'true'}]}".to_owned()]);
    let pod =
        json!({"name": "", "pod": {"containers": [{"name": "x", "image": "nginx"}]}, "expect": {"verdict": "Allow"}});
    assert_eq!(decided(&rules, pod.clone()).verdict, Verdict::Allow);
    assert!(rules.disable("rule0") && !rules.disable("other"));
    let decision = decided(&rules, pod);
    assert_eq!((decision.verdict, codes(&decision)), (Verdict::Deny, vec!["RULE_DISABLED"]));
    assert_eq!(rules.disabled().collect::<Vec<_>>(), ["rule0"]);
}

#[test]
fn messages_and_annotations_keep_to_what_kubernetes_allows() {
    let validations: String = (0..60)
        .map(|at| {
            format!(
                "{{name: v{at}, expression: 'false', message: \"{}\", actions: [{}]}},",
                "é".repeat(500),
                if at % 2 == 0 { "Deny" } else { "Warn" }
            )
        })
        .collect();
    let rules = rules(&[format!("{{enforcement: Always, validations: [{validations}]}}")]);
    let containers: Vec<_> = (0..20).map(|at| json!({"name": format!("c{at}"), "image": "nginx"})).collect();
    let decision =
        decided(&rules, json!({"name": "", "pod": {"containers": containers}, "expect": {"verdict": "Deny"}}));
    assert!(decision.message().len() <= 5 << 10, "{}", decision.message().len());
    assert!(decision.message().contains("more"));
    let warnings = decision.warnings();
    assert_eq!(warnings.len(), 10);
    assert!(warnings.iter().all(|warning| warning.chars().count() <= 120), "{warnings:?}");
    let annotations: usize = decision.annotations().iter().map(|(name, text)| name.len() + text.len()).sum();
    assert!(annotations <= 8 << 10, "{annotations}");
}

#[test]
fn an_update_that_changes_nothing_a_rule_reads_is_known_as_that() {
    let check = |expression: &str| rules(&[format!("{{validations: [{{name: a, expression: \"{expression}\"}}]}}")]);
    let pod = |label: &str, image: &str, privileged: bool| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": label}, "ownerReferences": []},
            "spec": {"containers": [{"name": "x", "image": image, "securityContext": {"privileged": privileged}}]}})
    };
    let unchanged = |rules: &Rules, new: Value, old: Value| {
        let case = case(json!({"name": "", "object": new, "oldObject": old, "expect": {"verdict": "Allow"}}));
        let review = review(rules, &case).expect("a review");
        let images = |object: &Value| {
            let spec = rules.pod_spec(&review.request.kind, object).and_then(|pod| ::dna::PodSpec::read(pod).ok());
            spec.expect("a pod").images().collect()
        };
        let matching = rules.matching(&review);
        rules.unchanged(&review, &matching, &images(&review.object), &images(&review.old_object))
    };
    let privileged = check("!container.?securityContext.?privileged.orValue(false)");
    assert!(unchanged(&privileged, pod("a", "nginx", false), pod("b", "nginx", false)), "a label that nobody reads");
    assert!(
        !unchanged(&privileged, pod("a", "nginx", true), pod("a", "nginx", false)),
        "privileged, with the same image"
    );
    assert!(!unchanged(&privileged, pod("a", "nginx", false), pod("a", "redis", false)), "another image");
    let labels = check("object.metadata.labels.a == 'a'");
    assert!(!unchanged(&labels, pod("a", "nginx", false), pod("b", "nginx", false)), "a label that is read");
    let findings = check("findings.all(f, f.effect != 'fails')");
    assert!(
        !unchanged(&findings, pod("a", "nginx", true), pod("a", "nginx", false)),
        "findings follow from all of the pod"
    );
    assert!(unchanged(&findings, pod("a", "nginx", true), pod("b", "nginx", true)));
    let who = check("request.userInfo.username == 'a'");
    assert!(!unchanged(&who, pod("a", "nginx", true), pod("a", "nginx", true)), "who asks is another each time");
    let nothing = json!(null);
    let case = case(json!({"name": "", "object": pod("a", "nginx", false), "expect": {"verdict": "Allow"}}));
    let created = review(&privileged, &case).expect("a review");
    assert!(
        created.old_object == nothing && !privileged.unchanged(&created, &[], &[].into(), &[].into()),
        "a creation never is"
    );
}

#[test]
fn what_must_be_known_is_told_before_anything_is_looked_up() {
    let rules = rules(&[
        format!(
            "{{{CI}, match: {{images: {{include: ['docker.io/**']}}}}, require: {{signatures: {{anyOf: [ci]}}, attestations: [{{name: p, predicateType: t, from: [ci]}}]}}}}"
        ),
        "{match: {images: {include: ['quay.io/**']}}, validations: [{name: a, expression: 'dna.programs.size() > 0'}]}"
            .to_owned(),
        "{validations: [{name: a, expression: \"image.config.user != '' && findings.size() == 0\"}]}".to_owned(),
    ]);
    let case = case(
        json!({"name": "", "pod": {"containers": [{"name": "x", "image": "nginx"}]}, "expect": {"verdict": "Allow"}}),
    );
    let review = review(&rules, &case).expect("a review");
    let image = &review.subjects.first().expect("an image").image;
    let mut needs = crate::Needs::default();
    rules.matching(&review).iter().for_each(|matching| matching.needs(image, &review, &mut needs));
    assert!(needs.digest && needs.config && needs.signatures && needs.dna && needs.expectation);
    assert!(!needs.full_dna, "the rule that reads programs is about others");
    assert_eq!((needs.signers.len(), needs.attestations.len()), (1, 1));
    assert!(needs.dna_signers.is_empty() && needs.dna_analyzed);
}

/// Specs of rules that look at facts, all in force.
fn spec() -> impl Strategy<Value = String> {
    let require = select(vec![
        "require: {signatures: {anyOf: [ci]}}",
        "require: {attestations: [{name: p, predicateType: t, from: [ci], maxAge: 24h}]}",
        "require: {dna: {}}",
        "require: {dna: {onMissing: Deny}}",
        "validations: [{name: v, expression: 'findings.size() == 0'}]",
        "validations: [{name: v, expression: \"signatures.exists(s, s.signer == 'ci')\"}]",
        "require: {attestations: [{name: p, predicateType: t, from: [ci], optional: true}]}, validations: [{name: v, expression: 'has(attestations.p)'}]",
        "require: {attestations: [{name: p, predicateType: t, from: [ci], optional: true}]}, validations: [{name: v, expression: 'attestations.?p.orValue([]).size() < 9'}]",
        "validations: [{name: v, expression: 'dna.behavior.exec.size() < 9'}]",
        "validations: [{name: v, expression: \"image.digest.startsWith('sha256:')\"}]",
        "variables: [{name: w, expression: 'findings.size()'}], validations: [{name: v, expression: 'variables.w == 0'}]",
    ]);
    let unknown = select(vec![
        "",
        "registry: Warn",
        "deadline: Warn, throttled: Warn",
        "registry: UseLastVerified, maxStaleness: 24h",
    ]);
    (require, unknown)
        .prop_map(|(require, unknown)| format!("{{{CI}, enforcement: Always, {require}, onUnknown: {{{unknown}}}}}"))
}

fn cause() -> impl Strategy<Value = Cause> {
    select(vec![
        Cause::Registry,
        Cause::Throttled,
        Cause::Credentials,
        Cause::Deadline,
        Cause::TrustExpired,
        Cause::AnalysisPending { retry_seconds: None },
        Cause::AnalysisFailed,
        Cause::Ledger,
        Cause::NotAsked,
    ])
}

/// Facts of one image of which any may be known, absent or unknown.
fn image() -> impl Strategy<Value = (Value, [Option<Cause>; 6])> {
    let cause = || proptest::option::of(cause());
    (any::<bool>(), any::<bool>(), [cause(), cause(), cause(), cause(), cause(), cause()]).prop_map(
        |(signed, attested, causes)| {
            let attestation = json!([{"type": "t", "by": "ci", "predicate": {}}]);
            let mut image = json!({"signedBy": if signed { json!(["ci"]) } else { json!([]) },
            "attested": if attested { attestation } else { json!([]) }});
            for (name, cause) in ["resolved", "signatures", "attestations", "dna", "expectation"].iter().zip(&causes) {
                if let (Some(cause), Some(image)) = (cause, image.as_object_mut()) {
                    image.insert((*name).to_owned(), json!({"unknown": {"cause": cause, "detail": "d"}}));
                }
            }
            (image, causes)
        },
    )
}

fn reviewed(rules: &Rules, images: &[Value]) -> Review {
    let containers: Vec<_> =
        (0..images.len()).map(|at| json!({"name": format!("c{at}"), "image": format!("nginx:{at}")})).collect();
    let facts: BTreeMap<_, _> =
        images.iter().enumerate().map(|(at, image)| (format!("c{at}"), image.clone())).collect();
    let case =
        case(json!({"name": "", "pod": {"containers": containers}, "images": facts, "expect": {"verdict": "Allow"}}));
    review(rules, &case).expect("a review")
}

/// Whether a rule says that an unknown of this cause may pass. What was never known before cannot be used instead.
fn may_pass(spec: &str, cause: Cause) -> bool {
    match cause {
        Cause::Registry => spec.contains("registry: Warn"),
        Cause::Deadline => spec.contains("deadline: Warn"),
        Cause::Throttled => spec.contains("throttled: Warn"),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_unknown_never_passes_but_where_the_rule_says_so(spec in spec(), cause in cause(), which in 0..5usize) {
        let rules = rules(std::slice::from_ref(&spec));
        let good = json!({"signedBy": ["ci"], "attested": [{"type": "t", "by": "ci", "predicate": {}}]});
        let mut review = reviewed(&rules, &[good]);
        let known = decide(&review, &rules, now());
        let facts = review.subjects.first_mut().expect("an image");
        let what = *["image", "signatures", "attestations", "dna", "expectation"].get(which).expect("one of five");
        blind(facts, which, cause);
        let matching = rules.matching(&review);
        let mut needs = crate::Needs::default();
        let image = review.subjects.first().expect("an image").image.clone();
        matching.iter().for_each(|matching| matching.needs(&image, &review, &mut needs));
        let is_needed = match what {
            "image" => true,
            "signatures" => needs.signatures,
            "attestations" => !needs.attestations.is_empty() && !spec.contains("optional: true}]}, onUnknown"),
            "dna" => needs.dna,
            _ => needs.expectation,
        };
        let decision = decide(&review, &rules, now());
        if is_needed {
            prop_assert!(decision.verdict != Verdict::Allow, "{spec} {} {cause}: {decision:#?}", what);
            if !may_pass(&spec, cause) {
                prop_assert_eq!(decision.verdict, Verdict::Deny, "{} {} {}", spec, what, cause);
            } else if known.verdict == Verdict::Allow {
                prop_assert!(!decision.unknown.is_empty(), "it is recorded as admitted unknown: {decision:#?}");
            }
        }
        prop_assert!(decision.verdict >= known.verdict || known.verdict == Verdict::Deny, "less known, milder: {spec}");
    }

    #[test]
    fn one_more_rule_never_makes_a_verdict_milder(specs in proptest::collection::vec(spec(), 1..4), (image, _) in image()) {
        let (all, fewer) = (rules(&specs), rules(specs.split_last().map(|(_, fewer)| fewer).unwrap_or_default()));
        let review = reviewed(&all, &[image]);
        let (more, less) = (decide(&review, &all, now()), decide(&review, &fewer, now()));
        prop_assert!(more.verdict >= less.verdict);
        prop_assert!(less.reasons.iter().all(|reason| more.reasons.contains(reason)));
    }

    #[test]
    fn order_does_not_matter(
        specs in proptest::collection::vec(spec(), 1..4),
        images in proptest::collection::vec(image(), 1..4),
        gap in proptest::option::of(cause()),
    ) {
        let forward = rules(&specs);
        let images: Vec<_> = images.into_iter().map(|(image, _)| image).collect();
        let mut review = reviewed(&forward, &images);
        if let (Some(cause), Some(facts)) = (gap, review.subjects.first_mut()) {
            facts.gaps.push(Gap { cause, detail: "g".to_owned() });
        }
        let mut backward = rules(&specs);
        backward.rules.reverse();
        let mut turned = review.clone();
        turned.subjects.reverse();
        prop_assert_eq!(decide(&review, &forward, now()), decide(&turned, &backward, now()));
    }

    #[test]
    fn a_denial_has_a_reason_and_nothing_else_has_one_that_denies((image, _) in image(), spec in spec()) {
        let rules = rules(&[spec]);
        let decision = decide(&reviewed(&rules, &[image]), &rules, now());
        let denies = decision.reasons.iter().any(|reason| reason.effect == Effect::Deny);
        prop_assert_eq!(denies, decision.verdict == Verdict::Deny);
        prop_assert_eq!(denies, !decision.message().is_empty());
        prop_assert_eq!(decision.is_allowed(), !denies);
    }
}

/// Makes one fact unknown, and what follows from it.
fn blind(facts: &mut SubjectFacts, which: usize, cause: Cause) {
    fn unknown<T>(cause: Cause) -> Fact<T> {
        Fact::unknown(cause, "d")
    }
    match which {
        0 => facts.resolved = unknown(cause),
        1 => facts.signatures = unknown(cause),
        2 => facts.attestations = unknown(cause),
        3 => facts.dna = unknown(cause),
        _ => facts.expectation = unknown(cause),
    }
}
